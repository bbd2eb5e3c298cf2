"""The pictures of docs/results.md, drawn from the JSON that the reproduction wrote.

python -m docs.result_figures
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.common import RESULTS
from docs.figures import FAINT, IMAGES, INK, WARM
from trainer.analyses.invariance import Invariance
from trainer.analyses.pictures import Point, curves, point

COOL = "#2f6f8f"
Data = Mapping[str, Any]


def main() -> None:
    """Draw what has been measured."""
    plt.rcParams.update({"font.size": 10, "axes.edgecolor": FAINT, "axes.labelcolor": INK})
    for tier in ("gpu", "cpu", "strong"):
        file = RESULTS / f"reproduce-{tier}.json"
        if not file.is_file():
            continue
        data = json.loads(file.read_text(encoding="utf-8"))
        campaign = data["campaigns"][0]
        draw_boards(campaign["boards"], IMAGES / f"results-{tier}.png")
        if data["real"]:
            draw_real(data["real"], IMAGES / f"results-{tier}-real.png")
        if campaign["order"]:
            draw_order(campaign, IMAGES / f"results-{tier}-order.png")
        if ablations := [t for t in data["analyses"] if t["analysis"] == "ablation"]:
            draw_ablation(ablations, IMAGES / f"results-{tier}-ablation.png")
        for table in data["analyses_on_real"]:
            if (table["analysis"], table["variant"]) == ("invariance", "sound"):
                draw_invariance(table, IMAGES / f"results-{tier}-invariance.png")


def draw_boards(boards: Sequence[Data], path: Path) -> None:
    """Arms and floors of the test split, by either protocol, with 95 % intervals."""
    shown = [board for board in boards if board["split"] == "test"]
    first = max(shown, key=lambda board: board["protocol"] == "strict")
    names = [arm["arm"] for arm in sorted(first["arms"], key=lambda arm: fmean(arm["S"]))]
    rows = len(names) + len(first["floors"])
    figure, axes = plt.subplots(
        1, len(shown), figsize=(10, 0.32 * rows + 1.4), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, board in zip(axes[0], shown, strict=True):
        floors = sorted(board["floors"], key=lambda name: fmean(first["floors"][name]["S"]))
        lines = [(f"floor: {n}", board["floors"][n]["S"], board["floor_interval"][n]["ci95"], FAINT)
                 for n in floors]  # fmt: skip
        arms = {arm["arm"]: arm for arm in board["arms"]}
        lines += [
            (n + (" (leaks)" if arms[n]["leaks"] else ""), arms[n]["S"], arms[n]["interval"],
             WARM if len(arms[n]["seeds"]) > 1 else COOL)
            for n in names
        ]  # fmt: skip
        _dots(axis, lines)
        axis.set_title(f"{board['protocol']} protocol, test split", color=INK)
        axis.set_xlabel("S: R@10, the lower direction")
    figure.suptitle(
        "Seeds, their mean and its 95 % interval (blue: one seed, an interval of its queries)",
        color=INK,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_real(real: Data, path: Path) -> None:
    """Recordings of a real piano, strict protocol: three metrics, every seed."""
    floors, arms = real["floors"], real["arms"]
    order = [(f"floor: {n}", found["strict"], FAINT) for n, found in floors.items()]
    order.sort(key=lambda line: fmean(line[1]["S"]))
    learnt = [(n, found["strict"], WARM if len(found["strict"]["S"]) > 1 else COOL)
              for n, found in arms.items()]  # fmt: skip
    order += sorted(learnt, key=lambda line: fmean(line[1]["S"]))
    metrics = {"S": "S", "R@1": "R@1", "no_copy_R@1": "R@1 without copies"}
    figure, axes = plt.subplots(
        1, 3, figsize=(10, 0.32 * len(order) + 1.4), sharey=True, layout="constrained"
    )
    queries = next(iter(arms.values()))["strict"]["queries"]
    for axis, (metric, title) in zip(axes, metrics.items(), strict=True):
        # Near 1 a score's distance to it is what differs; half a query stands for none.
        missed = [
            (name, [max(1 - v, 0.5 / queries) for v in found[metric]], None, colour)
            for name, found, colour in order
        ]
        _dots(axis, missed)
        axis.set_xscale("log")
        axis.invert_xaxis()
        low, high = sorted(axis.get_xlim())
        wide = high / low > 300  # then there is no room for all three
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(axis="x", labelsize=8)
        axis.set_xlabel(f"queries missed (1 − {metric.rpartition('_')[2]}), log")
        axis.set_title(title, color=INK)
    figure.suptitle(
        f"A real piano that no training heard: {queries:,} queries, strict protocol, every seed; "
        "better is to the right",
        color=INK,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_order(campaign: Data, path: Path) -> None:
    """Each arm's score here over its recorded one, by protocol."""
    recorded, by = campaign["order"]["recorded"], campaign["order"]["by"]
    shown = [b for b in campaign["boards"] if f"{b['protocol']}-{b['split']}" in by]
    shown = [board for board in shown if board["split"] == "test"] or shown
    figure, axes = plt.subplots(
        1, len(shown), figsize=(5 * len(shown), 4.4), squeeze=False, layout="constrained"
    )
    for axis, board in zip(axes[0], shown, strict=True):
        found = by[f"{board['protocol']}-{board['split']}"]
        for arm in board["arms"]:
            if arm["arm"] in found["arms"]:
                x, y = recorded[arm["arm"]], fmean(arm["S"])
                axis.plot(x, y, "o", color=WARM if len(arm["seeds"]) > 1 else COOL)
                axis.annotate(arm["arm"], (x, y), (4, 4), textcoords="offset points", color=INK)
        title = f"{board['protocol']} protocol"
        if found["spearman"] is not None:
            low, high = found["ci95"]
            title += f": Spearman {found['spearman']:+.2f} [{low:+.2f}, {high:+.2f}]"
        axis.set_title(title, color=INK)
        axis.set_xlabel("S as recorded by the reference")
        axis.set_ylabel("S here")
        axis.margins(0.12)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_ablation(tables: Sequence[Data], path: Path) -> None:
    """What S loses when a descriptor is replaced, by either variant, with 95 % intervals."""
    figure, axes = plt.subplots(
        1, len(tables), figsize=(10, 0.3 * max(len(t["rows"]) for t in tables) + 1.2),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axis, table in zip(axes[0], tables, strict=True):
        at = {name: i for i, name in enumerate(table["head"])}
        rows = [r for r in table["rows"] if r[at["ΔS"]] is not None][::-1]
        _dots(
            axis,
            [
                (f"{r[at['run']]}: {r[at['condition']]}", [r[at["ΔS"]]],
                 (r[at["from"]], r[at["to"]]), WARM)
                for r in rows
            ],
        )  # fmt: skip
        axis.axvline(0, color=FAINT, linewidth=1)
        axis.set_title(f"ablation, {table['variant']} variant", color=INK)
        axis.set_xlabel("change of S")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_invariance(table: Data, path: Path) -> None:
    """S of arms and floors over how much one side is changed, a panel for every kind of change."""
    rows = {row[0]: row for row in table["rows"]}
    before = rows.pop("unchanged")
    panels: dict[str, dict[str, list[Point]]] = {}
    for name, row in rows.items():
        family, _, level = name.rpartition(" ")
        for at, head in enumerate(table["head"]):
            if head.startswith("S "):  # after it: the difference, from, to
                effect = {"S": row[at], "ci95": (row[at + 2], row[at + 3])}
                line = panels.setdefault(family, {}).setdefault(head.removeprefix("S "), [])
                line.append(point(float(level), effect, before[at]))
    for family, still in Invariance.still.items():
        for at, head in enumerate(table["head"]):
            if head.startswith("S "):
                panels[family][head.removeprefix("S ")].append(Point(still, before[at], None, None))
    figure = Figure(layout="constrained")
    curves(figure, panels, "S, 95 % by recordings")
    figure.savefig(path, dpi=110)


def _dots(
    axis: Axes, lines: Sequence[tuple[str, Sequence[float], Sequence[float] | None, str]]
) -> None:
    """One row each: every value a faint dot, their mean a strong one, the interval a bar."""
    for y, (_, values, interval, colour) in enumerate(lines):
        if interval is not None:
            axis.plot(interval, [y, y], color=colour, linewidth=2, solid_capstyle="round")
        if len(values) > 1:
            axis.plot(values, [y] * len(values), "o", color=colour, markersize=4, alpha=0.35)
        axis.plot(fmean(values), y, "o", color=colour, markersize=6)
    axis.set_yticks(range(len(lines)), [name for name, *_ in lines])
    axis.set_ylim(-0.6, len(lines) - 0.4)
    axis.grid(axis="x", color=FAINT, alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
