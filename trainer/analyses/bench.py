"""A run on the bench: its model, a split of a store, embeddings and scores, each made once.

The embeddings of both sides are computed once and kept beside the run; a condition embeds only the
side that it changes. What is kept carries the key of what it was made from (weights, arrays, split)
and is made again where that differs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.base.config import digest
from pipeline.base.files import atomic_write, read_json, sha256_file, write_json
from pipeline.descriptors.contract import Side
from pipeline.store.reader import Store
from trainer.analyses.errors import AnalysisError, Plain, Variant
from trainer.batch import Batch
from trainer.cache import ResidentStore, fingerprints
from trainer.devices import available_memory
from trainer.embed import Change, embed_side, embed_split
from trainer.frozen import keep_tokens
from trainer.layout import MODEL
from trainer.model import RetrievalModel
from trainer.retrieval.compare import Scored
from trainer.retrieval.evaluate import Scores, score_embeddings
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.intervals import resampled_means, resampling_units
from trainer.retrieval.pools import PAPER_SEED, Pools
from trainer.retrieval.protocols import PROTOCOLS
from trainer.run import Run, residents
from trainer.scoring import comparison_of, scored_run

FOLDER = "analyses"
PASSES = 20  # about how often the analyses run the front end over a split

FloatArray = npt.NDArray[np.float32]
PROTOCOL_OF: Mapping[Variant, str] = {"paper": "paper", "sound": "strict"}


class Bench:
    """One run and one split.

    Attributes
    ----------
    run, store, split, device : what is measured, where
    folder : ``analyses/<split>`` of the run; what is found goes there
    trains : whether an analysis may train runs that it needs
    """

    def __init__(
        self,
        run: Run,
        store: Store,
        split: str,
        device: torch.device | str = "cpu",
        report: Callable[[str], None] = lambda text: None,
        *,
        trains: bool = False,
    ) -> None:
        self.trains = trains
        self.run, self.store, self.split = run, store, split
        self.device = torch.device(device)
        self.folder = run.path / FOLDER / split
        self.report = report

    @cached_property
    def model(self) -> RetrievalModel:
        """The run's best model, in evaluation mode."""
        return self.run.load_model(self.device)

    @cached_property
    def resident(self) -> ResidentStore:
        """The split's segments, all of them, as the model reads them."""
        config = self.run.config
        found = residents(
            config, self.model.reads(), self.store, self.split, self.device, training=False
        )
        keep_tokens(self.model, found, PASSES * len(found), available_memory(self.device))
        return found

    def release(self) -> None:
        """Let go of the model and of the split's data; they come back when they are asked for."""
        for name in ("model", "resident"):
            self.__dict__.pop(name, None)

    @cached_property
    def gallery(self) -> Gallery:
        """What retrieval knows of the split."""
        return Gallery.from_store(self.store, self.split)

    @cached_property
    def key(self) -> str:
        """Changes with the weights, the configuration, the arrays that are read, and the split."""
        return digest(
            {
                "run": self.run.signature,
                "model": sha256_file(self.run.path / MODEL),
                "reads": fingerprints(self.store, self.model.reads()),
                "split": self.split,
            }
        )

    @cached_property
    def embeddings(self) -> dict[Side, FloatArray]:
        """Both sides of every segment, nothing changed: float32 [n, 256] each."""
        files: dict[Side, Path] = {
            "audio": self.folder / "audio.npy",
            "midi": self.folder / "midi.npy",
        }
        record = self.folder / "embeddings.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, EOFError):
            sums: dict[Side, str] = {side: sha256_file(file) for side, file in files.items()}
            if read_json(record) == {"key": self.key, "sha256": sums}:
                kept = {side: np.load(file, allow_pickle=False) for side, file in files.items()}
                if all(
                    x.shape == kept["audio"].shape
                    and len(x) == len(self.gallery)
                    and np.isfinite(x).all()
                    for x in kept.values()
                ):
                    return kept
        self.report(f"embedding {len(self.gallery):,} segments")
        audio, midi = embed_split(self.model, self.resident)
        record.unlink(missing_ok=True)
        made: dict[Side, FloatArray] = {"audio": audio, "midi": midi}
        for side, file in files.items():
            with atomic_write(file) as handle:
                np.save(handle, made[side], allow_pickle=False)
        sums = {side: sha256_file(file) for side, file in files.items()}
        write_json(record, {"key": self.key, "sha256": sums})
        return made

    def scored(self, protocol: str, seed: int | None = None) -> Scored:
        """The run's evaluation of the split, made from the kept embeddings where it is not there."""
        return scored_run(
            self.run,
            self.store,
            self.split,
            protocol,
            seed=seed,
            embedded=lambda: (self.embeddings["audio"], self.embeddings["midi"]),
        )

    def changed(self, side: Side, change: Change) -> dict[Side, FloatArray]:
        """Embeddings of which one side saw changed batches; the other is the kept one."""
        return {**self.embeddings, side: embed_side(self.model, self.resident, side, change)}

    def scores(self, embeddings: Mapping[Side, FloatArray], variant: Variant) -> Scores:
        """Scores of embeddings: the paper's pools of seed 42, or the strict ones."""
        return score_embeddings(
            embeddings["audio"],
            embeddings["midi"],
            self.gallery,
            PROTOCOL_OF[variant],
            pools=self.pools(variant),
            full=False,
            comparison=comparison_of(self.run.config),
        )

    def pools(self, variant: Variant) -> Pools:
        """The protocol's pools of this split, made once."""
        if variant not in self._pools:
            protocol = PROTOCOLS.get(PROTOCOL_OF[variant])
            seed = PAPER_SEED if protocol.seeded else None
            size = self.run.config.evaluation.pool_size
            self._pools[variant] = protocol.pools(self.gallery, seed, size)
        return self._pools[variant]

    @cached_property
    def _pools(self) -> dict[Variant, Pools]:
        return {}

    def baseline(self, variant: Variant) -> Scores:
        """Scores of the unchanged embeddings."""
        if variant not in self._baselines:
            self._baselines[variant] = self.scores(self.embeddings, variant)
        return self._baselines[variant]

    @cached_property
    def _baselines(self) -> dict[Variant, Scores]:
        return {}

    def effect(self, embeddings: Mapping[Side, FloatArray], variant: Variant) -> Plain:
        """Scores under a condition, and how far they are from the unchanged ones.

        Returns
        -------
        What :meth:`beside` returns, and ``moved``: per side the mean change of the normalised
        embeddings.
        """
        scores = self.scores(embeddings, variant)
        found = self.beside(scores, self.baseline(variant))
        moved = {side: self._moved(side, values) for side, values in embeddings.items()}
        return {**found, "moved": moved}

    def beside(self, scores: Scores, before: Scores) -> Plain:
        """Scores of a condition, and their difference to others of the same queries.

        Returns
        -------
        ``S, a2m{R@1, R@10}, m2a{…}, difference`` of S and its ``ci95``, the same recordings drawn for
        both (``ci_kind``: or 10-s blocks of them); None where there is nothing to draw from.
        """
        units, kind = resampling_units(self.gallery, scores.pools.queries)
        hits = [np.column_stack([s.a2m < 10, s.m2a < 10]).astype(float) for s in (before, scores)]
        interval = None
        if units.max() >= 1:
            drawn = [resampled_means(h, units).min(axis=1) for h in hits]
            low, high = np.quantile(drawn[1] - drawn[0], [0.025, 0.975])
            interval = [float(low), float(high)]
        s = [float(h.mean(axis=0).min()) for h in hits]
        return {
            "S": s[1],
            **{
                name: {f"R@{k}": float(np.mean(ranks < k)) for k in (1, 10)}
                for name, ranks in (("a2m", scores.a2m), ("m2a", scores.m2a))
            },
            "difference": s[1] - s[0],
            "ci95": interval,
            "ci_kind": kind,
        }

    def _moved(self, side: Side, values: FloatArray) -> float:
        before = self.embeddings[side]
        if values is before:
            return 0.0
        return float(np.linalg.norm(normalised(values) - normalised(before), axis=1).mean())

    def batches(self, positions: npt.NDArray[np.int64], size: int | None = None) -> Iterator[Batch]:
        """Batches of chosen resident segments, of the run's own evaluation size unless given."""
        size = size or self.run.config.evaluation.batch_size
        for at in range(0, len(positions), size):
            yield self.resident.batch(positions[at : at + size])

    def apart(self, least: int, most: int, why: str) -> npt.NDArray[np.int64]:
        """Rows of valid segments that do not overlap, as many of every recording as may be: [m].

        Raises
        ------
        AnalysisError
            (kind ``too-few``) below ``least`` of them.
        """
        queues = []
        for recording in np.unique(self.gallery.recording):
            rows = np.flatnonzero((self.gallery.recording == recording) & self.gallery.valid)
            chosen: list[int] = []
            for row in rows:
                if (
                    not chosen
                    or self.gallery.start_s[row] - self.gallery.start_s[chosen[-1]] >= 4.0
                ):
                    chosen.append(int(row))
            queues.append(chosen)
        turns = max(map(len, queues), default=0)
        taken = [q[i] for i in range(turns) for q in queues if i < len(q)][:most]
        if len(taken) < least:
            raise AnalysisError(
                f"{why} needs at least {least} segments that do not overlap; the split "
                f"'{self.split}' of {self.store.name} has {len(taken)}",
                kind="too-few",
            )
        return np.sort(np.array(taken, np.int64))


def normalised(embeddings: FloatArray) -> FloatArray:
    """Rows of length 1; zero rows stay zero."""
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    found: FloatArray = embeddings / np.maximum(length, 1e-12)
    return found


class Watched(dict[str, Tensor]):
    """A batch's arrays that remember which of them were read."""

    def __init__(self, arrays: Mapping[str, Tensor]) -> None:
        super().__init__(arrays)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


def as_plain(value: Any) -> Any:
    """NumPy scalars and arrays as Python's own."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
