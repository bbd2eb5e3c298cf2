"""Writing a store: tables, array metadata, whole shards, journal, commit.

Nothing here decides *what* is written. A shard is written by exactly one task, made durable, hashed,
and then noted in the journal (``.build/<array>.<shard>.json``); a journalled shard whose file still
has that hash is never written again. The commit record comes last.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec

from pipeline.base.config import to_plain
from pipeline.base.errors import StoreError
from pipeline.base.files import atomic_write, read_json, sha256_file, write_json
from pipeline.store.schema import ARRAYS, RECORD, SCHEMA, SCHEMAS, ArrayInfo, seal
from pipeline.store.sharding import fill_value, write_shard_file

JOURNAL = ".build"
NOTE_ROW_GROUP = 1 << 17
QUEUED_BYTES = 64 << 20


def write_table(folder: Path, name: str, table: pa.Table) -> None:
    """Write ``<name>.parquet`` with its explicit schema and page checksums, atomically."""
    table = table.cast(SCHEMAS[name])
    with atomic_write(folder / f"{name}.parquet") as handle:
        pq.write_table(
            table,
            handle,
            compression="zstd",
            write_page_checksum=True,
            row_group_size=NOTE_ROW_GROUP,
        )


def create_array(folder: Path, info: ArrayInfo) -> None:
    """Create the empty array ``info``; an existing one of the same layout is left alone.

    An existing one of another layout or fingerprint belongs to an abandoned build and is removed.
    """
    target = folder / ARRAYS / info.name
    stamp = folder / JOURNAL / f"{info.name}.array.json"
    if stamp.exists() and target.is_dir() and read_json(stamp) == to_plain(info):
        return
    shutil.rmtree(target, ignore_errors=True)
    for leftover in (folder / JOURNAL).glob(f"{info.name}.*.json"):
        leftover.unlink()
    zarr.open_group(folder / ARRAYS, mode="a", zarr_format=3)
    rest = info.shape[1:]
    zarr.create_array(
        folder / ARRAYS,
        name=info.name,
        shape=info.shape,
        dtype=info.dtype,
        shards=(info.shard_rows, *rest),
        chunks=(info.chunk_rows, *rest),
        serializer=BytesCodec(),
        compressors=(Crc32cCodec(),),
        filters=(),
        fill_value=fill_value(info),
        attributes={"fingerprint": info.fingerprint},
        config={"write_empty_chunks": True},
    )
    write_json(stamp, to_plain(info))


def write_shard(folder: Path, info: ArrayInfo, shard: int, rows: npt.NDArray[Any]) -> None:
    """Write one whole shard, make it durable, and note it in the journal."""
    start = shard * info.shard_rows
    stop = min(start + info.shard_rows, info.shape[0])
    if rows.shape != (stop - start, *info.shape[1:]) or rows.dtype != np.dtype(info.dtype):
        raise ValueError(f"shard {shard} of {info.name}: got {rows.dtype} {rows.shape}")
    entry = write_shard_file(folder / info.shard_path(shard), info, rows)
    write_json(journal_path(folder, info, shard), dataclasses.asdict(entry))


class ShardQueue:
    """Writes shards in the background, one at a time, so that kernels do not wait for the disk.

    Use as a context manager: leaving it waits for everything; an error of a write is raised by a
    later :meth:`write` or on leaving. At most ``QUEUED_BYTES`` wait (or one shard, if it is larger).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._under_way: deque[tuple[int, Future[None]]] = deque()

    def __enter__(self) -> ShardQueue:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._settle(0)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def write(self, info: ArrayInfo, shard: int, rows: npt.NDArray[Any]) -> None:
        """Hand over ``rows``, which must not be changed any more; see :func:`write_shard`."""
        self._settle(max(0, QUEUED_BYTES - rows.nbytes))
        future = self._pool.submit(write_shard, self.folder, info, shard, rows)
        self._under_way.append((rows.nbytes, future))

    def _settle(self, allowed: int) -> None:
        """Wait until no more than ``allowed`` bytes are under way; raise what failed."""
        while self._under_way and (
            sum(size for size, _ in self._under_way) > allowed or self._under_way[0][1].done()
        ):
            self._under_way.popleft()[1].result()


def journal_path(folder: Path, info: ArrayInfo, shard: int) -> Path:
    """Where the journal notes a finished shard."""
    return folder / JOURNAL / f"{info.name}.{shard}.json"


def finished_shard(folder: Path, info: ArrayInfo, shard: int) -> bool:
    """True when the journal knows the shard and its file still has the noted size and hash."""
    try:
        noted = read_json(journal_path(folder, info, shard))
        return bool(noted == file_entry(folder / info.shard_path(shard)))
    except (OSError, ValueError):
        return False


def file_entry(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as the commit record lists it."""
    return {"size": file.stat().st_size, "sha256": sha256_file(file)}


def commit(folder: Path, record: dict[str, Any], new: list[ArrayInfo]) -> None:
    """Write the commit record over the arrays of ``record`` plus ``new``; then drop the journal.

    Shards' hashes come from the journal, so that committing reads no array.
    """
    files: dict[str, Any] = dict(record.get("files", {}))
    for name in SCHEMAS:
        files[f"{name}.parquet"] = file_entry(folder / f"{name}.parquet")
    files[f"{ARRAYS}/zarr.json"] = file_entry(folder / ARRAYS / "zarr.json")
    for info in new:
        files[info.metadata_path()] = file_entry(folder / info.metadata_path())
        for shard in range(info.n_shards):
            files[info.shard_path(shard)] = _journalled(folder, info, shard)
    arrays = {**record.get("arrays", {}), **{info.name: to_plain(info) for info in new}}
    committed_at = datetime.now(UTC).isoformat(timespec="microseconds")
    final = {
        **record,
        "schema": SCHEMA,
        "arrays": arrays,
        "files": files,
        "committed_at": committed_at,
    }
    write_json(folder / RECORD, seal(final))
    shutil.rmtree(folder / JOURNAL, ignore_errors=True)


def _journalled(folder: Path, info: ArrayInfo, shard: int) -> dict[str, Any]:
    """What the journal notes of a shard; the file must be there with that size."""
    try:
        noted: dict[str, Any] = read_json(journal_path(folder, info, shard))
        if noted["size"] == (folder / info.shard_path(shard)).stat().st_size:
            return noted
    except FileNotFoundError:
        pass
    raise StoreError(
        f"{folder / info.shard_path(shard)}: gone, or changed, while the store was being built; "
        "repeat the command",
        kind="changed",
    )


def withdraw(folder: Path, record: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Take arrays out of the commit record before they are built again under another definition."""
    prefixes = tuple(f"{ARRAYS}/{name}/" for name in names)
    kept = {
        **record,
        "arrays": {n: info for n, info in record["arrays"].items() if n not in names},
        "files": {f: e for f, e in record["files"].items() if not f.startswith(prefixes)},
    }
    write_json(folder / RECORD, seal(kept))
    return kept
