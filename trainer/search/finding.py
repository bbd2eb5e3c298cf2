"""A query → the recordings that it may be, where in them, and how sure that is.

1. Windows every quarter second become vectors; of more than 512 every third, fifth, … votes; of more
   than 146 where vectors are compared at seven lags, and a window costs as much as seven.
2. The segments of the other side that are most like each of them vote for places (``placing``).
3. The ten best places are aligned, each segment with the window that begins with it. Those at another
   tempo are embedded again at that tempo, each window then begins exactly where a segment does.
4. Recordings are ordered by score. What is not there has a score too: ``chance`` says how often one so
   high comes from music that the index does not hold, and below a rate of false alarms nothing is
   called found.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.descriptors.contract import Side
from pipeline.spectral import SEGMENT_S
from trainer.retrieval.lags import COSINE, Comparison
from trainer.search.embedders import Embedder
from trainer.search.placing import (
    Alignment,
    Candidate,
    Places,
    align,
    pairs_of,
    refine,
    vote,
    worth,
)
from trainer.search.queries import Query, window_starts

HOP_S = 0.25
MOST_VOTERS = 512  # windows
MOST_PRODUCTS = 1024  # of a segment with all voters, at all lags
VOTERS = 50  # segments that each window votes for
CANDIDATES = 10
AGAIN = 2  # candidates at another tempo whose windows are embedded at it
SAME_TEMPO = 0.015  # so far from 1 a window of four seconds is as good as at its own tempo
HOPELESS = 0.3  # of the best score: what has less is not tried again

BLOCK = 4096  # vectors at a time
LEAST_SIGMA = 1e-3

OTHER: dict[Side, Side] = {"audio": "midi", "midi": "audio"}

FloatArray = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Moments = tuple[Floats, Floats]


class Nearest(Protocol):
    """The segments most like a vector."""

    def top(self, vectors: FloatArray, k: int) -> tuple[FloatArray, Ints]:
        """Similarities and rows [W, k] of the k most similar, in no order; -1 where there is none."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Haystack:
    """One side of an index, as it is searched.

    Attributes
    ----------
    vectors : unit rows, float [n, D]
    places : where the rows lie
    background : the fixed sample of them by which likeness is measured, float32 [S, D]
    mean, sigma : of every row's similarity to a sample of the other side, float32 [n]
    nearest : finds rows
    comparison : how two vectors are compared
    """

    vectors: npt.NDArray[Any]
    places: Places
    background: FloatArray
    mean: FloatArray
    sigma: FloatArray
    nearest: Nearest
    comparison: Comparison = COSINE

    def rows(self, rows: Ints | slice) -> FloatArray:
        """Vectors of some rows."""
        return np.asarray(self.vectors[rows], np.float32)

    def similarity(self, vectors: FloatArray, rows: Ints | slice) -> FloatArray:
        """Of vectors [W, D] to some rows: float32 [W, k]."""
        return self.comparison.likeness(vectors, self.rows(rows))

    def moments(self, vectors: FloatArray) -> Moments:
        """Mean and σ of each vector's similarity to the sample: float64 [W], [W]."""
        return moments(vectors, self.background, self.comparison)

    def likeness(self, similarity: FloatArray, rows: Ints | slice, own: Moments) -> FloatArray:
        """The z of similarities [W, k] to ``rows`` ([W, k], or a slice of k).

        ``own``: the windows' moments
        """
        mean, sigma = own
        of_window = (similarity - mean[:, None]) / sigma[:, None]
        of_row = (similarity - self.mean[rows]) / self.sigma[rows]
        return ((of_window + of_row) / 2).astype(np.float32)


def moments(vectors: FloatArray, sample: FloatArray, comparison: Comparison = COSINE) -> Moments:
    """Mean and σ of the similarity of each of [n, D] to the rows of ``sample``: float64 [n], [n]."""
    mean, sigma = np.empty(len(vectors)), np.empty(len(vectors))
    for at in range(0, len(vectors), BLOCK):
        products = comparison.likeness(vectors[at : at + BLOCK], sample)
        mean[at : at + BLOCK] = products.mean(axis=1, dtype=np.float64)
        sigma[at : at + BLOCK] = products.std(axis=1, dtype=np.float64)
    return mean, np.maximum(sigma, LEAST_SIGMA)


class Windows:
    """The windows of a query, one every quarter second, each embedded when it is first asked for.

    Attributes
    ----------
    query, embedder : whose they are, and what embeds them
    start_s : float64 [W]
    """

    def __init__(self, query: Query, embedder: Embedder, haystack: Haystack) -> None:
        self.query, self.embedder, self.haystack = query, embedder, haystack
        self.start_s = window_starts(query.seconds, HOP_S)
        self._vectors = np.zeros((len(self.start_s), embedder.width), np.float32)
        self._mean, self._sigma = np.zeros(len(self.start_s)), np.ones(len(self.start_s))
        self._made = np.zeros(len(self.start_s), bool)

    def of(self, which: Ints) -> tuple[FloatArray, Moments]:
        """Vectors [n, D] of the windows ``which`` [n], and their moments; zeros hear nothing."""
        new = np.unique(which[~self._made[which]])
        if len(new):
            found = self.embedder.of_query(self.query, self.start_s[new])
            self._vectors[new] = found
            self._mean[new], self._sigma[new] = self.haystack.moments(found)
            self._made[new] = True
        return self._vectors[which], (self._mean[which], self._sigma[which])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """``count`` consecutive windows of a query, from number ``first`` on; times are from its start."""

    windows: Windows
    first: int
    count: int

    @classmethod
    def whole(cls, windows: Windows) -> Stretch:
        """All of a query."""
        return cls(windows=windows, first=0, count=len(windows.start_s))

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.count - 1) * HOP_S + SEGMENT_S

    @property
    def start_s(self) -> Floats:
        """Starts of its windows [count]."""
        return np.arange(self.count, dtype=np.float64) * HOP_S

    def of(self, which: Ints) -> tuple[FloatArray, Moments]:
        """As :meth:`Windows.of`."""
        return self.windows.of(self.first + which)

    def at_tempo(self, start_s: Floats, tempo: float) -> FloatArray:
        """Vectors of windows that begin anywhere in it, at a tempo."""
        query, begin = self.windows.query, self.first * HOP_S
        return self.windows.embedder.of_query(query, begin + start_s, tempo)


