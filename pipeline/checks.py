"""The store's own audio and notes → the measures of :mod:`pipeline.quality`, per recording.

Runs when the audio is in the store, before the descriptors. A task owns neighbouring recordings,
reads the timeline chunk by chunk and returns a few numbers for each; the builder
writes them into the ``checks`` column of the recordings table. Nothing else depends on them, so that
a finished store can be measured anew when a measure changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.base.errors import StoreError
from pipeline.ingest import split_runs
from pipeline.plan import Failure
from pipeline.quality import WARNINGS, Meter, Quality, QualityLimits, find_warnings, judge
from pipeline.store.reader import Store, read_note_rows
from pipeline.store.schema import RECORDINGS, ArrayInfo, Segmentation, audio_layout
from pipeline.store.sharding import read_chunks

NOTE_ROWS = 1 << 17  # read at a time, unless one recording has more
MEASURES = tuple(f.name for f in dataclasses.fields(Quality))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One recording: where its samples and note rows lie."""

    recording: int
    start: int
    length: int
    first_segment: int
    n_segments: int
    note_start: int
    note_stop: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CheckTask:
    """Measure these neighbouring recordings."""

    folder: str
    audio: ArrayInfo
    segmentation: Segmentation
    items: list[Item]


def check_tasks(
    folder: Path, segments: pa.Table, segmentation: Segmentation, groups: int
) -> list[CheckTask]:
    """About ``groups`` tasks over all recordings that have segments."""
    columns = {n: segments.column(n).to_numpy() for n in segments.column_names if n != "split"}
    recording = columns["recording"]
    first = np.flatnonzero(np.diff(recording, prepend=-1))
    items = []
    for low, high in zip(first, np.append(first[1:], len(recording)), strict=True):
        items.append(
            Item(
                recording=int(recording[low]),
                start=int(columns["audio_start"][low]),
                length=segmentation.timeline_samples(int(high - low)),
                first_segment=int(low),
                n_segments=int(high - low),
                note_start=int(columns["note_start"][low]),
                note_stop=int(columns["note_start"][high - 1] + columns["note_count"][high - 1]),
            )
        )
    audio = audio_layout(max((i.start + i.length for i in items), default=0), "")
    return [
        CheckTask(
            folder=str(folder),
            audio=audio,
            segmentation=segmentation,
            items=[items[i] for i in run],
        )
        for run in split_runs(list(range(len(items))), groups)
    ]


def run_check(task: CheckTask) -> dict[str, Any]:
    """Do one task; returns the measures, a row for each recording, as small plain data."""
    folder = Path(task.folder)
    found = []
    first, last = task.items[0], task.items[-1]
    timeline = _Timeline(_samples(folder, task.audio, first.start, last.start + last.length))
    for items in _together(task.items):
        notes = read_note_rows(folder, items[0].note_start, items[-1].note_stop)
        rows = {n: notes.column(n).to_numpy() for n in ("segment", "onset_s", "velocity")}
        for item in items:
            meter = Meter(item.length)
            for block in timeline.take(item.length):
                meter.feed(block)
            onset_s, velocity = _onsets(rows, item, items[0].note_start, task.segmentation)
            measures = dataclasses.asdict(meter.finish(onset_s, velocity))
            found.append({"recording": item.recording, **measures})
    return {"failures": [], "measures": found}


def _together(items: list[Item]) -> Iterator[list[Item]]:
    """Neighbours whose notes are read at once."""
    start = 0
    for i, item in enumerate(items):
        if i > start and item.note_stop - items[start].note_start > NOTE_ROWS:
            yield items[start:i]
            start = i
    yield items[start:]


class _Timeline:
    """Consecutive samples, handed out recording by recording."""

    def __init__(self, blocks: Iterator[npt.NDArray[np.int16]]) -> None:
        self._blocks, self._left = blocks, np.empty(0, np.int16)

    def take(self, count: int) -> Iterator[npt.NDArray[np.int16]]:
        """The next ``count`` samples, in blocks."""
        while count:
            if not len(self._left):
                self._left = next(self._blocks)
            block, self._left = self._left[:count], self._left[count:]
            count -= len(block)
            yield block


