"""What A7, A7s, A9, A9s must give, written again from the definition: float64 NumPy and loops.

M is float32 by definition, and the largest bins and peaks are chosen by it: in the last bit that is a
matter of how the transform rounds. ``undecided_*`` say in which frames.

Imports nothing from the packages under test.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from oracles import BINS, JUST, N_FFT, RATE, magnitude

ROUNDING = 2.0**-22  # two units of a float32 around 1
FLAT = 2.0**-8  # ln M bends by less: rounding moves the vertex by 1e-4 bins and more


def rounded(samples: np.ndarray) -> np.ndarray:
    """M to float32, as it is defined: float64 [188, 1025]."""
    return magnitude(samples).astype(np.float32).astype(np.float64)


def activations(partials: list[tuple[float, float]], floor: float) -> np.ndarray:
    """R of one frame's partials (frequency, magnitude), in order of frequency: [12]."""
    out = np.zeros(12)
    for (f1, m1), (f2, m2) in itertools.combinations(partials, 2):
        rho = math.log2(f2 / (f1 + 1e-8)) % 1
        for c, ratio in enumerate(JUST):
            d = abs(rho - math.log2(ratio))
            d = min(d, 1 - d)
            out[c] += math.sqrt(m1 * m2 + floor) * math.exp(-0.5 * (d / 0.02) ** 2)
    return out


def bin_activations(spectra: np.ndarray) -> np.ndarray:
    """R of the 8 largest bins of M [T, 1025]: [T, 12] float64."""
    rows = []
    for frame in spectra:
        kept = sorted(np.argsort(-frame, kind="stable")[:8])
        hz = [k * RATE / N_FFT for k in kept]
        rows.append(
            activations(
                [(max(f, 50.0), frame[k] if f >= 50 else 0.0)
                 for f, k in zip(hz, kept, strict=True)], 1e-8,
            )
        )  # fmt: skip
    return np.array(rows).reshape(-1, 12)


def undecided_bins(spectra: np.ndarray) -> np.ndarray:
    """Frames whose 8th and 9th bin differ by rounding alone: [T] bool."""
    ordered = -np.sort(-spectra, axis=1)
    return (ordered[:, 7] > 0) & (ordered[:, 7] - ordered[:, 8] <= ROUNDING * ordered[:, 7])


def maxima(m: np.ndarray, margin: float = 0.0) -> list[int]:
    """Local maxima of one frame from 50 Hz on, the largest first; with those that ``margin`` makes."""
    found = []
    for k in range(5, BINS - 1):
        top = m[k] * (1 + margin)
        if m[k] > 0 and top >= m[k + 1] and (m[k - 1] < m[k] or (margin and m[k - 1] <= top)):
            found.append(k)
    return sorted(found, key=lambda k: -m[k])


def bend(m: np.ndarray, k: int) -> tuple[float, float]:
    """Slope and curvature of ln M at a bin."""
    a, b, c = (math.log(max(m[i], 1e-30)) for i in (k - 1, k, k + 1))
    return a - c, a - 2 * b + c


def peak_activations(spectra: np.ndarray) -> np.ndarray:
    """R of the 8 largest local maxima of M [T, 1025] from 50 Hz on: [T, 12] float64."""
    rows = []
    for m in spectra:
        partials = []
        for k in maxima(m)[:8]:
            slope, curvature = bend(m, k)
            partials.append(((k + 0.5 * slope / curvature) * RATE / N_FFT, m[k]))
        rows.append(activations(sorted(partials), 0.0))
    return np.array(rows).reshape(-1, 12)


def undecided_peaks(spectra: np.ndarray, flat: float = FLAT) -> np.ndarray:
    """Frames in which rounding chooses the 8 peaks, or a flat one's vertex: [T] bool."""
    out = []
    for m in spectra:
        kept = maxima(m, ROUNDING)
        close = len(kept) > 8 and m[kept[7]] - m[kept[8]] <= ROUNDING * m[kept[7]]
        out.append(close or any(abs(bend(m, k)[1]) < flat for k in kept[:8]))
    return np.array(out)


def rarity(present: np.ndarray) -> np.ndarray:
    """Inverse document frequency of [188, 12] bool, [12]."""
    return np.clip(np.log(1 / (present.mean(axis=0) + 1e-3)), 0, 5)
