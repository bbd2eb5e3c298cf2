"""A replacement that is watched: what it put in place of a descriptor, and whether that was read.

Shape suffixes: B batch, R resident segments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.analyses.bench import Bench, Watched
from trainer.analyses.contract import AnalysisError, Plain, Variant
from trainer.analyses.replacements import Kind, Replace, donors, partners
from trainer.analyses.shifts import segment_values
from trainer.batch import Batch

Ints = npt.NDArray[np.int64]


class Verified:
    """A change of batches that raises where it does not do what ``kind`` says.

    Everywhere: no other array changes, zeros are zeros, and (:meth:`summary`) every array was read by
    the model and changed in some segment. In the sound variant also, segment by segment: what was
    given is what the store holds of the giver, who is of another recording (the last of an odd number
    of partners alone keeps its own), and noise leaves nothing that has notes as it was.

    Raises
    ------
    AnalysisError
        (kind ``unverified``)
    """

    def __init__(
        self, bench: Bench, change: Replace, arrays: Sequence[str], kind: Kind, variant: Variant
    ) -> None:
        self.bench, self.change, self.arrays = bench, change, tuple(arrays)
        self.kind, self.variant = kind, variant
        self.giver_R = self._givers() if variant == "sound" else None
        self.replaced = dict.fromkeys(self.arrays, 0)
        self.segments = self.values = 0
        self.total = 0.0
        self._read: list[set[str]] = []

    def __call__(self, batch: Batch) -> Batch:
        """Replace, compare, and watch."""
        changed = self.change(batch)
        for name, before in batch.arrays.items():
            if name not in self.arrays and not torch.equal(before, changed.arrays[name]):
                raise AnalysisError(f"{name} changed although it should not", kind="unverified")
        positions = self.bench.resident.positions(batch.segments_B)
        self.segments += len(batch)
        for name in self.arrays:
            before, after = batch.arrays[name], changed.arrays[name]
            differs_B = (before != after).flatten(1).any(dim=1)
            if self.kind == "zero" and bool(after.any()):
                raise AnalysisError(f"{name} is not zero", kind="unverified")
            if self.giver_R is not None:
                self._check_given(name, after, positions)
            elif self.kind == "noise" and self.variant == "sound":
                self._check_noise(name, differs_B, positions)
            self.replaced[name] += int(differs_B.sum())
            self.total += float((before - after).abs().sum())
            self.values += before.numel()
        watched = Watched(changed.arrays)
        self._read.append(watched.read)
        changed.arrays = watched
        return changed

    def summary(self) -> Plain:
        """What was verified; ``replaced``: the share of segments and arrays that changed."""
        read = set.union(*self._read)
        for name, count in self.replaced.items():
            if name not in read:
                raise AnalysisError(
                    f"the model did not read {name}: replacing it shows nothing", kind="unverified"
                )
            if count == 0:
                raise AnalysisError(
                    f"{self.kind} replaced nothing of {name}: it shows nothing", kind="unverified"
                )
        return {
            "arrays": list(self.arrays),
            "read": True,
            "replaced": sum(self.replaced.values()) / (len(self.arrays) * self.segments),
            "mean_change": self.total / max(1, self.values),
        }

    def _givers(self) -> Ints | None:
        """Who gives to every segment: somebody of another recording, but to an odd last one."""
        if self.kind not in ("shuffle", "swap"):
            return None
        giver_R = donors(self.bench) if self.kind == "shuffle" else partners(self.bench)
        recording_R = self.bench.gallery.recording
        own_R = recording_R[giver_R] == recording_R
        alone = 1 if self.kind == "swap" and len(giver_R) % 2 else 0
        if own_R.sum() > alone or (giver_R[own_R] != np.flatnonzero(own_R)).any():
            raise AnalysisError(
                f"{self.kind} gives {int(own_R.sum())} segments values of their own recording",
                kind="unverified",
            )
        return giver_R

    def _check_given(self, name: str, after: Tensor, positions: Ints) -> None:
        assert self.giver_R is not None
        giver_B = self.giver_R[positions]
        held = dict(segment_values(self.bench, name, np.unique(giver_B)))
        expected = np.zeros(after.shape, np.float32)
        for row, (position, giver) in enumerate(zip(positions, giver_B, strict=True)):
            values = held[int(giver)]
            if not self._per_note(name):
                expected[row] = values
            elif len(values):  # in order, from the first again; a segment without notes has a dummy
                notes = max(1, int(self.bench.resident.note_counts[position]))
                expected[row, :notes] = values[np.arange(notes) % len(values)]
        wrong_B = (after.cpu().numpy() != expected).reshape(len(expected), -1).any(axis=1)
        if wrong_B.any():
            raise AnalysisError(
                f"{self.kind} gave {int(wrong_B.sum())} of {len(wrong_B)} segments another {name} "
                f"than their giver's (the first is row {positions[wrong_B][0]})",
                kind="unverified",
            )

    def _check_noise(self, name: str, differs_B: Tensor, positions: Ints) -> None:
        """Noise is unlike anything; only where there are no notes there may be nothing to replace."""
        kept_B = ~differs_B.cpu().numpy()
        if self._per_note(name):
            kept_B &= self.bench.resident.note_counts[positions] > 0
        if kept_B.any():
            raise AnalysisError(
                f"noise left {name} as it was in {int(kept_B.sum())} of {len(kept_B)} segments (the "
                f"first is row {positions[kept_B][0]})",
                kind="unverified",
            )

    def _per_note(self, name: str) -> bool:
        return self.bench.store.arrays[name].axis == "note"