def _samples(
    folder: Path, audio: ArrayInfo, start: int, stop: int
) -> Iterator[npt.NDArray[np.int16]]:
    """Samples [start, stop) of the timeline, a chunk at a time."""
    rows, per_shard = audio.chunk_rows, audio.shard_rows // audio.chunk_rows
    last = -(-stop // rows)
    for shard in range(start // audio.shard_rows, -(-stop // audio.shard_rows)):
        first = max(start // rows, shard * per_shard)
        end = min(last, (shard + 1) * per_shard)
        chunks = read_chunks(
            folder / audio.shard_path(shard),
            audio,
            first - shard * per_shard,
            end - shard * per_shard,
        )
        try:
            for number, chunk in enumerate(chunks, first):
                yield chunk[max(0, start - number * rows) : stop - number * rows]
        except (ValueError, OSError) as error:
            raise StoreError(
                f"the store's audio does not verify ({error}); delete the folder and build it again",
                kind="damaged",
            ) from error


def _onsets(
    rows: dict[str, npt.NDArray[Any]], item: Item, offset: int, segmentation: Segmentation
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """Onsets in seconds from the recording's start, each note once: where no later segment has it."""
    part = slice(item.note_start - offset, item.note_stop - offset)
    segment, onset_s = rows["segment"][part] - item.first_segment, rows["onset_s"][part]
    last = segment == item.n_segments - 1
    end = np.where(last, segmentation.segment_s, min(segmentation.hop_s, segmentation.segment_s))
    own = (onset_s >= 0) & (onset_s < end)
    return (segment * segmentation.hop_s + onset_s.astype(np.float64))[own], rows["velocity"][part][
        own
    ]


def with_measures(recordings: pa.Table, measures: dict[int, dict[str, Any]]) -> pa.Table:
    """The recordings table with the measures in ``checks``, and the warnings that follow."""
    ids, checks = recordings.column("recording").to_pylist(), []
    for recording, row in zip(ids, recordings.column("checks").to_pylist(), strict=True):
        row = {**row, **dict.fromkeys(MEASURES), **measures.get(recording, {})}
        checks.append({**row, "warnings": find_warnings(row)})
    at = RECORDINGS.get_field_index("checks")
    column = pa.array(checks, type=RECORDINGS.field(at).type)
    return recordings.set_column(at, RECORDINGS.field(at), column)


def find_failures(recordings: pa.Table, limits: QualityLimits) -> dict[int, Failure]:
    """Recordings of a measured table that are surely broken."""
    found = {}
    for row in recordings.select(["recording", "audio_path", "checks"]).to_pylist():
        if row["checks"]["silent_share"] is None:
            continue
        verdict = judge(Quality(**{n: row["checks"][n] for n in MEASURES}), limits)
        if verdict is not None:
            kind, reason = verdict
            found[row["recording"]] = Failure(
                recording=row["recording"],
                stage="quality",
                kind=kind,
                message=f"{row['audio_path']}: {reason}",
            )
    return found


def summarise(store: Store) -> dict[str, Any]:
    """The measures of a store's recordings: spread of each, and who has which warning."""
    table = store.table("recordings").select(["key", "checks"]).to_pylist()
    spread = {}
    for name in MEASURES:
        values = [r["checks"][name] for r in table if r["checks"][name] is not None]
        if values:
            low, median, high = np.percentile(values, [0, 50, 100])
            spread[name] = {
                "low": round(float(low), 7),
                "median": round(float(median), 7),
                "high": round(float(high), 7),
                "recordings": len(values),
            }
    warnings = {
        name: [r["key"] for r in table if name in (r["checks"]["warnings"] or [])]
        for name in WARNINGS
    }
    return {
        "version": store.record["quality"],
        "measures": spread,
        "warnings": {name: keys for name, keys in warnings.items() if keys},
    }
