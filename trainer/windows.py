"""Batches of sound, or of notes, that no store holds: descriptors computed and rounded as a store's.

What a model is given of a window that lies where a segment lies is then what it is given of the
segment, to the bit, whether it comes from a store or from a file.

Shape suffixes: B windows, S samples, N notes (padded).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Notes, Side
from pipeline.spectral import N_FRAMES, Spectrum, Workspace
from trainer.batch import Batch
from trainer.cache import DUMMY_NOTE, PADDING_NOTE, NotePadding, padded_length

FloatArray = npt.NDArray[np.float32]
INTEGERS = ("pitch", "velocity", "duration_bucket")
TENSORS = {n: f"{n.removesuffix('_s')}_BN" for n in DUMMY_NOTE}


def arrays_of(reads: Sequence[str], side: Side) -> list[str]:
    """What of a model's ``reads`` is computed from one side; the samples themselves are no array."""
    return [name for name in reads if name != "audio" and DESCRIPTORS.get(name).side == side]


def sound_batch(windows_BS: FloatArray, reads: Sequence[str]) -> Batch:
    """Windows of sound side by side, without notes.

    Parameters
    ----------
    windows_BS : float32 [B, 96000] in [-1, 1), 24 kHz mono
    reads : what the model reads of a batch (``model.reads()``)

    Raises
    ------
    MissingExtra
        where Numba or SciPy is not installed and a descriptor needs it.
    """
    names, workspace = arrays_of(reads, "audio"), Workspace()
    made: dict[str, list[FloatArray]] = {name: [] for name in names}
    for samples in windows_BS:
        spectrum = Spectrum(samples, workspace)
        for name in names:
            made[name].append(stored(DESCRIPTORS.get(name).extract(spectrum)))
    batch = note_batch([_no_notes()] * len(windows_BS), ())
    return dataclasses.replace(
        batch,
        audio_BS=torch.from_numpy(windows_BS) if "audio" in reads else None,
        arrays={name: torch.from_numpy(np.stack(values)) for name, values in made.items()},
    )


def note_batch(
    windows: Sequence[Notes], reads: Sequence[str], padding: NotePadding = "buckets"
) -> Batch:
    """Notes of windows side by side, without sound; a window without notes is given the dummy note.

    Parameters
    ----------
    windows : the notes of each, onsets in seconds from its start
    reads : what the model reads of a batch (``model.reads()``)
    padding : as of :class:`trainer.cache.ResidentStore`
    """
    counts = np.array([len(notes) for notes in windows], np.int64)
    longest = max(1, int(counts.max(initial=0)))
    length = longest if padding == "longest" else padded_length(longest, "cpu")
    place_N = np.arange(length)
    own_BN = place_N < counts[:, None]
    fields: dict[str, torch.Tensor] = {}
    for name, tensor in TENSORS.items():
        dtype = np.int64 if name in INTEGERS else np.float32
        column_BN = np.full(own_BN.shape, PADDING_NOTE[name], dtype)
        column_BN[counts == 0, 0] = DUMMY_NOTE[name]
        if counts.any():
            column_BN[own_BN] = np.concatenate([getattr(notes, name) for notes in windows])
        fields[tensor] = torch.from_numpy(column_BN)
    arrays = {name: _of_notes(name, windows, length) for name in arrays_of(reads, "midi")}
    named: dict[str, Any] = fields
    return Batch(
        segments_B=torch.full((len(windows),), -1),
        audio_BS=None,
        padding_BN=torch.from_numpy(place_N >= np.maximum(counts, 1)[:, None]),
        arrays=arrays,
        **named,
    )


def stored(values: FloatArray) -> FloatArray:
    """Rounded as in a store."""
    return values.astype(np.float16).astype(np.float32)


def _of_notes(name: str, windows: Sequence[Notes], length: int) -> torch.Tensor:
    descriptor = DESCRIPTORS.get(name)
    per_note = descriptor.axis == "note"
    shape = {"note": (length,), "frame": (N_FRAMES,), "segment": ()}[descriptor.axis]
    out = np.zeros((len(windows), *shape, descriptor.width), np.float32)
    for row, notes in zip(out, windows, strict=True):
        if len(notes) or not per_note:
            row[: len(notes) if per_note else None] = stored(descriptor.extract(notes))
    return torch.from_numpy(out)


def _no_notes() -> Notes:
    none: Any = {n: np.empty(0, np.uint8 if n in INTEGERS else np.float32) for n in DUMMY_NOTE}
    return Notes(**none)
