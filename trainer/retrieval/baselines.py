"""Training-free baselines: what signal processing alone retrieves; the floor an arm has to beat.

A baseline turns the sound and the notes of a segment into two vectors of one space; cosine does
the rest, under the same protocols as any run.

flux
    Positive spectral flux in 88 semitone bands against a velocity-weighted onset roll.

    ==========  ================================================================================
    audio       log(1 + W M), M the STFT magnitude (``pipeline.spectral``), W triangles around MIDI
                pitches 21–108 that sum to 1, half width one semitone but at least one bin
                (11.72 Hz: below pitch 57 a band interpolates between bins); then
                max(0, x(t) - x(t-1)), first frame 0
    notes       velocity / 127 at every onset, spread over a triangle of half width 3 frames (64 ms)
                centred one frame (21 ms) after the onset. A 2,048-sample window smears an attack
                over four hops; dry sampled pianos fit best without the delay, microphones in a room
                with one or two frames of it, and this spread serves both
    shape       both [88, 188] (pitch, frame), flattened: 16,544
    silence     zeros on either side, cosine 0 with everything
    ==========  ================================================================================

    Sustained notes, durations and harmonics are not modelled. On real piano the spread of the roll
    is what matters (R@1 in the paper's pools rises from 0.68 to 0.95); compression, band width and
    the exponent of velocity hardly do.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.base.registry import Registry
from pipeline.descriptors.contract import Notes
from pipeline.spectral import FRAME_S, N_FRAMES, SEGMENT_SAMPLES, Spectrum, Workspace, bin_hz
from trainer.retrieval.gallery import Gallery

if TYPE_CHECKING:
    from pipeline.store.reader import Store

LOWEST, N_PITCHES = 21, 88  # the piano's keys as MIDI pitches
SPREAD_FRAMES = 3.0
DELAY_FRAMES = 1.0
READ_BLOCK = 128  # segments read from the store at a time

FloatArray = npt.NDArray[np.float32]
HalfArray = npt.NDArray[np.float16]
Progress = Callable[[int, int], None]


class Baseline(abc.ABC):
    """A training-free way to compare sound and notes.

    Attributes
    ----------
    name, summary : for people and the command line
    version : of the definition; scores that are kept belong to one version
    width : length of the vectors
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    version: ClassVar[int] = 1
    width: ClassVar[int]

    @abc.abstractmethod
    def audio_features(self, samples: FloatArray, workspace: Workspace | None = None) -> FloatArray:
        """float32 [width] of one segment's samples, float32 [96000] at 24 kHz in [-1, 1)."""

    @abc.abstractmethod
    def midi_features(self, notes: Notes) -> FloatArray:
        """float32 [width] of one segment's notes."""


BASELINES: Registry[Baseline] = Registry("baseline")


def register(kind: type[Baseline]) -> type[Baseline]:
    """Class decorator: one instance joins the registry."""
    BASELINES.add(kind.name, kind())
    return kind


