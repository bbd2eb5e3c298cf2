"""The store's own audio and notes → descriptor arrays.

A task owns whole shards: a run of segments for every array on the frame and segment axes, or a run
of note rows for every array on the note axis. Audio is read once per task, the spectrum is computed
once per segment for all descriptors. Values are computed in float32 and stored as float16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import zarr

from pipeline.base.errors import StoreError
from pipeline.descriptors.contract import DESCRIPTORS, Descriptor, Notes
from pipeline.half import round_to_half
from pipeline.ingest import split_runs
from pipeline.spectral import SEGMENT_SAMPLES, Spectrum, Workspace
from pipeline.store.reader import read_note_rows
from pipeline.store.schema import ARRAYS, ArrayInfo
from pipeline.store.writer import ShardQueue, finished_shard

# Segments whose audio is held at a time: bounds memory when recordings are long.
BLOCK_SEGMENTS = 128


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DescribeTask:
    """Compute rows ``[start, stop)`` of ``axis`` for the arrays given with their open shards."""

    folder: str
    axis: str
    start: int
    stop: int
    infos: list[ArrayInfo]


def describe_tasks(
    folder: Path, infos: list[ArrayInfo], groups: int, every: bool = False
) -> list[DescribeTask]:
    """Tasks over all shards that are not finished, or over ``every`` shard.

    Their unit is the coarsest shard of the axis; a task passes over what is finished.
    """
    tasks = []
    for axis, members in (
        ("segment", [i for i in infos if i.axis in ("frame", "segment")]),
        ("note", [i for i in infos if i.axis == "note"]),
    ):
        if not members or not members[0].shape[0]:
            continue
        rows, unit = members[0].shape[0], max(i.shard_rows for i in members)
        units = [
            u
            for u in range(-(-rows // unit))
            if every or any(open_shards(folder, i, u * unit, (u + 1) * unit) for i in members)
        ]
        for run in split_runs(units, groups):
            start, stop = run[0] * unit, min((run[-1] + 1) * unit, rows)
            tasks.append(
                DescribeTask(folder=str(folder), axis=axis, start=start, stop=stop, infos=members)
            )
    return tasks


def open_shards(folder: Path, info: ArrayInfo, start: int, stop: int) -> list[int]:
    """Unfinished shards of ``info`` on rows ``[start, stop)``."""
    first, last = start // info.shard_rows, -(-min(stop, info.shape[0]) // info.shard_rows)
    return [s for s in range(first, last) if not finished_shard(folder, info, s)]


def run_describe(task: DescribeTask) -> dict[str, Any]:
    """Do one task, shard by shard; returns nothing but small plain data."""
    folder = Path(task.folder)
    walk = {"segment": _walk_segments, "note": _walk_notes}[task.axis]
    with ShardQueue(folder) as queue:
        writers = [_ArrayWriter(queue, info, task.start, task.stop) for info in task.infos]
        walk(folder, task, [w for w in writers if w.wanted])
    return {"failures": []}


class _ArrayWriter:
    """Takes one array's rows in order and writes each unfinished shard as it fills."""

    def __init__(self, queue: ShardQueue, info: ArrayInfo, start: int, stop: int) -> None:
        self.queue, self.info = queue, info
        self.descriptor: Descriptor = DESCRIPTORS.get(info.name)
        self.wanted = set(open_shards(queue.folder, info, start, stop))
        self.shard = -1
        self.rows: npt.NDArray[np.float16] = np.empty(0, np.float16)

    def wants(self, row: int) -> bool:
        """Whether the row lies in an unfinished shard."""
        return row // self.info.shard_rows in self.wanted

    def put(self, row: int, values: npt.NDArray[np.float32]) -> None:
        """Store consecutive rows from ``row`` on; they may cross into the next shard."""
        while len(values):
            shard = row // self.info.shard_rows
            begin = shard * self.info.shard_rows
            size = min(self.info.shard_rows, self.info.shape[0] - begin)
            if shard != self.shard:
                self.shard, self.rows = shard, np.empty((size, *self.info.shape[1:]), np.float16)
            part = values[: begin + size - row]
            if not round_to_half(part, self.rows[row - begin : row - begin + len(part)]):
                raise StoreError(
                    f"{self.info.name} has values that are not finite in float16 in its rows {row} "
                    f"to {row + len(part) - 1}: the descriptor is at fault",
                    kind="not-finite",
                )
            row, values = row + len(part), values[len(part) :]
            if row == begin + size and shard in self.wanted:
                self.queue.write(self.info, shard, self.rows)


