"""Autocorrelation of every frame (for A10a, A10d): in Numba, 8 frames at a time, in float64.

By Wiener and Khinchin: zero-padded to 4,096 samples, transformed, squared, transformed again. Strict
local maxima are read off the result, so float32 would not do. :mod:`pipeline.stft` transforms 1,024
complex numbers in 16 lanes; here

1. two frames are the real and the imaginary part of one transform (all frames are brought to equal
   energy first, so that a loud one cannot blur the other), and
2. the four interleaved quarters of a frame (samples 4m, 4m + 1, 4m + 2, 4m + 3) are lanes beside each
   other: ``_join`` makes of the transforms of the quarters the transform of the whole. A power
   spectrum is real and even, so transforming forward again transforms it back; ``_part`` is
   ``_join``'s converse, and its quarters are lags 4u, 4u + 1, 4u + 2, 4u + 3.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline import stft
from pipeline.base.jit import kernel
from pipeline.stft import BUFFER, HOP_LENGTH, LANES, N_FFT

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

N_PADDED = 2 * N_FFT
FRAMES = 8  # at a time

_U = np.uint64
_LANES, _2, _3 = _U(LANES), _U(2), _U(3)
_Q1 = _U((N_FFT // 8 + 1) * LANES)  # where quarters of a buffer start, see pipeline.stft
_Q2, _Q3 = _Q1 * _2, _Q1 * _3
_I0 = _Q1 * _U(4)
_I1, _I2, _I3 = _I0 + _Q1, _I0 + _Q2, _I0 + _Q3


def energies(hops: FloatArray, n_frames: int) -> DoubleArray:
    """Sum of squares of every windowed frame: float64 [T]."""
    out = np.zeros(n_frames)
    _sum_squares(hops, stft.hann_window(), out)
    return out


def autocorrelations(hops: FloatArray, energy: DoubleArray, n_lags: int) -> DoubleArray:
    """Autocorrelation at lags 0 … n_lags - 1 of every windowed frame by its energy.

    Parameters
    ----------
    hops : float32 [512, >= T + 3]
        The frames, see :attr:`pipeline.spectral.Spectrum.hops`.
    energy : float64 [T]
        What lag 0 is divided by; a frame of energy 0 gives zeros.
    n_lags : at most 1,024

    Returns
    -------
    float64 [T, n_lags]
    """
    n_frames = len(energy)
    scale = np.divide(1.0, np.sqrt(energy), out=np.zeros(n_frames), where=energy > 0)
    window, twiddles, fine = stft.hann_window(), stft.twiddles(), _fine_twiddles()
    out = np.empty((n_frames, n_lags))
    a, b = np.empty(BUFFER), np.empty(BUFFER)
    for group in range(-(-n_frames // FRAMES)):
        t0 = min(group * FRAMES, n_frames - FRAMES)  # the last group overlaps the one before
        _first_pass(hops, window, scale, t0, a)
        stft.two_passes(a, b, 64, twiddles)
        stft.two_passes(a, b, 4, twiddles)
        _square(a, fine)
        stft.two_passes(a, b, 256, twiddles)
        stft.two_passes(a, b, 16, twiddles)
        _last_pass(a, twiddles, t0, out)
    return out


@cache
def _fine_twiddles() -> DoubleArray:
    """exp(-2πi s k/4096) of s = 1, 2, 3 and k < 1024: [2, 3, 1024]."""
    angle = -2.0 * np.pi * np.outer(np.arange(1, 4), np.arange(N_PADDED // 4)) / N_PADDED
    return np.stack([np.cos(angle), np.sin(angle)])


@kernel
def _sum_squares(hops, window, out):  # type: ignore[no-untyped-def]
    """out[t] += sum over n of (window[n] · sample n of frame t)²."""
    for n in range(window.shape[0]):
        weight, row, q = window[n] * window[n], hops[n % HOP_LENGTH], n // HOP_LENGTH
        for t in range(out.shape[0]):
            out[t] += weight * (np.float64(row[t + q]) * row[t + q])


@kernel
def _square(x, fine):  # type: ignore[no-untyped-def]
    """In place: transforms of the quarters of frames -> quarters to transform back."""
    _join(x, fine)
    _power(x)
    _part(x, fine)


@kernel
def _first_pass(hops, window, scale, t0, y):  # type: ignore[no-untyped-def]
    """Window samples 4m + s of frames t0…t0+7 -> lanes 4s…4s+3; the half beyond them is zero."""
    for m in range(256):
        for s in range(4):
            n = 4 * m + s
            near, far = window[n], window[n + 1024]
            row, q = hops[n % HOP_LENGTH], t0 + n // HOP_LENGTH
            for j in range(4):
                t = t0 + j
                ar, ai = row[q + j] * near * scale[t], row[q + j + 4] * near * scale[t + 4]
                br, bi = row[q + j + 2] * far * scale[t], row[q + j + 6] * far * scale[t + 4]
                o = _U(m * 16 + 4 * s + j)
                y[o], y[o + _I0] = ar + br, ai + bi
                y[o + _Q1], y[o + _I1] = ar + bi, ai - br
                y[o + _Q2], y[o + _I2] = ar - br, ai - bi
                y[o + _Q3], y[o + _I3] = ar - bi, ai + br


@kernel
def _join(x, fine):  # type: ignore[no-untyped-def]
    """In place: row k of the four quarters' transforms -> bins k, k + 1024, k + 2048, k + 3072."""
    for k in range(1024):
        at = _U(k // 256) * _Q1 + _U(k % 256) * _LANES
        r1, r2, r3 = fine[0, 0, k], fine[0, 1, k], fine[0, 2, k]
        i1, i2, i3 = fine[1, 0, k], fine[1, 1, k], fine[1, 2, k]
        re, im = x[at : at + _LANES], x[at + _I0 : at + _I0 + _LANES]
        for j in range(4):
            ar, ai = re[j], im[j]
            br, bi = re[j + 4] * r1 - im[j + 4] * i1, re[j + 4] * i1 + im[j + 4] * r1
            cr, ci = re[j + 8] * r2 - im[j + 8] * i2, re[j + 8] * i2 + im[j + 8] * r2
            dr, di = re[j + 12] * r3 - im[j + 12] * i3, re[j + 12] * i3 + im[j + 12] * r3
            sr, si, tr, ti = ar + cr, ai + ci, ar - cr, ai - ci
            ur, ui, vr, vi = br + dr, bi + di, br - dr, bi - di
            re[j], im[j] = sr + ur, si + ui
            re[j + 4], im[j + 4] = tr + vi, ti - vr
            re[j + 8], im[j + 8] = sr - ur, si - ui
            re[j + 12], im[j + 12] = tr - vi, ti + vr


@kernel
def _power(x):  # type: ignore[no-untyped-def]
    """In place: bins K and 4096-K of two frames' transform -> their two powers, times 4."""
    for k in range(513):
        m = (1024 - k) % 1024
        low = _U(k // 256) * _Q1 + _U(k % 256) * _LANES
        high = _U(m // 256) * _Q1 + _U(m % 256) * _LANES
        for q in range(4):
            p = (3 - q) if k else (4 - q) % 4
            if m == k and p < q:
                continue
            for j in range(4):
                a, b = low + _U(4 * q + j), high + _U(4 * p + j)
                xr, xi, yr, yi = x[a], x[a + _I0], x[b], x[b + _I0]
                even = (xr + yr) * (xr + yr) + (xi - yi) * (xi - yi)
                odd = (xi + yi) * (xi + yi) + (yr - xr) * (yr - xr)
                x[a], x[a + _I0], x[b], x[b + _I0] = even, odd, even, odd


@kernel
def _part(x, fine):  # type: ignore[no-untyped-def]
    """In place: the converse of ``_join``; lanes 4v…4v+3 will hold lags 4u + v."""
    for k in range(1024):
        at = _U(k // 256) * _Q1 + _U(k % 256) * _LANES
        r1, r2, r3 = fine[0, 0, k], fine[0, 1, k], fine[0, 2, k]
        i1, i2, i3 = fine[1, 0, k], fine[1, 1, k], fine[1, 2, k]
        re, im = x[at : at + _LANES], x[at + _I0 : at + _I0 + _LANES]
        for j in range(4):
            ar, ai, br, bi = re[j], im[j], re[j + 4], im[j + 4]
            cr, ci, dr, di = re[j + 8], im[j + 8], re[j + 12], im[j + 12]
            sr, si, tr, ti = ar + cr, ai + ci, ar - cr, ai - ci
            ur, ui, vr, vi = br + dr, bi + di, br - dr, bi - di
            re[j], im[j] = sr + ur, si + ui
            pr, pi = tr + vi, ti - vr
            re[j + 4], im[j + 4] = pr * r1 - pi * i1, pr * i1 + pi * r1
            pr, pi = sr - ur, si - ui
            re[j + 8], im[j + 8] = pr * r2 - pi * i2, pr * i2 + pi * r2
            pr, pi = tr - vi, ti + vr
            re[j + 12], im[j + 12] = pr * r3 - pi * i3, pr * i3 + pi * r3


@kernel
def _last_pass(x, twiddles, t0, out):  # type: ignore[no-untyped-def]
    """The last radix-4 pass, for the first lags alone."""
    n_lags = out.shape[1]
    for u in range((n_lags + 3) // 4):
        r1, r2, r3 = twiddles[0, u], twiddles[0, 2 * u], twiddles[0, 3 * u]
        i1, i2, i3 = twiddles[1, u], twiddles[1, 2 * u], twiddles[1, 3 * u]
        at = _U(u // 64) * _Q1 + _U(4 * u % 256) * _LANES
        for v in range(min(4, n_lags - 4 * u)):
            for j in range(4):
                a = at + _U(4 * v + j)
                b, c, d = a + _LANES, a + _LANES * _2, a + _LANES * _3
                re = x[a] + (x[b] * r1 - x[b + _I0] * i1)
                im = x[a + _I0] + (x[b] * i1 + x[b + _I0] * r1)
                re += (x[c] * r2 - x[c + _I0] * i2) + (x[d] * r3 - x[d + _I0] * i3)
                im += (x[c] * i2 + x[c + _I0] * r2) + (x[d] * i3 + x[d + _I0] * r3)
                out[t0 + j, 4 * u + v] = re / (4.0 * N_PADDED)
                out[t0 + j + 4, 4 * u + v] = im / (4.0 * N_PADDED)
