"""A7, A9 and their corrected siblings A7s, A9s: how near the ratios of partials are to simple ones.

Definition (method §2.2, §2.4), on the magnitude spectrogram M of one segment (`pipeline.spectral`),
frame by frame:

1. The 8 bins of largest magnitude of all 1,025, the lower bin first among equals; frequency
   ``f = 11.71875 k`` Hz. In order of frequency; below 50 Hz a bin's magnitude counts as 0 and its
   frequency as 50 Hz.
2. For each of the 28 pairs i < j: ``ρ = log2(f_j / (f_i + 1e-8)) mod 1``, octaves, and
   ``w = sqrt(m_i m_j + 1e-8)``.
3. Twelve centres ``c = log2 r``, r = 1, 16/15, 9/8, 6/5, 5/4, 4/3, 7/5, 3/2, 8/5, 5/3, 7/4, 15/8;
   circular distance ``d = min(|ρ - c|, 1 - |ρ - c|)``; ``R_c = Σ w exp(-½ (d / 0.02)²)``.
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
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.jit import kernel
from pipeline.descriptors.contract import AudioDescriptor, FloatArray, register
from pipeline.spectral import BIN_HZ, N_FRAMES, Spectrum

DoubleArray = npt.NDArray[np.float64]

RATIOS = (1, 16 / 15, 9 / 8, 6 / 5, 5 / 4, 4 / 3, 7 / 5, 3 / 2, 8 / 5, 5 / 3, 7 / 4, 15 / 8)
N_PARTIALS, LOWEST_HZ, SIGMA, PAIR_FLOOR, FLOOR = 8, 50.0, 0.02, 1e-8, 1e-8
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
    summary = "ratios of the 8 largest bins, by nearness to 12 simple ratios"

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 12] from one segment's spectrum."""
        return shares(bin_activations(segment)).astype(np.float32)


@register
class A9(_Attractor):
    """Rational attractor, rare ratios weighted up, as the paper has it."""

    name = "A9"
    version = 1
    summary = "A7 with ratios weighted by their rarity in the segment (absolute threshold)"

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 12] from one segment's spectrum."""
        raw = bin_activations(segment)
        return shares(raw * rarity(raw > PRESENT)).astype(np.float32)


@register
class A7s(_Attractor):
    """Rational attractor of spectral peaks."""

    name = "A7s"
    version = 1
    summary = "ratios of the 8 largest spectral peaks, by nearness to 12 simple ratios"

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 12] from one segment's spectrum."""
        return shares(peak_activations(segment)).astype(np.float32)


@register
class A9s(_Attractor):
    """Rational attractor of spectral peaks, rare ratios weighted up."""

    name = "A9s"
    version = 1
    summary = "A7s with ratios weighted by their rarity in the segment (relative threshold)"

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 12] from one segment's spectrum."""
        raw = peak_activations(segment)
        return shares(raw * rarity(shares(raw) > PRESENT)).astype(np.float32)


def bin_activations(segment: Spectrum) -> DoubleArray:
    """R of the largest bins: float64 [188, 12]."""
    bins = np.empty((N_PARTIALS, N_FRAMES), np.int64)
    sizes = np.empty((N_PARTIALS, N_FRAMES), np.float32)
    _largest(segment.magnitude, bins, sizes)
    order = np.argsort(bins, axis=0)
    hz = np.take_along_axis(bins, order, axis=0).T * BIN_HZ
    size = np.take_along_axis(sizes, order, axis=0).T.astype(np.float64)
    size[hz < LOWEST_HZ] = 0.0
    out = np.zeros((N_FRAMES, len(RATIOS)))
    _attract(np.maximum(hz, LOWEST_HZ), size, _centres(), SIGMA, PAIR_FLOOR, out)
    return out


def peak_activations(segment: Spectrum) -> DoubleArray:
    """R of the largest spectral peaks: float64 [188, 12]."""
    bins = np.zeros((N_PARTIALS, N_FRAMES), np.int64)
    sizes = np.zeros((N_PARTIALS, N_FRAMES), np.float32)
    offsets = np.zeros((N_PARTIALS, N_FRAMES))
    _peaks(segment.magnitude, int(np.ceil(LOWEST_HZ / BIN_HZ)), bins, sizes, offsets)
    places = bins + offsets
    order = np.argsort(places, axis=0)
    hz = np.take_along_axis(places, order, axis=0).T * BIN_HZ
    size = np.take_along_axis(sizes, order, axis=0).T.astype(np.float64)
    out = np.zeros((N_FRAMES, len(RATIOS)))
    _attract(np.maximum(hz, LOWEST_HZ), size, _centres(), SIGMA, 0.0, out)
    return out


def rarity(present: npt.NDArray[np.bool_]) -> DoubleArray:
    """``clip(ln(1 / (share of frames + 1e-3)), 0, 5)`` of bool [188, 12]: float64 [12]."""
    share = present.mean(axis=0)
    return np.clip(-np.log(share + IDF_OFFSET), 0.0, IDF_MOST)


def shares(activations: DoubleArray) -> DoubleArray:
    """Each frame divided by its sum (at least 1e-8)."""
    result: DoubleArray = activations / np.maximum(activations.sum(axis=1, keepdims=True), FLOOR)
    return result


@cache
def _centres() -> Any:
    return np.log2(np.array(RATIOS))


@kernel
def _largest(magnitude, bins, sizes):  # type: ignore[no-untyped-def]
    """The largest bins of every frame, largest first; of equals the lower bin."""
    n_kept, n_frames = bins.shape
    for t in range(n_frames):
        for i in range(n_kept):
            sizes[i, t] = -1.0
    for k in range(magnitude.shape[0]):
        for t in range(n_frames):
            if magnitude[k, t] > sizes[n_kept - 1, t]:
                _insert(bins, sizes, t, k, magnitude[k, t])


@kernel
def _peaks(magnitude, first, bins, sizes, offsets):  # type: ignore[no-untyped-def]
    """The largest local maxima from bin ``first`` on, and where between bins their vertex lies."""
    n_kept, n_frames = bins.shape
    for k in range(first, magnitude.shape[0] - 1):
        for t in range(n_frames):
            m = magnitude[k, t]
            if m > sizes[n_kept - 1, t] and m > magnitude[k - 1, t] and m >= magnitude[k + 1, t]:
                _insert(bins, sizes, t, k, m)
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


@kernel
def _attract(hz, size, centres, sigma, pair_floor, out):  # type: ignore[no-untyped-def]
    """out[t, c] = Σ_{i<j} sqrt(m_i m_j + floor) exp(-½ (d / sigma)²) of partials [T, 8]."""
    n_frames, n_partials = hz.shape
    for t in range(n_frames):
        for i in range(n_partials):
            for j in range(i + 1, n_partials):
                weight = np.sqrt(size[t, i] * size[t, j] + pair_floor)
                if weight == 0.0:
                    continue
                octaves = np.log2(hz[t, j] / (hz[t, i] + 1e-8))
                octaves -= np.floor(octaves)
                for c in range(centres.shape[0]):
                    d = abs(octaves - centres[c])
                    d = min(d, 1.0 - d) / sigma
                    if d < 12.0:  # beyond, less than 1e-31
                        out[t, c] += weight * np.exp(-0.5 * d * d)
