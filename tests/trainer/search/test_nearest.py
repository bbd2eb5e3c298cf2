"""The nearest rows: exactly those, or nearly; samples that are the same for ever."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.retrieval.lags import Comparison
from trainer.search import nearest
from trainer.search.nearest import Approximate, Exact, build_approximate, recall_of, spread

SPREAD_10 = [3, 4, 5, 7]
SPREAD_126 = [10, 18, 21, 48, 68, 82, 83, 102, 120]
SPREAD_MILLION = [275546, 445729, 599158, 819352, 836956, 879043]


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def random_rows(n: int, width: int = 16, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((n, width)))


@pytest.fixture(scope="module")
def clustered() -> tuple[np.ndarray, np.ndarray]:
    """4,000 rows around 100 centres, and 100 queries near some of them."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((100, 32))
    rows = centres[rng.integers(0, 100, 4000)] + 0.5 * rng.standard_normal((4000, 32))
    queries = rows[::40] + 0.3 * rng.standard_normal((100, 32))
    return unit(rows), unit(queries)


@pytest.mark.parametrize("block", [1, 64, 1000, 1 << 24])
@pytest.mark.parametrize(("n", "k"), [(300, 7), (300, 1), (300, 300), (5, 50), (1, 1), (700, 3)])
def test_exactly_the_most_similar_rows(
    block: int, n: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "BLOCK", block)
    rows, queries = random_rows(n), random_rows(9, seed=1)
    similarity, found = Exact(rows).top(queries, k)
    products = queries.astype(np.float64) @ rows.T.astype(np.float64)
    assert similarity.shape == found.shape == (9, min(k, n))
    for i in range(9):
        best = sorted(range(n), key=lambda row, i=i: -products[i, row])[:k]
        assert sorted(found[i].tolist()) == sorted(best)
        np.testing.assert_allclose(similarity[i], products[i, found[i]], atol=1e-6)


def test_nearly_the_most_similar_rows(clustered: tuple[np.ndarray, np.ndarray]) -> None:
    pytest.importorskip("faiss")
    rows, queries = clustered
    built = build_approximate(rows, queries)
    products = queries @ rows.T
    wanted = np.argsort(-products, axis=1)[:, :10]
    similarity, found = built.nearest.top(queries, 10)
    hits = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(found, wanted, strict=True)]
    assert built.recall >= 0.9
    assert sum(hits) / 1000 == pytest.approx(built.recall, abs=0.005)
    assert 1 <= built.nearest.probes <= 63
    assert built.seconds > 0
    there = found >= 0
    expected = np.take_along_axis(products, np.maximum(found, 0), axis=1)
    np.testing.assert_allclose(similarity[there], expected[there], atol=2e-3)  # of halves


def test_it_is_the_same_from_its_bytes(clustered: tuple[np.ndarray, np.ndarray], tmp_path) -> None:
    pytest.importorskip("faiss")
    rows, queries = clustered
    built = build_approximate(rows, queries)
    (tmp_path / "it.faiss").write_bytes(built.nearest.as_bytes())
    again = Approximate.open(tmp_path / "it.faiss", built.nearest.probes)
    for own, other in zip(built.nearest.top(queries, 50), again.top(queries, 50), strict=True):
        np.testing.assert_array_equal(own, other)


def test_where_fewer_are_looked_at_there_is_none(
    clustered: tuple[np.ndarray, np.ndarray],
) -> None:
    pytest.importorskip("faiss")
    rows, queries = clustered
    built = build_approximate(rows, queries)
    similarity, found = Approximate(built.nearest.index, 1).top(queries, 1000)
    assert (found[:, -1] == -1).all()
    assert (found[:, 0] >= 0).all()
    assert np.abs(similarity).max() <= 1.001  # a likeness of what is none must not run over


def test_few_rows_make_an_approximate_index_too() -> None:
    pytest.importorskip("faiss")
    rows = random_rows(6)
    built = build_approximate(rows, rows)
    assert built.recall == 1.0
    found = built.nearest.top(rows, 6)[1]
    assert (np.sort(found, axis=1) == np.arange(6)).all()


def test_recall_is_the_share_that_was_found() -> None:
    wanted = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall_of(np.array([[4, 3, 9, -1], [8, 7, 6, 5]]), wanted) == 0.75
    assert recall_of(np.empty((0, 4), int), np.empty((0, 4), int)) == 1.0


def test_samples_are_these_for_ever() -> None:
    # Indexes on disks were measured by them.
    assert spread(10, 4).tolist() == SPREAD_10
    assert spread(126, 9).tolist() == SPREAD_126
    assert spread(1_000_000, 6).tolist() == SPREAD_MILLION
    assert spread(3, 9).tolist() == [0, 1, 2]
    assert spread(0, 9).tolist() == []
    many = spread(5000, 2048)
    assert len(np.unique(many)) == 2048
    assert (np.diff(many) > 0).all()
    assert (many.min(), many.max()) >= (0, 4900)
    thirds = np.histogram(many, 5, (0, 5000))[0]
    assert thirds.min() > 350  # from everywhere


AT_LAGS = Comparison(slots=8, lags=2, cost=0.05)


def best_lag(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return AT_LAGS.of(
        np.repeat(queries, len(rows), axis=0), np.tile(rows, (len(queries), 1))
    ).pairs(*[np.arange(len(queries) * len(rows))] * 2).reshape(len(queries), len(rows))  # fmt: skip


def test_at_the_best_of_several_lags_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "BLOCK", 500)
    rows, queries = random_rows(300), random_rows(9, seed=1)
    similarity, found = Exact(rows, AT_LAGS).top(queries, 7)
    likeness = best_lag(queries, rows)
    wanted = np.argsort(-likeness, axis=1)[:, :7]
    assert (np.sort(found, axis=1) == np.sort(wanted, axis=1)).all()
    np.testing.assert_allclose(similarity, np.take_along_axis(likeness, found, 1), atol=1e-6)


@pytest.mark.parametrize("k", [10, 250])
def test_at_the_best_of_several_lags_nearly(
    clustered: tuple[np.ndarray, np.ndarray], k: int
) -> None:
    pytest.importorskip("faiss")
    rows, queries = clustered
    built = build_approximate(rows, queries, AT_LAGS)
    assert built.recall >= 0.9
    similarity, found = built.nearest.top(queries, k)
    assert similarity.shape == found.shape == (100, k)
    for own in found:
        there = own[own >= 0]
        assert len(np.unique(there)) == len(there)
    there = found >= 0
    expected = np.take_along_axis(best_lag(queries, rows), np.maximum(found, 0), axis=1)
    assert (similarity[there] <= expected[there] + 2e-3).all()  # a lag may not have been looked at
    assert float(np.mean(similarity[there] >= expected[there] - 2e-3)) > (0.9 if k == 10 else 0.8)
    assert (similarity[~there] == 0).all()
