"""How sure one may be of a score: bootstrap over recordings, not over overlapping segments.

Segments of one recording share notes, room and player, so recordings are drawn with replacement,
all their queries at once; with fewer than 20 recordings, 10-second blocks of them are drawn instead
and the interval says so (it then misses the variation between recordings and is too narrow).
Percentile interval, 95 %, 2,000 replicates. Draws are a hash of (seed, replicate, draw), so the
same ranks give the same interval everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from trainer.retrieval.gallery import Gallery, IntArray
from trainer.retrieval.hashing import pair_keys

REPLICATES = 2000
LEVEL = 0.95
MIN_RECORDINGS = 20
BLOCK_S = 10.0

Floats = npt.NDArray[np.float64]
Units = npt.NDArray[np.int64]
Interval = tuple[float, float]


def resampling_units(gallery: Gallery, queries: IntArray) -> tuple[Units, str]:
    """The unit that each query [Q] belongs to, int64 codes 0…U-1, and what a unit is.

    Returns
    -------
    units, kind
        ``kind`` is ``"recordings"`` or, below 20 recordings among the queries, ``"10-s blocks"``.
    """
    recording = gallery.recording[queries].astype(np.int64)
    if len(np.unique(recording)) >= MIN_RECORDINGS:
        return _codes(recording[:, None]), "recordings"
    block = np.floor(gallery.start_s[queries] / BLOCK_S).astype(np.int64)
    return _codes(np.column_stack([recording, block])), "10-s blocks"


def bootstrap(
    scores: Floats,
    units: Units,
    statistic: Callable[[Floats], Floats],
    *,
    replicates: int = REPLICATES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval | None:
    """Percentile interval of a statistic of column means, units being drawn with replacement.

    Parameters
    ----------
    scores : float64 [Q, S]
        Per query: any S quantities whose means the statistic is made of.
    units : int64 [Q]
        Unit of each query, codes 0…U-1.
    statistic : maps column means [B, S] to [B]

    Returns
    -------
    (low, high), or None when there are fewer than two units to draw from.
    """
    n_units = int(units.max(initial=-1)) + 1
    if n_units < 2:
        return None
    sums = np.column_stack([np.bincount(units, weights=column) for column in scores.T])
    counts = np.bincount(units).astype(np.float64)
    keys = pair_keys(np.arange(replicates), np.arange(n_units), seed)
    draws = (keys % np.uint64(n_units)).astype(np.int64) + n_units * np.arange(replicates)[:, None]
    times = np.bincount(draws.ravel(), minlength=replicates * n_units)
    weights = times.reshape(replicates, n_units).astype(np.float64)
    values = statistic((weights @ sums) / (weights @ counts)[:, None])
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def interval_of_s(a2m_hits: Floats, m2a_hits: Floats, units: Units) -> Interval | None:
    """95 % interval of S = min(A2M R@10, M2A R@10) from per-query hits [Q] (0 or 1)."""
    return bootstrap(np.column_stack([a2m_hits, m2a_hits]), units, lambda means: means.min(axis=1))


def paired_difference(first: Floats, second: Floats, units: Units) -> tuple[float, Interval | None]:
    """Mean of ``first - second`` over the same queries [Q], and its 95 % interval."""
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    interval = bootstrap(difference[:, None], units, lambda means: means[:, 0])
    return float(difference.mean()), interval


def _codes(keys: npt.NDArray[np.int64]) -> Units:
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
