"""A query → the recordings that it may be, where in them, and how sure that is.

1. Windows every quarter second (of long queries an odd number of quarters apart, 256 at most) become
   vectors.
2. The segments of the other side that are most like each of them vote for places (``placing``).
3. The best places are aligned. Those at another tempo are embedded again at that tempo, each window
   then begins exactly where a segment does.
4. Recordings are ordered by score. What is not there has a score too: ``chance`` says how often one so
   high comes from music that the index does not hold, and below a rate of false alarms nothing is
   called found.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.descriptors.contract import Side
from pipeline.spectral import SEGMENT_S
from trainer.search.embedders import Embedder
from trainer.search.placing import (
    Alignment,
    Candidate,
    Places,
    align,
    pairs_of,
    refine,
    vote,
)
from trainer.search.queries import Query, window_starts

HOP_S = 0.25
MOST_WINDOWS = 256
VOTERS = 50  # segments that each window votes for
CANDIDATES = 10
AGAIN = 5  # candidates at another tempo whose windows are embedded at it
SAME_TEMPO = 0.015  # so far from 1 a window of four seconds is as good as at its own tempo
HOPELESS = 0.3  # of the best score: what has less is not tried again
MOST_PAIRS = 64  # embedded again

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
    vectors : unit rows, float32 [n, D]
    places : where the rows lie
    background : the fixed sample of them by which likeness is measured, float32 [S, D]
    mean, sigma : of every row's similarity to a sample of the other side, float32 [n]
    nearest : finds rows
    """

    vectors: FloatArray
    places: Places
    background: FloatArray
    mean: FloatArray
    sigma: FloatArray
    nearest: Nearest

    def moments(self, vectors: FloatArray) -> Moments:
        """Mean and σ of each vector's similarity to the sample: float64 [W], [W]."""
        return moments(vectors, self.background)

    def likeness(self, similarity: FloatArray, rows: Ints | slice, own: Moments) -> FloatArray:
        """The z of similarities [W, k] to ``rows`` ([W, k], or a slice of k).

        ``own``: the windows' moments
        """
        mean, sigma = own
        of_window = (similarity - mean[:, None]) / sigma[:, None]
        of_row = (similarity - self.mean[rows]) / self.sigma[rows]
        return ((of_window + of_row) / 2).astype(np.float32)


def moments(vectors: FloatArray, sample: FloatArray) -> Moments:
    """Mean and σ of the similarity of each of [n, D] to the rows of ``sample``: float64 [n], [n]."""
    mean, sigma = np.empty(len(vectors)), np.empty(len(vectors))
    for at in range(0, len(vectors), BLOCK):
        products = vectors[at : at + BLOCK] @ sample.T
        mean[at : at + BLOCK] = products.mean(axis=1, dtype=np.float64)
        sigma[at : at + BLOCK] = products.std(axis=1, dtype=np.float64)
    return mean, np.maximum(sigma, LEAST_SIGMA)


def searched(query: Query, embedder: Embedder, haystack: Haystack) -> list[Alignment]:
    """Alignments of the best candidates, best first, one a recording."""
    starts = query_starts(query.seconds)
    vectors = embedder.windows(query.side, query.windows(starts))
    found = alignments(starts, vectors, haystack)
    return again_at_tempo(found, query, embedder, haystack)


def query_starts(seconds: float) -> Floats:
    """Starts of the windows that a query is searched by [W]."""
    starts = window_starts(seconds, HOP_S)
    step = -(-len(starts) // MOST_WINDOWS)
    return starts[:: step | 1]  # an odd step: all four phases against whole seconds occur


def alignments(
    starts: Floats,
    vectors: FloatArray,
    haystack: Haystack,
    *,
    own: Moments | None = None,
    without: npt.NDArray[np.bool_] | None = None,
) -> list[Alignment]:
    """Alignments at the query's own tempo's windows, best first.

    Parameters
    ----------
    starts, vectors : windows [W] and what they are [W, D]; zero rows hear nothing and do not count
    own : the windows' moments, where they are known
    without : bool [n], rows that are taken not to be there
    """
    heard = np.flatnonzero(np.any(vectors != 0, axis=1))
    if not len(heard):
        return []
    starts, vectors = starts[heard], vectors[heard]
    own = haystack.moments(vectors) if own is None else (own[0][heard], own[1][heard])
    similarity, ids = haystack.nearest.top(vectors, min(VOTERS, len(haystack.vectors)))
    z = haystack.likeness(similarity, ids, own)
    if without is not None:
        ids = np.where(without[ids], -1, ids)
    found = []
    for candidate in vote(starts, ids, z, haystack.places, CANDIDATES):
        rows = haystack.places.rows(candidate.recording)
        segment_s = haystack.places.start_s[rows]
        z = haystack.likeness(vectors @ haystack.vectors[rows].T, rows, own)
        place = refine(candidate, starts, z, segment_s)
        window, segment = pairs_of(place, starts, segment_s)
        found.append(align(place, z[window, segment], starts[window], segment_s[segment]))
    return sorted(found, key=lambda a: -a.score)


def again_at_tempo(
    found: list[Alignment], query: Query, embedder: Embedder, haystack: Haystack
) -> list[Alignment]:
    """The first candidates at another tempo than the query's, aligned by windows of that tempo."""
    better = list(found)
    for i, alignment in enumerate(found[:AGAIN]):
        tempo = alignment.candidate.tempo
        hopeless = alignment.score < HOPELESS * found[0].score
        if abs(tempo - 1) > SAME_TEMPO and not hopeless:
            again = _embedded_again(alignment.candidate, query, embedder, haystack)
            if again.score > alignment.score:
                better[i] = again
    return sorted(better, key=lambda a: -a.score)


def _embedded_again(
    candidate: Candidate, query: Query, embedder: Embedder, haystack: Haystack
) -> Alignment:
    rows = haystack.places.rows(candidate.recording)
    segment_s = haystack.places.start_s[rows]
    starts = (segment_s - candidate.offset_s) / candidate.tempo
    last = query.seconds - SEGMENT_S / candidate.tempo
    inside = np.flatnonzero((starts >= -1e-9) & (starts <= last + 1e-9))
    inside = inside[:: max(1, -(-len(inside) // MOST_PAIRS))]
    starts = np.maximum(starts[inside], 0.0)
    vectors = embedder.windows(query.side, query.windows(starts, candidate.tempo))
    if not len(vectors):
        return align(candidate, np.empty(0, np.float32), starts, starts)
    similarity = np.einsum("pd,pd->p", vectors, haystack.vectors[rows][inside])
    row = np.arange(rows.start, rows.stop)[inside]
    z = haystack.likeness(similarity[:, None], row[:, None], haystack.moments(vectors))[:, 0]
    z[~np.any(vectors != 0, axis=1)] = 0.0
    return align(candidate, z, starts, segment_s[inside])
