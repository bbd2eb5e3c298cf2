"""Ranks against exact arithmetic: integer vectors, whose cosines compare as fractions."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from trainer.retrieval import metrics
from trainer.retrieval.gallery import RetrievalError
from trainer.retrieval.metrics import Cosine
from trainer.retrieval.pools import HardTrials, Pools


def exact_cosine(a, b):
    """Sign and square of the cosine of two integer vectors: orders as the cosine does."""
    dot = int(np.dot(a, b))
    norms = int(np.dot(a, a)) * int(np.dot(b, b))
    square = Fraction(dot * dot, norms) if norms else Fraction(0)
    return square if dot >= 0 else -square


def exact_rank(query, candidates, positive, ties):
    """Candidates placed before the positive."""
    values = [exact_cosine(query, c) for c in candidates]
    above = [i for i, v in enumerate(values) if v > values[positive]]
    level = [i for i, v in enumerate(values) if v == values[positive] and i != positive]
    lost = level if ties == "against" else [i for i in level if i < positive]
    return len(above) + len(lost)


def random_case(rng):
    """Integer embeddings with many ties, and pools of unequal size."""
    n, d = int(rng.integers(2, 24)), int(rng.integers(1, 5))
    left, right = rng.integers(-2, 3, (2, n, d))
    left[rng.random(n) < 0.1] = 0
    queries = rng.permutation(n)[: rng.integers(1, n + 1)]
    candidates = np.full((len(queries), n), -1)
    positive = np.empty(len(queries), int)
    for row, query in enumerate(queries):
        others = rng.permutation(np.delete(np.arange(n), query))[: rng.integers(0, n)]
        positive[row] = rng.integers(0, len(others) + 1)
        pool = np.insert(others, positive[row], query)
        candidates[row, : len(pool)] = pool
    pools = Pools(protocol="any", seed=0, queries=queries, candidates=candidates, positive=positive)
    return left, right, pools


@pytest.mark.parametrize("ties", ["against", "order"])
def test_ranks_equal_brute_force_with_ties(ties, monkeypatch):
    rng = np.random.default_rng(7)
    for case in range(200):
        left, right, pools = random_case(rng)
        n = len(left)
        dtype = (np.float16, np.float32, np.float64)[case % 3]
        monkeypatch.setattr(metrics, "BLOCK", int(rng.integers(1, 200)))
        members = rng.random(n) < 0.8
        members[pools.queries] = True
        hard = (rng.random(pools.candidates.shape) < 0.3) & (pools.candidates >= 0)
        hard[np.arange(len(hard)), pools.positive] = False
        similarity = Cosine(left.astype(dtype), right.astype(dtype))
        found = metrics.sweep(similarity, pools, ties, hard=hard, members=members)
        for row, query in enumerate(pools.queries):
            pool = pools.candidates[row][pools.candidates[row] >= 0]
            at = pools.positive[row]
            assert found.ranks[row] == exact_rank(left[query], right[pool], at, ties)
            own = exact_cosine(left[query], right[query])
            marked = pools.candidates[row][hard[row]]
            wins = all(own > exact_cosine(left[query], right[c]) for c in marked)
            assert found.beats_hard[row] == wins
        inside = np.flatnonzero(members)
        for at, query in enumerate(inside):
            assert found.full[at] == exact_rank(left[query], right[inside], at, ties)


def test_without_members_there_is_no_full_rank():
    left, right, pools = random_case(np.random.default_rng(3))
    hard = np.zeros(pools.candidates.shape, bool)
    cosine = Cosine(left.astype(float), right.astype(float))
    one = metrics.sweep(cosine, pools, "against", hard=hard)
    two = metrics.sweep(cosine, pools, "against", hard=hard, members=np.ones(len(left), bool))
    assert one.full is None
    assert one.ranks.tolist() == two.ranks.tolist()


@pytest.mark.parametrize("width", [3, 256, 16_544])
def test_equal_vectors_tie_wherever_they_lie(width):
    """A matrix kernel may round equal columns differently; that must not decide a rank."""
    vector = np.full(width, 0.3, np.float32)  # equal signs add up the largest rounding errors
    vector[0] = 0.6
    constant = np.tile(vector, (300, 1))
    sims = Cosine(constant, constant).rows(np.arange(300))
    ranks = metrics.positive_ranks(sims, np.arange(300), "against")
    assert (ranks == 299).all()
    assert metrics.positive_ranks(sims, np.arange(300), "order").tolist() == list(range(300))


def test_summary_on_a_known_case():
    found = metrics.summary(np.array([0, 0, 1, 4, 9, 19, 50, 200]))
    assert found["R@1"] == 2 / 8
    assert found["R@5"] == 4 / 8
    assert found["R@10"] == 5 / 8
    assert found["R@20"] == 6 / 8
    assert found["median_rank"] == 6.5
    assert found["mean_rank"] == 283 / 8
    expected = (1 + 1 + 1 / 2 + 1 / 5 + 1 / 10 + 1 / 20 + 1 / 51 + 1 / 201) / 8
    assert found["MRR"] == pytest.approx(expected, abs=1e-12)


def test_chance_is_that_of_the_actual_pools():
    found = metrics.chance(np.array([256, 4], np.int32))
    assert found["R@10"] == pytest.approx((10 / 256 + 1) / 2)
    by_hand = [sum(1 / r for r in range(1, n + 1)) / n for n in (256, 4)]
    assert found["MRR"] == pytest.approx(sum(by_hand) / 2)


def test_cosine_gap_equals_the_full_matrix(monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK", 64)
    rng = np.random.default_rng(1)
    left = rng.standard_normal((40, 6))
    right = left + rng.standard_normal((40, 6))
    members = rng.random(40) < 0.7
    a, b = left[members], right[members]
    cosine = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    off = cosine[~np.eye(len(a), dtype=bool)].mean()
    found = Cosine(left, right).gap(members)
    assert found == pytest.approx(np.diag(cosine).mean() - off, abs=1e-6)
    assert Cosine(left, right).gap(np.arange(40) < 1) is None


def test_beats_one_loses_ties():
    left = np.array([[1.0, 0], [0, 1], [1, 1]])
    right = np.array([[2.0, 0], [0, 3], [2, 0]])
    trials = HardTrials(query=np.array([0, 0, 1, 2]), hard=np.array([1, 2, 0, 1]))
    assert metrics.beats_one(Cosine(left, right), trials) == 2 / 4  # wins, ties, wins, ties
    none = HardTrials(query=np.array([], int), hard=np.array([], int))
    assert metrics.beats_one(Cosine(left, right), none) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_embeddings_that_are_not_finite_are_refused(bad, side):
    pair = [np.ones((5, 3), np.float32), np.ones((5, 3), np.float32)]
    pair[side][3, 1] = bad
    with pytest.raises(RetrievalError, match=r"1 of 5 embeddings .* row 3") as caught:
        Cosine(*pair)
    assert (caught.value.kind, caught.value.exit_code) == ("not-finite", 3)


def test_embeddings_that_do_not_pair_are_refused():
    with pytest.raises(RetrievalError, match="do not pair"):
        Cosine(np.ones((5, 3)), np.ones((5, 4)))


def test_large_and_small_norms_do_not_matter():
    rng = np.random.default_rng(2)
    left, right = rng.standard_normal((2, 30, 8))
    scale = 10.0 ** rng.integers(-9, 10, (30, 1))
    plain = Cosine(left, right).rows(np.arange(30))
    scaled = Cosine((left * scale), (right * scale)).rows(np.arange(30))
    np.testing.assert_allclose(plain, scaled, atol=1e-6)


def test_the_full_matrix_is_never_held(monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK", 1 << 17)
    n = 3000
    rng = np.random.default_rng(4)
    left, right = rng.standard_normal((2, n, 8)).astype(np.float32)
    rows = np.arange(n)
    pools = Pools(protocol="any", seed=0, queries=rows, candidates=rows[:, None], positive=rows * 0)
    cosine = Cosine(left, right)
    hard = np.zeros((n, 1), bool)
    tracemalloc.start()
    metrics.sweep(cosine, pools, "against", hard=hard, members=np.ones(n, bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n  # a quarter of the float32 matrix


@pytest.mark.parametrize("width", [5, 11, 300, 2560, 2561, 5000])
@pytest.mark.parametrize("k", [1, 5])
def test_top_columns_are_those_of_a_full_sort(width, k):
    rng = np.random.default_rng(width + k)
    sims = rng.standard_normal((7, width)).astype(np.float32)
    sims[:, rng.integers(0, width, width // 5)] = -np.inf
    found = np.sort(np.take_along_axis(sims, metrics.top_columns(sims, k), axis=1), axis=1)
    np.testing.assert_array_equal(found, np.sort(sims, axis=1)[:, -k:])
