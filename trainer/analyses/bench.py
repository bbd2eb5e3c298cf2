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
from trainer.analyses.subject import PROTOCOL_OF, FloatArray, Subject
from trainer.batch import Batch
from trainer.cache import ResidentStore, fingerprints
from trainer.devices import available_memory
from trainer.embed import Change, embed_side, embed_split
from trainer.frozen import keep_tokens
from trainer.layout import MODEL
from trainer.model import RetrievalModel
from trainer.retrieval.compare import Scored
from trainer.retrieval.evaluate import Scores, score_embeddings
from trainer.retrieval.pools import Pools
from trainer.run import Run, residents
from trainer.scoring import comparison_of, scored_run

FOLDER = "analyses"
PASSES = 20  # about how often the analyses run the front end over a split


class Bench(Subject):
    """One run and one split.

    Attributes
    ----------
    run, device : what is measured, where
    folder : ``analyses/<split>`` of the run
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
        super().__init__(store, split, run.path / FOLDER / split, report)
        self.run, self.trains = run, trains
        self.device = torch.device(device)

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

    @property
    def pool_size(self) -> int:
        """The run's own."""
        return self.run.config.evaluation.pool_size

    def about(self) -> Plain:
        """The run's."""
        return {
            "run": self.run.path.name,
            "arm": self.run.record["arm"],
            "seed": self.run.config.seed,
            "leaks": self.run.leaks,
        }

    def release(self) -> None:
        """Let go of the model and of the split's data; they come back when they are asked for."""
        for name in ("model", "resident"):
            self.__dict__.pop(name, None)

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

    def scores(
        self, embeddings: Mapping[Side, FloatArray], variant: Variant, pools: Pools | None = None
    ) -> Scores:
        """Scores of embeddings: the paper's pools of seed 42, or the strict ones, or those given."""
        return score_embeddings(
            embeddings["audio"],
            embeddings["midi"],
            self.gallery,
            PROTOCOL_OF[variant],
            pools=self.pools(variant) if pools is None else pools,
            full=False,
            comparison=comparison_of(self.run.config),
        )

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
