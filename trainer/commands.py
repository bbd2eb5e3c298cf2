"""What ``xmodal-train`` and ``xmodal-evaluate`` do, once their flags are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.config import to_plain
from pipeline.base.console import Console, program
from pipeline.descriptors import DESCRIPTORS
from pipeline.store import Store
from trainer import scoring
from trainer.arms import ARMS
from trainer.config import BudgetConfig
from trainer.devices import pick_device
from trainer.estimate import estimate
from trainer.export import check_exportable, export_run
from trainer.floors import BASELINE_FOLDER, Floor, floors_beside
from trainer.mechanisms import MECHANISMS
from trainer.model import build_model, parameter_inventory
from trainer.parallel import is_first
from trainer.plan import RunRequest, plan_run
from trainer.presets import preset_config
from trainer.records import check_protocols, parts_table, table
from trainer.request import settings_of
from trainer.resolve import with_pairs
from trainer.retrieval.pools import POOL_SIZE
from trainer.run import Run, open_run
from trainer.training import train

BOTH = ("paper", "strict")
MODELS = Path("models")


def show_plans(requests: Sequence[RunRequest], console: Console) -> None:
    """``--dry-run``: every resolved run, its parameters, what it would read and cost."""
    shown: list[tuple[dict[str, Any], str]] = []
    for request in requests:  # of a recipe: each from the one before
        shown.append(_show_plan(request, shown[-1][0]["signature"] if shown else None))
    data = [d for d, _ in shown]
    console.result(data if len(data) > 1 else data[0], "\n".join(text for _, text in shown))


def _show_plan(request: RunRequest, init: str | None) -> tuple[dict[str, Any], str]:
    plan = plan_run(request, init)
    data = {
        "folder": str(plan.folder),
        "arm": plan.arm,
        "signature": plan.signature,
        "reads": plan.reads,
        "parameters": plan.parameters,
        "trainable": plan.trainable,
        "updates": plan.config.budget.updates,
        "config": to_plain(plan.config),
    }
    device = pick_device(request.device)
    found = estimate(plan.config, plan.store, device)
    data["estimate"] = {**dataclasses.asdict(found), "needed_bytes": found.needed_bytes}
    lines = [
        f"{plan.folder}: {plan.config.preset}/{plan.config.size}, {plan.config.precision}, "
        f"{plan.config.budget.epochs} × {plan.config.budget.batches_per_epoch} × "
        f"{plan.config.budget.batch_size}, reads {', '.join(plan.reads)}",
        f"about {duration(found.seconds)} on {device.type} ({found.flops_a_step / 1e9:,.0f} GFLOP a "
        f"step), {found.needed_bytes / 1e9:.1f} GB of {found.available_bytes / 1e9:.1f} GB free "
        f"({found.activation_bytes / 1e9:.1f} GB for a batch, "
        f"{found.resident_bytes / 1e9:.1f} GB of data)",
        f"  {'module':<32} {'parameters':>12} {'trained':>12}",
        *(f"  {row.module:<32} {row.total:>12,} {row.trainable:>12,}" for row in plan.modules),
        "  settings (--set KEY=VALUE changes any of them)",
        *(f"  {line}" for line in settings_of(plan.config)),
    ]
    return data, "\n".join(lines)


def train_all(requests: Sequence[RunRequest], console: Console) -> None:
    """Train a run, or the stages of a recipe, each from the one before; score the last."""
    *first, last = requests
    init = last.init
    for request in first:
        init = _train(dataclasses.replace(request, init=init), console).path
    run = _train(dataclasses.replace(last, init=init), console)
    if not is_first():
        return
    store, evaluation = Store.open(last.store), run.config.evaluation
    records = scoring.score_run(run, store, "validation", BOTH, device=last.device)
    _print_scores(run, records, store, evaluation.pool_size, console)
    console.say(f"next: {program('xmodal-evaluate')} {run.path} --split test")
    if first:
        console.say(f"start others from it: {program('xmodal-train')} --init {run.path} …")


def _train(request: RunRequest, console: Console) -> Run:
    plan = plan_run(request)
    score = scoring.selection_score(plan.store, plan.config)
    updates = plan.config.budget.updates
    console.say(f"run: {plan.folder} ({plan.trainable:,} trainable parameters, {updates} updates)")
    with console.progress(f"train {plan.arm}", updates) as update:
        return train(plan, score, reporter(console, update, plan.config.budget))


def evaluate_run(
    path: Path,
    split: str,
    protocols: Sequence[str],
    store_path: Path | None,
    seed: int | None,
    pool_size: int | None,
    save_embeddings: Path | None,
    by: str | None,
    device: str,
    console: Console,
) -> None:
    """Score an existing run, or an exported model; ``by``: show its parts too."""
    run = open_run(path)
    if not run.finished:
        console.say(
            f"warning: {path} is not finished ({run.record['status']}): this scores its best model "
            "so far; the scores are removed when training ends"
        )
    store = scoring.own_store(run, console.say) if store_path is None else Store.open(store_path)
    records = scoring.score_run(
        run,
        store,
        split,
        protocols,
        device=device,
        seed=seed,
        pool_size=pool_size,
        save_embeddings=save_embeddings,
    )
    _print_scores(run, records, store, pool_size or run.config.evaluation.pool_size, console, by)


def evaluate_baseline(
    name: str,
    store_path: Path,
    split: str,
    protocols: Sequence[str],
    seed: int | None,
    pool_size: int | None,
    by: str | None,
    out: Path,
    console: Console,
) -> None:
    """Score a training-free baseline."""
    store = Store.open(store_path)
    with console.progress(f"{name} features", len(store.segments.of_split(split))) as update:
        check_protocols(protocols, seed)
        floor = Floor(
            name,
            store,
            split,
            cache=out / BASELINE_FOLDER,
            pool_size=pool_size or POOL_SIZE,
            progress=lambda done, total: update(done, ""),
        )
        records = [dict(floor.scored(protocol, seed).record) for protocol in protocols]
    rows = [(name, r) for r in records]
    console.result({"scores": records}, table(rows) + _parts(rows, by))


def export(
    path: Path, out: Path | None, store_path: Path | None, overwrite: bool, console: Console
) -> None:
    """Write a finished run as a folder of its own."""
    run = open_run(path)
    check_exportable(run)
    store = scoring.own_store(run, console.say) if store_path is None else Store.open(store_path)
    target = export_run(run, store, out or MODELS / run.path.name, overwrite=overwrite)
    console.result({"model": str(target)}, str(target))


def list_descriptors() -> tuple[list[dict[str, Any]], str]:
    """Descriptors that a mechanism may inject."""
    data = [
        {"name": n, "side": d.side, "axis": d.axis, "shape": d.shape(), "summary": d.summary}
        for n, d in DESCRIPTORS.items()
        if d.role == "descriptor"
    ]
    return data, "\n".join(
        f"{d['name']:<10} {d['side']:<6} {d['shape']:<12} {d['summary']}" for d in data
    )


def list_mechanisms() -> tuple[list[dict[str, Any]], str]:
    """Mechanisms, and what they take."""
    data = [
        {
            "name": n,
            "slot": m.slot,
            "takes": {s: list(a) for s, a in m.axes.items()},
            "summary": m.summary,
        }
        for n, m in MECHANISMS.items()
    ]
    return data, "\n".join(f"{d['name']:<16} {d['summary']}" for d in data)


def list_arms() -> tuple[list[dict[str, Any]], str]:
    """Named arms with their parameters at the paper's base size (method §4.4)."""
    data: list[dict[str, Any]] = []
    for name, pairs in ARMS.items():
        config = with_pairs(preset_config("paper", "base"), pairs)
        total = parameter_inventory(build_model(config, "meta"))[-1]
        data.append(
            {
                "name": name,
                "pairs": to_plain(pairs),
                "parameters": total.total,
                "trainable": total.trainable,
            }
        )
    return data, "\n".join(
        f"{d['name']:<9} {d['parameters']:>12,} {d['trainable']:>12,}  "
        + (" + ".join(f"{p['descriptor']} {p['mechanism']}" for p in d["pairs"]) or "no descriptor")
        for d in data
    )


