"""Losses against independent NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.losses import (
    LOSSES,
    Infonce,
    InfonceOptions,
    Siglip,
    SiglipOptions,
    Vicreg,
    VicregOptions,
)


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


def numpy_siglip(x: np.ndarray, y: np.ndarray, scale: float, bias: float) -> float:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    y = y / np.linalg.norm(y, axis=1, keepdims=True)
    total = 0.0
    for i in range(len(x)):
        for j in range(len(y)):
            sign = 1 if i == j else -1
            total += np.log1p(np.exp(-sign * (scale * float(x[i] @ y[j]) + bias)))
    return total / len(x)


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


def test_siglip(views):
    loss = Siglip(SiglipOptions(scale=5.0, bias=-3.0))
    got, parts = loss(*(torch.tensor(v) for v in views))
    assert float(got.detach()) == pytest.approx(numpy_siglip(*views, 5.0, -3.0), rel=1e-5)
    assert float(parts["scale"]) == pytest.approx(5.0)
    got.backward()
    assert all(p.grad is not None and float(p.grad) != 0 for p in loss.parameters())


def test_losses_stay_float32_under_autocast(views):
    for _, kind in LOSSES.items():
        loss = kind(kind.Options())
        plain, _ = loss(*(torch.tensor(v, dtype=torch.float32) for v in views))
        with torch.autocast("cpu", torch.bfloat16):
            mixed, _ = loss(*(torch.tensor(v, dtype=torch.float32) for v in views))
        assert torch.equal(plain, mixed)
