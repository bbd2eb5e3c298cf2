"""A7, A9 and their corrected siblings A7s, A9s: how near the ratios of partials are to simple ones.

Definition (method §2.2, §2.4), on the magnitude spectrogram M of one segment (`pipeline.spectral`),
frame by frame:

1. The 8 bins of largest magnitude of all 1,025, the lower bin first among equals; frequency
   ``f = 11.71875 k`` Hz. In order of frequency; below 50 Hz a bin's magnitude counts as 0 and its
   frequency as 50 Hz.
2. For each of the 28 pairs i < j: ``ρ = log2(f_j / (f_i + 1e-8)) mod 1``, octaves, and
   ``w = sqrt(m_i m_j + 1e-8)``.
3. ``R_c`` = nearness of the ratios to the twelve simple ones, σ = 0.02 octaves, weighted by w
   (:mod:`pipeline.descriptors.ratios`).
4. ``A7 = R / max(ΣR, 1e-8)``.
   ``A9``: document frequency ``df_c`` = share of the segment's frames with ``R_c > 0.05``,
   ``idf_c = clip(ln(1 / (df_c + 1e-3)), 0, 5)``; ``A9 = idf R / max(Σ idf R, 1e-8)``.

What is wrong with them (§9.4): the largest bins are neighbours within one lobe, so that most ratios
are near 1; pairs without a partial keep the weight 1e-4 and speak in silence; A9's threshold on
un-normalised activations is passed by every common attractor, which so gets weight 0.

``A7s`` and ``A9s`` take the 8 largest local maxima of M from 50 Hz on (``M[k-1] < M[k] >= M[k+1]``),
at the vertex of the parabola through ln M around them; pairs without a partial weigh nothing, and a
frame without pairs gives zeros. A9s counts a frame where ``R_c > 0.05 ΣR``.

Output float32 [188, 12], shares of a frame.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.jit import kernel
from pipeline.descriptors.contract import AudioDescriptor, FloatArray, register
from pipeline.descriptors.ratios import N_KEPT, PAIR_FLOOR, RATIOS, SIMPLE, activations, shares
from pipeline.spectral import BIN_HZ, N_FRAMES, Spectrum

DoubleArray = npt.NDArray[np.float64]

LOWEST_HZ = 50.0
PRESENT, IDF_OFFSET, IDF_MOST = 0.05, 1e-3, 5.0


class _Attractor(AudioDescriptor):
    """What all four have in common."""

    axis = "frame"
    width = 12
    units = "share of the frame"

    def labels(self) -> tuple[str, ...]:
        """The ratios."""
        return tuple(str(Fraction(r).limit_denominator(16)) for r in RATIOS)


@register
class A7(_Attractor):
    """Rational attractor as the paper has it."""

    name = "A7"
    version = 1
    cost = 1.2
    summary = "ratios of the 8 largest bins, by nearness to 12 simple ratios"

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 12] from one segment's spectrum."""
        return shares(segment.once(bin_activations)).astype(np.float32)


@register
class A9(_Attractor):
    """Rational attractor, rare ratios weighted up, as the paper has it."""

    name = "A9"
    version = 1
    cost = 1.2
    summary = "A7 with ratios weighted by their rarity in the segment (absolute threshold)"

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 12] from one segment's spectrum."""
        raw = segment.once(bin_activations)
        return shares(raw * rarity(raw > PRESENT)).astype(np.float32)


@register
class A7s(_Attractor):
    """Rational attractor of spectral peaks."""

    name = "A7s"
    version = 1
    cost = 1.3
    summary = "ratios of the 8 largest spectral peaks, by nearness to 12 simple ratios"

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 12] from one segment's spectrum."""
        return shares(segment.once(peak_activations)).astype(np.float32)


@register
class A9s(_Attractor):
    """Rational attractor of spectral peaks, rare ratios weighted up."""

    name = "A9s"
    version = 1
    cost = 1.4
    summary = "A7s with ratios weighted by their rarity in the segment (relative threshold)"

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 12] from one segment's spectrum."""
        raw = segment.once(peak_activations)
        return shares(raw * rarity(shares(raw) > PRESENT)).astype(np.float32)


