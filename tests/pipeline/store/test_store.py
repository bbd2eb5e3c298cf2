"""The contract with readers: what a store is, and that no damage goes unseen."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from makers import Quiet, contents

from pipeline.base.errors import StoreError
from pipeline.store import Store, find_newest
from pipeline.store.schema import SCHEMAS, TABLES, seal
from pipeline.store.writer import file_entry
from pipeline.verify import verify


def read_all(path: Path) -> None:
    """Read whatever a trainer may read, through the store's own checks."""
    store = Store.open(path)
    for name in store.arrays:
        store.read(name)
    for name in TABLES:
        store.table(name)


def expect_damage(path: Path, *actions) -> None:
    for action in actions:
        with pytest.raises(StoreError) as caught:
            action(path)
        assert caught.value.kind in ("damaged", "schema", "incomplete", "not-a-store")
        assert "\n" not in str(caught.value)


def full_verify(path: Path) -> None:
    verify(path, Quiet())


# ---- form


def test_tables_have_the_schemas_columns(tiny_store: Store) -> None:
    for name, schema in SCHEMAS.items():
        assert pq.read_schema(tiny_store.path / f"{name}.parquet").equals(schema)


def test_the_audio_timeline_holds_each_recording_once(tiny_store: Store) -> None:
    n = tiny_store.recordings.n_segments
    np.testing.assert_array_equal(n, [9, 6, 4, 3])
    assert tiny_store.arrays["audio"].shape == (int(((n - 1) * 24_000 + 96_000).sum()),)
    starts = np.concatenate([[0], np.cumsum((n - 1) * 24_000 + 96_000)[:-1]])
    segments = tiny_store.segments
    expected = starts[segments.recording] + (segments.start_s * 24_000).astype(int)
    np.testing.assert_array_equal(segments.audio_start, expected)


def test_rows_of_arrays_are_rows_of_tables(tiny_store: Store) -> None:
    assert tiny_store.arrays["A4"].shape == (22, 188, 8)
    assert tiny_store.arrays["mel"].shape == (22, 188, 96)
    assert tiny_store.arrays["D4"].shape == (len(tiny_store.notes()), 4)
    for name, info in tiny_store.arrays.items():
        assert (
            tiny_store.read(name).dtype == info.dtype == ("int16" if name == "audio" else "float16")
        )
    assert np.isfinite(tiny_store.read("A4")).all()


def test_note_rows_tile_their_table_in_order(tiny_store: Store) -> None:
    segments = tiny_store.segments
    ends = segments.note_start + segments.note_count
    np.testing.assert_array_equal(segments.note_start[1:], ends[:-1])
    table = tiny_store.table("notes")
    np.testing.assert_array_equal(
        np.repeat(np.arange(len(segments)), segments.note_count), table["segment"].to_numpy()
    )
    np.testing.assert_array_equal(segments.valid, segments.note_count > 0)


def test_partial_reads_equal_slices(tiny_store: Store) -> None:
    whole, notes = tiny_store.read("A4"), tiny_store.notes()
    for start, stop in ((0, 1), (3, 17), (21, 22), (5, 5), (0, None), (20, 99)):
        np.testing.assert_array_equal(tiny_store.read("A4", start, stop), whole[start:stop])
    for start, stop in ((0, 1), (7, 300), (5, 5), (500, 10**9), (10**9, 10**9 + 5)):
        found = tiny_store.notes(start, stop)
        np.testing.assert_array_equal(found.pitch, notes.pitch[start:stop])
        np.testing.assert_array_equal(found.onset_s, notes.onset_s[start:stop])


def test_the_record_lists_every_file_with_size_and_hash(tiny_store: Store) -> None:
    listed = set(tiny_store.record["files"])
    assert listed == set(contents(tiny_store.path))
    assert tiny_store.record["schema"] == 1
    assert tiny_store.record["status"] == "complete"
    assert tiny_store.path.name == f"tiny-{tiny_store.identity[:12]}"
    assert not [p for p in tiny_store.path.rglob("*") if p.suffix in (".tmp", ".partial")]


def test_verify_reports_what_it_read(tiny_store: Store) -> None:
    report = verify(tiny_store.path, Quiet())
    assert report["status"] == "complete"
    assert report["files"] == len(tiny_store.record["files"])
    assert report["bytes"] == sum(map(len, contents(tiny_store.path).values()))


