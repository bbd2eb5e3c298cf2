"""Segments as a store has them, and with their windows moved."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.retrieval.baselines import reading, segments_of

SEGMENT = 96_000


def expected_window(store, row, shift):
    """A slice of the recording's own samples with plenty of silence on either side."""
    table = store.segments
    starts = table.audio_start[table.recording == table.recording[row]]
    own = store.timeline[starts.min() : starts.max() + SEGMENT].astype(np.float32) / 32768
    margin = len(own) + SEGMENT
    padded = np.pad(own, margin)
    at = margin + table.audio_start[row] - starts.min() + shift
    return padded[at : at + SEGMENT] if 0 <= at <= len(padded) - SEGMENT else np.zeros(SEGMENT)


@pytest.mark.parametrize("shift", [0, 1, -1, 12_345, -12_345, 5 * SEGMENT, -30 * SEGMENT, 10**9])
def test_a_moved_window_is_a_slice_of_its_recording_and_silence_beyond(fake_store, shift):
    rows = np.arange(17, 68)  # across recordings 0 … 3, of which each has 21
    found = list(segments_of(fake_store, rows, shift=shift))
    assert [at for at, _, _ in found] == list(range(len(rows)))
    for at, samples, _ in found:
        assert samples.shape == (SEGMENT,)
        assert samples.dtype == np.float32
        np.testing.assert_array_equal(samples, expected_window(fake_store, rows[at], shift))


def test_notes_stay_the_segments_own(fake_store):
    table, rows = fake_store.segments, [0, 20, 30]
    for shift in (0, 4_000, -4_000):
        for at, _, notes in segments_of(fake_store, rows, shift=shift):
            first = table.note_start[rows[at]]
            own = fake_store.notes(first, first + table.note_count[rows[at]])
            np.testing.assert_array_equal(notes.onset_s, own.onset_s)
            np.testing.assert_array_equal(notes.pitch, own.pitch)


@pytest.mark.parametrize("block", [1, 3, 128])
def test_any_order_and_any_block_reads_the_same(fake_store, monkeypatch, block):
    monkeypatch.setattr(reading, "READ_BLOCK", block)
    rows = np.array([40, 3, 4, 5, 3, 125, 0])
    for at, samples, notes in segments_of(fake_store, rows, shift=700):
        np.testing.assert_array_equal(samples, expected_window(fake_store, rows[at], 700))
        assert len(notes) == fake_store.segments.note_count[rows[at]]
    assert list(segments_of(fake_store, [])) == []


def test_neighbours_are_one_read(fake_store):
    fake_store.reads.clear()
    list(segments_of(fake_store, np.arange(5, 15)))
    assert fake_store.reads == [(5 * 24_000, 14 * 24_000 + SEGMENT)]
