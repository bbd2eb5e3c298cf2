"""How probes are trained, and judged (method §8.8).

``linear``
    Ridge regression by scikit-learn; its penalty is the one with the least squared error on training
    groups left out in turn, so that no tested segment, and no neighbour of one, has a say in it.
``mlp``
    256 → 128 → ReLU → target, Adam (1e-3), 50 epochs of batches of 1024, mean squared error: the
    published probe.

Embeddings are standardised by the training segments. Predictions are float64; the MLP computes in
float32, from a generator of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.base.errors import MissingExtra
from trainer.analyses.targets import Floats, Ints

Predict = Callable[[Floats, Floats, Floats, Ints], Floats]
"""(training embeddings, training targets, tested embeddings, training groups) → predictions."""

SEED = 42
FOLDS = 5
PENALTIES = tuple(10.0**k for k in range(-1, 6))
HIDDEN, EPOCHS, BATCH_SIZE, LEARNING_RATE = 128, 50, 1024, 1e-3
FLOOR = 1e-8  # of a standard deviation, as published


def cross_predicted(x: Floats, y: Floats, groups: Ints, predict: Predict) -> tuple[Floats, Floats]:
    """What probes that were trained on other folds say of every segment, and what they could say.

    Parameters
    ----------
    x, y : float64 [n, 256] and [n, width]
    groups : int64 [n]; no fold divides one

    Returns
    -------
    predicted, mean : float64 [n, width]; the mean is that of the training segments
    """
    predicted, mean = np.empty_like(y), np.empty_like(y)
    for train, test in folds(groups, FOLDS):
        mean[test] = centre = y[train].mean(axis=0)
        predicted[test] = centre + predict(x[train], y[train] - centre, x[test], groups[train])
    return predicted, mean


def squares(y: Floats, predicted: Floats, mean: Floats) -> Floats:
    """Per segment its squared error, and its squared distance from the mean: float64 [n, 2]."""
    found: Floats = np.column_stack(
        [np.square(y - predicted).sum(axis=1), np.square(y - mean).sum(axis=1)]
    )
    return found


def r_squared(squared: Floats) -> Floats:
    """1 - Σ errors / Σ distances, of sums or means of :func:`squares` [..., 2]."""
    found: Floats = 1 - squared[..., 0] / np.maximum(squared[..., 1], FLOOR)
    return found


def predict_linear(x: Floats, y: Floats, tested: Floats, groups: Ints) -> Floats:
    """Ridge regression; its penalty has the least error on training groups left out in turn."""
    try:
        from sklearn.linear_model import RidgeCV
    except ImportError:
        raise MissingExtra("scikit-learn", "analysis") from None
    inner = folds(groups, min(FOLDS, len(np.unique(groups))))
    ridge = RidgeCV(PENALTIES, cv=inner, scoring="neg_mean_squared_error")
    x, tested = _standardised(x, tested)
    found: Floats = ridge.fit(x, y).predict(tested).reshape(len(tested), -1)
    return found


def predict_mlp(x: Floats, y: Floats, tested: Floats, groups: Ints) -> Floats:
    """The published probe; drawn from a generator of its own, as PyTorch draws by default."""
    generator = torch.Generator().manual_seed(SEED)
    x, tested = _standardised(x, tested)
    inputs, goals = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    layers = [
        *_linear(inputs.shape[1], HIDDEN, generator),
        *_linear(HIDDEN, goals.shape[1], generator),
    ]
    with _one_thread():
        optimizer = torch.optim.Adam(layers, lr=LEARNING_RATE)
        for _ in range(EPOCHS):
            for part in torch.randperm(len(inputs), generator=generator).split(BATCH_SIZE):
                optimizer.zero_grad()
                functional.mse_loss(_mlp(inputs[part], layers), goals[part]).backward()
                optimizer.step()
        with torch.no_grad():
            found = _mlp(torch.from_numpy(tested).float(), layers).numpy()
    return found.astype(np.float64)


PREDICT: Mapping[str, Predict] = {"linear": predict_linear, "mlp": predict_mlp}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """For many small steps, in which threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _mlp(x: Tensor, layers: Sequence[Tensor]) -> Tensor:
    return functional.linear(functional.linear(x, *layers[:2]).relu(), *layers[2:])


def _linear(n_in: int, n_out: int, generator: torch.Generator) -> list[Tensor]:
    """Weights [n_out, n_in] and biases [n_out], uniform within 1 / sqrt(n_in)."""
    return [
        ((2 * torch.rand(shape, generator=generator) - 1) / n_in**0.5).requires_grad_()
        for shape in ((n_out, n_in), (n_out,))
    ]


def _standardised(x: Floats, tested: Floats) -> tuple[Floats, Floats]:
    """Both by mean and deviation of the first."""
    centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0, ddof=1), FLOOR)
    return (x - centre) / scale, (tested - centre) / scale


def folds(groups: Ints, n: int) -> list[tuple[Ints, Ints]]:
    """Training and test places of ``n`` folds that divide no group."""
    try:
        from sklearn.model_selection import GroupKFold
    except ImportError:
        raise MissingExtra("scikit-learn", "analysis") from None
    return list(GroupKFold(n).split(groups, groups=groups))
