"""What is added to a descriptor to move one of its dimensions, and by how much.

A step is as long as the dimension's standard deviation over the valid segments of the split (all of
their frames, or notes). Its pattern over time keeps what is so by construction: where all segments
have a time mean of 0, the pattern has too. The values are the store's own, also for a run whose
descriptors were replaced in training.

Shape suffixes: B batch, T frames or notes (1 for a value per segment), K descriptor width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Side
from trainer.analyses.bench import Bench, Watched
from trainer.analyses.contract import AnalysisError
from trainer.analyses.subject import FloatArray
from trainer.batch import Batch
from trainer.embed import EMBEDDINGS, Change, over_batches
from trainer.retrieval.hashing import pair_keys

ZERO_MEAN = 1e-2  # of σ: float16 leaves A4 a time mean of about 1e-4

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """An array that mechanisms of one side read when they embed: it moves for all of them.

    ``width``: how many dimensions it has.
    """

    array: str
    side: Side
    mechanisms: tuple[str, ...]
    width: int

    @property
    def name(self) -> str:
        """``A4-reverse_xattn``."""
        return f"{self.array}-{'+'.join(self.mechanisms)}"

    def labels(self) -> list[str]:
        """The dimensions' names, or their numbers from 1."""
        own = DESCRIPTORS.get(self.array).labels()
        return list(own) or [str(k + 1) for k in range(self.width)]


def readings(bench: Bench) -> list[Reading]:
    """What the run's mechanisms read when they embed, in the order of its configuration.

    Raises
    ------
    AnalysisError
        (kind ``inapplicable``) when they read nothing.
    """
    found: dict[tuple[str, Side], list[str]] = {}
    pairs = zip(bench.run.config.pairs, bench.model.every_mechanism(), strict=True)
    for pair, mechanism in pairs:
        if mechanism.embeds:
            for array in mechanism.reads():
                found.setdefault((array, mechanism.host.side), []).append(pair.mechanism)
    if not found:
        raise AnalysisError(
            f"the arm {bench.run.record['arm']} reads no descriptor when it embeds",
            kind="inapplicable",
        )
    return [
        Reading(
            array=array,
            side=side,
            mechanisms=tuple(mechanisms),
            width=bench.store.arrays[array].shape[-1],
        )
        for (array, side), mechanisms in found.items()
    ]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """How a descriptor varies over the valid segments of a split.

    Attributes
    ----------
    sigma_K : standard deviation over all frames or notes (ddof 0)
    means_K : standard deviation of segments' time means, in units of ``sigma_K``
    zero_mean_K : whether every segment's time mean is less than 0.01 σ
    """

    sigma_K: Floats
    means_K: Floats
    zero_mean_K: npt.NDArray[np.bool_]


def spread(bench: Bench, array: str) -> Spread:
    """From one reading of the store."""
    counts, sums, squares = [], [], []
    for _, values_TK in segment_values(bench, array, np.flatnonzero(bench.gallery.valid)):
        counts.append(len(values_TK))
        sums.append(values_TK.sum(axis=0))
        squares.append(np.square(values_TK).sum(axis=0))
    n = sum(counts)
    means = np.array(sums) / np.array(counts)[:, None]
    mean_K = np.sum(sums, axis=0) / n
    sigma_K = np.sqrt(np.maximum(np.sum(squares, axis=0) / n - mean_K**2, 0))
    varies_K = sigma_K > 1e-6 * np.abs(mean_K)
    sigma_K = np.where(varies_K, sigma_K, 0)
    in_time = bench.store.arrays[array].axis != "segment"
    small_K = (np.abs(means) < ZERO_MEAN * sigma_K).all(axis=0)
    return Spread(
        sigma_K=sigma_K,
        means_K=np.divide(means.std(axis=0), sigma_K, out=np.zeros_like(sigma_K), where=varies_K),
        zero_mean_K=small_K & in_time,
    )


def segment_values(bench: Bench, array: str, positions: Ints) -> Iterator[tuple[int, Floats]]:
    """Position and stored values [T, K] of some of the split's segments, read by recording."""
    store, gallery = bench.store, bench.gallery
    per_note = store.arrays[array].axis == "note"
    for recording in np.unique(gallery.recording[positions]):
        here = positions[gallery.recording[positions] == recording]
        rows = gallery.segment[here].astype(np.int64)
        first, count = rows, np.ones_like(rows)
        if per_note:
            first = store.segments.note_start[rows]
            count = store.segments.note_count[rows].astype(np.int64)
        low = int(first.min())
        values = store.read(array, low, int((first + count).max())).astype(np.float64)
        for position, start, length in zip(here, first - low, count, strict=True):
            found = values[start : start + length]
            # One row per segment is its frames, or its only value.
            yield int(position), found if per_note or found.ndim == 2 else found[0]


