"""cqt: constant-Q magnitudes of the sound against a roll of sounding notes.

==========  ================================================================================
audio       log(1 + |C|), C of ``librosa.cqt`` on the segment's samples alone: 88 keys from MIDI
            pitch 21 (27.5 Hz), 12 bins an octave, hop 512; librosa's own window (Hann), scale and
            padding (zeros). Frame t is centred on sample 512 t, as in the shared STFT; a filter
            spans 17 periods: 0.6 s at the lowest key, 4 ms at the highest, where four fifths of
            every hop go unseen
notes       a note's level while it sounds (``sounding_levels``), at its key and, times 0.6, 0.36,
            0.216, at the keys of its 2nd to 4th harmonic (+12, +19, +24)
shape       both [88, 188] (pitch, frame), flattened: 16,544
silence     zeros on either side, cosine 0 with everything
==========  ================================================================================

What sounds in which key when; attacks count no more than what follows them. The result depends
little on the constants: decay 0.3–1 s, harmonics at 0–0.6 and compression 0–10 times this move S on
real piano by less than 0.02. Filters half as long tell attacks apart better and low keys
worse, and lose 0.04.
"""

from __future__ import annotations

import numpy as np

from pipeline.descriptors.contract import Notes
from pipeline.spectral import N_FRAMES, SAMPLE_RATE, Spectrum
from pipeline.stft import HOP_LENGTH
from trainer.retrieval.baselines.contract import Baseline, FloatArray, load_librosa, register
from trainer.retrieval.baselines.notes import LOWEST, N_PITCHES, sounding_levels

LOWEST_HZ = 27.5  # MIDI pitch 21
HARMONICS = ((0, 1.0), (12, 0.6), (19, 0.36), (24, 0.216))  # semitones above, share of the level


@register
class ConstantQ(Baseline):
    """Constant-Q magnitudes against sounding notes (see the module)."""

    name = "cqt"
    summary = "constant-Q magnitudes of 88 keys against a roll of sounding, decaying notes"
    width = N_PITCHES * N_FRAMES

    def audio_features(self, spectrum: Spectrum) -> FloatArray:
        """log(1 + |C|) [88 * 188] of one segment's sound."""
        transform = load_librosa().cqt(
            spectrum.samples,
            sr=SAMPLE_RATE,
            hop_length=HOP_LENGTH,
            fmin=LOWEST_HZ,
            n_bins=N_PITCHES,
            bins_per_octave=12,
            tuning=0.0,
        )
        magnitude = np.abs(transform).astype(np.float32, copy=False)
        return np.log1p(magnitude).reshape(-1)

    def midi_features(self, notes: Notes) -> FloatArray:
        """Roll of sounding notes and their harmonics [88 * 188]; what is off the piano is left out."""
        roll = np.zeros((N_PITCHES, N_FRAMES), np.float32)
        levels = sounding_levels(notes)
        for above, share in HARMONICS:
            key = notes.pitch.astype(np.int64) - LOWEST + above
            inside = (key >= 0) & (key < N_PITCHES)
            np.add.at(roll, key[inside], np.float32(share) * levels[inside])
        return roll.reshape(-1)
