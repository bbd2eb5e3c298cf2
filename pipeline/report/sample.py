"""A sample of a store that does not grow with it: runs of segments, drawn for every split.

Neighbouring segments lie in one chunk, so a run of them costs one read. A split that has no more
segments than the sample would hold is taken whole.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from pipeline.corpora.recordings import SPLITS
from pipeline.descriptors import Notes
from pipeline.store.reader import Store

SEED = 0
RUNS, RUN_LENGTH = 32, 8

Ids = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Ids of the segments drawn from each split that has any, ascending, and how they were."""

    segments: dict[str, Ids]
    run_length: int

    def total(self) -> int:
        """Segments in the sample."""
        return sum(map(len, self.segments.values()))


def draw(store: Store, seed: int) -> Sample:
    """At most ``RUNS * RUN_LENGTH`` segments of every split, the same ones for one seed."""
    drawn = {}
    for n, split in enumerate(SPLITS):
        ids = store.segments.of_split(split)
        if len(ids):
            drawn[split] = _runs(ids, np.random.default_rng((seed, n)))
    return Sample(segments=drawn, run_length=RUN_LENGTH)


def read_rows(store: Store, name: str, ids: Ids) -> npt.NDArray[np.float32]:
    """Values of an array for some segments, float32 [rows, width]; frames and notes are rows, too."""
    info = store.arrays[name]
    parts = [
        store.read(name, *(_note_rows(store, a, b) if info.axis == "note" else (a, b)))
        for a, b in ranges(ids)
    ]
    return np.concatenate(parts).astype(np.float32).reshape(-1, info.shape[-1])


def read_notes(store: Store, ids: Ids) -> list[Notes]:
    """The note rows of some segments."""
    return [store.notes(*_note_rows(store, a, b)) for a, b in ranges(ids)]


def ranges(ids: Ids) -> list[tuple[int, int]]:
    """Ascending ids as half-open ranges."""
    parts = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]


def _runs(ids: Ids, rng: np.random.Generator) -> Ids:
    if len(ids) <= RUNS * RUN_LENGTH:
        return ids
    blocks = np.sort(rng.choice(len(ids) // RUN_LENGTH, RUNS, replace=False))
    return ids[(blocks[:, None] * RUN_LENGTH + np.arange(RUN_LENGTH)).reshape(-1)]


def _note_rows(store: Store, start: int, stop: int) -> tuple[int, int]:
    segments = store.segments
    first = int(segments.note_start[start])
    return first, int(segments.note_start[stop - 1] + segments.note_count[stop - 1])
