"""Copies of music within a recording: planted ones are found, others are not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.descriptors.contract import Notes
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.repeats import ALIKE, has_copy, likeness

STARTS = np.arange(57.0)


def music(seed=0, notes=360, seconds=60.0):
    rng = np.random.default_rng(seed)
    return np.sort(rng.uniform(0, seconds, notes)), rng.integers(40, 90, notes)


def with_passage(onset, pitch, source, target, *, drift=0.0, jitter=0.0, drop=0.0, seed=1):
    """The notes of ``[source, source + 4)`` again at ``target``, in place of what was there."""
    rng = np.random.default_rng(seed)
    own = (onset >= source) & (onset < source + 4)
    own &= rng.random(len(onset)) >= drop
    place = (onset[own] - source) * (1 + drift) + rng.normal(0, jitter, own.sum()) + target
    keep = (onset < target) | (onset >= target + 4)
    onset = np.concatenate([onset[keep], place])
    pitch = np.concatenate([pitch[keep], pitch[own]])
    order = np.argsort(onset, kind="stable")
    return onset[order], pitch[order]


def test_unrelated_music_has_no_copies():
    assert likeness(*music(), STARTS).max() < 0.5


@pytest.mark.parametrize("target", [40.0, 40.37])
def test_an_exact_copy_is_found_wherever_it_lies(target):
    onset, pitch = with_passage(*music(), 10.0, target)
    found = likeness(onset, pitch, STARTS)
    assert found[10] == 1.0
    assert found[round(target)] >= ALIKE
    assert set(np.flatnonzero(found >= ALIKE)) <= {9, 10, 11, 39, 40, 41}


def test_a_repeat_that_is_played_is_found():
    """Two per cent slower, onsets 20 ms apart, one note in ten missing."""
    onset, pitch = with_passage(*music(), 10.0, 40.2, drift=0.02, jitter=0.02, drop=0.1)
    assert likeness(onset, pitch, STARTS)[10] >= ALIKE


def test_the_same_notes_in_another_order_are_no_copy():
    onset, pitch = music()
    own = (onset >= 10) & (onset < 14)
    other = 40 + 14 - onset[own][::-1]  # backwards
    keep = (onset < 40) | (onset >= 44)
    onset = np.concatenate([onset[keep], np.sort(other)])
    pitch = np.concatenate([pitch[keep], pitch[own]])
    order = np.argsort(onset, kind="stable")
    assert likeness(onset[order], pitch[order], STARTS)[10] < ALIKE


def test_a_transposed_passage_is_no_copy():
    onset, pitch = music()
    moved_onset, moved_pitch = with_passage(onset, pitch + 1, 10.0, 40.0)
    at = (moved_onset >= 40) & (moved_onset < 44)
    moved_pitch[~at] -= 1
    assert likeness(moved_onset, moved_pitch, STARTS)[10] < ALIKE


def test_a_passage_that_no_segment_covers_is_no_copy():
    onset, pitch = with_passage(*music(), 10.0, 40.0)
    without = STARTS[(STARTS < 38.5) | (STARTS > 41.5)]
    assert likeness(onset, pitch, without)[10] < ALIKE


def test_a_tremolo_copies_itself():
    onset = np.arange(0, 60, 0.25)
    pitch = np.where(np.arange(len(onset)) % 2, 60, 64)
    assert likeness(onset, pitch, STARTS).min() >= ALIKE


def test_silence_has_no_copy():
    assert likeness(np.zeros(0), np.zeros(0, int), STARTS).max() == 0
    onset, pitch = music()
    early = onset < 20
    assert likeness(onset[early], pitch[early], STARTS)[30:].max() == 0


def store_of(onset, pitch, starts):
    """A store whose windows repeat their notes, as a real one's do."""
    rows, counts = [], []
    for start in starts:
        inside = np.flatnonzero((onset < start + 4) & (onset + 0.5 > start))
        rows += [(pitch[i], onset[i] - start) for i in inside]
        counts.append(len(inside))
    table = np.array(rows)
    notes = Notes(
        pitch=table[:, 0].astype(np.uint8),
        velocity=np.full(len(rows), 64, np.uint8),
        duration_bucket=np.zeros(len(rows), np.uint8),
        onset_s=table[:, 1].astype(np.float32),
        duration_s=np.full(len(rows), 0.5, np.float32),
    )
    counts = np.array(counts, np.int32)
    segments = SimpleNamespace(note_start=np.cumsum(counts) - counts, note_count=counts)
    return SimpleNamespace(segments=segments, notes=notes.rows)


def test_copies_are_found_from_a_stores_windows():
    """Every note once, though it stands in several windows; only within a recording."""
    onset, pitch = with_passage(*music(), 10.0, 40.0)
    store = store_of(onset, pitch, STARTS)
    n = len(STARTS)

    def gallery(recording):
        return Gallery.from_columns(
            split="test", segment=np.arange(n), recording=recording, composer=["x"] * n,
            composition=["y"] * n, start_s=STARTS, valid=np.ones(n, bool),
        )  # fmt: skip

    found = has_copy(store, gallery(np.zeros(n, int)))
    assert found[10]
    assert found[40]
    assert found.sum() <= 6
    apart = has_copy(store, gallery((np.arange(n) >= 30).astype(int)))
    assert not apart.any()
