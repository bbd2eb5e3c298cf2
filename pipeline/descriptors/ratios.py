"""How near the ratios between partials (or periods) are to given ones: what A7, A9 and A10 share.

Of at most 8 things with a place on the logarithmic axis and a size, every pair i < j speaks with the
weight ``w = sqrt(m_i m_j + floor)`` for the ratio ``ρ`` between them, in octaves modulo 1. With
``d = min(|ρ - c|, 1 - |ρ - c|)`` the circular distance from a centre c,

    R_c = Σ_pairs w · exp(-½ (d / 0.02)²).

Beyond 8 standard deviations the exponential is less than 2e-14 and left out. Centres: the 12 simple
ratios of the paper, ``log2`` of 1, 16/15, 9/8, 6/5, 5/4, 4/3, 7/5, 3/2, 8/5, 5/3, 7/4, 15/8, or 32
even steps of an octave.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from pipeline.base.jit import kernel

DoubleArray = npt.NDArray[np.float64]

RATIOS = (1, 16 / 15, 9 / 8, 6 / 5, 5 / 4, 4 / 3, 7 / 5, 3 / 2, 8 / 5, 5 / 3, 7 / 4, 15 / 8)
SIMPLE: DoubleArray = np.log2(np.array(RATIOS))
EVEN: DoubleArray = np.arange(32) / 32.0
N_KEPT, SIGMA, PAIR_FLOOR, FLOOR = 8, 0.02, 1e-8, 1e-8

_C = tuple(1.0 / math.factorial(n) for n in range(10))  # of exp's polynomial


@dataclasses.dataclass(frozen=True, slots=True)
class Peaks:
    """Up to 8 local maxima of every frame, in order of lag; a height of -1 stands for none.

    Attributes
    ----------
    octaves, heights : float64 [188, 8]
        ``log2`` of the lag, and how high.
    """

    octaves: DoubleArray
    heights: DoubleArray


def activations(
    from_octaves: DoubleArray,
    to_octaves: DoubleArray,
    sizes: DoubleArray,
    centres: DoubleArray,
    pair_floor: float = PAIR_FLOOR,
) -> DoubleArray:
    """R of every frame.

    Parameters
    ----------
    from_octaves, to_octaves : float64 [T, 8]
        ``ρ = to[j] - from[i]`` of a pair i < j: logarithms of frequencies or periods, ascending.
    sizes : float64 [T, 8]
        A negative one: nothing is there, and its pairs do not speak.
    centres : float64 [C], ascending in [0, 1)

    Returns
    -------
    float64 [T, C]
    """
    out = np.zeros((len(sizes), len(centres)))
    _attract(from_octaves, to_octaves, sizes, centres, SIGMA, pair_floor, out)
    return out


def shares(values: DoubleArray) -> DoubleArray:
    """Each frame divided by its sum (at least 1e-8)."""
    result: DoubleArray = values / np.maximum(values.sum(axis=1, keepdims=True), FLOOR)
    return result


def highest(curves: DoubleArray, first: int, last: int) -> Peaks:
    """The 8 highest strict local maxima above 0 of every curve [188, L] at ``first`` … ``last``."""
    places = np.empty((len(curves), N_KEPT), np.int64)
    heights = np.empty((len(curves), N_KEPT))
    _find_peaks(curves, first, last, places, heights)
    return Peaks(np.log2(places), heights)


@kernel
def _attract(low, high, sizes, centres, sigma, pair_floor, out):  # type: ignore[no-untyped-def]
    """out[t, c] = Σ_{i<j} sqrt(m_i m_j + floor) exp(-½ (d / sigma)²).

    ``exp(x) = exp(x / 128)^128`` with the ninth-degree polynomial of exp, which is exact to 4e-11
    where the result exceeds 1e-14: library calls would keep the loop from being vectorised.
    """
    n_frames, n_kept = sizes.shape
    slope = -0.5 / (sigma * sigma * 128.0)
    for t in range(n_frames):
        for i in range(n_kept):
            for j in range(i + 1, n_kept):
                if sizes[t, i] < 0.0 or sizes[t, j] < 0.0:
                    continue
                weight = np.sqrt(sizes[t, i] * sizes[t, j] + pair_floor)
                octaves = high[t, j] - low[t, i]
                octaves -= np.floor(octaves)
                for c in range(centres.shape[0]):
                    d = abs(octaves - centres[c])
                    d = min(d, 1.0 - d)
                    x = slope * d * d
                    y = (x * _C[9] + _C[8]) * x + _C[7]
                    y = ((y * x + _C[6]) * x + _C[5]) * x + _C[4]
                    y = (((y * x + _C[3]) * x + 0.5) * x + 1.0) * x + 1.0
                    y *= y  # to the power of 128
                    y *= y
                    y *= y
                    y *= y
                    y *= y
                    y *= y
                    y *= y
                    out[t, c] += weight * y


@kernel
def _find_peaks(curves, first, last, places, heights):  # type: ignore[no-untyped-def]
    """Keep the highest maxima, of equals the first; then put them in order of place."""
    kept = places.shape[1]
    for t in range(curves.shape[0]):
        curve, place, height = curves[t], places[t], heights[t]
        place[:], height[:] = 1, -1.0
        for k in range(first, last + 1):
            h = curve[k]
            if h > curve[k - 1] and h > curve[k + 1] and h > 0.0 and h > height[kept - 1]:
                i = kept - 1
                while i > 0 and h > height[i - 1]:
                    height[i], place[i] = height[i - 1], place[i - 1]
                    i -= 1
                height[i], place[i] = h, k
        for i in range(1, kept):
            h, k, j = height[i], place[i], i
            while j > 0 and place[j - 1] > k:
                height[j], place[j] = height[j - 1], place[j - 1]
                j -= 1
            height[j], place[j] = h, k
