"""What turns windows of sound and of notes into vectors that can be compared: a model, or a baseline.

Vectors are divided by their norm: the likeness of two is their dot product, or the best of several at
small lags (:mod:`trainer.retrieval.lags`).

sketch of a baseline
    Features of a baseline are thousands of numbers a segment, sharp to a frame (21 ms); windows of a
    query lie up to an eighth of a second beside the segments of a store. So each row of the picture
    (a pitch, a pitch class) is seen through 24 triangles over the four seconds, half width 12 frames
    (256 ms); half of its mean over time is taken away, so that what sounds all the time says less than
    when it sounds; and the picture is projected onto 512 directions of random signs (Johnson and
    Lindenstrauss 1984; the signs from a hash, the same everywhere).
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.base.config import digest
from pipeline.base.errors import UsageError
from pipeline.base.files import sha256_file
from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Notes, Side
from pipeline.spectral import N_FRAMES, Spectrum, Workspace
from pipeline.store.reader import Store
from trainer.devices import autocast, matmul_precision
from trainer.embed import embed_split
from trainer.layout import MODEL
from trainer.retrieval.baselines import BASELINES, segments_of
from trainer.retrieval.gallery import RetrievalError
from trainer.retrieval.hashing import splitmix64
from trainer.retrieval.lags import COSINE, Comparison
from trainer.run import Run, open_run, residents
from trainer.scoring import comparison_of
from trainer.search.queries import FULL_SCALE, SILENCE, Query
from trainer.windows import note_batch, sound_batch

SLOTS = 24
HALF_WIDTH = 12.0  # frames
STEADY = 0.5  # share of a row's mean over time that is taken away
DIRECTIONS = 512
SKETCH_VERSION = 1
BATCH = 64

FloatArray = npt.NDArray[np.float32]


class Embedder(abc.ABC):
    """Windows → unit vectors of one width, whichever side they come from.

    Attributes
    ----------
    name : for people
    width : of the vectors
    identity : plain data that says which vectors these are; equal where they may be compared
    comparison : how two of them are compared: windows of a query lie beside segments, so a model whose
        embeddings are sharp in time compares at lags
    """

    name: str
    width: int
    identity: dict[str, Any]
    comparison: Comparison = COSINE

    def windows(self, side: Side, windows: Any) -> FloatArray:
        """Unit vectors float32 [B, width] of a query's windows; a zero row where nothing is heard."""
        embed: Any = {"audio": self._sound, "midi": self._notes}[side]
        parts = [embed(windows[at : at + BATCH]) for at in range(0, len(windows), BATCH)]
        return unit(np.concatenate(parts)) if parts else np.empty((0, self.width), np.float32)

    def of_query(self, query: Query, start_s: npt.ArrayLike, tempo: float = 1.0) -> FloatArray:
        """:meth:`windows` of those that begin at ``start_s`` [W]: float32 [W, width].

        Memory does not grow with their number: a batch of windows is made at a time.
        """
        starts = np.asarray(start_s, np.float64)
        parts = [
            self.windows(query.side, query.windows(starts[at : at + BATCH], tempo))
            for at in range(0, len(starts), BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.width), np.float32)

    @abc.abstractmethod
    def segments(self, store: Store, rows: npt.NDArray[np.int64]) -> dict[Side, FloatArray]:
        """Unit vectors of segments of a store, both sides: float32 [len(rows), width] each."""

    @abc.abstractmethod
    def _sound(self, windows: FloatArray) -> FloatArray: ...

    @abc.abstractmethod
    def _notes(self, windows: Sequence[Notes]) -> FloatArray: ...


class ModelEmbedder(Embedder):
    """The embeddings of a trained model.

    Raises
    ------
    UsageError
        when the model cannot embed a file by itself: it is given its mate's descriptor, or a control
        stands for its descriptors.
    """

    def __init__(self, run: Run, device: torch.device | str = "cpu") -> None:
        if run.leaks:
            raise UsageError(
                f"{run.path}: this arm is given the item that it is asked to find; it cannot search"
            )
        if run.config.control.name != "real":
            raise UsageError(
                f"{run.path}: a control ({run.config.control.name}) stands for this run's "
                "descriptors; search with the arm itself"
            )
        self.run, self.device = run, torch.device(device)
        self.model = run.load_model(self.device)
        self.name, self.width = run.path.resolve().name, run.config.head.embedding
        self.comparison = comparison_of(run.config)
        arrays = [DESCRIPTORS.get(n) for n in self.model.reads() if n != "audio"]
        self.identity = {
            "kind": "model",
            "weights": sha256_file(run.path / MODEL),
            "config": digest(run.config),
            "reads": {descriptor.name: digest(descriptor.definition()) for descriptor in arrays},
        }

    def segments(self, store: Store, rows: npt.NDArray[np.int64]) -> dict[Side, FloatArray]:
        """As evaluations embed them."""
        resident = residents(
            self.run.config, self.model.reads(), store, "", self.device, training=False, rows=rows
        )
        audio, midi = embed_split(self.model, resident)
        return {"audio": unit(audio), "midi": unit(midi)}

    @torch.no_grad()
    def _sound(self, windows: FloatArray) -> FloatArray:
        batch = sound_batch(windows, self.model.reads()).to(self.device)
        found = self._computed(lambda: self.model.embed_audio(batch))
        found[silent(windows)] = 0.0  # all silences are alike
        return found

    @torch.no_grad()
    def _notes(self, windows: Sequence[Notes]) -> FloatArray:
        missing = self.run.config.mechanisms.key_padding == "missing"
        padding: Any = "longest" if missing else "buckets"
        batch = note_batch(windows, self.model.reads(), padding).to(self.device)
        found = self._computed(lambda: self.model.embed_midi(batch))
        found[[not len(notes) for notes in windows]] = 0.0  # the dummy note is nobody's
        return found

    def _computed(self, encode: Any) -> FloatArray:
        precision = self.run.config.precision
        with matmul_precision(precision), autocast(precision, self.device):
            found = np.asarray(encode().float().cpu().numpy())
        if not np.isfinite(found).all():
            raise RetrievalError(
                f"{self.name}: embeddings hold NaN or infinity; the model diverged",
                kind="not-finite",
            )
        return found


