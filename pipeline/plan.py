"""The plan: every row, sample and note offset of a store, known before anything is written.

Reads the corpus table, every audio header and every MIDI file once. What cannot be used becomes a
failure with stage, kind and reason; its recording keeps its row, with no segments. The plan's
``identity`` covers the table, the fingerprints of the inputs, the segmentation, the sample rate and
the failures: neither the root folder, nor times of files, nor the number of workers, nor which titles
are one composition (rules that improve must not cost another reading of the corpus).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import audio, midi, segments
from pipeline.audio import PAD_LIMIT_SAMPLES, AudioHeader
from pipeline.base.config import digest, to_plain
from pipeline.base.errors import AudioError, CorpusError, MidiError
from pipeline.corpora.recordings import Recording
from pipeline.corpora.takes import Take
from pipeline.midi import Performance, read_performance
from pipeline.quality import Meter, QualityLimits, judge
from pipeline.segments import count_rows, cut_notes
from pipeline.sounds import Checksum, Sound, sound_of
from pipeline.spectral import SAMPLE_RATE
from pipeline.store.schema import FAILURES, NOTES, RECORDINGS, SCHEMA, SEGMENTS, Segmentation

MAX_NOTE_ROWS = 20_000_000  # of one recording; a busy hour has 150,000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A recording that cannot be used, and why."""

    recording: int
    stage: str
    kind: str
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """One recording's files as found: sound, header, notes and fingerprint (or a failure)."""

    sound: Sound
    header: AudioHeader | None
    performance: Performance | None
    fingerprint: dict[str, Any]
    failure: Failure | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where one recording lies on the timeline: samples ``[start, start + length)``."""

    recording: int
    sound: Sound
    start: int
    length: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything that a build writes, except the arrays' contents."""

    corpus: str
    identity: str
    segmentation: Segmentation
    tables: dict[str, pa.Table]
    sources: list[Source]
    failures: list[Failure]
    n_samples: int

    @property
    def n_segments(self) -> int:
        """Rows of the segment table."""
        return int(self.tables["segments"].num_rows)

    @property
    def n_notes(self) -> int:
        """Rows of the note table."""
        return int(self.tables["notes"].num_rows)


def count_segments(recordings: list[Recording], segmentation: Segmentation) -> dict[str, int]:
    """Segments per split from the table's durations alone (MAESTRO: 95,906 / 13,532 / 17,654)."""
    counts: dict[str, int] = {}
    for r in recordings:
        counts[r.split] = counts.get(r.split, 0) + segmentation.count(r.duration_s)
    return counts


def fingerprint_inputs(
    recordings: list[Recording],
    root: Path,
    *,
    checksum: Checksum = "sampled",
    suspects: frozenset[int] = frozenset(),
    segmentation: Segmentation,
    limits: QualityLimits | None = None,
    takes: Sequence[Take] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Input]:
    """Read every header, MIDI file and fingerprint; ``suspects`` are also decoded and measured.

    With ``takes``, one per recording, sound is rendered from the MIDI files and no audio is read.

    Threads, not processes: the work is reading and hashing, which release the interpreter.
    """

    def one(recording: Recording, take: Take | None) -> Input:
        judged_by = (limits or QualityLimits()) if recording.recording in suspects else None
        sound = sound_of(recording, root, take)
        return _read_input(
            recording, root / recording.midi_path, sound, checksum, judged_by, segmentation
        )

    inputs = []
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        for i, found in enumerate(pool.map(one, recordings, takes or [None] * len(recordings))):
            inputs.append(found)
            if progress is not None:
                progress(i + 1, len(recordings))
    return inputs


def identity_of(
    recordings: list[Recording], inputs: list[Input], segmentation: Segmentation
) -> str:
    """64 hexadecimal digits; equal for equal content, wherever it lies."""
    return digest(
        {
            "schema": SCHEMA,
            "sample_rate": SAMPLE_RATE,
            "versions": {"audio": audio.VERSION, "midi": midi.VERSION, "notes": segments.VERSION},
            "segmentation": to_plain(segmentation),
            # Derived by rules that improve; a column of the table that says it is among ``extra``.
            "recordings": [{**to_plain(r), "composition": None} for r in recordings],
            "inputs": [i.fingerprint for i in inputs],
            # With the reason: the failures table must be the one of this build. Not with the stage,
            # which differs between finding a broken file and examining it first the next time.
            "failed": [[f.recording, f.kind] for i in inputs if (f := i.failure)],
        },
        64,
    )


