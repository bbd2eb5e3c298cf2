"""Tracks for :mod:`pipeline.base.html`: sound, heat maps and notes on one time axis.

A track is a scale on the left and a picture across, ``ACROSS`` units for its whole span of seconds
however long that is. The page's script moves a line through all tracks of an element of the class
``listen`` with the sound of its player; ``data-seconds`` of that element is the span. Marks of time
are 1, 2, 5, 10, 15, 30 s … apart, at most eight steps on an axis.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt

from pipeline.base.charts import heat_map
from pipeline.base.html import Html, tag

ACROSS = 1000  # units of a drawing's width
COLUMNS = 500  # of the waveform
STEPS_S = (0.1, 0.2, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
MOST_STEPS = 8
NAMED_UP_TO = 12  # rows of a heat map that all have their name
NO_NOTES = (48, 72)  # octaves that are shown where there is no note

Samples = npt.NDArray[np.int16]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Roll:
    """Notes to be drawn, each an array [N].

    Attributes
    ----------
    pitch, velocity : MIDI numbers
    onset_s : seconds from the start of the track; negative for a note already sounding
    duration_s : seconds, key down to key up
    """

    pitch: npt.NDArray[np.integer]
    velocity: npt.NDArray[np.integer]
    onset_s: npt.NDArray[np.floating]
    duration_s: npt.NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.pitch)


def octaves_of(*pitches: npt.ArrayLike) -> tuple[int, int]:
    """The C at or below all pitches, and the C above them."""
    found = np.concatenate([np.zeros(0, np.int64), *(np.asarray(p, np.int64) for p in pitches)])
    if not len(found):
        return NO_NOTES
    return 12 * (int(found.min()) // 12), 12 * (int(found.max()) // 12 + 1)


def sound_track(samples: Samples, rate: int, seconds: float) -> Html:
    """Lowest and highest sample of each column; the sound begins where the track does."""
    heard = min(len(samples), round(seconds * rate))
    columns = min(COLUMNS, heard)
    peak, shape = 1 / 32768, ""
    if columns:
        values = samples[:heard].astype(np.float64) / 32768
        first = np.arange(columns) * heard // columns
        low, high = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
        peak = max(float(np.abs(values).max()), peak)
        x = (np.arange(columns) + 0.5) * ACROSS * heard / (columns * rate * seconds)
        around = np.concatenate([50 - 46 * high / peak - 0.4, (50 - 46 * low / peak + 0.4)[::-1]])
        points = zip(np.concatenate([x, x[::-1]]), around, strict=True)
        shape = " ".join(f"{a:.0f},{b:.1f}" for a, b in points)
    scale = (f"+{peak:.2g}", "0", f"−{peak:.2g}")
    wave = tag("polygon", points=shape, class_="wave")
    return track("sound, full scale 1", scale, 100, "h1", seconds, wave)


def heat_track(
    name: str,
    values: npt.NDArray[np.floating],
    *,
    low: float,
    high: float,
    labels: tuple[str, ...],
    frame_s: float,
    seconds: float,
) -> Html:
    """A heat map of ``values`` [frames, width], the first row lowest.

    Frame t is centred on ``t * frame_s``, so the picture reaches past both ends. ``labels`` may be
    empty: then rows are numbered.
    """
    frames, width = values.shape
    drawn = picture(
        values.T[::-1], low, high, x=-frame_s / 2 / seconds, width=frames * frame_s / seconds,
        height=100,
    )  # fmt: skip
    labels = labels or tuple(str(k + 1) for k in range(width))
    few = width <= NAMED_UP_TO
    scale = labels if few else tuple(labels[k] for k in (0, width // 3, 2 * width // 3, -1))
    return track(name, scale[::-1], 100, "h2" if few else "h3", seconds, drawn, centred=few)


def picture(
    pixels: npt.NDArray[np.floating],
    low: float,
    high: float,
    *,
    x: float,
    width: float,
    height: float,
) -> Html:
    """A heat map as part of a track: ``x`` and ``width`` as shares of the track's width."""
    if low < 0:
        high = max(-low, high)
        low = -high
    return tag(
        "image",
        href=heat_map(pixels, low, high),
        x=f"{x * ACROSS:.3f}",
        y=0,
        width=f"{width * ACROSS:.3f}",
        height=height,
        preserveAspectRatio="none",
        class_=f"heat {'diverging' if low < 0 else 'sequential'}",
    )


