"""Schema 1: the files of a store, their columns, and how arrays are cut into files.

A store is a folder ``<corpus>-<hash12>/``::

    store.json            commit record, written last; readers refuse a folder without it
    build.json            timings, host, versions: informative, never hashed
    recordings.parquet    one row per row of the corpus table, in its order
    segments.parquet      one row per segment, ordered (recording, start)
    notes.parquet         one row per (segment, note), ordered (segment, onset, pitch, end, velocity)
    failures.parquet      recordings that could not be used (usually no rows)
    arrays.zarr/          Zarr v3; array row i belongs to row i of its table

Arrays lie on one of four axes: ``sample`` (the 24 kHz timeline), ``frame`` and ``segment`` (rows are
segments), ``note`` (rows are note rows). No compression: PCM and float16 features hardly shrink, and
residency is limited by decoding. Every chunk carries a CRC-32C, every shard index another.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa

from pipeline.base.config import digest
from pipeline.base.errors import ConfigError
from pipeline.descriptors.contract import Descriptor
from pipeline.spectral import N_FRAMES, SAMPLE_RATE, SEGMENT_S

SCHEMA = 1
RECORD = "store.json"
SEAL = "record_sha256"
BUILD_INFO = "build.json"
ARRAYS = "arrays.zarr"
TABLES = ("recordings", "segments", "notes", "failures")
CHUNK_BYTES = 1 << 20
PARTS = 32  # the finest cut of a small store, so that a few workers finish together

RECORDINGS = pa.schema(
    [
        ("recording", pa.int32()),
        ("key", pa.string()),
        ("composer", pa.string()),
        ("title", pa.string()),
        ("composition", pa.string()),
        ("split", pa.string()),
        ("year", pa.int32()),
        ("duration_s", pa.float64()),
        ("sample_rate", pa.int32()),
        ("n_segments", pa.int32()),
        ("audio_path", pa.string()),
        ("midi_path", pa.string()),
        (
            "checks",
            pa.struct(
                [
                    ("audio_duration_s", pa.float64()),
                    ("channels", pa.int32()),
                    ("n_notes", pa.int32()),
                    ("notes_end_s", pa.float64()),
                    ("padded_samples", pa.int32()),
                    ("failed", pa.bool_()),
                    # Measures of pipeline.quality; null where a recording has no segments.
                    ("onset_correlation", pa.float64()),
                    ("onset_correlation_at_zero", pa.float64()),
                    ("onset_lag_ms", pa.float64()),
                    ("clipped_share", pa.float64()),
                    ("longest_clip", pa.int32()),
                    ("silent_share", pa.float64()),
                    ("longest_silence_s", pa.float64()),
                    ("bandwidth_hz", pa.float64()),
                    ("notes_per_s", pa.float64()),
                    ("warnings", pa.list_(pa.string())),
                ]
            ),
        ),
        ("extra", pa.string()),
    ]
)

SEGMENTS = pa.schema(
    [
        ("segment", pa.int32()),
        ("recording", pa.int32()),
        ("split", pa.string()),
        ("start_s", pa.float64()),
        ("audio_start", pa.int64()),
        ("note_start", pa.int64()),
        ("note_count", pa.int32()),
        ("valid", pa.bool_()),
    ]
)

NOTES = pa.schema(
    [
        ("segment", pa.int32()),
        ("pitch", pa.uint8()),
        ("velocity", pa.uint8()),
        ("duration_bucket", pa.uint8()),
        ("onset_s", pa.float32()),
        ("duration_s", pa.float32()),
    ]
)

FAILURES = pa.schema(
    [
        ("recording", pa.int32()),
        ("stage", pa.string()),
        ("kind", pa.string()),
        ("message", pa.string()),
    ]
)

SCHEMAS = dict(zip(TABLES, (RECORDINGS, SEGMENTS, NOTES, FAILURES), strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Segmentation:
    """How recordings are cut (method §1.2).

    Attributes
    ----------
    segment_s, hop_s : seconds
    max_per_recording : the paper's cap is 100; None takes every segment
    """

    segment_s: int = SEGMENT_S
    hop_s: int = 1
    max_per_recording: int | None = 100

    def __post_init__(self) -> None:
        if self.segment_s != SEGMENT_S:
            raise ConfigError(f"segment_s = {self.segment_s}: schema {SCHEMA} has {SEGMENT_S}")
        if self.hop_s < 1:
            raise ConfigError(f"hop_s = {self.hop_s}: must be at least 1")
        if self.max_per_recording is not None and self.max_per_recording < 1:
            raise ConfigError(f"max_per_recording = {self.max_per_recording}: must be at least 1")

    def count(self, duration_s: float) -> int:
        """Number of starts t = 0, 1, 2, … with t + 4 <= duration, up to the cap."""
        if duration_s < self.segment_s:
            return 0
        whole = int((duration_s - self.segment_s) // self.hop_s) + 1
        return whole if self.max_per_recording is None else min(whole, self.max_per_recording)

    def timeline_samples(self, n_segments: int) -> int:
        """Samples that ``n_segments`` overlapping windows cover."""
        if n_segments == 0:
            return 0
        return ((n_segments - 1) * self.hop_s + self.segment_s) * SAMPLE_RATE


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ArrayInfo:
    """One array of a store: what it is and how it is cut into shards (files) and chunks."""

    name: str
    axis: str
    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int
    shard_rows: int
    fingerprint: str
    definition: dict[str, Any]

    @property
    def n_shards(self) -> int:
        """Number of files that hold the array's rows."""
        return -(-self.shape[0] // self.shard_rows)

    def shard_path(self, shard: int) -> str:
        """Path of one shard's file, relative to the store."""
        return "/".join([ARRAYS, self.name, "c", str(shard), *["0"] * (len(self.shape) - 1)])

    def metadata_path(self) -> str:
        """Path of the array's Zarr metadata, relative to the store."""
        return f"{ARRAYS}/{self.name}/zarr.json"


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """The commit record with its own SHA-256 in it: it lists every hash but had none itself."""
    return {**record, SEAL: _seal_of(record)}


def is_sealed(record: dict[str, Any]) -> bool:
    """Whether the record is what was sealed."""
    return bool(record.get(SEAL) == _seal_of(record))


def _seal_of(record: dict[str, Any]) -> str:
    return digest({k: v for k, v in record.items() if k != SEAL}, 64)


def power_of_two(value: float, low: int, high: int) -> int:
    """Smallest power of two >= value, kept within [low, high] (themselves powers of two)."""
    result = low
    while result < high and result < value:
        result *= 2
    return result


def audio_layout(n_samples: int, identity: str) -> ArrayInfo:
    """The audio timeline: int16 samples in shards of 2–64 MiB, 16 to 32 of them in a small store."""
    shard = power_of_two(n_samples / PARTS, 1 << 20, 1 << 25)
    return ArrayInfo(
        name="audio",
        axis="sample",
        shape=(n_samples,),
        dtype="int16",
        chunk_rows=CHUNK_BYTES // 2,
        shard_rows=shard,
        fingerprint=identity,
        definition={"name": "audio", "sample_rate": SAMPLE_RATE, "resampler": "soxr-hq"},
    )


def descriptor_layout(
    descriptor: Descriptor, *, n_segments: int, n_notes: int, identity: str
) -> ArrayInfo:
    """Shape, chunks and shards of one descriptor's array.

    Segment shards hold 256–8,192 segments, 16 to 32 shards in a small store; wide arrays are cut
    finer, so that no file passes 128 MiB. The cut depends on the store alone, never on workers.
    """
    width = descriptor.width
    shapes: dict[str, tuple[int, ...]] = {
        "frame": (n_segments, N_FRAMES, width),
        "segment": (n_segments, width),
        "note": (n_notes, width),
    }
    if descriptor.axis not in shapes:
        raise ConfigError(f"descriptor '{descriptor.name}' has the unknown axis {descriptor.axis}")
    shape = shapes[descriptor.axis]
    row_bytes = 2 * max(1, width) * (N_FRAMES if descriptor.axis == "frame" else 1)
    if descriptor.axis == "note":
        shard = power_of_two(n_notes / PARTS, 1 << 12, 1 << 21)
        chunk = power_of_two(CHUNK_BYTES / row_bytes, 1 << 10, shard)
    else:
        shard = power_of_two(n_segments / PARTS, 256, 8192)
        while shard * row_bytes > 128 << 20 and shard > 256:
            shard //= 2
        chunk = power_of_two(CHUNK_BYTES / row_bytes, 16, shard)
    return ArrayInfo(
        name=descriptor.name,
        axis=descriptor.axis,
        shape=shape,
        dtype="float16",
        chunk_rows=chunk,
        shard_rows=shard,
        fingerprint=descriptor.fingerprint(identity),
        definition=descriptor.definition(),
    )
