"""Tracks of pages: marks of time, clocks, octaves, and that what is drawn lies where it sounds."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from pipeline.base.tracks import Roll, clock, octaves_of, roll_track, sound_track, ticks, time_axis


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.75, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        (4, [0, 1, 2, 3, 4]),
        (8.0, list(range(9))),
        (8.5, [0, 2, 4, 6, 8]),
        (30.0, [0, 5, 10, 15, 20, 25, 30]),
        (29.9, [0, 5, 10, 15, 20, 25]),
        (60.0, [0, 10, 20, 30, 40, 50, 60]),
        (100.0, [0, 15, 30, 45, 60, 75, 90]),
        (4000.0, [0, 600, 1200, 1800, 2400, 3000, 3600]),
    ],
)
def test_marks_of_time(seconds: float, expected: list[float]) -> None:
    assert ticks(seconds) == pytest.approx(expected)


def test_the_axis_names_its_marks() -> None:
    names = [(t.text, t.get("x")) for t in ET.fromstring(time_axis(16.0))]
    assert names == [
        ("0", "0%"), ("2", "12.5%"), ("4", "25%"), ("6", "37.5%"), ("8", "50%"), ("10", "62.5%"),
        ("12", "75%"), ("14", "87.5%"), ("16 s", "100%"),
    ]  # fmt: skip
    assert [t.text for t in ET.fromstring(time_axis(90.0))][-2:] == ["1:15", "1:30"]


def test_clocks() -> None:
    assert [clock(s) for s in (0, 9.96, 59.96, 62.54, 3600)] == [
        "0:00.0", "0:10.0", "1:00.0", "1:02.5", "60:00.0",
    ]  # fmt: skip
    assert clock(75, tenths=False) == "1:15"


def test_whole_octaves() -> None:
    assert octaves_of([60, 71], [59]) == (48, 72)
    assert octaves_of([60]) == (60, 72)
    assert octaves_of([], []) == octaves_of() == (48, 72)


def test_notes_lie_at_their_time_and_pitch() -> None:
    notes = Roll(
        pitch=np.array([60, 64, 71]),
        velocity=np.array([127, 0, 64]),
        onset_s=np.array([-1.0, 5.0, 9.5]),
        duration_s=np.array([2.0, 1.0, 3.0]),
    )
    drawn = ET.fromstring(roll_track(notes, 10.0, (48, 84)))
    keys = [r for r in drawn.iter("rect") if r.get("class") == "key"]
    found = [[float(r.get(k, -1)) for k in ("x", "width", "y", "fill-opacity")] for r in keys]
    assert found == [[0, 100, 23, 1], [500, 100, 19, 0.25], [950, 50, 12, 0.63]]
    onsets = [r.get("x") for r in drawn.iter("rect") if r.get("class") == "onset"]
    assert onsets == ["500.0", "950.0"]  # the first one sounds already
    scale = next(d for d in drawn if d.get("class") == "scale")
    assert [s.text for s in scale] == ["C6", "C5", "C4", "C3"]


@pytest.mark.parametrize("n", [0, 1, 333, 24_000, 30_001])
def test_sound_lies_where_it_is_heard(n: int) -> None:
    samples = np.zeros(n, np.int16)
    samples[n // 2 :] = 16384
    drawn = ET.fromstring(sound_track(samples, 24_000, 2.0))
    (shape,) = drawn.iter("polygon")
    points = [tuple(map(float, p.split(","))) for p in (shape.get("points") or "").split()]
    upper = points[: len(points) // 2]
    assert all(0 <= x <= 1000 * n / 48_000 + 1 for x, _ in points)
    for x, y in upper:
        if abs(x - 500 * n / 48_000) > 2:
            assert y == pytest.approx(3.6 if x > 500 * n / 48_000 else 49.6, abs=0.05)
    assert bool(points) == bool(n)
