"""What is measured on recurrence plots: rates by offset and lines (for A10b, A10c, A10e).

Plots come as bits (:mod:`pipeline.descriptors.plots`): bit i of row d is the point
``(i, (i + d) mod 126)``, d = 0 … 63. Points are counted a row at a time: their neighbours along a line
are the bits of a row beside it, or of the same row moved by one.

*Diagonal lines* run along a row, and end where its two diagonals meet.

*Vertical lines* are as many as horizontal ones, for the plot is symmetric. Those of the points of
offset d = 0 … 63 are looked for along the plot's rows: point (i, j)'s neighbours (i, j - 1) and
(i, j + 1) are bit i of rows d - 1 and d + 1. The points of offset 126 - d are these points' mirror
images, so of each point it is also asked whether it lies on a line along the plot's columns:
(i - 1, j) and (i + 1, j) are bit i - 1 of row d + 1 and bit i + 1 of row d - 1. Offset 63 is its own
mirror image. j - 1 and j + 1 do not go round the plot's edge.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline.base.jit import kernel
from pipeline.descriptors.plots import N_ROWS, N_VECTORS, Words

DoubleArray = npt.NDArray[np.float64]

SHORTEST_LINE = 2
MEASURES = ("REC", "DET", "LAM", "Lmean", "ENTR", "TT")

_0, _1, _2, _62, _63 = (np.uint64(i) for i in (0, 1, 2, 62, 63))
_HIGH = np.uint64(2**62 - 1)  # of the second word 62 bits are points


def recurrence_rates(plots: Words) -> DoubleArray:
    """Share of recurrent points on the diagonals of offset 0 … 125: float64 [T, 126]."""
    out = np.ones((len(plots), N_VECTORS))
    _count_diagonals(plots, _diagonals(), out)
    return out


def measures(plots: Words) -> tuple[DoubleArray, DoubleArray]:
    """REC, DET, LAM, Lmean, ENTR, TT, and DET and LAM as the paper has them.

    Returns
    -------
    float64 [T, 6] and [T, 2]
    """
    out, paper = np.zeros((len(plots), len(MEASURES))), np.zeros((len(plots), 2))
    lengths, ends = np.empty(N_VECTORS + 1, np.int64), np.empty((2, N_VECTORS), np.int64)
    _measure(plots, _diagonals(), _edges(), lengths, ends, out, paper)
    return out, paper


@cache
def _diagonals() -> Words:
    """Row d: the bits of the diagonal of offset d, i < 126 - d: [64, 2]."""
    return _words([(1 << (N_VECTORS - d)) - 1 for d in range(N_ROWS + 1)])


@cache
def _edges() -> Words:
    """Row d: all bits but that of the point with j = 125: [64, 2]."""
    every = (1 << N_VECTORS) - 1
    return _words([every ^ (1 << (N_VECTORS - 1 - d)) for d in range(N_ROWS + 1)])


def _words(rows: list[int]) -> Words:
    return np.array([[row % 2**64, row >> 64] for row in rows], np.uint64)


@kernel
def _count_diagonals(plots, diagonals, out):  # type: ignore[no-untyped-def]
    """out[t, d] = share of the points (i, i + d) that recur; row t stays 1 where d is 0."""
    n = N_VECTORS
    for t in range(plots.shape[0]):
        for d in range(1, N_ROWS + 1):
            a, b = plots[t, d, 0], plots[t, d, 1]
            p, q = diagonals[d, 0], diagonals[d, 1]
            out[t, n - d] = (_ones(a & ~p) + _ones(b & ~q)) / d
            out[t, d] = (_ones(a & p) + _ones(b & q)) / (n - d)


@kernel
def _measure(plots, diagonals, edges, lengths, ends, out, paper):  # type: ignore[no-untyped-def]
    """Six measures and two of every plot."""
    n = N_VECTORS
    for t in range(plots.shape[0]):
        plot = plots[t]
        on_diagonals, in_lines, lines = _diagonal_lines(plot, diagonals, edges, lengths, ends)
        entropy = 0.0
        for length in range(SHORTEST_LINE, n):
            if lengths[length]:
                share = lengths[length] / lines
                entropy -= share * np.log(share)
        total = n + 2 * on_diagonals
        in_columns, columns = _vertical_lines(plot, edges)
        first = _ones(plot[0, 0] & _1) + _ones(plot[N_ROWS, 0] & _1)  # points (0, j), then (i, 0)
        for d in range(1, N_ROWS):
            first += _ones(plot[d, 0] & _1) + _ones(
                plot[d, 1] >> np.uint64(N_VECTORS - 64 - d) & _1
            )
        out[t, 0] = total / (n * n)
        out[t, 1] = in_lines / max(on_diagonals, 1)
        out[t, 2] = in_columns / total
        out[t, 3] = in_lines / max(lines, 1)
        out[t, 4] = entropy
        out[t, 5] = in_columns / max(columns, 1)
        paper[t, 0] = (total - 2 * first + 1) / total
        paper[t, 1] = (total - first) / total


@kernel
def _diagonal_lines(plot, diagonals, edges, lengths, ends):  # type: ignore[no-untyped-def]
    """Points above the main diagonal, those on lines, lines; and how many lines of each length."""
    points, in_lines, lines = 0, 0, 0
    lengths[:] = 0
    for d in range(1, N_ROWS + 1):
        a, b = plot[d, 0], plot[d, 1]
        if d == N_ROWS:  # says everything twice
            a, b = a & diagonals[d, 0], _0
        points += _ones(a) + _ones(b)
        # Pairs: points whose next one on the diagonal recurs too.
        a &= (a >> _1 | b << _63) & edges[d, 0]
        b &= b >> _1 & edges[d, 1]
        # First and last pair of every line, in order.
        n_lines = _places(a & ~(a << _1), b & ~(b << _1 | a >> _63), ends[0])
        _places(a & ~(a >> _1 | b << _63), b & ~(b >> _1), ends[1])
        for m in range(n_lines):
            lengths[ends[1, m] - ends[0, m] + 2] += 1
        lines += n_lines
        in_lines += _ones(a) + _ones(b) + n_lines
    return points, in_lines, lines


@kernel
def _vertical_lines(plot, edges):  # type: ignore[no-untyped-def]
    """Points on vertical lines, and lines, of the whole plot."""
    r, s = plot[1, 0], plot[1, 1]
    p, q = r & edges[0, 0], s & edges[0, 1]
    pairs = _ones(p) + _ones(q)  # a line has one pair of neighbours less than points
    inside = _ones(p | r << _1) + _ones(q | (s << _1 | r >> _63) & _HIGH)
    for d in range(1, N_ROWS + 1):
        a, b = plot[d, 0], plot[d, 1]
        p, q = plot[d - 1, 0], plot[d - 1, 1]
        if d < N_ROWS:
            r, s = plot[d + 1, 0], plot[d + 1, 1]
            down_a, down_b = p >> _1 | q << _63, q >> _1
            inside += _ones(a & (r << _1 | down_a)) + _ones(b & (s << _1 | r >> _63 | down_b))
            pairs += _ones(a & down_a) + _ones(b & down_b)
        else:  # row 64 is row 62 moved round by 64 bits of 126
            r, s = q | p << _62, p >> _2
        r, s = r & edges[d, 0], s & edges[d, 1]
        p, q = p & edges[d - 1, 0], q & edges[d - 1, 1]
        inside += _ones(a & (p | r)) + _ones(b & (q | s))
        pairs += _ones(a & r) + _ones(b & s)
    return inside, inside - pairs


@kernel
def _places(a, b, out):  # type: ignore[no-untyped-def]
    """out[…] = numbers of the bits that are set in two words, ascending; how many."""
    n = 0
    while a:
        out[n] = _ones(~a & (a - _1))
        a &= a - _1
        n += 1
    while b:
        out[n] = 64 + _ones(~b & (b - _1))
        b &= b - _1
        n += 1
    return n


@kernel
def _ones(word):  # type: ignore[no-untyped-def]
    """How many bits are set, in one instruction; plots.py's own: caches know only their own file."""
    count = 0
    while word:
        word &= word - _1
        count += 1
    return count
