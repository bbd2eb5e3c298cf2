"""What may stand in place of a descriptor, at the input of a trained model (method §8.1).

======== ================================================== =========================================
kind     paper                                              sound
======== ================================================== =========================================
zero     zeros                                              zeros
noise    N(μ, σ²), one μ and one σ over all values of the   per dimension mean, σ and, over time, the
         first 320 segments, padding zeros included         lag-one correlation of real values
shuffle  permuted within each 16 in a row: neighbours of    values of a random segment of another
         one recording, mostly (§9.26)                      recording
swap     —                                                  two segments of different recordings
                                                            exchange theirs
======== ================================================== =========================================

Replacement happens at the descriptor's own rate, before anything is resampled. Notes' values go to
another segment's notes in order, beginning again where it has more. Everything is drawn with seed 0.

Shape suffixes: B batch, F frames, N notes, K descriptor width, R resident segments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.descriptors import DESCRIPTORS
from trainer.analyses.bench import Bench
from trainer.analyses.contract import AnalysisError, Variant
from trainer.batch import Batch
from trainer.controls import notes_given
from trainer.retrieval.hashing import pair_keys

Kind = Literal["zero", "noise", "shuffle", "swap"]
KINDS: dict[Variant, tuple[Kind, ...]] = {
    "paper": ("zero", "noise", "shuffle"),
    "sound": ("zero", "noise", "shuffle", "swap"),
}
PAPER_BATCH = 16  # of the reference's evaluation
PAPER_ROWS = 20 * PAPER_BATCH

Ints = npt.NDArray[np.int64]
Replace = Callable[[Batch], Batch]


def replacement(bench: Bench, arrays: Sequence[str], kind: Kind, variant: Variant) -> Replace:
    """A change of batches that puts ``kind`` in place of some arrays.

    Raises
    ------
    AnalysisError
        (kind ``too-few``) when every other recording together has too few segments to give.
    """
    make = {
        ("paper", "zero"): lambda: _zeros(arrays),
        ("sound", "zero"): lambda: _zeros(arrays),
        ("paper", "noise"): lambda: _white(bench, arrays),
        ("sound", "noise"): lambda: _alike(bench, arrays),
        ("paper", "shuffle"): lambda: _within_batch(arrays),
        ("sound", "shuffle"): lambda: _from_donors(bench, arrays, donors(bench)),
        ("sound", "swap"): lambda: _from_donors(bench, arrays, partners(bench)),
    }
    return make[variant, kind]()


def donors(bench: Bench) -> Ints:
    """For every segment one of another recording, each giving once: int64 [R].

    Recordings lie on a circle in random order, their segments at random within them; everybody is
    given to by the segment a third of the circle away, or as far as the largest recording is long.
    """
    order = _circle(bench)
    largest = int(np.unique(bench.gallery.recording, return_counts=True)[1].max())
    shift = max(largest, len(order) // 3)
    found = np.empty_like(order)
    found[order] = np.roll(order, -shift)
    return found


def partners(bench: Bench) -> Ints:
    """For every segment the one of another recording that it exchanges with: int64 [R].

    Of an odd number the last keeps its own.
    """
    order = _circle(bench)
    half = len(order) // 2
    found = np.arange(len(order))
    found[order[:half]] = order[half : 2 * half]
    found[order[half : 2 * half]] = order[:half]
    return found


def _circle(bench: Bench) -> Ints:
    """All segments, recording by recording, both in random order; no recording is half of them."""
    recording = bench.gallery.recording
    ids, counts = np.unique(recording, return_counts=True)
    if counts.max() > len(recording) // 2:
        raise AnalysisError(
            f"one recording has {counts.max()} of the {len(recording)} segments of the split "
            f"'{bench.split}': not every segment can be given those of another recording",
            kind="too-few",
        )
    place = pair_keys(np.array([1]), ids, 0)[0][np.searchsorted(ids, recording)]
    within = pair_keys(np.array([2]), np.arange(len(recording)), 0)[0]
    return np.lexsort((within, place)).astype(np.int64)


def _changed(batch: Batch, values: dict[str, Tensor]) -> Batch:
    return dataclasses.replace(batch, arrays={**batch.arrays, **values})


def _zeros(arrays: Sequence[str]) -> Replace:
    return lambda batch: _changed(batch, {n: torch.zeros_like(batch.arrays[n]) for n in arrays})


def _within_batch(arrays: Sequence[str]) -> Replace:
    def change(batch: Batch) -> Batch:
        generator, parts = _generator(batch), range(0, len(batch), PAPER_BATCH)
        sizes = [min(PAPER_BATCH, len(batch) - start) for start in parts]
        order = torch.cat(
            [s + torch.randperm(n, generator=generator) for s, n in zip(parts, sizes, strict=True)]
        ).to(batch.padding_BN.device)
        return _changed(batch, {n: batch.arrays[n].index_select(0, order) for n in arrays})

    return change


def _white(bench: Bench, arrays: Sequence[str]) -> Replace:
    first = np.arange(min(PAPER_ROWS, len(bench.resident)))
    found: dict[str, list[Tensor]] = {n: [] for n in arrays}
    for batch in bench.batches(first, PAPER_BATCH):
        for name in arrays:
            found[name].append(batch.arrays[name].flatten())
    flat = {n: torch.cat(parts) for n, parts in found.items()}
    moments = {n: (x.mean(), x.std()) for n, x in flat.items()}

    def change(batch: Batch) -> Batch:
        generator = _generator(batch)
        noise = {n: _normal(batch.arrays[n], generator) for n in arrays}
        return _changed(batch, {n: moments[n][0] + moments[n][1] * noise[n] for n in arrays})

    return change


def _alike(bench: Bench, arrays: Sequence[str]) -> Replace:
    moments = {name: _moments(bench, name) for name in arrays}

    def change(batch: Batch) -> Batch:
        generator = _generator(batch)
        made: dict[str, Tensor] = {}
        for name in arrays:
            mean_K, std_K, lag_K = moments[name]
            noise = _normal(batch.arrays[name], generator)
            if DESCRIPTORS.get(name).axis == "frame":
                noise = _correlated(noise, lag_K)
            values = mean_K + std_K * noise
            if DESCRIPTORS.get(name).axis == "note":
                values = values.masked_fill(batch.padding_BN[..., None], 0)
            made[name] = values
        return _changed(batch, made)

    return change


def _moments(bench: Bench, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, σ and lag-one correlation over time of every dimension, over all valid segments."""
    axis = DESCRIPTORS.get(name).axis
    rows = np.flatnonzero(bench.gallery.valid)
    values, steps = [], []
    for batch in bench.batches(rows):
        x = batch.arrays[name]
        if axis == "frame":
            steps.append((x[:, :-1], x[:, 1:]))
        values.append(x[~batch.padding_BN] if axis == "note" else x.flatten(0, -2))
    flat_XK = torch.cat(values).double()
    mean_K, std_K = flat_XK.mean(dim=0), flat_XK.std(dim=0)
    lag_K = torch.zeros_like(mean_K)
    if steps:
        before, after = (
            torch.cat(part).flatten(0, 1).double() - mean_K for part in zip(*steps, strict=True)
        )
        lag_K = (before * after).mean(dim=0) / std_K.square().clamp(min=1e-12)
    return mean_K.float(), std_K.float(), lag_K.clamp(-0.999, 0.999).float()


def _correlated(white_BFK: Tensor, lag_K: Tensor) -> Tensor:
    """A first-order autoregressive series of variance 1 from white noise."""
    fresh_K = (1 - lag_K.square()).sqrt()
    frames = [white_BFK[:, 0]]
    for t in range(1, white_BFK.shape[1]):
        frames.append(lag_K * frames[-1] + fresh_K * white_BFK[:, t])
    return torch.stack(frames, dim=1)


def _from_donors(bench: Bench, arrays: Sequence[str], giver_R: Ints) -> Replace:
    def change(batch: Batch) -> Batch:
        positions = bench.resident.positions(batch.segments_B)
        given = bench.resident.batch(giver_R[positions])
        made: dict[str, Tensor] = {}
        for name in arrays:
            values = given.arrays[name]
            if DESCRIPTORS.get(name).axis == "note":
                values = notes_given(values, given.padding_BN, batch.padding_BN)
            made[name] = values
        return _changed(batch, made)

    return change


def _generator(batch: Batch) -> torch.Generator:
    """Of a batch's own: the same whatever was drawn before."""
    return torch.Generator().manual_seed(int(batch.segments_B[0]))


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like.device)