LISTINGS: dict[str, Callable[[], tuple[list[dict[str, Any]], str]]] = {
    "descriptors": list_descriptors,
    "mechanisms": list_mechanisms,
    "arms": list_arms,
}


def _print_scores(
    run: Run,
    records: list[dict[str, Any]],
    store: Store,
    pool_size: int,
    console: Console,
    by: str | None = None,
) -> None:
    """The run's lines, and under each every training-free floor on the same pools."""
    cache = run.path.parent / BASELINE_FOLDER
    floors = floors_beside(records, store, cache, pool_size, console.say)
    rows: list[tuple[str, dict[str, Any]]] = []
    for i, record in enumerate(records):
        rows.append((run.path.name, record))
        rows += [(f"  floor: {name}", found[i]) for name, found in floors.items()]
    text = table(rows)
    if run.leaks:
        text += "\nno retrieval scores: this arm is given the item that it is asked to find"
    for i, record in enumerate(records):
        above = [name for name, found in floors.items() if found[i]["S"] > record["S"]]
        if above:
            text += f"\n{record['protocol']}: below the training-free {', '.join(above)}"
    text += _parts([(run.path.name, record) for record in records], by)
    console.result({"run": str(run.path), "scores": records, "floors": floors}, text)


def _parts(rows: Sequence[tuple[str, dict[str, Any]]], by: str | None) -> str:
    """Tables of the parts of scores, below the scores."""
    return "".join(f"\n\n{parts_table(*row, by)}" for row in rows) if by else ""


def reporter(
    console: Console, update: Callable[[float, str], None], budget: BudgetConfig
) -> Callable[[Any], None]:
    """Progress events as a bar, and a line per evaluation and epoch."""
    best = ""

    def step(event: dict[str, Any]) -> None:
        note = f"loss {event['loss']:.3f}{best}"
        if speed := event["segments_per_s"]:  # known after the second step
            left = (budget.updates - event["step"]) * budget.batch_size / speed
            note += f", {speed:.0f} segments/s, {duration(left)} left"
        update(event["step"], note)

    def evaluation(event: dict[str, Any]) -> None:
        nonlocal best
        best = f", best S {event['best_S']:.3f}"
        console.say(
            f"epoch {event['epoch']}: validation S {event['S']:.3f} (best {event['best_S']:.3f})"
        )

    def epoch(event: dict[str, Any]) -> None:
        memory = ", ".join(f"{k} {v / 1e9:.1f} GB" for k, v in event["peak_memory"].items())
        console.say(
            f"epoch {event['epoch']}: {event['segments_per_s']:.0f} segments/s, peak memory {memory}"
        )

    def resumed(event: dict[str, Any]) -> None:
        console.say(f"going on after step {event['step']}")

    def message(event: dict[str, Any]) -> None:
        console.say(f"{event['event']}: {event['message']}")

    handlers = {
        "step": step,
        "evaluation": evaluation,
        "epoch": epoch,
        "resumed": resumed,
        "warning": message,
        "finished": message,
    }
    return lambda event: handlers.get(event["event"], lambda _: None)(event)


def duration(seconds: float) -> str:
    """``42 s``, ``7 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
