"""What pictures of analyses have in common: bars with intervals, curves, matrices, quiet axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trainer.analyses.contract import Finding

COLOURS = ("#1f5f8b", "#c2542d", "#3f8f5b", "#8a5aa3", "#b08a1e", "#5b6770", "#d07aa8", "#2aa5a0")
INK, FAINT = "#1b2733", "#c3cbd3"
Bounds = tuple[float, float] | None


class Point(NamedTuple):
    """One point of a curve, and its interval."""

    x: float
    y: float
    low: float | None
    high: float | None


def point(x: float, effect: Mapping[str, Any], before: float) -> Point:
    """A point of S; the interval is that of its difference to the unchanged score."""
    if effect["ci95"] is None:
        return Point(x, effect["S"], None, None)
    return Point(x, effect["S"], before + effect["ci95"][0], before + effect["ci95"][1])


def with_doubt(label: str, findings: Iterable[Finding]) -> str:
    """An axis' label that says what the drawn intervals are of."""
    conditions = [c for f in findings for c in f.conditions.values() if c.get("ci95")]
    kinds = " or ".join(sorted({c["ci_kind"] for c in conditions}))
    return f"{label}, 95 % by {kinds}" if kinds else label


def quiet(axes: Axes, *, grid: Literal["x", "y"] | None = "y") -> None:
    """Axes that leave the eye to the data."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8)
    if grid:
        axes.grid(axis=grid, color=FAINT, linewidth=0.5)
        axes.set_axisbelow(True)


def grouped_bars(
    figure: Figure, groups: Mapping[str, Mapping[str, tuple[float, Bounds]]], label: str
) -> None:
    """Horizontal bars, a panel for every group (run), one bar for every name, shared by all.

    Values are fractions 0–1; bounds are drawn as whiskers.
    """
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    columns = min(3, max(1, len(groups)))
    rows = math.ceil(len(groups) / columns)
    figure.set_size_inches(
        max(5.0, 1.8 + 3.0 * columns), rows * (0.9 + 0.26 * len(names)), forward=False
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in panels.flat[len(groups) :]:
        axes.set_visible(False)
    for i, (group, bars) in enumerate(groups.items()):
        axes = panels.flat[i]
        place = [names.index(name) for name in bars]
        values = [value for value, _ in bars.values()]
        axes.barh(place, values, height=0.62, color=COLOURS[i % len(COLOURS)])
        for at, (value, bounds) in zip(place, bars.values(), strict=True):
            edge = value
            if bounds is not None:
                axes.plot(bounds, [at, at], color=INK, linewidth=1)
                edge = max(value, bounds[1])
            axes.text(edge + 0.02, at, f"{value:.2f}", va="center", fontsize=7, color=INK)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis() if i == 0 else None
        axes.set_xlim(0, 1.15)
        axes.set_xlabel(label, fontsize=8)
        axes.set_title(group, fontsize=9, loc="left")
        quiet(axes, grid="x")


def curves(figure: Figure, panels: Mapping[str, Mapping[str, Sequence[Point]]], label: str) -> None:
    """A panel for every family, a line for every run; intervals as bands."""
    columns = min(2, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure.set_size_inches(4.2 * columns, 0.4 + 2.6 * rows, forward=False)
    drawn = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in drawn.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (family, lines) in zip(drawn.flat, panels.items(), strict=False):
        for i, (name, points) in enumerate(lines.items()):
            ordered = sorted(points)
            x = [p.x for p in ordered]
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(x, [p.y for p in ordered], "o-", ms=3, lw=1.3, color=colour, label=name)
            low = [p.y if p.low is None else p.low for p in ordered]
            high = [p.y if p.high is None else p.high for p in ordered]
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(family, fontsize=8)
        axes.set_ylabel(label, fontsize=8)
        quiet(axes)
    names = drawn.flat[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside upper center", ncols=4, fontsize=8, frameon=False)


def matrix(
    axes: Axes,
    values: npt.NDArray[np.floating],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    low: float = 0.0,
    high: float = 1.0,
    numbers: str | None = "{:.2f}",
) -> None:
    """A heat map with its numbers in the cells."""
    axes.imshow(values, cmap="YlGnBu", vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    if numbers is not None:
        for (i, j), value in np.ndenumerate(values):
            dark = (value - low) / max(high - low, 1e-12) > 0.6
            axes.text(
                j, i, numbers.format(value), ha="center", va="center", fontsize=7,
                color="white" if dark else INK,
            )  # fmt: skip
    axes.tick_params(length=0)
