"""Similarity of sequences under dynamic time warping (Sakoe and Chiba 1978).

Of two sequences x and y of T vectors each:

cost of a pair of steps
    ``d(i, j) = 1 - cosine(x_i, y_j)``; a zero vector has cosine 0 with everything.
alignment
    A path from (0, 0) to (T-1, T-1) by steps of +1 in x, in y or in both, within the band
    ``|i - j| <= 6``. It costs the sum of d over its cells, diagonal steps and the first cell counting
    twice (the symmetric form): the weights of every path sum to 2 T, so that the mean cost,
    sum / 2 T, needs no path length, favours no path, and is the same from y to x.
similarity
    1 - least mean cost: 1 for equal sequences, 0 against silence.

A gallery of 13,532 against itself takes about 2 processor minutes in each direction; the work is
shared among the cores.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.jit import kernel
from trainer.retrieval.baselines.contract import FloatArray
from trainer.retrieval.gallery import RetrievalError
from trainer.retrieval.metrics import Embeddings

BAND = 6  # steps
LANES = 128  # candidates that one call of the kernel compares side by side


class Warping:
    """Similarity under time warping of two sets of sequences, both float [n, T, d].

    Raises
    ------
    RetrievalError
        (kind ``not-finite``) when a sequence holds NaN or infinity; (kind ``shape``) when the sets
        differ in shape.
    """

    def __init__(self, queries: Embeddings, candidates: Embeddings) -> None:
        if queries.ndim != 3 or queries.shape != candidates.shape:
            raise RetrievalError(
                f"sequences {list(queries.shape)} and {list(candidates.shape)} do not pair",
                kind="shape",
            )
        self._queries, self._candidates = _unit_steps(queries), _unit_steps(candidates)

    def rows(self, queries: npt.NDArray[Any]) -> FloatArray:
        """float32 [len(queries), n]: these queries against all candidates."""
        left = self._queries[queries]
        n = len(self._candidates)
        out = np.empty((len(left), n), np.float32)

        def compare(first: int) -> None:
            some = slice(first, min(first + LANES, n))
            out[:, some] = _compare(left, self._candidates[some])

        # Kernels let go of the interpreter's lock; nothing else computes meanwhile.
        with ThreadPoolExecutor(_cores()) as pool:
            list(pool.map(compare, range(0, n, LANES)))
        return out

    def pairs(self, queries: npt.NDArray[Any], candidates: npt.NDArray[Any]) -> FloatArray:
        """float32 [T]: query t against candidate t."""
        out = np.empty(len(queries), np.float32)
        for t, (q, c) in enumerate(zip(queries, candidates, strict=True)):
            out[t] = _compare(self._queries[q, None], self._candidates[c, None])[0, 0]
        return out


def _compare(left: FloatArray, right: FloatArray) -> FloatArray:
    """float32 [a, T, d] against [b, T, d] → [a, b]."""
    out = np.empty((len(left), len(right)), np.float32)
    _align(left, np.ascontiguousarray(right.transpose(1, 2, 0)), BAND, out)
    return out


def _unit_steps(sequences: Embeddings) -> FloatArray:
    values = sequences.astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))
    if len(broken):
        raise RetrievalError(
            f"{len(broken)} of {len(values)} sequences hold NaN or infinity (the first is row "
            f"{broken[0]}); the features are damaged",
            kind="not-finite",
        )
    norms = np.linalg.norm(values, axis=2, keepdims=True)
    return np.divide(values, norms, out=np.zeros_like(values), where=norms > 1e-6)


def _cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@kernel
def _align(left, right, band, out):  # type: ignore[no-untyped-def]
    """out[q, c] = similarity of left[q] [T, d] and right[:, :, c], candidates side by side.

    Candidates lie innermost, so that every line below is one loop of vector instructions.
    """
    n_steps, width, lanes = right.shape
    total = np.empty((2, n_steps, lanes), np.float32)  # cost up to a cell, this step and the last
    cost = np.empty(lanes, np.float32)
    for q in range(left.shape[0]):
        for i in range(n_steps):
            now, before = total[i % 2], total[(i + 1) % 2]
            first = max(0, i - band)
            for j in range(first, min(n_steps, i + band + 1)):
                for c in range(lanes):
                    cost[c] = 1.0
                for k in range(width):
                    x = left[q, i, k]
                    for c in range(lanes):
                        cost[c] -= x * right[j, k, c]
                for c in range(lanes):
                    if i == 0 and j == 0:
                        best = np.float32(0.0)
                    elif i == 0 or j == 0:
                        best = np.float32(np.inf)
                    else:
                        best = before[j - 1, c]
                    best += np.float32(2.0) * cost[c]
                    if i > 0 and j < i + band:
                        best = min(best, before[j, c] + cost[c])
                    if j > first:
                        best = min(best, now[j - 1, c] + cost[c])
                    now[j, c] = best
        for c in range(lanes):
            out[q, c] = 1.0 - total[(n_steps - 1) % 2, n_steps - 1, c] / (2.0 * n_steps)
