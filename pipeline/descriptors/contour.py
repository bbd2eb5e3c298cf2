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

from pipeline.base.jit import small_kernel
from pipeline.descriptors.contract import FloatArray, MidiDescriptor, Notes, register
from pipeline.spectral import FRAME_S, N_FRAMES


@register
class D5(MidiDescriptor):
    """Melodic contour."""

    name = "D5"
    version = 1
    cost = 0.0044
    axis = "frame"
    width = 3
    units = "octaves, 0 or 1, octaves per second"
    summary = "melodic contour: highest sounding note against its median, voicing, slope"

    def labels(self) -> tuple[str, ...]:
        """The columns."""
        return ("height", "voiced", "slope")

    def extract(self, segment: Notes) -> FloatArray:
        """float32 [188, 3] from one segment's notes."""
        top = np.empty(N_FRAMES, np.int64)
        _skyline(segment.pitch, segment.onset_s, segment.duration_s, FRAME_S, top)
        out = np.zeros((N_FRAMES, self.width), np.float32)
        _contour(top, FRAME_S, np.zeros(128, np.int64), out)
        return out


@small_kernel
def _skyline(pitch, onset, duration, frame_s, top):  # type: ignore[no-untyped-def]
    """Highest sounding MIDI pitch at every frame, -1 where none."""
    n_frames = top.shape[0]
    top[:] = -1
    for n in range(pitch.shape[0]):
        start = np.float64(onset[n])
        first = min(max(np.ceil(start / frame_s), 0.0), float(n_frames))
        end = min(max(np.ceil((start + duration[n]) / frame_s), 0.0), float(n_frames))
        for t in range(int(first), int(end)):
            top[t] = max(top[t], np.int64(pitch[n]))


@small_kernel
def _contour(top, frame_s, counts, out):  # type: ignore[no-untyped-def]
    """Columns of the voiced frames; ``counts`` is 128 zeros to find the median with."""
    n_frames, voiced = top.shape[0], 0
    for t in range(n_frames):
        if top[t] >= 0:
            counts[top[t]] += 1
            voiced += 1
    median, below = 0.0, 0
    for p in range(128):
        if counts[p]:  # the middle one, or half of each of the middle two
            for rank in ((voiced - 1) // 2, voiced // 2):
                if below <= rank < below + counts[p]:
                    median += 0.5 * p
            below += counts[p]
    for t in range(n_frames):
        if top[t] >= 0:
            out[t, 0], out[t, 1] = (top[t] - median) / 12.0, 1.0
            if 0 < t < n_frames - 1 and top[t - 1] >= 0 and top[t + 1] >= 0:
                rise = (top[t + 1] - median) / 12.0 - (top[t - 1] - median) / 12.0
                out[t, 2] = rise / (2.0 * frame_s)
