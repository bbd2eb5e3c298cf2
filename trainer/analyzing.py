"""What ``xmodal-analyze`` and ``xmodal-compare`` do, once their flags are read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.base.config import to_plain
from pipeline.base.console import Console
from pipeline.base.errors import RunError, UsageError
from pipeline.base.files import atomic_write, write_json
from pipeline.base.html import number
from pipeline.store.reader import Store
from trainer.analyses import ANALYSES
from trainer.analyses.bench import Bench
from trainer.analyses.comparison import (
    Comparison,
    compare_runs,
    comparison_table,
    draw_comparison,
    grouped,
)
from trainer.analyses.contract import Table, Variant
from trainer.analyses.driver import (
    Outcome,
    analyze,
    draw,
    labels,
    require_pictures,
    save_figure,
)
from trainer.analyses.floor_bench import FloorBench
from trainer.analyses.page import page
from trainer.analyses.subject import PROTOCOL_OF, Subject
from trainer.devices import pick_device
from trainer.floors import BASELINE_FOLDER, FLOOR, Floor, telling
from trainer.records import common_seed
from trainer.retrieval.baselines import BASELINES
from trainer.retrieval.gallery import RetrievalError
from trainer.run import open_run
from trainer.scoring import own_store

ALL = "all"
VARIANTS: tuple[Variant, ...] = ("paper", "sound")


def list_analyses(console: Console) -> None:
    """What there is to ask."""
    data = [
        {"name": n, "question": a.question, "variants": {str(k): v for k, v in a.variants.items()}}
        for n, a in ANALYSES.items()
    ]
    console.result(data, "\n".join(f"{d['name']:<14} {d['question']}" for d in data))


def analyze_runs(
    name: str,
    paths: Sequence[Path],
    *,
    variants: Sequence[Variant],
    split: str,
    store_path: Path | None,
    out: Path,
    device: str,
    console: Console,
    baselines: Sequence[str] = (),
) -> None:
    """One analysis, or all of them and the page; floors beside the runs where they can be asked."""
    chosen = [a for _, a in ANALYSES.items()] if name == ALL else [ANALYSES.get(name)]
    if baselines and not any(a.of_floors for a in chosen):
        able = ", ".join(n for n, a in ANALYSES.items() if a.of_floors)
        raise UsageError(f"{name} has nothing to ask a floor; with --baseline: {able}")
    require_pictures()
    benches = _benches(paths, split, store_path, device, console, trains=name != ALL)
    subjects: list[Subject] = [*benches, *_floors(baselines, benches[0])]
    total = len(chosen) * len(subjects)
    asked = _counted(len(benches), "run")
    if baselines:
        asked += f" and {_counted(len(subjects) - len(benches), 'floor')}"
    with console.progress(f"{name} of {asked}", total) as update:
        found = analyze(chosen, subjects, variants, console.say, update)
    outcomes = [(outcome, draw(outcome, out)) for outcome in found]
    for outcome in found:
        write_json(out / f"{outcome.name}.json", outcome.plain())
    if not outcomes:
        (analysis,) = chosen
        raise UsageError(f"{name} has no such variant; it has: {', '.join(analysis.variants)}")
    if all(not outcome.findings for outcome, _ in outcomes):
        reasons = {why for o, _ in outcomes for why in o.refused.values()}
        raise RunError(f"nothing could be analysed: {'; '.join(sorted(reasons))}")
    text = "\n\n".join(
        f"{o.analysis.title} ({o.variant})\n{as_text(o.analysis.table(o.findings, o.variant))}"
        + (f"\n→ {picture}" if picture else "")
        for o, picture in outcomes
        if o.findings
    )
    data: dict[str, Any] = {"analyses": [o.plain() for o, _ in outcomes]}
    if name == ALL:
        path = write_page(benches, outcomes, variants, out, console)
        data["page"] = str(path)
        text += f"\n\n→ {path}"
    console.result(data, text)


def write_page(
    benches: Sequence[Bench],
    outcomes: Sequence[tuple[Outcome, Path | None]],
    variants: Sequence[Variant],
    out: Path,
    console: Console,
) -> Path:
    """``index.html``: scores beside every floor, differences, all analyses."""
    first = benches[0]
    cache = first.run.path.parent / BASELINE_FOLDER
    scores: list[tuple[str, dict[str, Any]]] = []
    missing: list[str] = []
    compared: list[tuple[str, Table, Path | None]] = []
    size = first.run.config.evaluation.pool_size
    floors = {
        name: Floor(name, first.store, first.split, cache=cache, pool_size=size)
        for name in BASELINES
    }
    for variant in variants:
        protocol = PROTOCOL_OF[variant]
        seed = common_seed(protocol)
        asked: list[tuple[str, Bench | Floor]] = [
            *zip(labels(benches), benches, strict=True),
            *((f"floor: {name}", floor) for name, floor in floors.items()),
        ]
        for label, scored in asked:
            try:
                scores.append((label, dict(scored.scored(protocol, seed).record)))
            except RetrievalError as error:  # the page has more to say than scores
                missing.append(f"{label} has no scores under {protocol}: {error}")
                console.say(missing[-1])
        try:
            comparisons = compare_runs(benches, protocol, baselines=[FLOOR], cache=cache)
        except RetrievalError as error:
            console.say(f"no differences under {protocol}: {error}")
            continue
        picture = out / f"differences-{protocol}.png"
        save_figure(partial(draw_comparison, comparisons), picture)
        compared.append((protocol, comparison_table(comparisons), picture))
    text = page(benches, scores, compared, outcomes, missing)
    path = out / "index.html"
    with atomic_write(path, "w") as handle:
        handle.write(text)
    return path


def compare_all(
    paths: Sequence[Path],
    *,
    split: str,
    protocols: Sequence[str],
    baselines: Sequence[str],
    store_path: Path | None,
    out: Path | None,
    device: str,
    console: Console,
) -> None:
    """Groups of runs beside the first group, and beside baselines."""
    benches = _benches(paths, split, store_path, device, console)
    runs, first = [bench.run for bench in benches], benches[0]
    if len(grouped(runs)) < 2 and not baselines:
        raise UsageError(
            "all runs have one configuration but for the seed: there is nothing to compare them with; "
            "give runs of another arm, or --baseline NAME"
        )
    if out is not None:
        require_pictures()
    cache = first.run.path.parent / BASELINE_FOLDER
    parts, data = [], {}
    for protocol in protocols:
        comparisons: list[Comparison] = compare_runs(
            benches, protocol, baselines=baselines, cache=cache
        )
        data[protocol] = [to_plain(c) for c in comparisons]
        parts.append(f"{protocol}, {split}\n{as_text(comparison_table(comparisons))}")
        if out is not None:
            name = f"differences-{protocol}"
            write_json(out / f"{name}.json", data[protocol])
            save_figure(partial(draw_comparison, comparisons), out / f"{name}.png")
    console.result(data, "\n\n".join(parts))


def _benches(
    paths: Sequence[Path],
    split: str,
    store_path: Path | None,
    device: str,
    console: Console,
    *,
    trains: bool = False,
) -> list[Bench]:
    """The runs, all finished, on one store."""
    if not paths:
        raise UsageError("give at least one folder of a run")
    target = pick_device(device)
    benches: list[Bench] = []
    for path in dict.fromkeys(paths):
        run = open_run(path)
        if not run.finished:
            raise RunError(
                f"{path} is not finished ({run.record['status']}); repeat its xmodal-train command"
            )
        store = own_store(run, console.say) if store_path is None else Store.open(store_path)
        benches.append(Bench(run, store, split, target, console.say, trains=trains))
    stores = {(b.store.identity, b.store.grouping): b.store.path for b in benches}
    if len(stores) > 1:
        raise UsageError(
            "the runs were trained on different stores, whose segments are not the same: "
            f"{', '.join(str(p) for p in stores.values())}; to analyse them on one: --store DIR"
        )
    return benches


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def _floors(names: Sequence[str], bench: Bench) -> list[FloorBench]:
    """Baselines on what a run is asked about, each once."""
    return [
        FloorBench(
            Floor(
                name,
                bench.store,
                bench.split,
                cache=bench.run.path.parent / BASELINE_FOLDER,
                pool_size=bench.pool_size,
                progress=telling(name, bench.report),
            ),
            bench.report,
        )
        for name in dict.fromkeys(names)
    ]


def as_text(table: Table) -> str:
    """Aligned columns; numbers to three digits."""
    shown = [[_cell(value) for value in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(table.head, *shown, strict=True)]
    lines = [table.head, *shown]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return number(round(value, 3) if abs(value) < 100 else value)
    return "–" if value is None else number(value) if isinstance(value, int) else str(value)
