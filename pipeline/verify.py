"""Whether a store still holds what was committed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.console import Console
from pipeline.base.errors import StoreError
from pipeline.base.files import sha256_file
from pipeline.spectral import SEGMENT_SAMPLES
from pipeline.store.reader import Store, damaged, read_record
from pipeline.store.schema import TABLES

READ_ROWS = 1 << 22
NAMED = 5  # damaged files that the error's own line names; stderr and --json have all


@dataclasses.dataclass(frozen=True, slots=True)
class Damage:
    """A file (or an array) that is not what was committed, and how."""

    file: str
    how: str


def verify(path: Path, console: Console) -> dict[str, Any]:
    """Check a store completely, to the end.

    Every file is read and hashed. What hashes well is then read as readers do: tables against their
    schemas, arrays through their checksums; offsets must tile their axes.

    Raises
    ------
    StoreError
        (kind ``damaged``) naming what is wrong; ``details`` lists everything that is.
    """
    record = read_record(path)
    found = _hash_files(path, record["files"], console)
    if not found:
        found = _read_contents(Store.open(path), console)
    if found:
        _refuse(path, found, len(record["files"]), console)
    return {
        "store": str(path),
        "status": record["status"],
        "files": len(record["files"]),
        "bytes": sum(entry["size"] for entry in record["files"].values()),
        "arrays": list(record["arrays"]),
    }


def _hash_files(path: Path, files: dict[str, Any], console: Console) -> list[Damage]:
    found = []
    with console.progress("hash files", len(files)) as update:
        for done, (name, entry) in enumerate(sorted(files.items()), 1):
            how = _fault_of(path / name, entry)
            if how is not None:
                found.append(Damage(name, how))
            update(done, name)
    return found


def _fault_of(file: Path, entry: dict[str, Any]) -> str | None:
    """What is wrong with one file, or None."""
    try:
        size = file.stat().st_size
        if size != entry["size"]:
            return f"has {size} bytes, not {entry['size']}"
        return None if sha256_file(file) == entry["sha256"] else "does not match its SHA-256"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:  # a broken disk; the other files are still worth a look
        return f"cannot be read ({error.strerror})"


def _read_contents(store: Store, console: Console) -> list[Damage]:
    """What hashes cannot tell: a store that was written wrong."""
    found: list[Damage] = []
    parts: list[tuple[str, Callable[[str], Any]]] = [
        *((name, store.table) for name in TABLES),
        *((name, lambda name: _read_array(store, name)) for name in store.arrays),
    ]
    with console.progress("read tables and arrays", len(parts)) as update:
        for done, (name, read) in enumerate(parts, 1):
            try:
                read(name)
            except StoreError as error:
                found += [Damage(**damage) for damage in error.details]
            update(done, name)
    if not found and not _offsets_tile(store):
        how = "has offsets that do not tile the notes or the audio"
        found.append(Damage("segments.parquet", how))
    return found


def _read_array(store: Store, name: str) -> None:
    info = store.arrays[name]
    row = max(1, int(np.prod(info.shape[1:])))
    step = max(1, READ_ROWS // row)
    for start in range(0, info.shape[0], step):
        block = store.read(name, start, min(start + step, info.shape[0]))
        if info.dtype == "float16" and not np.isfinite(block).all():
            how = f"holds values that are not finite from row {start} on"
            raise damaged(store.path, name, how)


def _offsets_tile(store: Store) -> bool:
    segments = store.segments
    ends = segments.note_start + segments.note_count
    return bool(
        len(segments) == store.record["segments"]
        and (segments.note_start[1:] == ends[:-1]).all()
        and (len(ends) == 0 or ends[-1] == store.record["notes"])
        and (segments.audio_start + SEGMENT_SAMPLES <= store.arrays["audio"].shape[0]).all()
    )


def _refuse(path: Path, found: list[Damage], files: int, console: Console) -> None:
    for damage in found:
        console.say(f"damaged: {damage.file} {damage.how}")
    named = "; ".join(f"{d.file} {d.how}" for d in found[:NAMED])
    more = f"; … and {len(found) - NAMED} more" if len(found) > NAMED else ""
    raise StoreError(
        f"the store {path} is damaged, {len(found)} of {files} files: {named}{more}; "
        "delete the folder and build it again",
        kind="damaged",
        details=[dataclasses.asdict(d) for d in found],
    )
