"""For tests of the trainer: a small random store in memory (the surface of
``pipeline.store.reader.Store``), and configurations with overrides."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.config import from_plain, merge, to_plain
from pipeline.base.errors import StoreError
from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Notes
from trainer.arms import arm_pairs
from trainer.config import RunConfig
from trainer.presets import preset_config
from trainer.resolve import with_pairs


@dataclasses.dataclass
class FakeInfo:
    axis: str
    shape: tuple[int, ...]
    dtype: str
    fingerprint: str


class FakeStore:
    """``n`` segments of 4 s with hop 1 s in recordings of 10, random sound and notes.

    Every seventh segment is empty (no notes, not valid). Recordings go train, train, validation.
    """

    def __init__(self, n: int = 60, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        per = 10
        self.path, self.identity = Path("fake-store"), "fake-identity"
        self.grouping, self.name = "fake-grouping", "fake-store"
        row = np.arange(n)
        recording = (row // per).astype(np.int32)
        counts = rng.integers(1, 40, n).astype(np.int32)
        counts[::7] = 0
        starts = np.cumsum(counts) - counts
        splits = np.array(["train", "train", "validation"], object)[recording % 3]
        self.segments = types.SimpleNamespace(
            recording=recording,
            split=splits,
            start_s=(row % per).astype(np.float64),
            audio_start=(recording * (per + 3) + row % per).astype(np.int64) * 24_000,
            note_start=starts.astype(np.int64),
            note_count=counts,
            valid=counts > 0,
        )
        names = np.arange(int(recording[-1]) + 1)
        self.recordings = types.SimpleNamespace(
            key=np.array([f"recording {r}" for r in names], object),
            composer=np.array([f"composer {r % 2}" for r in names], object),
            composition=np.array([f"work {r}" for r in names], object),
        )
        total = int(counts.sum())
        onset = np.concatenate([np.sort(rng.uniform(-0.5, 4, c)) for c in counts])
        self._notes = Notes(
            pitch=rng.integers(21, 109, total).astype(np.uint8),
            velocity=rng.integers(1, 128, total).astype(np.uint8),
            duration_bucket=rng.integers(0, 32, total).astype(np.uint8),
            onset_s=onset.astype(np.float32),
            duration_s=rng.uniform(0.05, 4, total).astype(np.float32),
        )
        samples = (int(recording[-1]) + 1) * (per + 3) * 24_000
        self._arrays: dict[str, np.ndarray] = {
            "audio": rng.integers(-20_000, 20_000, samples).astype(np.int16),
            "mel": rng.uniform(0, 2, (n, 188, 96)).astype(np.float16),
        }
        axes = {"audio": "sample", "mel": "frame"}
        rows = {"frame": (n, 188), "segment": (n,), "note": (total,)}
        for name, descriptor in DESCRIPTORS.items():
            if descriptor.role == "descriptor":
                shape = (*rows[descriptor.axis], descriptor.width)
                self._arrays[name] = rng.normal(size=shape).astype(np.float16)
                axes[name] = descriptor.axis
        self.arrays = {
            k: FakeInfo(axes[k], v.shape, str(v.dtype), f"fingerprint-{k}")
            for k, v in self._arrays.items()
        }

    def require(self, names: Any) -> None:
        missing = [n for n in names if n not in self.arrays]
        if missing:
            raise StoreError(f"no array {missing}", kind="no-array")

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self._arrays[name][start:stop].copy()

    def notes(self, start: int = 0, stop: int | None = None) -> Notes:
        return self._notes.rows(start, len(self._notes) if stop is None else stop)


def run_config(
    preset: str, arm: str | tuple[Any, ...], *, size: str = "tiny", **over: Any
) -> RunConfig:
    """The resolved configuration of a named arm, or of pairs, with nested overrides."""
    plain = merge(to_plain(preset_config(preset, size)), over)
    pairs = arm_pairs(arm) if isinstance(arm, str) else arm
    return with_pairs(from_plain(RunConfig, plain), pairs)


def unvaried(preset: str) -> dict[str, Any]:
    """Overrides under which training sees every segment as the store has it, but for dropout."""
    recorder = {"level_db": 0.0, "colour_db": 0.0, "noise": 0.0}
    return {
        "audio": {"frontend": {"options": recorder if preset == "sound" else {}}},
        "midi": {"touch": 1.0, "clock_s": 0.0},
    }
