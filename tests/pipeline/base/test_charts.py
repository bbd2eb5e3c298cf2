"""Charts say what their data say: positions are read back from the drawing."""

from __future__ import annotations

import base64
import io
import math
import xml.etree.ElementTree as ET

import matplotlib.image
import numpy as np
import pytest
from browser import words
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base import charts
from pipeline.base.charts import Axis, Series, heat_map, nice_ticks

LEFT, RIGHT = charts.LEFT, charts.WIDTH - charts.RIGHT
TOP, FLOOR = charts.TOP, charts.HEIGHT - charts.BOTTOM


def elements(chart: str, name: str) -> list[ET.Element]:
    return list(ET.fromstring(chart).iter(name))


def points(element: ET.Element) -> np.ndarray:
    pairs = [p.split(",") for p in (element.get("points") or "").split()]
    return np.array(pairs, float)


def read_back(at: np.ndarray, x: tuple[float, float], y: tuple[float, float]) -> np.ndarray:
    """Pixels → data, for axes from x[0] to x[1] and from y[0] to y[1]."""
    across = x[0] + (at[:, 0] - LEFT) / (RIGHT - LEFT) * (x[1] - x[0])
    up = y[0] + (FLOOR - at[:, 1]) / (FLOOR - TOP) * (y[1] - y[0])
    return np.stack([across, up], axis=1)


def test_histograms_have_their_values_at_their_edges() -> None:
    edges, values = [0.0, 1.0, 2.0, 4.0], [3.0, 0.0, 6.0]
    chart = charts.histogram(edges, {"a": values, "b": [1, 1, 1]}, title="T", x="X", y="Y")
    first, second = elements(chart, "polyline")
    found = read_back(points(first), (0, 4), (0, 6))
    expected = [(0, 0), (0, 3), (1, 3), (1, 0), (2, 0), (2, 6), (4, 6), (4, 0)]
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert first.get("class") != second.get("class")
    assert {"T", "X", "Y"} <= {words(e) for e in ET.fromstring(chart).iter() if e.text}


def test_lines_break_where_values_are_missing() -> None:
    line = Series(name="a", x=[0, 1, 2, 3, 4], y=[0.0, 2.0, math.nan, 1.0, 4.0])
    parts = elements(charts.lines([line], title="T", x="", y=""), "polyline")
    found = [read_back(points(p), (0, 4), (0, 4)) for p in parts]
    np.testing.assert_allclose(found[0], [(0, 0), (1, 2)], atol=0.05)
    np.testing.assert_allclose(found[1], [(3, 1), (4, 4)], atol=0.05)


def test_a_value_with_no_neighbour_is_a_dot() -> None:
    line = Series(name="a", x=[0, 1, 2, 3], y=[4.0, math.nan, 2.0, 3.0])
    (dot,) = elements(charts.lines([line], title="T", x="", y=""), "circle")
    at = np.array([[float(dot.get("cx", 0)), float(dot.get("cy", 0))]])
    np.testing.assert_allclose(read_back(at, (0, 3), (2, 4)), [(0, 4)], atol=0.1)


def test_bands_lie_around_their_line() -> None:
    line = Series(name="a", x=[0, 1], y=[1.0, 2.0], low=[0.0, 1.0], high=[4.0, 3.0])
    chart = charts.lines([line], title="T", x="", y="", bounds=(0, 5))
    (band,) = elements(chart, "polygon")
    found = read_back(points(band), (0, 1), (0, 5))
    np.testing.assert_allclose(found, [(0, 4), (1, 3), (1, 1), (0, 0)], atol=0.05)


def test_scatter_draws_the_finite_points() -> None:
    kinds = [Series(name="a", x=[0, 1, math.inf], y=[0, 10, 1]), Series(name="b", x=[0.5], y=[5])]
    dots = elements(charts.scatter(kinds, title="T", x="", y=""), "circle")
    at = np.array([[float(d.get("cx", 0)), float(d.get("cy", 0))] for d in dots])
    np.testing.assert_allclose(
        read_back(at, (0, 1), (0, 10)), [(0, 0), (1, 10), (0.5, 5)], atol=0.1
    )


def test_bars_are_as_long_as_their_values() -> None:
    chart = charts.bars([("a<b", 4.0), ("c", 1.0), ("none", 0.0)], title="T", unit="s")
    bars = [e for e in elements(chart, "rect") if e.get("class") == "bar"]
    long = [float(b.get("width", -1)) for b in bars]
    assert long == [charts.WIDTH, charts.WIDTH / 4, 0.0]
    assert [words(e) for e in elements(chart, "text")] == ["a<b", "4 s", "c", "1 s", "none", "0 s"]


def test_nothing_and_one_value_still_make_charts() -> None:
    for series in ([], [Series(name="a", x=[1], y=[2])], [Series(name="a", x=[1], y=[math.nan])]):
        assert elements(charts.lines(series, title="T", x="", y=""), "svg")
        assert elements(charts.scatter(series, title="T", x="", y=""), "svg")
    assert elements(charts.bars([], title="T", unit=""), "svg")
    assert elements(charts.histogram([0, 1], {"a": [0]}, title="T", x="", y=""), "svg")


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    high = low + span
    if high - low < 1e-9 * abs(low):
        return
    axis = Axis.over([[low, high]], "x")
    marks = list(nice_ticks(axis.low, axis.high))
    assert 1 <= len(marks) <= 6
    slack = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - slack <= m <= axis.high + slack for m in marks)


def pixels(uri: str) -> np.ndarray:
    """The heat map as another program decodes it: float [rows, columns, RGBA]."""
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return matplotlib.image.imread(io.BytesIO(content), format="png")


def test_heat_maps_around_zero_are_red_above_and_blue_below() -> None:
    shown = pixels(heat_map([[-2.0, 0.0, 2.0], [1.0, -1.0, 9.0]], -2, 2))
    assert shown.shape == (2, 3, 4)
    red, blue, alpha = shown[..., 0], shown[..., 2], shown[..., 3]
    assert (red > blue)[[0, 1, 1], [2, 0, 2]].all()
    assert (red < blue)[[0, 1], [0, 1]].all()
    np.testing.assert_allclose(alpha, [[1, 0, 1], [0.5, 0.5, 1]], atol=0.01)


def test_heat_maps_from_zero_grow_darker() -> None:
    shown = pixels(heat_map([[0.0, 0.2, 0.5, 1.0, math.nan]], 0, 1))[0]
    on_white = (shown[:, :3] * shown[:, 3:] + (1 - shown[:, 3:])).mean(axis=1)
    assert (np.diff(on_white[:4]) < -0.05).all()
    assert on_white[0] == on_white[4] == 1.0


@pytest.mark.parametrize("shape", [(1, 1), (96, 188), (3, 1000)])
def test_png_keeps_every_pixel(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1)
    grey[:, 3] = 255
    found = matplotlib.image.imread(io.BytesIO(charts.png(values, grey)), format="png")
    np.testing.assert_array_equal(np.round(found[..., 0] * 255).astype(int), values)
