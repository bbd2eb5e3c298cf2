"""Copies of stores: whole and right, once, whatever happens on the way."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from makers import (
    Quiet,
    build_quietly,
    contents,
    corpus_of,
    differing,
    features,
    size_of,
    start_features,
)

from pipeline import stage as module
from pipeline.base.errors import StoreError, UsageError, XmodalError
from pipeline.build import BuildConfig, add
from pipeline.stage import stage
from pipeline.store import Store
from pipeline.store.schema import seal
from pipeline.store.writer import file_entry
from pipeline.verify import verify

DEADLINE_S = 60.0


def flip(path: Path, at: int = 100) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 4
    path.write_bytes(raw)


def shard(store: Path, name: str = "A4") -> Path:
    return store / Store.open(store).arrays[name].shard_path(0)


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_a_copy_is_the_store_and_a_second_call_finds_it(own_store: Path, tmp_path: Path) -> None:
    first = stage(own_store, tmp_path / "local" / "disk", Quiet())
    target = tmp_path / "local" / "disk" / own_store.name
    assert first.store == target
    assert differing(contents(target), contents(own_store)) == {}
    for name in ("store.json", "build.json"):
        assert (target / name).read_bytes() == (own_store / name).read_bytes()
    assert verify(target, Quiet())["status"] == "complete"
    assert (first.copied, first.kept) == (len(Store.open(target).record["files"]), 0)
    assert first.bytes == sum(map(len, contents(own_store).values()))
    before = {p: p.stat().st_ino for p in target.rglob("*")}
    again = stage(own_store, tmp_path / "local" / "disk", Quiet())
    assert (again.copied, again.kept, again.bytes) == (0, first.copied, 0)
    assert {p: p.stat().st_ino for p in target.rglob("*")} == before
    assert leftovers(target.parent) == []


def test_a_flipped_byte_of_the_source_is_refused(own_store: Path, tmp_path: Path) -> None:
    whole = shard(own_store).read_bytes()
    flip(shard(own_store))
    with pytest.raises(StoreError, match=r"A4/c/0.* does not match its SHA-256") as caught:
        stage(own_store, tmp_path / "local", Quiet())
    assert caught.value.kind == "damaged"
    assert not (tmp_path / "local" / own_store.name).exists()
    shard(own_store).write_bytes(whole)
    mended = stage(own_store, tmp_path / "local", Quiet())
    assert mended.kept > 0  # what was right the first time
    assert differing(contents(mended.store), contents(own_store)) == {}


def test_what_was_copied_is_verified_and_not_copied_again(
    own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partly = tmp_path / "local" / f".{own_store.name}.staging"
    shutil.copytree(own_store, partly)
    flip(partly / "notes.parquet")
    (partly / "recordings.parquet").unlink()
    (partly / ".segments.parquet.99.1.tmp").write_bytes(b"half")
    (partly / "arrays.zarr" / "old").mkdir()
    (partly / "arrays.zarr" / "old" / "zarr.json").write_text("{}")
    copied: list[str] = []
    original = module._copy_file

    def noted(store: Store, staging: Path, name: str, entry: dict[str, object]) -> None:
        copied.append(name)
        original(store, staging, name, entry)

    monkeypatch.setattr(module, "_copy_file", noted)
    done = stage(own_store, tmp_path / "local", Quiet())
    assert sorted(copied) == ["notes.parquet", "recordings.parquet"]
    assert done.copied == 2
    assert differing(contents(done.store), contents(own_store)) == {}


def test_verify_mends_a_copy(own_store: Path, tmp_path: Path) -> None:
    target = stage(own_store, tmp_path, Quiet()).store
    flip(shard(target))
    assert stage(own_store, tmp_path, Quiet()).copied == 0  # sizes are right
    console = Quiet()
    mended = stage(own_store, tmp_path, console, full=True)
    assert mended.copied == 1
    assert any("A4/c/0" in line for line in console.said)
    assert differing(contents(target), contents(own_store)) == {}
    assert stage(own_store, tmp_path, Quiet(), full=True).copied == 0
    shard(target).write_bytes(b"")  # of another size: seen without --verify
    assert stage(own_store, tmp_path, Quiet()).copied == 1
    assert differing(contents(target), contents(own_store)) == {}
    assert leftovers(tmp_path) == []


def test_an_extended_store_sends_only_what_is_new(own_corpus: Path, tmp_path: Path) -> None:
    source = build_quietly(corpus_of(own_corpus), tmp_path / "a", descriptors=("D4",)).store.path
    stage(source, tmp_path / "b", Quiet())
    add(source, BuildConfig(descriptors=("A4",)), Quiet())
    more = stage(source, tmp_path / "b", Quiet())
    assert set(Store.open(more.store).arrays) == {"audio", "D4", "A4"}
    assert more.copied == 1 + Store.open(source).arrays["A4"].n_shards
    assert differing(contents(more.store), contents(source)) == {}


def test_a_store_that_changes_meanwhile_is_named_so(
    own_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = build_quietly(corpus_of(own_corpus), tmp_path / "a", descriptors=("D4",)).store.path

    def change(staging: Path, size: int) -> None:
        add(source, BuildConfig(descriptors=("A4",)), Quiet())
        flip(source / "arrays.zarr" / "D4" / "zarr.json", 3)

    monkeypatch.setattr(module, "_refuse_full_disk", change)
    with pytest.raises(StoreError, match="repeat the command") as caught:
        stage(source, tmp_path / "b", Quiet())
    assert caught.value.kind == "changed"


def test_a_record_cannot_name_files_outside(own_store: Path, tmp_path: Path) -> None:
    outside = own_store.parent / "outside"
    outside.write_text("x")
    record = json.loads((own_store / "store.json").read_text())
    for name in ("../outside", str(outside)):
        files = {**record["files"], name: file_entry(outside)}
        (own_store / "store.json").write_text(json.dumps(seal({**record, "files": files})))
        with pytest.raises(StoreError, match="not within it"):
            stage(own_store, tmp_path / "local", Quiet())
        assert not (tmp_path / "local").exists()


@pytest.mark.parametrize("kind", ["thesis", "other store", "file", "link"])
def test_what_is_no_copy_of_this_store_is_never_touched(
    kind: str, own_store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "local"
    target = folder / own_store.name
    folder.mkdir()
    if kind == "file":
        target.write_text("x")
    elif kind == "link":
        (folder / "elsewhere").mkdir()
        target.symlink_to(folder / "elsewhere")
    elif kind == "other store":
        shutil.copytree(own_store, target)
        record = json.loads((target / "store.json").read_text())
        (target / "store.json").write_text(json.dumps({**record, "identity": "0" * 64}))
    else:
        target.mkdir()
        (target / "thesis.tex").write_text("x")
    before = sorted(folder.rglob("*"))
    with pytest.raises(StoreError, match="move it away") as caught:
        stage(own_store, folder, Quiet())
    assert (caught.value.kind, caught.value.exit_code) == ("not-a-copy", 3)
    assert sorted(folder.rglob("*")) == before


def test_an_empty_folder_may_stand_there(own_store: Path, tmp_path: Path) -> None:
    (tmp_path / own_store.name).mkdir()
    assert contents(stage(own_store, tmp_path, Quiet()).store) == contents(own_store)


@pytest.mark.parametrize("where", ["beside itself", "within itself"])
def test_a_store_is_not_copied_onto_itself(where: str, own_store: Path) -> None:
    folder = own_store.parent if where == "beside itself" else own_store / "copy"
    with pytest.raises(UsageError):
        stage(own_store, folder, Quiet())
    assert not (own_store / "copy").exists()


def test_space_is_looked_at_before_anything_is_copied(
    own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = sum(map(len, contents(own_store).values())) + module.SPARE_BYTES
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=need - 1))
    with pytest.raises(XmodalError, match="GB free") as caught:
        stage(own_store, tmp_path / "local", Quiet())
    assert (caught.value.kind, caught.value.exit_code) == ("no-space", 1)
    assert contents(tmp_path / "local" / f".{own_store.name}.staging") == {}
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=need))
    assert stage(own_store, tmp_path / "local", Quiet()).copied > 0


def test_two_tasks_of_one_node_copy_once(
    own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads meet here, processes in the full test below; both must get the same copy."""
    inside, go_on = threading.Event(), threading.Event()
    original = module._copy_files

    def slow(*arguments: object) -> None:
        inside.set()
        assert go_on.wait(DEADLINE_S)
        original(*arguments)

    monkeypatch.setattr(module, "_copy_files", slow)
    results: list[module.Staged] = []
    consoles = [Quiet(), Quiet()]

    def task(n: int) -> None:
        results.append(stage(own_store, tmp_path, consoles[n]))

    threads = [threading.Thread(target=task, args=(n,)) for n in range(2)]
    threads[0].start()
    assert inside.wait(DEADLINE_S)
    threads[1].start()
    give_up = time.monotonic() + DEADLINE_S
    while not consoles[1].said:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    go_on.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sum(r.copied > 0 for r in results) == 1
    assert "waiting" in consoles[1].said[0]
    assert contents(tmp_path / own_store.name) == contents(own_store)