def _walk_segments(folder: Path, task: DescribeTask, writers: list[_ArrayWriter]) -> None:
    table = _segment_columns(str(folder), folder.stat().st_ino)
    audio = zarr.open_array(folder / ARRAYS / "audio", mode="r")
    work, scratch = Workspace(), _Scratch()
    needs_audio = any(w.descriptor.side == "audio" for w in writers)
    needs_notes = any(w.descriptor.side == "midi" for w in writers)
    for start in range(task.start, task.stop, BLOCK_SEGMENTS):
        stop = min(start + BLOCK_SEGMENTS, task.stop)
        if not any(w.wants(row) for w in writers for row in (start, stop - 1)):
            continue
        samples_of = notes_of = None
        if needs_audio:
            samples_of = _block_audio(audio, table["audio_start"][start:stop], scratch)
        if needs_notes:
            notes_of = _block_notes(folder, table, start, stop)
        for row in range(start, stop):
            inputs: dict[str, Any] = {}
            if samples_of is not None:
                inputs["audio"] = Spectrum(samples_of(row - start), work)
            if notes_of is not None:
                inputs["midi"] = notes_of(row - start)
            for writer in writers:
                if writer.wants(row):
                    writer.put(row, writer.descriptor.extract(inputs[writer.descriptor.side])[None])


def _walk_notes(folder: Path, task: DescribeTask, writers: list[_ArrayWriter]) -> None:
    table = _segment_columns(str(folder), folder.stat().st_ino)
    starts, counts = table["note_start"], table["note_count"].astype(np.int64)
    # Whole segments that touch the task's rows; what lies outside is computed and dropped.
    first = int(np.searchsorted(starts + counts, task.start, side="right"))
    last = int(np.searchsorted(starts, task.stop, side="left"))
    for begin in range(first, last, BLOCK_SEGMENTS):
        end = min(begin + BLOCK_SEGMENTS, last)
        notes_of = _block_notes(folder, table, begin, end)
        for segment in range(begin, end):
            at = int(starts[segment])
            low = max(0, task.start - at)
            high = min(int(counts[segment]), task.stop - at)
            if high <= low:
                continue
            for writer in writers:
                values = writer.descriptor.extract(notes_of(segment - begin))
                writer.put(at + low, values[low:high])


def _block_audio(
    audio: Any, starts: npt.NDArray[np.int64], scratch: _Scratch
) -> Callable[[int], npt.NDArray[np.float32]]:
    """Read the timeline under consecutive segments once; returns segment → samples [96000]."""
    begin, end = int(starts[0]), int(starts[-1]) + SEGMENT_SAMPLES
    try:
        raw = np.asarray(audio[begin:end])
    except (ValueError, OSError, RuntimeError) as error:
        raise StoreError(
            f"the store's audio does not verify ({error}); delete the folder and build it again"
        ) from error
    scaled = np.multiply(raw, np.float32(1 / 32768), out=scratch.floats(len(raw)))
    return lambda i: scaled[starts[i] - begin : starts[i] - begin + SEGMENT_SAMPLES]


class _Scratch:
    """Memory for one block's samples, used again: fresh megabytes cost more than filling them."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.float32)

    def floats(self, count: int) -> npt.NDArray[np.float32]:
        """The first ``count`` of as many float32 as were ever asked for."""
        if count > len(self._memory):
            self._memory = np.empty(count, np.float32)
        return self._memory[:count]


def _block_notes(
    folder: Path, table: dict[str, Any], start: int, stop: int
) -> Callable[[int], Notes]:
    """Read the note rows of consecutive segments once; returns segment → notes."""
    begin = int(table["note_start"][start])
    end = int(table["note_start"][stop - 1] + table["note_count"][stop - 1])
    rows = read_note_rows(folder, begin, end)
    names = [f.name for f in dataclasses.fields(Notes)]
    notes = Notes(**{n: rows.column(n).to_numpy(zero_copy_only=False) for n in names})

    def of(i: int) -> Notes:
        at = int(table["note_start"][start + i]) - begin
        return notes.rows(at, at + int(table["note_count"][start + i]))

    return of


@lru_cache(maxsize=2)
def _segment_columns(folder: str, inode: int) -> dict[str, Any]:
    """Offsets of every segment (cached per process; ``inode`` tells a rebuilt folder apart)."""
    table = pq.read_table(
        Path(folder) / "segments.parquet",
        columns=["audio_start", "note_start", "note_count"],
        page_checksum_verification=True,
    )
    return {n: table.column(n).to_numpy(zero_copy_only=False) for n in table.column_names}
