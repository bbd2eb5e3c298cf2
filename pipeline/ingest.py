"""Raw files → the audio timeline.

A task owns consecutive whole shards of the sample axis. It walks the recordings that lie on them in
order, decodes what of each lies there, and writes a shard as soon as it is full. Memory per worker,
whatever a recording's length: a shard that fills, shards that are being written (at most 64 MiB or
one), and five seconds of the file; 128 MiB and a little at most.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio import Int16Array
from pipeline.base.config import to_plain
from pipeline.base.errors import AudioError
from pipeline.plan import Failure, Source
from pipeline.store.schema import ArrayInfo
from pipeline.store.writer import ShardQueue, finished_shard


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class IngestTask:
    """Write shards ``[first, stop)`` of the timeline from the recordings that lie on them."""

    folder: str
    info: ArrayInfo
    first: int
    stop: int
    sources: list[Source]


def ingest_tasks(
    folder: Path, info: ArrayInfo, sources: list[Source], groups: int, every: bool = False
) -> list[IngestTask]:
    """About ``groups`` tasks over the shards that are not finished yet, or over ``every`` shard.

    The cut into tasks depends on the workers, the cut into shards does not.
    """
    shards = range(info.n_shards)
    open_shards = [s for s in shards if every or not finished_shard(folder, info, s)]
    tasks = []
    for run in split_runs(open_shards, groups):
        low, high = run[0] * info.shard_rows, (run[-1] + 1) * info.shard_rows
        mine = [s for s in sources if s.start < high and s.start + s.length > low]
        tasks.append(
            IngestTask(folder=str(folder), info=info, first=run[0], stop=run[-1] + 1, sources=mine)
        )
    return tasks


def split_runs(shards: list[int], groups: int) -> list[list[int]]:
    """Cut a sorted list of shards into about ``groups`` runs of neighbours, as even as can be."""
    runs: list[list[int]] = []
    for part in np.array_split(np.asarray(shards, np.int64), max(1, min(groups, len(shards)))):
        gaps = np.flatnonzero(np.diff(part) > 1) + 1
        runs += [run.tolist() for run in np.split(part, gaps) if len(run)]
    return runs


def run_ingest(task: IngestTask) -> dict[str, Any]:
    """Do one task; returns its failures, as small plain data.

    After a failure nothing more is written (the rows of this plan cannot hold any more), but the
    remaining files are still tried, so that one build names every file that fails.
    """
    low = task.first * task.info.shard_rows
    high = min(task.stop * task.info.shard_rows, task.info.shape[0])
    failures: list[Failure] = []
    with ShardQueue(Path(task.folder)) as queue:
        writer = _ShardWriter(queue, task.info, task.first)
        for source in task.sources:
            try:
                with contextlib.closing(_within(source, low, high)) as blocks:
                    for block in blocks:
                        if not failures:
                            writer.append(block)
            except AudioError as error:
                failures.append(
                    Failure(
                        recording=source.recording,
                        stage="ingest",
                        kind=error.kind,
                        message=str(error),
                    )
                )
    return {"failures": to_plain(failures)}


def _within(source: Source, low: int, high: int) -> Generator[Int16Array]:
    """The samples of one recording that lie on [low, high), in order; nothing else is read."""
    at = max(low, source.start)
    with contextlib.closing(source.sound.samples(source.length, at - source.start)) as blocks:
        for block in blocks:
            yield block[: high - at]
            at += len(block)
            if at >= high:
                return


class _ShardWriter:
    """Gathers consecutive samples and writes every shard as it fills."""

    def __init__(self, queue: ShardQueue, info: ArrayInfo, first: int) -> None:
        self.queue, self.info, self.shard = queue, info, first
        self._start_shard()

    def _start_shard(self) -> None:
        left = self.info.shape[0] - self.shard * self.info.shard_rows
        self.buffer = np.empty(max(0, min(self.info.shard_rows, left)), np.int16)
        self.filled = 0

    def append(self, block: Int16Array) -> None:
        while len(block):
            part = block[: len(self.buffer) - self.filled]
            self.buffer[self.filled : self.filled + len(part)] = part
            self.filled += len(part)
            block = block[len(part) :]
            if self.filled == len(self.buffer):
                self.queue.write(self.info, self.shard, self.buffer)
                self.shard += 1
                self._start_shard()
