"""Autocorrelation of every frame (for A10a, A10d): in Numba, 16 frames at a time, in float64.

By Wiener and Khinchin. Strict local maxima are read off the result, so float32 would not do. A frame
is four hops, and frames share them, so it is hops that are transformed, not frames:

1. A hop's 512 samples, zero-padded to 2,048, give ``X[0 … 1024]``: packed as 1,024 complex numbers and
   transformed by :mod:`pipeline.stft`'s passes, 16 hops in as many lanes.
2. Of the even bins ``U = X[2k]`` (those of a transform of 1,024) and of
   ``V = (X[2k-1] + X[2k+1]) / 2``, ``W = (X[2k-1] - X[2k+1]) / 2i`` (the hop multiplied by the cosine
   and the sine of the window's phase) follow the transforms of a frame's windowed hops: with a Hann
   window they are ``(U - V, U + W, U + V, U - W) / 2``.
3. Lags below 512 join a hop to itself and to the next one, no further. With D, E, F, G a frame's four
   transforms the autocorrelation's is
   ``|D|² + |E|² + |F|² + |G|² + (-1)^k (D* E + E* F + F* G)``;
   what comes out at lags above 512 is not the autocorrelation, and left.
4. Transformed back: two frames are the real and the imaginary part of one transform, and all are
   divided by their energy first, so that a loud one cannot blur the other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline import stft
from pipeline.base.jit import kernel
from pipeline.stft import BUFFER, HOP_LENGTH, LANES, N_FFT

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

N_LAGS = HOP_LENGTH + 1  # lags 0 … 512 at most
EARLIER = N_FFT // HOP_LENGTH - 1  # hops of the group before that this group's frames begin with

_U = np.uint64
_LANES = _U(LANES)
_Q1 = _U((N_FFT // 8 + 1) * LANES)  # where quarters of a buffer start, see pipeline.stft
_Q2, _Q3 = _Q1 * _U(2), _Q1 * _U(3)
_I0 = _Q1 * _U(4)
_I1, _I2, _I3 = _I0 + _Q1, _I0 + _Q2, _I0 + _Q3
# Spectra are flat: of bins 0 … 512, then of bins 1024 … 512, the real parts of the earlier hops, of 16
# more and of an unused one, and as many imaginary parts.
_IMAG, _BIN, _UPPER = _U(20), _U(40), _U(40 * 513)
_1 = _U(1)


class Buffers:
    """Scratch memory for one segment at a time, and its autocorrelations."""

    def __init__(self) -> None:
        self.a, self.b, self.both = np.empty(BUFFER), np.empty(BUFFER), np.empty(BUFFER)
        self.spectra = np.zeros(2 * int(_UPPER))
        self.out = np.empty((0, 0))


def energies(hops: FloatArray, n_frames: int) -> DoubleArray:
    """Sum of squares of every windowed frame: float64 [T]."""
    out = np.zeros(n_frames)
    _sum_squares(hops, stft.hann_window(), out)
    return out


def autocorrelations(
    hops: FloatArray, energy: DoubleArray, n_lags: int, grid: float, buffers: Buffers
) -> DoubleArray:
    """Autocorrelation at lags 0 … n_lags - 1 of every windowed frame by its energy.

    Parameters
    ----------
    hops : float32 [512, >= T + 3], the number of columns a multiple of 16
        The frames, see :attr:`pipeline.spectral.Spectrum.hops`.
    energy : float64 [T]
        What lag 0 is divided by; a frame of energy 0 gives zeros.
    n_lags : at most 513
    grid
        Values are rounded to multiples of 1 / grid.
    buffers
        Memory to use.

    Returns
    -------
    float64 [T, n_lags], valid until the next call with the same buffers
    """
    n_frames, n_groups = len(energy), hops.shape[1] // LANES
    # Group g's frames are 16 g - 3 … 16 g + 12: those that end with its hops.
    scale = np.zeros(LANES * n_groups + LANES)
    np.divide(0.25 / 1024, energy, out=scale[EARLIER : EARLIER + n_frames], where=energy > 0)
    twiddles, unpacking = stft.twiddles(), stft.unpacking()
    if buffers.out.shape != (n_frames, n_lags):
        buffers.out = np.empty((n_frames, n_lags))
    a, b, both, spectra, out = buffers.a, buffers.b, buffers.both, buffers.spectra, buffers.out
    for group in range(n_groups):
        _first_pass(hops, group * LANES, a)
        stft.two_passes(a, b, 64, twiddles)
        stft.two_passes(a, b, 4, twiddles)
        _unpack(a, unpacking, spectra)
        _correlate(spectra, scale[LANES * group :], group % 2, both)
        if group % 2 or group == n_groups - 1:
            stft.two_passes(both, b, 256, twiddles)
            stft.two_passes(both, b, 16, twiddles)
            _last_pass(both, twiddles, LANES * (group - group % 2) - EARLIER, grid, out)
    return out


@kernel
def _sum_squares(hops, window, out):  # type: ignore[no-untyped-def]
    """out[t] += sum over n of (window[n] · sample n of frame t)²."""
    for n in range(window.shape[0]):
        weight, row, q = window[n] * window[n], hops[n % HOP_LENGTH], n // HOP_LENGTH
        for t in range(out.shape[0]):
            out[t] += weight * (np.float64(row[t + q]) * row[t + q])


@kernel
def _first_pass(hops, first, y):  # type: ignore[no-untyped-def]
    """Pack 16 hops; three quarters of what is packed are zeros, so the first pass copies the other."""
    for q in range(HOP_LENGTH // 2):
        even, odd = hops[2 * q, first : first + LANES], hops[2 * q + 1, first : first + LANES]
        for lane in range(LANES):
            o = _U(q) * _LANES + _U(lane)
            re, im = np.float64(even[lane]), np.float64(odd[lane])
            y[o], y[o + _I0] = re, im
            y[o + _Q1], y[o + _I1] = re, im
            y[o + _Q2], y[o + _I2] = re, im
            y[o + _Q3], y[o + _I3] = re, im


@kernel
def _unpack(z, unpacking, spectra):  # type: ignore[no-untyped-def]
    """Bins k and 1024 - k of 16 hops from the packed transform -> spectra, behind the last three."""
    for k in range(513):
        m = (1024 - k) % 1024
        wr, wi = unpacking[0, k], unpacking[1, k]
        a = _U(k // 256) * _Q1 + _U(k % 256) * _LANES
        b = _U(m // 256) * _Q1 + _U(m % 256) * _LANES
        low = _U(k) * _BIN
        for j in range(EARLIER):
            i = low + _U(j)
            spectra[i], spectra[i + _IMAG] = spectra[i + _LANES], spectra[i + _LANES + _IMAG]
            i += _UPPER
            spectra[i], spectra[i + _IMAG] = spectra[i + _LANES], spectra[i + _LANES + _IMAG]
        low += _U(EARLIER)
        for lane in range(LANES):
            p, q, o = a + _U(lane), b + _U(lane), low + _U(lane)
            zr, zi, mr, mi = z[p], z[p + _I0], z[q], z[q + _I0]
            er, ei = 0.5 * (zr + mr), 0.5 * (zi - mi)
            dr, di = zi + mi, mr - zr
            pr, pi = wr * dr - wi * di, wr * di + wi * dr
            spectra[o], spectra[o + _IMAG] = er + pr, ei + pi
            spectra[o + _UPPER], spectra[o + _UPPER + _IMAG] = er - pr, pi - ei


@kernel
def _row(k):  # type: ignore[no-untyped-def]
    """Where bin k's numbers start in the spectra."""
    return _U(k) * _BIN if k <= 512 else _U(1024 - k) * _BIN + _UPPER