def test_verify_lists_everything_that_is_damaged(own_store: Path) -> None:
    total = len(contents(own_store))
    names = [name for name in contents(own_store) if "/c/" in name] + ["notes.parquet"]
    assert len(names) >= 5
    for name in names:
        flip(own_store / name, 50, 1)
    (own_store / "segments.parquet").unlink()
    (own_store / "failures.parquet").write_bytes(b"short")
    console = Quiet()
    with pytest.raises(StoreError) as caught:
        verify(own_store, console)
    assert caught.value.exit_code == 3
    found = {d["file"]: d["how"] for d in caught.value.details}
    assert sorted(found) == sorted([*names, "segments.parquet", "failures.parquet"])
    assert found[names[0]] == "does not match its SHA-256"
    assert found["segments.parquet"] == "is missing"
    assert found["failures.parquet"].startswith("has 5 bytes")
    damaged = [line for line in console.said if line.startswith("damaged: ")]
    assert [line.split()[1] for line in damaged] == sorted(found)
    assert f"{len(found)} of {total} files" in str(caught.value)
    assert str(caught.value).count(" is damaged") == 1
    assert f"and {len(found) - 5} more" in str(caught.value)


def test_verify_reads_what_hashes_well(own_store: Path) -> None:
    """A store that was written wrong: its hashes are those of wrong files."""
    record = json.loads((own_store / "store.json").read_text())
    a4 = Store.open(own_store).arrays["A4"].shard_path(0)
    flip(own_store / a4, 9, 1)
    table = pq.read_table(own_store / "failures.parquet").rename_columns(["a", "b", "c", "d"])
    pq.write_table(table, own_store / "failures.parquet")
    for name in (a4, "failures.parquet"):
        record["files"][name] = file_entry(own_store / name)
    (own_store / "store.json").write_text(json.dumps(seal(record)))
    with pytest.raises(StoreError) as caught:
        verify(own_store, Quiet())
    found = {d["file"]: d["how"] for d in caught.value.details}
    assert list(found) == ["failures.parquet", "arrays.zarr/A4"]
    assert "other columns" in found["failures.parquet"]
    assert "does not verify" in found["arrays.zarr/A4"]


def test_verify_tells_how_far_it_is(tiny_store: Store) -> None:
    console = Quiet()
    verify(tiny_store.path, console)
    files, arrays = len(tiny_store.record["files"]), len(tiny_store.arrays)
    assert console.said[0].startswith(f"hash files: {files}/{files}")
    assert console.said[-1].startswith(f"read tables and arrays: {4 + arrays}/{4 + arrays}")


def test_require_names_the_command_that_adds_an_array(tiny_store: Store) -> None:
    tiny_store.require(["A4", "D4"])
    with pytest.raises(StoreError, match=r"xmodal-features add .* --descriptors A7,A9") as caught:
        tiny_store.require(["A7", "A4", "A9"])
    assert caught.value.kind == "no-array"
    assert caught.value.exit_code == 3
    with pytest.raises(StoreError):
        tiny_store.read("A7")


def test_find_newest_goes_by_the_time_of_commit(own_store: Path) -> None:
    out = own_store.parent
    record = json.loads((own_store / "store.json").read_text())
    for name, at in (("a", "2026-01-02"), ("b", "2026-01-03"), ("c", "2026-01-01")):
        shutil.copytree(own_store, out / name)
        text = json.dumps(seal({**record, "committed_at": at}))
        (out / name / "store.json").write_text(text)
    os.utime(out / "c" / "store.json")
    shutil.rmtree(own_store)
    assert find_newest(out) == out / "b"
    (out / "b" / "store.json").write_text("{ half")
    assert find_newest(out) == out / "a"


def test_find_newest_without_any_store(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(StoreError, match="make features") as caught:
            find_newest(folder)
        assert caught.value.kind == "missing"


# ---- what is no store


def test_folders_that_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("x")
    (tmp_path / "half" / ".build").mkdir(parents=True)
    for name, kind in (
        ("none", "missing"),
        ("foreign/thesis.tex", "missing"),
        ("foreign", "not-a-store"),
        ("half", "incomplete"),
    ):
        with pytest.raises(StoreError) as caught:
            Store.open(tmp_path / name)
        assert caught.value.kind == kind
        assert caught.value.exit_code == 3
    assert "repeat" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"schema": 1}', '{"schema": 2}', '{"schema"', "\x00\xff"]
)
def test_a_record_that_is_none(text: str, own_store: Path) -> None:
    (own_store / "store.json").write_text(text)
    expect_damage(own_store, Store.open)


