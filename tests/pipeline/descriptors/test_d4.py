"""D4 against a loop over notes."""

from __future__ import annotations

import numpy as np
import oracles
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.descriptors import DESCRIPTORS, Notes
from pipeline.descriptors.d4 import melodic_intervals
from pipeline.store import Store


def notes_of(pitches: list[int]) -> Notes:
    n = len(pitches)
    return Notes(
        pitch=np.array(pitches, np.uint8),
        velocity=np.full(n, 64, np.uint8),
        duration_bucket=np.full(n, 16, np.uint8),
        onset_s=np.linspace(0, 3, n, dtype=np.float32),
        duration_s=np.full(n, 0.5, np.float32),
    )


@given(st.lists(st.integers(0, 127), max_size=60))
@settings(max_examples=200, deadline=None)
def test_d4_is_its_definition(pitches: list[int]) -> None:
    found = DESCRIPTORS.get("D4").extract(notes_of(pitches))
    assert found.dtype == np.float32
    assert found.shape == (len(pitches), 4)
    np.testing.assert_allclose(found, oracles.d4(pitches), rtol=1e-6, atol=1e-7)


def test_no_note_one_note_two_notes() -> None:
    assert melodic_intervals(np.zeros(0, np.uint8)).shape == (0, 4)
    assert not melodic_intervals(np.array([60], np.uint8)).any()
    down_an_octave = melodic_intervals(np.array([72, 60], np.uint8))
    np.testing.assert_array_equal(down_an_octave, [[0, -0.5, 0, -0.5], [-0.5, 0, -0.5, 0]])


def test_a_leap_beyond_two_octaves_is_clipped_in_the_folded_columns_only() -> None:
    found = melodic_intervals(np.array([20, 80], np.uint8))
    np.testing.assert_array_equal(found, [[0, 2.5, 0, 1], [2.5, 0, 1, 0]])


def test_simultaneous_notes_count_in_pitch_order(tiny_store: Store) -> None:
    notes, stored = tiny_store.notes(), tiny_store.read("D4")
    chords = 0
    for start, count in zip(
        tiny_store.segments.note_start, tiny_store.segments.note_count, strict=True
    ):
        mine = notes.rows(start, start + count)
        same = mine.onset_s[1:] == mine.onset_s[:-1]
        assert (mine.pitch[1:][same] > mine.pitch[:-1][same]).all()
        chords += int(same.sum())
        expected = oracles.d4(mine.pitch.tolist()).astype(np.float32).astype(np.float16)
        np.testing.assert_array_equal(stored[start : start + count], expected)
    assert chords > 50
