"""How the values of notes and descriptors are distributed, split by split."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from pipeline.base.charts import Series, histogram, legend, lines, panels
from pipeline.base.html import Html, folded, join, note, number, table, tag
from pipeline.report.contents import meaning
from pipeline.report.sample import Sample, read_notes, read_rows
from pipeline.store.reader import Store

PANELS_UP_TO = 12  # dimensions; wider descriptors are one chart over all dimensions
BINS, DISTINCT = 60, 96  # at most; few values get fewer bins
TAIL = 0.5  # percent left out at either end of a histogram
PITCHES = np.arange(20.5, 111, 3)  # three keys a bin, from the lowest of the piano
OCTAVES = {12.0 * (octave + 1): f"C{octave}" for octave in range(-1, 10)}
SECONDS = {float(np.log10(s)): f"{s:g}" for s in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)}

Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What the sample says of one array.

    Attributes
    ----------
    labels : of its dimensions, or none
    low, high : the middle 99 % of all values
    body : charts and table
    """

    name: str
    axis: str
    what: str
    units: str
    labels: tuple[str, ...]
    low: float
    high: float
    body: Html


def notes(store: Store, sample: Sample) -> Html:
    """Pitch, velocity, duration and number of notes."""
    pitch, velocity, duration, per_segment = {}, {}, {}, {}
    log_edges, count = np.linspace(-2, 1.5, 57), 0
    counts = store.segments.note_count
    most = int(np.percentile(counts, 99.5)) + 1 if len(counts) else 1
    step = max(1, -(-most // 50))
    count_edges = np.arange(0, most + step + 1, step) - 0.5
    for split, ids in sample.segments.items():
        parts = read_notes(store, ids)
        pitches = np.concatenate([p.pitch for p in parts])
        seconds = np.log10(np.maximum(np.concatenate([p.duration_s for p in parts]), 1e-3))
        count += len(pitches)
        pitch[split] = _share(pitches, PITCHES)
        velocity[split] = _share(np.concatenate([p.velocity for p in parts]), np.arange(0, 129, 4))
        duration[split] = _share(seconds, log_edges)
        per_segment[split] = _share(counts[store.segments.of_split(split)], count_edges)
    share = "% of note rows"
    return join(
        legend(sample.segments),
        panels(
            histogram(PITCHES, pitch, title="Pitch, minor thirds", x="key", y=share, ticks=OCTAVES),
            histogram(np.arange(0, 129, 4), velocity, title="Velocity", x="MIDI velocity", y=share),
            histogram(
                log_edges, duration, title="Duration, key down to key up", x="seconds", y=share,
                ticks=SECONDS,
            ),
            histogram(
                count_edges, per_segment, title="Notes of a segment", x="notes", y="% of segments"
            ),
        ),
        note(
            f"Pitch, velocity and duration: {number(count)} note rows of {number(sample.total())} "
            "segments, drawn with a fixed seed; a note has a row in each segment that it sounds in. "
            f"Notes of a segment: all {number(len(counts))} segments, up to the 99.5th percentile."
        ),
    )  # fmt: skip


def summarise(store: Store, sample: Sample, name: str) -> Summary:
    """Read the sample's rows of one array, and draw them."""
    info = store.arrays[name]
    values = {split: read_rows(store, name, ids) for split, ids in sample.segments.items()}
    descriptor = meaning(info)
    labels = descriptor.labels() if descriptor else ()
    units = descriptor.units if descriptor else "value"
    finite = np.concatenate([v[np.isfinite(v)] for v in values.values()])
    low, high = _bounds(finite)
    draw = _panels if info.shape[-1] <= PANELS_UP_TO else _bands
    return Summary(
        name=name,
        axis=info.axis,
        what=descriptor.summary if descriptor else "a definition that this program does not have",
        units=units,
        labels=labels if len(labels) == info.shape[-1] else (),
        low=low,
        high=high,
        body=join(draw(values, labels, units), _statistics(values)),
    )


def descriptors(store: Store, sample: Sample, summaries: list[Summary]) -> Html:
    """All arrays but the sound, each to be opened."""
    if not summaries:
        return note("This store has no descriptors.")
    every = all(len(i) == len(store.segments.of_split(s)) for s, i in sample.segments.items())
    drawn = ", ".join(f"{number(len(i))} of {s}" for s, i in sample.segments.items())
    which = (
        "all segments"
        if every
        else f"a sample drawn with a fixed seed, in runs of {sample.run_length} segments: {drawn}"
    )
    parts = []
    for i, s in enumerate(summaries):
        title = join(tag("b", s.name), " ", tag("span", f"{s.what} ({s.units})"))
        parts.append(folded(title, s.body, opened=i < 4))
    remark = (
        f"From {which}. Histograms show the middle {100 - 2 * TAIL:g} % of values; a wide descriptor "
        "is drawn by the median of every dimension, with a band from the 5th to the 95th percentile."
    )
    return join(note(remark), legend(sample.segments), *parts)


def _panels(values: dict[str, Array], labels: tuple[str, ...], units: str) -> Html:
    """A histogram of every dimension."""
    charts = []
    width = next(iter(values.values())).shape[1] if values else 0
    for k in range(width):
        columns = {split: v[:, k][np.isfinite(v[:, k])] for split, v in values.items()}
        fewest = min(map(len, columns.values()))
        edges = _edges(
            np.concatenate(list(columns.values())), min(BINS, max(10, int(fewest**0.55)))
        )
        shares = {split: _share(column, edges) for split, column in columns.items()}
        title = labels[k] if k < len(labels) else f"dimension {k + 1}"
        charts.append(histogram(edges, shares, title=title, x=units, y="% of values"))
    return panels(*charts)


def _bands(values: dict[str, Array], labels: tuple[str, ...], units: str) -> Html:
    """Median and percentiles over the dimensions, a chart for every split."""
    found = {s: np.nanpercentile(v, (5, 50, 95), axis=0) for s, v in values.items() if len(v)}
    if not found:
        return note("No values.")
    bounds = (min(f[0].min() for f in found.values()), max(f[2].max() for f in found.values()))
    width = next(iter(found.values())).shape[1]
    at = np.linspace(0, width - 1, 5).round().astype(int)
    ticks = {float(k): labels[k] if len(labels) == width else str(k + 1) for k in at}
    charts = [
        lines(
            [Series(name=split, x=np.arange(width), y=f[1], low=f[0], high=f[2])],
            title=split, x="dimension", y=units, ticks=ticks, bounds=bounds, first_colour=i,
        )
        for i, (split, f) in enumerate(found.items())
    ]  # fmt: skip
    return panels(*charts)


def _statistics(values: dict[str, Array]) -> Html:
    head = "split values mean deviation least 1_% median 99_% greatest zeros_(%)".split()
    rows: list[list[object]] = []
    for split, v in values.items():
        flat = v[np.isfinite(v)].astype(np.float64)
        if not len(flat):
            rows.append([split, 0, *[None] * 8])
            continue
        low, first, middle, last, high = np.percentile(flat, (0, 1, 50, 99, 100)).tolist()
        mean, deviation = float(flat.mean()), float(flat.std())
        zeros = 100 * float(np.mean(flat == 0))
        rows.append([split, len(flat), mean, deviation, low, first, middle, last, high, zeros])
    return table([h.replace("_", " ") for h in head], rows)


def _bounds(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, (TAIL, 100 - TAIL)).tolist()
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _edges(values: Array, bins: int) -> npt.NDArray[np.float64]:
    """Bins for one dimension: around each value if they are few, else equally wide."""
    low, high = _bounds(values)
    inside = np.unique(values[(values >= low) & (values <= high)].astype(np.float64))
    if 1 < len(inside) <= DISTINCT:
        middles = (inside[1:] + inside[:-1]) / 2
        first, last = inside[0] - (middles[0] - inside[0]), 2 * inside[-1] - middles[-1]
        return np.concatenate([[first], middles, [last]])
    return np.linspace(low, high, bins + 1)


def _share(values: npt.NDArray[np.generic], edges: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Per cent of all values that fall into each bin."""
    return 100 * np.histogram(values, np.asarray(edges))[0] / max(1, len(values))
