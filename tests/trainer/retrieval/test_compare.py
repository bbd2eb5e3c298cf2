"""Comparisons: planted differences are stated, absent ones and single seeds are not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trainer.retrieval.compare import Scored, compare, t975
from trainer.retrieval.gallery import RetrievalError

N_RECORDINGS, PER = 30, 20


def scored(level, seed, *, drawn=0, name="run", over=None, difficulty=1.5):
    """A model that finds the first place with probability ``level``; as hard for all."""
    shared = np.random.default_rng(99).normal(0, difficulty, N_RECORDINGS)
    rng = np.random.default_rng([drawn, 0 if seed is None else seed])
    logit = np.log(level / (1 - level)) + np.repeat(shared, PER)
    hit = rng.random((2, N_RECORDINGS * PER)) < 1 / (1 + np.exp(-logit))
    ranks = np.where(hit, 0, 50)
    columns = {
        "segment": np.arange(N_RECORDINGS * PER),
        "recording": np.repeat(np.arange(N_RECORDINGS), PER),
        "start_s": np.tile(np.arange(PER, dtype=float), N_RECORDINGS),
        "a2m": ranks[0],
        "m2a": ranks[1],
    }
    record = {"protocol": "strict", "split": "test", "store": "s", "pool_hash": "h", **(over or {})}
    return Scored(name=name, seed=seed, record=record, columns=columns)


def group(level, seeds, **more):
    return [scored(level, s, **more) for s in seeds]


def test_a_planted_difference_is_stated_with_three_seeds():
    found = compare(group(0.5, (1, 2, 3)), group(0.8, (1, 2, 3), drawn=7))["S"]
    assert found["stated"]
    assert found["difference"] == pytest.approx(found["second"] - found["first"])
    assert found["ci95"][0] > 0.05
    assert found["p_seeds"] == pytest.approx(2 / 20)
    assert found["smallest_p"] == pytest.approx(2 / 20)
    assert found["p_queries"] < 0.001


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_nothing_is_stated_from_fewer_than_three_seeds(seeds):
    found = compare(group(0.3, seeds), group(0.9, seeds, drawn=7))
    assert not any(found[metric]["stated"] for metric in ("S", "a2m R@1", "m2a R@1"))


def test_equal_arms_are_rarely_stated_to_differ():
    """Thirty comparisons of arms that are alike: the interval must hold 0 in about 95 %."""
    stated = 0
    for i in range(30):
        first, second = group(0.6, (1, 2, 3), drawn=2 * i), group(0.6, (1, 2, 3), drawn=2 * i + 1)
        stated += compare(first, second)["S"]["stated"]
    assert stated <= 4


def test_the_interval_holds_the_doubt_of_the_seeds():
    """The same mean difference, seeds that agree or not: only the former is stated."""
    first = group(0.6, (1, 2, 3))
    steady = [scored(0.8, s, drawn=5) for s in (1, 2, 3)]
    wild = [scored(level, s, drawn=5) for level, s in ((0.995, 1), (0.85, 2), (0.3, 3))]
    assert compare(first, steady)["S"]["stated"]
    assert not compare(first, wild)["S"]["stated"]


def test_identical_runs_differ_by_nothing():
    runs = group(0.6, (1, 2, 3))
    found = compare(runs, runs)["S"]
    assert found["difference"] == 0
    assert found["ci95"] == [0, 0]
    assert found["p_queries"] == 1
    assert found["p_seeds"] == 1
    assert not found["stated"]


def test_p_over_seeds_counts_every_assignment():
    first, second = group(0.5, (1, 2, 3)), group(0.55, (4, 5, 6), drawn=3)
    found = compare(first, second)
    assert not found["paired"]
    scores = [s.score("S") for s in (*first, *second)]
    observed = abs(np.mean(scores[3:]) - np.mean(scores[:3]))
    ways = [
        abs(np.mean([scores[i] for i in range(6) if i not in c]) - np.mean([scores[i] for i in c]))
        for c in itertools.combinations(range(6), 3)
    ]
    assert found["S"]["p_seeds"] == pytest.approx(np.mean(np.array(ways) >= observed - 1e-12))


def test_a_floor_has_no_seeds_and_needs_none():
    floor = [scored(0.3, None, drawn=4, name="flux")]
    found = compare(floor, group(0.9, (1, 2, 3)))
    assert found["S"]["stated"]
    assert found["S"]["p_seeds"] is None
    assert found["seeds"] == [1, 3]
    assert not compare(floor, group(0.9, (1,)))["S"]["stated"]


@pytest.mark.parametrize("key", ["protocol", "split", "store", "pool_hash"])
def test_runs_that_answered_other_questions_are_refused(key):
    other = scored(0.5, 2, over={key: "another"}, name="other")
    with pytest.raises(RetrievalError, match=f"cannot be compared: their {key} differ"):
        compare([scored(0.5, 1)], [other])


def test_papers_pools_of_two_seeds_are_refused_with_a_remedy():
    pair = [
        scored(0.5, 1, over={"protocol": "paper", "pool_hash": h}, name=h) for h in ("one", "two")
    ]
    with pytest.raises(RetrievalError, match="xmodal-evaluate RUN --seed 42"):
        compare(pair[:1], pair[1:])


def test_quantiles_of_t():
    scipy_stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 5, 30, 31, 60, 500):
        assert t975(freedom) == pytest.approx(scipy_stats.t.ppf(0.975, freedom), abs=2e-3)