@kernel
def _correlate(spectra, scale, second, z):  # type: ignore[no-untyped-def]
    """The autocorrelations' transforms of 16 frames, conjugated: transforming those transforms back.

    They are stored in z; of the second 16, times i, they are added to it.
    """
    res, ims = np.empty(LANES), np.empty(LANES)
    for k in range(513):
        m = (1024 - k) % 1024
        sign = 1.0 - 2.0 * (k % 2)
        # X[-1] = X[1]*, X[1025] = X[1023]*
        mid, low, high = _row(2 * k), _row(abs(2 * k - 1)), _row(1024 - abs(1023 - 2 * k))
        low_half, high_half = (0.5 if k else -0.5), (0.5 if k < 512 else -0.5)
        for j in range(LANES):
            # D = U - V, E = U + W, F = U + V, G = U - W
            c = _U(j)
            u, p, q = mid + c, low + c, high + c
            vr, vi = 0.5 * (spectra[p] + spectra[q]), _odd(spectra, p, q, low_half, high_half)
            dr, di = spectra[u] - vr, spectra[u + _IMAG] - vi
            u, p, q = u + _1, p + _1, q + _1
            wr, wi = _odd(spectra, p, q, low_half, -high_half), 0.5 * (spectra[q] - spectra[p])
            er, ei = spectra[u] + wr, spectra[u + _IMAG] + wi
            u, p, q = u + _1, p + _1, q + _1
            vr, vi = 0.5 * (spectra[p] + spectra[q]), _odd(spectra, p, q, low_half, high_half)
            fr, fi = spectra[u] + vr, spectra[u + _IMAG] + vi
            u, p, q = u + _1, p + _1, q + _1
            wr, wi = _odd(spectra, p, q, low_half, -high_half), 0.5 * (spectra[q] - spectra[p])
            gr, gi = spectra[u] - wr, spectra[u + _IMAG] - wi
            re = (dr * er + di * ei) + (er * fr + ei * fi) + (fr * gr + fi * gi)
            im = (dr * ei - di * er) + (er * fi - ei * fr) + (fr * gi - fi * gr)
            power = (dr * dr + di * di) + (er * er + ei * ei)
            power += (fr * fr + fi * fi) + (gr * gr + gi * gi)
            res[j], ims[j] = scale[j] * (power + sign * re), scale[j] * sign * im
        at = _U(k // 256) * _Q1 + _U(k % 256) * _LANES
        mirror = _U(m // 256) * _Q1 + _U(m % 256) * _LANES
        for j in range(LANES):
            o = at + _U(j)
            if second:
                z[o], z[o + _I0] = z[o] + ims[j], z[o + _I0] + res[j]
            else:
                z[o], z[o + _I0] = res[j], -ims[j]
        if mirror != at:
            for j in range(LANES):
                o = mirror + _U(j)
                if second:
                    z[o], z[o + _I0] = z[o] - ims[j], z[o + _I0] + res[j]
                else:
                    z[o], z[o + _I0] = res[j], ims[j]


@kernel
def _odd(spectra, p, q, low_half, high_half):  # type: ignore[no-untyped-def]
    """Of two neighbouring bins' imaginary parts, half the sum or the difference."""
    return low_half * spectra[p + _IMAG] + high_half * spectra[q + _IMAG]


@kernel
def _last_pass(x, twiddles, first, grid, out):  # type: ignore[no-untyped-def]
    """The last radix-4 pass, for the first lags of frames ``first`` … alone."""
    n_frames, n_lags = out.shape
    re, im = np.empty((2, LANES)), np.empty((2, LANES))
    for u in range(min(256, n_lags)):
        r1, r2, r3 = twiddles[0, u], twiddles[0, 2 * u], twiddles[0, 3 * u]
        i1, i2, i3 = twiddles[1, u], twiddles[1, 2 * u], twiddles[1, 3 * u]
        at = _U(u // 64) * _Q1 + _U(4 * u % 256) * _LANES
        for j in range(LANES):
            a = at + _U(j)
            b, c, d = a + _LANES, a + _LANES * _U(2), a + _LANES * _U(3)
            br, bi = x[b] * r1 - x[b + _I0] * i1, x[b] * i1 + x[b + _I0] * r1
            cr, ci = x[c] * r2 - x[c + _I0] * i2, x[c] * i2 + x[c + _I0] * r2
            dr, di = x[d] * r3 - x[d + _I0] * i3, x[d] * i3 + x[d + _I0] * r3
            re[0, j], im[0, j] = x[a] + cr + (br + dr), x[a + _I0] + ci + (bi + di)
            re[1, j], im[1, j] = x[a] - cr + (bi - di), x[a + _I0] - ci - (br - dr)
        for v in range(2):
            lag = u + 256 * v
            if lag < n_lags:
                for j in range(LANES):
                    if 0 <= first + j < n_frames:
                        out[first + j, lag] = np.rint(re[v, j] * grid) / grid
                    if first + LANES + j < n_frames:
                        out[first + LANES + j, lag] = np.rint(im[v, j] * grid) / grid
