"""What would end a campaign's runs in a queue, found before anything is queued.

Everything is tried the way a task would do it: the store is opened and hashed, the folder of runs is
written to and locked, every configuration is planned again, and one step of every distinct model is
made on real segments, forward, backward and update.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import torch

from pipeline.base.config import digest, from_plain
from pipeline.base.errors import ConfigError, StoreError, XmodalError
from pipeline.base.files import FolderLock, read_json, sha256_file
from pipeline.store.reader import Store
from trainer.campaign.plan import PlannedRun, Sweep
from trainer.campaign.rehearsal import rehearse
from trainer.campaign.state import State, attempts, states
from trainer.config import RunConfig
from trainer.devices import pick_device
from trainer.estimate import check_memory, estimate
from trainer.plan import Plan, Planner, RunRequest
from trainer.run import RUN_FILE, open_run

CHECKPOINTS = 4  # of a run: the last two, the best, and the one that is being written
SAMPLE_BYTES = 256 << 20
SPARE_BYTES = 64 << 20
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was tried.

    Attributes
    ----------
    name : what
    ok : whether tasks would get past it
    detail : what was found
    remedy : what to do where it is not ok
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def preflight(
    sweep: Sweep,
    *,
    device: str = "auto",
    minutes: float | None = None,
    full: bool = False,
    say: Say = lambda text: None,
) -> list[Check]:
    """Try everything that the runs that are not done yet will need.

    Parameters
    ----------
    device : that runs will use; where this machine has it not, steps are made on the CPU
    minutes : time limit of a task, to compare runs with
    full : hash every file of the store, not a sample

    Returns
    -------
    What was tried, in order; a campaign whose checks are not all ``ok`` would die.
    """
    target = _device(device)
    found = states(sweep)
    left = [
        run for run, s in zip(sweep.runs, found, strict=True) if s.status not in ("done", "running")
    ]
    if not left:
        return [Check(name="runs", ok=True, detail="every run is done or under way")]
    checks: list[Check] = []

    def tell(check: Check) -> Check:
        checks.append(check)
        mark = "ok" if check.ok else "NO"
        say(f"{mark}  {check.name}: {check.detail}" + (f"; {check.remedy}" if check.remedy else ""))
        return check

    for check in _folder_checks(sweep, left):
        tell(check)
    tell(_versions(sweep, left))
    tell(_beginnings(sweep, left, found))
    try:
        store = Store.open(sweep.store)
    except StoreError as error:
        tell(Check(name="store", ok=False, detail=str(error), remedy="plan the campaign again"))
        return checks
    for check in _store_checks(store, sweep, full):
        if not tell(check).ok:
            return checks  # what follows would only say the same in other words
    plans: dict[int, Plan] = {}
    for check in _plan_checks(store, sweep, left, plans):
        tell(check)
    for check in _step_checks(sweep, [r for r in left if r.index in plans], plans, found, target):
        tell(check)
    for check in _time_checks(left, plans, found, device, target, minutes):
        tell(check)
    return checks


def _device(name: str) -> torch.device:
    """The device that runs will use, or the CPU where this machine has none of the kind."""
    try:
        return pick_device(name)
    except ConfigError:
        if torch.device(name.partition(":")[0]).type == "cuda":
            return torch.device("cpu")
        raise


def _folder_checks(sweep: Sweep, left: Sequence[PlannedRun]) -> Iterator[Check]:
    out = Path(sweep.out).resolve()
    probe = out / f".preflight-{os.getpid()}"
    try:
        probe.mkdir(parents=True)
        with FolderLock(probe):
            (probe / "bytes").write_bytes(bytes(1 << 20))
    except (OSError, StoreError) as error:
        yield Check(
            name="folder of runs",
            ok=False,
            detail=f"cannot write and lock in {out} ({error})",
            remedy="choose another --out",
        )
        return
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    yield Check(name="folder of runs", ok=True, detail=f"{out} can be written to and locked")
    need = sum(max(0, _bytes_of(run) - _size_of(sweep.path(run))) for run in left) + SPARE_BYTES
    free = shutil.disk_usage(out).free
    yield Check(
        name="space",
        ok=free >= need,
        detail=f"{free / 1e9:.2f} GB free, checkpoints of {len(left)} runs need {need / 1e9:.2f} GB",
        remedy="" if free >= need else "make room, or choose another --out",
    )


def _bytes_of(run: PlannedRun) -> int:
    """What a run's folder grows to: parameters, and two moments of those that are trained."""
    return 4 * (CHECKPOINTS * (run.parameters + 2 * run.trainable) + run.parameters)


def _size_of(folder: Path) -> int:
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(base) / name).stat().st_size
    return total


