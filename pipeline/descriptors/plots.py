"""Recurrence plots of every frame as bits, and what is measured on them (for A10b, A10c, A10e).

A plot is 126 x 126 points: (i, j) recurs where ``D_ij <= θ``. It is symmetric and its main diagonal
recurs, so half of it says all. That half is kept in rows of equal length: bit i of row d is the point
``(i, (i + d) mod 126)``, d = 0 … 63. Bits below 126 - d are the diagonal of offset d, those above are
the diagonal of offset 126 - d, mirrored; row 63 says everything twice. A row is two 64-bit words.

θ² is one of the 7,875 squared distances, and finding it costs most:

1. all squares in float32, a row at a time;
2. two limits between which few squares lie and the wanted one does: each guess is one count of what
   is below it, and guesses start from the θ² of the frame before;
3. the few in float64, with a margin that covers float32's error: θ² is found among them, and only
   for them is it asked which recur. All others do, or do not, whatever was rounded.

The terms of a distance are multiples of 2^-24 in [-2, 2] (:func:`frame_points`), so squares and sums
are exact in float64: equal distances are equal, in whatever order they are summed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline import stft
from pipeline.base.jit import kernel
from pipeline.stft import HOP_LENGTH, N_FFT

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]

STEP, DIMENSION = 16, 3
N_POINTS = N_FFT // STEP
N_VECTORS = N_POINTS - DIMENSION + 1
N_ROWS = N_VECTORS // 2
KTH = max(1, int(0.10 * N_VECTORS**2))  # θ is this distance of all N², in ascending order
GRID = 2.0**24

_ROW = 128  # numbers in a row of squares; the last two are infinite
_FEW = 24
# Float32 patterns (as integers, ascending with the number) by which a square may be off, twice over.
_MARGIN = 64
_ULPS = 1 << 23  # patterns to an octave
_LARGEST = 0x7F7FFFFF
_TRIES = 12
# To gather the lowest bits of eight bytes in one byte.
_PAIRS, _FOURS = np.uint64(0x0003000300030003), np.uint64(0x0000000F0000000F)
_7, _14, _28 = np.uint64(7), np.uint64(14), np.uint64(28)
_0, _1, _2, _63, _255 = (np.uint64(i) for i in (0, 1, 2, 63, 255))


def frame_points(hops: FloatArray, n_frames: int) -> DoubleArray:
    """Every 16th sample of every windowed frame, to the nearest 2^-24: float64 [T, 128]."""
    out = np.empty((n_frames, N_POINTS))
    _sample(hops, stft.hann_window(), out)
    return out


def recurrences(points: DoubleArray, sounds: npt.NDArray[np.bool_]) -> tuple[DoubleArray, Words]:
    """θ² and the plot of every frame that ``sounds``; of the others θ² is 0 and nothing recurs.

    Returns
    -------
    float64 [T] and uint64 [T, 64, 2]
    """
    limits = np.zeros(len(points))
    plots = np.zeros((len(points), N_ROWS + 1, 2), np.uint64)
    # Of all N² distances N are 0 (the main diagonal) and every other one occurs twice.
    wanted = max(0, -(-(KTH - N_VECTORS) // 2))
    vectors = np.empty((DIMENSION, N_ROWS + _ROW), np.float32)
    squares = np.empty(N_ROWS * _ROW, np.float32)
    guess = np.empty(1, np.int32)
    exact, places = np.empty(squares.size + 1), np.empty(squares.size, np.int64)
    marks = np.empty(squares.size, np.uint8)
    surely, perhaps = np.empty((2, 2 * N_ROWS), np.uint64)
    _find(
        points,
        sounds,
        wanted,
        vectors,
        squares,
        (guess, guess.view(np.float32)),
        (exact, exact.view(np.int64), places),
        (marks, marks.view(np.uint64)),
        (surely, surely.view(np.uint8), perhaps, perhaps.view(np.uint8)),
        limits,
        plots,
    )
    return limits, plots


@kernel
def _sample(hops, window, out):  # type: ignore[no-untyped-def]
    """out[t, p] = windowed sample 16 p of frame t, rounded."""
    for p in range(out.shape[1]):
        weight = window[STEP * p] * GRID
        row, q = hops[STEP * p % HOP_LENGTH], STEP * p // HOP_LENGTH
        for t in range(out.shape[0]):
            out[t, p] = np.rint(row[t + q] * weight) / GRID


@kernel
def _find(points, sounds, wanted, vectors, squares, pattern, few, marks, words, limits, plots):  # type: ignore[no-untyped-def]
    """Limits and plots of all frames; what two names stand for is one memory, seen as two types."""
    exact, bits, places = few
    flags, eights = marks
    surely, sure_bytes, perhaps, perhaps_bytes = words
    n, start = N_VECTORS, 127 << 23
    for t in range(points.shape[0]):
        if not sounds[t] or wanted == 0:
            continue
        x = points[t]
        _square(x, vectors, squares)
        low, high = _bracket(squares, wanted, start, pattern)
        start = high
        _mark(squares, _number(max(low - _MARGIN, -1), pattern), flags)
        _pack(eights, sure_bytes)
        _mark(squares, _number(min(high + _MARGIN, _LARGEST), pattern), flags)
        _pack(eights, perhaps_bytes)
        below, kept = 0, 0
        for w in range(2 * N_ROWS):
            below += _ones(surely[w])
            left = perhaps[w] & ~surely[w]
            while left:
                lowest = _ones(~left & (left - _1))
                left &= left - _1
                d, i = w // 2 + 1, w % 2 * 64 + lowest
                j = (i + d) % n
                a, b, c = x[i] - x[j], x[i + 1] - x[j + 1], x[i + 2] - x[j + 2]
                exact[kept], places[kept] = a * a + b * b + c * c, 64 * w + lowest
                kept += 1
        limit = _select(exact, bits, kept, wanted - below)
        for m in range(kept):
            if exact[m] <= limit:
                surely[places[m] // 64] |= _1 << np.uint64(places[m] % 64)
        limits[t] = limit
        plot = plots[t]
        plot[0, 0], plot[0, 1] = ~_0, ~_0 >> _2
        for d in range(1, N_ROWS + 1):
            plot[d, 0], plot[d, 1] = surely[2 * d - 2], surely[2 * d - 1]
        once = plot[N_ROWS, 0]
        plot[N_ROWS, 0], plot[N_ROWS, 1] = once | once << _63, once >> _1


@kernel
def _square(x, vectors, squares):  # type: ignore[no-untyped-def]
    """All squared distances, row d - 1 those of offset d; infinite where there is none."""
    for k in range(DIMENSION):
        for i in range(N_VECTORS):
            vectors[k, i] = x[i + k]
        for i in range(N_VECTORS, N_ROWS + _ROW):
            vectors[k, i] = x[i + k - N_VECTORS]
    for d in range(1, N_ROWS + 1):
        first, second, third = vectors[0, d:], vectors[1, d:], vectors[2, d:]
        out = squares[(d - 1) * _ROW : d * _ROW]
        for i in range(_ROW):
            a, b, c = vectors[0, i] - first[i], vectors[1, i] - second[i], vectors[2, i] - third[i]
            out[i] = a * a + b * b + c * c
        out[N_VECTORS:] = np.inf
    squares[-(_ROW - N_ROWS) :] = np.inf  # row 63 says everything twice


@kernel
def _bracket(squares, wanted, start, pattern):  # type: ignore[no-untyped-def]
    """Two patterns: fewer than ``wanted`` squares are up to the first, enough up to the second."""
    low, high, n_low, n_high = -1, _LARGEST, 0, N_VECTORS * (N_VECTORS - 1) // 2
    guess = start
    for tries in range(2 * _TRIES + 31):
        count = _count(squares, _number(guess, pattern))
        if count < wanted:
            low, n_low = guess, count
        else:
            high, n_high = guess, count
        if n_high - n_low <= _FEW or high - low <= _MARGIN:
            break
        # Counts grow about as a power of the square. The limit that is further away is to move.
        aim = wanted + _FEW // 3 if n_high - wanted > wanted - n_low else wanted - _FEW // 3
        octaves = np.log2(max(aim, 1) / max(count, 1))
        if tries >= _TRIES:
            guess = (low + high) // 2
        elif n_low > 0 and high < _LARGEST:
            whole = np.log2(n_high / n_low)
            part = np.log2(max(aim, 1) / n_low) / whole
            guess = low + int(part * (high - low))
        else:
            guess += int(octaves * _ULPS)
        guess = min(max(guess, low + 1), high - 1)
    return low, high


@kernel
def _number(value, pattern):  # type: ignore[no-untyped-def]
    """The float32 of a pattern; that of -1 is no number, and nothing is up to it."""
    integer, number = pattern
    integer[0] = value
    return number[0]


@kernel
def _count(squares, limit):  # type: ignore[no-untyped-def]
    """How many are up to ``limit``: in float32, because integers would be counted in 64 bits."""
    count = np.float32(0)
    for i in range(N_ROWS * _ROW):
        count += np.float32(1) if squares[i] <= limit else np.float32(0)
    return int(count)


@kernel
def _mark(squares, limit, flags):  # type: ignore[no-untyped-def]
    """1 where a square is up to ``limit``, else 0."""
    for i in range(N_ROWS * _ROW):
        flags[i] = squares[i] <= limit


@kernel
def _pack(eights, out):  # type: ignore[no-untyped-def]
    """Bit i of byte m: flag 8 m + i."""
    for m in range(N_ROWS * _ROW // 8):
        x = eights[m]
        x = (x | x >> _7) & _PAIRS
        x = (x | x >> _14) & _FOURS
        out[m] = (x | x >> _28) & _255


@kernel
def _ones(word):  # type: ignore[no-untyped-def]
    """How many bits are set (compiled to one instruction)."""
    count = 0
    while word:
        word &= word - _1
        count += 1
    return count


@kernel
def _select(values, bits, n, number):  # type: ignore[no-untyped-def]
    """Value ``number`` of the first ``n`` in ascending order: by halving, however many are equal."""
    low, high = bits[0], bits[0]
    for m in range(1, n):
        low, high = min(low, bits[m]), max(high, bits[m])
    low -= 1
    while high - low > 1:
        middle, count = low + (high - low) // 2, 0  # the sum would be too large
        for m in range(n):
            count += int(bits[m] <= middle)
        if count < number:
            low = middle
        else:
            high = middle
    bits[n] = high
    return values[n]
