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
RECORDINGS, BLOCKS = "recordings", "10-s blocks"
TOO_NARROW = (
    f"Intervals drawn from {BLOCKS} leave out that recordings differ, as there are fewer than "
    f"{MIN_RECORDINGS} of them: they are too narrow."
)

Floats = npt.NDArray[np.float64]
Units = npt.NDArray[np.int64]
Interval = tuple[float, float]


def resampling_units(gallery: Gallery, queries: IntArray) -> tuple[Units, str]:
    """The unit that each query [Q], a row of the gallery, belongs to (:func:`units_of`)."""
    return units_of(gallery.recording[queries], gallery.start_s[queries])


def units_of(recording: IntArray, start_s: Floats) -> tuple[Units, str]:
    """The unit that each query [Q] belongs to, int64 codes 0…U-1, and what a unit is.

    Returns
    -------
    units, kind
        ``kind`` is ``"recordings"`` or, below 20 recordings among the queries, ``"10-s blocks"``.
    """
    ids = recording.astype(np.int64)
    if len(np.unique(ids)) >= MIN_RECORDINGS:
        return _codes(ids[:, None]), RECORDINGS
    block = np.floor(start_s / BLOCK_S).astype(np.int64)
    return _codes(np.column_stack([ids, block])), BLOCKS


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
    if int(units.max(initial=-1)) < 1:
        return None
    values = statistic(resampled_means(scores, units, replicates=replicates, seed=seed))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def resampled_means(
    scores: Floats, units: Units, *, replicates: int = REPLICATES, seed: int = 0
) -> Floats:
    """Column means [B, S] of scores [Q, S], units being drawn with replacement B times.

    The draws depend on the units and the seed alone, so that two models that answered the same
    queries are drawn alike and their differences are paired.
    """
    n_units = int(units.max()) + 1
    sums, counts = unit_sums(scores, units)
    keys = pair_keys(np.arange(replicates), np.arange(n_units), seed)
    draws = (keys % np.uint64(n_units)).astype(np.int64) + n_units * np.arange(replicates)[:, None]
    times = np.bincount(draws.ravel(), minlength=replicates * n_units)
    weights = times.reshape(replicates, n_units).astype(np.float64)
    means: Floats = (weights @ sums) / (weights @ counts)[:, None]
    return means


def unit_sums(scores: Floats, units: Units) -> tuple[Floats, Floats]:
    """Sums of the columns by unit [U, S], and queries by unit [U]."""
    sums: Floats = np.column_stack(
        [np.bincount(units, weights=column) for column in scores.T]
    ).astype(np.float64)
    return sums, np.bincount(units).astype(np.float64)


def interval_of_least(hits: Floats, units: Units) -> Interval | None:
    """95 % interval of the smallest column mean, from hits [Q, S] (0 or 1).

    With the hits at 10 of both directions this is the interval of S.
    """
    return bootstrap(hits, units, lambda means: means.min(axis=1))


def _codes(keys: npt.NDArray[np.int64]) -> Units:
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
