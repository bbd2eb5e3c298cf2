"""What a baseline is: features of the sound, features of the notes, and how alike the two are."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import MissingExtra
from pipeline.base.registry import Registry
from pipeline.descriptors.contract import Notes
from pipeline.spectral import N_FRAMES, Spectrum
from trainer.retrieval.metrics import Cosine, Embeddings, Similarity

FloatArray = npt.NDArray[np.float32]


class Baseline(abc.ABC):
    """A training-free way to compare sound and notes.

    Attributes
    ----------
    name, summary : for people and the command line
    version : of the definition; scores that are kept belong to one version
    width : length of the vectors
    searchable : whether a vector is a picture over time, and compared by cosine: what an index needs
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    version: ClassVar[int] = 1
    width: ClassVar[int]
    searchable: ClassVar[bool] = True

    @abc.abstractmethod
    def audio_features(self, spectrum: Spectrum) -> FloatArray:
        """float32 [width] of one segment's sound: 4 s at 24 kHz, samples in [-1, 1).

        What several baselines derive from it is computed once (:meth:`Spectrum.once`).
        """

    @abc.abstractmethod
    def midi_features(self, notes: Notes) -> FloatArray:
        """float32 [width] of one segment's notes."""

    def over_time(self, features: FloatArray) -> FloatArray:
        """A vector as the picture that it is: float32 [rows, 188 frames]; of searchable ones alone."""
        return features.reshape(-1, N_FRAMES)

    def similarities(self, audio: Embeddings, midi: Embeddings) -> tuple[Similarity, Similarity]:
        """How alike sound and notes are, in both directions; cosine unless a baseline says else.

        Parameters
        ----------
        audio, midi : float [n, width]
            Features of n segments, row for row; positive factors of rows do not matter.

        Returns
        -------
        audio → MIDI, MIDI → audio
        """
        return Cosine(audio, midi), Cosine(midi, audio)


BASELINES: Registry[Baseline] = Registry("baseline")


def register(kind: type[Baseline]) -> type[Baseline]:
    """Class decorator: one instance joins the registry."""
    BASELINES.add(kind.name, kind())
    return kind


def load_librosa() -> Any:
    """The module librosa, or the error that says how to get it."""
    try:
        import librosa
    except ImportError:
        raise MissingExtra("librosa", "features") from None
    return librosa
