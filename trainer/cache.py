"""A split of a store as resident tensors, and batches of it by ``index_select``.

Everything a run reads is loaded once, through the store's checksums, onto the device when it fits
and into (pinned) host memory otherwise. There are no loader processes: a batch is a few gathers.

* **audio**: the timeline as whole seconds, int16 ``[seconds, 24000]``. Segments start on whole
  seconds, so a window is four consecutive rows; overlapping windows share them. A strided view
  makes every window a row of a matrix that costs no memory.
* **notes**: packed end to end, with each segment's offset and count; padded in the batch.
* **arrays**: as stored (float16), widened to float32 in the batch. What a store does not hold and
  can be had from its audio on the device (:data:`COMPUTED`) is made for every batch.

A segment without notes gets the reference's dummy note, in the batch only (method §1.4).

Shape suffixes: B batch, S samples, N notes (padded), R resident segments, K descriptor width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.base.errors import StoreError
from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Notes
from pipeline.spectral import SAMPLE_RATE, SEGMENT_S, SEGMENT_SAMPLES
from pipeline.store.reader import Store
from trainer.batch import Batch
from trainer.mel import log_mel

Ints = npt.NDArray[np.int64]
NotePadding = Literal["longest", "buckets"]

READ_BYTES = 64 << 20
PCM_SCALE = 32768.0
COMPUTED: dict[str, Callable[[Tensor], Tensor]] = {"mel": log_mel}
"""Arrays that can be had from a batch's samples, and how."""
ON_DEVICE = " computed on the device"
DUMMY_NOTE = {"pitch": 60, "velocity": 64, "duration_bucket": 16, "onset_s": 0.0, "duration_s": 0.5}
PADDING_NOTE = {"pitch": 0, "velocity": 0, "duration_bucket": 0, "onset_s": -1.0, "duration_s": 0.0}
CPU_BUCKET = 32
CUDA_BUCKETS = (64, 128, 256, 512)


Replace = Callable[["ResidentStore", Batch, Ints, slice], dict[str, Tensor]]
"""(residents, batch, places of all its segments, the share that is there) → other arrays."""


