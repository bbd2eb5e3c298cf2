"""Training a planned run in its folder: begun, gone on with, or found finished."""

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

from pipeline.base.config import to_plain
from pipeline.base.errors import Interrupted, RunError, XmodalError
from pipeline.base.files import FolderLock, sha256_file, sweep_temporaries, write_json
from trainer import parallel
from trainer.cache import ResidentStore
from trainer.config import RunConfig
from trainer.devices import deterministic, is_slow, memory_errors_are_told, pick_device
from trainer.embed import embed_split
from trainer.estimate import check_memory, estimate
from trainer.fit import FitResult, Report, fit
from trainer.frozen import keep_tokens
from trainer.layout import EVALUATION, FINISHED, MODEL, RUN_FILE
from trainer.metrics_log import TensorBoardLog, require_tensorboard
from trainer.model import RetrievalModel, build_model
from trainer.parallel import Processes
from trainer.plan import Plan
from trainer.run import Run, clear_run, load_strictly, open_run, residents

FloatArray = npt.NDArray[np.float32]
Score = Callable[[FloatArray, FloatArray, ResidentStore], Mapping[str, Any]]


def train(
    plan: Plan,
    score: Score,
    report: Report = lambda event: None,
    begins: Callable[[], object] = lambda: None,
) -> Run:
    """Train a run to its end, or go on with it; a finished one is returned as it is.

    Parameters
    ----------
    score : ``score(audio, midi, resident)`` of validation embeddings ``[n, 256]``, all segments in
        store order (``resident.rows``), returns at least ``S`` of protocol ``strict``
    report : receives progress events (see :func:`trainer.fit.fit`)
    begins : called once the folder is this process's own, before anything in it is touched; what it
        raises ends the start

    Raises
    ------
    ConfigError, StoreError, RunError
        before the first step wherever possible.
    Interrupted
        after a signal; repeating the request goes on.
    """
    request = plan.request
    processes, device = parallel.join(pick_device(request.device))
    folder = plan.folder
    if not processes.first:
        if processes.tell():
            room = _room(plan, device, processes)
            _train(plan, device, score, report, processes, room)
            processes.tell()
        return open_run(folder)
    with FolderLock(folder):
        begins()
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
        if is_slow(plan.config.precision, device):
            text = (
                "this processor has no AVX-512: bf16 takes many times as long as --precision fp32"
            )
            report({"event": "warning", "message": text})
        if request.tensorboard:
            require_tensorboard()
        sweep_temporaries(folder)
        room = _room(plan, device, processes)
        record = _record(plan, device, existing, processes)
        write_json(folder / RUN_FILE, record)
        processes.tell(True)
        try:
            outcome = _outcome(_train(plan, device, score, report, processes, room))
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


def _train(
    plan: Plan,
    device: torch.device,
    score: Score,
    report: Report,
    processes: Processes,
    room: int,
) -> FitResult:
    request, config, store = plan.request, plan.config, plan.store
    training = residents(config, plan.reads, store, "train", device, training=True)
    validation = residents(config, plan.reads, store, "validation", device, training=False)

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


def _room(plan: Plan, device: torch.device, processes: Processes) -> int:
    """Bytes that stay free beside the run; refuses a run that cannot fit, before it is begun."""
    found = estimate(plan.config, plan.store, device, processes.count)
    share = plan.request.memory
    if share is not None:
        found = dataclasses.replace(found, available_bytes=min(share, found.available_bytes))
    check_memory(found, device, shared=share is not None)
    return found.available_bytes - found.needed_bytes


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


def _record(
    plan: Plan, device: torch.device, existing: Run | None, processes: Processes
) -> dict[str, Any]:
    request = plan.request
    store = (request.copied_from or request.store).resolve()
    on_gpu = device.type == "cuda"
    return {
        "schema": 1,
        "signature": plan.signature,
        "arm": plan.arm,
        "status": "running",
        "config": to_plain(plan.config),
        "reads": plan.fingerprints,
        "init": None if request.init is None else str(request.init.resolve()),
        "store": {"path": str(store), "name": store.name},
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