class Patterns:
    """The patterns over time by which the dimensions of some segments are moved.

    Parameters
    ----------
    positions : of the segments in the split
    """

    def __init__(self, bench: Bench, array: str, positions: Ints) -> None:
        self.bench, self.array, self.positions = bench, array, positions
        self.spread = spread(bench, array)

    @cached_property
    def unit(self) -> Mapping[int, Floats]:
        """By position, [T, K]: 1 or, where time means are 0, a trajectory of mean 0 and variance 1.

        The trajectory is what the same dimension does in a segment of another recording, brought to
        the segment's number of notes.

        Raises
        ------
        AnalysisError
            (kind ``too-few``) when there is no other recording to take it from.
        """
        zero_mean_K = self.spread.zero_mean_K
        own = dict(segment_values(self.bench, self.array, self.positions))
        found = {position: np.ones_like(values) for position, values in own.items()}
        if not zero_mean_K.any():
            return found
        for position, donor in self._donors(own).items():
            given = own[donor][:, zero_mean_K]
            found[position][:, zero_mean_K] = standardised(resampled(given, len(own[position])))
        return found

    def _donors(self, own: Mapping[int, Floats]) -> dict[int, int]:
        """For every segment one of another recording in which everything moves."""
        zero_mean_K = self.spread.zero_mean_K
        moving = [p for p in own if (own[p][:, zero_mean_K].std(axis=0) > 0).all()]
        candidates, places = np.array(moving, np.int64), np.array(list(own), np.int64)
        recording = self.bench.gallery.recording
        keys = pair_keys(places, candidates, 0)
        allowed = recording[places][:, None] != recording[candidates]
        if not len(candidates) or not allowed.any(axis=1).all():
            raise AnalysisError(
                f"{self.array} has a time mean of 0, which is kept by moving it as it moves in "
                f"another recording; the split '{self.bench.split}' has none to take that from",
                kind="too-few",
            )
        chosen = np.where(allowed, keys, np.iinfo(np.uint64).max).argmin(axis=1)
        return {int(p): int(candidates[c]) for p, c in zip(places, chosen, strict=True)}

    def step(self, dimensions: slice, sign: float) -> Change:
        """A change of batches: ± σ along the patterns of some dimensions, nothing at padding."""
        length_K = np.zeros_like(self.spread.sigma_K)
        length_K[dimensions] = sign * self.spread.sigma_K[dimensions]
        positions_of = self.bench.resident.positions

        def change(batch: Batch) -> Batch:
            added = torch.zeros(batch.arrays[self.array].shape)
            added_BTK = added.view(len(batch), -1, added.shape[-1])
            for row_TK, position in zip(added_BTK, positions_of(batch.segments_B), strict=True):
                moved_TK = self.unit[int(position)] * length_K
                row_TK[: len(moved_TK)] = torch.from_numpy(moved_TK)
            return with_added(batch, self.array, added)

        return change


def with_added(batch: Batch, array: str, added: torch.Tensor) -> Batch:
    """The batch with something added to one of its arrays."""
    values = batch.arrays[array]
    return dataclasses.replace(
        batch, arrays={**batch.arrays, array: values + added.to(values.device)}
    )


def embedded(
    bench: Bench, reading: Reading, positions: Ints, batch_size: int, change: Change | None = None
) -> FloatArray:
    """Embeddings of the reading's side for some segments, as changed: float32 [n, D].

    Raises
    ------
    AnalysisError
        (kind ``unverified``) when the model does not read the array.
    """
    model = bench.model
    encoders: Mapping[Side, Callable[[Batch], torch.Tensor]] = {
        "audio": model.embed_audio,
        "midi": model.embed_midi,
    }

    def encode(batch: Batch) -> tuple[torch.Tensor]:
        watched = Watched((batch if change is None else change(batch)).arrays)
        found = encoders[reading.side](dataclasses.replace(batch, arrays=watched))
        if reading.array not in watched.read:
            raise AnalysisError(f"{reading.name}: the model did not read it", kind="unverified")
        return (found,)

    names = [EMBEDDINGS[reading.side]]
    return over_batches(model, bench.resident, encode, names, batch_size, positions)[0]


def resampled(values_TK: Floats, length: int) -> Floats:
    """[T, K] → [length, K], linearly over the index; unchanged where the lengths are equal."""
    place = np.linspace(0, len(values_TK) - 1, length)
    index = np.arange(len(values_TK))
    return np.column_stack([np.interp(place, index, column) for column in values_TK.T])


def standardised(values_TK: Floats) -> Floats:
    """Columns with mean 0 and variance 1 (ddof 0); one that does not move gives zeros."""
    centred = values_TK - values_TK.mean(axis=0)
    deviation = centred.std(axis=0)
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-12)
