"""Stores and recordings drawn from a generator: benchmarks of the trainer need no data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.base.config import to_plain
from pipeline.descriptors import DESCRIPTORS
from pipeline.spectral import SAMPLE_RATE, SEGMENT_S
from pipeline.store import Store
from pipeline.store.schema import (
    FAILURES,
    NOTES,
    RECORDINGS,
    SEGMENTS,
    ArrayInfo,
    Segmentation,
    audio_layout,
    descriptor_layout,
)
from pipeline.store.writer import commit, create_array, write_shard, write_table

NOTES_PER_SEGMENT = 42  # of MAESTRO's
PER_RECORDING = 100  # the paper's cap
VALIDATION_EVERY = 8


def synthetic_store(folder: Path, segments: int, arrays: tuple[str, ...], seed: int = 0) -> Store:
    """A store of random values: recordings of 100 segments, every eighth for validation."""
    random = np.random.default_rng(seed)
    rows = segments * NOTES_PER_SEGMENT
    recording, place = np.divmod(np.arange(segments), PER_RECORDING)
    timeline_s = PER_RECORDING - 1 + SEGMENT_S
    split = np.where(recording % VALIDATION_EVERY == 1, "validation", "train")
    (folder / ".build").mkdir(parents=True)
    for name, table in {
        "recordings": _recordings(int(recording[-1]) + 1),
        "failures": FAILURES.empty_table(),
        "segments": pa.table(
            {
                "segment": np.arange(segments, dtype=np.int32),
                "recording": recording.astype(np.int32),
                "split": split.tolist(),
                "start_s": place.astype(np.float64),
                "audio_start": (recording * timeline_s + place) * SAMPLE_RATE,
                "note_start": np.arange(segments) * NOTES_PER_SEGMENT,
                "note_count": np.full(segments, NOTES_PER_SEGMENT, np.int32),
                "valid": np.ones(segments, bool),
            },
            schema=SEGMENTS,
        ),
        "notes": _notes(segments, random),
    }.items():
        write_table(folder, name, table)
    samples = (int(recording[-1]) + 1) * timeline_s * SAMPLE_RATE
    infos = [
        audio_layout(samples, "synthetic")
        if name == "audio"
        else descriptor_layout(
            DESCRIPTORS.get(name), n_segments=segments, n_notes=rows, identity="synthetic"
        )
        for name in arrays
    ]
    for info in infos:
        _fill(folder, info, random)
    record = {
        "corpus": "synthetic",
        "identity": "synthetic",
        "status": "complete",
        "segmentation": to_plain(Segmentation()),
        "recordings": int(recording[-1]) + 1,
        "segments": segments,
        "notes": rows,
    }
    commit(folder, record, infos)
    return Store.open(folder)


def _fill(folder: Path, info: ArrayInfo, random: np.random.Generator) -> None:
    create_array(folder, info)
    for shard in range(info.n_shards):
        count = min(info.shard_rows, info.shape[0] - shard * info.shard_rows)
        shape = (count, *info.shape[1:])
        values: Any
        if info.name == "audio":
            values = random.integers(-8000, 8000, shape).astype(np.int16)
        else:
            values = random.standard_normal(shape, np.float32).astype(np.float16)
        write_shard(folder, info, shard, values)


def _notes(segments: int, random: np.random.Generator) -> pa.Table:
    rows = segments * NOTES_PER_SEGMENT
    onset = np.sort(random.uniform(0, SEGMENT_S, (segments, NOTES_PER_SEGMENT)), axis=1)
    return pa.table(
        {
            "segment": np.repeat(np.arange(segments), NOTES_PER_SEGMENT).astype(np.int32),
            "pitch": random.integers(21, 109, rows).astype(np.uint8),
            "velocity": random.integers(1, 128, rows).astype(np.uint8),
            "duration_bucket": random.integers(0, 32, rows).astype(np.uint8),
            "onset_s": onset.astype(np.float32).ravel(),
            "duration_s": random.uniform(0.05, 2, rows).astype(np.float32),
        },
        schema=NOTES,
    )


def _recordings(count: int) -> pa.Table:
    """Rows that say nothing but which composition they are."""
    table = RECORDINGS.empty_table().to_pylist()
    for number in range(count):
        row: dict[str, Any] = {}
        for field in RECORDINGS:
            if pa.types.is_string(field.type):
                row[field.name] = f"{field.name}-{number}"
            elif pa.types.is_struct(field.type):
                row[field.name] = None
            else:
                row[field.name] = 0
        table.append({**row, "recording": number})
    return pa.Table.from_pylist(table, schema=RECORDINGS)
