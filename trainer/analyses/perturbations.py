"""Changes of the notes and of the sound that a model is given, every descriptor computed anew.

Notes are changed note by note, and what the model reads of them (``D*`` arrays) is extracted again
from the changed notes. Sound is changed sample by sample, and the spectra and ``A*`` arrays are
extracted again from the changed samples, rounded as the store rounds them: without a change they are
the store's own, to the bit.

Shape suffixes: B batch, N notes, S samples, K descriptor width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Notes, Side
from pipeline.spectral import Spectrum, Workspace
from trainer.analyses.bench import Bench
from trainer.batch import Batch
from trainer.cache import DUMMY_NOTE, PADDING_NOTE
from trainer.retrieval.baselines import segments_of

HIGHEST = 127

Samples = npt.NDArray[np.float32]
EditNotes = Callable[[Notes], Notes]
EditSamples = Callable[[Samples, int], Samples]
Change = Callable[[Batch], Batch]


def read_arrays(bench: Bench, side: Side) -> list[str]:
    """What the model reads that is computed from this side."""
    return [
        name
        for name in bench.model.reads()
        if name != "audio" and DESCRIPTORS.get(name).side == side
    ]


def notes_changed(bench: Bench, edit: EditNotes) -> Change:
    """Batches in which every segment's notes went through ``edit``; it may also drop notes.

    The padded length stays. A segment that had no notes stays as it is; one that has none left is
    given the dummy note, as any segment without notes.
    """
    arrays = read_arrays(bench, "midi")

    def change(batch: Batch) -> Batch:
        positions = bench.resident.positions(batch.segments_B)
        counts = bench.resident.note_counts[positions]
        fields = {name: _column(batch, name).copy() for name in FIELDS}
        padding_BN = batch.padding_BN.cpu().numpy().copy()
        values = {name: batch.arrays[name].cpu().numpy().copy() for name in arrays}
        for row, count in enumerate(counts):
            if not count:
                continue
            own: Any = {n: fields[n][row, :count].astype(TYPES[n]) for n in FIELDS}
            edited = edit(Notes(**own))
            _put(fields, padding_BN, row, edited)
            for name in arrays:
                _put_values(values[name], row, name, edited)
        device = batch.padding_BN.device
        tensors: Any = {
            f"{SHORT.get(n, n)}_BN": torch.from_numpy(fields[n]).to(device) for n in FIELDS
        }
        made = {n: torch.from_numpy(v).to(device) for n, v in values.items()}
        tensors["padding_BN"] = torch.from_numpy(padding_BN).to(device)
        return dataclasses.replace(batch, **tensors, arrays={**batch.arrays, **made})

    return change


def sound_changed(bench: Bench, edit: EditSamples, shift: int = 0) -> Change:
    """Batches whose sound went through ``edit(samples, segment)``, the window moved by ``shift``.

    Parameters
    ----------
    shift : samples at 24 kHz; positive: the window begins later in the recording. Beyond the
        recording's ends is silence.
    """
    arrays = read_arrays(bench, "audio")
    hears = "audio" in bench.model.reads()
    workspace = Workspace()

    def change(batch: Batch) -> Batch:
        rows = batch.segments_B.cpu().numpy()
        heard: list[Samples] = []
        values: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in arrays}
        for position, samples, _ in segments_of(bench.store, rows, shift=shift):
            edited = edit(samples, int(rows[position])).astype(np.float32)
            if hears:
                heard.append(edited)
            if arrays:
                spectrum = Spectrum(edited, workspace)
                for name in arrays:
                    values[name].append(_stored(DESCRIPTORS.get(name).extract(spectrum)))
        device = batch.padding_BN.device
        made = {n: torch.from_numpy(np.stack(v)).to(device) for n, v in values.items()}
        audio_BS: Tensor | None = None
        if hears:
            audio_BS = torch.from_numpy(np.stack(heard)).to(device)
        # What a frozen front end made of the unchanged sound is of no use here.
        return dataclasses.replace(
            batch, audio_BS=audio_BS, arrays={**batch.arrays, **made}, tokens_BTC=None
        )

    return change


FIELDS = tuple(DUMMY_NOTE)
SHORT = {"onset_s": "onset", "duration_s": "duration"}
TYPES = {
    f.name: np.float32 if f.name.endswith("_s") else np.uint8 for f in dataclasses.fields(Notes)
}


def _column(batch: Batch, name: str) -> npt.NDArray[Any]:
    tensor: Tensor = getattr(batch, f"{SHORT.get(name, name)}_BN")
    return tensor.cpu().numpy()


def _put(
    fields: dict[str, npt.NDArray[Any]], padding_BN: npt.NDArray[np.bool_], row: int, notes: Notes
) -> None:
    count = max(1, len(notes))
    padding_BN[row] = np.arange(padding_BN.shape[1]) >= count
    for name in FIELDS:
        fields[name][row, : len(notes)] = getattr(notes, name)
        fields[name][row, len(notes) :] = PADDING_NOTE[name]
        if not len(notes):
            fields[name][row, 0] = DUMMY_NOTE[name]


def _put_values(values: npt.NDArray[np.float32], row: int, name: str, notes: Notes) -> None:
    """A descriptor of changed notes in its row; zeros in padding."""
    values[row] = 0
    if len(notes):
        found = _stored(DESCRIPTORS.get(name).extract(notes))
        if DESCRIPTORS.get(name).axis == "note":
            values[row, : len(found)] = found
        else:
            values[row] = found


def _stored(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rounded as in the store."""
    return values.astype(np.float16).astype(np.float32)