class ResidentStore:
    """The segments of one split, in memory.

    Parameters
    ----------
    store : an open store
    split : ``train``, ``validation`` or ``test``
    arrays : names of what a batch must carry; ``audio`` is the sample axis; what the store lacks is
        computed from its audio where that is possible
    device : where batches are wanted
    segments : ``valid`` rows only, or ``all``
    note_padding : to the batch's ``longest`` item (the reference), or to one of a few ``buckets``
    rows : int64 [R], ascending: these segments, whichever their split is

    Attributes
    ----------
    rows : int64 [R], the segments' row numbers in the store
    home : device of the resident tensors: ``device``, or the host where they do not fit
    replace : what stands in place of some arrays of every batch (:mod:`trainer.controls`), or None

    Raises
    ------
    StoreError
        when an array is missing, the split is empty, or a segment does not start on a whole second.
    """

    def __init__(
        self,
        store: Store,
        split: str,
        arrays: Sequence[str],
        device: torch.device | str = "cpu",
        *,
        segments: Literal["all", "valid"] = "valid",
        note_padding: NotePadding = "buckets",
        rows: Ints | None = None,
    ) -> None:
        held = held_arrays(store, arrays)
        table = store.segments
        if rows is None:
            chosen = table.split == split
            if segments == "valid":
                chosen = chosen & table.valid
            rows = np.flatnonzero(chosen)
        self.rows: Ints = rows.astype(np.int64)
        if not len(self.rows):
            raise StoreError(f"the store {store.path} has no {split} segments to use", kind="empty")
        self.store, self.split = store, split
        self.device = torch.device(device)
        self.note_padding = note_padding
        self._load_notes(store)
        self.replace: Replace | None = None
        self._audio: Tensor | None = None
        self._tokens: Callable[[Ints], Tensor] | None = None
        self._arrays: dict[str, Tensor] = {}
        self._per_note: set[str] = set()
        self._computed = {n: COMPUTED[n] for n in arrays if n not in held}
        self._hears = "audio" in arrays
        for name in held:
            if store.arrays[name].axis == "sample":
                self._load_audio(store, name)
            else:
                self._load_array(store, name)
        self._settle()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def note_counts(self) -> Ints:
        """Notes of every resident segment [R]; the dummy note is none."""
        return self._count_np

    def positions(self, segments_B: Tensor) -> Ints:
        """Where the segments of a batch are among ``rows``: int64 [B]."""
        return np.searchsorted(self.rows, segments_B.cpu().numpy()).astype(np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of resident tensors."""
        return sum(t.nbytes for t in self._tensors().values())

    def batch(self, index: npt.ArrayLike, share: slice = slice(None)) -> Batch:
        """The segments ``index`` (positions in ``rows``) as tensors on the device.

        ``share``: of these only some, padded as all of them would be. Where ``replace`` is set, it has
        the last word on the arrays.
        """
        index_np = np.asarray(index, np.int64)
        batch = self.plain_batch(index_np, share)
        if self.replace is not None:
            batch.arrays |= self.replace(self, batch, index_np, share)
        return batch

    def plain_batch(self, index: npt.ArrayLike, share: slice = slice(None)) -> Batch:
        """As :meth:`batch`, with the store's own values."""
        return self._batch(np.asarray(index, np.int64), share, self._tokens)

    def sounding_batch(self, index: npt.ArrayLike) -> Batch:
        """As :meth:`plain_batch`, with the sound even where tokens are kept in its place."""
        return self._batch(np.asarray(index, np.int64), slice(None), None)

    def _batch(
        self, index_np: Ints, share: slice, tokens: Callable[[Ints], Tensor] | None
    ) -> Batch:
        length = self._padded_length(int(self._count_np[index_np].max(initial=1)))
        index_np = index_np[share]
        index_B = torch.from_numpy(index_np).to(self.home)
        count_B = self._count_R.index_select(0, index_B)
        place_N = torch.arange(length, device=self.home)
        padding_BN = place_N[None] >= count_B.clamp(min=1)[:, None]
        absent_BN = place_N[None] >= count_B[:, None]
        flat_BN = self._offset_R.index_select(0, index_B)[:, None] + place_N[None]
        flat_BN = flat_BN.masked_fill(absent_BN, 0)

        def notes(name: str, dtype: torch.dtype) -> Tensor:
            field_BN = self._notes[name].take(flat_BN).to(dtype)
            field_BN = field_BN.masked_fill(absent_BN, PADDING_NOTE[name])
            return field_BN.masked_fill(absent_BN & ~padding_BN, DUMMY_NOTE[name])

        arrays: dict[str, Tensor] = {}
        for name, tensor in self._arrays.items():
            if name in self._per_note:
                values = tensor.index_select(0, flat_BN.flatten()).float()
                values = values.unflatten(0, flat_BN.shape).masked_fill(absent_BN[..., None], 0)
            else:
                values = tensor.index_select(0, index_B).float()
            arrays[name] = values
        heard = tokens is None or bool(self._computed)
        batch = Batch(
            segments_B=self._rows_R.index_select(0, index_B),
            audio_BS=self._windows(index_B) if heard else None,
            pitch_BN=notes("pitch", torch.int64),
            velocity_BN=notes("velocity", torch.int64),
            duration_bucket_BN=notes("duration_bucket", torch.int64),
            onset_BN=notes("onset_s", torch.float32),
            duration_BN=notes("duration_s", torch.float32),
            padding_BN=padding_BN,
            arrays=arrays,
            tokens_BTC=None if tokens is None else tokens(index_np),
        )
        if self.home != self.device:
            batch = batch.to(self.device)
        for name, compute in self._computed.items():
            assert batch.audio_BS is not None
            batch.arrays[name] = compute(batch.audio_BS)
        if not self._hears:
            batch.audio_BS = None
        return batch

    def keep(self, tokens: Callable[[Ints], Tensor]) -> None:
        """Let batches carry ``tokens`` of their segments ([B] → [B, T, C]) in place of the sound."""
        self._tokens = tokens

    def forget_audio(self) -> None:
        """Free the sound, where nothing is computed from it: tokens of all segments are kept."""
        if not self._computed:
            self._audio = None

    def _windows(self, index_B: Tensor) -> Tensor | None:
        if self._audio is None:
            return None
        seconds = len(self._audio) - SEGMENT_S + 1
        windows = self._audio.as_strided((seconds, SEGMENT_SAMPLES), (SAMPLE_RATE, 1))
        first_B = self._first_second_R.index_select(0, index_B)
        return windows.index_select(0, first_B).float() / PCM_SCALE

    def _padded_length(self, longest: int) -> int:
        longest = max(1, longest)
        if self.note_padding == "longest":
            return longest
        return padded_length(longest, self.device.type)

    def _load_notes(self, store: Store) -> None:
        table = store.segments
        starts, counts = table.note_start[self.rows], table.note_count[self.rows].astype(np.int64)
        first = int(starts.min())
        notes: Notes = store.notes(first, int((starts + counts).max()))
        self._note_rows = _ranges(starts, counts)
        self._count_np: Ints = counts
        self._count_R = torch.from_numpy(counts)
        self._offset_R = torch.from_numpy(np.cumsum(counts) - counts)
        self._rows_R = torch.from_numpy(self.rows)
        self._notes = {
            name: _or_one_row(np.ascontiguousarray(getattr(notes, name)[self._note_rows - first]))
            for name in DUMMY_NOTE
        }

    def _load_array(self, store: Store, name: str) -> None:
        rows = self.rows
        if store.arrays[name].axis == "note":
            self._per_note.add(name)
            rows = self._note_rows
        self._arrays[name] = _or_one_row(_read_rows(store, name, rows))

    def _load_audio(self, store: Store, name: str) -> None:
        starts = store.segments.audio_start[self.rows]
        if np.any(starts % SAMPLE_RATE):
            row = int(self.rows[np.argmax(starts % SAMPLE_RATE != 0)])
            raise StoreError(f"{store.path}: segment {row} does not start on a whole second")
        first = starts // SAMPLE_RATE
        seconds = np.unique(first[:, None] + np.arange(SEGMENT_S))
        # The four seconds of a window are all kept, so they stay neighbours among the kept ones.
        self._first_second_R = torch.from_numpy(np.searchsorted(seconds, first))
        self._audio = torch.from_numpy(_read_rows(store, name, seconds, SAMPLE_RATE))

    def _tensors(self) -> dict[str, Tensor]:
        own = {k: v for k, v in vars(self).items() if isinstance(v, Tensor)}
        notes = {f"notes.{k}": v for k, v in self._notes.items()}
        return own | notes | {f"arrays.{k}": v for k, v in self._arrays.items()}

    def _settle(self) -> None:
        """Move everything to the device if half of its free memory holds it, else pin it here."""
        self.home = torch.device("cpu")
        if self.device.type == "cpu":
            return
        fits = self.nbytes < torch.cuda.mem_get_info(self.device)[0] // 2
        self.home = self.device if fits else self.home

        def place(tensor: Tensor) -> Tensor:
            return tensor.to(self.device) if fits else tensor.pin_memory()

        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor):
                setattr(self, name, place(value))
        self._notes = {k: place(v) for k, v in self._notes.items()}
        self._arrays = {k: place(v) for k, v in self._arrays.items()}


