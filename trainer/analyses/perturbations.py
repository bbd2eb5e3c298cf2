"""Changes of the notes and of the sound that a model is given, every descriptor computed anew.

Notes are changed note by note, and what the model reads of them (``D*`` arrays) is extracted again
from the changed notes. Sound is changed sample by sample, and the spectra and ``A*`` arrays are
extracted again from the changed samples, rounded as the store rounds them: without a change they are
the store's own, to the bit. What a run's control put in place of its descriptors stays there: such a
run never read them, so they cannot change what it reads.

Shape suffixes: B batch, N notes, S samples, K descriptor width.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Notes, Side
from pipeline.spectral import SAMPLE_RATE, SEGMENT_SAMPLES, Spectrum, Workspace
from trainer.analyses.bench import Bench
from trainer.batch import Batch
from trainer.cache import DUMMY_NOTE, PADDING_NOTE
from trainer.retrieval.baselines import segments_of
from trainer.windows import arrays_of, stored

HIGHEST = 127
NOISE_SAMPLES = 180 * SAMPLE_RATE
STRIDE = 1_000_003  # a prime: where in the noise the next segment's begins

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Samples = npt.NDArray[np.float32]
EditNotes = Callable[[Notes], tuple[Notes, Mask]]
"""From notes to as many changed notes, and which of them are left."""
EditSamples = Callable[[Samples, int], Samples]
"""From samples, which may be written into, and the segment's id to changed samples."""
Change = Callable[[Batch], Batch]


def read_arrays(bench: Bench, side: Side) -> list[str]:
    """What the model reads that is computed from this side, without what a control replaces."""
    names = arrays_of(bench.model.reads(), side)
    if bench.resident.replace is None:
        return names
    return [name for name in names if DESCRIPTORS.get(name).role != "descriptor"]


def notes_changed(bench: Bench, edit: EditNotes) -> Change:
    """Batches in which the notes of every segment went through ``edit``, which may leave some out.

    The padded length stays. A segment that had no notes stays as it is; one that has none left is
    given the dummy note, as any segment without notes.
    """
    arrays = read_arrays(bench, "midi")

    def change(batch: Batch) -> Batch:
        counts = bench.resident.note_counts[bench.resident.positions(batch.segments_B)]
        place_N = np.arange(batch.padding_BN.shape[1])
        own_BN = place_N < counts[:, None]
        given: Any = {n: _column(batch, n)[own_BN].astype(TYPES[n]) for n in FIELDS}
        notes, kept = edit(Notes(**given))
        left = np.bincount(np.repeat(np.arange(len(counts)), counts)[kept], minlength=len(counts))
        left_BN = place_N < left[:, None]
        notes = chosen(notes, kept)
        fields: dict[str, npt.NDArray[Any]] = {}
        for name in FIELDS:
            fields[name] = np.full_like(_column(batch, name), PADDING_NOTE[name])
            fields[name][left == 0, 0] = DUMMY_NOTE[name]
            fields[name][left_BN] = getattr(notes, name)
        tensors: Any = {f"{SHORT.get(n, n)}_BN": torch.from_numpy(fields[n]) for n in FIELDS}
        tensors["padding_BN"] = torch.from_numpy(place_N >= np.maximum(left, 1)[:, None])
        device = batch.padding_BN.device
        made = {
            name: torch.from_numpy(_extracted(name, notes, left, batch.arrays[name])).to(device)
            for name in arrays
        }
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        for name, values in batch.arrays.items():
            if name not in made and DESCRIPTORS.get(name).axis == "note":  # a control's
                made[name] = values.masked_fill(tensors["padding_BN"][..., None], 0)
        return dataclasses.replace(batch, **tensors, arrays={**batch.arrays, **made})

    return change


