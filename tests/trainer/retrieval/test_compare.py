"""Comparisons: planted differences are stated, absent ones and single seeds are not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trainer.retrieval.compare import Scored, compare, t975
from trainer.retrieval.gallery import RetrievalError

N_RECORDINGS, PER = 30, 20


def scored(
    level, seed, *, drawn=0, name=None, over=None, difficulty=1.5, recordings=N_RECORDINGS,
    liking=None,
):  # fmt: skip
    """A model that finds the first place with probability ``level``; recordings as hard for all.

    ``liking``: seed of how well its *arm* does on each recording, in logits of deviation 0.7.
    """
    name = name or f"run-{drawn}-{seed}"
    shared = np.random.default_rng(99).normal(0, difficulty, recordings)
    if liking is not None:
        shared = shared + np.random.default_rng([5, liking]).normal(0, 0.7, recordings)
    rng = np.random.default_rng([drawn, 0 if seed is None else seed])
    logit = np.log(level / (1 - level)) + np.repeat(shared, PER)
    hit = rng.random((2, recordings * PER)) < 1 / (1 + np.exp(-logit))
    ranks = np.where(hit, 0, 50)
    columns = {
        "segment": np.arange(recordings * PER),
        "recording": np.repeat(np.arange(recordings), PER),
        "start_s": np.tile(np.arange(PER, dtype=float), recordings),
        "a2m": ranks[0],
        "m2a": ranks[1],
    }
    record = {
        "protocol": "strict",
        "split": "test",
        "store_identity": "s",
        "pool_hash": "h",
        "pool_size": 256,
        **(over or {}),
    }
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


@pytest.mark.parametrize("recordings", [6, 30])
def test_arms_that_like_other_recordings_are_rarely_stated_to_differ(recordings):
    """Each arm does better on recordings of its own liking; on average they are alike."""
    stated = 0
    for i in range(60):
        arms = [
            [
                scored(0.6, s, drawn=2 * i + j, recordings=recordings, liking=2 * i + j)
                for s in (1, 2, 3)
            ]
            for j in (0, 1)
        ]
        found = compare(*arms)
        assert found["unit"] == "recordings"
        stated += found["S"]["stated"]
    assert stated <= 6


def test_the_doubt_of_recordings_is_that_of_paired_draws():
    """Against plain arithmetic: one metric, differences recording by recording."""
    first, second = group(0.5, (1, 2, 3)), group(0.7, (1, 2, 3), drawn=7)
    found = compare(first, second)["a2m R@1"]
    apart = np.mean([s.hits("a2m R@1") for s in second], axis=0)
    apart = (apart - np.mean([s.hits("a2m R@1") for s in first], axis=0)).reshape(N_RECORDINGS, PER)
    of_queries = apart.mean(axis=1).std(ddof=1) / np.sqrt(N_RECORDINGS)
    seeds = [b.score("a2m R@1") - a.score("a2m R@1") for a, b in zip(first, second, strict=True)]
    of_seeds = np.std(seeds, ddof=1) / np.sqrt(3)
    half = np.hypot(t975(29) * of_queries, t975(2) * of_seeds)
    low, high = found["ci95"]
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert (high + low) / 2 == pytest.approx(np.mean(seeds))


def test_p_over_queries_exchanges_whole_recordings():
    """Five recordings, so 32 exchanges: every one of them by hand."""
    first = [scored(0.5, 1, recordings=5)]
    second = [scored(0.7, 2, recordings=5, drawn=3)]
    found = compare(first, second)["a2m R@1"]
    sums = [g[0].hits("a2m R@1").reshape(5, PER).sum(axis=1) for g in (first, second)]
    observed = abs(sums[1].sum() - sums[0].sum())
    ways = [
        abs(np.dot(1 - 2 * np.array(swap), sums[1] - sums[0]))
        for swap in itertools.product((0, 1), repeat=5)
    ]
    assert found["p_queries"] == pytest.approx(np.mean(np.array(ways) >= observed), abs=0.02)


def test_few_recordings_give_a_wider_interval_and_too_few_none_to_state():
    def width(recordings):
        arms = [
            [scored(p, s, drawn=d, recordings=recordings) for s in (1, 2, 3)]
            for p, d in ((0.5, 0), (0.9, 1))
        ]
        found = compare(*arms)
        low, high = found["S"]["ci95"]
        return found["unit"], found["S"]["stated"], high - low

    assert width(30)[:2] == ("recordings", True)
    assert width(6)[2] > width(30)[2]
    assert width(4)[:2] == ("10-s blocks", False)


def test_one_training_is_not_counted_twice():
    runs = group(0.5, (1, 2, 3))
    with pytest.raises(RetrievalError, match="is given twice"):
        compare(group(0.6, (1, 2, 3), drawn=4), [runs[0], runs[0], runs[1]])
    copy = scored(0.5, 1, name="another folder")
    with pytest.raises(RetrievalError, match="have the same seed 1: that is one training"):
        compare(group(0.6, (1, 2), drawn=4), [runs[0], copy])


def test_an_arm_that_is_given_the_answer_is_not_stated_to_be_better():
    leaking = [scored(0.95, s, drawn=7, over={"leaks": True}) for s in (1, 2, 3)]
    found = compare(group(0.5, (1, 2, 3)), leaking)["S"]
    assert found["ci95"][0] > 0
    assert not found["stated"]


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


@pytest.mark.parametrize("key", ["protocol", "split", "store_identity", "pool_hash"])
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
    other = scored(0.5, 1, over={"protocol": "paper", "pool_hash": "x", "pool_size": 2}, name="x")
    with pytest.raises(RetrievalError, match="of different size: train both with one --pool-size"):
        compare(pair[:1], [other])


def test_quantiles_of_t():
    scipy_stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 5, 30, 31, 60, 500):
        assert t975(freedom) == pytest.approx(scipy_stats.t.ppf(0.975, freedom), abs=2e-3)
