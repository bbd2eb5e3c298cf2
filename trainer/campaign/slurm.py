"""A campaign on a Slurm queue: arrays whose tasks each do one run, and what became of them.

Runs that start from nothing, or from finished runs, are one array. Those that start from one further
run are an array that waits for that very task (``afterok``), so that an arm that dies holds up nobody
who does not start from it. Nothing is submitted that is finished, that a process is at, or that waits
in the queue already, whichever campaign of this folder put it there.

Every job has a name of its own, written to ``submissions.jsonl`` *before* ``sbatch`` is called. What
is in the queue is found by these names: a submission that was killed half-way, or that the scheduler
took without an answer, is known to the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.config import to_plain
from pipeline.base.files import FolderLock, atomic_write, fsync_dir, write_json
from trainer.campaign.batch_script import Options, batch_script
from trainer.campaign.scheduler import QueueError, Task, ask, known_tasks, most_tasks
from trainer.campaign.state import State, forget_idle, states
from trainer.campaign.sweep import CAMPAIGNS, LOGS, PLAN_FILE, SUBMITTED, PlannedRun, Sweep

__all__ = ["Options", "QueueError", "Submission", "cancel", "queue_states", "submissions", "submit"]

RECORDS, LOCK = "submissions.jsonl", ".submit.lock"
PROGRAM = "xmodal-sweep"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One array job.

    Attributes
    ----------
    name : of the job; no other has it
    runs : number of the task → folder of the run; tasks of an array count from 0
    script, plan, logs : where they are
    at : when, in UTC
    after : what it waits for, as sbatch was told
    job : its number; None where the scheduler did not answer
    """

    name: str
    runs: dict[int, str]
    script: str
    plan: str
    logs: str
    at: str
    after: str | None = None
    job: int | None = None


def submit(sweep: Sweep, options: Options, say: Say = lambda text: None) -> list[Submission]:
    """Queue every run that is neither done nor under way, nor waiting in the queue already.

    A failed run is queued again, and goes on from its last checkpoint; also one that gained no step
    before: who submits it wants another try. Repeating the call, also at the same time from elsewhere,
    submits nothing twice.

    Raises
    ------
    ConfigError
        for options that no queue could serve.
    QueueError
        when the scheduler does not answer, or refuses; what was submitted until then is recorded.
    StoreError
        (kind ``locked``) while another process submits.
    """
    options.check()
    if not (options.programs / PROGRAM).exists():
        raise QueueError(f"{options.programs} has no {PROGRAM}: install xmodal in this environment")
    out = Path(sweep.out).resolve()
    with FolderLock(out / CAMPAIGNS, LOCK):
        queued = _queued(out)
        found = states(sweep)
        chosen = _chosen(sweep, found, queued, say)
        if not chosen:
            return []
        # The plan as it is now: planning again must not change what waiting tasks do.
        token = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        folder = sweep.folder.resolve() / SUBMITTED / token
        (sweep.folder.resolve() / LOGS).mkdir(parents=True, exist_ok=True)
        plan = folder / PLAN_FILE
        write_json(plan, to_plain(dataclasses.replace(sweep, out=str(out))))
        most = most_tasks()
        made = [
            (runs, _written(sweep, options, runs, folder, f"{token}-{number}"))
            for number, runs in enumerate(_arrays(chosen, found, most), 1)
        ]
        for _, submission in made:
            _try_out(Path(submission.script), most)
        for run in chosen:
            forget_idle(sweep.path(run))
        return _submitted(sweep, made, found, queued, say)


def queue_states(sweep: Sweep, say: Say = lambda text: None) -> dict[int, str]:
    """Number of a run → RUNNING, ``PENDING (Priority)``, … of those that the queue knows.

    Empty, with the reason told, when the scheduler does not answer.
    """
    try:
        queued = _queued(Path(sweep.out))
    except QueueError as error:
        say(f"what waits in the queue is not known: {error}")
        return {}
    return {run.index: queued[run.folder].words for run in sweep.runs if run.folder in queued}


def cancel(sweep: Sweep, say: Say = lambda text: None) -> list[str]:
    """Take what was submitted of this campaign out of the queue; running tasks leave checkpoints.

    Jobs that other people submitted stay, which is told: only they may cancel them.

    Returns
    -------
    Numbers of the jobs.

    Raises
    ------
    QueueError
        when the scheduler does not answer.
    """
    me = os.getuid()
    jobs: dict[int, int] = {}  # number → whose
    for tasks in known_tasks(submission.name for submission in submissions(sweep)).values():
        jobs |= {task.job: task.user for task in tasks}
    theirs = sorted(job for job, user in jobs.items() if user != me and me != 0)
    for job in theirs:
        say(f"job {job} was submitted by another user (number {jobs[job]}): it stays")
    own = [str(job) for job in sorted(jobs) if job not in theirs]
    if own:
        ask(["scancel", *own])
    return own


def submissions(sweep: Sweep) -> list[Submission]:
    """What was submitted of a campaign, in that order."""
    return _read(sweep.folder / RECORDS)


