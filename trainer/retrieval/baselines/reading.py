"""Segments of a store one after another, also where their windows are moved along the recording."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.descriptors.contract import Notes
from pipeline.spectral import SEGMENT_SAMPLES
from trainer.retrieval.baselines.contract import FloatArray

if TYPE_CHECKING:
    from pipeline.store.reader import SegmentTable, Store

READ_BLOCK = 128  # segments read from the store at a time
FULL_SCALE = np.float32(32768)

IntArray = npt.NDArray[np.int64]


def segments_of(
    store: Store, rows: npt.ArrayLike, *, shift: int = 0
) -> Iterator[tuple[int, FloatArray, Notes]]:
    """Sound and notes of segments, in the order of ``rows``.

    Parameters
    ----------
    store : open store
    rows : int [n]
        Ids of segments; neighbours, whose windows overlap, are read together.
    shift : samples at 24 kHz
        The window starts this much later (earlier where negative) than the segment's own. What lies
        outside the segment's recording, which spans from the first of its windows to the end of its
        last, is silence. The notes stay the segment's own.

    Yields
    ------
    position : place in ``rows``, 0 … n - 1
    samples : float32 [96000] in [-1, 1), the caller's to keep
    notes : onsets in seconds from the start of the window that is not moved
    """
    ids = np.asarray(rows, np.int64)
    table = store.segments
    low, high = _windows(table, ids, shift)
    origin = table.audio_start[ids].astype(np.int64) + shift
    note_start = table.note_start[ids].astype(np.int64)
    note_stop = note_start + table.note_count[ids]
    for run in _runs(ids):
        first = int(low[run].min())
        timeline = store.read("audio", first, int(high[run].max()))
        note_first = int(note_start[run].min())
        notes = store.notes(note_first, int(note_stop[run].max()))
        for at in range(run.start, run.stop):
            samples = np.zeros(SEGMENT_SAMPLES, np.float32)
            if low[at] < high[at]:
                within = slice(low[at] - origin[at], high[at] - origin[at])
                samples[within] = timeline[low[at] - first : high[at] - first]
                samples /= FULL_SCALE
            yield (
                at,
                samples,
                notes.rows(int(note_start[at]) - note_first, int(note_stop[at]) - note_first),
            )


def _windows(table: SegmentTable, ids: IntArray, shift: int) -> tuple[IntArray, IntArray]:
    """Where the moved windows begin and end on the timeline, cut to their recordings: [n], [n].

    Both are the recording's nearer end where a window lies outside of it.
    """
    start = table.audio_start.astype(np.int64)
    count = int(table.recording.max(initial=-1)) + 1
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.zeros(count, np.int64)
    np.minimum.at(first, table.recording, start)
    np.maximum.at(last, table.recording, start + SEGMENT_SAMPLES)
    own = table.recording[ids]
    moved = start[ids] + shift
    return (
        np.clip(moved, first[own], last[own]),
        np.clip(moved + SEGMENT_SAMPLES, first[own], last[own]),
    )


def _runs(ids: IntArray) -> Iterator[slice]:
    """Places of runs of consecutive ids, none longer than a block."""
    for at in range(0, len(ids), READ_BLOCK):
        block = ids[at : at + READ_BLOCK]
        edges = [0, *(np.flatnonzero(np.diff(block) != 1) + 1).tolist(), len(block)]
        for start, stop in itertools.pairwise(edges):
            yield slice(at + start, at + stop)
