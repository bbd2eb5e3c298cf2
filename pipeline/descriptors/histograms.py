"""D1, D2, D3: histograms of ratios between notes, one vector a segment (method §2.5, §2.6).

**D1, D2** on the first 128 notes in store order, ``f = 440 · 2^((p - 69) / 12)`` Hz. All ordered
pairs, each note with itself included, with ``r = f_i / (f_j + 1e-8)`` in [0.5, 2] (pairs an octave
apart lie on the edges and count: the reference's float32 decides it by the last bit). Each pair adds
``exp(-½ ((r - c) / s)²)`` to 128 bins whose centres c lie evenly in [0.5, 2], ``s = 1.5 / 128``.

* D1, float32 [128]: every pair weighs 1; divided by the sum + 1e-8.
* D2, float32 [384], bin by bin, channels next to each other: weights ``sqrt(v_i v_j / 127² + 1e-8)``
  (velocities), ``sqrt(q_i q_j + 1e-8)`` with ``q = (bucket + 1) / 32`` (durations), and 1; each
  channel divided by its own sum + 1e-8.

**D3**, float32 [153] = 64 + 64 + 25, on the notes that begin in the segment (onset >= 0), N of them:

* Ratios of inter-onset intervals ``ioi_n = onset_{n+1} - onset_n``: of neighbouring ones that are both
  longer than 0.01 s, ``ioi_n / (ioi_{n+1} + 1e-8)`` clipped to [0.25, 4], spread over 64 bins whose
  centres lie evenly in [0.25, 4] with ``s = 3.75 / 64``; divided by the sum + 1e-8. N < 3: zeros.
* Ratios of neighbouring durations that are both longer than 0.05 s, likewise. N < 2: zeros.
* ``clip(p_{n+1} - p_n, -12, 12)``, counted in 25 bins; divided by the sum + 1e-8.

Without notes all are zeros. No unit: shares.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline.base.jit import small_kernel
from pipeline.descriptors.contract import FloatArray, MidiDescriptor, Notes, register

MOST_NOTES, OCTAVE, FLOOR = 128, 12, 1e-8
SHORTEST_IOI_S, SHORTEST_NOTE_S = 0.01, 0.05


@register
class D1(MidiDescriptor):
    """Pitch-ratio histogram."""

    name = "D1"
    version = 1
    cost = 0.056
    axis = "segment"
    width = 128
    units = "share of the pairs"
    summary = "histogram of frequency ratios between all pairs of notes, 128 bins in 0.5-2"

    def extract(self, segment: Notes) -> FloatArray:
        """float32 [128] from one segment's notes."""
        return pair_histograms(segment)[:, 2].astype(np.float32)


@register
class D2(MidiDescriptor):
    """Pitch-ratio histogram in three weightings."""

    name = "D2"
    version = 1
    cost = 0.027
    axis = "segment"
    width = 384
    units = "share of the weights"
    summary = "D1 weighted by velocity, by duration and not at all"

    def extract(self, segment: Notes) -> FloatArray:
        """float32 [384] from one segment's notes."""
        return pair_histograms(segment).reshape(-1).astype(np.float32)


@register
class D3(MidiDescriptor):
    """Rhythm and interval histograms."""

    name = "D3"
    version = 1
    cost = 0.013
    axis = "segment"
    width = 153
    units = "share"
    summary = "histograms of onset-interval ratios (64), duration ratios (64), pitch steps (25)"

    def extract(self, segment: Notes) -> FloatArray:
        """float32 [153] from one segment's notes."""
        out = np.zeros(self.width)
        _count_rhythm(segment.onset_s, segment.duration_s, segment.pitch, out)
        rhythm, lengths, steps = out[:64], out[64:128], out[128:]
        for part in (rhythm, lengths, steps):
            part /= part.sum() + FLOOR
        return out.astype(np.float32)


def pair_histograms(notes: Notes) -> npt.NDArray[np.float64]:
    """Three channels (velocity, duration, plain), each summing to 1: float64 [128, 3]."""
    first = notes.rows(0, MOST_NOTES)
    weights = np.zeros((2 * OCTAVE + 1, 3))
    _weigh_pairs(
        first.pitch.astype(np.int64),
        first.velocity.astype(np.float64) / 127.0,
        (first.duration_bucket.astype(np.float64) + 1.0) / 32.0,
        weights,
    )
    spread = _ratio_kernels().T @ weights
    return spread / (spread.sum(axis=0) + FLOOR)


@cache
def _ratio_kernels() -> npt.NDArray[np.float64]:
    """What one pair d = -12 … 12 semitones apart adds to the 128 bins: float64 [25, 128]."""
    centres = np.linspace(0.5, 2.0, 128)
    ratios = 2.0 ** (np.arange(-OCTAVE, OCTAVE + 1) / 12.0)
    return np.exp(-0.5 * ((ratios[:, None] - centres) / (1.5 / 128)) ** 2)


@small_kernel
def _weigh_pairs(pitch, velocity, length, out):  # type: ignore[no-untyped-def]
    """out[d + 12, channel] = sum of the weights of all ordered pairs d semitones apart."""
    for i in range(pitch.shape[0]):
        for j in range(pitch.shape[0]):
            d = pitch[i] - pitch[j] + 12
            if 0 <= d <= 24:
                out[d, 0] += np.sqrt(velocity[i] * velocity[j] + 1e-8)
                out[d, 1] += np.sqrt(length[i] * length[j] + 1e-8)
                out[d, 2] += 1.0


@small_kernel
def _count_rhythm(onset, duration, pitch, out):  # type: ignore[no-untyped-def]
    """Three histograms side by side, not normalised, of the notes with onset >= 0."""
    begun, gap, last_onset, last_length, last_pitch = 0, 0.0, 0.0, 0.0, 0
    for n in range(pitch.shape[0]):
        if onset[n] < 0:
            continue
        at, length, p = float(onset[n]), float(duration[n]), int(pitch[n])
        if begun >= 2 and gap > SHORTEST_IOI_S and at - last_onset > SHORTEST_IOI_S:
            _spread(gap / (at - last_onset + FLOOR), out[:64])
        if begun >= 1:
            if last_length > SHORTEST_NOTE_S and length > SHORTEST_NOTE_S:
                _spread(last_length / (length + FLOOR), out[64:128])
            out[128 + min(max(p - last_pitch, -OCTAVE), OCTAVE) + OCTAVE] += 1.0
            gap = at - last_onset
        last_onset, last_length, last_pitch = at, length, p
        begun += 1


@small_kernel
def _spread(ratio, out):  # type: ignore[no-untyped-def]
    """Add one ratio, clipped to [0.25, 4], to 64 bins; beyond 8 deviations nothing is left (1e-14)."""
    place = (min(max(ratio, 0.25), 4.0) - 0.25) / 3.75 * 63.0
    for k in range(max(0, int(place) - 8), min(64, int(place) + 10)):
        d = (place - k) * (64.0 / 63.0)
        out[k] += np.exp(-0.5 * d * d)