def test_another_schema_is_named(own_store: Path) -> None:
    record = json.loads((own_store / "store.json").read_text())
    (own_store / "store.json").write_text(json.dumps(seal({**record, "schema": 2})))
    with pytest.raises(StoreError, match="schema 2, this version reads 1") as caught:
        Store.open(own_store)
    assert caught.value.kind == "schema"


# ---- damage


def test_a_changed_record_is_damage(own_store: Path) -> None:
    text = (own_store / "store.json").read_text()
    for old, new in (("complete", "compleat"), ('"notes": ', '"notes": 1'), ("Bach", "Bash")):
        if old in text:
            (own_store / "store.json").write_text(text.replace(old, new, 1))
            expect_damage(own_store, Store.open, full_verify)


def test_any_file_deleted(own_store: Path) -> None:
    for path in sorted(p for p in own_store.rglob("*") if p.is_file()):
        if path.name == "build.json":
            continue
        away = path.rename(own_store.parent / "away")
        expect_damage(own_store, Store.open, read_all, full_verify)
        away.rename(path)
    read_all(own_store)


def test_any_file_cut_short_or_grown(own_store: Path) -> None:
    for path in sorted(p for p in own_store.rglob("*") if p.is_file()):
        if path.name == "build.json":
            continue
        raw = path.read_bytes()
        for keep in np.linspace(0, len(raw) - 2, 20).astype(int):
            path.write_bytes(raw[:keep])
            expect_damage(own_store, Store.open)
        if path.name != "store.json":  # white space behind JSON means nothing
            path.write_bytes(raw + b"\0")
            expect_damage(own_store, Store.open)
        path.write_bytes(raw)
    read_all(own_store)


def test_a_shard_that_vanishes_behind_an_open_store_is_no_silence(own_store: Path) -> None:
    store = Store.open(own_store)
    for name, info in store.arrays.items():
        (own_store / info.shard_path(0)).unlink()
        with pytest.raises(StoreError, match="is missing"):
            store.read(name)


def flip(path: Path, at: int, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << bit
    path.write_bytes(raw)


def flip_everywhere(store: Path, files: list[Path], times: int, seed: int) -> None:
    """Every flip must be found by ``verify`` and by reading."""
    rng = np.random.default_rng(seed)
    for path in files:
        whole = path.read_bytes()
        for _ in range(times):
            at, bit = int(rng.integers(len(whole))), int(rng.integers(8))
            flip(path, at, bit)
            expect_damage(store, full_verify, read_all)
            flip(path, at, bit)
        assert path.read_bytes() == whole


def content_files(store: Path) -> list[Path]:
    return [store / name for name in contents(store) if name != "arrays.zarr/zarr.json"]


def test_flipped_bits_are_found(own_store: Path) -> None:
    flip_everywhere(own_store, content_files(own_store), 3, seed=1)
    flip_everywhere(own_store, [own_store / "store.json"], 20, seed=2)


@pytest.mark.full
@pytest.mark.parametrize("part", range(4))
def test_a_hundred_flipped_bits_in_every_file_are_found(part: int, own_store: Path) -> None:
    files = [*content_files(own_store), own_store / "store.json"]
    flip_everywhere(own_store, files[part::4], 100, seed=part)


def test_every_byte_of_the_edges_of_shards_is_covered(own_store: Path) -> None:
    store = Store.open(own_store)
    for info in store.arrays.values():
        path = own_store / info.shard_path(0)
        size = path.stat().st_size
        for at in (0, 1, size // 2, size - 21, size - 5, size - 1):
            flip(path, at, 3)
            with pytest.raises(StoreError, match="does not verify"):
                Store.open(own_store).read(info.name)
            flip(path, at, 3)


def test_flipped_bits_in_note_rows_are_found_by_partial_reads(own_store: Path) -> None:
    path = own_store / "notes.parquet"
    for at in np.linspace(0, path.stat().st_size - 1, 40).astype(int):
        flip(path, int(at), 5)
        with pytest.raises(StoreError):
            Store.open(own_store).notes(3, 9)
        flip(path, int(at), 5)
    assert len(Store.open(own_store).notes(3, 9)) == 6
