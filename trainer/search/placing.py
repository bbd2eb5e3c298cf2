"""From likenesses of windows and segments to places: time-consistent voting, then alignment.

likeness
    z = ½ (s - μ_w) / σ_w + ½ (s - μ_x) / σ_x of a window's similarity s to a segment: how much more
    alike they are than the window is to just any segment (μ_w, σ_w over a fixed sample of the index)
    and the segment to just anything that could be asked (μ_x, σ_x over a sample of the index's other
    side). It is the symmetric normalisation of speaker recognition; without its second half a few
    segments are like everything.
vote
    The k segments most like each window vote, with max(0, z - 2), for where the query begins in their
    recording, o = s - r t (s the segment's start, t the window's, r a tempo of 0.90 … 1.10 in steps of
    0.01), in cells of half a second; a place is the sum of two neighbouring cells. Of every recording
    the best place is a candidate. Notes that merely sound alike vote here and there; what is the same
    music votes for one o.
alignment
    Of each candidate all windows are compared with all of its segments; o and r are refined to an
    eighth of a second and half a per cent by the sum of z over segments and the windows that then
    begin nearest to them. Then each segment is paired with the window that begins with it. What a pair
    is worth is its z less the mean z of the window and the other segments of the recording that begin
    two seconds or more away: music of one texture is alike everywhere, the same music is alike here.
    The score is the largest sum of that worth - 1.5 over any stretch of consecutive pairs (Smith and
    Waterman's local alignment without gaps), so a query of which the recording holds a part is found
    by that part. Its first and last pair are the place in time.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

CELL_S = 0.5
TEMPI = np.round(np.arange(0.90, 1.1001, 0.01), 2)
COUNTS_FROM = 2.0  # z of a vote that is worth nothing
NEAR_S = 0.3  # a window so far from a segment's start says nothing about an alignment
PAIR_S = 0.13  # windows every quarter second: one is at most an eighth from a segment
DRIFT = 1.5  # worth that a pair must have not to count against a stretch
ELSEWHERE_S = 2.0
FEW = 4  # segments
SLOWER = 0.5  # votes lose so much a unit of tempo: of equal tempi the nearest to 1 is taken

Floats = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Where the rows of an index lie; rows are ordered by (recording, start).

    Attributes
    ----------
    recording : int64 [n], number of the recording
    start_s : float64 [n], seconds from the recording's start
    first : int64 [recordings + 1], the recording's rows are first[i] … first[i + 1] - 1
    """

    recording: Ints
    start_s: Floats
    first: Ints

    @classmethod
    def of(cls, recording: npt.ArrayLike, start_s: npt.ArrayLike, n_recordings: int) -> Places:
        """From the two columns."""
        column = np.asarray(recording, np.int64)
        first = np.searchsorted(column, np.arange(n_recordings + 1))
        return cls(recording=column, start_s=np.asarray(start_s, np.float64), first=first)

    def rows(self, recording: int) -> slice:
        """The rows of one recording."""
        return slice(int(self.first[recording]), int(self.first[recording + 1]))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A recording and where in it the query might begin: s = offset_s + tempo * t."""

    recording: int
    offset_s: float
    tempo: float
    votes: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """The best stretch of consecutive pairs of one candidate.

    Attributes
    ----------
    score : Σ (worth - 1.5) over the pairs of the stretch; 0 where there is none
    pairs : how many
    query_s, recording_s : start of the first and of the last pair's window and segment
    """

    candidate: Candidate
    score: float
    pairs: int
    query_s: tuple[float, float]
    recording_s: tuple[float, float]


def vote(start_s: Floats, ids: Ints, z: FloatArray, places: Places, most: int) -> list[Candidate]:
    """The best place of each of the ``most`` recordings that got most votes, most votes first.

    Parameters
    ----------
    start_s : of the windows [W]
    ids, z : the segments most like each window, and how like they are [W, k]; ids below 0 are none
    """
    weight = np.where(ids >= 0, np.maximum(z.astype(np.float64) - COUNTS_FROM, 0.0), 0.0)
    window, rank = np.nonzero(weight)
    if not len(window):
        return []
    row, weight = ids[window, rank], weight[window, rank]
    # Recordings lie end to end, far enough apart that no vote for one falls among another's.
    apart = float(start_s.max()) * TEMPI[-1] + float(places.start_s.max()) + 4 * CELL_S
    base = places.recording[row] * apart + float(start_s.max()) * TEMPI[-1] + CELL_S
    begins = (base + places.start_s[row])[:, None] - start_s[window][:, None] * TEMPI[None]
    cells = np.floor(begins / CELL_S).astype(np.int64)
    per_tempo = int(np.ceil((places.recording[-1] + 2) * apart / CELL_S)) + 2
    keys = cells + per_tempo * np.arange(len(TEMPI))[None]
    found, place = np.unique(keys, return_inverse=True)
    votes = np.bincount(place.reshape(-1), np.repeat(weight, len(TEMPI)))
    following = np.searchsorted(found, found + 1).clip(max=len(found) - 1)
    both = votes + np.where(found[following] == found + 1, votes[following], 0.0)
    tempo = TEMPI[found // per_tempo]
    both *= 1 - SLOWER * np.abs(tempo - 1)
    middle = (found % per_tempo + 1) * CELL_S
    recording = ((middle - CELL_S) // apart).astype(np.int64)
    order = np.lexsort((found, -both))
    _, at = np.unique(recording[order], return_index=True)
    best = order[np.sort(at)][:most]
    lead = float(start_s.max()) * TEMPI[-1] + CELL_S
    return [
        Candidate(
            recording=int(recording[i]),
            offset_s=float(middle[i] - recording[i] * apart - lead),
            tempo=float(tempo[i]),
            votes=float(both[i]),
        )
        for i in best
    ]


def refine(candidate: Candidate, start_s: Floats, z: FloatArray, segment_s: Floats) -> Candidate:
    """The offset and tempo nearby that agree best.

    Parameters
    ----------
    start_s : of the windows [W]
    z : of every window and every segment of the candidate's recording [W, R]
    segment_s : starts of these segments [R], ascending
    """
    span = float(start_s.max() - start_s.min())
    tempi = candidate.tempo + (np.arange(-4, 5) * 0.005 if span > 2 else np.zeros(1))
    tempi = tempi[(tempi >= TEMPI[0] - 1e-9) & (tempi <= TEMPI[-1] + 1e-9)]
    # A tempo turns around the middle of what is there of the query.
    at = candidate.offset_s + candidate.tempo * start_s
    there = (at >= segment_s[0] - NEAR_S) & (at <= segment_s[-1] + NEAR_S)
    middle = float(start_s[there].mean() if there.any() else start_s.mean())
    begins = candidate.offset_s + candidate.tempo * middle + np.arange(-8, 9) * 0.125
    segment = np.arange(len(segment_s))[None]
    best, kept = -np.inf, candidate
    for tempo in tempi:
        offsets = begins - tempo * middle
        wanted = (segment_s[None] - offsets[:, None]) / tempo
        window = nearest(start_s, wanted)
        apart = np.abs(start_s[window] - wanted)
        weight = np.maximum(0.0, 1 - apart / NEAR_S)
        agreement = (weight * z[window, segment]).sum(axis=1)
        agreement /= np.sqrt((weight**2).sum(axis=1)) + 1e-9
        agreement *= 1 - SLOWER * abs(tempo - 1)
        i = int(agreement.argmax())
        if agreement[i] > best:
            best = float(agreement[i])
            kept = dataclasses.replace(
                candidate, offset_s=float(offsets[i]), tempo=round(float(tempo), 4)
            )
    return kept


def pairs_of(candidate: Candidate, start_s: Floats, segment_s: Floats) -> tuple[Ints, Ints]:
    """Windows and segments that begin together: for each segment the nearest window, if near."""
    wanted = (segment_s - candidate.offset_s) / candidate.tempo
    window = nearest(start_s, wanted)
    segment = np.flatnonzero(np.abs(start_s[window] - wanted) <= PAIR_S)
    return window[segment], segment


def worth(z: FloatArray, segment: Ints, segment_s: Floats) -> FloatArray:
    """What pairs are worth: the z of each, less the mean z of its window and the segments elsewhere.

    Parameters
    ----------
    z : of each pair's window and every segment of the recording [P, R]
    segment : of each pair [P]
    segment_s : starts of the segments [R]
    """
    away = np.abs(segment_s[None] - segment_s[segment][:, None]) >= ELSEWHERE_S
    count = away.sum(axis=1)
    mean = (z * away).sum(axis=1) / np.maximum(count, 1)
    mean[count < FEW] = 0.0  # too few to say what the recording is like
    return (z[np.arange(len(segment)), segment] - np.maximum(mean, 0.0)).astype(np.float32)


def align(
    candidate: Candidate, worths: FloatArray, query_s: Floats, segment_s: Floats
) -> Alignment:
    """The best stretch of pairs of these ``worths`` [P], in the order of time."""
    first, last, score = best_stretch(worths.astype(np.float64) - DRIFT)
    if last < first:
        begin = candidate.offset_s
        return Alignment(
            candidate=candidate, score=0.0, pairs=0, query_s=(0.0, 0.0), recording_s=(begin, begin)
        )
    return Alignment(
        candidate=candidate,
        score=score,
        pairs=last - first + 1,
        query_s=(float(query_s[first]), float(query_s[last])),
        recording_s=(float(segment_s[first]), float(segment_s[last])),
    )


def best_stretch(gain: Floats) -> tuple[int, int, float]:
    """First and last index, and sum, of the consecutive values whose sum is largest (Kadane).

    (0, -1, 0.0) where no sum is above 0.
    """
    best, found = 0.0, (0, -1)
    running, start = 0.0, 0
    for i, value in enumerate(gain.tolist()):
        if running <= 0:
            running, start = 0.0, i
        running += value
        if running > best:
            best, found = running, (start, i)
    return found[0], found[1], best


def nearest(ascending: Floats, wanted: Floats) -> Ints:
    """Index of the value nearest to each of ``wanted``, of any shape."""
    after = np.searchsorted(ascending, wanted).clip(0, len(ascending) - 1)
    before = (after - 1).clip(0)
    nearer = np.abs(ascending[before] - wanted) <= np.abs(ascending[after] - wanted)
    return np.asarray(np.where(nearer, before, after), np.int64)