def embed_baseline(
    name: str, store: Store, split: str, progress: Progress | None = None
) -> tuple[HalfArray, HalfArray]:
    """Features of all segments of a split, row for row with ``Gallery.from_store(store, split)``.

    Each row is divided by its peak (cosine does not see that), so that float16 holds it to 0.05 %.

    Parameters
    ----------
    progress : called with (segments done, segments in all) after every block

    Returns
    -------
    audio, midi : float16 [n, width]

    Raises
    ------
    ConfigError, RetrievalError, StoreError, MissingExtra
        unknown baseline; split without segments; damaged store; SciPy or Numba not installed.
    """
    baseline = BASELINES.get(name)
    ids = Gallery.from_store(store, split).segment
    segments = store.segments
    audio = np.empty((len(ids), baseline.width), np.float16)
    midi = np.empty_like(audio)
    workspace = Workspace()
    for at in range(0, len(ids), READ_BLOCK):
        block = ids[at : at + READ_BLOCK]
        # Neighbouring windows overlap, so each run of them is one read.
        for run in np.split(block, np.flatnonzero(np.diff(block) != 1) + 1):
            first = int(segments.audio_start[run].min())
            last = int(segments.audio_start[run].max()) + SEGMENT_SAMPLES
            timeline = store.read("audio", first, last)
            note_start = segments.note_start[run]
            note_stop = note_start + segments.note_count[run]
            note_first = int(note_start.min())
            notes = store.notes(note_first, int(note_stop.max()))
            to = at + int(np.searchsorted(block, run[0]))
            for i, row in enumerate(run):
                start = int(segments.audio_start[row]) - first
                samples = timeline[start : start + SEGMENT_SAMPLES].astype(np.float32)
                own = notes.rows(int(note_start[i]) - note_first, int(note_stop[i]) - note_first)
                samples /= np.float32(32768)
                audio[to + i] = _peak_1(baseline.audio_features(samples, workspace))
                midi[to + i] = _peak_1(baseline.midi_features(own))
        if progress is not None:
            progress(min(at + READ_BLOCK, len(ids)), len(ids))
    return audio, midi


@register
class Flux(Baseline):
    """Spectral flux in semitone bands against an onset roll (see the module)."""

    name = "flux"
    summary = "spectral flux in 88 semitone bands against a velocity-weighted onset roll"
    width = N_PITCHES * N_FRAMES

    def audio_features(self, samples: FloatArray, workspace: Workspace | None = None) -> FloatArray:
        """Positive flux [88 * 188] of one segment's samples, float32 [96000]."""
        magnitude = Spectrum(samples, workspace).magnitude
        bands = np.empty((N_PITCHES, N_FRAMES), np.float32)
        for band, (first, weights) in zip(bands, semitone_bands(), strict=True):
            np.dot(weights, magnitude[first : first + len(weights)], out=band)
        np.log1p(bands, out=bands)
        flux = np.zeros_like(bands)
        np.maximum(np.diff(bands, axis=1), 0.0, out=flux[:, 1:])
        return flux.reshape(-1)

    def midi_features(self, notes: Notes) -> FloatArray:
        """Onset roll [88 * 188] of one segment's notes; pitches off the piano are left out."""
        roll = np.zeros((N_PITCHES, N_FRAMES), np.float32)
        key = notes.pitch.astype(np.int64) - LOWEST
        centre = notes.onset_s.astype(np.float64) / FRAME_S + DELAY_FRAMES
        for step in range(int(2 * SPREAD_FRAMES)):
            frame = np.floor(centre - SPREAD_FRAMES).astype(np.int64) + 1 + step
            weight = (1.0 - np.abs(frame - centre) / SPREAD_FRAMES) * notes.velocity / 127.0
            inside = (frame >= 0) & (frame < N_FRAMES) & (key >= 0) & (key < N_PITCHES)
            np.add.at(roll, (key[inside], frame[inside]), weight[inside])
        return roll.reshape(-1)


@cache
def semitone_bands() -> tuple[tuple[int, FloatArray], ...]:
    """Triangles around MIDI pitches 21–108: per pitch the first bin and float32 weights, sum 1.

    Only the bins inside a triangle are kept: a matrix [88, 1025] would be 95 % zeros, and its
    product ten times the work.
    """
    frequency = bin_hz()
    bands = []
    for pitch in range(LOWEST, LOWEST + N_PITCHES):
        centre = 440.0 * 2.0 ** ((pitch - 69) / 12)
        half_width = max(centre * (2.0 ** (1 / 12) - 1.0), frequency[1])
        triangle = np.clip(1.0 - np.abs(frequency - centre) / half_width, 0.0, None)
        inside = np.flatnonzero(triangle)
        weights = triangle[inside] / triangle.sum()
        bands.append((int(inside[0]), weights.astype(np.float32)))
    return tuple(bands)


def _peak_1(vector: FloatArray) -> FloatArray:
    peak = float(vector.max(initial=0.0))
    return vector / peak if peak > 0 else vector
