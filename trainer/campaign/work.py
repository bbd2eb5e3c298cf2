"""One planned run: trained from wherever it stands, then scored; what every task of a queue does.

Validation scores are those that selection saw; the test split is scored when training has ended and
nothing is chosen any more. A task that was stopped leaves a checkpoint and is repeated. How often it
was begun, and whether it gained a step since, is kept in ``attempts.json``: a run that begins again
and again without gaining one is not begun once more. So is why it ended, where the run's own record
does not tell (the disk is full, memory ran out), and how long it took, where one start did it all.
Only the holder of the run's lock writes there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.config import from_plain
from pipeline.base.errors import Interrupted, RunError, StoreError
from pipeline.base.files import FolderLock, write_json
from pipeline.store.reader import Store
from trainer import scoring
from trainer.campaign.state import ATTEMPTS, BUSY, WAITS, attempts, saved_step
from trainer.campaign.sweep import PlannedRun, Sweep
from trainer.config import RunConfig
from trainer.devices import default_compiled, pick_device
from trainer.embed import embed_split
from trainer.layout import FINISHED, RUN_FILE
from trainer.plan import Plan, RunRequest, plan_run
from trainer.records import scores_due
from trainer.run import Run, open_run, residents
from trainer.training import train

MOST_IDLE = 3
Report = Callable[[dict[str, Any]], None]
FloatArray = npt.NDArray[np.float32]


class Waits(RunError):
    """The run that this one starts from is not finished."""

    exit_code = WAITS


class Busy(RunError):
    """Another process is at this run."""

    exit_code = BUSY


class Idle(RunError):
    """Several starts gained no step."""


def do_run(
    sweep: Sweep,
    planned: PlannedRun,
    *,
    store: Path | None = None,
    device: str = "auto",
    memory: int | None = None,
    report: Report = lambda event: None,
) -> Run:
    """Train one run of a campaign to its end and score it; a finished one is found finished.

    Parameters
    ----------
    store : another copy of the campaign's store (default: where it was when it was planned)
    memory : bytes of the device that it may use, where others run beside it (default: what is free)

    Raises
    ------
    Waits
        (exit 76) when the run that it starts from is not finished.
    Busy
        (exit 77) when another process is at it.
    Interrupted
        (exit 75) after a signal; repeating the call goes on.
    RunError
        when code or store are not those of the plan, or several starts gained no step.
    """
    began = time.monotonic()
    request = _request(sweep, planned, store, device, memory)
    plan = plan_run(request)
    if plan.signature != planned.signature:
        raise RunError(
            f"{planned.label}: the code or the store is not what it was when the campaign was "
            f"planned (the run would be {plan.folder.name}, not {planned.folder}); plan it again",
            kind="plan",
        )
    if FolderLock(plan.folder).is_held():
        raise Busy(f"another process is at {plan.folder}", kind="locked")
    first = False

    def begins() -> None:
        nonlocal first
        first = _count_start(plan)

    try:
        run = train(plan, scoring.selection_score(plan.store, plan.config), report, begins)
        with FolderLock(run.path):  # it is under way until it is scored
            score_all(run, plan.store, device, report)
            if first:
                _note(run.path, seconds=time.monotonic() - began)
    except (Interrupted, Idle):
        raise
    except StoreError as error:
        if error.kind == "locked":  # taken since we looked: that was no start of ours
            raise Busy(str(error), kind="locked") from None
        _note_failure(plan.folder, error)
        raise
    except Exception as error:
        _note_failure(plan.folder, error)
        raise
    return run


def score_all(
    run: Run, store: Store, device: str = "auto", report: Report = lambda event: None
) -> None:
    """All that a run is compared by; what was scored before with these weights is left."""

    @cache
    def embeddings(split: str) -> tuple[FloatArray, FloatArray]:
        report({"event": "scoring", "split": split})
        target = pick_device(device)
        model = run.load_model(target)
        resident = residents(run.config, model.reads(), store, split, target, training=False)
        return embed_split(model, resident)

    for protocol, split, seed in scores_due(run.config.pool_seed):
        embedded = partial(embeddings, split)
        scoring.scored_run(run, store, split, protocol, device=device, seed=seed, embedded=embedded)


def _request(
    sweep: Sweep, planned: PlannedRun, store: Path | None, device: str, memory: int | None
) -> RunRequest:
    start: Path | None = None
    if planned.after is not None:
        start = sweep.path(sweep.runs[planned.after])
        try:
            finished = open_run(start).record["status"] == FINISHED
        except RunError:
            finished = False
        if not finished:
            raise Waits(f"{planned.label} starts from {start}, which is not finished", kind="waits")
    return RunRequest(
        config=from_plain(RunConfig, planned.config),
        store=store or Path(sweep.store),
        out=Path(sweep.out),
        device=device,
        compiled=default_compiled(pick_device(device)),
        init=start,
        copied_from=None if store is None else Path(sweep.store),
        memory=memory,
    )


def _count_start(plan: Plan) -> bool:
    """Note that the run is begun once more; whether for the first time.

    Raises
    ------
    Idle
        where the last few starts gained nothing.
    """
    before, step = attempts(plan.folder), saved_step(plan.folder)
    if plan.folder.joinpath(RUN_FILE).exists() and open_run(plan.folder).finished:
        if before.pop("failure", None):
            write_json(plan.folder / ATTEMPTS, before)
        return False
    idle = int(before.get("idle", 0)) + 1 if before.get("step") == step else 0
    if idle >= MOST_IDLE:
        text = (
            f"{MOST_IDLE} starts in a row gained no step after step {step}: the time limit is too "
            "short for one epoch, or it dies each time (see its log); xmodal-sweep run or submit "
            "begins to count anew"
        )
        write_json(plan.folder / ATTEMPTS, {**before, "failure": text})
        raise Idle(text, kind="idle")
    starts = int(before.get("starts", 0)) + 1
    write_json(plan.folder / ATTEMPTS, {"starts": starts, "step": step, "idle": idle})
    return starts == 1


def _note(folder: Path, **what: Any) -> None:
    write_json(folder / ATTEMPTS, {**attempts(folder), **what})


def _note_failure(folder: Path, error: Exception) -> None:
    """Keep why it ended; not where another process has it by now, or where nothing can be written."""
    told = str(error)
    if isinstance(error, OSError):
        told = f"{error.strerror or error} ({error.filename})"
    with contextlib.suppress(OSError, StoreError), FolderLock(folder):
        _note(folder, failure=told or type(error).__name__)


def with_threads(threads: int | None) -> None:
    """Compute with so many threads: equal bits need equal threads."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
