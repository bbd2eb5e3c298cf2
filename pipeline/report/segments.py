"""Segments to see and hear: sound, descriptors and notes on one time axis."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.base.charts import heat_map
from pipeline.base.html import Html, audio, folded, join, note, number, tag
from pipeline.corpora.recordings import SPLITS
from pipeline.descriptors import Notes
from pipeline.report.distributions import Summary
from pipeline.spectral import FRAME_S, SAMPLE_RATE, SEGMENT_S, SEGMENT_SAMPLES
from pipeline.store.reader import Store

OPEN = ("A4", "mel")  # drawn at once; other frame descriptors open on a click
ACROSS = 1000  # units of a drawing's width: 4 s
COLUMNS = 500  # of the waveform
NAMED_UP_TO = 12

Samples = npt.NDArray[np.int16]


def shown(store: Store, summaries: list[Summary], per_split: int, seed: int) -> Html:
    """A few segments of every split, drawn at random among those with notes."""
    frames = [s for s in summaries if s.axis == "frame"]
    frames.sort(key=lambda s: OPEN.index(s.name) if s.name in OPEN else len(OPEN))
    cards = []
    for n, split in enumerate(SPLITS):
        ids = store.segments.of_split(split)
        ids = ids[store.segments.valid[ids]]
        rng = np.random.default_rng((seed, len(SPLITS) + n))
        for segment in np.sort(rng.choice(ids, min(per_split, len(ids)), replace=False)):
            cards.append(_card(store, int(segment), split, frames))
    scales = "; ".join(
        f"{s.name} from {number(s.low, 2)} to {number(s.high, 2)} ({s.units})" for s in frames
    )
    return join(
        note(
            f"{len(cards)} of {number(len(store.segments))} segments, drawn at random with a fixed "
            f"seed, at most {per_split} of a split. The sound is the store's own, 16 bit at "
            f"{SAMPLE_RATE // 1000} kHz. A click into a picture plays from there. Notes are drawn "
            "from key down to key up, stronger where they were struck harder; one that already "
            "sounds when the segment begins has no mark at its left end."
        ),
        note(f"Colours: {scales}; where there are negative values, red is above 0 and blue below.")
        if frames
        else None,
        *cards,
    )


def _card(store: Store, segment: int, split: str, frames: list[Summary]) -> Html:
    table, recordings = store.segments, store.recordings
    recording, start = int(table.recording[segment]), int(table.audio_start[segment])
    samples = store.read("audio", start, start + SEGMENT_SAMPLES)
    first = int(table.note_start[segment])
    notes = store.notes(first, first + int(table.note_count[segment]))
    at = float(table.start_s[segment])
    where = (
        f"{split}, segment {number(segment)}: recording {recording} ({recordings.key[recording]}), "
        f"{number(at)} to {number(at + SEGMENT_S)} s, {number(len(notes))} notes"
    )
    tracks = {s.name: _frame_track(store, segment, s) for s in frames}
    closed = [track for name, track in tracks.items() if name not in OPEN]
    title = f"{recordings.composer[recording]}: {recordings.title[recording]}"
    return tag(
        "article",
        tag("h3", title),
        note(where),
        audio(samples.astype("<i2").tobytes(), SAMPLE_RATE),
        _wave_track(samples),
        *(track for name, track in tracks.items() if name in OPEN),
        _note_track(notes),
        _seconds(),
        folded(f"{len(closed)} more on the same axis", *closed, _seconds()) if closed else None,
        class_="listen",
        data_seconds=SEGMENT_S,
        id=f"segment-{segment}",
    )


def _wave_track(samples: Samples) -> Html:
    """Lowest and highest sample of each column."""
    blocks = samples.reshape(COLUMNS, -1).astype(np.float64) / 32768
    low, high = blocks.min(axis=1), blocks.max(axis=1)
    peak = max(float(np.abs(samples.astype(np.int32)).max()) / 32768, 1 / 32768)
    x = (np.arange(COLUMNS) + 0.5) * ACROSS / COLUMNS
    around = np.concatenate([50 - 46 * high / peak - 0.4, (50 - 46 * low / peak + 0.4)[::-1]])
    points = zip(np.concatenate([x, x[::-1]]), around, strict=True)
    shape = " ".join(f"{a:.0f},{b:.1f}" for a, b in points)
    scale = (f"+{peak:.2g}", "0", f"−{peak:.2g}")
    return _track(
        "sound, full scale 1", scale, 100, "h1", tag("polygon", points=shape, class_="wave")
    )


def _frame_track(store: Store, segment: int, summary: Summary) -> Html:
    """A heat map; frame t is centred on its time, so the picture reaches past both ends."""
    values = store.read(summary.name, segment, segment + 1)[0].astype(np.float32)
    frames, width = values.shape
    pixels = values.T[::-1]
    low, high = summary.low, summary.high
    if low < 0:
        high = max(-low, high)
        low = -high
    picture = tag(
        "image",
        href=heat_map(pixels, low, high),
        x=f"{-FRAME_S / 2 / SEGMENT_S * ACROSS:.3f}",
        y=0,
        width=f"{frames * FRAME_S / SEGMENT_S * ACROSS:.3f}",
        height=100,
        preserveAspectRatio="none",
        class_=f"heat {'diverging' if low < 0 else 'sequential'}",
    )
    labels = summary.labels or tuple(str(k + 1) for k in range(width))
    few = width <= NAMED_UP_TO
    shown_labels = labels if few else tuple(labels[k] for k in (0, width // 3, 2 * width // 3, -1))
    height = "h2" if few else "h3"
    return _track(summary.name, shown_labels[::-1], 100, height, picture, centred=few)


def _note_track(notes: Notes) -> Html:
    """A piano roll over whole octaves."""
    pitches = notes.pitch.astype(int)
    low = 12 * (int(pitches.min()) // 12) if len(pitches) else 48
    high = 12 * (int(pitches.max()) // 12 + 1) if len(pitches) else 72
    drawn = []
    for pitch, velocity, onset, duration in zip(
        pitches, notes.velocity, notes.onset_s.astype(float), notes.duration_s, strict=True
    ):
        a, b = max(0.0, onset), min(float(SEGMENT_S), onset + float(duration))
        x, wide = a / SEGMENT_S * ACROSS, max(b - a, 0.0) / SEGMENT_S * ACROSS
        y, loud = high - pitch - 1, f"{0.25 + 0.75 * velocity / 127:.2f}"
        size = {"y": y, "height": 1}
        drawn.append(
            tag("rect", x=f"{x:.1f}", width=f"{wide:.1f}", class_="key", fill_opacity=loud, **size)
        )
        if onset >= 0:
            drawn.append(tag("rect", x=f"{x:.1f}", width=2, class_="onset", **size))
    octaves = [
        tag("line", x1=0, x2=ACROSS, y1=high - c, y2=high - c, class_="second")
        for c in range(low, high, 12)
    ]
    scale = tuple(f"C{c // 12 - 1}" for c in range(high, low - 1, -12))
    return _track("notes", scale, high - low, "h4", *octaves, *drawn)


def _track(
    what: str, scale: tuple[str, ...], height: int, size: str, *drawn: Html, centred: bool = False
) -> Html:
    """One picture: its scale on the left, four seconds across, a line where the sound is."""
    seconds = [
        tag("line", x1=x, x2=x, y1=0, y2=height, class_="second")
        for x in np.linspace(0, ACROSS, SEGMENT_S + 1)[1:-1].astype(int).tolist()
    ]
    box = f"0 0 {ACROSS} {height}"
    svg = tag("svg", *seconds, *drawn, viewBox=box, preserveAspectRatio="none", role="img",
              aria_label=what)  # fmt: skip
    marks = tag("div", *(tag("span", s) for s in scale), class_=f"scale{' centred' * centred}")
    plot = tag(
        "div",
        svg,
        tag("span", what, class_="what"),
        tag("div", class_="cursor"),
        class_=f"plot {size}",
    )
    return tag("div", marks, plot, class_="track")


def _seconds() -> Html:
    marks = [tag("span", f"{s} s" if s == SEGMENT_S else s) for s in range(SEGMENT_S + 1)]
    return tag("div", *marks, class_="seconds")
