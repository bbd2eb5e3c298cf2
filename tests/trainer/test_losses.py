"""Losses against independent NumPy in float64; schedules against the method's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.config import Choice
from trainer.losses import LOSSES, Infonce, InfonceOptions, Vicreg, VicregOptions
from trainer.schedules import update_multiplier


def numpy_vicreg(x: np.ndarray, y: np.ndarray) -> float:
    def hinge(z):
        return np.maximum(0, 1 - np.sqrt(z.var(axis=0, ddof=1) + 1e-4)).mean()

    def off_diagonal(z):
        c = np.cov(z, rowvar=False)
        return (c**2)[~np.eye(len(c), dtype=bool)].sum() / z.shape[1]

    variance = hinge(x) + hinge(y)
    covariance = off_diagonal(x) + off_diagonal(y)
    return 10 * ((x - y) ** 2).mean() + 10 * variance + covariance


def numpy_infonce(x: np.ndarray, y: np.ndarray, temperature: float) -> float:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    y = y / np.linalg.norm(y, axis=1, keepdims=True)
    s = np.exp(x @ y.T / temperature)
    return float(-0.5 * (np.log(np.diag(s) / s.sum(0)) + np.log(np.diag(s) / s.sum(1))).mean())


@pytest.fixture
def views() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(16, 24)) * rng.uniform(0.1, 3, 24)
    return x, x + 0.3 * rng.normal(size=x.shape)


def test_vicreg(views):
    got, parts = Vicreg(VicregOptions())(*(torch.tensor(v) for v in views))
    assert got.dtype == torch.float32
    assert float(got) == pytest.approx(numpy_vicreg(*views), rel=1e-5)
    assert set(parts) == {"invariance", "variance", "covariance"}


def test_infonce(views):
    loss = Infonce(InfonceOptions(temperature=0.2))
    got, _ = loss(*(torch.tensor(v) for v in views))
    assert float(got.detach()) == pytest.approx(numpy_infonce(*views, 0.2), rel=1e-5)
    got.backward()
    assert loss.log_scale.grad is not None
    assert not Infonce(InfonceOptions(learnable=False)).log_scale.requires_grad


def test_losses_stay_float32_under_autocast(views):
    for _, kind in LOSSES.items():
        loss = kind(kind.Options())
        plain, _ = loss(*(torch.tensor(v, dtype=torch.float32) for v in views))
        with torch.autocast("cpu", torch.bfloat16):
            mixed, _ = loss(*(torch.tensor(v, dtype=torch.float32) for v in views))
        assert torch.equal(plain, mixed)


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
