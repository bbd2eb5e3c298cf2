"""Music repeats itself: which segments have an exact or near copy elsewhere in their recording.

Where a passage returns, its notes answer a query as well as the query's own do, and a first place that
is missed says nothing about the model. So R@1 is also given over the queries that have no copy.

copy
    The notes that begin in the window, moved by some lag of at least half a second (the nearest other
    segment begins one second away), lie again in the recording: of the notes that begin in both
    windows, at least 80 % have a partner of the same pitch within 100 ms (Dice's coefficient of the
    two sets of notes). The lag need not be a whole number of seconds, but a segment must begin within
    half a second of where the copy does; it may overlap the query's own window, as in a tremolo.
likeness
    The largest such share over all lags, 0 … 1. Only the notes decide: it is the same for all models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.spectral import SEGMENT_S
from trainer.retrieval.gallery import Gallery

if TYPE_CHECKING:
    from pipeline.store.reader import Store

ALIKE = 0.8
TOLERANCE_S = 0.1
LEAST_LAG_S = 0.5
NEAREST_S = 0.5
BIN_S = 0.05
PEAK = 2  # bins on either side of a lag that are the same one
TRIED = 16  # lags that are looked at closely for a segment

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def has_copy(store: Store, gallery: Gallery) -> npt.NDArray[np.bool_]:
    """Whether each segment of the gallery has a copy elsewhere in its recording: bool [n]."""
    found = np.zeros(len(gallery), bool)
    for recording in np.unique(gallery.recording):
        rows = np.flatnonzero(gallery.recording == recording)
        onset, pitch = recording_notes(store, gallery.segment[rows], gallery.start_s[rows])
        found[rows] = likeness(onset, pitch, gallery.start_s[rows]) >= ALIKE
    return found


def recording_notes(
    store: Store, segments: npt.NDArray[np.int32], start_s: Floats
) -> tuple[Floats, Ints]:
    """The notes that begin in the windows of one recording, each once, by time.

    Parameters
    ----------
    segments, start_s : ids in the store and starts in seconds, [S]

    Returns
    -------
    onset, pitch : float64 [M] in seconds from the start of the recording, ascending; int64 [M]
    """
    table = store.segments
    first = table.note_start[segments]
    count = table.note_count[segments].astype(np.int64)
    lowest = int(first.min())
    notes = store.notes(lowest, int((first + count).max()))
    row = np.concatenate([np.arange(f, f + c) for f, c in zip(first - lowest, count, strict=True)])
    place = notes.onset_s[row].astype(np.float64)
    inside = (place >= 0) & (place < SEGMENT_S)
    onset = (np.repeat(start_s, count) + place)[inside]
    pitch = notes.pitch[row][inside].astype(np.int64)
    # The same note stands in up to four windows, its time rounded anew in each.
    _, once = np.unique(np.column_stack([pitch, np.round(onset * 1e3)]), axis=0, return_index=True)
    order = once[np.argsort(onset[once], kind="stable")]
    return onset[order], pitch[order]


def likeness(onset: Floats, pitch: Ints, start_s: Floats) -> Floats:
    """How like the most similar other passage of its recording each window is: float64 [S], 0 … 1.

    Parameters
    ----------
    onset, pitch : notes of one recording, by time [M]
    start_s : starts of its windows [S]
    """
    best = np.zeros(len(start_s))
    if not len(onset):
        return best
    of_pitch = {int(p): np.flatnonzero(pitch == p) for p in np.unique(pitch)}
    span = float(onset[-1] - onset[0]) + SEGMENT_S
    n_bins = 2 * int(np.ceil(span / BIN_S)) + 1
    for i, start in enumerate(start_s):
        own = np.arange(*np.searchsorted(onset, [start, start + SEGMENT_S]))
        if not len(own):
            continue
        lags = np.concatenate([onset[of_pitch[int(pitch[a])]] - onset[a] for a in own])
        counts = np.bincount(
            np.round(lags / BIN_S).astype(np.int64) + n_bins // 2, minlength=n_bins
        )
        # A note counts for every lag within the tolerance of its own.
        near = np.convolve(counts, np.ones(2 * int(TOLERANCE_S / BIN_S) + 1), "same")
        near[~_covered(n_bins, start_s, float(start)) | (2 * near < ALIKE * len(own))] = 0
        for _ in range(TRIED):
            place = int(near.argmax())
            if not near[place]:
                break
            near[max(0, place - PEAK) : place + PEAK + 1] = 0  # one lag of every peak
            lag = (place - n_bins // 2) * BIN_S
            close = lags[np.abs(lags - lag) <= TOLERANCE_S + BIN_S]
            tried = (float(np.median(close)), lag - BIN_S, lag, lag + BIN_S)
            best[i] = max(best[i], *(_dice(onset, pitch, own, start, at) for at in tried))
            if best[i] == 1.0:
                break
    return best


def _covered(n_bins: int, start_s: Floats, own: float) -> npt.NDArray[np.bool_]:
    """The lags, bin by bin, at which a segment other than the own one begins nearby."""
    lag = (np.arange(n_bins) - n_bins // 2) * BIN_S
    others = start_s[start_s != own] - own
    if not len(others):
        return np.zeros(n_bins, bool)
    after = np.searchsorted(others, lag).clip(0, len(others) - 1)
    before = (after - 1).clip(0)
    apart = np.minimum(np.abs(others[after] - lag), np.abs(others[before] - lag))
    covered: npt.NDArray[np.bool_] = (apart <= NEAREST_S) & (np.abs(lag) >= LEAST_LAG_S)
    return covered


def _dice(onset: Floats, pitch: Ints, own: Ints, start: float, lag: float) -> float:
    """Share of the notes of both windows that have a partner in the other."""
    other = np.arange(*np.searchsorted(onset, [start + lag, start + lag + SEGMENT_S]))
    if not len(other):
        return 0.0
    apart = np.abs(onset[own][:, None] + lag - onset[other][None])
    partners = (apart <= TOLERANCE_S) & (pitch[own][:, None] == pitch[other][None])
    matched = partners.any(axis=1).sum() + partners.any(axis=0).sum()
    return float(matched / (len(own) + len(other)))