def sound_changed(bench: Bench, edit: EditSamples, shift: int = 0) -> Change:
    """Batches whose sound went through ``edit(samples, segment)``, the window moved by ``shift``.

    Parameters
    ----------
    edit : called from several threads; may write into the samples that it is given
    shift : samples at 24 kHz; positive: the window begins later in the recording. Beyond the
        recording's ends is silence.
    """
    arrays = read_arrays(bench, "audio")
    hears = "audio" in bench.model.reads()

    def change(batch: Batch) -> Batch:
        rows = batch.segments_B.cpu().numpy()
        heard = np.empty((len(rows), SEGMENT_SAMPLES), np.float32) if hears else None
        values = {n: np.empty(batch.arrays[n].shape, np.float32) for n in arrays}

        sound, turn = segments_of(bench.store, rows, shift=shift), threading.Lock()

        def extract() -> None:
            workspace = Workspace()
            while True:
                with turn:
                    found = next(sound, None)
                if found is None:
                    return
                position, samples, _ = found
                edited = edit(samples, int(rows[position]))
                if heard is not None:
                    heard[position] = edited
                spectrum = Spectrum(edited, workspace)
                for name in arrays:
                    values[name][position] = stored(DESCRIPTORS.get(name).extract(spectrum))

        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(extract) for _ in range(threads)]:
                done.result()
        device = batch.padding_BN.device
        made = {n: torch.from_numpy(v).to(device) for n, v in values.items()}
        # What a frozen front end made of the unchanged sound is of no use here.
        return dataclasses.replace(
            batch,
            audio_BS=None if heard is None else torch.from_numpy(heard).to(device),
            arrays={**batch.arrays, **made},
            tokens_BTC=None,
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


def _extracted(name: str, notes: Notes, counts: Ints, like_BNK: Tensor) -> npt.NDArray[np.float32]:
    """A descriptor of changed notes, ``counts`` of them in each row; zeros in padding."""
    descriptor = DESCRIPTORS.get(name)
    values = np.zeros(like_BNK.shape, np.float32)
    stops = np.cumsum(counts)
    for row, (stop, count) in enumerate(zip(stops, counts, strict=True)):
        if count:
            found = stored(descriptor.extract(notes.rows(int(stop - count), int(stop))))
            values[row, : count if descriptor.axis == "note" else None] = found
    return values


# ---- edits of notes


def transposed(semitones: int, *, beyond: str) -> EditNotes:
    """Pitches moved; what would leave 0 … 127 is ``"clamped"`` or ``"dropped"``."""

    def edit(notes: Notes) -> tuple[Notes, Mask]:
        pitch = notes.pitch.astype(np.int64) + semitones
        inside = (pitch >= 0) & (pitch <= HIGHEST)
        moved = np.clip(pitch, 0, HIGHEST).astype(np.uint8)
        return (
            dataclasses.replace(notes, pitch=moved),
            inside if beyond == "dropped" else np.ones_like(inside),
        )

    return edit


def louder(factor: float, *, rounding: str) -> EditNotes:
    """Velocities multiplied, ``"truncated"`` to 0 … 127 or ``"rounded"`` to 1 … 127."""

    def edit(notes: Notes) -> tuple[Notes, Mask]:
        velocity = notes.velocity.astype(np.float64) * factor
        if rounding == "truncated":
            made = np.clip(velocity.astype(np.int64), 0, HIGHEST)
        else:
            made = np.clip(np.round(velocity), 1, HIGHEST)
        changed = dataclasses.replace(notes, velocity=made.astype(np.uint8))
        return changed, np.ones(len(notes), bool)

    return edit


def chosen(notes: Notes, keep: Mask) -> Notes:
    """Those that are left."""
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
    """White Gaussian noise, its σ the segment's own times 10^(−SNR/20).

    Every segment hears another four seconds of one recording of noise, the same at every level.
    """

    def edit(samples: Samples, segment: int) -> Samples:
        noise = _noise()
        at = segment * STRIDE % (len(noise) - len(samples))
        scale = np.float32(samples.std() * 10 ** (-snr_db / 20))
        samples += scale * noise[at : at + len(samples)]
        return samples

    return edit


@functools.cache
def _noise() -> Samples:
    """Drawing fresh noise for every segment takes longer than its spectrum."""
    return np.random.Generator(np.random.PCG64(0)).standard_normal(NOISE_SAMPLES, dtype=np.float32)
