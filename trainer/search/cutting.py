"""Stretches of a store's own recordings as queries: cut from it as a file is cut.

What is known to be there, and what is taken not to be there, is asked by the procedure that answers
people.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline.descriptors.contract import Side
from pipeline.midi import Performance
from pipeline.spectral import SAMPLE_RATE, SEGMENT_S
from pipeline.store.reader import Store
from trainer.search.errors import QueryError
from trainer.search.nearest import spread
from trainer.search.placing import Places
from trainer.search.queries import AudioQuery, MidiQuery, Query
from trainer.search.stretches import stored_notes

Ints = npt.NDArray[np.int64]


def cut_queries(
    store: Store, places: Places, numbers: Ints, side: Side, seconds: float, most: int
) -> Iterator[tuple[int, Query]]:
    """At most so many stretches, none of which overlaps another: (place of the recording, query).

    Parameters
    ----------
    places : where the segments with notes lie
    numbers : of each recording of ``places``, its number in the store
    seconds : how long stretches are; those of shorter recordings are all that there is
    """
    blocks = []
    for recording in range(len(numbers)):
        start_s = places.start_s[places.rows(recording)]
        first, last = float(start_s[0]), float(start_s[-1]) + SEGMENT_S
        count = max(1, int((last - first) / seconds))
        blocks += [
            (recording, first + i * seconds, min(seconds, last - first)) for i in range(count)
        ]
    for i in spread(len(blocks), most).tolist():
        recording, begin, lasts = blocks[i]
        try:
            yield recording, _cut(store, int(numbers[recording]), side, begin, lasts)
        except QueryError:  # silence, or no notes
            continue


def _cut(store: Store, recording: int, side: Side, begin: float, seconds: float) -> Query:
    name = f"{store.recordings.key[recording]} from {begin:.0f} s"
    if side == "audio":
        own = np.flatnonzero(store.segments.recording == recording)
        origin = int(store.segments.audio_start[own[0]])
        origin -= round(float(store.segments.start_s[own[0]]) * SAMPLE_RATE)
        first = origin + round(begin * SAMPLE_RATE)
        return AudioQuery(name, store.read("audio", first, first + round(seconds * SAMPLE_RATE)))
    notes = stored_notes(store, recording, begin, seconds)
    onset = notes.onset_s.astype(np.float64)
    order = np.argsort(onset, kind="stable")
    if not len(onset):
        raise QueryError(f"{name}: holds no notes", kind="no-notes")
    query = MidiQuery(
        name,
        Performance(
            onset_s=onset[order],
            end_s=(onset + notes.duration_s)[order],
            pitch=notes.pitch[order].astype(np.uint8),
            velocity=notes.velocity[order].astype(np.uint8),
        ),
    )
    query.seconds = seconds
    return query