def make_plan(
    corpus: str, recordings: list[Recording], inputs: list[Input], seg: Segmentation
) -> Plan:
    """Lay out all tables and offsets."""
    sources, notes, cuts, rows = [], [], [], []
    n_samples = n_segments = n_notes = 0
    for recording, found in zip(recordings, inputs, strict=True):
        count = 0 if found.failure else seg.count(recording.duration_s)
        rows.append(_recording_row(recording, found, count, seg))
        if count == 0 or found.performance is None or found.header is None:
            continue
        cut = cut_notes(found.performance, count, seg)
        per_segment = np.bincount(cut["segment"].astype(np.int64), minlength=count)
        starts = np.arange(count) * seg.hop_s
        ends = (starts + seg.segment_s) * SAMPLE_RATE
        cuts.append(
            {
                "segment": (n_segments + np.arange(count)).astype(np.int32),
                "recording": np.full(count, recording.recording, np.int32),
                "split": [recording.split] * count,
                "start_s": starts.astype(np.float64),
                "audio_start": n_samples + starts * SAMPLE_RATE,
                "note_start": n_notes + np.cumsum(per_segment) - per_segment,
                "note_count": per_segment.astype(np.int32),
                "valid": (per_segment > 0) & (ends <= found.header.frames_24k),
            }
        )
        cut["segment"] = cut["segment"] + np.int32(n_segments)
        notes.append(cut)
        length = seg.timeline_samples(count)
        sources.append(
            Source(
                recording=recording.recording,
                sound=found.sound,
                start=n_samples,
                length=length,
            )
        )
        n_samples += length
        n_segments += count
        n_notes += int(per_segment.sum())
    failures = [i.failure for i in inputs if i.failure]
    tables = {
        "recordings": pa.Table.from_pylist(rows, schema=RECORDINGS),
        "segments": _concat(cuts, SEGMENTS),
        "notes": _concat(notes, NOTES),
        "failures": pa.Table.from_pylist([to_plain(f) for f in failures], schema=FAILURES),
    }
    return Plan(
        corpus=corpus,
        identity=identity_of(recordings, inputs, seg),
        segmentation=seg,
        tables=tables,
        sources=sources,
        failures=failures,
        n_samples=n_samples,
    )


def _read_input(
    recording: Recording,
    midi_path: Path,
    sound: Sound,
    checksum: Checksum,
    judged_by: QualityLimits | None,
    seg: Segmentation,
) -> Input:
    header: AudioHeader | None = None
    performance: Performance | None = None
    fingerprint: dict[str, Any] = {}
    failure = None
    try:
        header = sound.header()
        _check_duration(recording, header, sound.path, seg)
        performance = read_performance(midi_path)
        count = seg.count(recording.duration_s)
        if (rows := count_rows(performance, count, seg)) > MAX_NOTE_ROWS:
            raise MidiError(
                f"{midi_path}: its notes are so long that they make {rows} rows, more than "
                f"{MAX_NOTE_ROWS}",
                kind="too-large",
            )
        if judged_by is not None:
            failure = _examine(recording, sound, count, performance, judged_by, seg)
    except CorpusError as error:
        stage = {AudioError: "audio", MidiError: "midi"}.get(type(error), "table")
        failure = Failure(
            recording=recording.recording, stage=stage, kind=error.kind, message=str(error)
        )
    if failure is None and header is not None:
        sound, fingerprint = sound.fingerprinted(checksum)
        fingerprint["midi"] = hashlib.sha256(midi_path.read_bytes()).hexdigest()
    return Input(
        sound=sound,
        header=header,
        performance=performance,
        fingerprint=fingerprint,
        failure=failure,
    )


def _examine(
    recording: Recording,
    sound: Sound,
    count: int,
    performance: Performance,
    limits: QualityLimits,
    seg: Segmentation,
) -> Failure | None:
    """Decode a suspect to its end, and measure it as the store's audio will be."""
    meter = Meter(length := seg.timeline_samples(count))
    for block in sound.samples(length):
        meter.feed(block)
    inside = (performance.onset_s >= 0) & (performance.onset_s < length / SAMPLE_RATE)
    quality = meter.finish(performance.onset_s[inside], performance.velocity[inside])
    verdict = judge(quality, limits) if length else None
    if verdict is None:
        return None
    return Failure(
        recording=recording.recording,
        stage="quality",
        kind=verdict[0],
        message=f"{recording.audio_path}: {verdict[1]}",
    )


def _check_duration(
    recording: Recording, header: AudioHeader, path: str, seg: Segmentation
) -> None:
    """All segments that the metadata promise must lie inside the audio, but for 0.25 s."""
    missing = seg.timeline_samples(seg.count(recording.duration_s)) - header.frames_24k
    if missing > PAD_LIMIT_SAMPLES:
        raise AudioError(
            f"{path}: lasts {header.duration_s:.2f} s, but the metadata say "
            f"{recording.duration_s:.2f} s; correct the table or the file",
            kind="duration",
        )


def _recording_row(r: Recording, found: Input, count: int, seg: Segmentation) -> dict[str, Any]:
    header, performance = found.header, found.performance
    padded = 0
    if header is not None and count:
        padded = max(0, seg.timeline_samples(count) - header.frames_24k)
    return {
        "recording": r.recording,
        "key": r.key,
        "composer": r.composer,
        "title": r.title,
        "composition": r.composition,
        "split": r.split,
        "year": r.year,
        "duration_s": r.duration_s,
        "sample_rate": header.sample_rate if header else 0,
        "n_segments": count,
        "audio_path": r.audio_path,
        "midi_path": r.midi_path,
        "checks": {
            "audio_duration_s": header.duration_s if header else 0.0,
            "channels": header.channels if header else 0,
            "n_notes": len(performance) if performance else 0,
            "notes_end_s": float(performance.end_s.max()) if performance else 0.0,
            "padded_samples": padded,
            "failed": found.failure is not None,
        },
        "extra": json.dumps(r.extra, ensure_ascii=False, sort_keys=True),
    }


def _concat(parts: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    def column(name: str) -> Any:
        values = [part[name] for part in parts]
        if values and isinstance(values[0], list):
            return [v for part in values for v in part]
        return np.concatenate(values) if values else []

    arrays = [pa.array(column(f.name), type=f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