def padded_length(longest: int, device_type: str) -> int:
    """Notes of a batch whose longest item has ``longest``: few shapes on a GPU, little waste here."""
    if device_type == "cpu":
        return -(-longest // CPU_BUCKET) * CPU_BUCKET
    step = CUDA_BUCKETS[-1]
    return next((b for b in CUDA_BUCKETS if b >= longest), -(-longest // step) * step)


def held_arrays(store: Store, arrays: Sequence[str]) -> list[str]:
    """What must be read of a store for batches to carry ``arrays``.

    Raises
    ------
    StoreError
        when something is missing and cannot be computed from what is there.
    """
    missing = [name for name in arrays if name in COMPUTED and name not in store.arrays]
    held = [name for name in arrays if name not in missing]
    if missing and "audio" not in held:
        held.append("audio")
    store.require(held)
    return held


def missing_arrays(store: Store, arrays: Sequence[str]) -> list[str]:
    """What of ``arrays`` a store neither has nor lets batches compute."""
    return [name for name in arrays if name not in store.arrays and name not in COMPUTED]


def fingerprints(
    store: Store, arrays: Sequence[str], *, planned: Sequence[str] = ()
) -> dict[str, str]:
    """What a run's signature hashes of a store.

    Its identity, which recordings share a composition (the strict protocol, by which a run selects
    its best step, reads that and it is not in the identity), and the arrays that the run reads.
    ``planned`` ones need not be there yet: they stand as they will be when they are added.
    """
    absent = [name for name in planned if name not in store.arrays]
    held = held_arrays(store, [name for name in arrays if name not in absent])
    read = {name: store.arrays[name].fingerprint for name in held}
    for name in absent:
        read[name] = DESCRIPTORS.get(name).fingerprint(store.identity)
    for name in arrays:
        if name not in read:  # another transform's last bits
            own = DESCRIPTORS.get(name).fingerprint(store.identity)
            read[name] = own + ON_DEVICE
    return {"store": store.identity, "compositions": store.grouping, **read}


def _ranges(starts: Ints, counts: Ints) -> Ints:
    """The numbers start … start + count - 1 of every pair, end to end."""
    before = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(starts - before, counts)


def _or_one_row(values: npt.NDArray[Any]) -> Tensor:
    """As a tensor; one zero row where there is none, so that index 0 is always there to gather."""
    if not len(values):
        values = np.zeros((1, *values.shape[1:]), values.dtype)
    return torch.from_numpy(values)


def _read_rows(store: Store, name: str, rows: Ints, unit: int = 1) -> npt.NDArray[Any]:
    """Rows (ascending, in units of ``unit`` array rows) of an array, read in large blocks."""
    info = store.arrays[name]
    tail = (unit, *info.shape[1:]) if unit > 1 else tuple(info.shape[1:])
    out = np.empty((len(rows), *tail), np.dtype(info.dtype))
    row_bytes = max(1, int(np.prod(tail)) * out.itemsize)
    block = max(1, READ_BYTES // row_bytes)
    done = 0
    while done < len(rows):
        first = int(rows[done])
        stop = int(np.searchsorted(rows, first + block))
        last = int(rows[stop - 1]) + 1
        read = store.read(name, first * unit, last * unit).reshape(last - first, *tail)
        out[done:stop] = read[rows[done:stop] - first]
        done = stop
    return out
