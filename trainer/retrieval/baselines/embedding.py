"""The features of a split: any number of baselines in one pass over the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.spectral import Spectrum, Workspace
from trainer.retrieval.baselines.contract import BASELINES, FloatArray
from trainer.retrieval.baselines.reading import segments_of
from trainer.retrieval.gallery import Gallery

if TYPE_CHECKING:
    from pipeline.store.reader import Store

REPORT_EVERY = 128  # segments

HalfArray = npt.NDArray[np.float16]
Progress = Callable[[int, int], None]


def embed_baseline(
    name: str, store: Store, split: str, progress: Progress | None = None
) -> tuple[HalfArray, HalfArray]:
    """Features of one baseline; see :func:`embed_baselines`.

    Returns
    -------
    audio, midi : float16 [n, width]
    """
    return embed_baselines([name], store, split, progress)[name]


def embed_baselines(
    names: Sequence[str], store: Store, split: str, progress: Progress | None = None
) -> dict[str, tuple[HalfArray, HalfArray]]:
    """Features of all segments of a split, row for row with ``Gallery.from_store(store, split)``.

    Every segment is read once and its spectrum computed once for all of them. Each row is divided by
    its largest absolute value (similarities do not see that), so that float16 holds it to 0.05 %.

    Parameters
    ----------
    progress : called with (segments done, segments in all) every 128 segments and at the end

    Returns
    -------
    By name: audio, midi, both float16 [n, width].

    Raises
    ------
    ConfigError, RetrievalError, StoreError, MissingExtra
        unknown baseline; split without segments; damaged store; librosa, SciPy or Numba not installed.
    """
    baselines = {name: BASELINES.get(name) for name in names}
    ids = Gallery.from_store(store, split).segment
    n = len(ids)
    features = {
        name: (np.empty((n, b.width), np.float16), np.empty((n, b.width), np.float16))
        for name, b in baselines.items()
    }
    workspace = Workspace()
    for at, samples, notes in segments_of(store, ids):
        spectrum = Spectrum(samples, workspace)
        for name, baseline in baselines.items():
            audio, midi = features[name]
            audio[at] = of_peak_1(baseline.audio_features(spectrum))
            midi[at] = of_peak_1(baseline.midi_features(notes))
        done = at + 1
        if progress is not None and (done % REPORT_EVERY == 0 or done == n):
            progress(done, n)
    return features


def of_peak_1(vector: FloatArray) -> FloatArray:
    """Divided by its largest absolute value; zeros stay zeros."""
    peak = float(np.abs(vector).max(initial=0.0))
    return vector / peak if peak > 0 else vector