def test_the_command_prints_the_path_alone(own_store: Path, tmp_path: Path) -> None:
    found = features("stage", own_store, tmp_path / "l")
    assert found.returncode == 0, found.stderr
    assert found.stdout == f"{tmp_path / 'l' / own_store.name}\n"
    answer = json.loads(features("stage", own_store, tmp_path / "l", "--verify", "--json").stdout)
    assert answer["store"] == str(tmp_path / "l" / own_store.name)
    assert (answer["copied"], answer["bytes"]) == (0, 0)
    assert answer["kept"] == len(Store.open(own_store).record["files"])


# ---- on real processes


@pytest.mark.full
def test_a_copy_killed_at_any_moment_resumes(long_store: Store, tmp_path: Path) -> None:
    source, total = long_store.path, sum(map(len, contents(long_store.path).values()))
    killed = resumed = 0
    for trial, share in enumerate((0.05, 0.3, 0.6, 0.9)):
        folder = tmp_path / str(trial)
        process = start_features("stage", source, folder)
        give_up = time.monotonic() + DEADLINE_S
        while process.poll() is None and size_of(folder) < share * total:
            assert time.monotonic() < give_up
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=DEADLINE_S)
        if process.returncode == -signal.SIGKILL and not (folder / source.name).exists():
            killed += 1
        done = stage(source, folder, Quiet())
        resumed += done.kept > 0
        assert differing(contents(done.store), contents(source)) == {}
        assert leftovers(folder) == []
    assert killed >= 2
    assert resumed >= 2


