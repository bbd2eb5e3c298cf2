"""chroma-dtw: the pitch classes of ``chroma`` at 85-ms steps, aligned by dynamic time warping.

==========  ================================================================================
both        the unit chroma of ``chroma``, averaged over 4 frames: 47 steps of 85.3 ms
shape       both [47, 12] (step, class), flattened: 564
similarity  1 - cost of the best alignment (``warping``), in 0–1: half a second either way is
            forgiven, order is not
silence     zeros on either side, similarity 0 with everything
==========  ================================================================================

Of all baselines the one that minds least when something is played.
"""

from __future__ import annotations

from pipeline.descriptors.contract import Notes
from pipeline.spectral import N_FRAMES, Spectrum
from trainer.retrieval.baselines.chroma import N_CLASSES, note_chroma, sound_chroma
from trainer.retrieval.baselines.contract import Baseline, FloatArray, register
from trainer.retrieval.baselines.warping import Warping
from trainer.retrieval.metrics import Embeddings, Similarity

FRAMES_A_STEP = 4
N_STEPS = N_FRAMES // FRAMES_A_STEP


@register
class ChromaWarping(Baseline):
    """Pitch classes under time warping (see the module)."""

    name = "chroma-dtw"
    summary = "12 pitch classes at 85-ms steps, time warped within half a second"
    width = N_STEPS * N_CLASSES
    searchable = False

    def audio_features(self, spectrum: Spectrum) -> FloatArray:
        """Chroma of every step [47 * 12] of one segment's sound."""
        return _steps(spectrum.once(sound_chroma))

    def midi_features(self, notes: Notes) -> FloatArray:
        """Chroma of every step [47 * 12] of one segment's notes."""
        return _steps(note_chroma(notes))

    def similarities(self, audio: Embeddings, midi: Embeddings) -> tuple[Similarity, Similarity]:
        """1 - cost of the best alignment: audio → MIDI, MIDI → audio."""
        steps = (len(audio), N_STEPS, N_CLASSES)
        audio, midi = audio.reshape(steps), midi.reshape(steps)
        return Warping(audio, midi), Warping(midi, audio)


def _steps(chroma: FloatArray) -> FloatArray:
    means: FloatArray = chroma.reshape(N_STEPS, FRAMES_A_STEP, N_CLASSES).mean(axis=1)
    return means.reshape(-1)
