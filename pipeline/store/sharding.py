"""The bytes of one shard: Zarr's ``sharding_indexed`` codec with the store's settings.

A shard is its inner chunks one after the other, each followed by its CRC-32C, and at the end an index
of (offset, length) pairs with a CRC-32C of its own, all little-endian. Rows beyond the array's end
are filled up within the last chunk; chunks wholly beyond it are absent (both numbers 2^64 - 1).

Zarr reads and writes the same files, several times slower: it copies every chunk a few times and
compares it with the fill value, which a store's data never consist of. :func:`read_chunks` is for
those who go through a whole array once.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from pipeline.base.files import atomic_write
from pipeline.store.schema import ArrayInfo

ABSENT = np.uint64(2**64 - 1)


@dataclasses.dataclass(frozen=True, slots=True)
class FileEntry:
    """What the commit record says of a file."""

    size: int
    sha256: str


def write_shard_file(path: Path, info: ArrayInfo, rows: npt.NDArray[Any]) -> FileEntry:
    """Write ``rows`` as one shard, atomically and durably; hashed on the way."""
    digest, size = hashlib.sha256(), 0
    with atomic_write(path) as handle:
        for part in shard_bytes(info, rows):
            digest.update(part)
            size += handle.write(part)
    return FileEntry(size, digest.hexdigest())


def shard_bytes(info: ArrayInfo, rows: npt.NDArray[Any]) -> Iterator[memoryview | bytes]:
    """The parts of the file, in order; ``rows`` is not copied, but for an incomplete last chunk."""
    n_chunks, here = info.shard_rows // info.chunk_rows, -(-len(rows) // info.chunk_rows)
    index = np.full((n_chunks, 2), ABSENT, "<u8")
    offset = 0
    rows = np.ascontiguousarray(rows, np.dtype(info.dtype).newbyteorder("<"))
    for i in range(here):
        chunk = rows[i * info.chunk_rows : (i + 1) * info.chunk_rows]
        if len(chunk) < info.chunk_rows:
            whole = np.full((info.chunk_rows, *rows.shape[1:]), fill_value(info), rows.dtype)
            whole[: len(chunk)] = chunk
            chunk = whole
        index[i] = offset, chunk.nbytes + 4
        offset += chunk.nbytes + 4
        yield from _checked(chunk)
    yield from _checked(index)


def read_chunks(path: Path, info: ArrayInfo, first: int, stop: int) -> Iterator[npt.NDArray[Any]]:
    """Chunks ``[first, stop)`` of one shard file, each verified against its CRC-32C.

    Raises
    ------
    ValueError, OSError
        when a checksum does not hold or the file is not one of ``info``'s shards.
    """
    raw = np.memmap(path, np.uint8, "r")
    n_chunks, dtype = info.shard_rows // info.chunk_rows, np.dtype(info.dtype).newbyteorder("<")
    index = _verified(raw[-(16 * n_chunks + 4) :]).view("<u8").reshape(n_chunks, 2)
    for offset, size in index[first:stop].tolist():
        chunk = _verified(raw[offset : offset + size])
        yield chunk.view(dtype).reshape(info.chunk_rows, *info.shape[1:])


def _verified(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A copy of ``data`` without its CRC-32C at the end."""
    held = np.array(data[:-4])
    if int(google_crc32c.value(held)).to_bytes(4, "little") != data[-4:].tobytes():
        raise ValueError("a chunk does not match its CRC-32C")
    return held


def fill_value(info: ArrayInfo) -> Any:
    """What no data consist of: a shard that holds nothing else would not be written by Zarr."""
    return -32768 if info.dtype == "int16" else float("nan")


def _checked(values: npt.NDArray[Any]) -> Iterator[memoryview | bytes]:
    """The bytes of an array, then their CRC-32C."""
    data = values.reshape(-1).view(np.uint8)
    yield data.data
    yield int(google_crc32c.value(data)).to_bytes(4, "little")
