"""Parameter-matched controls: the same model, trained and embedded with other descriptor values.

A descriptor's modules add parameters and steps of computation, whatever they are given. What the
values are worth is seen against the same architecture that is given something else, in training and in
evaluation alike (method §8.2).

========= ==========================================================================================
control   what every descriptor of the arm is replaced by
========= ==========================================================================================
real      nothing: the descriptor itself
zero      zeros
random    Gaussian noise of each dimension's mean and σ over the training split, drawn anew for every
          batch; notes' padding stays 0
shuffled  the values of other segments of the batch (``batch``: a random cyclic order, so that none
          keeps its own, Sattolo) or of random segments of other recordings (``split``)
========= ==========================================================================================

The reference takes means and σ from the first 50 unshuffled batches (``rows``: 800) and draws with
seed 42 and the number of the call, so that a resumed run had to restore a counter. Here every draw
follows from the run's seed and the segments of the batch, and needs no state.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.base.errors import ConfigError
from pipeline.base.registry import Registry
from pipeline.descriptors import DESCRIPTORS
from pipeline.store.reader import Store
from trainer.batch import Batch
from trainer.cache import ResidentStore

Ints = npt.NDArray[np.int64]
REDRAWN = 64


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NoOptions:
    """``real`` and ``zero`` have none."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RandomOptions:
    """``rows``: of how many training segments means and σ are taken, from the first; 0: of all."""

    rows: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShuffledOptions:
    """Among whom values are exchanged."""

    within: Literal["batch", "split"] = "split"


class Control:
    """Base of all controls: changes the arrays of a batch.

    Parameters
    ----------
    arrays : the arrays that the arm's mechanisms read
    store : where the training split's values are
    seed : of the run
    """

    Options: ClassVar[type] = NoOptions

    def __init__(self, options: Any, arrays: Sequence[str], store: Store, seed: int) -> None:
        self.options, self.arrays, self.seed = options, tuple(arrays), seed

    def generator(self, index: Ints) -> np.random.Generator:
        """Of one batch: of the run's seed and the places of its segments."""
        own = zlib.crc32(np.ascontiguousarray(index, np.int64).tobytes())
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, own])))

    def values(
        self, resident: ResidentStore, batch: Batch, index: Ints, share: slice
    ) -> dict[str, Tensor]:
        """What stands in place of the arrays, for the ``share`` of ``index`` that the batch is."""
        return {}


CONTROLS: Registry[type[Control]] = Registry("control")


@CONTROLS.register("real")
class Real(Control):
    """The descriptor itself."""


@CONTROLS.register("zero")
class Zero(Control):
    """Zeros."""

    def values(
        self, resident: ResidentStore, batch: Batch, index: Ints, share: slice
    ) -> dict[str, Tensor]:
        """Zeros of each array's shape."""
        return {name: torch.zeros_like(batch.arrays[name]) for name in self.arrays}


@CONTROLS.register("random")
class Random(Control):
    """Noise of the same mean and σ, dimension by dimension."""

    Options = RandomOptions

    def __init__(self, options: Any, arrays: Sequence[str], store: Store, seed: int) -> None:
        super().__init__(options, arrays, store, seed)
        if options.rows < 0:
            raise ConfigError(f"control.options.rows = {options.rows}: must be at least 0")
        self.moments = {name: _moments(store, name, options.rows) for name in arrays}

    def values(
        self, resident: ResidentStore, batch: Batch, index: Ints, share: slice
    ) -> dict[str, Tensor]:
        """Drawn for the whole batch, so that processes that share it have its parts."""
        generator = self.generator(index)
        found: dict[str, Tensor] = {}
        for name in self.arrays:
            own = batch.arrays[name]
            mean, std = self.moments[name]
            drawn = generator.standard_normal((len(index), *own.shape[1:]), dtype=np.float32)
            values = torch.from_numpy(mean + std * drawn[share]).to(own)
            if DESCRIPTORS.get(name).axis == "note":
                values = values.masked_fill(batch.padding_BN[..., None], 0)
            found[name] = values
        return found


@CONTROLS.register("shuffled")
class Shuffled(Control):
    """Values of other segments."""

    Options = ShuffledOptions

    def values(
        self, resident: ResidentStore, batch: Batch, index: Ints, share: slice
    ) -> dict[str, Tensor]:
        """The givers' values; notes' values in order, from the first again where there are more."""
        if self.options.within == "batch":
            giver = index[derangement(len(index), self.generator(index))]
        else:
            giver = self._from_other_recordings(resident, index)
        given = resident.plain_batch(giver[share])
        found = {}
        for name in self.arrays:
            values = given.arrays[name]
            if DESCRIPTORS.get(name).axis == "note":
                values = notes_given(values, given.padding_BN, batch.padding_BN)
            found[name] = values
        return found

    def _from_other_recordings(self, resident: ResidentStore, index: Ints) -> Ints:
        recording = resident.store.segments.recording[resident.rows]
        generator = self.generator(index)
        giver = generator.integers(0, len(recording), len(index))
        for _ in range(REDRAWN):
            same = recording[giver] == recording[index]
            if not same.any():
                return giver
            giver[same] = generator.integers(0, len(recording), int(same.sum()))
        raise ConfigError(
            f"control.options.within = split: the {resident.split} split has too few recordings to "
            "take other ones' values; use --set control.options.within=batch"
        )


def derangement(n: int, generator: np.random.Generator) -> Ints:
    """A random cyclic permutation of n ≥ 2 (Sattolo's algorithm): nobody keeps his own."""
    order = np.arange(n)
    for i in range(n - 1, 0, -1):
        j = int(generator.integers(0, i))
        order[i], order[j] = order[j], order[i]
    return order


def notes_given(values_BNK: Tensor, theirs_BN: Tensor, own_BN: Tensor) -> Tensor:
    """Values of other notes in order, from the first again where there are more notes here.

    Parameters
    ----------
    values_BNK, theirs_BN : the givers' values and padding
    own_BN : padding of those who are given them

    Returns
    -------
    ``[B, N, K]`` with zeros in padding.
    """
    count_B1 = (~theirs_BN).sum(dim=1, keepdim=True).clamp(min=1)
    place_BN = torch.arange(own_BN.shape[1], device=own_BN.device)[None] % count_B1
    index_BNK = place_BN[..., None].expand(-1, -1, values_BNK.shape[-1])
    return values_BNK.gather(1, index_BNK).masked_fill(own_BN[..., None], 0)


def _moments(store: Store, name: str, rows: int) -> tuple[Any, Any]:
    """Mean and σ of every dimension over the training split: float32 [K] each."""
    table = store.segments
    chosen = np.flatnonzero(table.split == "train")
    chosen = chosen[:rows] if rows else chosen
    first, last = chosen, chosen + 1
    if store.arrays[name].axis == "note":
        first = table.note_start[chosen]
        last = first + table.note_count[chosen]
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    # Neighbouring rows are read together.
    for run in np.split(np.arange(len(chosen)), np.flatnonzero(first[1:] != last[:-1]) + 1):
        values = store.read(name, int(first[run[0]]), int(last[run[-1]])).astype(np.float64)
        flat = values.reshape(-1, values.shape[-1])
        count += len(flat)
        total = total + flat.sum(axis=0)
        squares = squares + (flat**2).sum(axis=0)
    mean = total / max(count, 1)
    variance = np.maximum(squares / max(count, 1) - mean**2, 0)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)