def _chosen(
    sweep: Sweep, found: Sequence[State], queued: dict[str, Task], say: Say
) -> list[PlannedRun]:
    """What is to be queued; why something else is not, is told."""
    chosen: dict[int, PlannedRun] = {}
    for run, state in zip(sweep.runs, found, strict=True):
        if state.status == "done":
            continue
        if run.folder in queued:
            task = queued[run.folder]
            say(f"{run.label}: in the queue already ({task.id}, {task.words})")
        elif state.status == "running":
            say(f"{run.label}: a process outside the queue is at it")
        elif (
            run.after is None
            or found[run.after].status == "done"
            or run.after in chosen
            or sweep.runs[run.after].folder in queued
        ):
            chosen[run.index] = run
        else:
            start = sweep.runs[run.after].label
            say(
                f"{run.label}: starts from '{start}', which is not in the queue; submit again later"
            )
    return list(chosen.values())


def _arrays(
    chosen: Sequence[PlannedRun], found: Sequence[State], most: int
) -> Iterator[list[PlannedRun]]:
    """Runs that wait for the same run, or for none, at most so many; those waited for come first."""
    arrays: dict[int | None, list[PlannedRun]] = {}
    for run in chosen:  # in the plan a run comes after what it starts from
        waits = run.after is not None and found[run.after].status != "done"
        arrays.setdefault(run.after if waits else None, []).append(run)
    for _, runs in sorted(arrays.items(), key=lambda a: -1 if a[0] is None else a[0]):
        for first in range(0, len(runs), most):
            yield runs[first : first + most]


def _written(
    sweep: Sweep, options: Options, runs: Sequence[PlannedRun], folder: Path, token: str
) -> Submission:
    name = f"xmodal-{re.sub(r'[^A-Za-z0-9_.-]', '_', sweep.name)}-{token}"
    plan, logs = folder / PLAN_FILE, sweep.folder.resolve() / LOGS
    script = folder / f"{name}.sbatch"
    text = batch_script(
        options,
        name=name,
        title=sweep.title,
        indices=[run.index for run in runs],
        plan=plan,
        store=Path(sweep.store),
        logs=logs,
        folder=Path.cwd(),
    )
    with atomic_write(script, "w") as handle:
        handle.write(text)
    return Submission(
        name=name,
        runs={task: run.folder for task, run in enumerate(runs)},
        script=str(script),
        plan=str(plan),
        logs=str(logs),
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _submitted(
    sweep: Sweep,
    made: Sequence[tuple[Sequence[PlannedRun], Submission]],
    found: Sequence[State],
    queued: dict[str, Task],
    say: Say,
) -> list[Submission]:
    tasks = {folder: task.id for folder, task in queued.items()}
    done: list[Submission] = []
    for runs, submission in made:
        start = runs[0].after  # where it is waited for, that of all of the array
        waits = None if start is None or found[start].status == "done" else sweep.runs[start].folder
        after = None if waits is None else f"afterok:{tasks[waits]}"
        submission = dataclasses.replace(submission, after=after)
        _append(sweep.folder / RECORDS, submission)
        # What waits for a task that failed would wait for ever: it goes, and is submitted again.
        flags = [f"--dependency={after}", "--kill-on-invalid-dep=yes"] if after else []
        answer = ask(["sbatch", "--parsable", *flags, submission.script]).strip()
        job = answer.partition(";")[0]
        if not job.isdigit():
            raise QueueError(f"sbatch answered {answer!r}, which is no job's number")
        submission = dataclasses.replace(submission, job=int(job))
        _append(sweep.folder / RECORDS, submission)
        tasks |= {folder: f"{job}_{task}" for task, folder in submission.runs.items()}
        done.append(submission)
        text = f"job {job}: {len(submission.runs)} runs"
        say(f"{text}, after task {tasks[waits]}" if waits else text)
    return done


def _try_out(script: Path, most: int) -> None:
    """Let Slurm check a script before anything is submitted; ``most``: tasks of an array."""
    try:
        ask(["sbatch", "--test-only", str(script)])
    except QueueError as error:
        if "array" in str(error).lower():
            remedy = (
                f"arrays were made of at most {most} tasks, see: scontrol show config | grep -i "
                "array; without arrays: docs/examples/sweep.sbatch"
            )
        else:
            remedy = (
                "what there is to ask for (partition, time, cores, memory, GPUs): "
                "sinfo --format '%P %l %c %m %G'"
            )
        raise QueueError(f"{error}; {remedy}; the script is {script}") from None


def _queued(out: Path) -> dict[str, Task]:
    """Folder of a run → its task, of all campaigns that keep their runs in ``out``."""
    files = sorted((out / CAMPAIGNS).glob(f"*/{RECORDS}"))
    past = [submission for file in files for submission in _read(file)]
    known = {submission.name: submission for submission in past}
    found: dict[str, Task] = {}
    for name, tasks in known_tasks(known).items():
        for task in tasks:
            if (folder := known[name].runs.get(task.task)) is not None:
                found[folder] = task
    return found


def _append(file: Path, submission: Submission) -> None:
    """One line, durably; a line that a kill left half-written stays one of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(dataclasses.asdict(submission), ensure_ascii=False) + "\n"
    with file.open("a+b") as handle:
        size = handle.seek(0, os.SEEK_END)
        if size:
            handle.seek(size - 1)
            if handle.read(1) != b"\n":
                line = "\n" + line
        handle.write(line.encode())
        handle.flush()
        os.fsync(handle.fileno())
    fsync_dir(file.parent)


def _read(file: Path) -> list[Submission]:
    """The last state of every submission; a half-written line was never submitted."""
    found: dict[str, Submission] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                plain: dict[str, Any] = json.loads(line)
                runs = {int(task): str(folder) for task, folder in plain.pop("runs").items()}
                found[plain["name"]] = Submission(runs=runs, **plain)
    return list(found.values())
