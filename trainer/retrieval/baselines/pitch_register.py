"""register: *what* without *when*: how much is struck at every pitch, and how often.

Two parts, both without time, one after the other in one vector:

==========  ================================================================================
pitches     audio: the flux of ``flux``, squared and summed over the 188 frames; notes: the sum of
[88]        velocity / 127 of the notes that begin in the segment. On both sides then: minus the mean
            of the 13 pitches around (±6), what is below it 0, square root, norm 1
density     a bump over the logarithm of the number of attacks: exp(-½ ((log₂ n - c) / 0.35)²) at
[27]        c = 0, ¼ … 6½ (1 to 91 attacks in 4 s), norm ½; zeros without an attack. Audio: local
            maxima above 0.5 of the mean of A4; notes: onsets more than 50 ms apart, so that a chord
            counts once
shape       [115]
silence     zeros on either side, cosine 0 with everything
==========  ================================================================================

What makes the cosine mean something. Sums of flux have a floor that sound without any attack fills
evenly over hundreds of frames: squares let attacks stand out of it, and the mean of the neighbours
takes away what is left, with the slope of the spectrum and the skirts of the bands. Without either,
any two sounds have cosine 0.97 and S on real piano is 0.1, with both 0.5. The square root lets quiet
notes count beside loud ones, and the cosine then is the overlap of two distributions. Densities are
ratios: twice as many attacks have cosine 0.13, a tenth more 0.96, at a fifth of the whole vector's
weight; they add 0.1 to S.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.descriptors.contract import Notes
from pipeline.spectral import SEGMENT_S, Spectrum
from trainer.retrieval.baselines.a4 import energy_changes
from trainer.retrieval.baselines.contract import Baseline, FloatArray, register
from trainer.retrieval.baselines.flux import semitone_flux
from trainer.retrieval.baselines.notes import LOWEST, N_PITCHES

NEIGHBOURS = 6  # semitones either way
ATTACK = 0.5  # standard deviations
APART_S = 0.05
DENSITIES = np.arange(0.0, 6.51, 0.25)  # log2 of the number of attacks
BUMP = 0.35
DENSITY_WEIGHT = 0.5

Vector = npt.NDArray[np.float64]


@register
class PitchRegister(Baseline):
    """Pitches and density without time (see the module)."""

    name = "register"
    summary = "what without when: strength of every pitch and number of attacks"
    width = N_PITCHES + len(DENSITIES)
    searchable = False

    def audio_features(self, spectrum: Spectrum) -> FloatArray:
        """Pitches and density [115] of one segment's sound."""
        flux = spectrum.once(semitone_flux).astype(np.float64)
        changes = spectrum.once(energy_changes)
        before, here, after = changes[:-2], changes[1:-1], changes[2:]
        attacks = (here > before) & (here >= after) & (here > ATTACK)
        return _joined(np.square(flux).sum(axis=1), int(attacks.sum()))

    def midi_features(self, notes: Notes) -> FloatArray:
        """Pitches and density [115] of one segment's notes; keys off the piano have no pitch."""
        begun = (notes.onset_s >= 0) & (notes.onset_s < SEGMENT_S)
        key = notes.pitch.astype(np.int64) - LOWEST
        counted = begun & (key >= 0) & (key < N_PITCHES)
        loudness = notes.velocity[counted] / 127.0
        strength = np.bincount(key[counted], loudness, N_PITCHES).astype(np.float64)
        onsets = np.sort(notes.onset_s[begun])
        attacks = int((np.diff(onsets) > APART_S).sum()) + 1 if len(onsets) else 0
        return _joined(strength, attacks)


def _joined(strength: Vector, attacks: int) -> FloatArray:
    pitches = _unit(np.sqrt(_above_neighbours(strength)))
    density = np.zeros(len(DENSITIES))
    if attacks:
        density = _unit(np.exp(-0.5 * np.square((np.log2(attacks) - DENSITIES) / BUMP)))
    return np.concatenate([pitches, DENSITY_WEIGHT * density]).astype(np.float32)


def _above_neighbours(strength: Vector) -> Vector:
    """What each pitch has more than the mean of the pitches around it; at the ends, of fewer."""
    box = np.ones(2 * NEIGHBOURS + 1)
    around = np.convolve(strength, box, "same") / np.convolve(np.ones(N_PITCHES), box, "same")
    return np.maximum(strength - around, 0.0)


def _unit(vector: Vector) -> Vector:
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector
