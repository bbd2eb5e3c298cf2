"""Run folders: ``runs/<arm>-<hash12>/``, and training one.

``run.json`` holds the resolved configuration, what was read, versions, status. The hash is over the
whole configuration and the fingerprints of the arrays that the run reads: the same signature is the
same folder, so repeating a command goes on where it stopped, or finds the run finished.
"""

from __future__ import annotations

import dataclasses
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.base.config import from_plain, to_plain
from pipeline.base.errors import ConfigError, Interrupted, RunError, XmodalError
from pipeline.base.files import FolderLock, read_json, sha256_file, sweep_temporaries, write_json
from pipeline.store.reader import Store
from trainer import parallel
from trainer.arms import arm_name
from trainer.cache import NotePadding, ResidentStore, fingerprints
from trainer.checkpoint import MODEL, load_weights
from trainer.config import RunConfig, signature
from trainer.devices import deterministic, memory_errors_are_told, pick_device
from trainer.embed import embed_split
from trainer.estimate import check_memory, estimate
from trainer.fit import CHECKPOINTS, METRICS, FitResult, Report, fit
from trainer.frozen import keep_tokens
from trainer.metrics_log import TensorBoardLog, require_tensorboard
from trainer.model import RetrievalModel, build_model, parameter_inventory
from trainer.optim import build_optimizer
from trainer.parallel import Processes
from trainer.resolve import resolve
from trainer.schedules import update_multiplier

RUN_FILE = "run.json"
EVALUATION = "evaluation"
FINISHED = "trained"

