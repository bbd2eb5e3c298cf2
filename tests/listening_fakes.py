"""Queries and answers about a store of two recordings, for the listening page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from makers import Spec, build_quietly, corpus_of, make_corpus, make_notes, write_midi

from pipeline.midi import read_performance
from pipeline.store import Store
from trainer.search.answers import Answer, Match
from trainer.search.queries import AudioQuery, MidiQuery, Query

RATE = 24_000
HOSTILE = "<script>alert(1)</script> & \"Étude\" <img src='http://evil.example/x'>"
SPECS = (
    Spec("one", rate=RATE, channels=1, seconds=14.0, title=HOSTILE, composer="</h3><b>Anon & Co"),
    Spec("two", rate=RATE, channels=1, seconds=12.0, title="Waltz in A minor"),
)
SHIFT_S, LONG_S = 3.2, 9.0  # the query is a part of the first recording


def make_store(root: Path) -> Store:
    return build_quietly(corpus_of(make_corpus(root, SPECS)), root / "out", descriptors=()).store


def sounding(start: float, stop: float) -> list[tuple[float, float, int]]:
    """(onset, duration, pitch) of the first recording's notes, as its maker has them."""
    made = make_notes(SPECS[0].seconds, 0)
    return [(o - start, e - o, p) for o, e, p, _ in made if o < stop and e > start]


def midi_query(folder: Path, tempo: float = 1.0) -> MidiQuery:
    """What sounds of the first recording from ``SHIFT_S`` on, so much slower or faster."""
    made = [
        (max(0.0, o - SHIFT_S) / tempo, (e - SHIFT_S) / tempo, p, v)
        for o, e, p, v in make_notes(SPECS[0].seconds, 0)
        if o < SHIFT_S + LONG_S and e > SHIFT_S
    ]
    write_midi(folder / "query.mid", made)
    return MidiQuery("a/<b>query.mid", read_performance(folder / "query.mid"))


def audio_query(store: Store) -> AudioQuery:
    start = round(SHIFT_S * RATE)
    return AudioQuery("a/<b>query.wav", store.read("audio", start, start + round(LONG_S * RATE)))


def match(**changes: Any) -> Match:
    first: dict[str, Any] = {
        "rank": 1, "recording": 0, "key": "2008/one", "composer": SPECS[0].composer,
        "title": HOSTILE, "composition": "c", "split": "train", "score": 81.25,
        "false_alarms": 1e-7, "found": True, "query_s": (0.0, LONG_S),
        "recording_s": (SHIFT_S, SHIFT_S + LONG_S), "tempo": 1.0,
    }  # fmt: skip
    return Match(**{**first, **changes})


def answer(query: Query, *matches: Match) -> Answer:
    return Answer(
        query=query.name, side=query.side, seconds=query.seconds, matches=matches,
        embedder="chroma", rate=0.01,
    )  # fmt: skip
