"""The rows of an index: recordings of a store told apart by what is in them, and their vectors.

A recording is known by the SHA-256 of the samples and notes that the store holds of it, so that a
store that grew, was built again or lies elsewhere keeps its vectors. Embedding goes on where it
stopped: every block of recordings is a file of its own until the index is committed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.base.config import digest
from pipeline.base.files import atomic_write
from pipeline.descriptors.contract import Notes, Side
from pipeline.spectral import SEGMENT_SAMPLES
from pipeline.store.reader import Store
from trainer.search.embedders import Embedder
from trainer.search.errors import IndexFolderError
from trainer.search.finding import Moments
from trainer.search.placing import Places

SIDES: tuple[Side, Side] = ("audio", "midi")
BLOCK = 1024  # segments that are embedded, and kept, together
NAMES = ("key", "composer", "title", "composition", "split", "duration_s")

Half = npt.NDArray[np.float16]
FloatArray = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Progress = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One recording of the store: its number there, its valid segments, what they hold."""

    number: int
    rows: Ints
    content: str


def recordings_of(store: Store) -> Iterator[Recording]:
    """The recordings of a store that have segments with notes, in order."""
    table = store.segments
    starts = table.audio_start.astype(np.int64)
    first = np.searchsorted(table.recording, np.arange(len(store.recordings) + 1))
    for number in range(len(store.recordings)):
        all_rows = np.arange(first[number], first[number + 1])
        rows = all_rows[table.valid[all_rows]]
        if not len(rows):
            continue
        content = hashlib.sha256()
        samples = store.read("audio", int(starts[rows[0]]), int(starts[rows[-1]]) + SEGMENT_SAMPLES)
        content.update(np.ascontiguousarray(samples, "<i2").tobytes())
        last = rows[-1]
        notes = store.notes(
            int(table.note_start[rows[0]]), int(table.note_start[last] + table.note_count[last])
        )
        for field in dataclasses.fields(Notes):
            content.update(np.ascontiguousarray(getattr(notes, field.name)).tobytes())
        content.update(np.ascontiguousarray(table.start_s[rows], "<f8").tobytes())
        content.update(np.ascontiguousarray(table.note_count[rows], "<i4").tobytes())
        yield Recording(number=number, rows=rows, content=content.hexdigest())


def vectors_of(
    listed: list[Recording],
    known: dict[str, dict[Side, Half]],
    store: Store,
    embedder: Embedder,
    parts: Path,
    progress: Progress,
) -> dict[Side, Half]:
    """Vectors of all rows in order, float16 [n, width] a side; embedded where they are not known.

    Parameters
    ----------
    known : vectors by the content of their recording
    parts : folder in which blocks are kept until the index is committed
    progress : called with segments done

    Raises
    ------
    IndexFolderError
        (kind ``not-finite``) when the embedder diverged.
    """
    found = {r.content: known[r.content] for r in listed if r.content in known}
    done = sum(len(r.rows) for r in listed if r.content in found)
    progress(done, "")
    for block in _blocks([r for r in listed if r.content not in found]):
        file = parts / f"{digest([embedder.identity, [r.content for r in block]])}.npy"
        rows = np.concatenate([r.rows for r in block])
        with contextlib.suppress(OSError, ValueError, EOFError):
            both = np.load(file, allow_pickle=False)
            if both.shape == (2, len(rows), embedder.width):
                found |= _shared_out(block, both)
                done += len(rows)
                progress(done, "")
                continue
        vectors = embedder.segments(store, rows)
        both = np.stack([vectors[side] for side in SIDES]).astype(np.float16)
        if not np.isfinite(both).all():
            raise IndexFolderError(
                f"{embedder.name} makes vectors that are not finite: it diverged", kind="not-finite"
            )
        with atomic_write(file) as handle:
            np.save(handle, both, allow_pickle=False)
        found |= _shared_out(block, both)
        done += len(rows)
        progress(done, "")
    return {side: np.concatenate([found[r.content][side] for r in listed]) for side in SIDES}


def _blocks(listed: list[Recording]) -> Iterator[list[Recording]]:
    """Recordings of about a block's segments together."""
    block: list[Recording] = []
    seen: set[str] = set()
    for recording in listed:
        if recording.content in seen:  # the same recording twice is embedded once
            continue
        seen.add(recording.content)
        block.append(recording)
        if sum(len(r.rows) for r in block) >= BLOCK:
            yield block
            block = []
    if block:
        yield block


def _shared_out(block: list[Recording], both: Half) -> dict[str, dict[Side, Half]]:
    found: dict[str, dict[Side, Half]] = {}
    at = 0
    for recording in block:
        own = both[:, at : at + len(recording.rows)]
        found[recording.content] = {side: own[i] for i, side in enumerate(SIDES)}
        at += len(recording.rows)
    return found


def places_of(listed: list[Recording], store: Store) -> Places:
    """Where the rows lie, recordings in the order in which they are listed."""
    rows = np.concatenate([r.rows for r in listed])
    number = np.repeat(np.arange(len(listed)), [len(r.rows) for r in listed])
    return Places.of(number, store.segments.start_s[rows], len(listed))


def row_table(listed: list[Recording], places: Places, likeness: dict[Side, Moments]) -> pa.Table:
    """The table of rows; ``likeness``: moments of each side's."""
    columns: dict[str, Any] = {
        "recording": places.recording.astype(np.int32),
        "segment": np.concatenate([r.rows for r in listed]).astype(np.int32),
        "start_s": places.start_s,
    }
    for side, (mean, sigma) in likeness.items():
        columns[f"{side}_mean"] = mean.astype(np.float32)
        columns[f"{side}_sigma"] = sigma.astype(np.float32)
    return pa.table(columns)


def name_table(listed: list[Recording], store: Store) -> pa.Table:
    """The table of recordings."""
    number = np.array([r.number for r in listed])
    columns: dict[str, Any] = {n: getattr(store.recordings, n)[number] for n in NAMES}
    columns["content"] = [r.content for r in listed]
    columns["store_recording"] = number.astype(np.int32)
    return pa.table(columns)
