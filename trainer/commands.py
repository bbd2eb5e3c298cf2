"""What ``xmodal-train`` and ``xmodal-evaluate`` do, once their flags are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.config import from_plain, load_toml, merge, to_plain
from pipeline.base.console import Console, program
from pipeline.base.errors import ConfigError, StoreError
from pipeline.descriptors import DESCRIPTORS
from pipeline.store import Store, find_newest
from trainer import scoring
from trainer.arms import ARMS, arm_pairs, with_pairs
from trainer.config import PRESETS, SIZES, RunConfig
from trainer.devices import default_precision, default_size, pick_device
from trainer.mechanisms import MECHANISMS
from trainer.model import build_model, parameter_inventory
from trainer.presets import preset_config
from trainer.run import Run, RunRequest, open_run, plan_run, train

BOTH = ("paper", "strict")
FEATURES = Path("data/features")
BASELINE_FOLDER = "baselines"


def run_request(
    *,
    store: Path | None,
    out: Path,
    pairs: Sequence[tuple[str, str]],
    arm: str | None,
    preset: str | None,
    size: str | None,
    seed: int | None,
    init: Path | None,
    device: str,
    precision: str,
    compiled: bool,
    overwrite: bool,
    deterministic: bool,
    config: Path | None,
    over: dict[str, Any],
    console: Console,
) -> RunRequest:
    """Preset ← ``--config`` file ← flags, resolved; says what was chosen for the user."""
    target = pick_device(device)
    file = load_toml(config) if config else {}
    if store is None:
        store = find_newest(FEATURES)
        console.say(f"store: {store} (the newest in {FEATURES})")
    # The file may say what it is laid over, where no flag does.
    preset = preset or _one_of("preset", file.get("preset", "sound"), PRESETS)
    if size is None and "size" in file:
        size = _one_of("size", file["size"], SIZES)
    if size is None:
        size = default_size(target)
        console.say(f"size: {size} (device {target.type})")
    if arm is not None:
        pairs = arm_pairs(arm)
    base: Any = preset_config(preset, size)  # type: ignore[arg-type]
    plain = merge(merge(to_plain(base), file), {"preset": preset, "size": size})
    plain = merge(plain, _given({**over, "seed": seed}))
    if precision != "auto":
        plain["precision"] = precision
    elif "precision" not in file:
        # The paper's numbers are float32's; asking for another format is up to the user.
        plain["precision"] = base.precision if preset == "paper" else default_precision(target)
    resolved = from_plain(RunConfig, plain)
    chosen: Sequence[Any] = resolved.pairs if arm is None and not pairs else pairs
    resolved = with_pairs(dataclasses.replace(resolved, pairs=()), chosen)
    return RunRequest(
        config=resolved,
        store=store,
        out=out,
        device=device,
        overwrite=overwrite,
        deterministic=deterministic,
        compiled=compiled,
        init=init,
    )


def show_plan(request: RunRequest, console: Console) -> None:
    """``--dry-run``: the resolved run, its parameters and what it would read."""
    plan = plan_run(request)
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
    inventory = parameter_inventory(build_model(plan.config, "meta"))
    lines = [
        f"{plan.folder}: {plan.config.preset}/{plan.config.size}, {plan.config.precision}, "
        f"{plan.config.budget.epochs} × {plan.config.budget.batches_per_epoch} × "
        f"{plan.config.budget.batch_size}, reads {', '.join(plan.reads)}",
        *(f"  {row.module:<32} {row.total:>12,} {row.trainable:>12,}" for row in inventory),
    ]
    console.result(data, "\n".join(lines))


def train_and_score(request: RunRequest, console: Console) -> None:
    """Train (or go on), then score both protocols on validation beside the floor."""
    store = Store.open(request.store)
    evaluation = request.config.evaluation
    plan = plan_run(request)
    score = scoring.selection_score(store, plan.config)
    console.say(
        f"run: {plan.folder} ({plan.trainable:,} trainable parameters, "
        f"{plan.config.budget.updates} updates)"
    )
    with console.progress(f"train {plan.arm}", plan.config.budget.updates) as update:
        run = train(request, score, _reporter(console, update))
    records = scoring.score_run(run, store, "validation", BOTH, device=request.device)
    _print_scores(run, records, store, evaluation.pool_size, console)
    console.say(f"next: {program('xmodal-evaluate')} {run.path} --split test")


def evaluate_run(
    path: Path,
    split: str,
    protocols: Sequence[str],
    store_path: Path | None,
    seed: int | None,
    pool_size: int | None,
    save_embeddings: Path | None,
    device: str,
    console: Console,
) -> None:
    """Score an existing run."""
    run = open_run(path)
    if not run.finished:
        console.say(
            f"warning: {path} is not finished ({run.record['status']}): this scores its best model "
            "so far; the scores are removed when training ends"
        )
    store = _store_of(run) if store_path is None else Store.open(store_path)
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
    _print_scores(run, records, store, pool_size or run.config.evaluation.pool_size, console)


def evaluate_baseline(
    name: str,
    store_path: Path,
    split: str,
    protocols: Sequence[str],
    seed: int | None,
    pool_size: int | None,
    out: Path,
    console: Console,
) -> None:
    """Score a training-free baseline."""
    store = Store.open(store_path)
    with console.progress(f"{name} features", len(store.segments.of_split(split))) as update:
        records = scoring.score_baseline(
            name,
            store,
            split,
            protocols,
            cache=out / BASELINE_FOLDER,
            seed=seed,
            pool_size=pool_size or 256,
            progress=lambda done, total: update(done, ""),
        )
    console.result({"scores": records}, scoring.table([(name, r) for r in records]))


def _store_of(run: Run) -> Store:
    """The store that a run was trained on, still where and what it was."""
    try:
        store = Store.open(run.store_path)
    except StoreError as error:
        raise StoreError(
            f"{error} (the store of the run {run.path}; if it was moved: --store DIR)",
            kind=error.kind,
        ) from None
    if not scoring.reads_same(run, store):
        raise StoreError(
            f"{store.path} is not the store that {run.path} was trained on: it was built again from "
            f"other data or descriptors; to score on it all the same: --store {store.path}",
            kind="changed",
        )
    return store


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
                "pairs": [{"descriptor": d, "mechanism": m} for d, m in pairs],
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
) -> None:
    """The run's lines, and under each the training-free floor on the same pools."""
    floors = scoring.floors(records, store, run.path.parent / BASELINE_FOLDER, pool_size)
    rows: list[tuple[str, dict[str, Any]]] = []
    for i, record in enumerate(records):
        rows.append((run.path.name, record))
        if floors:
            rows.append((f"  floor: {scoring.FLOOR}", floors[i]))
    below = [r["protocol"] for r, f in zip(records, floors, strict=False) if r["S"] < f["S"]]
    text = scoring.table(rows)
    if below:
        text += f"\nbelow the training-free floor under: {', '.join(below)}"
    console.result({"run": str(run.path), "scores": records, "floor": floors}, text)


