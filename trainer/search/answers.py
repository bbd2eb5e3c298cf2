"""What a search says: recordings in order, where in them, and how sure that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pipeline.base.tracks import clock
from pipeline.descriptors.contract import Side

SCHEMA = 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """One recording that the query may be.

    Attributes
    ----------
    rank : 1 is the best
    recording : its number in the index's store
    key, composer, title, composition, split : as the store has them
    score : sum of likenesses beyond chance along the alignment (:mod:`trainer.search.placing`)
    false_alarms : of queries of this length whose music is not in the index, the estimated share that
        would score so high; None where the index is too small to say
    found : whether that share is at most what was asked for
    query_s, recording_s : (start, stop) of the stretch that agrees, in seconds
    tempo : seconds of the recording that pass in one of the query
    """

    rank: int
    recording: int
    key: str
    composer: str
    title: str
    composition: str
    split: str
    score: float
    false_alarms: float | None
    found: bool
    query_s: tuple[float, float]
    recording_s: tuple[float, float]
    tempo: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """All that is said of one query.

    Attributes
    ----------
    query, side, seconds : the file, ``audio`` or ``midi``, how long it is
    matches : best first; may be empty
    embedder : name of the model or baseline
    rate : false alarms that were asked for
    """

    query: str
    side: Side
    seconds: float
    matches: Sequence[Match]
    embedder: str
    rate: float

    @property
    def found(self) -> bool:
        """Whether any recording is."""
        return any(match.found for match in self.matches)

    def plain(self) -> dict[str, Any]:
        """For ``--json``: the ranked list first."""
        return {
            "matches": [dataclasses.asdict(match) for match in self.matches],
            "found": self.found,
            "query": self.query,
            "side": self.side,
            "seconds": round(self.seconds, 3),
            "embedder": self.embedder,
            "rate": self.rate,
        }

    def text(self) -> str:
        """For people."""
        head = f"{self.query} ({self.side}, {self.seconds:.1f} s)"
        if not self.matches:
            return f"{head}: nothing like it is in the index"
        verdict = "found" if self.found else "not found: nothing agrees more than chance does"
        if self.matches[0].false_alarms is None:
            verdict = "best matches (the index is too small to say what chance scores)"
        lines = [f"{head}: {verdict}"]
        for match in self.matches:
            (a, b), (c, d) = match.query_s, match.recording_s
            chance = (
                "" if match.false_alarms is None else f", {_rate(match.false_alarms)} by chance"
            )
            lines.append(
                f"{'*' if match.found else ' '}{match.rank:>3}. {match.score:6.1f}{chance}  "
                f"{match.composer}: {match.title}  [{match.key}]\n"
                f"       {clock(a)}–{clock(b)} of the query is {clock(c)}–{clock(d)} of the "
                f"recording{'' if abs(match.tempo - 1) < 0.006 else f', tempo × {match.tempo:.2f}'}"
            )
        return "\n".join(lines)


def _rate(share: float) -> str:
    if share < 1e-5:
        return "under 0.001 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
