"""The bootstrap: known distributions, honest units, the same numbers every time."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.retrieval.intervals import (
    bootstrap,
    interval_of_least,
    resampling_units,
)


def mean(means):
    return means[:, 0]


def test_independent_queries_give_the_normal_interval():
    rng = np.random.default_rng(0)
    hits = (rng.random(400) < 0.7).astype(float)
    low, high = bootstrap(hits[:, None], np.arange(400), mean)
    error = np.sqrt(hits.mean() * (1 - hits.mean()) / 400)
    assert low == pytest.approx(hits.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(hits.mean() + 1.96 * error, abs=0.25 * error)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        level = rng.beta(7, 3, 40)  # recordings differ: mean 0.7
        hits = (rng.random((40, 15)) < level[:, None]).astype(float).ravel()
        low, high = bootstrap(hits[:, None], np.repeat(np.arange(40), 15), mean, replicates=400)
        covered += low <= 0.7 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_whole_recordings_are_drawn():
    """All hits in one of two recordings: a draw gives 0, 1/2 or 1, never anything between."""
    hits = np.repeat([1.0, 0.0], 50)
    units = np.repeat([0, 1], 50)
    assert bootstrap(hits[:, None], units, mean) == (0.0, 1.0)
    alone = bootstrap(hits[:, None], np.arange(100), mean)
    assert alone[1] - alone[0] < 0.25


def test_recordings_weigh_by_their_queries():
    """Equal scores within a recording, so each replicate is a ratio of weighted sums."""
    hits = np.repeat([1.0, 0.0, 0.0], [90, 5, 5])
    units = np.repeat([0, 1, 2], [90, 5, 5])
    low, high = bootstrap(hits[:, None], units, mean)
    possible = [0.0, 1.0, 90 / 100, 180 / 185]
    assert min(abs(low - p) for p in possible) < 1e-9
    assert high == 1.0


def test_s_takes_the_smaller_direction():
    a2m, m2a = np.tile([1.0, 1.0, 0.0], 40), np.tile([1.0, 0.0, 0.0], 40)
    units = np.arange(120)
    both = np.column_stack([a2m, m2a])
    assert interval_of_least(both, units) == bootstrap(m2a[:, None], units, mean)


def test_the_same_ranks_give_the_same_interval():
    hits = (np.arange(300) * 7919 % 97 > 32).astype(float)
    units = np.arange(300) ** 2 // 3000
    first = interval_of_least(np.column_stack([hits, hits]), units)
    np.random.seed(5)  # noqa: NPY002 - the global generator must not matter
    assert interval_of_least(np.column_stack([hits, hits]), units) == first
    assert bootstrap(hits[:, None], units, mean, seed=1) != first
    assert first == pytest.approx(bootstrap_twin(hits.tolist(), units.tolist()), abs=1e-12)


def bootstrap_twin(hits, units):
    """The documented draws with Python integers: unit = hash(0, replicate, draw) mod U."""
    mask = 2**64 - 1

    def mix(value):
        z = (value + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    n_units = max(units) + 1
    groups = [[h for h, u in zip(hits, units, strict=True) if u == unit] for unit in range(n_units)]
    means = []
    for replicate in range(2000):
        base = mix(mix(0) ^ replicate)
        drawn = [h for k in range(n_units) for h in groups[mix(base ^ k) % n_units]]
        means.append(sum(drawn) / len(drawn))
    return tuple(np.quantile(means, [0.025, 0.975]))


def test_one_unit_gives_no_interval():
    assert interval_of_least(np.ones((5, 2)), np.zeros(5, int)) is None


def test_units_are_recordings_or_blocks(make_gallery):
    many = make_gallery([5] * 20, [0] * 20, list(range(20)))
    units, kind = resampling_units(many, np.arange(100))
    assert (kind, len(set(units))) == ("recordings", 20)
    few = make_gallery([25] * 19, [0] * 19, list(range(19)))
    units, kind = resampling_units(few, np.arange(25 * 19))
    assert (kind, len(set(units))) == ("10-s blocks", 19 * 3)
    assert units[:25].tolist() == [0] * 10 + [1] * 10 + [2] * 5
