"""D5: melodic contour, the skyline of the sounding notes (ours; not one of the paper's).

D4 steps from note to note in onset order, through chords and voices; this is the upper line as time
goes by. Definition, on the grid of the 188 STFT frames (frame t is at ``512 t / 24,000`` s):

* A note sounds at a frame from its onset (included) to its end (excluded), key release, no pedal. The
  skyline is the highest sounding pitch; a frame without one is unvoiced.
* Column 1: skyline minus its median over the segment's voiced frames, in octaves.
* Column 2: 1 where voiced, else 0.
* Column 3: slope of the skyline in octaves per second, ``(p(t+1) - p(t-1)) / 2`` frames, where all
  three frames are voiced (so 0 in the first and the last frame).

Unvoiced frames are zeros, and so is a segment in which nothing sounds. Output float32 [188, 3].
Transposing the notes changes nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.descriptors.contract import FloatArray, MidiDescriptor, Notes, register
from pipeline.spectral import FRAME_S, N_FRAMES


@register
class D5(MidiDescriptor):
    """Melodic contour."""

    name = "D5"
    version = 1
    axis = "frame"
    width = 3
    units = "octaves, 0 or 1, octaves per second"
    summary = "melodic contour: highest sounding note against its median, voicing, slope"

    def labels(self) -> tuple[str, ...]:
        """The columns."""
        return ("height", "voiced", "slope")

    def extract(self, segment: Notes) -> FloatArray:
        """float32 [188, 3] from one segment's notes."""
        top = skyline(segment)
        voiced = top >= 0
        out = np.zeros((N_FRAMES, 3), np.float32)
        if voiced.any():
            octaves = (top - np.median(top[voiced])) / 12.0
            between = voiced[:-2] & voiced[1:-1] & voiced[2:]
            slope = (octaves[2:] - octaves[:-2]) / (2 * FRAME_S)
            out[voiced, 0] = octaves[voiced]
            out[:, 1] = voiced
            out[1:-1, 2] = np.where(between, slope, 0.0)
        return out


def skyline(notes: Notes) -> npt.NDArray[np.float64]:
    """Highest sounding MIDI pitch at every frame, -1 where none: float64 [188]."""
    top = np.full(N_FRAMES, -1.0)
    onset = notes.onset_s.astype(np.float64)
    first = np.ceil(onset / FRAME_S).clip(0, N_FRAMES)
    end = np.ceil((onset + notes.duration_s) / FRAME_S).clip(0, N_FRAMES)
    for pitch, a, b in zip(notes.pitch, first.astype(int), end.astype(int), strict=True):
        np.maximum(top[a:b], float(pitch), out=top[a:b])
    return top
