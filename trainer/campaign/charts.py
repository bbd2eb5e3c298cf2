"""Pictures of a campaign, as SVG in the page's own colours: strips, heat maps, labelled points.

``pipeline.base.charts`` draws curves; these need names beside the data. Everything is drawn in user
units that are about pixels; the page scales it down where it is narrow. What stands in ``tip`` is
shown when the pointer rests on a mark.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from pipeline.base.charts import nice_ticks
from pipeline.base.html import Html, join, number, tag

WIDTH, ROW, TOP, BOTTOM, RIGHT = 860, 22, 6, 40, 16
LETTER = 7.2  # about the width of a letter of a name
CELL, CELL_HEIGHT = 76, 30
COLOURS = 6
Place = Callable[[float], float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A point on a strip; hollow ones are other people's."""

    x: float
    tip: str = ""
    colour: int = 0
    hollow: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """One line of :func:`strips`: its name, points, perhaps an interval; faint: nothing is stated."""

    name: str
    marks: tuple[Mark, ...]
    span: tuple[float, float] | None = None
    colour: int = 0
    faint: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Of a heat map: what stands in it, and how far it is above (1) or below (−1) the reference."""

    shown: str
    shade: float
    tip: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """A named point."""

    name: str
    x: float
    y: float
    colour: int = 0


def strips(
    rows: Sequence[Strip], *, title: str, label: str, lines: Mapping[float, str] | None = None
) -> Html:
    """Rows of points over one axis, with intervals; ``lines``: dashed ones across all rows."""
    lines = dict(lines or {})
    values = [m.x for r in rows for m in r.marks] + [v for r in rows for v in r.span or ()]
    low, high = _range([*values, *lines])
    left = min(320.0, 18 + LETTER * max((len(r.name) for r in rows), default=0))
    floor = TOP + ROW * len(rows)

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - RIGHT - left)

    drawn = _marks(low, high, place, floor, label, (left + WIDTH - RIGHT) / 2)
    for value, text in lines.items():
        x = f"{place(value):.1f}"
        drawn.append(tag("line", tag("title", text), x1=x, x2=x, y1=TOP, y2=floor, class_="dashed"))
    for i, row in enumerate(rows):
        y = TOP + ROW * (i + 0.5)
        drawn.append(tag("text", row.name, x=left - 10, y=f"{y + 4:.1f}", class_="name end"))
        parts = []
        if row.span is not None:
            ends = [f"{place(v):.1f}" for v in row.span]
            tip = tag("title", f"{row.name}: {number(row.span[0])} to {number(row.span[1])}")
            shape = {"x1": ends[0], "x2": ends[1], "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
            parts.append(tag("line", tip, **shape, class_=f"span c{row.colour}"))
        for mark in row.marks:
            kind = f"hollow c{mark.colour}" if mark.hollow else f"dot c{mark.colour}"
            parts.append(
                tag(
                    "circle", tag("title", mark.tip or f"{row.name}: {number(mark.x)}"),
                    cx=f"{place(mark.x):.1f}", cy=f"{y:.1f}", r=4, class_=kind,
                )
            )  # fmt: skip
        drawn.append(tag("g", *parts, class_="faint" if row.faint else None))
    return _figure(title, WIDTH, floor + BOTTOM, drawn)


def heat(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[str, str], Cell],
    *,
    title: str,
) -> Html:
    """A table of shaded numbers: blue above the reference, orange below it; gaps stay empty."""
    left = 14 + LETTER * max(map(len, rows), default=0)
    drawn = []
    for j, column in enumerate(columns):
        x = left + CELL * (j + 0.5)
        drawn.append(tag("text", column, x=f"{x:.0f}", y=14, class_="tick middle"))
    for i, row in enumerate(rows):
        y = 22 + CELL_HEIGHT * i
        drawn.append(tag("text", row, x=left - 8, y=y + 19, class_="name end"))
        for j, column in enumerate(columns):
            cell = cells.get((row, column))
            deep = 0.0 if cell is None else 0.08 + 0.62 * min(1.0, abs(cell.shade))
            kind = "flat" if cell is None else "up" if cell.shade > 0 else "down"
            drawn.append(
                tag(
                    "rect", None if cell is None else tag("title", cell.tip),
                    x=f"{left + CELL * j:.0f}", y=y, width=CELL, height=CELL_HEIGHT,
                    class_=f"cell {kind}",
                    fill_opacity=None if cell is None else f"{deep:.2f}",
                )
            )  # fmt: skip
            if cell is not None:
                x = left + CELL * (j + 0.5)
                drawn.append(tag("text", cell.shown, x=f"{x:.0f}", y=y + 19, class_="cell-text"))
    width = max(float(WIDTH), left + CELL * len(columns) + 4)
    return _figure(title, width, 26 + CELL_HEIGHT * len(rows), drawn)


def spots(points: Sequence[Spot], *, title: str, x: str, y: str) -> Html:
    """Points with their names beside them where there is room; all tell them to the pointer."""
    left, height = 58.0, 380.0
    floor = height - BOTTOM
    lows = _range([p.x for p in points], zero=True), _range([p.y for p in points])
    drawn = []

    def across(value: float) -> float:
        (low, high) = lows[0]
        return left + (value - low) / (high - low) * (WIDTH - 90 - left)

    def up(value: float) -> float:
        (low, high) = lows[1]
        return floor - (value - low) / (high - low) * (floor - TOP)

    for at, name in nice_ticks(*lows[1]).items():
        level = f"{up(at):.1f}"
        drawn.append(tag("line", x1=left, x2=WIDTH - 90, y1=level, y2=level, class_="grid"))
        drawn.append(tag("text", name, x=left - 6, y=level, dy="0.35em", class_="tick end"))
    drawn += _ticks(*lows[0], across, floor, x, (left + WIDTH - 90) / 2)
    middle = f"{(TOP + floor) / 2:.0f}"
    turned = f"rotate(-90 12 {middle})"
    drawn.append(tag("text", y, x=12, y=middle, transform=turned, class_="axis"))
    at_all = [(across(point.x), up(point.y)) for point in points]
    taken: list[Box] = [(at - 5, h - 5, at + 5, h + 5) for at, h in at_all]
    for point, (at, h) in sorted(zip(points, at_all, strict=True), key=lambda p: -p[0].y):
        tip = tag("title", f"{point.name}: {number(point.x)}, {number(point.y)}")
        place = {"cx": f"{at:.1f}", "cy": f"{h:.1f}", "r": 4}
        drawn.append(tag("circle", tip, **place, class_=f"dot c{point.colour % COLOURS}"))
        for left_of, base, kind in _places(at, h):
            long = LETTER * len(point.name)
            start = left_of - {"tick": 0.0, "tick middle": long / 2, "tick end": long}[kind]
            box = (start, base - 9, start + long, base + 2)
            inside = box[0] > left and box[2] < WIDTH and box[1] > 0 and box[3] < floor
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                words = {"x": f"{left_of:.1f}", "y": f"{base:.1f}", "class_": kind}
                drawn.append(tag("text", point.name, **words))
                break
    return _figure(title, WIDTH, height, drawn)


def _places(x: float, y: float) -> list[tuple[float, float, str]]:
    """Where the name of a point may stand, the best first: x, base line, class."""
    beside = [(x + 8, y + 4, "tick"), (x - 8, y + 4, "tick end")]
    over = [(x, y - 9, "tick middle"), (x, y + 17, "tick middle")]
    corners = [(x + 6, y + dy, "tick") for dy in (-7, 15)]
    return [*beside, *over, *corners, *((x - 6, y + dy, "tick end") for dy in (-7, 15))]


def _overlap(one: Box, other: Box) -> bool:
    across = one[0] < other[2] and other[0] < one[2]
    return across and one[1] < other[3] and other[1] < one[3]


def _marks(
    low: float, high: float, place: Place, floor: float, label: str, middle: float
) -> list[Html]:
    """A vertical grid and its axis below."""
    drawn = []
    for at in nice_ticks(low, high):
        x = f"{place(at):.1f}"
        drawn.append(tag("line", x1=x, x2=x, y1=TOP, y2=floor, class_="grid"))
    return [*drawn, *_ticks(low, high, place, floor, label, middle)]


def _ticks(
    low: float, high: float, place: Place, floor: float, label: str, middle: float
) -> list[Html]:
    drawn = []
    for at, name in nice_ticks(low, high).items():
        x = f"{place(at):.1f}"
        drawn.append(tag("line", x1=x, x2=x, y1=floor, y2=floor + 4, class_="mark"))
        drawn.append(tag("text", name, x=x, y=floor + 17, class_="tick middle"))
    drawn.append(tag("text", label, x=f"{middle:.0f}", y=floor + 34, class_="axis"))
    return drawn


def _range(values: Sequence[float], *, zero: bool = False) -> tuple[float, float]:
    """A little more than all finite values."""
    found = [v for v in values if math.isfinite(v)] + ([0.0] if zero else [])
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    room = 0.04 * (high - low) or max(0.5 * abs(high), 1e-3)
    return (0.0 if zero and low == 0 else low - room), high + room


def _figure(title: str, width: float, height: float, drawn: Sequence[Html]) -> Html:
    box = f"0 0 {width:.0f} {height:.0f}"
    picture = tag("svg", join(*drawn), viewBox=box, role="img", aria_label=title)
    return tag("figure", tag("figcaption", title), picture, class_="chart wide")
