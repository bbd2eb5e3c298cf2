"""A file → an answer: read, searched, told with its doubt."""

from __future__ import annotations

from pipeline.spectral import SEGMENT_S
from trainer.search.answers import Answer, Match
from trainer.search.embedders import Embedder
from trainer.search.finding import OTHER, Stretch, Windows, searched
from trainer.search.folder import Index
from trainer.search.placing import Alignment
from trainer.search.queries import Query

RATE = 0.01  # false alarms
NAMES = ("key", "composer", "title", "composition", "split")


def ask(
    query: Query, index: Index, embedder: Embedder, *, most: int = 10, rate: float = RATE
) -> Answer:
    """Which recordings of an index a query is, and where in them.

    Parameters
    ----------
    most : recordings that are told
    rate : share of false alarms up to which a recording is called found
    """
    haystack = index.haystacks[OTHER[query.side]]
    found = searched(Stretch.whole(Windows(query, embedder, haystack)), haystack)
    chance = index.chance(query.side)
    names = index.names
    matches = []
    for rank, alignment in enumerate((a for a in found[:most] if a.pairs), 1):
        alarms = chance.false_alarms(alignment.score, query.seconds)
        number = alignment.candidate.recording
        matches.append(
            Match(
                rank=rank,
                recording=int(names["store_recording"][number]),
                **{name: str(names[name][number]) for name in NAMES},
                score=round(alignment.score, 2),
                false_alarms=alarms,
                found=alarms is not None and alarms <= rate,
                query_s=_span(
                    alignment.query_s, SEGMENT_S / alignment.candidate.tempo, query.seconds
                ),
                recording_s=_recording_span(alignment, float(names["duration_s"][number])),
                tempo=round(alignment.candidate.tempo, 3),
            )
        )
    return Answer(
        query=query.name,
        side=query.side,
        seconds=query.seconds,
        matches=tuple(matches),
        embedder=embedder.name,
        rate=rate,
    )


def _span(starts: tuple[float, float], length: float, most: float) -> tuple[float, float]:
    return round(starts[0], 2), round(min(starts[1] + length, most), 2)


def _recording_span(alignment: Alignment, seconds: float) -> tuple[float, float]:
    """Where in the recording the stretch of the query lies: finer than whole segments."""
    candidate = alignment.candidate
    first, last = (candidate.offset_s + candidate.tempo * t for t in alignment.query_s)
    return _span((max(0.0, first), max(0.0, last)), SEGMENT_S, seconds)