def roll_track(notes: Roll, seconds: float, octaves: tuple[int, int] | None = None) -> Html:
    """A piano roll over whole octaves: those of the notes, or the ones that are given."""
    low, high = octaves or octaves_of(notes.pitch)
    drawn = []
    for pitch, velocity, onset, duration in zip(
        notes.pitch.astype(int),
        notes.velocity,
        notes.onset_s.astype(float),
        notes.duration_s,
        strict=True,
    ):
        a, b = max(0.0, onset), min(float(seconds), onset + float(duration))
        x, wide = a / seconds * ACROSS, max(b - a, 0.0) / seconds * ACROSS
        y, loud = high - pitch - 1, f"{0.25 + 0.75 * velocity / 127:.2f}"
        size = {"y": y, "height": 1}
        drawn.append(
            tag("rect", x=f"{x:.1f}", width=f"{wide:.1f}", class_="key", fill_opacity=loud, **size)
        )
        if onset >= 0:
            drawn.append(tag("rect", x=f"{x:.1f}", width=2, class_="onset", **size))
    return pitch_track("notes", (low, high), seconds, *drawn)


def pitch_track(what: str, octaves: tuple[int, int], seconds: float, *drawn: Html) -> Html:
    """A track whose rows are semitones: pitch p lies from ``high - p - 1`` to ``high - p``."""
    low, high = octaves
    lines = [
        tag("line", x1=0, x2=ACROSS, y1=high - c, y2=high - c, class_="second")
        for c in range(low, high, 12)
    ]
    scale = tuple(f"C{c // 12 - 1}" for c in range(high, low - 1, -12))
    return track(what, scale, high - low, "h4", seconds, *lines, *drawn)


def track(
    what: str,
    scale: tuple[str, ...],
    height: int,
    size: str,
    seconds: float,
    *drawn: Html,
    centred: bool = False,
) -> Html:
    """One picture: its scale on the left, the seconds across, a line where the sound is."""
    marks = [
        tag("line", x1=x, x2=x, y1=0, y2=height, class_="second")
        for x in (f"{at / seconds * ACROSS:.4g}" for at in ticks(seconds) if 0 < at < seconds)
    ]
    box = f"0 0 {ACROSS} {height}"
    svg = tag("svg", *marks, *drawn, viewBox=box, preserveAspectRatio="none", role="img",
              aria_label=what)  # fmt: skip
    names = tag("div", *(tag("span", s) for s in scale), class_=f"scale{' centred' * centred}")
    plot = tag(
        "div",
        svg,
        tag("span", what, class_="what"),
        tag("div", class_="cursor"),
        class_=f"plot {size}",
    )
    return tag("div", names, plot, class_="track")


def time_axis(seconds: float) -> Html:
    """The marks of time below the tracks, from 0."""
    at = ticks(seconds)
    shown = []
    for i, t in enumerate(at):
        name = clock(t, tenths=False) if seconds >= 60 else f"{t:g}"
        if i == len(at) - 1 and seconds < 60:
            name += " s"
        end = "end" if t > 0.97 * seconds else "middle" if i else None
        place = f"{100 * t / seconds:.4g}%"
        shown.append(tag("text", name, x=place, y="0.75em", class_=end))
    return tag("svg", *shown, class_="seconds", aria_hidden="true")


def ticks(seconds: float) -> list[float]:
    """Where time is marked, from 0 to at most ``seconds``."""
    step = next((s for s in STEPS_S if seconds <= MOST_STEPS * s), STEPS_S[-1])
    marks = itertools.takewhile(lambda at: at <= seconds * (1 + 1e-9), itertools.count(0, step))
    return [round(at, 6) for at in marks]


def clock(seconds: float, *, tenths: bool = True) -> str:
    """``1:02.5``, or ``1:02``."""
    whole = round(seconds * 10) if tenths else 10 * round(seconds)
    shown = f"{whole // 600}:{whole // 10 % 60:02d}"
    return f"{shown}.{whole % 10}" if tenths else shown
