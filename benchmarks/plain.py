"""Every descriptor's definition in plain NumPy: what the kernels are measured against.

As one would write it, whole arrays at a time, no loops where NumPy has none. The STFT is in float32 as
the paper's is, the autocorrelation and the recurrence plots in float64, because their definitions
round to 2^-30 and 2^-24.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.descriptors import Notes
from pipeline.descriptors.a4 import BAND_EDGES
from pipeline.descriptors.mel import MelConfig, filter_bank
from pipeline.descriptors.ratios import EVEN, SIMPLE

Array = Any
HZ = np.arange(1025) * 11.71875
WINDOW = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
WINDOW32 = WINDOW.astype(np.float32)
FILTERS = filter_bank(MelConfig()).astype(np.float32).T
CLASSES = (np.rint(12 * np.log2(HZ[3:] / 32.7)).astype(int) % 12 == np.arange(12)[:, None]).T
CLASSES32 = CLASSES.astype(np.float32)
PAIRS = np.triu_indices(8, 1)
TRIANGLE = np.triu_indices(126)


def frames(samples: Array, window: Array) -> Array:
    """Windowed frames [188, 2048]."""
    return sliding_window_view(np.pad(samples, 1024, mode="reflect"), 2048)[::512] * window


def stft(samples: Array) -> Array:
    """Magnitudes [188, 1025], float32."""
    return np.abs(np.fft.rfft(frames(samples, WINDOW32)))


def shares(values: Array) -> Array:
    """Each row by its sum."""
    return values / np.maximum(values.sum(axis=1, keepdims=True), 1e-8)


def z_score(values: Array) -> Array:
    """Columns to mean 0 and unbiased deviation 1."""
    return (values - values.mean(axis=0)) / np.maximum(values.std(axis=0, ddof=1), 1e-8)


def levels(samples: Array) -> Array:
    """Band levels [188, 8]."""
    logs = np.log1p(stft(samples))
    return np.stack([logs[:, a:b].mean(axis=1) for a, b in itertools.pairwise(BAND_EDGES)], axis=1)


def a4(samples: Array) -> Array:
    """A4."""
    bands = levels(samples)
    return z_score(np.diff(bands, axis=0, prepend=bands[:1]))


def nearness(low: Array, high: Array, sizes: Array, valid: Array, centres: Array) -> Array:
    """Activations [T, C] of all pairs of 8."""
    i, j = PAIRS
    rho = (high[:, j] - low[:, i]) % 1
    weight = np.where(valid[:, i] & valid[:, j], np.sqrt(sizes[:, i] * sizes[:, j] + 1e-8), 0)
    d = np.abs(rho[:, :, None] - centres)
    d = np.minimum(d, 1 - d)
    return np.einsum("tp,tpc->tc", weight, np.exp(-0.5 * (d / 0.02) ** 2))


def bin_activations(samples: Array) -> Array:
    """R of A7 and A9."""
    m = stft(samples)
    kept = np.sort(np.argpartition(m, -8, axis=1)[:, -8:], axis=1)
    hz, size = HZ[kept], np.take_along_axis(m, kept, axis=1).astype(np.float64)
    size[hz < 50] = 0
    hz = np.maximum(hz, 50)
    return nearness(np.log2(hz + 1e-8), np.log2(hz), size, np.ones(hz.shape, bool), SIMPLE)


def peak_activations(samples: Array) -> Array:
    """R of A7s and A9s."""
    m = stft(samples)
    peak = np.zeros_like(m)
    middle = m[:, 5:-1]
    peak[:, 5:-1] = np.where((middle > m[:, 4:-2]) & (middle >= m[:, 6:]), middle, 0)
    kept = np.sort(np.argpartition(peak, -8, axis=1)[:, -8:], axis=1)
    size = np.take_along_axis(peak, kept, axis=1).astype(np.float64)
    a, b, c = (
        np.log(np.maximum(np.take_along_axis(m, np.clip(kept + k, 0, 1024), axis=1), 1e-30))
        for k in (-1, 0, 1)
    )
    with np.errstate(all="ignore"):
        place = kept + np.where(size > 0, 0.5 * (a - c) / (a - 2 * b + c), 0)
    octaves = np.log2(np.maximum(place * 11.71875, 50))
    return nearness(octaves, octaves, size, size > 0, SIMPLE)


def rarity(present: Array) -> Array:
    """Inverse document frequency [12]."""
    return np.clip(-np.log(present.mean(axis=0) + 1e-3), 0, 5)


def a9(samples: Array) -> Array:
    """A9."""
    raw = bin_activations(samples)
    return shares(raw * rarity(raw > 0.05))


def a9s(samples: Array) -> Array:
    """A9s."""
    raw = peak_activations(samples)
    return shares(raw * rarity(shares(raw) > 0.05))


def chroma(samples: Array) -> tuple[Array, Array]:
    """Chroma [188, 12] and onset gate [188, 1]."""
    m = stft(samples)
    flux = np.maximum(np.diff(m, axis=0, prepend=m[:1]), 0).sum(axis=1)
    return m[:, 3:] @ CLASSES32, (flux / max(flux.max(), 1e-8))[:, None]


def a8(samples: Array) -> Array:
    """A8."""
    sums, gate = chroma(samples)
    return shares(sums * gate)


def a8s(samples: Array) -> Array:
    """A8s."""
    sums, gate = chroma(samples)
    return shares(sums) * gate


def highest(curves: Array, first: int, last: int) -> tuple[Array, Array]:
    """Places and heights [T, 8] of the highest strict maxima, in order; height 0: none."""
    middle = curves[:, first : last + 1]
    left, right = curves[:, first - 1 : last], curves[:, first + 1 : last + 2]
    peaks = np.where((middle > left) & (middle > right) & (middle > 0), middle, 0)
    kept = np.sort(np.argsort(-peaks, axis=1, kind="stable")[:, :8], axis=1)
    return kept + first, np.take_along_axis(peaks, kept, axis=1)


def sounding(framed: Array) -> Array:
    """Frames that pass the gate [188, 1]."""
    return (framed**2).mean(axis=1, keepdims=True) > 1e-10


def by_autocorrelation(samples: Array, centres: Array) -> Array:
    """A10a, A10d."""
    framed = frames(samples.astype(np.float64), WINDOW)
    power = np.fft.rfft(framed, 4096)
    curve = np.fft.irfft(power.real**2 + power.imag**2)[:, :2048]
    curve = np.rint(curve / np.maximum(curve[:, :1], 1e-10) * 2**30) / 2**30
    lags, heights = highest(curve, 6, 480)
    octaves = np.log2(lags)
    return shares(nearness(octaves, octaves, heights, heights > 0, centres) * sounding(framed))


def plots(samples: Array) -> tuple[Array, Array]:
    """Recurrence plots, frame by frame, and which frames sound."""
    framed = frames(samples.astype(np.float64), WINDOW)
    vectors = sliding_window_view(np.rint(framed[:, ::16] * 2**24), 3, axis=1)
    on, kth = sounding(framed), int(0.10 * 126**2) - 1
    out = np.zeros((188, 126, 126), bool)
    for t in np.flatnonzero(on):  # all frames at once would take 700 MB
        squares = ((vectors[t][:, None] - vectors[t]) ** 2).sum(axis=2)
        out[t] = squares <= np.partition(squares.ravel(), kth)[kth]
    return out, on


def by_recurrence(samples: Array, centres: Array) -> Array:
    """A10b, A10e."""
    near, on = plots(samples)
    i, j = TRIANGLE
    order = np.argsort(j - i, kind="stable")
    points = near[:, i[order], j[order]]
    starts = np.r_[0, np.cumsum(np.arange(126, 1, -1))]
    rates = np.add.reduceat(points, starts, axis=1, dtype=np.int64) / np.arange(126, 0, -1)
    offsets, heights = highest(rates, 1, 124)
    octaves = np.log2(offsets * 16)
    return shares(nearness(octaves, octaves, heights, heights > 0, centres) * on)


def runs(rows: Array) -> Array:
    """Lengths of the runs of True in one row after another, a False between them."""
    step = np.diff(rows.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(step < 0) - np.flatnonzero(step > 0)


def measures(samples: Array) -> tuple[Array, Array, Array]:
    """REC, DET, LAM, Lmean, ENTR, TT [188, 6]; DET, LAM of the paper [188, 2]; which sound."""
    near, on = plots(samples)
    out, paper = np.zeros((188, 6)), np.zeros((188, 2))
    i, j = np.triu_indices(126, 1)
    order = np.argsort(j - i, kind="stable")
    at = np.arange(len(i)) + (j - i)[order] - 1  # a free place after every diagonal
    diagonals = np.zeros(at[-1] + 2, bool)
    columns = np.zeros((126, 127), bool)
    for t in np.flatnonzero(on):
        plot = near[t]
        diagonals[at] = plot[i[order], j[order]]
        columns[:, :126] = plot
        lengths, heights = runs(diagonals), runs(columns.ravel())
        lines, pillars = lengths[lengths > 1], heights[heights > 1]
        share = np.bincount(lines) / max(len(lines), 1)
        share = share[share > 0]
        total = plot.sum()
        out[t] = (
            total / plot.size,
            lines.sum() / max(lengths.sum(), 1),
            pillars.sum() / total,
            lines.mean() if len(lines) else 0,
            -(share * np.log(share)).sum(),
            pillars.mean() if len(pillars) else 0,
        )
        paper[t] = plot[1:, 1:].sum() / total, plot[1:].sum() / total
    return out, paper, on


def a10c(samples: Array) -> Array:
    """A10c."""
    found, paper, on = measures(samples)
    found[:, 1:3] = paper
    return z_score(found) * on


def a10cs(samples: Array) -> Array:
    """A10cs."""
    found, _, on = measures(samples)
    return z_score(found) * on


def a10c_level(samples: Array) -> Array:
    """A10c_level."""
    found, _, on = measures(samples)
    return found.sum(axis=0) / max(1, on.sum())


def pair_histograms(notes: Notes) -> Array:
    """D1 and D2: [128, 3]."""
    pitch = notes.pitch[:128].astype(int)
    interval = pitch[:, None] - pitch
    kept = np.abs(interval) <= 12
    velocity = notes.velocity[:128] / 127.0
    length = (notes.duration_bucket[:128] + 1.0) / 32.0
    weights = [np.sqrt(np.outer(w, w)[kept] + 1e-8) for w in (velocity, length)]
    ratio = 2.0 ** (interval[kept] / 12.0)
    near = np.exp(-0.5 * ((ratio[:, None] - np.linspace(0.5, 2, 128)) / (1.5 / 128)) ** 2)
    counts = near.T @ np.stack([*weights, np.ones(len(ratio))], axis=1)
    return counts / (counts.sum(axis=0) + 1e-8)


def d3(notes: Notes) -> Array:
    """D3."""
    begun = notes.onset_s >= 0
    centres = np.linspace(0.25, 4, 64)

    def ratios(values: Array, shortest: float) -> Array:
        both = (values[:-1] > shortest) & (values[1:] > shortest)
        r = np.clip(values[:-1][both] / (values[1:][both] + 1e-8), 0.25, 4)
        out = np.exp(-0.5 * ((r[:, None] - centres) / (3.75 / 64)) ** 2).sum(axis=0)
        return out / (out.sum() + 1e-8)

    steps = np.clip(np.diff(notes.pitch[begun].astype(int)), -12, 12) + 12
    counts = np.bincount(steps, minlength=25)
    onsets = notes.onset_s[begun].astype(np.float64)
    durations = notes.duration_s[begun].astype(np.float64)
    parts = [ratios(np.diff(onsets), 0.01), ratios(durations, 0.05)]
    return np.concatenate([*parts, counts / (counts.sum() + 1e-8)])


def d4(notes: Notes) -> Array:
    """D4."""
    steps = np.diff(notes.pitch.astype(np.float32))
    raw = np.stack([np.r_[0, steps], np.r_[steps, 0]], axis=1)[: len(notes)]
    return np.concatenate([raw / 24, np.clip(raw / 12, -2, 2) / 2], axis=1)


def d5(notes: Notes) -> Array:
    """D5."""
    at = np.arange(188)[:, None] * (512 / 24_000)
    onset = notes.onset_s.astype(np.float64)
    on = (onset <= at) & (at < onset + notes.duration_s)
    top = np.where(on, notes.pitch.astype(np.float64), -1).max(axis=1, initial=-1)
    voiced = top >= 0
    out = np.zeros((188, 3))
    if voiced.any():
        octaves = (top - np.median(top[voiced])) / 12
        out[:, 0], out[:, 1] = np.where(voiced, octaves, 0), voiced
        three = voiced[:-2] & voiced[1:-1] & voiced[2:]
        out[1:-1, 2] = np.where(three, (octaves[2:] - octaves[:-2]) / (1024 / 24_000), 0)
    return out


PLAIN: dict[str, Callable[[Any], Array]] = {
    "mel": lambda x: np.log(1 + 10 * (stft(x) @ FILTERS)),
    "A4": a4,
    "A4_level": lambda x: levels(x).mean(axis=0),
    "A7": lambda x: shares(bin_activations(x)),
    "A9": a9,
    "A7s": lambda x: shares(peak_activations(x)),
    "A9s": a9s,
    "A8": a8,
    "A8s": a8s,
    "A10a": lambda x: by_autocorrelation(x, SIMPLE),
    "A10b": lambda x: by_recurrence(x, SIMPLE),
    "A10c": a10c,
    "A10d": lambda x: by_autocorrelation(x, EVEN),
    "A10e": lambda x: by_recurrence(x, EVEN),
    "A10cs": a10cs,
    "A10c_level": a10c_level,
    "D1": lambda n: pair_histograms(n)[:, 2],
    "D2": lambda n: pair_histograms(n).reshape(-1),
    "D3": d3,
    "D4": d4,
    "D4s": lambda n: d4(n)[:, :2],
    "D5": d5,
}