def _reporter(console: Console, update: Callable[[float, str], None]) -> Callable[[Any], None]:
    """Progress events as a bar and a line per evaluation."""

    def step(event: dict[str, Any]) -> None:
        speed = f"{event['segments_per_s']:.0f} segments/s"
        update(event["step"], f"loss {event['loss']:.3f}, {speed}")

    def evaluation(event: dict[str, Any]) -> None:
        console.say(
            f"epoch {event['epoch']}: validation S {event['S']:.3f} (best {event['best_S']:.3f})"
        )

    def resumed(event: dict[str, Any]) -> None:
        console.say(f"going on after step {event['step']}")

    def message(event: dict[str, Any]) -> None:
        console.say(f"{event['event']}: {event['message']}")

    handlers = {
        "step": step,
        "evaluation": evaluation,
        "resumed": resumed,
        "warning": message,
        "finished": message,
    }
    return lambda event: handlers.get(event["event"], lambda _: None)(event)


def _one_of(name: str, value: Any, known: Sequence[str]) -> str:
    if value not in known:
        raise ConfigError(f"config.{name} = {value!r}: must be one of {', '.join(known)}")
    return str(value)


def _given(over: dict[str, Any]) -> dict[str, Any]:
    """Only the values that were given."""
    cleaned = {
        key: _given(value) if isinstance(value, dict) else value for key, value in over.items()
    }
    return {key: value for key, value in cleaned.items() if value not in (None, {})}