class BaselineEmbedder(Embedder):
    """Sketches of a training-free baseline's features (see the module).

    Raises
    ------
    UsageError
        for baselines without a picture over time, and those that do not compare by cosine.
    """

    def __init__(self, name: str) -> None:
        self.baseline = BASELINES.get(name)
        if not self.baseline.searchable:
            able = ", ".join(n for n, b in BASELINES.items() if b.searchable)
            raise UsageError(f"the baseline '{name}' cannot be indexed; those that can: {able}")
        self.name = name
        self.rows = self.baseline.width // N_FRAMES
        self.width = min(DIRECTIONS, self.rows * SLOTS)
        self.identity = {
            "kind": "baseline",
            "baseline": name,
            "version": self.baseline.version,
            "sketch": SKETCH_VERSION,
        }

    def segments(self, store: Store, rows: npt.NDArray[np.int64]) -> dict[Side, FloatArray]:
        """Sound and notes as the store holds them."""
        pictures: dict[Side, list[FloatArray]] = {"audio": [], "midi": []}
        found: dict[Side, list[FloatArray]] = {"audio": [], "midi": []}
        workspace = Workspace()
        for at, samples, notes in segments_of(store, rows):
            pictures["audio"].append(self._seen(self._heard(samples, workspace)))
            pictures["midi"].append(self._seen(self.baseline.midi_features(notes)))
            if len(pictures["midi"]) == BATCH or at == len(rows) - 1:
                for side, each in pictures.items():
                    found[side].append(self._sketch(np.stack(each)))
                    each.clear()
        return {side: unit(np.concatenate(parts)) for side, parts in found.items()}

    def _sound(self, windows: FloatArray) -> FloatArray:
        workspace = Workspace()
        found = self._sketch(np.stack([self._seen(self._heard(s, workspace)) for s in windows]))
        found[silent(windows)] = 0.0
        return found

    def _notes(self, windows: Sequence[Notes]) -> FloatArray:
        features = [self._seen(self.baseline.midi_features(notes)) for notes in windows]
        return self._sketch(np.stack(features))

    def _heard(self, samples: FloatArray, workspace: Workspace) -> FloatArray:
        return self.baseline.audio_features(Spectrum(samples, workspace))

    def _seen(self, features: FloatArray) -> FloatArray:
        """Rows × slots of one segment, float32 [rows * 24]."""
        rows = self.baseline.over_time(features) @ _triangles()
        rows -= STEADY * rows.mean(axis=1, keepdims=True)
        return rows.reshape(-1)

    def _sketch(self, pictures: FloatArray) -> FloatArray:
        if pictures.shape[1] <= DIRECTIONS:
            return pictures
        return pictures @ _signs(pictures.shape[1])


def silent(windows: FloatArray) -> npt.NDArray[np.bool_]:
    """Which windows [B, 96000] hold no sound."""
    return np.abs(windows).max(axis=1) < SILENCE / FULL_SCALE


def unit(vectors: npt.NDArray[Any]) -> FloatArray:
    """Rows divided by their norms; rows of zeros stay: float32 [n, d]."""
    rows = vectors.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 1e-9)


@cache
def _triangles() -> FloatArray:
    """float32 [188, 24]."""
    centre = (np.arange(SLOTS) + 0.5) * N_FRAMES / SLOTS - 0.5
    apart = np.abs(np.arange(N_FRAMES)[:, None] - centre[None])
    return np.clip(1 - apart / HALF_WIDTH, 0, None).astype(np.float32)


@cache
def _signs(width: int) -> FloatArray:
    """±1 / sqrt(512), float32 [width, 512]."""
    hashes = splitmix64(np.arange(width * DIRECTIONS, dtype=np.uint64))
    signs = 1.0 - 2.0 * (hashes >> np.uint64(63)).astype(np.float32)
    return signs.reshape(width, DIRECTIONS) / np.float32(np.sqrt(DIRECTIONS))


def embedder_of(run: Path | None, baseline: str | None, device: torch.device | str) -> Embedder:
    """The embedder that a user named: a run's or an exported model's folder, or a baseline."""
    if (run is None) == (baseline is None):
        raise UsageError("give either --run DIR or --baseline NAME")
    return (
        ModelEmbedder(open_run(run), device) if run is not None else BaselineEmbedder(str(baseline))
    )