def _versions(sweep: Sweep, left: Sequence[PlannedRun]) -> Check:
    """Runs that were begun go on with the packages that they were begun with."""
    for run in left:
        try:
            begun: dict[str, str] = read_json(sweep.path(run) / RUN_FILE)["versions"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for name, version in begun.items():
            now = _version(name)
            if now != version:
                return Check(
                    name="versions",
                    ok=False,
                    detail=f"{run.label} was begun with {name} {version}, here is {now}",
                    remedy=f"use the environment that began it, or delete {sweep.path(run)}",
                )
    return Check(name="versions", ok=True, detail="those that begun runs were begun with")


def _version(name: str) -> str:
    if name == "python":
        return platform.python_version()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _beginnings(sweep: Sweep, left: Sequence[PlannedRun], found: Sequence[State]) -> Check:
    """What runs start from, or go on from, is as it was left."""
    for run in left:
        path = sweep.path(run)
        if idle := attempts(path).get("failure"):
            return Check(name="beginnings", ok=False, detail=f"{run.label}: {idle}")
        if (path / RUN_FILE).exists():
            try:
                open_run(path)
            except XmodalError as error:
                return Check(name="beginnings", ok=False, detail=str(error))
        if run.after is None or found[run.after].status != "done":
            continue
        start = sweep.path(sweep.runs[run.after])
        if not open_run(start).whole:
            return Check(
                name="beginnings",
                ok=False,
                detail=f"the model of {start}, from which {run.label} starts, is gone or was changed",
                remedy="repeat that run, which restores it from its checkpoint",
            )
    again = sum(found[run.index].status == "failed" for run in left)
    detail = "what runs start from and go on from is whole"
    return Check(
        name="beginnings",
        ok=True,
        detail=f"{detail}; {again} runs that failed are tried again" if again else detail,
    )


def _store_checks(store: Store, sweep: Sweep, full: bool) -> Iterator[Check]:
    files = sorted(store.record["files"].items(), key=lambda item: item[1]["size"])
    began, total, hashed = time.monotonic(), 0, 0
    for name, entry in files:
        if not full and hashed and total + entry["size"] > SAMPLE_BYTES:
            break
        if sha256_file(store.path / name) != entry["sha256"]:
            yield Check(
                name="store",
                ok=False,
                detail=f"{store.path / name} does not match its SHA-256",
                remedy=f"see xmodal-features verify {store.path}",
            )
            return
        total, hashed = total + entry["size"], hashed + 1
    seconds = time.monotonic() - began
    yield Check(
        name="store",
        ok=True,
        detail=f"{store.path}: {len(files)} files of the right size, {hashed} of them hashed "
        f"({total / 1e6:.0f} MB, {seconds:.1f} s)",
    )
    missing = [name for name in sweep.missing if name not in store.arrays]
    add = f"xmodal-features add {store.path} --descriptors {','.join(missing)}"
    yield Check(
        name="arrays",
        ok=not missing,
        detail=f"the store lacks {', '.join(missing)}"
        if missing
        else "all that runs read are there",
        remedy=f"add them: {add}" if missing else "",
    )


def _plan_checks(
    store: Store, sweep: Sweep, left: Sequence[PlannedRun], plans: dict[int, Plan]
) -> Iterator[Check]:
    """Every run planned as its task will plan it; registered things are imported by that."""
    planner = Planner(store)
    for run in left:
        try:
            request = RunRequest(
                config=from_plain(RunConfig, run.config), store=store.path, out=Path(sweep.out)
            )
            start = None if run.after is None else sweep.runs[run.after].signature
            plan = planner.plan(request, start)
        except (XmodalError, ImportError) as error:
            yield Check(name=run.label, ok=False, detail=str(error))
            continue
        if plan.signature != run.signature:
            yield Check(
                name=run.label,
                ok=False,
                detail=f"would be the run {plan.folder.name} now, not {run.folder}",
                remedy="the code was changed; plan the campaign again",
            )
            continue
        plans[run.index] = plan
    yield Check(
        name="configurations",
        ok=len(plans) == len(left),
        detail=f"{len(plans)} of {len(left)} runs are those that were planned",
    )


def _step_checks(
    sweep: Sweep,
    left: Sequence[PlannedRun],
    plans: dict[int, Plan],
    found: Sequence[State],
    device: torch.device,
) -> Iterator[Check]:
    """One step, and the pools of the evaluations, of every distinct model."""
    tried: set[str] = set()
    for run in left:
        plan = plans[run.index]
        key = digest([_shape_of(plan.config), run.after is None])
        if key in tried:
            continue
        tried.add(key)
        start = None
        if run.after is not None and found[run.after].status == "done":
            start = sweep.path(sweep.runs[run.after])
        try:
            detail = rehearse(plan, start, device)
        except (XmodalError, RuntimeError, ImportError, MemoryError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            yield Check(name=f"a step of {run.label}", ok=False, detail=reason)
        else:
            yield Check(name=f"a step of {run.label}", ok=True, detail=detail)


def _shape_of(config: RunConfig) -> RunConfig:
    """What makes steps differ; seeds and lengths do not."""
    budget = dataclasses.replace(config.budget, epochs=1, batches_per_epoch=1)
    return dataclasses.replace(config, seed=0, budget=budget)


def _time_checks(
    left: Sequence[PlannedRun],
    plans: dict[int, Plan],
    found: Sequence[State],
    device: str,
    target: torch.device,
    minutes: float | None,
) -> Iterator[Check]:
    """Memory and time of each distinct model, on the device that runs will use."""
    if device.startswith("cuda") and target.type != "cuda":
        yield Check(name="memory and time", ok=True, detail="not known: this machine has no GPU")
        return
    longest, longest_run = 0.0, left[0]
    known: dict[str, float] = {}  # seconds of a step
    for run in left:
        if run.index not in plans:
            continue
        plan = plans[run.index]
        key = digest(_shape_of(plan.config))
        if key not in known:
            try:
                needs = estimate(plan.config, plan.store, target)
                check_memory(needs, target)
            except ConfigError as error:
                yield Check(name=f"memory of {run.label}", ok=False, detail=str(error))
                known[key] = 0.0
                continue
            known[key] = needs.seconds / max(1, plan.config.budget.updates)
        state = found[run.index]
        seconds = (state.seconds_a_step or known[key]) * max(0, run.updates - state.step)
        if seconds > longest:
            longest, longest_run = seconds, run
    detail = f"{longest_run.label} is the longest, about {longest / 60:.0f} min on {target.type}"
    if minutes is not None:
        times = math.ceil(longest / 60 / minutes) - 1
        detail += f" of {minutes:.0f} min"
        if times > 0:
            detail += f": it will be stopped and queued again about {times} times"
    yield Check(name="time", ok=True, detail=detail)
