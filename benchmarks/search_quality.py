"""What search finds: the recording and the moment, and how often something that is not there.

    python -m benchmarks.search_quality [--runs runs]

The store of the real recordings (XMODAL_TEST_DATA) is indexed twice: training-free (``flux``) and by a
model trained on its training split with the default preset (``d0``, tiny). Queries are the recordings'
own MIDI and audio: whole, in excerpts of ten seconds at random moments, at other tempi; and music that
is not there: performances from MAESTRO, no work in common, and as sound the demo's recordings of
other compositions.

tied
    First is the recording itself, or another one of the same composition (some MIDI files of this
    corpus sound on two instruments, and there is nothing in them that says which).
placed
    Within one second of where the excerpt was put, the notes of the recording that was found are those
    of the excerpt: at some shift of at most a second 80 % of the notes of both have a partner of the
    same pitch within 100 ms (Dice's coefficient), computed from the MIDI files alone.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import command, environment, write
from benchmarks.corpora import DEMO, real_table
from benchmarks.scores import built
from pipeline.midi import Performance, read_performance
from pipeline.spectral import SAMPLE_RATE
from pipeline.store import Store
from trainer.search.answers import Answer
from trainer.search.asking import RATE, ask
from trainer.search.embedders import Embedder, embedder_of
from trainer.search.folder import Index, open_index
from trainer.search.indexing import make_index
from trainer.search.queries import AudioQuery, MidiQuery, Query, read_query

EXCERPT_S = 10.0
EXCERPTS = 5  # of each recording
TEMPI = (0.9, 0.95, 1.05, 1.1)
ABSENT = {"whole": None, "10 s": 10.0, "30 s": 30.0}
ALIKE, TOLERANCE_S, NEAR_S = 0.8, 0.1, 1.0


def main() -> None:
    """Index, ask, write ``benchmarks/results/search-maps.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("data/indexes"))
    arguments = parser.parse_args()
    table = real_table()
    if table is None:
        raise SystemExit("XMODAL_TEST_DATA does not name the real recordings")
    about = environment()
    store = Store.open(built("maps"))
    run = command(
        "xmodal-train", "--arm", "d0", "--store", store.path, "--out", arguments.runs, "--size",
        "tiny", "--device", "cpu",
    )["run"]  # fmt: skip
    corpus = Corpus(store, table.parent)
    result: dict[str, Any] = {
        "environment": about,
        "recordings": len(store.recordings),
        "rate": RATE,
    }
    for name, embedder in (
        ("flux", embedder_of(None, "flux", "cpu")),
        ("d0", embedder_of(Path(run), None, "cpu")),
    ):
        began = time.perf_counter()
        out = arguments.out / f"benchmark-{name}"
        made = make_index(store, embedder, out, overwrite=True)
        print(f"{name}: indexed {made.rows} segments in {time.perf_counter() - began:.0f} s")
        result[name] = judged(corpus, open_index(out), embedder)
    result["better"] = {
        kind: max(result[n]["excerpts"][kind]["placed"] for n in ("flux", "d0"))
        for kind in result["flux"]["excerpts"]
    }
    write("search-maps", result)


