"""Cutting notes against exhaustive search."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import ConfigError
from pipeline.midi import Performance
from pipeline.segments import count_rows, cut_notes, duration_buckets
from pipeline.store.schema import Segmentation

# Quarters of a second make notes that begin and end exactly on the windows' edges.
TIMES = st.one_of(
    st.integers(0, 60).map(lambda q: q / 4), st.floats(0, 15, allow_nan=False, width=32)
)
NOTES = st.lists(
    st.tuples(TIMES, st.floats(2**-10, 9, width=32), st.integers(0, 127), st.integers(1, 127)),
    max_size=25,
)


def performance_of(notes: list[tuple[float, float, int, int]]) -> Performance:
    ordered = sorted(notes, key=lambda n: (n[0], n[2], n[1], n[3]))
    columns = [np.array([n[i] for n in ordered]) for i in range(4)]
    return Performance(
        onset_s=columns[0].astype(np.float64),
        end_s=columns[1].astype(np.float64),
        pitch=columns[2].astype(np.uint8),
        velocity=columns[3].astype(np.uint8),
    )


@given(NOTES, st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_notes_of_segments_are_found_by_exhaustive_search(raw, n_segments: int) -> None:
    notes = [(onset, onset + length, pitch, velocity) for onset, length, pitch, velocity in raw]
    expected = oracles.segment_notes(notes, n_segments)
    performance = performance_of(notes)
    found = cut_notes(performance, n_segments, Segmentation())
    assert count_rows(performance, n_segments, Segmentation()) == len(expected)
    np.testing.assert_array_equal(found["segment"], [n[0] for n in expected])
    np.testing.assert_array_equal(found["pitch"], [n[2] for n in expected])
    np.testing.assert_array_equal(found["velocity"], [n[4] for n in expected])
    np.testing.assert_array_equal(found["onset_s"], np.array([n[1] for n in expected], np.float32))
    np.testing.assert_array_equal(
        found["duration_s"], np.array([n[5] for n in expected], np.float32)
    )
    np.testing.assert_array_equal(
        found["duration_bucket"], [oracles.bucket(n[5]) for n in expected]
    )


def test_edges_belong_to_nobody() -> None:
    notes = performance_of([(4.0, 5.0, 60, 1), (0.0, 1.0, 61, 1), (3.0, 4.0, 62, 1)])
    found = cut_notes(notes, 6, Segmentation())
    by_pitch = {p: found["segment"][found["pitch"] == p].tolist() for p in (60, 61, 62)}
    assert by_pitch == {61: [0], 62: [0, 1, 2, 3], 60: [1, 2, 3, 4]}


def test_notes_are_not_clipped() -> None:
    found = cut_notes(performance_of([(0.5, 9.5, 60, 1)]), 7, Segmentation())
    np.testing.assert_array_equal(found["onset_s"], 0.5 - np.arange(7))
    assert set(found["duration_s"].tolist()) == {9.0}


def test_simultaneous_notes_are_ordered_by_pitch_end_velocity() -> None:
    notes = [(1.0, 2.0, 64, 9), (1.0, 2.0, 60, 9), (1.0, 1.5, 60, 9), (1.0, 2.0, 60, 3)]
    found = cut_notes(performance_of(notes), 1, Segmentation())
    rows = list(zip(found["pitch"].tolist(), found["duration_s"].tolist(), strict=True))
    assert rows == [(60, 0.5), (60, 1.0), (60, 1.0), (64, 1.0)]
    assert found["velocity"].tolist() == [9, 3, 9, 9]


def test_no_segment_gets_no_note() -> None:
    assert len(cut_notes(performance_of([(0.0, 1.0, 60, 1)]), 0, Segmentation())["pitch"]) == 0


BUCKETS = {0.0: 0, 0.01: 0, 0.05: 0, 0.0575: 0, 0.058: 1, 0.1: 4, 0.25: 11, 0.5: 16, 1.0: 21}
BUCKETS |= {2.0: 26, 3.9: 30, 3.999: 30, 4.0: 31, 100.0: 31}


def test_duration_buckets_of_the_table() -> None:
    found = duration_buckets(np.array(list(BUCKETS)))
    assert found.dtype == np.uint8
    assert dict(zip(BUCKETS, found.tolist(), strict=True)) == BUCKETS


@given(st.floats(0, 1e6, allow_nan=False))
@settings(max_examples=300, deadline=None)
def test_duration_buckets_are_their_formula(duration: float) -> None:
    assert duration_buckets(np.array([duration]))[0] == oracles.bucket(duration)


@given(st.floats(0, 200, allow_nan=False), st.one_of(st.none(), st.integers(1, 120)))
@settings(max_examples=300, deadline=None)
def test_segment_counts_are_found_by_counting(duration: float, cap: int | None) -> None:
    found = Segmentation(max_per_recording=cap).count(duration)
    assert found == oracles.count_segments(duration, cap)


@pytest.mark.parametrize(
    "wrong", [{"hop_s": 0}, {"hop_s": -1}, {"segment_s": 8}, {"max_per_recording": 0}]
)
def test_a_segmentation_that_means_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Segmentation(**wrong)