# ---- edits of notes


def transposed(semitones: int, *, beyond: str) -> EditNotes:
    """Pitches moved; what would leave 0 … 127 is ``"clamped"`` or ``"dropped"``."""

    def edit(notes: Notes) -> Notes:
        pitch = notes.pitch.astype(np.int64) + semitones
        moved = dataclasses.replace(notes, pitch=np.clip(pitch, 0, HIGHEST).astype(np.uint8))
        if beyond == "clamped":
            return moved
        return _chosen(moved, (pitch >= 0) & (pitch <= HIGHEST))

    return edit


def louder(factor: float, *, rounding: str) -> EditNotes:
    """Velocities multiplied, ``"truncated"`` to 0 … 127 or ``"rounded"`` to 1 … 127."""

    def edit(notes: Notes) -> Notes:
        velocity = notes.velocity.astype(np.float64) * factor
        if rounding == "truncated":
            made = np.clip(velocity.astype(np.int64), 0, HIGHEST)
        else:
            made = np.clip(np.round(velocity), 1, HIGHEST)
        return dataclasses.replace(notes, velocity=made.astype(np.uint8))

    return edit


def _chosen(notes: Notes, keep: npt.NDArray[np.bool_]) -> Notes:
    return Notes(**{f.name: getattr(notes, f.name)[keep] for f in dataclasses.fields(notes)})


# ---- edits of sound


def unchanged(samples: Samples, segment: int) -> Samples:
    """The sound itself."""
    return samples


def rolled(shift: int) -> EditSamples:
    """Sound moved within its window by ``shift`` samples, silence where it came from (§8.5)."""

    def edit(samples: Samples, segment: int) -> Samples:
        moved = np.zeros_like(samples)
        if shift >= 0:
            moved[shift:] = samples[: len(samples) - shift]
        else:
            moved[:shift] = samples[-shift:]
        return moved

    return edit


def noisy(snr_db: float) -> EditSamples:
    """White Gaussian noise, its σ the segment's own times 10^(−SNR/20); seeded by the segment."""

    def edit(samples: Samples, segment: int) -> Samples:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([0, segment])))
        scale = np.float32(samples.std() * 10 ** (-snr_db / 20))
        noise = generator.standard_normal(len(samples), dtype=np.float32)
        found: Samples = samples + scale * noise
        return found

    return edit