class Corpus:
    """The real recordings and their files."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store, self.root = store, root
        paths = store.table("recordings")
        self.performances = [read_performance(root / p) for p in paths["midi_path"].to_pylist()]
        self.sounds = [read_query(root / p) for p in paths["audio_path"].to_pylist()]
        self.composition = [str(c) for c in store.recordings.composition]
        self.split = [str(s) for s in store.recordings.split]
        self.duration_s = store.recordings.duration_s

    def excerpts(self, kind: str) -> Iterator[tuple[int, float, Query]]:
        """Recording, start and query; moments without enough notes are drawn again."""
        rng = np.random.default_rng(1)
        for number, performance in enumerate(self.performances):
            for _ in range(EXCERPTS):
                for _ in range(100):
                    start = rng.uniform(0, self.duration_s[number] - EXCERPT_S)
                    notes = cut(performance, start, start + EXCERPT_S)
                    if len(notes) >= 5 and notes.end_s.max() > 0.9 * EXCERPT_S:
                        break
                yield (
                    number,
                    start,
                    MidiQuery("", notes)
                    if kind == "midi"
                    else self.sound(number, start, EXCERPT_S),
                )

    def sound(self, number: int, start: float, seconds: float) -> Query:
        """A stretch of a recording's sound."""
        whole = self.sounds[number]
        assert isinstance(whole, AudioQuery)
        first = round(start * SAMPLE_RATE)
        return AudioQuery("", whole.samples[first : first + round(seconds * SAMPLE_RATE)])

    def absent(self, seconds: float | None) -> Iterator[Query]:
        """Performances that are no recording's, whole or a stretch of each."""
        rng = np.random.default_rng(2)
        with (self.root / "maestro-subset.csv").open(encoding="utf-8") as file:
            names = [row["midi_filename"] for row in csv.DictReader(file)]
        for name in names:
            performance = read_performance(self.root / "maestro" / name)
            if seconds is not None:
                start = rng.uniform(0, max(0.0, performance.onset_s.max() - seconds))
                performance = cut(performance, start, start + seconds)
                if not len(performance) or performance.end_s.max() < 0.9 * seconds:
                    continue
            yield MidiQuery(name, performance)

    def absent_sound(self) -> Iterator[Query]:
        """The demo's recordings of compositions that the real recordings do not have."""
        demo = Store.open(built("demo"))
        paths = demo.table("recordings")["audio_path"].to_pylist()
        for path, composition in zip(paths, demo.recordings.composition, strict=True):
            if str(composition) not in self.composition:
                yield read_query(DEMO / path)


def judged(corpus: Corpus, index: Index, embedder: Embedder) -> dict[str, Any]:
    """All that is asked of one index."""

    def answer(query: Query) -> Answer:
        return ask(query, index, embedder)

    numbers = range(len(corpus.performances))
    found: dict[str, Any] = {
        "whole": {
            "midi": first_places(
                corpus, [MidiQuery("", corpus.performances[i]) for i in numbers], answer
            ),
            "audio": first_places(corpus, list(corpus.sounds), answer),
        },
        "tempi": {
            str(tempo): first_places(
                corpus, [MidiQuery("", at_tempo(p, tempo)) for p in corpus.performances], answer
            )
            for tempo in TEMPI
        },
        "excerpts": {kind: placed(corpus, kind, answer) for kind in ("midi", "audio")},
        "absent": {
            name: false_alarms(list(corpus.absent(seconds)), answer)
            for name, seconds in ABSENT.items()
        },
        "absent_sound": false_alarms(list(corpus.absent_sound()), answer),
    }
    return found


def first_places(
    corpus: Corpus, queries: list[Query], answer: Callable[[Query], Answer]
) -> dict[str, Any]:
    """How often the first answer is the recording, or one of its composition; how many are found."""
    own, tied, found = [], [], []
    for number, query in enumerate(queries):
        matches = answer(query).matches
        first = matches[0].recording if matches else -1
        own.append(first == number)
        tied.append(bool(matches) and corpus.composition[first] == corpus.composition[number])
        found.append(bool(matches) and matches[0].found)
    return {
        "queries": len(queries), "first": float(np.mean(own)), "tied": float(np.mean(tied)),
        "found": float(np.mean(found)),
    }  # fmt: skip


