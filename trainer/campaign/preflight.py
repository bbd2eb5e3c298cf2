"""What would end a campaign's runs in a queue, found before anything is queued.

Everything is tried the way a task would do it: the store is opened and hashed, the folder of runs is
written to and locked, every configuration is planned again, and one step of every distinct model is
made on real segments, forward, backward and update.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.base.config import digest, from_plain
from pipeline.base.errors import ConfigError, StoreError, XmodalError
from pipeline.store.reader import Store
from trainer.campaign.batch_script import REQUEUES
from trainer.campaign.checks import Check, beginnings, folder_checks, store_checks, versions
from trainer.campaign.rehearsal import rehearse
from trainer.campaign.state import State, states
from trainer.campaign.sweep import PlannedRun, Sweep
from trainer.config import Choice, RunConfig
from trainer.devices import pick_device
from trainer.estimate import check_memory, estimate
from trainer.plan import Plan, Planner, RunRequest

__all__ = ["Check", "preflight"]

NO_GPU = "this machine has no GPU"
NO_LIKE = "no like was finished on such a device"
MANY = 30  # distinct models, above which one stands for all of its mechanisms, front end and loss
Say = Callable[[str], None]


def preflight(
    sweep: Sweep,
    *,
    device: str = "auto",
    minutes: float | None = None,
    requeues: int = REQUEUES,
    full: bool = False,
    measured: Mapping[int, float] | None = None,
    say: Say = lambda text: None,
) -> list[Check]:
    """Try everything that the runs that are not done yet will need.

    Parameters
    ----------
    device : that runs will use; where this machine has it not, steps are made on the CPU
    minutes : for which a task trains before it is stopped, to compare runs with
    requeues : how often a task is queued again
    measured : number of a run → seconds that it still takes, where like ones were finished
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
        say(
            f"{check.mark}  {check.name}: {check.detail}"
            + (f"; {check.remedy}" if check.remedy else "")
        )
        return check

    for check in folder_checks(sweep, left):
        tell(check)
    tell(versions(sweep, left))
    for check in beginnings(sweep, left, found):
        tell(check)
    try:
        store = Store.open(sweep.store)
    except StoreError as error:
        tell(Check(name="store", ok=False, detail=str(error), remedy="plan the campaign again"))
        return checks
    for check in store_checks(store, sweep, full):
        if not tell(check).ok:
            return checks  # what follows would only say the same in other words
    plans: dict[int, Plan] = {}
    for check in _plan_checks(store, sweep, left, plans):
        tell(check)
    elsewhere = device.startswith("cuda") and target.type != "cuda"
    known = [run for run in left if run.index in plans]
    for check in _step_checks(sweep, known, plans, found, target, elsewhere):
        tell(check)
    counted: dict[int, float] = {}
    if elsewhere:
        tell(Check(name="memory", ok=True, detail=f"not known: {NO_GPU}"))
    else:
        for check in _memory_checks(known, plans, found, target, counted):
            tell(check)
    kind = "cuda" if elsewhere else target.type
    for check in _time_checks(known, counted, measured or {}, kind, minutes, requeues):
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
    elsewhere: bool,
) -> Iterator[Check]:
    """One step, and the pools of the evaluations, of every distinct model; of many, of some.

    ``elsewhere``: runs use a device that this machine does not have.
    """
    models = {
        run.index: digest([_shape_of(plans[run.index].config), run.after is None]) for run in left
    }
    kinds = models
    if len(set(models.values())) > MANY:
        kinds = {
            run.index: digest([_kind_of(plans[run.index].config), run.after is None])
            for run in left
        }
    stands_for = Counter({models[i]: kinds[i] for i in models}.values())
    tried: set[str] = set()
    for run in left:
        kind = kinds[run.index]
        if kind in tried:
            continue
        tried.add(kind)
        start = None
        if run.after is not None and found[run.after].status == "done":
            start = sweep.path(sweep.runs[run.after])
        name = f"a step of {run.label}"
        try:
            detail = rehearse(plans[run.index], start, device)
        except (XmodalError, OSError, RuntimeError, ImportError, MemoryError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if elsewhere and (isinstance(error, MemoryError) or "allocate memory" in str(error)):
                text = f"not known: this machine has not the memory for it ({reason})"
                yield Check(name=name, ok=True, warning=True, detail=text)
            else:
                yield Check(name=name, ok=False, detail=reason)
            continue
        if (others := stands_for[kind]) > 1:
            detail += f"; stands for {others} models"
        yield Check(name=name, ok=True, detail=detail)
    if (all_of_them := stands_for.total()) > len(tried):
        detail = f"{len(tried)} models were tried, and stand for {all_of_them}"
        yield Check(
            name="steps", ok=True, detail=f"{detail}: one of equal mechanisms, front end, loss"
        )


def _shape_of(config: RunConfig) -> RunConfig:
    """What makes steps differ; seeds, lengths, rates and what comes between steps do not."""
    replace = dataclasses.replace
    groups = tuple(replace(group, lr=1.0) for group in config.optimizer.groups)
    evaluation = replace(  # pools of another size are drawn in another rehearsal
        config.evaluation,
        every=1,
        first=1,
        batch_size=1,
        pool_seed="fixed",
        selection="",
        epochs=(),
    )
    return replace(
        config,
        seed=0,
        optimizer=replace(config.optimizer, groups=groups, weight_decay=0.0),
        schedule=Choice(name=""),
        budget=replace(config.budget, epochs=1, batches_per_epoch=1),
        evaluation=evaluation,
        divergence_factor=1.0,
    )


def _kind_of(config: RunConfig) -> list[Any]:
    """By which models are alike where there are too many to try each."""
    return [sorted({pair.mechanism for pair in config.pairs}), config.audio.frontend, config.loss]


def _memory_checks(
    left: Sequence[PlannedRun],
    plans: dict[int, Plan],
    found: Sequence[State],
    target: torch.device,
    counted: dict[int, float],
) -> Iterator[Check]:
    """Memory of each distinct model on the device; seconds that each run still takes are noted."""
    a_step: dict[str, float] = {}
    for run in left:
        plan = plans[run.index]
        key = digest(_shape_of(plan.config))
        if key not in a_step:
            try:
                needs = estimate(plan.config, plan.store, target)
                check_memory(needs, target)
            except ConfigError as error:
                yield Check(name=f"memory of {run.label}", ok=False, detail=str(error))
                a_step[key] = 0.0
                continue
            a_step[key] = needs.seconds / max(1, plan.config.budget.updates)
        counted[run.index] = a_step[key] * max(0, run.updates - found[run.index].step)


def _time_checks(
    left: Sequence[PlannedRun],
    counted: Mapping[int, float],
    measured: Mapping[int, float],
    kind: str,
    minutes: float | None,
    requeues: int,
) -> Iterator[Check]:
    """The longest run against the limit of a task: as like runs took, else as operations tell."""
    took = {run.index: run for run in left if run.index in counted or run.index in measured}
    if not took:
        if left:
            yield Check(name="time", ok=True, detail=f"not known: {NO_GPU}, and {NO_LIKE}")
        return
    seconds = {index: measured.get(index, counted.get(index, 0.0)) for index in took}
    longest = max(seconds, key=lambda index: seconds[index])
    how = "measured" if longest in measured else "counted, not measured"
    total = sum(seconds.values())
    detail = (
        f"{took[longest].label} is the longest, about {seconds[longest] / 60:.0f} min on {kind} "
        f"({how}); all that is left, about {total / 3600:.1f} h"
    )
    if unknown := len(left) - len(took):
        detail += f", without {unknown} runs of which {NO_LIKE}"
    times = 0
    if minutes is not None:
        times = max(0, math.ceil(seconds[longest] / 60 / minutes) - 1)
        if times:
            detail += (
                f": it will be stopped and queued again about {times} times, after {minutes:.0f} min "
                "each"
            )
    dies = times > requeues
    remedy = f"a longer --time, or more --requeues than {requeues}" if dies else ""
    yield Check(name="time", ok=not dies, detail=detail, remedy=remedy)
