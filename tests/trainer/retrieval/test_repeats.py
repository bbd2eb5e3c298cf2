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


def brute_force(onset, pitch, starts):
    """The definition: every lag on a fine grid."""
    found = np.zeros(len(starts))
    for i, start in enumerate(starts):
        own = (onset >= start) & (onset < start + 4)
        for other in starts[starts != start]:
            for lag in other - start + np.arange(-0.5, 0.501, 0.02):
                there = (onset >= start + lag) & (onset < start + lag + 4)
                if not own.any() or not there.any():
                    continue
                apart = np.abs(onset[own][:, None] + lag - onset[there][None]) <= 0.1
                same = apart & (pitch[own][:, None] == pitch[there][None])
                matched = same.any(1).sum() + same.any(0).sum()
                found[i] = max(found[i], matched / (own.sum() + there.sum()))
    return found


@pytest.mark.parametrize("kind", ["chords", "song"])
def test_what_the_definition_counts_is_found(kind):
    """Chords eight a second whose harmony changes, and a song whose verses are played unevenly."""
    rng = np.random.default_rng(4)
    if kind == "chords":
        struck = np.arange(0, 24, 0.125)
        roots = 48 + (struck // 4.5).astype(int) * 5 % 12
        onset, pitch = np.repeat(struck, 3), (roots[:, None] + [0, 4, 7]).ravel()
    else:
        verse = np.sort(rng.uniform(0, 6, 30)), rng.integers(50, 80, 30)
        times = [verse[0] * f + at for f, at in ((1, 0), (1.02, 6.3), (0.98, 12.9), (1.1, 19.0))]
        onset = np.concatenate(times) + rng.normal(0, 0.02, 120)
        pitch = np.tile(verse[1], 4)
    order = np.argsort(onset, kind="stable")
    onset, pitch = onset[order].astype(float), pitch[order]
    starts = np.arange(21.0)
    expected, found = brute_force(onset, pitch, starts), likeness(onset, pitch, starts)
    assert (found <= expected + 0.05).all()
    missed = (expected >= ALIKE + 0.03) & (found < ALIKE)
    assert not missed.any()
    assert (expected >= ALIKE).sum() >= 4


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
