"""Run folders: ``runs/<arm>-<hash12>/``, as they lie on the disk; exported models open like runs.

``run.json`` holds the resolved configuration, what was read, versions, status. The hash is over the
whole configuration and the fingerprints of the arrays that the run reads: the same signature is the
same folder, so repeating a command goes on where it stopped, or finds the run finished.

A folder that ``xmodal-export`` wrote (:mod:`trainer.export`) has ``config.json`` instead: the finished
run's record, but for where its store and the run that it started from were.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.base.config import from_plain, to_plain
from pipeline.base.errors import ConfigError, RunError
from pipeline.base.files import read_json, sha256_file
from pipeline.descriptors import DESCRIPTORS
from pipeline.store.reader import Store
from trainer.cache import NotePadding, ResidentStore
from trainer.checkpoint import load_weights
from trainer.config import RunConfig
from trainer.controls import CONTROLS, Real
from trainer.layout import CHECKPOINTS, EVALUATION, FINISHED, METRICS, MODEL, RUN_FILE
from trainer.model import RetrievalModel, build_model

EXPORT_FILE = "config.json"
EXPORT_KIND, EXPORT_SCHEMA = "xmodal-model", 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """An existing run folder, or the folder of an exported model."""

    path: Path
    config: RunConfig
    record: dict[str, Any]

    @property
    def signature(self) -> str:
        """Twelve hexadecimal digits."""
        return str(self.record["signature"])

    @property
    def finished(self) -> bool:
        """Whether training went to its end."""
        return bool(self.record["status"] == FINISHED)

    @property
    def whole(self) -> bool:
        """Whether the model's file is there, and is the one that training left (once finished)."""
        file = self.path / MODEL
        wanted = self.record.get("model_sha256")
        return file.exists() and wanted in (None, sha256_file(file))

    @property
    def leaks(self) -> bool:
        """Whether its embeddings know the item that they are asked to find."""
        return bool(self.record.get("leaks", False))

    @property
    def exported(self) -> bool:
        """Whether the folder is that of an exported model."""
        return self.record.get("kind") == EXPORT_KIND

    @property
    def store_path(self) -> Path | None:
        """Where its store was when it was trained; an exported model does not know."""
        return None if self.exported else Path(self.record["store"]["path"])

    def load_model(self, device: torch.device | str = "cpu") -> RetrievalModel:
        """The best model, built from the run's own configuration, loaded strictly, in eval mode."""
        if not (self.path / MODEL).exists():
            mend = "export it again" if self.exported else "repeat its xmodal-train command"
            raise RunError(f"{self.path} has no {MODEL}{'' if self.exported else ' yet'}; {mend}")
        if not self.whole:
            raise RunError(
                f"{self.path / MODEL} is not the one that was exported; export it again"
                if self.exported
                else f"{self.path / MODEL} was changed after training; repeat the run's xmodal-train "
                "command, which restores it from the checkpoint",
                kind="weights",
            )
        model = build_model(self.config)
        load_strictly(model, load_weights(self.path / MODEL), self.path)
        return model.to(device).eval()


def open_run(path: Path) -> Run:
    """Open a run folder, or one that ``xmodal-export`` wrote.

    Raises
    ------
    RunError
        when it is neither, or its record does not read.
    """
    exported = not (path / RUN_FILE).exists() and (path / EXPORT_FILE).exists()
    name = EXPORT_FILE if exported else RUN_FILE
    try:
        record = read_json(path / name)
        if exported:
            _check_exported(record, path)
        else:
            Path(record["store"]["path"])
        config = from_plain(RunConfig, record["config"])
        str(record["signature"]), record["status"], record["arm"], record["store"]["name"]
        record["reads"]["store"]
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            f"{path} is not a run: it has no {RUN_FILE}, and no {EXPORT_FILE} of an exported model"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        again = "export it again" if exported else "train again with --overwrite"
        raise RunError(
            f"{path}/{name} does not read ({type(error).__name__}: {error}); put it back from a "
            f"copy, or {again}"
        ) from None
    return Run(path=path, config=config, record=record)


def _check_exported(record: Any, path: Path) -> None:
    if not isinstance(record, dict) or record.get("kind") != EXPORT_KIND:
        raise RunError(
            f"{path} is not a run: it has no {RUN_FILE}, and its {EXPORT_FILE} is not that of an "
            "exported model"
        )
    if record["schema"] != EXPORT_SCHEMA:
        raise ValueError(f"schema {record['schema']}, not {EXPORT_SCHEMA}")
    str(record["model_sha256"]), record["parameters"]["total"], record["init"], record["beginning"]


def beginning(run: Run) -> Any:
    """What a run started from, its seed left out; the name of its folder where that is gone."""
    if run.record.get("init") is None:
        return None
    if "beginning" in run.record:
        return run.record["beginning"]
    init = Path(run.record["init"])
    try:
        first = open_run(init)
    except RunError:
        return init.name
    plain = to_plain(first.config)
    plain.pop("seed")
    return {"config": plain, "init": beginning(first)}


def residents(
    config: RunConfig,
    reads: Sequence[str],
    store: Store,
    split: str,
    device: torch.device,
    *,
    training: bool,
    rows: npt.NDArray[np.int64] | None = None,
) -> ResidentStore:
    """One split for training (the configured segments) or for embedding (every row).

    ``reads``: the arrays that the run's model wants of a batch. ``rows``: these segments, whichever
    their split is.
    """
    padding: dict[str, NotePadding] = {"missing": "longest", "present": "buckets"}
    found = ResidentStore(
        store,
        split,
        reads,
        device,
        segments=config.segments if training else "all",
        note_padding=padding[config.mechanisms.key_padding],
        rows=rows,
    )
    kind = CONTROLS.get(config.control.name)
    if kind is not Real:
        options: Any = from_plain(kind.Options, config.control.options, "control.options")
        arrays = [n for n in reads if n != "audio" and DESCRIPTORS.get(n).role == "descriptor"]
        found.replace = kind(options, arrays, store, config.seed).values
    return found


def load_strictly(model: RetrievalModel, weights: dict[str, Tensor], source: Path) -> None:
    """Load weights that must fit exactly; a :class:`RunError` names the first misfit."""
    own = model.state_dict()
    for name in sorted(own.keys() ^ weights.keys()):
        where = "the model lacks" if name in weights else "the weights lack"
        raise RunError(f"weights of {source} do not fit: {where} {name}", kind="weights")
    for name, tensor in own.items():
        if tensor.shape != weights[name].shape:
            found = f"{list(weights[name].shape)}, not {list(tensor.shape)}"
            raise RunError(f"weights of {source} do not fit: {name} is {found}", kind="weights")
    model.load_state_dict(weights, strict=True)


def clear_run(folder: Path) -> None:
    """Delete a run's results, its lock left alone."""
    # In this order: a kill in between leaves nothing that would be gone on with wrongly.
    (folder / RUN_FILE).unlink(missing_ok=True)
    for name in (CHECKPOINTS, EVALUATION):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (METRICS, MODEL):
        (folder / name).unlink(missing_ok=True)
