"""Our shards against the ones that Zarr writes, byte for byte, and as Zarr reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.store.schema import ArrayInfo
from pipeline.store.sharding import read_chunks, write_shard_file
from pipeline.store.writer import JOURNAL, create_array, write_shard


def layout(rows: int, rest: tuple[int, ...], dtype: str) -> ArrayInfo:
    return ArrayInfo(
        name="values", axis="frame", shape=(rows, *rest), dtype=dtype, chunk_rows=16,
        shard_rows=64, fingerprint="f" * 64, definition={},
    )  # fmt: skip


def values_of(info: ArrayInfo) -> np.ndarray:
    drawn = np.random.default_rng(0).integers(-3000, 3000, info.shape)
    return drawn.astype(info.dtype)


@pytest.mark.parametrize("rows", [64, 128, 130, 145, 191, 7])
@pytest.mark.parametrize(("rest", "dtype"), [((), "int16"), ((5, 3), "float16")])
def test_shards_are_the_bytes_that_zarr_writes(
    tmp_path: Path, rows: int, rest: tuple[int, ...], dtype: str
) -> None:
    info = layout(rows, rest, dtype)
    values = values_of(info)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        (folder / JOURNAL).mkdir(parents=True)
        create_array(folder, info)
    array = zarr.open_array(
        theirs / "arrays.zarr" / "values", mode="r+", config={"write_empty_chunks": True}
    )
    array[:] = values
    for shard in range(info.n_shards):
        write_shard(ours, info, shard, values[shard * 64 : (shard + 1) * 64])
        path = info.shard_path(shard)
        assert (ours / path).read_bytes() == (theirs / path).read_bytes()
    read = zarr.open_array(ours / "arrays.zarr" / "values", mode="r")[:]
    np.testing.assert_array_equal(read, values)
    for shard in range(info.n_shards):
        mine = values[shard * 64 : (shard + 1) * 64]
        present = -(-len(mine) // 16)
        chunks = list(read_chunks(ours / info.shard_path(shard), info, 0, present))
        np.testing.assert_array_equal(np.concatenate(chunks)[: len(mine)], mine)
        (last,) = read_chunks(ours / info.shard_path(shard), info, present - 1, present)
        np.testing.assert_array_equal(last, chunks[-1])


@pytest.mark.parametrize("dtype", ["int16", "float16"])
def test_a_changed_byte_of_what_is_read_is_found(tmp_path: Path, dtype: str) -> None:
    info = layout(64, (3,), dtype)
    path = tmp_path / "shard"
    write_shard_file(path, info, values_of(info))
    whole = path.read_bytes()
    chunk = len(whole) // 4
    for at in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="CRC-32C"):
            list(read_chunks(path, info, 0, 4))
    path.write_bytes(whole[: -chunk // 2])
    with pytest.raises((ValueError, OSError)):
        list(read_chunks(path, info, 0, 4))


def test_silence_is_a_file_like_any_other(tmp_path: Path) -> None:
    info = layout(64, (5, 3), "float16")
    (tmp_path / JOURNAL).mkdir()
    create_array(tmp_path, info)
    write_shard(tmp_path, info, 0, np.zeros(info.shape, np.float16))
    assert (tmp_path / info.shard_path(0)).stat().st_size > 64 * 5 * 3 * 2
    assert not zarr.open_array(tmp_path / "arrays.zarr" / "values", mode="r")[:].any()


def test_the_entry_is_what_lies_on_disk(tmp_path: Path) -> None:
    info = layout(40, (5, 3), "float16")
    entry = write_shard_file(tmp_path / "shard", info, values_of(info))
    data = (tmp_path / "shard").read_bytes()
    assert (entry.size, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