FloatArray = npt.NDArray[np.float32]
Score = Callable[[FloatArray, FloatArray, ResidentStore], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """One training, as the command line asks for it.

    Attributes
    ----------
    config : resolved or not (it is resolved again); everything the result depends on
    store : folder of the store
    out : folder that the run's folder is made in
    overwrite : delete an existing run of this signature first (default: go on with it)
    init : folder of a finished run whose encoders and heads this one starts from
    """

    config: RunConfig
    store: Path
    out: Path = Path("runs")
    device: str = "auto"
    overwrite: bool = False
    deterministic: bool = False
    compiled: bool = False
    tensorboard: bool = False
    init: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """An existing run folder."""

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
    def store_path(self) -> Path:
        """Where its store was when it was trained."""
        return Path(self.record["store"]["path"])

    def load_model(self, device: torch.device | str = "cpu") -> RetrievalModel:
        """The best model, built from the run's own configuration, loaded strictly, in eval mode."""
        if not (self.path / MODEL).exists():
            raise RunError(
                f"the run {self.path} has no {MODEL} yet; repeat its xmodal-train command"
            )
        if not self.whole:
            raise RunError(
                f"{self.path / MODEL} was changed after training; repeat the run's xmodal-train "
                "command, which restores it from the checkpoint",
                kind="weights",
            )
        model = build_model(self.config)
        load_strictly(model, load_weights(self.path / MODEL), self.path)
        return model.to(device).eval()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a request comes to, before anything is trained (also for ``--dry-run``)."""

    config: RunConfig
    arm: str
    signature: str
    folder: Path
    reads: tuple[str, ...]
    fingerprints: dict[str, str]
    parameters: int
    trainable: int
    leaks: bool


def plan_run(request: RunRequest, init: str | None = None) -> Plan:
    """Resolve and check a request against its store, allocating no model.

    ``init``: signature of a run that does not exist yet, to start from (recipes).
    """
    config = resolve(request.config)
    model = _buildable(config)
    store = Store.open(request.store)
    reads = fingerprints(store, model.reads())
    if request.init is not None:
        init = _finished_run(request.init).signature
    sign = signature(config, reads, init)
    arm = arm_name(config.pairs)
    total = parameter_inventory(model)[-1]
    return Plan(
        config=config,
        arm=arm,
        signature=sign,
        folder=request.out / f"{arm}-{sign}",
        reads=model.reads(),
        fingerprints=reads,
        parameters=total.total,
        trainable=total.trainable,
        leaks=any(m.leaks for m in model.every_mechanism()),
    )


def train(request: RunRequest, score: Score, report: Report = lambda event: None) -> Run:
    """Train a run to its end, or go on with it; a finished one is returned as it is.

    Parameters
    ----------
    score : ``score(audio, midi, resident)`` of validation embeddings ``[n, 256]``, all segments in
        store order (``resident.rows``), returns at least ``S`` of protocol ``strict``
    report : receives progress events (see :func:`trainer.fit.fit`)

    Raises
    ------
    ConfigError, StoreError, RunError
        before the first step wherever possible.
    Interrupted
        after a signal; repeating the request goes on.
    """
    plan = plan_run(request)
    processes, device = parallel.join(pick_device(request.device))
    folder = plan.folder
    if not processes.first:
        if processes.tell():
            room = _room(request, plan, device, processes)
            _train(request, plan, device, score, report, processes, room)
            processes.tell()
        return open_run(folder)
    with FolderLock(folder):
        if request.overwrite:
            clear_run(folder)
        existing = open_run(folder) if (folder / RUN_FILE).exists() else None
        if existing is not None and existing.signature != plan.signature:
            raise RunError(
                f"{folder} holds a run of another configuration; use --overwrite to replace it"
            )
        if existing is not None:
            _check_built_alike(existing, plan)
        if existing is not None and existing.finished and existing.whole:
            report({"event": "finished", "message": f"{folder} is trained already"})
            processes.tell(False)
            return existing
        if existing is not None and existing.record.get("processes", 1) != processes.count:
            before = existing.record.get("processes", 1)
            text = (
                f"begun by {before} processes, gone on with by {processes.count}: dropout differs"
            )
            report({"event": "warning", "message": text})
        if request.tensorboard:
            require_tensorboard()
        sweep_temporaries(folder)
        room = _room(request, plan, device, processes)
        record = _record(request, plan, device, existing, processes)
        write_json(folder / RUN_FILE, record)
        processes.tell(True)
        try:
            outcome = _outcome(_train(request, plan, device, score, report, processes, room))
        except Interrupted:
            write_json(folder / RUN_FILE, {**record, "status": "interrupted"})
            raise
        except XmodalError as error:
            failure = {"status": "failed", "failure": {"kind": error.kind, "message": str(error)}}
            write_json(folder / RUN_FILE, {**record, **failure})
            raise
        # What was scored before the end belongs to another model than the run's.
        shutil.rmtree(folder / EVALUATION, ignore_errors=True)
        outcome["model_sha256"] = sha256_file(folder / MODEL)
        write_json(folder / RUN_FILE, {**record, **outcome, "status": FINISHED})
    processes.tell(True)
    return open_run(folder)


def open_run(path: Path) -> Run:
    """Open a run folder.

    Raises
    ------
    RunError
        when it is not one, or its record does not read.
    """
    try:
        record = read_json(path / RUN_FILE)
        config = from_plain(RunConfig, record["config"])
        str(record["signature"]), record["status"], Path(record["store"]["path"])
        record["reads"]["store"]
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{path} is not a run: it has no {RUN_FILE}") from None
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise RunError(
            f"{path}/{RUN_FILE} does not read ({type(error).__name__}: {error}); put it back from a "
            "copy, or train again with --overwrite"
        ) from None
    return Run(path=path, config=config, record=record)


def residents(
    config: RunConfig, store: Store, split: str, device: torch.device, *, training: bool
) -> ResidentStore:
    """One split for training (the configured segments) or for embedding (every row)."""
    padding: dict[str, NotePadding] = {"missing": "longest", "present": "buckets"}
    return ResidentStore(
        store,
        split,
        build_model(config, "meta").reads(),
        device,
        segments=config.segments if training else "all",
        note_padding=padding[config.mechanisms.key_padding],
    )


def initial_model(config: RunConfig, init: Path | None) -> RetrievalModel:
    """The model before step 1: seeded, with another run's encoders and heads if ``init`` is given.

    The arm's mechanisms and the loss always start fresh.
    """
    model = build_model(config)
    if init is None:
        return model
    own = model.state_dict()
    fresh = ("mechanisms.", "loss.")
    given = open_run(init).load_model().state_dict()
    base = {k: v for k, v in given.items() if not k.startswith(fresh)}
    kept = {k: v for k, v in own.items() if k.startswith(fresh)}
    load_strictly(model, base | kept, init)
    model.adopt_heads()
    return model


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


def _train(
    request: RunRequest,
    plan: Plan,
    device: torch.device,
    score: Score,
    report: Report,
    processes: Processes,
    room: int,
) -> FitResult:
    config, store = plan.config, Store.open(request.store)
    training = residents(config, store, "train", device, training=True)
    validation = residents(config, store, "validation", device, training=False)

    def evaluate(model: RetrievalModel) -> Mapping[str, Any]:
        return score(*embed_split(model, validation), validation)

    with deterministic(request.deterministic), memory_errors_are_told():
        model = initial_model(config, request.init).to(device)
        budget, when = config.budget, config.evaluation
        evaluations = sum(when.due(e, budget.epochs) for e in range(1, budget.epochs + 1))
        keep_tokens(model, training, budget.updates * budget.batch_size, room)
        keep_tokens(model, validation, evaluations * len(validation), room)
        return fit(
            model,
            training,
            plan.folder,
            arm=plan.arm,
            evaluate=evaluate,
            report=report,
            initial_state=lambda: initial_model(config, request.init).state_dict(),
            compiled=request.compiled,
            processes=processes,
            log=(lambda step: TensorBoardLog(plan.folder / "tensorboard", step))
            if request.tensorboard
            else None,
        )


def _room(request: RunRequest, plan: Plan, device: torch.device, processes: Processes) -> int:
    """Bytes that stay free beside the run; refuses a run that cannot fit, before it is begun."""
    found = estimate(plan.config, Store.open(request.store), device, processes.count)
    check_memory(found, device)
    return found.available_bytes - found.needed_bytes


def _buildable(config: RunConfig) -> RetrievalModel:
    """The model without memory; what torch cannot build is found here, before a run folder is made."""
    try:
        model = build_model(config, "meta")
        build_optimizer(model, config.optimizer)
        for update in (1, 2, config.budget.updates):
            update_multiplier(config.schedule, update, config.budget.updates)
    except (
        ArithmeticError,
        AssertionError,
        IndexError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"no model can be made of this configuration: {reason}") from None
    return model


def _check_built_alike(run: Run, plan: Plan) -> None:
    """A run goes on only with the model that it was begun with."""
    declared = run.record.get("parameters")
    counted = {"total": plan.parameters, "trainable": plan.trainable}
    if declared is not None and declared != counted:
        raise RunError(
            f"{run.path} was begun with {declared['total']:,} parameters, of which "
            f"{declared['trainable']:,} are trained; this version builds {counted['total']:,} and "
            f"{counted['trainable']:,}: go on with the version that began it, or use --overwrite"
        )


def _finished_run(path: Path) -> Run:
    """A run to start from: its weights must not change any more."""
    run = open_run(path)
    if not run.finished:
        raise RunError(
            f"--init {path}: that run is not finished ({run.record['status']}); repeat its "
            "xmodal-train command first"
        )
    return run


def _record(
    request: RunRequest,
    plan: Plan,
    device: torch.device,
    existing: Run | None,
    processes: Processes,
) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    return {
        "schema": 1,
        "signature": plan.signature,
        "arm": plan.arm,
        "status": "running",
        "config": to_plain(plan.config),
        "reads": plan.fingerprints,
        "init": None if request.init is None else str(request.init),
        "store": {"path": str(request.store.resolve()), "name": request.store.resolve().name},
        "parameters": {"total": plan.parameters, "trainable": plan.trainable},
        "leaks": plan.leaks,
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "numpy", "zarr", "safetensors")},
        },
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "deterministic": request.deterministic,
        "compiled": request.compiled,
        "processes": processes.count,
        "attempts": 1 if existing is None else existing.record.get("attempts", 0) + 1,
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _outcome(result: FitResult) -> dict[str, Any]:
    return {
        "best": {"S": result.best_S, "step": result.best_step},
        "step": result.step,
        "performance": {
            "seconds": result.seconds,
            "segments_per_s": result.segments_per_s,
            "peak_memory": result.peak_memory,
        },
    }


def _commit() -> str | None:
    """The commit of the code that runs, where it runs from a git working tree."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
