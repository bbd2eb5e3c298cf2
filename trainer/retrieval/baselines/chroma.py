"""chroma: pitch classes of every frame against folded sounding notes.

==========  ================================================================================
audio       V M, M the STFT magnitude (``pipeline.spectral``), V the filter bank of
            ``librosa.filters.chroma`` (Ellis 2007; 12 classes, class 0 is C, A4 = 440 Hz, octaves
            around 880 Hz weighted most). Not compressed: logarithms lift noise and overtones
            to the level of what is played, and cost 0.07 of S on real piano
notes       the levels of all sounding notes (``sounding_levels``), summed by pitch class
both        each frame divided by its Euclidean norm; silent frames are 0
shape       both [188, 12] (frame, class), flattened: 2,256
silence     norm below 0.05, which is less than noise of one step of 16 bits has: zeros;
            cosine 0 with everything
==========  ================================================================================

The cosine is the mean agreement of the frames in which both sides sound. The octave is not seen, so
harmonics at octaves do not matter.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pipeline.descriptors.contract import Notes
from pipeline.spectral import N_FRAMES, SAMPLE_RATE, Spectrum
from pipeline.stft import N_FFT
from trainer.retrieval.baselines.contract import Baseline, FloatArray, load_librosa, register
from trainer.retrieval.baselines.notes import sounding_levels

N_CLASSES = 12
SILENCE = 0.05


@register
class Chroma(Baseline):
    """Pitch classes frame by frame (see the module)."""

    name = "chroma"
    summary = "12 pitch classes of every frame against folded sounding notes"
    width = N_FRAMES * N_CLASSES

    def audio_features(self, spectrum: Spectrum) -> FloatArray:
        """Unit chroma of every frame [188 * 12] of one segment's sound."""
        return spectrum.once(sound_chroma).reshape(-1)

    def midi_features(self, notes: Notes) -> FloatArray:
        """Unit chroma of every frame [188 * 12] of one segment's notes."""
        return note_chroma(notes).reshape(-1)

    def over_time(self, features: FloatArray) -> FloatArray:
        """Pitch classes as rows: float32 [12, 188]."""
        return features.reshape(N_FRAMES, N_CLASSES).T


def sound_chroma(spectrum: Spectrum) -> FloatArray:
    """Pitch classes of the sound, float32 [188, 12]; rows have norm 1, or 0 in silence."""
    return _unit_rows((_filter_bank() @ spectrum.magnitude).T, SILENCE)


def note_chroma(notes: Notes) -> FloatArray:
    """Pitch classes of the notes, float32 [188, 12]; rows have norm 1, or 0 where none sounds."""
    classes = np.zeros((N_CLASSES, N_FRAMES), np.float32)
    np.add.at(classes, notes.pitch.astype(np.int64) % N_CLASSES, sounding_levels(notes))
    return _unit_rows(classes.T, 0.0)


def _unit_rows(values: FloatArray, silence: float) -> FloatArray:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, norms, out=np.zeros(values.shape, np.float32), where=norms > silence)


@cache
def _filter_bank() -> FloatArray:
    """Weights of the STFT's bins in the pitch classes, float32 [12, 1025]."""
    filters = load_librosa().filters
    bank: FloatArray = filters.chroma(sr=SAMPLE_RATE, n_fft=N_FFT, n_chroma=N_CLASSES, tuning=0.0)
    return bank.astype(np.float32)
