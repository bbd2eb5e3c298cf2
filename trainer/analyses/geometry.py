"""How alike two representations of the same items are: linear CKA and RSA.

Both compare how the items lie to each other, so the two may differ in width and in their axes. Here
each measure first turns a representation ``X [n, p]`` into a symmetric matrix ``[n, n]`` of length 1
(Frobenius); how alike two representations are is then the sum of the products of their matrices:

``biased_kernel``
    ``H X Xᵀ H``, ``H = I - 1/n``. The sum is biased linear CKA, ``Σ(K∘L) / sqrt(ΣK² ΣL²)`` (Kornblith
    et al., ICML 2019; method §8.6; its 1e-8 in the denominator is far below the last digit here). With
    few items in many dimensions it is near 1 whatever they are.
``debiased_kernel``
    The kernel without its diagonal, centred so that the products are the unbiased HSIC of Song et
    al. (JMLR 2012, eq. 5), as Nguyen et al. (ICLR 2021) use it for CKA. The centring is the
    "U-centring" of Székely and Rizzo (Annals of Statistics 2014). 0 on average for independent
    representations, so it may be negative.
``ranked_dissimilarity``
    ``1 - cosine`` of every two items (not centred), as ranks, which share places where they are
    equal. The sum is the Spearman correlation over the upper triangles: RSA (Kriegeskorte et al.,
    Frontiers in Systems Neuroscience 2008; method §8.6).

A representation that is the same for all items gives zeros. Everything is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import MissingExtra
from trainer.retrieval.hashing import pair_keys

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Measure = Callable[[npt.NDArray[Any]], Floats]
MIN_ITEMS = 4  # the unbiased HSIC divides by n - 3
MIN_GROUPS = 5  # below, a jackknife says little


def biased_kernel(features: npt.NDArray[Any]) -> Floats:
    """Features [n, p] → the centred linear kernel [n, n], of length 1."""
    centred = _centred(features)
    return _of_length_one(centred @ centred.T)


def debiased_kernel(features: npt.NDArray[Any]) -> Floats:
    """Features [n, p], n ≥ 4 → the U-centred linear kernel [n, n], of length 1, zero diagonal."""
    centred = _centred(features)
    kernel = centred @ centred.T
    np.fill_diagonal(kernel, 0)
    n = len(kernel)
    rows = kernel.sum(axis=1) / (n - 2)
    kernel += rows.sum() / (n - 1) - rows[:, None] - rows
    np.fill_diagonal(kernel, 0)
    return _of_length_one(kernel)


def ranked_dissimilarity(features: npt.NDArray[Any]) -> Floats:
    """Features [n, p] → centred ranks of 1 - cosine [n, n], of length 1, zero diagonal."""
    x = np.asarray(features, np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    upper = np.triu_indices(len(x), 1)
    ranks = average_ranks(1 - (x @ x.T)[upper])
    matrix = np.zeros((len(x), len(x)))
    matrix[upper] = ranks - ranks.mean()
    return _of_length_one(matrix + matrix.T)


def average_ranks(values: Floats) -> Floats:
    """Ranks from 1 of values [m]; equal values share the mean of their places."""
    _, code, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(count) - (count - 1) / 2)[code]
    return ranks


def likeness(first: Sequence[Floats], second: Sequence[Floats]) -> Floats:
    """Every one of the first with every one of the second: float64 [first, second]."""
    flat = [np.stack([m.ravel() for m in side]) for side in (first, second)]
    found: Floats = flat[0] @ flat[1].T
    return found


def permutation(n: int, draw: int, within: npt.NDArray[Any] | None = None, seed: int = 0) -> Ints:
    """The ``draw``-th random order of n items, items staying within their group where given: [n]."""
    keys = pair_keys(np.array([draw]), np.arange(n), seed)[0]
    groups = np.zeros(n, np.int64) if within is None else within
    order = np.empty(n, np.int64)
    order[np.argsort(groups, kind="stable")] = np.lexsort((keys, groups))
    return order


def jackknife(statistic: Callable[[Ints], float], groups: npt.NDArray[Any]) -> dict[str, Any]:
    """95 % interval of a statistic by leaving out one group at a time.

    A bootstrap would not do: an item drawn twice is like itself, which raises CKA and RSA. With 8 or
    24 simulated recordings the interval held the mean in 97 of 100 trials, for CKA as for RSA: it
    is somewhat too wide.

    Parameters
    ----------
    statistic : of the items that are kept (their places, int64)
    groups : what each item [n] belongs to; groups are taken to be independent of each other

    Returns
    -------
    ``ci95``: the statistic of all items ± Student's t (groups - 1 degrees of freedom) × the
    jackknife's standard error, or None below 5 groups; ``groups``.
    """
    distinct = np.unique(groups)
    n = len(distinct)
    whole = statistic(np.arange(len(groups)))
    interval = None
    if n >= MIN_GROUPS:
        left = np.array([statistic(np.flatnonzero(groups != group)) for group in distinct])
        error = float(np.sqrt((n - 1) / n * np.square(left - left.mean()).sum()))
        reach = _t_quantile(n - 1) * error
        interval = [whole - reach, whole + reach]
    return {"ci95": interval, "groups": n}


def _t_quantile(degrees: int) -> float:
    try:
        from scipy.special import stdtrit
    except ImportError:
        raise MissingExtra("scipy", "features") from None
    return float(stdtrit(degrees, 0.975))


def _centred(features: npt.NDArray[Any]) -> Floats:
    x = np.asarray(features, np.float64)
    x = x - x[0]  # what is the same for all items becomes exact zeros
    return x - x.mean(axis=0)


def _of_length_one(matrix: Floats) -> Floats:
    length = np.linalg.norm(matrix)
    return matrix / length if length > 0 else matrix
