"""Voting and alignment: what is planted is found, at its tempo, in its recording, by its part."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.search.placing import (
    Candidate,
    Places,
    align,
    best_stretch,
    nearest,
    pairs_of,
    refine,
    vote,
)

K = 8


def candidate(offset_s: float = 0.0, tempo: float = 1.0, recording: int = 0) -> Candidate:
    return Candidate(recording=recording, offset_s=offset_s, tempo=tempo, votes=1.0)


def places_of(*lengths: int) -> Places:
    recording = np.repeat(np.arange(len(lengths)), lengths)
    start = np.concatenate([np.arange(n, dtype=float) for n in lengths])
    return Places.of(recording, start, len(lengths))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-9, 9), max_size=12))
def test_the_best_stretch_is_the_best_of_all(gain: list[float]) -> None:
    ends = itertools.combinations(range(len(gain) + 1), 2)
    best = max((sum(gain[a:b]) for a, b in ends), default=0.0)
    first, last, score = best_stretch(np.array(gain))
    assert score == pytest.approx(max(0.0, best), abs=1e-9)
    assert sum(gain[first : last + 1]) == pytest.approx(score, abs=1e-9)
    assert (last < first) == (score == 0)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=9, unique=True),
    st.lists(st.floats(-60, 60), max_size=9),
)
def test_the_nearest_is_the_nearest(values: list[float], wanted: list[float]) -> None:
    ascending = sorted(values)
    for value, i in zip(wanted, nearest(np.array(ascending), np.array(wanted)), strict=True):
        assert abs(ascending[i] - value) == min(abs(v - value) for v in ascending)


@pytest.mark.parametrize("tempo", [0.9, 0.95, 1.0, 1.05, 1.1])
@pytest.mark.parametrize("offset", [37.3, -2.2])
def test_votes_find_what_is_planted_among_random_votes(tempo: float, offset: float) -> None:
    rng = np.random.default_rng(3)
    places = places_of(80, 120, 100)
    starts = np.arange(0, 40, 0.25)
    ids = rng.integers(0, 300, (len(starts), K))
    z = rng.uniform(1.0, 4.0, ids.shape).astype(np.float32)
    at = offset + tempo * starts
    planted = np.flatnonzero((at >= 0) & (at <= 119))[::2]  # every other window knows
    ids[planted, 0] = 80 + np.round(at[planted]).astype(int)
    z[planted, 0] = 4.0
    first, *others = vote(starts, ids, z, places, 3)
    assert first.recording == 1
    middle = starts[planted].mean()
    assert first.offset_s + first.tempo * middle == pytest.approx(offset + tempo * middle, abs=0.5)
    assert first.tempo == pytest.approx(tempo, abs=0.011)
    assert sorted(c.recording for c in others) == [0, 2]
    assert first.votes > 2 * others[0].votes >= 2 * others[1].votes


def test_only_what_is_more_than_likely_votes() -> None:
    places, starts = places_of(5, 5), np.array([0.0, 1.0])
    ids = np.array([[0, 6], [1, 7]])
    assert vote(starts, ids, np.full((2, 2), 2.0, np.float32), places, 9) == []
    none = np.where(ids == 0, -1, -2)
    assert vote(starts, none, np.full((2, 2), 9.0, np.float32), places, 9) == []
    only = vote(starts, ids, np.array([[2.5, 1], [2.5, -np.inf]], np.float32), places, 9)
    assert [(c.recording, c.votes) for c in only] == [(0, pytest.approx(1.0))]
    assert only[0].offset_s == pytest.approx(0.0, abs=0.5)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3), st.integers(0, 9), st.floats(0, 500), st.floats(0, 500))
def test_a_vote_stays_in_its_recording_however_long_the_query_is(
    recording: int, row: int, start: float, longest: float
) -> None:
    # One window votes, another says how long the query is.
    places = places_of(10, 10, 10, 10)
    ids = np.array([[10 * recording + row], [-1]])
    starts = np.array([start, max(start, longest)])
    (only,) = vote(starts, ids, np.full((2, 1), 3.0, np.float32), places, 4)
    assert only.recording == recording
    assert only.offset_s + only.tempo * start == pytest.approx(row, abs=0.5001)


@pytest.mark.parametrize(("offset", "tempo"), [(30.0, 1.0), (29.7, 0.985), (30.6, 1.02)])
def test_refinement_finds_offset_and_tempo(offset: float, tempo: float) -> None:
    rng = np.random.default_rng(0)
    starts, segments = np.arange(0, 60, 0.25), np.arange(0, 130.0)
    apart = segments[None] - (offset + tempo * starts)[:, None]
    z = 4 * np.clip(1 - np.abs(apart) / 0.4, 0, None) + rng.normal(0, 0.5, apart.shape)
    # What was voted for is a cell and a tempo off.
    middle = float(starts.mean())
    given_tempo = round(tempo, 2) + 0.01
    given = candidate(offset + tempo * middle - given_tempo * middle + 0.4, given_tempo)
    found = refine(given, starts, z.astype(np.float32), segments)
    assert found.tempo == pytest.approx(tempo, abs=0.01)
    assert found.offset_s + found.tempo * middle == pytest.approx(
        offset + tempo * middle, abs=0.125
    )
    assert (found.recording, found.votes) == (given.recording, given.votes)


def test_the_tempo_of_one_window_is_not_refined() -> None:
    segments, starts = np.arange(0, 20.0), np.array([0.0])
    z = np.where(segments == 7, 5.0, 0.0)[None].astype(np.float32)
    found = refine(candidate(7.6, 0.93), starts, z, segments)
    assert found.tempo == 0.93
    assert found.offset_s == pytest.approx(7.0, abs=0.125)


@settings(max_examples=100, deadline=None)
@given(
    st.floats(-20, 40), st.floats(0.9, 1.1), st.integers(1, 60), st.sampled_from([0.25, 0.75, 1.25])
)
def test_pairs_begin_together(offset: float, tempo: float, windows: int, hop: float) -> None:
    starts, segments = np.arange(windows) * hop, np.arange(0, 30.0)
    window, segment = pairs_of(candidate(offset, tempo), starts, segments)
    assert (np.diff(segment) > 0).all()
    assert (np.diff(window) >= 0).all()
    if len(window):
        apart = (segments[segment] - offset) / tempo - starts[window]
        assert np.abs(apart).max() <= 0.13
    # Exhaustively: a segment near which a window begins has its pair.
    near = np.abs((segments[None] - offset) / tempo - starts[:, None]) <= 0.1299
    assert set(np.flatnonzero(near.any(axis=0))) <= set(segment.tolist())


def test_of_quarter_seconds_every_segment_that_is_covered_has_a_pair() -> None:
    window, segment = pairs_of(candidate(3.1, 0.97), np.arange(0, 20, 0.25), np.arange(0, 40.0))
    inside = (segment - 3.1) / 0.97
    assert segment.tolist() == list(range(3, 23))
    assert (inside >= -0.13).all()
    assert len(set(window.tolist())) == len(window)


def test_what_is_partly_there_is_aligned_by_its_part() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(0, 0.6, 50)
    z[18:33] = rng.uniform(2.5, 4.0, 15)
    z[25] = 1.0  # one pair that does not agree
    query, segment = np.arange(50) * 1.02 + 0.3, np.arange(100.0, 150.0)
    found = align(candidate(99.7), z.astype(np.float32), query, segment)
    assert (found.query_s, found.pairs) == ((query[18], query[32]), 15)
    assert found.recording_s == (118.0, 132.0)
    assert found.score == pytest.approx(float(np.sum(z[18:33] - 1.5)), abs=1e-5)


def test_where_nothing_agrees_there_is_no_stretch() -> None:
    for z in (np.full(5, 1.4, np.float32), np.zeros(0, np.float32)):
        found = align(candidate(2.0), z, np.arange(len(z)) * 1.0, np.arange(len(z)) * 1.0)
        assert (found.score, found.pairs) == (0.0, 0)