def bin_activations(segment: Spectrum) -> DoubleArray:
    """R of the largest bins: float64 [188, 12]."""
    bins = np.empty((N_KEPT, N_FRAMES), np.int64)
    sizes = np.empty((N_KEPT, N_FRAMES), np.float32)
    _largest(segment.magnitude, bins, sizes)
    hz, size = _by_frequency(bins, sizes)
    size[hz < LOWEST_HZ] = 0.0
    return _activations(hz, size, PAIR_FLOOR)


def peak_activations(segment: Spectrum) -> DoubleArray:
    """R of the largest spectral peaks: float64 [188, 12]."""
    bins = np.zeros((N_KEPT, N_FRAMES), np.int64)
    sizes = np.zeros((N_KEPT, N_FRAMES), np.float32)
    offsets = np.zeros((N_KEPT, N_FRAMES))
    _peaks(segment.magnitude, int(np.ceil(LOWEST_HZ / BIN_HZ)), bins, sizes, offsets)
    return _activations(*_by_frequency(bins + offsets, sizes), 0.0)


def _by_frequency(bins: npt.NDArray[Any], sizes: FloatArray) -> tuple[DoubleArray, DoubleArray]:
    """Frequencies in Hz, ascending, and magnitudes, of bins [8, 188]: float64 [188, 8] each."""
    order = np.argsort(bins, axis=0)
    hz = np.take_along_axis(bins, order, axis=0).T * BIN_HZ
    return hz, np.take_along_axis(sizes, order, axis=0).T.astype(np.float64)


def _activations(hz: DoubleArray, size: DoubleArray, pair_floor: float) -> DoubleArray:
    hz = np.maximum(hz, LOWEST_HZ)
    return activations(np.log2(hz + 1e-8), np.log2(hz), size, SIMPLE, pair_floor)


def rarity(present: npt.NDArray[np.bool_]) -> DoubleArray:
    """``clip(ln(1 / (share of frames + 1e-3)), 0, 5)`` of bool [188, 12]: float64 [12]."""
    share = present.mean(axis=0)
    return np.clip(-np.log(share + IDF_OFFSET), 0.0, IDF_MOST)


@kernel
def _largest(magnitude, bins, sizes):  # type: ignore[no-untyped-def]
    """The largest bins of every frame, largest first; of equals the lower bin."""
    n_kept, n_frames = bins.shape
    for t in range(n_frames):
        for i in range(n_kept):
            sizes[i, t] = -1.0
    for k in range(magnitude.shape[0]):
        row, least = magnitude[k], sizes[n_kept - 1]
        hits = 0
        for t in range(n_frames):
            hits += row[t] > least[t]
        if hits:  # seldom: counting first lets the comparison be vectorised
            for t in range(n_frames):
                if row[t] > least[t]:
                    _insert(bins, sizes, t, k, row[t])


@kernel
def _peaks(magnitude, first, bins, sizes, offsets):  # type: ignore[no-untyped-def]
    """The largest local maxima from bin ``first`` on, and where between bins their vertex lies."""
    n_kept, n_frames = bins.shape
    for k in range(first, magnitude.shape[0] - 1):
        below, row, above, least = (
            magnitude[k - 1],
            magnitude[k],
            magnitude[k + 1],
            sizes[n_kept - 1],
        )
        hits = 0
        for t in range(n_frames):
            hits += (row[t] > least[t]) & (row[t] > below[t]) & (row[t] >= above[t])
        if hits:
            for t in range(n_frames):
                if row[t] > least[t] and row[t] > below[t] and row[t] >= above[t]:
                    _insert(bins, sizes, t, k, row[t])
    tiny = 1e-30
    for t in range(n_frames):
        for i in range(n_kept):
            if sizes[i, t] > 0.0:
                k = bins[i, t]
                left = np.log(max(np.float64(magnitude[k - 1, t]), tiny))
                here = np.log(np.float64(magnitude[k, t]))
                right = np.log(max(np.float64(magnitude[k + 1, t]), tiny))
                offsets[i, t] = 0.5 * (left - right) / (left - 2.0 * here + right)


@kernel
def _insert(bins, sizes, t, k, size):  # type: ignore[no-untyped-def]
    """Put bin k into frame t's list, which stays sorted; the last one drops out."""
    i = bins.shape[0] - 1
    while i > 0 and size > sizes[i - 1, t]:
        sizes[i, t] = sizes[i - 1, t]
        bins[i, t] = bins[i - 1, t]
        i -= 1
    sizes[i, t] = size
    bins[i, t] = k
