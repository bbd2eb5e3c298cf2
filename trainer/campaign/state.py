"""What became of a campaign's runs, as their folders say; nothing is remembered anywhere else.

=========  =========================================================================================
status     means
=========  =========================================================================================
done       trained to its end, and scored
running    a process that lives holds its folder
stopped    begun, and nobody is at it: it goes on where it stopped (or is still to be scored)
failed     ended by an error, which is told; training it again begins with the last checkpoint. What
           its record does not tell (the disk was full) the count of its starts does
missing    not begun
waiting    not begun, and the run that it starts from is not done
=========  =========================================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.base.files import FolderLock, read_json, write_json
from trainer.campaign.sweep import PlannedRun, Sweep
from trainer.layout import CHECKPOINTS, EVALUATION, FINISHED, METRICS, RUN_FILE

Status = Literal["done", "running", "stopped", "failed", "missing", "waiting"]
STATUSES: tuple[Status, ...] = ("done", "running", "stopped", "failed", "missing", "waiting")

ATTEMPTS = "attempts.json"
WAITS, BUSY = 76, 77
"""Exit codes of a task: the run that it starts from is not finished; another process is at it."""
TAIL = 4096


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Where a run stands.

    Attributes
    ----------
    step : updates done, as far as its log tells; where nobody is at it, those of its newest
        checkpoint, after which it goes on
    seconds_a_step : how long one takes, where it is known
    seconds : of all of a run that was trained and scored in one start; evaluations are in it
    gpu : name of the one that it was trained on; None for a CPU
    note : why it failed, what it waits for, how well it scored
    S : best score on the validation split, by which the run was selected; of finished ones
    """

    status: Status
    step: int
    note: str = ""
    seconds_a_step: float | None = None
    seconds: float | None = None
    gpu: str | None = None
    S: float | None = None


def states(sweep: Sweep) -> list[State]:
    """Of every run, in the order of the plan."""
    found: list[State] = []
    for run in sweep.runs:
        found.append(run_state(sweep, run, None if run.after is None else found[run.after]))
    return found


def run_state(sweep: Sweep, run: PlannedRun, before: State | None = None) -> State:
    """Of one run; ``before``: the state of the run that it starts from, where that is known."""
    folder = sweep.path(run)
    record = run_record(folder)
    if record is None:
        if run.after is not None:
            start = sweep.runs[run.after]
            before = before or run_state(sweep, start)
            if before.status != "done":
                return State(status="waiting", step=0, note=f"for {start.folder}: {start.label}")
        if FolderLock(folder).is_held():
            return State(status="running", step=0, note="begins")
        if idle := attempts(folder).get("failure"):
            return State(status="failed", step=0, note=str(idle))
        return State(status="missing", step=0)
    if FolderLock(folder).is_held():
        return State(status="running", step=logged_step(folder))
    if record.get("status") == FINISHED:
        return _finished(folder, record, run)
    step = saved_step(folder)
    if record.get("status") == "failed":
        note = str(record.get("failure", {}).get("message", "for a reason that it does not tell"))
        return State(status="failed", step=step, note=note)
    if failure := attempts(folder).get("failure"):
        return State(status="failed", step=step, note=str(failure))
    return State(status="stopped", step=step)


def attempts(folder: Path) -> dict[str, Any]:
    """What :mod:`trainer.campaign.work` notes of a run's starts."""
    try:
        found = read_json(folder / ATTEMPTS)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def forget_idle(folder: Path) -> None:
    """Let a run be begun again that gained no step: somebody asks for it, not the queue by itself."""
    noted = attempts(folder)
    if noted.get("idle") or noted.get("failure"):
        write_json(folder / ATTEMPTS, {"starts": noted.get("starts", 0)})


def saved_step(folder: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    steps = [0]
    with contextlib.suppress(OSError):
        for saved in (folder / CHECKPOINTS).iterdir():
            word, _, number = saved.name.partition("-")
            if word == "step" and number.isdigit():
                steps.append(int(number))
    return max(steps)


def logged_step(folder: Path) -> int:
    """The step that the log ends with; it may be ahead of the newest checkpoint."""
    try:
        with (folder / METRICS).open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - TAIL))
            lines = handle.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["step"])
    return 0


def bytes_below(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; 0 where there is nothing."""
    total = 0
    with contextlib.suppress(OSError):
        if not path.is_dir():
            return path.lstat().st_size
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += bytes_below(Path(entry.path))
                else:
                    with contextlib.suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def run_record(folder: Path) -> dict[str, Any] | None:
    """``run.json`` of a run folder; None where there is none, of a failed run where it is damaged."""
    try:
        found = read_json(folder / RUN_FILE)
        if not isinstance(found, dict):
            raise ValueError("it is no table")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problem = f"{RUN_FILE} does not read ({error}); train it again with --overwrite"
        return {"status": "failed", "failure": {"message": problem}}
    return found


def pace(folder: Path, record: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """Of a finished run: ``seconds_a_step``, ``seconds`` and ``gpu`` of a :class:`State`."""
    performance = record.get("performance", {})
    speed = performance.get("segments_per_s")
    on_gpu = "device" in performance.get("peak_memory", {})
    return {
        "seconds_a_step": batch_size / speed if speed else None,
        "seconds": attempts(folder).get("seconds"),
        "gpu": str(record.get("device")) if on_gpu else None,
    }


def _finished(folder: Path, record: Mapping[str, Any], run: PlannedRun) -> State:
    best = record.get("best", {}).get("S")
    took = pace(folder, record, run.batch_size)
    scored: set[str] = set()
    with contextlib.suppress(OSError), os.scandir(folder / EVALUATION) as entries:
        scored = {entry.name for entry in entries}  # one look at a folder that may be far away
    unscored = [name for name in run.scores if f"{name}.json" not in scored]
    if unscored:
        note = f"trained; still to be scored: {', '.join(unscored)}"
        if failure := attempts(folder).get("failure"):
            note += f"; {failure}"
        return State(status="stopped", step=run.updates, note=note, S=best, **took)
    return State(status="done", step=run.updates, S=best, **took)
