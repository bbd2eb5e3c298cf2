"""Charts for :mod:`pipeline.base.html`: SVG that takes its colours from the page, and heat maps.

A chart is 320 units wide and is shown at about that many pixels, so that its letters stay readable
on a telephone; several stand side by side in a :func:`panels`. Series are told apart by colour, and
named by a :func:`legend`. Values that are not finite are gaps.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.base.html import Html, data_uri, join, number, tag

WIDTH, HEIGHT = 320, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 36
COLOURS = 6  # --s0 … --s5 of the style sheet; further series begin again
BAR = 29

Array = npt.NDArray[np.floating]
Rgba = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line, or the points of one kind.

    Attributes
    ----------
    x, y : the same number of values
    low, high : bounds of a band around the line
    """

    name: str
    x: npt.ArrayLike
    y: npt.ArrayLike
    low: npt.ArrayLike | None = None
    high: npt.ArrayLike | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis: what it shows, from where to where, and where it is marked."""

    label: str
    low: float
    high: float
    ticks: Mapping[float, str]

    @classmethod
    def over(
        cls,
        values: Iterable[npt.ArrayLike],
        label: str,
        *,
        zero: bool = False,
        ticks: Mapping[float, str] | None = None,
    ) -> Axis:
        """An axis that holds all finite values (and 0, if asked)."""
        found = np.concatenate([np.ravel(np.asarray(v, float)) for v in values] or [np.zeros(0)])
        found = found[np.isfinite(found)]
        low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)
        if zero:
            low, high = min(0.0, low), max(0.0, high)
        if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
            low, high = low - 0.5, high + 0.5
        return cls(label=label, low=low, high=high, ticks=nice_ticks(low, high, ticks))

    def place(self, values: npt.ArrayLike, start: float, stop: float) -> Array:
        """Positions of values, the axis lying from ``start`` to ``stop``."""
        share = (np.asarray(values, float) - self.low) / (self.high - self.low)
        return start + np.clip(share, 0, 1) * (stop - start)


def nice_ticks(
    low: float, high: float, named: Mapping[float, str] | None = None
) -> dict[float, str]:
    """Round marks between two values, or those of the ``named`` ones that lie there."""
    if named is not None:
        return {at: name for at, name in named.items() if low <= at <= high}
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= raw * (1 - 1e-9))
    marks = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
    return {float(m): number(round(float(m), 12)) for m in marks}


def histogram(
    edges: npt.ArrayLike,
    shares: Mapping[str, npt.ArrayLike],
    *,
    title: str,
    x: str,
    y: str,
    ticks: Mapping[float, str] | None = None,
) -> Html:
    """Outlines of histograms over common ``edges`` [N + 1], one of N values for each name."""
    corners = np.repeat(np.asarray(edges, float), 2)
    across = Axis.over([corners], x, ticks=ticks)
    up = Axis.over([[0.0], *shares.values()], y)
    drawn = []
    for i, values in enumerate(shares.values()):
        outline = np.concatenate([[0.0], np.repeat(np.asarray(values, float), 2), [0.0]])
        points = _points(across, up, corners, outline)
        drawn.append(tag("polygon", points=points, class_=f"area {_colour(i)}"))
        drawn.append(tag("polyline", points=points, class_=f"line {_colour(i)}"))
    return _chart(title, across, up, drawn)


def lines(
    series: Sequence[Series],
    *,
    title: str,
    x: str,
    y: str,
    zero: bool = False,
    ticks: Mapping[float, str] | None = None,
    bounds: tuple[float, float] | None = None,
    first_colour: int = 0,
) -> Html:
    """Lines, each perhaps within a band; ``bounds`` of y are for charts to be compared."""
    across = Axis.over([s.x for s in series], x, ticks=ticks)
    shown = [v for s in series for v in (s.y, s.low, s.high) if v is not None]
    up = Axis.over(shown if bounds is None else [bounds], y, zero=zero)
    drawn = []
    for i, s in enumerate(series, first_colour):
        at = np.asarray(s.x, float)
        if s.low is not None and s.high is not None:
            around = np.concatenate([np.asarray(s.high, float), np.asarray(s.low, float)[::-1]])
            points = _points(across, up, np.concatenate([at, at[::-1]]), around)
            drawn.append(tag("polygon", points=points, class_=f"band {_colour(i)}"))
        values = np.asarray(s.y, float)
        gaps = np.flatnonzero(~np.isfinite(values))
        for part in np.split(np.arange(len(values)), gaps):
            kept = part[np.isfinite(values[part])]
            if len(kept) == 1:
                drawn.append(_dot(across, up, at[kept[0]], values[kept[0]], i))
            elif len(kept):
                points = _points(across, up, at[kept], values[kept])
                drawn.append(tag("polyline", points=points, class_=f"line {_colour(i)}"))
    return _chart(title, across, up, drawn)


def scatter(series: Sequence[Series], *, title: str, x: str, y: str, zero: bool = False) -> Html:
    """Points."""
    across = Axis.over([s.x for s in series], x, zero=zero)
    up = Axis.over([s.y for s in series], y, zero=zero)
    drawn = []
    for i, s in enumerate(series):
        for a, b in zip(np.asarray(s.x, float), np.asarray(s.y, float), strict=True):
            if np.isfinite(a) and np.isfinite(b):
                drawn.append(_dot(across, up, a, b, i))
    return _chart(title, across, up, drawn)


def bars(items: Sequence[tuple[str, float]], *, title: str, unit: str) -> Html:
    """Horizontal bars from 0, with their names and values."""
    top = max([v for _, v in items if math.isfinite(v)] or [0.0]) or 1.0
    drawn = []
    for i, (name, value) in enumerate(items):
        long = WIDTH * max(0.0, value / top) if math.isfinite(value) else 0.0
        y = i * BAR
        drawn += [
            tag("text", name, x=0, y=f"{y + 11:.1f}", class_="name"),
            tag(
                "text", f"{number(value)} {unit}".rstrip(), x=WIDTH, y=f"{y + 11:.1f}",
                class_="tick end",
            ),
            tag("rect", x=0, y=f"{y + 17:.1f}", width=WIDTH, height=5, rx=2, class_="rail"),
            tag("rect", x=0, y=f"{y + 17:.1f}", width=f"{long:.1f}", height=5, rx=2, class_="bar"),
        ]  # fmt: skip
    return _figure(title, f"0 0 {WIDTH} {max(1.0, len(items) * BAR):.0f}", drawn)


def panels(*charts: Html) -> Html:
    """Charts side by side, as many as the screen has room for."""
    return tag("div", *charts, class_="panels")


def legend(names: Iterable[str]) -> Html:
    """Which colour is which."""
    listed = [tag("span", tag("i", class_=_colour(i)), n) for i, n in enumerate(names)]
    return tag("p", *listed, class_="legend")


def heat_map(values: npt.ArrayLike, low: float, high: float) -> str:
    """A data URI of a PNG, one pixel a value: row 0 at the top, column 0 at the left.

    Where ``low`` is negative, 0 is transparent, positive values grow red and negative ones blue, so
    that the picture suits a light page and a dark one. Else ``low`` is transparent and ``high`` dark;
    the style sheet turns that round for a dark page.
    """
    shown = np.asarray(values, float)
    span = max(high - low, 1e-300)
    index = np.clip(np.nan_to_num((shown - low) / span, nan=0.0) * 255 + 0.5, 0, 255)
    palette = _diverging(low, high) if low < 0 else _sequential()
    return data_uri(png(index.astype(np.uint8), palette), "image/png")


def png(pixels: npt.NDArray[np.uint8], palette: Rgba) -> bytes:
    """An indexed PNG of ``pixels`` [rows, columns]; its palette is [256, red green blue alpha]."""
    rows, columns = pixels.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    filtered = np.zeros((rows, columns + 1), np.uint8)  # a 0 before each row: not filtered
    filtered[:, 1:] = pixels
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette[:, :3].tobytes()),
        (b"tRNS", palette[:, 3].tobytes()),
        (b"IDAT", zlib.compress(filtered.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _diverging(low: float, high: float) -> Rgba:
    values = np.linspace(low, high, 256)
    out = np.empty((256, 4), np.uint8)
    out[:, :3] = np.where((values > 0)[:, None], (200, 76, 36), (38, 108, 186))
    out[:, 3] = np.round(255 * np.abs(values) / max(abs(low), abs(high), 1e-300))
    return out


def _sequential() -> Rgba:
    at = np.linspace(0, 1, 256)
    stops = (0.0, 0.45, 1.0)
    colours = np.array([(120, 170, 215), (42, 100, 165), (14, 22, 40)], float)
    out = np.empty((256, 4), np.uint8)
    for channel in range(3):
        out[:, channel] = np.round(np.interp(at, stops, colours[:, channel]))
    out[:, 3] = np.round(255 * np.minimum(1.0, at / 0.45))
    return out


_ACROSS = (float(LEFT), float(WIDTH - RIGHT))
_UP = (float(HEIGHT - BOTTOM), float(TOP))


def _points(across: Axis, up: Axis, x: npt.ArrayLike, y: npt.ArrayLike) -> str:
    left, top = across.place(x, *_ACROSS), up.place(y, *_UP)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(left, top, strict=True))


def _dot(across: Axis, up: Axis, x: float, y: float, i: int) -> Html:
    left, top = across.place(x, *_ACROSS), up.place(y, *_UP)
    return tag("circle", cx=f"{left:.1f}", cy=f"{top:.1f}", r=3, class_=f"dot {_colour(i)}")


def _colour(i: int) -> str:
    return f"c{i % COLOURS}"


def _chart(title: str, across: Axis, up: Axis, drawn: Sequence[Html]) -> Html:
    floor = HEIGHT - BOTTOM
    frame = []
    for at, name in up.ticks.items():
        y = f"{float(up.place(at, *_UP)):.1f}"
        frame.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        frame.append(tag("text", name, x=LEFT - 5, y=y, dy="0.35em", class_="tick end"))
    for at, name in across.ticks.items():
        x = f"{float(across.place(at, *_ACROSS)):.1f}"
        frame.append(tag("line", x1=x, x2=x, y1=floor, y2=floor + 4, class_="mark"))
        last = float(x) > WIDTH - 3 * RIGHT  # a long name would pass the edge
        frame.append(
            tag("text", name, x=x, y=floor + 16, class_=f"tick {'end' if last else 'middle'}")
        )
    base = tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=floor, y2=floor, class_="mark")
    middle = f"{(TOP + floor) / 2:.0f}"
    turned = f"rotate(-90 8 {middle})"
    names = (
        tag("text", across.label, x=(LEFT + WIDTH - RIGHT) // 2, y=HEIGHT - 3, class_="axis"),
        tag("text", up.label, x=8, y=middle, dy="0.3em", transform=turned, class_="axis"),
    )
    return _figure(title, f"0 0 {WIDTH} {HEIGHT}", [*frame, *drawn, base, *names])


def _figure(title: str, box: str, drawn: Sequence[Html]) -> Html:
    picture = tag("svg", join(*drawn), viewBox=box, role="img", aria_label=title)
    return tag("figure", tag("figcaption", title), picture, class_="chart")