def placed(corpus: Corpus, kind: str, answer: Callable[[Query], Answer]) -> dict[str, Any]:
    """Excerpts: how many are put where the same notes are, over all and over unseen recordings."""
    right: list[bool] = []
    wrong: list[bool] = []  # called found, and it is not the music
    tied: list[bool] = []
    found: list[bool] = []
    unseen: list[bool] = []
    for number, start, query in corpus.excerpts(kind):
        matches = answer(query).matches
        unseen.append(corpus.split[number] == "test")
        if not matches:
            for column in (right, tied, found, wrong):
                column.append(False)
            continue
        best = matches[0]
        begin = best.recording_s[0] - best.tempo * best.query_s[0]
        other = corpus.performances[best.recording]
        right.append(same_notes(corpus.performances[number], start, other, begin))
        tied.append(corpus.composition[best.recording] == corpus.composition[number])
        found.append(best.found)
        wrong.append(best.found and not (tied[-1] or right[-1]))
    return {
        "queries": len(right), "placed": float(np.mean(right)), "tied": float(np.mean(tied)),
        "found": float(np.mean(found)), "wrong": int(np.sum(wrong)), "unseen": int(np.sum(unseen)),
        "placed_unseen": float(np.mean(np.array(right)[unseen])),
    }  # fmt: skip


def false_alarms(queries: list[Query], answer: Callable[[Query], Answer]) -> dict[str, Any]:
    """How often music that is not there is said to be found, and what shares it was given.

    ``at``: for claimed shares of false alarms, how many of these queries stay below them.
    """
    answers = [answer(query) for query in queries]
    shares = np.array([a.matches[0].false_alarms if a.matches else 1.0 for a in answers])
    found = sum(a.found for a in answers)
    return {
        "queries": len(queries),
        "found": found,
        "false_alarms": found / len(queries),
        "ci95": wilson(found, len(queries)),
        "at": {str(level): float(np.mean(shares <= level)) for level in (0.01, 0.05, 0.1, 0.5)},
    }


def wilson(hits: int, of: int, z: float = 1.96) -> list[float]:
    """95 % interval of a share (Wilson's score interval)."""
    share, width = hits / of, z * np.sqrt(hits * (of - hits) / of**3 + z * z / (4 * of * of))
    middle, whole = share + z * z / (2 * of), 1 + z * z / of
    return [float(max(0.0, middle - width) / whole), float((middle + width) / whole)]


def same_notes(own: Performance, start: float, other: Performance, begin: float) -> bool:
    """Whether the excerpt's notes lie in ``other`` within a second of ``begin``."""
    inside = (own.onset_s >= start) & (own.onset_s < start + EXCERPT_S)
    onset, pitch = own.onset_s[inside] - start, own.pitch[inside].astype(int)
    best = 0.0
    for shift in np.arange(-NEAR_S, NEAR_S + 0.01, 0.02):
        theirs = other.onset_s - (begin + shift)
        near = (theirs > -TOLERANCE_S) & (theirs < EXCERPT_S + TOLERANCE_S)
        theirs, theirs_pitch = theirs[near], other.pitch[near].astype(int)
        partners = np.abs(onset[:, None] - theirs[None]) <= TOLERANCE_S
        partners &= pitch[:, None] == theirs_pitch[None]
        within = (theirs >= 0) & (theirs < EXCERPT_S)
        matched = partners.any(axis=1).sum() + partners[:, within].any(axis=0).sum()
        best = max(best, matched / max(1, len(onset) + within.sum()))
    return best >= ALIKE


def cut(performance: Performance, start: float, stop: float) -> Performance:
    """The notes that sound in [start, stop), as a file of their own: cut at its end."""
    p = performance
    inside = (p.onset_s < stop) & (p.end_s > start)
    return Performance(
        onset_s=p.onset_s[inside] - start, end_s=np.minimum(p.end_s[inside], stop) - start,
        pitch=p.pitch[inside], velocity=p.velocity[inside],
    )  # fmt: skip


def at_tempo(performance: Performance, tempo: float) -> Performance:
    """Played so that ``tempo`` seconds of the recording pass in one of its."""
    p = performance
    return Performance(
        onset_s=p.onset_s / tempo, end_s=p.end_s / tempo, pitch=p.pitch, velocity=p.velocity
    )


if __name__ == "__main__":
    main()
