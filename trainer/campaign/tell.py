"""What ``xmodal-sweep`` says and does, once its flags are read."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.base.config import to_plain
from pipeline.base.console import Console
from pipeline.base.errors import ConfigError, StoreError
from trainer.campaign.cost import Cost, left_to_do
from trainer.campaign.launch import last_error
from trainer.campaign.manifest import known_campaigns, read_campaign
from trainer.campaign.slurm import queue_states
from trainer.campaign.state import STATUSES, State, states
from trainer.campaign.sweep import PlannedRun, Sweep


def campaigns(console: Console) -> None:
    """Name, size and title of every campaign that comes with xmodal."""
    data = []
    for name in known_campaigns():
        campaign = read_campaign(name)
        data.append({"name": name, "title": campaign.title, "corpus": campaign.corpus})
    width = max(len(d["name"]) for d in data)
    console.result(data, "\n".join(f"{d['name']:<{width}}  {d['title']}" for d in data))


def plan(sweep: Sweep, console: Console) -> None:
    """Every run, what it reads, and what is left to compute."""
    found = _states(sweep)
    cost = left_to_do(sweep, found)
    text = [f"{sweep.title}: {len(sweep.runs)} runs on {sweep.store_name}", sweep.summary, ""]
    text += [*_lines(sweep, found), "", _count(found), cost.words()]
    if sweep.skipped:
        text.append(f"left out because they cannot be: {len(sweep.skipped)}")
        text += [f"  {s.what}: {s.why}" for s in sweep.skipped]
    if sweep.missing:
        text.append(f"first: {_add(sweep)}")
    console.result(_data(sweep, found, cost), "\n".join(text))


def status(sweep: Sweep, console: Console) -> None:
    """Where every run stands, shortly; also what the queue says of those that are not done."""
    found = _states(sweep)
    queued = queue_states(sweep, console.say)
    for run, state in zip(sweep.runs, found, strict=True):
        if state.status != "done" and (word := queued.get(run.index)):
            note = "; ".join(filter(None, [f"in the queue: {word}", state.note]))
            found[run.index] = dataclasses.replace(state, note=note)
    cost = left_to_do(sweep, found)
    console.result(
        _data(sweep, found, cost),
        "\n".join([*_lines(sweep, found), _count(found), cost.words()]),
    )


def refuse_missing(sweep: Sweep) -> None:
    """Nothing is begun on a store that lacks what some run reads.

    Raises
    ------
    StoreError
        with the command that adds it.
    """
    if sweep.missing:
        raise StoreError(
            f"{sweep.store} lacks {', '.join(sweep.missing)}; add them with: {_add(sweep)}",
            kind="no-array",
        )


def devices(device: str, gpus: str | None) -> tuple[str, list[str]]:
    """``cpu`` or ``cuda``, and which GPUs."""
    import torch

    from trainer.devices import pick_device

    if ":" in device:
        raise ConfigError(f"--device {device}: say which GPUs with --gpus, such as --gpus 1")
    kind = pick_device(device).type
    if kind == "cpu":
        return kind, []
    count = torch.cuda.device_count()
    known = gpus or os.environ.get("CUDA_VISIBLE_DEVICES", "")  # what the system allots
    named = [g.strip() for g in known.split(",") if g.strip()]
    return kind, (named if gpus else named[:count]) or [str(i) for i in range(count)]


def task(
    sweep: Sweep,
    run: PlannedRun,
    store: Path | None,
    device: str,
    threads: int | None,
    memory: int | None,
    console: Console,
) -> None:
    """One run, told line by line: logs of a queue are files."""
    from trainer.campaign.work import do_run, with_threads
    from trainer.commands import reporter
    from trainer.config import BudgetConfig

    with_threads(threads)
    console.say(f"{run.label}: {sweep.path(run)}")
    budget: dict[str, Any] = run.config["budget"]
    with console.progress(f"train {run.arm}", run.updates) as update:
        report = reporter(console, update, BudgetConfig(**budget))
        done = do_run(sweep, run, store=store, device=device, memory=memory, report=report)
    best = done.record.get("best", {}).get("S")
    console.result({"run": str(done.path), "S": best}, f"{done.path}: S {best:.3f}")


def _states(sweep: Sweep) -> list[State]:
    """Of every run; on a disk that was full to the last byte only a log may tell why one stopped."""
    found = states(sweep)
    for run, state in zip(sweep.runs, found, strict=True):
        if state.status == "stopped" and not state.note and (error := last_error(sweep, run)):
            found[run.index] = dataclasses.replace(state, note=error)
    return found


def _lines(sweep: Sweep, found: list[State]) -> list[str]:
    width = max(len(run.label) for run in sweep.runs)
    lines = []
    for run, state in zip(sweep.runs, found, strict=True):
        score = f"S {state.S:.3f}" if state.S is not None else ""
        steps = f"{state.step:,}/{run.updates:,}"
        lines.append(
            f"{run.index:>4}  {run.label:<{width}}  {state.status:<8} {steps:>15}  {score:<8} "
            f"{run.folder}  {state.note}".rstrip()
        )
    return lines


def _count(found: list[State]) -> str:
    counts = Counter(state.status for state in found)
    return ", ".join(f"{counts[s]} {s}" for s in STATUSES if counts[s]) + f" of {len(found)}"


def _add(sweep: Sweep) -> str:
    return f"xmodal-features add {sweep.store} --descriptors {','.join(sweep.missing)}"


def _data(sweep: Sweep, found: list[State], cost: Cost) -> dict[str, Any]:
    runs = []
    fields = [name for name in PlannedRun.__slots__ if name != "config"]
    for run, state in zip(sweep.runs, found, strict=True):
        plain = {k: getattr(run, k) for k in fields}
        runs.append({**plain, "state": {k: getattr(state, k) for k in State.__slots__}})
    return {
        "campaign": sweep.name,
        "title": sweep.title,
        "store": sweep.store,
        "out": sweep.out,
        "plan": str(sweep.folder / "plan.json"),
        "counts": dict(Counter(s.status for s in found)),
        "left": dataclasses.asdict(cost),
        "missing_arrays": sweep.missing,
        "skipped": to_plain(sweep.skipped),
        "runs": runs,
    }
