"""Which segments make a batch: a pure function of seed, epoch and step, so that runs can be resumed.

Shape suffix: R resident segments.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import ConfigError

Ints = npt.NDArray[np.int64]


def batch_order(
    n: int, batch_size: int, seed: int, epoch: int, step: int, *, groups: Groups | None = None
) -> Ints:
    """Positions of the segments of one batch: a pure function, so that a resumed run repeats nothing.

    Parameters
    ----------
    n : segments to draw from
    epoch, step : both from 0; ``step`` counts within the epoch
    groups : of segments that come together; default: every segment for itself

    An epoch is the head of a fresh permutation whose incomplete last batch is dropped; an epoch longer
    than the split goes on with a further permutation.
    """
    per_round = n // batch_size
    if not per_round:
        raise ConfigError(f"the split has {n} segments, fewer than one batch of {batch_size}")
    turn, place = divmod(step, per_round)
    order = _permutation(n, seed, epoch, turn, groups)
    return order[place * batch_size : (place + 1) * batch_size]


class Groups:
    """Segments by recording, to be shuffled ``size`` at a time.

    Parameters
    ----------
    recording_R : int64, of every segment
    """

    def __init__(self, recording_R: Ints, size: int) -> None:
        self.recording_R, self.size = recording_R, size
        # Of other recordings the same numbers make another order.
        self.key = f"{size} {hashlib.sha256(recording_R.tobytes()).hexdigest()}"

    def shuffled(self, generator: np.random.Generator) -> Ints:
        """All positions: a recording's segments in random order, cut into groups, those shuffled."""
        order = generator.permutation(len(self.recording_R))
        order = order[np.argsort(self.recording_R[order], kind="stable")]
        recording = self.recording_R[order]
        starts = np.flatnonzero(np.append(True, recording[1:] != recording[:-1]))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        begins = np.flatnonzero(rank % self.size == 0)
        groups = np.split(order, begins[1:])
        return np.concatenate([groups[i] for i in generator.permutation(len(groups))])


_last_permutation: dict[tuple[int, int, int, int, str], Ints] = {}


def _permutation(n: int, seed: int, epoch: int, turn: int, groups: Groups | None) -> Ints:
    key = (n, seed, epoch, turn, "" if groups is None else groups.key)
    if key not in _last_permutation:
        _last_permutation.clear()
        generator = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([seed, epoch, turn]))
        )
        drawn = generator.permutation(n) if groups is None else groups.shuffled(generator)
        _last_permutation[key] = drawn.astype(np.int64)
    return _last_permutation[key]
