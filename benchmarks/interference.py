"""What is laid over a segment's sound, at a level that is said: white and pink noise, other music.

The level is the ratio of the segment's RMS (about its mean) to the interference's, in dB. The mixture
is brought back to the segment's own RMS: louder interference makes music softer, not the whole louder.

Shape suffix: S samples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.spectral import SAMPLE_RATE, SEGMENT_SAMPLES
from pipeline.store import Store
from trainer.analyses.perturbations import EditSamples
from trainer.retrieval.baselines import segments_of
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.pools import Pools

Samples = npt.NDArray[np.float32]
Colour = Literal["white", "pink"]
SECONDS = 180
STRIDE = 1_000_003  # a prime: where in the noise the next segment's begins
FULL_SCALE = 32768  # the store keeps int16
WINDOW_S = SEGMENT_SAMPLES / SAMPLE_RATE


def mixed(interference: Callable[[int], Samples], ratio_db: float) -> EditSamples:
    """Samples with ``interference(segment)`` [S] on top, ``ratio_db`` below them."""

    def edit(samples_S: Samples, segment: int) -> Samples:
        other_S = interference(segment)
        own, other = float(samples_S.std()), float(other_S.std())
        if not own or not other:
            return samples_S
        samples_S += np.float32(own / other * 10 ** (-ratio_db / 20)) * other_S
        samples_S *= np.float32(own / samples_S.std())
        return samples_S

    return edit


def noise(colour: Colour) -> Callable[[int], Samples]:
    """Gaussian noise: every segment hears another part of one recording, the same at every level."""

    def part(segment: int) -> Samples:
        recorded = _recorded(colour)
        at = segment * STRIDE % (len(recorded) - SEGMENT_SAMPLES)
        return recorded[at : at + SEGMENT_SAMPLES]

    return part


@functools.cache
def _recorded(colour: Colour) -> Samples:
    random = np.random.Generator(np.random.PCG64(0))
    white = random.standard_normal(SECONDS * SAMPLE_RATE)
    if colour == "pink":  # power falls as 1 / frequency
        spectrum = np.fft.rfft(white)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0
        white = np.fft.irfft(spectrum, len(white))
    return white.astype(np.float32)


def other_music(store: Store, beside: Mapping[int, int]) -> Callable[[int], Samples]:
    """Sound of the segment that ``beside`` names; all of it is held as int16, 192 kB a segment."""
    ids = np.unique(np.fromiter(beside.values(), np.int64))
    held: dict[int, npt.NDArray[np.int16]] = {
        int(ids[at]): (samples * FULL_SCALE).astype(np.int16)
        for at, samples, _ in segments_of(store, ids)
    }

    def sound(segment: int) -> Samples:
        return held[beside[segment]].astype(np.float32) / np.float32(FULL_SCALE)

    return sound


def partners(gallery: Gallery, pools: Pools) -> dict[int, int]:
    """Segment → the segment of another work that is laid over it.

    No candidate of the query's pool overlaps it: what is on top is never among the answers. The
    first that qualifies, from a third of the split further on.
    """
    n = len(gallery)
    pool_of = {int(q): c[c >= 0] for q, c in zip(pools.queries, pools.candidates, strict=True)}
    found = {}
    for row in range(n):
        rows = (np.arange(n) + row + n // 3) % n
        rows = rows[gallery.composition[rows] != gallery.composition[row]]
        candidates: npt.NDArray[Any] = pool_of.get(row, np.empty(0, np.int64))
        taken = next((int(r) for r in rows if not _overlaps(gallery, int(r), candidates)), None)
        if taken is None:
            raise SystemExit("there is no other music that is not among the candidates")
        found[int(gallery.segment[row])] = int(gallery.segment[taken])
    return found


def _overlaps(gallery: Gallery, row: int, candidates: npt.NDArray[Any]) -> bool:
    """Whether a segment shares sound with one of these."""
    same = candidates[gallery.recording[candidates] == gallery.recording[row]]
    return bool((np.abs(gallery.start_s[same] - gallery.start_s[row]) < WINDOW_S).any())
