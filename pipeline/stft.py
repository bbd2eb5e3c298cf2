"""The transform behind :mod:`pipeline.spectral`: real FFTs of 16 frames at a time, in Numba.

A library transforms frame by frame: frames are cut and windowed, transformed, and the magnitudes
turned round so that a bin's row runs along time. Here 16 consecutive frames are the lanes of the
vector unit from the first load to the last store, and nothing is turned round but the samples
themselves, once, before frames overlap. That pays for float64 throughout (only the magnitude is
rounded), so that A4 of the steadiest tone is exact to 2e-6, where float32 transforms miss by 4e-4.

1. *Hops.* The hop is a quarter of the window, so with ``H[r, j] = padded[512 j + r]`` sample
   ``512 q + r`` of frame t is ``H[r, t + q]``: neighbouring frames are neighbouring numbers.
2. *Pack.* Even samples are real parts and odd samples imaginary parts of 1,024 complex numbers.
3. *Transform.* Five radix-4 passes (Stockham, decimation in time: results come out in order). The
   first combines the four quarters of the window, which are the four hops: it reads H, multiplies
   by the window and needs no twiddle factors.
4. *Unpack.* With ``E = (Z[k] + Z*[1024-k]) / 2`` and ``O = (Z[k] - Z*[1024-k]) / 2i``,
   ``X[k] = E + w^k O`` and ``X*[1024-k] = E - w^k O``, ``w = exp(-2πi / 2048)``.

Buffers are flat, offsets unsigned and distances between rows constants: only so does LLVM see that
the rows of a pass do not overlap, and vectorises it. Between quarters lie 16 unused numbers; without
them all rows of a pass would share one set of the first-level cache.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline.base.jit import kernel

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

VERSION = 1  # counts up when a magnitude changes: part of every audio descriptor's fingerprint
N_FFT = 2048
HOP_LENGTH = 512
LANES = 16  # frames transformed at a time

_U = np.uint64
_0, _1, _2, _4 = (_U(i) for i in (0, 1, 2, 4))
_LANES = _U(LANES)
_HOP = _U(HOP_LENGTH)
_HALF = _U(N_FFT // 2)  # complex numbers a frame
_QUARTER = _U(N_FFT // 8)
_Q1 = _U((N_FFT // 8 + 1) * LANES)  # where quarters 1, 2 and 3 of a buffer start
_Q2, _Q3 = _Q1 * _2, _Q1 * _U(3)
_I0 = _Q1 * _4  # … and those of the imaginary parts
_I1, _I2, _I3 = _I0 + _Q1, _I0 + _Q2, _I0 + _Q3
BUFFER = int(_I0) * 2


class Buffers:
    """Scratch memory for one transform at a time, for segments of ``n_samples``."""

    def __init__(self, n_samples: int) -> None:
        self.n_frames = 1 + n_samples // HOP_LENGTH
        columns = -(-(self.n_frames + 3) // LANES) * LANES
        self.padded = np.zeros(columns * HOP_LENGTH, np.float32)
        self.hops = np.empty((HOP_LENGTH, columns), np.float32)
        self.a, self.b = np.empty(BUFFER), np.empty(BUFFER)


def turn_hops(samples: FloatArray, buffers: Buffers) -> FloatArray:
    """Centred frames of float32 ``samples`` [n], reflected at the edges: H, float32 [512, >= T + 3].

    Sample ``512 q + r`` of frame t is ``H[r, t + q]``. Valid until the next call with ``buffers``.
    """
    edge, n = N_FFT // 2, len(samples)
    padded = buffers.padded
    padded[:edge] = samples[edge:0:-1]
    padded[edge : edge + n] = samples
    padded[edge + n : edge + n + edge] = samples[-2 : -2 - edge : -1]
    _turn(padded, buffers.hops)
    return buffers.hops


def magnitudes(hops: FloatArray, out: FloatArray, buffers: Buffers) -> None:
    """|STFT| of the frames in ``hops`` -> out [1025, T]."""
    _transform(hops, hann_window(), twiddles(), unpacking(), buffers.a, buffers.b, out)


@cache
def hann_window() -> DoubleArray:
    """Periodic Hann window, float64 [2048]."""
    window: DoubleArray = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(N_FFT) / N_FFT)
    return window


@cache
def twiddles() -> DoubleArray:
    """exp(-2πi k/1024) of k < 1024: real and imaginary parts, [2, 1024]."""
    return _circle(1024)


@cache
def unpacking() -> DoubleArray:
    """exp(-2πi k/2048) / 2 of k < 1024: [2, 1024]."""
    return _circle(2048)[:, :1024] / 2


def _circle(n: int) -> DoubleArray:
    angle = -2.0 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angle), np.sin(angle)])


@kernel
def _transform(hops, window, twiddles, unpacking, a, b, out):  # type: ignore[no-untyped-def]
    """All frames of a segment, 16 at a time; the last group overlaps the one before."""
    n_frames = out.shape[1]
    for group in range((n_frames + LANES - 1) // LANES):
        t0 = min(group * LANES, n_frames - LANES)
        _first_pass(hops, window, t0, a)
        two_passes(a, b, 64, twiddles)
        two_passes(a, b, 4, twiddles)
        _unpack(a, unpacking, t0, out)


@kernel
def _turn(padded, hops):  # type: ignore[no-untyped-def]
    """hops[r, j] = padded[512 j + r], in tiles of 16 x 16."""
    for j0 in range(0, hops.shape[1], 16):
        for r0 in range(0, HOP_LENGTH, 16):
            for r in range(r0, r0 + 16):
                for j in range(j0, j0 + 16):
                    hops[r, j] = padded[HOP_LENGTH * j + r]


@kernel
def _first_pass(hops, window, t0, y):  # type: ignore[no-untyped-def]
    """Window, pack and combine the quarters of frames t0…t0+15."""
    x = hops.reshape(-1)
    columns = _U(hops.shape[1])
    for q in range(_QUARTER):
        even = _2 * q
        odd = even + _1
        w0, w1 = window[even], window[even + _HOP]
        w2, w3 = window[even + _HOP * _2], window[even + _HOP * _U(3)]
        v0, v1 = window[odd], window[odd + _HOP]
        v2, v3 = window[odd + _HOP * _2], window[odd + _HOP * _U(3)]
        row = even * columns + _U(t0)
        for lane in range(_LANES):
            i = row + lane
            j = i + columns
            ar, br, cr, dr = x[i] * w0, x[i + _1] * w1, x[i + _2] * w2, x[i + _U(3)] * w3
            ai, bi, ci, di = x[j] * v0, x[j + _1] * v1, x[j + _2] * v2, x[j + _U(3)] * v3
            sr, si, tr, ti = ar + cr, ai + ci, ar - cr, ai - ci
            ur, ui, vr, vi = br + dr, bi + di, br - dr, bi - di
            o = q * _LANES + lane
            y[o], y[o + _I0] = sr + ur, si + ui
            y[o + _Q1], y[o + _I1] = tr + vi, ti - vr
            y[o + _Q2], y[o + _I2] = sr - ur, si - ui
            y[o + _Q3], y[o + _I3] = tr - vi, ti + vr


@kernel
def two_passes(a, b, stride, twiddles):  # type: ignore[no-untyped-def]
    """A radix-4 pass of ``stride`` and one of a quarter of it, over b; the result is in a."""
    _pass(a, _U(stride), twiddles, b)
    _pass(b, _U(stride) // _4, twiddles, a)


@kernel
def _pass(x, stride, twiddles, y):  # type: ignore[no-untyped-def]
    """One radix-4 pass: 256/stride groups of 4 runs of ``stride`` numbers each -> y."""
    run = stride * _LANES
    step = _Q1 if stride == _QUARTER else run
    for p in range(_QUARTER // stride):
        e1 = p * stride
        e2, e3 = e1 + e1, e1 + e1 + e1
        r1, r2, r3 = twiddles[_0, e1], twiddles[_0, e2], twiddles[_0, e3]
        i1, i2, i3 = twiddles[_1, e1], twiddles[_1, e2], twiddles[_1, e3]
        at = _4 * p * stride
        a0 = (at // _QUARTER) * _Q1 + (at % _QUARTER) * _LANES
        b0 = a0 + step
        c0 = b0 + step
        d0 = c0 + step
        for n in range(run):
            ar, ai = x[a0 + n], x[a0 + _I0 + n]
            br, bi = x[b0 + n], x[b0 + _I0 + n]
            cr, ci = x[c0 + n], x[c0 + _I0 + n]
            dr, di = x[d0 + n], x[d0 + _I0 + n]
            br, bi = br * r1 - bi * i1, br * i1 + bi * r1
            cr, ci = cr * r2 - ci * i2, cr * i2 + ci * r2
            dr, di = dr * r3 - di * i3, dr * i3 + di * r3
            sr, si, tr, ti = ar + cr, ai + ci, ar - cr, ai - ci
            ur, ui, vr, vi = br + dr, bi + di, br - dr, bi - di
            o = p * run + n
            y[o], y[o + _I0] = sr + ur, si + ui
            y[o + _Q1], y[o + _I1] = tr + vi, ti - vr
            y[o + _Q2], y[o + _I2] = sr - ur, si - ui
            y[o + _Q3], y[o + _I3] = tr - vi, ti + vr


@kernel
def _unpack(z, unpacking, t0, out):  # type: ignore[no-untyped-def]
    """Bins k and 1024-k of 16 frames from the packed transform, as magnitudes."""
    for k in range(_HALF // _2 + _1):
        m = (_HALF - k) % _HALF
        wr, wi = unpacking[_0, k], unpacking[_1, k]
        a = (k // _QUARTER) * _Q1 + (k % _QUARTER) * _LANES
        b = (m // _QUARTER) * _Q1 + (m % _QUARTER) * _LANES
        low, high = out[k, t0 : t0 + LANES], out[_HALF - k, t0 : t0 + LANES]
        for lane in range(_LANES):
            zr, zi = z[a + lane], z[a + _I0 + lane]
            mr, mi = z[b + lane], z[b + _I0 + lane]
            er, ei = 0.5 * (zr + mr), 0.5 * (zi - mi)
            dr, di = zi + mi, mr - zr
            pr, pi = wr * dr - wi * di, wr * di + wi * dr
            xr, xi, yr, yi = er + pr, ei + pi, er - pr, ei - pi
            low[lane] = np.sqrt(np.float32(xr * xr + xi * xi))
            high[lane] = np.sqrt(np.float32(yr * yr + yi * yi))
