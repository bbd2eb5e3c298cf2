"""Embeddings compared at the best of a few lags, against loops over pairs and parts."""

from __future__ import annotations

import numpy as np
import pytest
from trainer_fakes import run_config

from pipeline.base.errors import ConfigError
from trainer.retrieval import lags, metrics
from trainer.retrieval.evaluate import score_embeddings
from trainer.retrieval.gallery import Gallery, RetrievalError
from trainer.retrieval.lags import COSINE, BestLag, Comparison
from trainer.retrieval.metrics import Cosine
from trainer.scoring import comparison_of

SLOTS, PART = 8, 3
AT_LAGS = Comparison(slots=SLOTS, lags=2, cost=0.05)


def embeddings(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, SLOTS * PART)).astype(np.float32)


def later(x: np.ndarray, parts: int) -> np.ndarray:
    """Everything that many parts later; silence where it came from."""
    moved = np.zeros_like(x)
    apart = abs(parts) * PART
    if parts >= 0:
        moved[:, apart:] = x[:, : x.shape[1] - apart]
    else:
        moved[:, :-apart] = x[:, apart:]
    return moved


def by_loops(a: np.ndarray, m: np.ndarray) -> float:
    a, m = (x.astype(np.float64) / np.linalg.norm(x) for x in (a, m))
    a, m = a.reshape(SLOTS, PART), m.reshape(SLOTS, PART)
    found = []
    for lag in (-2, -1, 0, 1, 2):
        total = sum(a[t + lag] @ m[t] for t in range(SLOTS) if 0 <= t + lag < SLOTS)
        found.append(total - 0.05 * abs(lag))
    return float(max(found))


@pytest.mark.parametrize("few", [0, 100])
@pytest.mark.parametrize("block", [metrics.BLOCK, 50])
def test_it_is_its_definition_block_by_block(
    block: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "BLOCK", block)
    monkeypatch.setattr(lags, "FEW", few)
    a, m = embeddings(7, 1), embeddings(7, 2)
    forth, back = AT_LAGS.of(a, m), AT_LAGS.of(m, a)
    assert isinstance(forth, BestLag)
    wanted = [[by_loops(x, y) for y in m] for x in a]
    rows = np.array([4, 0, 6])
    np.testing.assert_allclose(forth.rows(rows), np.array(wanted)[rows], atol=1e-6)
    np.testing.assert_allclose(back.rows(np.arange(7)), np.array(wanted).T, atol=1e-6)
    first, second = np.array([0, 3, 3, 6]), np.array([1, 3, 5, 0])
    expected = [wanted[i][j] for i, j in zip(first, second, strict=True)]
    np.testing.assert_allclose(forth.pairs(first, second), expected, atol=1e-6)
    assert forth.gap(np.ones(7, bool)) == pytest.approx(Cosine(a, m).gap(np.ones(7, bool)))


def test_without_lags_it_is_the_cosine() -> None:
    a = embeddings(4, 1)
    assert type(COSINE.of(a, a)) is Cosine
    assert type(Comparison(slots=SLOTS, cost=0.5).of(a, a)) is Cosine
    free = Comparison(slots=SLOTS, lags=2)
    assert (free.of(a, a).rows(np.arange(4)) >= Cosine(a, a).rows(np.arange(4)) - 1e-6).all()


def test_silence_is_like_nothing() -> None:
    a, silent = embeddings(3, 1), np.zeros((3, SLOTS * PART), np.float32)
    assert not AT_LAGS.of(a, silent).rows(np.arange(3)).any()
    assert not AT_LAGS.of(silent, a).pairs(np.arange(3), np.arange(3)).any()


@pytest.mark.parametrize(
    "comparison", [Comparison(slots=7, lags=1), Comparison(slots=2, lags=2), Comparison(lags=1)]
)
def test_parts_that_cannot_be_are_refused(comparison: Comparison) -> None:
    a, m = embeddings(3, 1), embeddings(3, 2)
    with pytest.raises(RetrievalError, match="cannot be compared in"):
        comparison.of(a, m)
    with pytest.raises(RetrievalError, match="cannot be compared in"):
        comparison.likeness(a, m)


@pytest.mark.parametrize("parts", [-3, -2, 0, 1, 2])
def test_notes_that_come_early_or_late_are_found_within_the_lags(parts: int) -> None:
    n = 40
    audio = embeddings(n, 1)
    midi = later(audio, parts) + 0.3 * embeddings(n, 2)
    recording = np.arange(n) // 4
    gallery = Gallery.from_columns(
        split="test", segment=np.arange(n), recording=recording, composer=recording,
        composition=recording, start_s=4.0 * (np.arange(n) % 4), valid=np.ones(n),
    )  # fmt: skip
    plain, lagged = (
        score_embeddings(audio, midi, gallery, "strict", comparison=c, pool_size=10)
        for c in (COSINE, AT_LAGS)
    )
    found = [float(np.mean(np.concatenate([s.a2m, s.m2a]) == 0)) for s in (plain, lagged)]
    if parts == 0:
        assert found == [1.0, 1.0]
    elif abs(parts) <= AT_LAGS.lags:
        assert found[1] == 1.0
        assert found[0] < 0.5
    else:
        assert max(found) < 0.6


def test_presets_say_how_they_are_compared() -> None:
    assert comparison_of(run_config("paper", "d0")) == COSINE
    # What docs/evaluation.md says.
    assert comparison_of(run_config("sound", "d0")) == Comparison(slots=64, lags=3, cost=0.02)


@pytest.mark.parametrize(
    "head", [{"lags": -1}, {"lags": 64}, {"lag_cost": -0.1}, {"slots": 1}, {"lags": 1, "slots": 1}]
)
def test_lags_that_cannot_be_are_no_configuration(head: dict) -> None:
    with pytest.raises(ConfigError, match=r"head\.lags = .*head\.lags = 0 compares"):
        run_config("sound", "d0", head=head)
