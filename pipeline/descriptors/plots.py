"""Recurrence plots of every frame, and what is measured on them (for A10b, A10c, A10e).

A plot is 126 x 126 points: (i, j) recurs where ``D_ij <= θ``. It is symmetric and its main diagonal
recurs, so one half is looked at, diagonal after diagonal; plots are made one at a time and never kept
(all of a segment's would take 3 MB). What is kept is θ, whose search costs most.

Distances are compared as squares. Their terms are multiples of 2^-24 in [-2, 2]
(:func:`frame_points`), so the squares and their sums are exact in float64: equal distances are
equal, in whatever order they are summed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline import stft
from pipeline.base.jit import kernel
from pipeline.stft import HOP_LENGTH, N_FFT

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

STEP, DIMENSION = 16, 3
N_POINTS = N_FFT // STEP
N_VECTORS = N_POINTS - DIMENSION + 1
KTH = max(1, int(0.10 * N_VECTORS**2))  # θ is this distance of all N², in ascending order
GRID = 2.0**24
SHORTEST_LINE = 2
MEASURES = ("REC", "DET", "LAM", "Lmean", "ENTR", "TT")

# Bins of the search for θ²: 32 to an octave, from the smallest square that is not 0.
_DROPPED_BITS = 47
_FIRST_BIN = (1023 - 48) << (52 - _DROPPED_BITS)
_N_BINS = 32 * 54


def frame_points(hops: FloatArray, n_frames: int) -> DoubleArray:
    """Every 16th sample of every windowed frame, to the nearest 2^-24: float64 [T, 128]."""
    window = stft.hann_window()
    out = np.empty((n_frames, N_POINTS))
    for p in range(N_POINTS):
        q, r = divmod(STEP * p, HOP_LENGTH)
        out[:, p] = hops[r, q : q + n_frames] * window[STEP * p]
    result: DoubleArray = np.rint(out * GRID) / GRID
    return result


def thresholds(points: DoubleArray, sounds: npt.NDArray[np.bool_]) -> DoubleArray:
    """θ² of every frame that ``sounds``, 0 of the others: float64 [T]."""
    out = np.zeros(len(points))
    # Of all N² distances N are 0 (the main diagonal) and every other one occurs twice.
    wanted = max(0, -(-(KTH - N_VECTORS) // 2))
    squares = np.empty(N_VECTORS * (N_VECTORS - 1) // 2)
    counts = np.empty(_N_BINS, np.int64)
    _find_thresholds(points, sounds, wanted, squares, squares.view(np.int64), counts, out)
    return out


def recurrence_rates(points: DoubleArray, limits: DoubleArray) -> DoubleArray:
    """Share of recurrent points on the diagonals of offset 0 … 125: float64 [T, 126]."""
    out = np.ones((len(points), N_VECTORS))
    _count_diagonals(points, limits, out)
    return out


def measures(points: DoubleArray, limits: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """REC, DET, LAM, Lmean, ENTR, TT, and DET and LAM as the paper has them.

    Returns
    -------
    float64 [T, 6] and [T, 2]
    """
    n_frames = len(points)
    out, paper = np.zeros((n_frames, len(MEASURES))), np.zeros((n_frames, 2))
    lengths = np.empty(N_VECTORS, np.int64)
    row = np.zeros(N_VECTORS + 2, np.uint8)
    _measure(points, limits, lengths, row, out, paper)
    return out, paper


@kernel
def _find_thresholds(points, sounds, wanted, squares, bits, counts, out):  # type: ignore[no-untyped-def]
    """out[t] = square number ``wanted`` in ascending order, counted from 1."""
    n = points.shape[1] - 2
    for t in range(points.shape[0]):
        if not sounds[t] or wanted == 0:
            continue
        x, at = points[t], 0
        for d in range(1, n):
            part = squares[at : at + n - d]
            for i in range(n - d):
                a, b, c = x[i] - x[i + d], x[i + 1] - x[i + 1 + d], x[i + 2] - x[i + 2 + d]
                part[i] = a * a + b * b + c * c
            at += n - d
        counts[:] = 0
        for i in range(at):
            counts[_bin(bits[i])] += 1
        chosen, below = 0, 0
        while below + counts[chosen] < wanted:
            below += counts[chosen]
            chosen += 1
        # The few squares of that bin, sorted to the front of the buffer (read before written).
        kept = 0
        for i in range(at):
            if _bin(bits[i]) == chosen:
                square, k = squares[i], kept
                while k > 0 and squares[k - 1] > square:
                    squares[k] = squares[k - 1]
                    k -= 1
                squares[k] = square
                kept += 1
        out[t] = squares[wanted - below - 1]


@kernel
def _bin(bits):  # type: ignore[no-untyped-def]
    """Bin of a float64 >= 0 given as an integer; the last one takes what is larger."""
    return min(max(0, (bits >> _DROPPED_BITS) - _FIRST_BIN), _N_BINS - 1)


@kernel
def _count_diagonals(points, limits, out):  # type: ignore[no-untyped-def]
    """out[t, d] = share of the points (i, i + d) that recur; row t stays 1 where d is 0."""
    n = points.shape[1] - 2
    for t in range(points.shape[0]):
        x, limit = points[t], limits[t]
        for d in range(1, n):
            count = 0
            for i in range(n - d):
                a, b, c = x[i] - x[i + d], x[i + 1] - x[i + 1 + d], x[i + 2] - x[i + 2 + d]
                count += a * a + b * b + c * c <= limit
            out[t, d] = count / (n - d)


@kernel
def _measure(points, limits, lengths, row, out, paper):  # type: ignore[no-untyped-def]
    """Lines along the diagonals above the main one, and along the rows (the columns are equal)."""
    n = points.shape[1] - 2
    for t in range(points.shape[0]):
        x, limit = points[t], limits[t]
        lengths[:] = 0
        for d in range(1, n):
            for i in range(n - d):
                a, b, c = x[i] - x[i + d], x[i + 1] - x[i + 1 + d], x[i + 2] - x[i + 2 + d]
                row[i] = a * a + b * b + c * c <= limit
            run = 0
            for i in range(n - d):
                if row[i]:
                    run += 1
                elif run:
                    lengths[run] += 1
                    run = 0
            if run:
                lengths[run] += 1
        on_diagonals, in_lines, lines = 0, 0, 0
        for length in range(1, n):
            on_diagonals += length * lengths[length]
            if length >= SHORTEST_LINE:
                in_lines += length * lengths[length]
                lines += lengths[length]
        entropy = 0.0
        for length in range(SHORTEST_LINE, n):
            if lengths[length]:
                share = lengths[length] / lines
                entropy -= share * np.log(share)
        total, first, in_columns, columns = 0, 0, 0, 0
        row[0], row[n + 1] = 0, 0
        for i in range(n):
            for j in range(n):
                a, b, c = x[i] - x[j], x[i + 1] - x[j + 1], x[i + 2] - x[j + 2]
                row[j + 1] = a * a + b * b + c * c <= limit
            for j in range(1, n + 1):
                total += int(row[j])
                in_columns += int(row[j] & (row[j - 1] | row[j + 1]))
                columns += int(row[j] & row[j + 1] & (1 - row[j - 1]))
            if i == 0:
                first = total
        out[t, 0] = total / (n * n)
        out[t, 1] = in_lines / max(on_diagonals, 1)
        out[t, 2] = in_columns / total
        out[t, 3] = in_lines / max(lines, 1)
        out[t, 4] = entropy
        out[t, 5] = in_columns / max(columns, 1)
        paper[t, 0] = (total - 2 * first + 1) / total
        paper[t, 1] = (total - first) / total
