"""Learning rates: the method's own numbers, and its formulas at every step of the paper's runs."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.config import Choice
from trainer.schedules import update_multiplier


def multipliers(name: str, total: int, first_update: str, **options: float) -> np.ndarray:
    """What the schedule gives for updates 1 … total."""
    choice = Choice(name=name, options={"warmup": 200, "first_update": first_update, **options})
    return np.array([update_multiplier(choice, n, total) for n in range(1, total + 1)])


def half_cosine(k: np.ndarray, start: float, stop: float) -> np.ndarray:
    return 0.5 * (1 + np.cos(np.pi * (k - start) / (stop - start)))


def cosine_formula(k: np.ndarray) -> np.ndarray:
    """§6.5 with h = 0, T = 30,000."""
    return np.where(k <= 200, k / 200, half_cosine(k, 200, 30_000))


def trapezoid_formula(k: np.ndarray) -> np.ndarray:
    """§6.5 with h = 0.5, T = 50,000, H = 25,100."""
    held = np.where(k <= 25_100, 1.0, half_cosine(k, 25_100, 50_000))
    return np.where(k <= 200, k / 200, held)


def tail_formula(k: np.ndarray) -> np.ndarray:
    """§6.5 with R = 30,000, T = 60,000, K = 23,895, floor 0.10, end 0.02."""
    line = 0.10 - 0.08 * np.minimum(1, (k - 23_895) / (60_000 - 23_895))
    main = np.where(k <= 23_895, half_cosine(k, 200, 30_000), line)
    return np.where(k <= 200, k / 200, main)


@pytest.mark.parametrize(
    ("name", "total", "formula"),
    [
        ("cosine", 30_000, cosine_formula),
        ("trapezoidal", 50_000, trapezoid_formula),
        ("cosine-tail", 60_000, tail_formula),
    ],
)
def test_every_step_is_the_formula(name, total, formula):
    k = np.arange(1, total + 1)
    np.testing.assert_allclose(multipliers(name, total, "warm"), formula(k), atol=1e-12)
    # The reference's scheduler steps after its optimiser: update n runs at m(n - 1), the first at 1.
    late = np.concatenate([[1.0], formula(k[:-1])])
    np.testing.assert_allclose(multipliers(name, total, "full"), late, atol=1e-12)


# lr multiplier at the end of an epoch of the 30-epoch run (method §11)
@pytest.mark.parametrize(
    ("epoch", "multiplier"),
    [
        (1, 0.998223),
        (5, 0.937338),
        (10, 0.756062),
        (15, 0.505271),
        (20, 0.253049),
        (25, 0.067868),
        (30, 0),
    ],
)
def test_cosine_equals_the_recorded_rates(epoch, multiplier):
    choice = Choice(name="cosine", options={"warmup": 200, "first_update": "full"})
    # m(k) is the rate of update k + 1
    got = update_multiplier(choice, epoch * 1000 + 1, 30_000)
    assert got == pytest.approx(multiplier, abs=6e-7)


def test_first_update_at_full_rate_only_in_the_reference():
    full = Choice(name="cosine", options={"warmup": 200, "first_update": "full"})
    warm = Choice(name="cosine", options={"warmup": 200, "first_update": "warm"})
    assert [update_multiplier(full, n, 1000) for n in (1, 2, 3, 201)] == [1, 1 / 200, 2 / 200, 1]
    assert [update_multiplier(warm, n, 1000) for n in (1, 2, 200, 1000)] == [1 / 200, 2 / 200, 1, 0]


def test_trapezoid_holds_until_25100():
    choice = Choice(
        name="trapezoidal", options={"warmup": 200, "first_update": "warm", "hold": 0.5}
    )
    assert update_multiplier(choice, 25_100, 50_000) == 1
    assert update_multiplier(choice, 25_101, 50_000) < 1
    assert update_multiplier(choice, 37_550, 50_000) == pytest.approx(0.5)
    assert update_multiplier(choice, 50_000, 50_000) == pytest.approx(0)


def test_cosine_tail_starts_at_23895():
    choice = Choice(name="cosine-tail", options={"warmup": 200, "first_update": "warm"})

    def m(k):
        return update_multiplier(choice, k, 60_000)

    assert m(23_895) == pytest.approx(0.5 * (1 + np.cos(np.pi * 23_695 / 29_800)), abs=1e-12)
    assert m(23_896) == pytest.approx(0.10 - 0.08 / (60_000 - 23_895), abs=1e-12)
    assert m(60_000) == pytest.approx(0.02)
