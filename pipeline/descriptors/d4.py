"""D4, D4s: local melodic intervals (method §2.7).

Definition, on one segment's notes sorted by (onset, pitch), with ``Δ_i = p_{i+1} - p_i`` in
semitones, zero where either note of the pair is absent:

1. ``Δ_{i-1} / 24``
2. ``Δ_i / 24``
3. ``clip(Δ_{i-1} / 12, -2, 2) / 2``
4. ``clip(Δ_i / 12, -2, 2) / 2``

Output float32 [N, 4], in two octaves. Columns 3 and 4 equal 1 and 2 whenever |Δ| <= 24 (§9.5), and
"adjacent" mixes chord tones and voices: it is onset order, not melody. One note gives zeros.
``D4s`` has columns 1 and 2 alone, float32 [N, 2].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.base.jit import small_kernel
from pipeline.descriptors.contract import FloatArray, MidiDescriptor, Notes, register


@register
class D4(MidiDescriptor):
    """Local melodic intervals."""

    name = "D4"
    version = 1
    cost = 0.0013
    axis = "note"
    width = 4
    units = "intervals of 24 semitones"
    summary = (
        "local melodic intervals: pitch steps to the previous and the next note in onset order"
    )

    def labels(self) -> tuple[str, ...]:
        """The steps, then the steps clipped to two octaves."""
        return ("from previous", "to next", "from previous, clipped", "to next, clipped")

    def extract(self, segment: Notes) -> FloatArray:
        """float32 [N, 4] from one segment's notes."""
        return melodic_intervals(segment.pitch)


@register
class D4s(MidiDescriptor):
    """Local melodic intervals without the columns that say the same again."""

    name = "D4s"
    version = 1
    cost = 0.0013
    axis = "note"
    width = 2
    units = "intervals of 24 semitones"
    summary = "D4 without its repeated columns: the step before and the step after each note"

    def labels(self) -> tuple[str, ...]:
        """The steps."""
        return ("from previous", "to next")

    def extract(self, segment: Notes) -> FloatArray:
        """float32 [N, 2] from one segment's notes."""
        return melodic_intervals(segment.pitch, 2)


def melodic_intervals(pitch: npt.NDArray[np.uint8], columns: int = 4) -> FloatArray:
    """D4 of MIDI pitches [N] already in (onset, pitch) order: float32 [N, 4], or columns 1 and 2."""
    out = np.empty((len(pitch), columns), np.float32)
    _fill_steps(pitch, out)
    return out


@small_kernel
def _fill_steps(pitch, out):  # type: ignore[no-untyped-def]
    """A step of 0 where there is no neighbour."""
    before = np.float32(0.0)
    for n in range(pitch.shape[0]):
        after = np.float32(0.0)
        if n + 1 < pitch.shape[0]:
            after = np.float32(np.int64(pitch[n + 1]) - np.int64(pitch[n]))
        out[n, 0], out[n, 1] = before / np.float32(24.0), after / np.float32(24.0)
        if out.shape[1] == 4:
            for c, step in enumerate((before, after)):
                octaves = step / np.float32(12.0)
                octaves = min(max(octaves, np.float32(-2.0)), np.float32(2.0))
                out[n, 2 + c] = octaves / np.float32(2.0)
        before = after
