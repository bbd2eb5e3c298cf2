"""Ranks of the positive, and what follows from them.

rank
    Number of candidates placed before the positive: 0 is first. R@k is the share of ranks < k, MRR
    the mean of 1 / (rank + 1); ``median_rank`` and ``mean_rank`` count from 0 too (method §7.1).
similarity
    Cosine, in float32 whatever the dtype of the embeddings; a zero vector has cosine 0 with
    everything. Computed in blocks: no [n, n] array is ever held.
ties
    Similarities that differ by at most ``TIE`` = 1e-5 are tied: float32 products of equal vectors
    differ by up to 4e-6, depending on where a matrix kernel finds them (measured to 16,544
    dimensions). ``against``: ties are placed before the positive, so a constant embedding scores 0.
    ``order``: ties keep the order of the pool, which is what a stable descending sort does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from trainer.retrieval.gallery import IntArray, RetrievalError
from trainer.retrieval.pools import HardTrials, Pools

KS = (1, 5, 10, 20)
HUB_K = 10
LANES = 128  # columns among which only a maximum is looked at first
TIE = np.float32(1e-5)
BLOCK = 1 << 24  # elements of the largest temporary: 64 MiB of float32

Ties = Literal["against", "order"]
FloatArray = npt.NDArray[np.float32]
Embeddings = npt.NDArray[Any]
Ranks = npt.NDArray[np.int64]


class Similarity(Protocol):
    """How like every query is to every candidate; :class:`Cosine` of embeddings is one way."""

    def rows(self, queries: npt.NDArray[Any]) -> FloatArray:
        """float32 [len(queries), n]: these queries against all candidates."""

    def pairs(self, queries: npt.NDArray[Any], candidates: npt.NDArray[Any]) -> FloatArray:
        """float32 [T]: query t against candidate t."""


class Cosine:
    """Cosine similarity of two sets of embeddings, both [n, d] (any float dtype).

    Raises
    ------
    RetrievalError
        (kind ``not-finite``) when an embedding holds NaN or infinity; (kind ``shape``) when the
        sets differ in shape.
    """

    def __init__(self, queries: Embeddings, candidates: Embeddings) -> None:
        if queries.ndim != 2 or queries.shape != candidates.shape:
            raise RetrievalError(
                f"embeddings {list(queries.shape)} and {list(candidates.shape)} do not pair",
                kind="shape",
            )
        self._queries, self._candidates = queries, candidates
        self._query_scale, self._candidate_scale = _scale(queries), _scale(candidates)

    def rows(self, queries: npt.NDArray[Any]) -> FloatArray:
        """float32 [len(queries), n]: these queries against all candidates."""
        left = self._left(queries)
        out = np.empty((len(queries), len(self._candidates)), np.float32)
        for part in blocks(len(self._candidates), left.shape[1]):
            right = self._candidates[part].astype(np.float32, copy=False)
            np.matmul(left, right.T, out=out[:, part])
        out *= self._candidate_scale
        return out

    def pairs(self, queries: npt.NDArray[Any], candidates: npt.NDArray[Any]) -> FloatArray:
        """float32 [T]: query t against candidate t."""
        out = np.empty(len(queries), np.float32)
        for part in blocks(len(queries), self._queries.shape[1]):
            right = self._candidates[candidates[part]].astype(np.float32, copy=False)
            out[part] = np.einsum("td,td->t", self._left(queries[part]), right)
        out *= self._candidate_scale[candidates]
        return out

    def gap(self, members: npt.NDArray[np.bool_]) -> float | None:
        """Mean cosine of the pairs minus mean cosine of all other combinations (method §7.3).

        The mean over all combinations is the product of the two mean vectors, so this costs one
        pass over the rows in ``members`` [n]. ``None`` for fewer than two pairs.
        """
        rows = np.flatnonzero(members)
        if len(rows) < 2:
            return None
        width = self._queries.shape[1]
        query_sum, candidate_sum, diagonal = np.zeros(width), np.zeros(width), 0.0
        for part in blocks(len(rows), width):
            left = self._left(rows[part])
            right = self._right(rows[part])
            diagonal += float(np.einsum("td,td->t", left, right).sum(dtype=np.float64))
            query_sum += left.sum(axis=0, dtype=np.float64)
            candidate_sum += right.sum(axis=0, dtype=np.float64)
        n = len(rows)
        return float(diagonal / n - (query_sum @ candidate_sum - diagonal) / (n * (n - 1)))

    def _left(self, queries: npt.NDArray[Any]) -> FloatArray:
        rows: FloatArray = self._queries[queries].astype(np.float32, copy=False)
        return rows * self._query_scale[queries, None]

    def _right(self, candidates: slice | npt.NDArray[Any]) -> FloatArray:
        rows: FloatArray = self._candidates[candidates].astype(np.float32, copy=False)
        return rows * self._candidate_scale[candidates, None]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """What one pass over the similarities of one direction leaves behind.

    Attributes
    ----------
    ranks : int64 [Q]
        Rank of the positive in its pool.
    beats_hard : bool [Q]
        The positive beats every candidate of its pool that ``hard`` marked.
    full : int64 [members] or None
        Rank of the positive among all members of the gallery.
    occurrences : int64 [members] or None
        In how many members' 10 most similar candidates each member is, their own pairs left out
        (hubness, method §7.4).
    """

    ranks: Ranks
    beats_hard: npt.NDArray[np.bool_]
    full: Ranks | None
    occurrences: Ranks | None


def sweep(
    similarity: Similarity,
    pools: Pools,
    ties: Ties,
    *,
    hard: npt.NDArray[np.bool_],
    members: npt.NDArray[np.bool_] | None = None,
) -> Sweep:
    """Ranks in the pools and, with ``members``, in the full gallery, from one pass over blocks.

    Parameters
    ----------
    hard : bool [Q, P]
        Candidates of the pools that ``beats_hard`` is about.
    members : bool [n], optional
        Rows of the gallery that compete for the full ranks; every query must be one of them.
    """
    n_queries = len(pools.queries)
    n = int(pools.queries.max(initial=-1)) + 1 if members is None else len(members)
    slot = np.full(n, -1)
    slot[pools.queries] = np.arange(n_queries)
    rows = np.flatnonzero(slot >= 0 if members is None else members)
    ranks, beats = np.empty(n_queries, np.int64), np.empty(n_queries, bool)
    full = None if members is None else np.empty(len(rows), np.int64)
    occurrences = np.zeros(n, np.int64)
    at = 0
    while at < len(rows):
        chunk = rows[at : at + max(1, BLOCK // max(n, 1))]
        sims = similarity.rows(chunk)
        asked = np.flatnonzero(slot[chunk] >= 0)
        queries = slot[chunk[asked]]
        pool = pools.candidates[queries]
        inside = np.where(pool >= 0, sims[asked[:, None], pool], -np.inf)
        ranks[queries] = positive_ranks(inside, pools.positive[queries], ties)
        beats[queries] = _beats(inside, pools.positive[queries], hard[queries])
        if members is not None and full is not None:
            if not members.all():
                sims[:, ~members] = -np.inf
            full[at : at + len(chunk)] = positive_ranks(sims, chunk, ties)
            sims[np.arange(len(chunk)), chunk] = -np.inf
            nearest = top_columns(sims, min(HUB_K, max(1, len(rows) - 1)))
            occurrences += np.bincount(nearest.ravel(), minlength=n)
        at += len(chunk)
    return Sweep(
        ranks=ranks,
        beats_hard=beats,
        full=full,
        occurrences=None if members is None else occurrences[rows],
    )


def top_columns(sims: FloatArray, k: int) -> npt.NDArray[np.int64]:
    """Columns of the ``k`` largest values of every row of [Q, C], in no order: int64 [Q, k].

    The k largest lie in the k groups of columns with the largest maxima, so only those are sorted.
    """
    width = sims.shape[1]
    groups = width // LANES
    if groups <= 2 * k:
        return np.argpartition(sims, width - k, axis=1)[:, width - k :]
    inside = groups * LANES
    # A group is every ``groups``-th column: maxima are then taken over whole rows, side by side.
    maxima = sims[:, :inside].reshape(len(sims), LANES, groups).max(axis=1)
    best = np.argpartition(maxima, groups - k, axis=1)[:, groups - k :]
    columns = (best[:, None, :] + groups * np.arange(LANES)[None, :, None]).reshape(len(sims), -1)
    tail = np.broadcast_to(np.arange(inside, width), (len(sims), width - inside))
    columns = np.concatenate([columns, tail], axis=1)
    chosen = np.take_along_axis(sims, columns, axis=1)
    place = np.argpartition(chosen, chosen.shape[1] - k, axis=1)[:, chosen.shape[1] - k :]
    return np.take_along_axis(columns, place, axis=1)


def hubness(occurrences: Ranks) -> dict[str, float]:
    """How unevenly candidates are found: the k-occurrence (k = 10) of [members] candidates.

    A query's own pair does not count: with a good model it would be among its ten always.

    Returns
    -------
    ``skewness`` (0: even; above 1: few candidates are near everything), ``max``, ``hubs`` (how many
    lie above mean + 3 standard deviations), ``orphans`` (share in nobody's ten).
    """
    counts = occurrences.astype(np.float64)
    mean, deviation = counts.mean(), counts.std()
    skewness = float(np.mean((counts - mean) ** 3) / deviation**3) if deviation > 0 else 0.0
    return {
        "k": HUB_K,
        "skewness": skewness,
        "max": int(counts.max()),
        "hubs": int((counts > mean + 3 * deviation).sum()),
        "orphans": float(np.mean(counts == 0)),
    }


def positive_ranks(sims: FloatArray, positive: npt.NDArray[Any], ties: Ties) -> Ranks:
    """Rank of column ``positive[i]`` in row i of float32 [Q, C]: int64 [Q].

    Candidates at -inf never count. See the module for the two tie rules.
    """
    at = sims[np.arange(len(sims)), positive][:, None]
    not_below: Ranks = np.count_nonzero(sims >= at - TIE, axis=1) - 1
    if ties == "against":
        return not_below
    above: Ranks = np.count_nonzero(sims > at + TIE, axis=1).astype(np.int64)
    tied = np.flatnonzero(not_below > above)  # usually few: only they are looked at again
    level = np.abs(sims[tied] - at[tied]) <= TIE
    earlier = np.arange(sims.shape[1])[None, :] < np.asarray(positive)[tied, None]
    above[tied] += np.count_nonzero(level & earlier, axis=1)
    return above


def summary(ranks: Ranks) -> dict[str, float]:
    """R@1, R@5, R@10, R@20, MRR (fractions 0–1), median_rank and mean_rank (0 is first)."""
    return {
        **{f"R@{k}": float(np.mean(ranks < k)) for k in KS},
        "MRR": float(np.mean(1.0 / (ranks + 1))),
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(np.mean(ranks)),
    }


def chance(sizes: IntArray) -> dict[str, float]:
    """R@k and MRR of a random order of pools of these sizes [Q]."""
    harmonic = np.cumsum(1.0 / np.arange(1, int(sizes.max()) + 1))
    return {
        **{f"R@{k}": float(np.mean(np.minimum(1.0, k / sizes))) for k in KS},
        "MRR": float(np.mean(harmonic[sizes - 1] / sizes)),
    }


def beats_one(similarity: Similarity, trials: HardTrials) -> float | None:
    """Share of trials whose positive is more similar than the negative; ties lose (method §7.2)."""
    if len(trials.query) == 0:
        return None
    own = similarity.pairs(trials.query, trials.query)
    return float(np.mean(own > similarity.pairs(trials.query, trials.hard) + TIE))


def _beats(
    sims: FloatArray, positive: npt.NDArray[Any], hard: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    at = sims[np.arange(len(sims)), positive]
    best: FloatArray = np.where(hard, sims, -np.inf).max(axis=1)
    wins: npt.NDArray[np.bool_] = at > best + TIE
    return wins


def _scale(embeddings: Embeddings) -> FloatArray:
    """1 / norm of each row, float32 [n]; 0 for a zero row."""
    norms = np.empty(len(embeddings))
    for part in blocks(len(embeddings), 2 * embeddings.shape[1]):
        norms[part] = np.linalg.norm(embeddings[part].astype(np.float64), axis=1)
    broken = np.flatnonzero(~np.isfinite(norms))
    if len(broken):
        raise RetrievalError(
            f"{len(broken)} of {len(norms)} embeddings hold NaN or infinity (the first is row "
            f"{broken[0]}); the model diverged or the features are damaged",
            kind="not-finite",
        )
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 1e-12).astype(np.float32)


def blocks(n: int, width: int) -> Iterator[slice]:
    """Slices of 0 … n that keep ``width`` numbers a row within ``BLOCK``."""
    step = max(1, BLOCK // max(1, width))
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))
