"""a4: *when* without *what*: changes of energy against a curve of onsets.

==========  ================================================================================
audio       A4 (``pipeline.descriptors.a4``): how much the log energy of an octave band changes from
            frame to frame, in standard deviations; the mean over its eight bands
notes       velocity / 127 at every onset, spread over a triangle of half width 4 frames (85 ms)
            around it, summed over pitches
both        minus the mean over the 188 frames, so that the cosine is a correlation
shape       both [188] (frame)
silence     zeros on either side, cosine 0 with everything
==========  ================================================================================

Differences of a logarithm are quick: they peak as soon as the window of 2,048 samples touches an
attack, one or two frames before a dry sound's onset, where a microphone in a room is a frame late.
The wide triangle without a delay serves both; one of 3 frames, half a frame late, would gain 0.05 of
R@1 on real piano and lose 0.07 on dry ones, and two frames late fails altogether.
"""

from __future__ import annotations

import numpy as np

from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Notes
from pipeline.spectral import N_FRAMES, Spectrum
from trainer.retrieval.baselines.contract import Baseline, FloatArray, register
from trainer.retrieval.baselines.notes import spread_onsets

SPREAD_FRAMES = 4.0


@register
class EnergyChanges(Baseline):
    """A4 against onsets (see the module)."""

    name = "a4"
    summary = "when without what: changes of energy (A4) against a curve of onsets"
    width = N_FRAMES

    def audio_features(self, spectrum: Spectrum) -> FloatArray:
        """Mean change of energy [188] of one segment's sound."""
        return _centred(spectrum.once(energy_changes))

    def midi_features(self, notes: Notes) -> FloatArray:
        """Curve of onsets [188] of one segment's notes, whatever their pitch."""
        curve = np.zeros(N_FRAMES, np.float64)
        for frame, weight in spread_onsets(notes, 0.0, SPREAD_FRAMES):
            inside = (frame >= 0) & (frame < N_FRAMES)
            np.add.at(curve, frame[inside], weight[inside])
        return _centred(curve.astype(np.float32))


def energy_changes(spectrum: Spectrum) -> FloatArray:
    """Mean of A4 over its bands: float32 [188], in standard deviations."""
    mean: FloatArray = DESCRIPTORS.get("A4").extract(spectrum).mean(axis=1)
    return mean


def _centred(curve: FloatArray) -> FloatArray:
    return curve - curve.mean()