def searched(
    stretch: Stretch, haystack: Haystack, *, without: npt.NDArray[np.bool_] | None = None
) -> list[Alignment]:
    """Alignments of the best candidates, best first, one a recording.

    ``without``: bool [n], rows that are taken not to be there
    """
    most = min(MOST_VOTERS, max(1, MOST_PRODUCTS // haystack.comparison.products))
    voters = np.arange(0, stretch.count, -(-stretch.count // most) | 1)
    vectors, own = stretch.of(voters)
    heard = np.flatnonzero(np.any(vectors != 0, axis=1))
    if not len(heard):
        return []
    voters, vectors, own = voters[heard], vectors[heard], (own[0][heard], own[1][heard])
    start_s = stretch.start_s[voters]
    similarity, ids = _nearest(vectors, haystack, without)
    z = haystack.likeness(similarity, ids, own)
    found = []
    for candidate in vote(start_s, ids, z, haystack.places, CANDIDATES):
        rows = haystack.places.rows(candidate.recording)
        z = haystack.likeness(haystack.similarity(vectors, rows), rows, own)
        place = refine(candidate, start_s, z, haystack.places.start_s[rows])
        found.append(_aligned(place, stretch, haystack))
    found.sort(key=lambda a: -a.score)
    better = [_better(alignment, found[0].score, stretch, haystack) for alignment in found[:AGAIN]]
    return sorted([*better, *found[AGAIN:]], key=lambda a: -a.score)


def _nearest(
    vectors: FloatArray, haystack: Haystack, without: npt.NDArray[np.bool_] | None
) -> tuple[FloatArray, Ints]:
    """Whom the windows vote for: similarities and rows [W, k], -1 where there is none."""
    n = len(haystack.vectors)
    if without is None:
        return haystack.nearest.top(vectors, min(VOTERS, n))
    # What is taken not to be there must not keep others from voting either.
    similarity, ids = haystack.nearest.top(vectors, min(VOTERS + int(without.sum()), n))
    left = np.where(without[ids], -np.inf, similarity)
    best = np.argsort(-left, axis=1, kind="stable")[:, :VOTERS]
    ids = np.take_along_axis(ids, best, axis=1)
    return np.take_along_axis(similarity, best, axis=1), np.where(without[ids], -1, ids)


def _aligned(candidate: Candidate, stretch: Stretch, haystack: Haystack) -> Alignment:
    """By the windows that there are."""
    segment_s = haystack.places.start_s[haystack.places.rows(candidate.recording)]
    window, segment = pairs_of(candidate, stretch.start_s, segment_s)
    vectors, own = stretch.of(window)
    return _judged(candidate, stretch.start_s[window], segment, vectors, own, haystack)


def _better(alignment: Alignment, best: float, stretch: Stretch, haystack: Haystack) -> Alignment:
    """Of a candidate at another tempo: aligned by windows of that tempo, if that is better."""
    candidate = alignment.candidate
    if abs(candidate.tempo - 1) <= SAME_TEMPO or alignment.score < HOPELESS * best:
        return alignment
    # Windows of the query's own tempo agree by their middles, stretched ones by their starts.
    offset_s = candidate.offset_s - (candidate.tempo - 1) * SEGMENT_S / 2
    candidate = dataclasses.replace(candidate, offset_s=offset_s)
    segment_s = haystack.places.start_s[haystack.places.rows(candidate.recording)]
    start_s = (segment_s - candidate.offset_s) / candidate.tempo
    last = stretch.seconds - SEGMENT_S / candidate.tempo
    segment = np.flatnonzero((start_s >= -1e-9) & (start_s <= last + 1e-9))
    if not len(segment):
        return alignment
    start_s = np.maximum(start_s[segment], 0.0)
    vectors = stretch.at_tempo(start_s, candidate.tempo)
    own = haystack.moments(vectors)
    again = _judged(candidate, start_s, segment, vectors, own, haystack)
    return max(alignment, again, key=lambda a: a.score)


def _judged(
    candidate: Candidate,
    start_s: Floats,
    segment: Ints,
    vectors: FloatArray,
    own: Moments,
    haystack: Haystack,
) -> Alignment:
    """The best stretch of pairs: windows that begin at ``start_s`` [P] and segments [P]."""
    rows = haystack.places.rows(candidate.recording)
    segment_s = haystack.places.start_s[rows]
    z = haystack.likeness(haystack.similarity(vectors, rows), rows, own)
    worths = worth(z, segment, segment_s)
    worths[~np.any(vectors != 0, axis=1)] = 0.0
    return align(candidate, worths, start_s, segment_s[segment])
