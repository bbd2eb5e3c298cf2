"""What probes try to read from embeddings: fixed descriptions of a segment (method §8.8).

========== ===== ==============================================================================
name       width definition
========== ===== ==============================================================================
pitch      128   share of the segment's notes at every MIDI pitch
interval   25    share of the differences of adjacent notes in (onset, pitch) order, in semitones,
                 clamped to -12 … 12; zeros below two notes
chroma     12    share of the magnitude in every pitch class, 0 = C, over bins above 20 Hz
centroid   1     mean of the bin numbers, weighted by magnitude, over all bins
========== ===== ==============================================================================

Magnitude is that of one FFT over the whole 4 s (96,000 samples): 48,001 bins, 0.25 Hz apart. There is
no window, so the skirts of a tone reach into all classes; both variants keep that. Shares sum to 1,
or are 0 where there is nothing to share. A segment without notes has the dummy note that its model
sees (method §1.4).

Pitch classes: in ``sound`` a bin belongs to the nearest semitone, at its true frequency. ``paper``
takes the sampling rate for 16,000 Hz and the semitone *below* (the public code truncates): every
frequency reads as 2/3 of itself, 7.02 semitones lower, so a tuned note lands 8 classes lower, and the
border between two classes falls on it: half of its energy, or so, goes to the next class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.spectral import SAMPLE_RATE, SEGMENT_SAMPLES
from trainer.analyses.contract import Variant
from trainer.cache import DUMMY_NOTE, PCM_SCALE

if TYPE_CHECKING:
    from pipeline.store.reader import Store

WIDTHS: Mapping[str, int] = {"pitch": 128, "interval": 25, "chroma": 12, "centroid": 1}
PAPER_RATE = 16_000
LOWEST_HZ = 20.0
WIDEST = 12  # semitones
READ_BLOCK = 64  # segments whose sound is in memory at once

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def read_targets(
    store: Store, segments: npt.NDArray[np.integer], variant: Variant
) -> dict[str, Floats]:
    """All targets of some segments of a store.

    Parameters
    ----------
    segments : ids in the store, ascending

    Returns
    -------
    float64 [segments, width] by name, not standardised
    """
    found = {name: np.zeros((len(segments), width)) for name, width in WIDTHS.items()}
    for at in range(0, len(segments), READ_BLOCK):
        block = np.asarray(segments[at : at + READ_BLOCK], np.int64)
        # Neighbouring windows overlap, so each run of them is one read.
        for run in np.split(block, np.flatnonzero(np.diff(block) != 1) + 1):
            here = at + int(np.searchsorted(block, run[0]))
            for i, magnitude in enumerate(_magnitudes(store, run), here):
                found["chroma"][i] = chroma(magnitude, variant)
                found["centroid"][i] = centroid(magnitude)
            for i, pitches in enumerate(_pitches(store, run), here):
                found["pitch"][i] = shares(pitches, WIDTHS["pitch"])
                steps = np.clip(np.diff(pitches), -WIDEST, WIDEST) + WIDEST
                found["interval"][i] = shares(steps, WIDTHS["interval"])
    return found


def _magnitudes(store: Store, run: Ints) -> Iterator[Floats]:
    """The magnitude spectrum [48001] of every one of neighbouring segments."""
    starts = store.segments.audio_start[run]
    first = int(starts.min())
    timeline = store.read("audio", first, int(starts.max()) + SEGMENT_SAMPLES)
    for start in starts - first:
        samples = timeline[start : start + SEGMENT_SAMPLES].astype(np.float32)
        yield np.abs(np.fft.rfft(samples / np.float32(PCM_SCALE))).astype(np.float64)


def _pitches(store: Store, run: Ints) -> Iterator[Ints]:
    """The notes' pitches [N] of every one of neighbouring segments; never none."""
    starts = store.segments.note_start[run].astype(np.int64)
    stops = starts + store.segments.note_count[run]
    first = int(starts.min())
    pitch = store.notes(first, int(stops.max())).pitch.astype(np.int64)
    for start, stop in zip(starts - first, stops - first, strict=True):
        yield pitch[start:stop] if stop > start else np.array([DUMMY_NOTE["pitch"]], np.int64)


def shares(values: Ints, width: int) -> Floats:
    """How often each of 0 … width - 1 is among the values, divided by their number: [width]."""
    counted: Floats = np.bincount(values, minlength=width) / max(1, len(values))
    return counted


def chroma(magnitude: Floats, variant: Variant) -> Floats:
    """Shares of the pitch classes [12] in a magnitude spectrum [48001]."""
    first, classes = pitch_classes(variant)
    sums: Floats = np.zeros(WIDTHS["chroma"])
    sums += np.bincount(classes, weights=magnitude[first:], minlength=len(sums))
    total = float(sums.sum())
    return sums / total if total > 0 else sums


def centroid(magnitude: Floats) -> float:
    """The mean bin, weighted by magnitude; 0 in silence."""
    total = float(magnitude.sum())
    return float(np.arange(len(magnitude)) @ magnitude) / total if total > 0 else 0.0


@cache
def pitch_classes(variant: Variant) -> tuple[int, Ints]:
    """The first bin that counts, and the pitch class of every bin from there on (see the module)."""
    rate = PAPER_RATE if variant == "paper" else SAMPLE_RATE
    hz = np.fft.rfftfreq(SEGMENT_SAMPLES, 1 / rate)
    first = int(np.searchsorted(hz, LOWEST_HZ, side="right"))
    semitones = 69 + 12 * np.log2(hz[first:] / 440.0)
    near = np.floor(semitones) if variant == "paper" else np.round(semitones)
    return first, near.astype(np.int64) % 12
