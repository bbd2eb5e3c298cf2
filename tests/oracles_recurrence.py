"""What A10a–A10e must give, written again from the definition: float64 NumPy, integers for plots.

Imports nothing from the packages under test.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from oracles import FRAMES, HOP, JUST, N_FFT, shares


def frames(samples: np.ndarray) -> np.ndarray:
    """Windowed frames, [188, 2048] float64."""
    padded = np.pad(np.asarray(samples, np.float64), N_FFT // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    return np.stack([padded[t * HOP : t * HOP + N_FFT] * window for t in range(FRAMES)])


def sounds(frame: np.ndarray) -> bool:
    return bool((frame**2).mean() > 1e-10)


def autocorrelation(frame: np.ndarray) -> np.ndarray:
    """Lags 0 … 2047 by lag 0, to 2^-30."""
    r = np.fft.irfft(np.abs(np.fft.rfft(frame, 4096)) ** 2)[:2048]
    return np.rint(r / max(r[0], 1e-10) * 2**30) / 2**30


def peaks(curve: np.ndarray, lags: range) -> list[tuple[int, float]]:
    """(lag, height) of the 8 highest strict local maxima above 0, in order of lag."""
    found = [
        (k, float(curve[k]))
        for k in lags
        if curve[k] > 0 and curve[k - 1] < curve[k] and curve[k] > curve[k + 1]
    ]
    return sorted(sorted(found, key=lambda p: (-p[1], p[0]))[:8])


def ratios(found: list[tuple[int, float]], centres: np.ndarray) -> np.ndarray:
    """Nearness of all pairs' ratios to the centres."""
    out = np.zeros(len(centres))
    for (low, a), (high, b) in itertools.combinations(found, 2):
        rho = math.log2(high / low) % 1
        d = np.abs(rho - centres)
        d = np.minimum(d, 1 - d)
        out += math.sqrt(a * b + 1e-8) * np.exp(-0.5 * (d / 0.02) ** 2)
    return out


CENTRES = {12: np.log2(np.array(JUST)), 32: np.arange(32) / 32}


def plot(frame: np.ndarray) -> np.ndarray:
    """The recurrence plot, [126, 126] bool; squared distances are integers."""
    points = np.rint(frame[::16] * 2**24).astype(np.int64)
    vectors = np.stack([points[i : i + 3] for i in range(126)])
    squares = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)
    kth = max(1, int(0.10 * 126**2)) - 1
    threshold = np.partition(squares, kth, axis=None)[kth]
    return squares <= threshold


NOTHING = 126 * 126  # what lies between two rows: a point that never recurs
DIAGONALS = [[i * 126 + i + d for i in range(126 - d)] for d in range(126)]
ROWS = {
    "diagonal": np.array([p for points in DIAGONALS[1:] for p in (*points, NOTHING)]),
    "vertical": np.array([p for j in range(126) for p in (*range(j, NOTHING, 126), NOTHING)]),
}
OFFSETS = np.repeat(np.arange(126), np.arange(126, 0, -1))
ALL_DIAGONALS = np.concatenate([np.array(points) for points in DIAGONALS])


def rates(near: np.ndarray) -> np.ndarray:
    """Recurrence rate of offsets 0 … 125."""
    return np.bincount(OFFSETS, near.ravel()[ALL_DIAGONALS]) / np.arange(126, 0, -1)


def runs(near: np.ndarray, direction: str) -> np.ndarray:
    """Lengths of all lines, those of one point among them."""
    flat = np.append(near, False)[ROWS[direction]].astype(np.int8)
    step = np.diff(flat, prepend=0)
    return np.flatnonzero(step < 0) - np.flatnonzero(step > 0)


def measures(near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """REC, DET, LAM, Lmean, ENTR, TT: [6] with DET and LAM as in the paper, [6] as meant."""
    diagonal, vertical = runs(near, "diagonal"), runs(near, "vertical")
    lines, columns = diagonal[diagonal >= 2], vertical[vertical >= 2]
    share = np.unique_counts(lines).counts / max(len(lines), 1)
    rest = [
        lines.mean() if len(lines) else 0.0,
        -(share * np.log(share)).sum(),
        columns.mean() if len(columns) else 0.0,
    ]
    rec, total = near.mean(), near.sum()
    moved = np.pad(near[1:, 1:], ((1, 0), (1, 0)))
    down = np.pad(near[1:], ((1, 0), (0, 0)))
    paper = [rec, (near & moved).sum() / total, (near & down).sum() / total, *rest]
    sound = [rec, lines.sum() / max(diagonal.sum(), 1), columns.sum() / total, *rest]
    return np.array(paper), np.array(sound)


def everything(samples: np.ndarray) -> dict[str, np.ndarray]:
    """A10a–A10e, A10cs and A10c_level of one segment."""
    on = np.zeros(FRAMES, bool)
    out = {"A10a": np.zeros((FRAMES, 12)), "A10d": np.zeros((FRAMES, 32))}
    out |= {"A10b": np.zeros((FRAMES, 12)), "A10e": np.zeros((FRAMES, 32))}
    raw = {"A10c": np.zeros((FRAMES, 6)), "A10cs": np.zeros((FRAMES, 6))}
    for t, frame in enumerate(frames(samples)):
        on[t] = sounds(frame)
        if not on[t]:
            continue
        periods = peaks(autocorrelation(frame), range(6, 481))
        near = plot(frame)
        lags = [(16 * d, h) for d, h in peaks(rates(near), range(1, 125))]
        for names, found in ((("A10a", "A10d"), periods), (("A10b", "A10e"), lags)):
            for name in names:
                out[name][t] = shares(ratios(found, CENTRES[out[name].shape[1]]))
        raw["A10c"][t], raw["A10cs"][t] = measures(near)
    out["A10c_level"] = raw["A10cs"].sum(axis=0) / max(1, on.sum())
    for name, values in raw.items():
        deviation = np.maximum(values.std(axis=0, ddof=1), 1e-8)
        # Of equal numbers the mean is that number, whatever rounding says.
        same = (values == values[0]).all(axis=0)
        out[name] = np.where(same, 0.0, (values - values.mean(axis=0)) / deviation) * on[:, None]
    return out
