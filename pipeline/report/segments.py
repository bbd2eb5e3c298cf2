"""Segments to see and hear: sound, descriptors and notes on one time axis."""

from __future__ import annotations

import numpy as np

from pipeline.base.html import Html, audio, folded, join, note, number, tag
from pipeline.base.tracks import Roll, heat_track, roll_track, sound_track, time_axis
from pipeline.corpora.recordings import SPLITS
from pipeline.report.distributions import Summary
from pipeline.spectral import FRAME_S, SAMPLE_RATE, SEGMENT_S, SEGMENT_SAMPLES
from pipeline.store.reader import Store

OPEN = ("A4", "mel")  # drawn at once; other frame descriptors open on a click


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
    roll = Roll(
        pitch=notes.pitch,
        velocity=notes.velocity,
        onset_s=notes.onset_s,
        duration_s=notes.duration_s,
    )
    at = float(table.start_s[segment])
    where = (
        f"{split}, segment {number(segment)}: recording {recording} ({recordings.key[recording]}), "
        f"{number(at)} to {number(at + SEGMENT_S)} s, {number(len(notes))} notes"
    )
    tracks = {s.name: _frame_track(store, segment, s) for s in frames}
    axis = time_axis(SEGMENT_S)
    closed = [track for name, track in tracks.items() if name not in OPEN]
    title = f"{recordings.composer[recording]}: {recordings.title[recording]}"
    return tag(
        "article",
        tag("h3", title),
        note(where),
        audio(samples.astype("<i2").tobytes(), SAMPLE_RATE),
        sound_track(samples, SAMPLE_RATE, SEGMENT_S),
        *(track for name, track in tracks.items() if name in OPEN),
        roll_track(roll, SEGMENT_S),
        axis,
        folded(f"{len(closed)} more on the same axis", *closed, axis) if closed else None,
        class_="listen",
        data_seconds=SEGMENT_S,
        id=f"segment-{segment}",
    )


def _frame_track(store: Store, segment: int, summary: Summary) -> Html:
    return heat_track(
        summary.name,
        store.read(summary.name, segment, segment + 1)[0].astype(np.float32),
        low=summary.low,
        high=summary.high,
        labels=summary.labels,
        frame_s=FRAME_S,
        seconds=SEGMENT_S,
    )