@pytest.mark.full
def test_a_signal_ends_with_75(long_store: Store, tmp_path: Path) -> None:
    fifo_store = tmp_path / "source" / long_store.name
    shutil.copytree(long_store.path, fifo_store)
    process = start_features("stage", fifo_store, tmp_path / "local", "--json")
    give_up = time.monotonic() + DEADLINE_S
    while not (tmp_path / "local" / f".{long_store.name}.staging").exists():
        assert time.monotonic() < give_up
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 75, err
    assert json.loads(out)["error"]["kind"] == "interrupted"
    assert not (tmp_path / "local" / f".{long_store.name}.lock").exists()
    assert contents(stage(fifo_store, tmp_path / "local", Quiet()).store) == contents(fifo_store)


@pytest.mark.full
def test_four_tasks_at_once_copy_once(long_store: Store, tmp_path: Path) -> None:
    tasks = [start_features("stage", long_store.path, tmp_path, "--json") for _ in range(4)]
    answers = []
    for task in tasks:
        out, err = task.communicate(timeout=DEADLINE_S)
        assert task.returncode == 0, err
        answers.append(json.loads(out))
    assert sorted(a["copied"] > 0 for a in answers) == [False, False, False, True]
    assert contents(tmp_path / long_store.name) == contents(long_store.path)
    assert leftovers(tmp_path) == []


@pytest.mark.full
def test_a_write_that_fails_is_one_line_and_resumes(long_store: Store, tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that fills up behind our back."""
    import resource

    limit = (1 << 20, 1 << 20)
    found = features(
        *("stage", long_store.path, tmp_path, "--json"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert found.returncode == 1
    assert json.loads(found.stdout)["error"]["kind"] == "system"
    assert "Traceback" not in found.stderr
    assert not (tmp_path / long_store.name).exists()
    done = stage(long_store.path, tmp_path, Quiet())
    assert differing(contents(done.store), contents(long_store.path)) == {}


@pytest.mark.full
def test_a_small_disk_is_refused(long_store: Store, tmp_path: Path) -> None:
    """A real tmpfs of 8 MB where one may be mounted; else a folder that takes nothing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    mounted = shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0
    if not mounted:  # where nothing can be written there is no room either
        found = features("stage", long_store.path, "/proc/self/x", "--json")
        assert found.returncode == 1
        assert "Traceback" not in found.stderr
        return
    try:
        found = features("stage", long_store.path, disk, "--json")
        assert found.returncode == 1, found.stderr
        assert json.loads(found.stdout)["error"]["kind"] == "no-space"
        assert not (disk / long_store.name).exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
