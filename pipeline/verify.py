"""What a store holds, and whether it still holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.console import Console
from pipeline.base.errors import StoreError
from pipeline.base.files import sha256_file
from pipeline.checks import summarise
from pipeline.descriptors import DESCRIPTORS
from pipeline.spectral import N_FRAMES, SEGMENT_SAMPLES
from pipeline.store.reader import Store, damaged
from pipeline.store.schema import TABLES

MEAN_NOTES_PER_SEGMENT = 40  # for the listing's byte column: MAESTRO has about 10 notes a second
READ_ROWS = 1 << 22


def verify(path: Path, console: Console) -> dict[str, Any]:
    """Check a store completely.

    Every file is read and hashed, every table loaded against its schema, every array read through
    its checksums; offsets must tile their axes.

    Raises
    ------
    StoreError
        at the first thing that is wrong, naming the file.
    """
    store = Store.open(path)
    files = store.record["files"]
    with console.progress("hash files", len(files)) as update:
        for done, (name, entry) in enumerate(sorted(files.items()), 1):
            if sha256_file(path / name) != entry["sha256"]:
                raise damaged(path, name, "does not match its SHA-256")
            update(done, name)
    for name in TABLES:
        store.table(name)
    _check_offsets(store)
    for name, info in store.arrays.items():
        row = max(1, int(np.prod(info.shape[1:])))
        step = max(1, READ_ROWS // row)
        for start in range(0, info.shape[0], step):
            block = store.read(name, start, min(start + step, info.shape[0]))
            if info.dtype == "float16" and not np.isfinite(block).all():
                raise damaged(path, name, f"holds values that are not finite from row {start} on")
    return {
        "store": str(path),
        "status": store.record["status"],
        "files": len(files),
        "bytes": sum(entry["size"] for entry in files.values()),
        "arrays": list(store.arrays),
    }


def _check_offsets(store: Store) -> None:
    segments = store.segments
    ends = segments.note_start + segments.note_count
    tiled = (
        len(segments) == store.record["segments"]
        and (segments.note_start[1:] == ends[:-1]).all()
        and (len(ends) == 0 or ends[-1] == store.record["notes"])
        and (segments.audio_start + SEGMENT_SAMPLES <= store.arrays["audio"].shape[0]).all()
    )
    if not tiled:
        raise StoreError(
            f"{store.path}: segment offsets do not tile the notes or the audio", kind="damaged"
        )


def describe_store(store: Store) -> tuple[dict[str, Any], str]:
    """A store's contents, as data and as text."""
    record, recordings = store.record, store.recordings
    splits = {
        split: {
            "recordings": int(np.sum((recordings.split == split) & (recordings.n_segments > 0))),
            "compositions": len(set(recordings.composition[recordings.split == split])),
            "segments": len(store.segments.of_split(split)),
        }
        for split in ("train", "validation", "test")
    }
    data = {
        "store": str(store.path),
        **{k: record[k] for k in ("corpus", "identity", "status", "committed_at", "failures")},
        "splits": splits,
        "notes": record["notes"],
        "hours": round(store.arrays["audio"].shape[0] / 24_000 / 3600, 3),
        "arrays": {
            n: {"shape": list(a.shape), "dtype": a.dtype, "fingerprint": a.fingerprint[:12]}
            for n, a in store.arrays.items()
        },
        "bytes": sum(entry["size"] for entry in record["files"].values()),
        "quality": summarise(store),
    }
    lines = [
        f"{store.path} ({record['status']}, committed {record['committed_at']})",
        f"  {data['hours']:.2f} h of audio, {record['notes']} note rows, {data['bytes'] / 1e6:.0f} MB",
        *(
            f"  {s:<11} {v['recordings']:>5} recordings {v['compositions']:>5} compositions "
            f"{v['segments']:>7} segments"
            for s, v in splits.items()
        ),
        *(f"  {n:<9} {a['dtype']:<8} {a['shape']}" for n, a in data["arrays"].items()),
        *_quality_lines(data["quality"]),
    ]
    return data, "\n".join(lines)


def _quality_lines(found: dict[str, Any]) -> list[str]:
    """The measures that a reader wants to see, and who has a warning."""
    lines = []
    for name, label in (
        ("onset_correlation", "onset correlation"),
        ("onset_lag_ms", "onset lag, ms"),
        ("bandwidth_hz", "bandwidth, Hz"),
    ):
        if spread := found["measures"].get(name):
            low, median, high = (f"{spread[k]:g}" for k in ("low", "median", "high"))
            lines.append(f"  {label:<18} {median} ({low} to {high})")
    for name, keys in found["warnings"].items():
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        lines.append(f"  warning: {name} in {', '.join(keys[:3])}{more}")
    return lines


def describe_registry() -> tuple[list[dict[str, Any]], str]:
    """All descriptors, as data and as text."""
    rows: dict[str, int] = {"frame": N_FRAMES, "segment": 1, "note": MEAN_NOTES_PER_SEGMENT}
    data = [
        {
            "name": name,
            "version": d.version,
            "side": d.side,
            "axis": d.axis,
            "shape": d.shape(),
            "bytes_per_segment": 2 * d.width * rows[d.axis],
            "units": d.units,
            "role": d.role,
            "summary": d.summary,
        }
        for name, d in DESCRIPTORS.items()
    ]
    text = "\n".join(
        f"{d['name']:<9} {d['side']:<6} {d['shape']:<12} {d['bytes_per_segment']:>7} B  {d['summary']}"
        for d in data
    )
    return data, text
