"""The real recordings: each found by its own notes, excerpts placed, what is not there not found.

Oracle of places: the notes of the MIDI files, read by pretty_midi. An excerpt is placed rightly where,
at some shift of at most a second, 80 % of the notes of both have a partner of the same pitch within
100 ms (Dice's coefficient).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
from makers import build_quietly, corpus_of, write_midi

from pipeline.store import Store
from trainer.search.answers import Answer
from trainer.search.asking import ask
from trainer.search.embedders import BaselineEmbedder
from trainer.search.folder import Index, open_index
from trainer.search.indexing import make_index
from trainer.search.queries import read_query

pytestmark = pytest.mark.full

Notes = np.ndarray  # rows (onset, end, pitch, velocity)
EXCERPT_S = 10.0


@pytest.fixture(scope="module")
def store(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    corpus = corpus_of(real_data / "maps-metadata.csv", name="maps")
    return build_quietly(corpus, tmp_path_factory.mktemp("stores"), workers=0).store


@pytest.fixture(scope="module")
def index(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Index:
    out = tmp_path_factory.mktemp("indexes") / "flux"
    return open_index(make_index(store, BaselineEmbedder("flux"), out).path)


@pytest.fixture(scope="module")
def midi_files(store: Store, real_data: Path) -> list[Path]:
    return [real_data / p for p in store.table("recordings")["midi_path"].to_pylist()]


def notes_of(path: Path) -> Notes:
    midi = pretty_midi.PrettyMIDI(str(path))
    rows = [(n.start, n.end, n.pitch, n.velocity) for i in midi.instruments for n in i.notes]
    return np.array(sorted(rows))


def same_notes(own: Notes, start: float, other: Notes, begin: float) -> bool:
    """Whether the excerpt's notes lie in ``other`` within a second of ``begin``."""
    excerpt = own[(own[:, 0] >= start) & (own[:, 0] < start + EXCERPT_S)]
    best = 0.0
    for shift in np.arange(-1, 1.01, 0.02):
        at = other[:, 0] - (begin + shift)
        near = (at > -0.1) & (at < EXCERPT_S + 0.1)
        apart = np.abs((excerpt[:, 0] - start)[:, None] - at[near][None])
        partners = (apart <= 0.1) & (excerpt[:, 2][:, None] == other[near, 2][None])
        inside = (at[near] >= 0) & (at[near] < EXCERPT_S)
        both = partners.any(axis=1).sum() + partners[:, inside].any(axis=0).sum()
        best = max(best, both / max(1, len(excerpt) + inside.sum()))
    return best >= 0.8


def asked(path: Path, index: Index) -> Answer:
    return ask(read_query(path), index, index.embedder())


def test_every_recording_is_first_by_its_own_notes(
    index: Index, store: Store, midi_files: list[Path]
) -> None:
    assert len(midi_files) == 48
    lost = []
    for number, path in enumerate(midi_files):
        answer = asked(path, index)
        first = answer.matches[0]
        if first.composition != store.recordings.composition[number] or not first.found:
            lost.append((number, first))
    assert lost == []


def test_excerpts_are_placed_where_the_same_notes_are(
    index: Index, midi_files: list[Path], tmp_path: Path
) -> None:
    rng, placed, elsewhere = np.random.default_rng(0), [], []
    for number in rng.choice(len(midi_files), 30, replace=False):
        own = notes_of(midi_files[number])
        stored = index.places().start_s[index.places().rows(int(number))].max() + 4
        while True:  # excerpts of what the store holds, with something in them
            start = rng.uniform(0, stored - EXCERPT_S)
            cut = own[(own[:, 0] < start + EXCERPT_S) & (own[:, 1] > start)]
            if len(cut) >= 5 and cut[:, 0].max() > start + 0.9 * EXCERPT_S:
                break
        notes = [
            (max(0.0, o - start), min(e - start, EXCERPT_S), int(p), int(v)) for o, e, p, v in cut
        ]
        write_midi(tmp_path / "excerpt.mid", notes)
        best = asked(tmp_path / "excerpt.mid", index).matches[0]
        begin = best.recording_s[0] - best.tempo * best.query_s[0]
        other = notes_of(midi_files[best.recording])
        placed.append(same_notes(own, start, other, begin))
        elsewhere.append(same_notes(own, start, other, begin + 3))
    assert np.mean(placed) >= 0.9
    assert np.mean(elsewhere) < 0.2  # the oracle tells places apart


def test_performances_that_are_not_there_are_not_found(index: Index, real_data: Path) -> None:
    with (real_data / "maestro-subset.csv").open(encoding="utf-8", newline="") as handle:
        names = [row["midi_filename"] for row in csv.DictReader(handle)]
    chosen = np.random.default_rng(0).choice(names, 20, replace=False)
    found = [name for name in chosen if asked(real_data / "maestro" / name, index).found]
    assert len(found) <= 1, found
