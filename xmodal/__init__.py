"""The façade: what a user of trained models and stores needs, under one name.

A model embeds windows of four seconds; window k begins k · ``hop_s`` seconds into the sound or the
notes. Vectors are of length 1 (of a window without a sound: 0). How like two of them are, the model
says: by their cosine, or by the best of several where its vectors are sharp in time. Notes need no
optional package; sound needs the extra ``features`` where the model reads descriptors of it, or a file
is to be decoded. Importing this imports nothing of weight.

>>> import xmodal
>>> model = xmodal.load_model("models/a4r")  # doctest: +SKIP
>>> sound = xmodal.embed_audio(model, "a.wav")  # doctest: +SKIP
>>> xmodal.likeness(model, sound, xmodal.embed_midi(model, "a.mid"))  # doctest: +SKIP
>>> store = xmodal.open_store("data/features/demo-0123456789ab")  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.store import Store
    from trainer.search.embedders import ModelEmbedder

__all__ = ["__version__", "embed_audio", "embed_midi", "likeness", "load_model", "open_store"]

__version__ = "0.1.0"


def load_model(path: str | Path, device: str = "cpu") -> ModelEmbedder:
    """The trained model of a run's folder, or of one that ``xmodal-export`` wrote.

    Parameters
    ----------
    device : ``cpu``, ``cuda``, or ``auto``: a GPU where there is one

    Returns
    -------
    An object with ``name`` and ``width``, the length of its vectors, for the functions below.

    Raises
    ------
    RunError
        when there is no model in the folder, or a file was changed.
    UsageError
        when its model cannot embed a file by itself; see :class:`ModelEmbedder`.
    """
    from trainer.devices import pick_device
    from trainer.run import open_run
    from trainer.search.embedders import ModelEmbedder

    return ModelEmbedder(open_run(Path(path)), pick_device(device))


def embed_audio(
    model: ModelEmbedder, audio: str | Path | npt.ArrayLike, hop_s: float = 1.0
) -> npt.NDArray[np.float32]:
    """Unit vectors float32 [windows, width] of an audio file, or of samples at 24 kHz, mono.

    Samples are int16 [n], or floats in [-1, 1). What is shorter than four seconds, or silent, is a
    :class:`trainer.search.errors.QueryError`.
    """
    from trainer.search.queries import read_sound, window_starts

    query = read_sound(audio)
    return model.of_query(query, window_starts(query.seconds, hop_s))


def embed_midi(model: ModelEmbedder, midi: Any, hop_s: float = 1.0) -> npt.NDArray[np.float32]:
    """Unit vectors float32 [windows, width] of notes: a MIDI file, its bytes, or an object.

    Objects have ``instruments`` with ``notes``, like ``pretty_midi.PrettyMIDI``. What is shorter than
    four seconds, or without notes, is a :class:`trainer.search.errors.QueryError`.
    """
    from trainer.search.queries import read_notes, window_starts

    query = read_notes(midi)
    return model.of_query(query, window_starts(query.seconds, hop_s))


def likeness(
    model: ModelEmbedder, vectors: npt.NDArray[np.float32], others: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """How like each of [n, width] is to each of [m, width], as the model's scores see it: [n, m].

    At most 1. The plain cosine of models whose vectors are not made of parts of time; of those that
    are, the best at a few lags (:mod:`trainer.retrieval.lags`).
    """
    return model.comparison.likeness(vectors, others)


def open_store(path: str | Path) -> Store:
    """Open a committed store for reading; see :class:`pipeline.store.Store`."""
    from pipeline.store import Store

    return Store.open(path)
