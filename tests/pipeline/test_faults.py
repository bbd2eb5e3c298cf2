"""Kills, signals, full disks and second builders, on real processes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from makers import build_quietly, contents, corpus_of, features, size_of, start_features

from pipeline.base.errors import StoreError
from pipeline.store import Store

DEADLINE_S = 60.0


def signal_at(process: subprocess.Popen[str], folder: Path, size: int, number: int) -> bool:
    """Send the signal once the folder holds that many bytes; False if the process ended first."""
    give_up = time.monotonic() + DEADLINE_S
    while process.poll() is None:
        if size_of(folder) >= size:
            process.send_signal(number)
            return True
        assert time.monotonic() < give_up, "the build neither grew nor ended"
        time.sleep(0.001)
    return False


def finished_bytes(store: Path) -> dict[str, bytes]:
    files = json.loads((store / "store.json").read_text())["files"]
    return {**contents(store), "files": json.dumps(files, sort_keys=True).encode()}


@pytest.fixture
def process_group() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.full
@pytest.mark.parametrize("after_s", [3.0, 5.0, 7.0, 9.0])
def test_a_stop_while_kernels_are_compiled_is_a_stop(
    after_s: float, tiny_corpus: Path, tmp_path: Path, monkeypatch, process_group
) -> None:
    """On a machine that has never run them: Numba's callbacks must not swallow the signal."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    flags = ("--workers", 0, "--descriptors", "all")
    process = start_features("build", "--corpus", tiny_corpus, "--out", tmp_path / "out", *flags)
    process_group.append(process)
    time.sleep(after_s)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 75, err
    assert "Traceback" not in err


@pytest.mark.full
@pytest.mark.parametrize("seed", range(5))
def test_a_build_killed_at_any_byte_resumes_to_the_same_bytes(
    seed: int, long_corpus: Path, long_store: Store, tmp_path: Path
) -> None:
    total, rng = size_of(long_store.path), np.random.default_rng(seed)
    expected = finished_bytes(long_store.path)
    killed = 0
    for trial in range(5):
        out = tmp_path / str(trial)
        folder = out / long_store.path.name
        process = start_features("build", "--corpus", long_corpus, "--out", out, "--workers", 0)
        killed += signal_at(process, folder, int(rng.integers(1, total)), signal.SIGKILL)
        process.communicate(timeout=DEADLINE_S)
        if process.returncode == -signal.SIGKILL and not (folder / "store.json").exists():
            with pytest.raises(StoreError):
                Store.open(folder)
        again = build_quietly(corpus_of(long_corpus, name="long"), out)
        assert again.store.path == folder
        assert finished_bytes(folder) == expected
        shutil.rmtree(out)
    assert killed >= 4


@pytest.mark.full
def test_a_build_killed_again_and_again_makes_progress(
    long_corpus: Path, long_store: Store, tmp_path: Path
) -> None:
    folder, total = tmp_path / long_store.path.name, size_of(long_store.path)
    for share in (0.2, 0.4, 0.6, 0.8):
        process = start_features(
            "build", "--corpus", long_corpus, "--out", tmp_path, "--workers", 0
        )
        signal_at(process, folder, int(share * total), signal.SIGKILL)
        process.communicate(timeout=DEADLINE_S)
    journal = list((folder / ".build").glob("audio.*.json"))
    assert len(journal) > 2
    stamps = {
        shard: (folder / long_store.arrays["audio"].shard_path(shard)).stat().st_mtime_ns
        for shard in range(2)
    }
    build_quietly(corpus_of(long_corpus, name="long"), tmp_path)
    assert finished_bytes(folder) == finished_bytes(long_store.path)
    for shard, stamp in stamps.items():  # a finished shard is not written again
        path = folder / long_store.arrays["audio"].shard_path(shard)
        assert path.stat().st_mtime_ns == stamp


@pytest.mark.full
@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGTERM, 2)]
)
def test_a_signal_ends_with_75_and_the_build_resumes(
    number: int, workers: int, long_corpus: Path, long_store: Store, tmp_path: Path, process_group
) -> None:
    command = ("build", "--corpus", long_corpus, "--out", tmp_path, "--workers", workers, "--json")
    folder = tmp_path / long_store.path.name
    process = start_features(*command)
    process_group.append(process)
    assert signal_at(process, folder, size_of(long_store.path) // 3, number)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 75, err
    assert json.loads(out)["error"]["kind"] == "interrupted"
    assert "repeat the command" in err
    assert "Traceback" not in err
    assert not (folder / ".lock").exists()
    with pytest.raises(StoreError, match="half-built"):
        Store.open(folder)
    assert features(*command).returncode == 0
    assert finished_bytes(folder) == finished_bytes(long_store.path)


@pytest.mark.full
def test_an_extension_killed_at_any_byte_leaves_the_store_open_and_resumes(
    long_corpus: Path, long_store: Store, tmp_path: Path, process_group
) -> None:
    store = build_quietly(corpus_of(long_corpus, name="long"), tmp_path, descriptors=("D4",)).store
    begin, total = size_of(store.path), size_of(long_store.path)
    for share in (0.0, 0.3, 0.7):
        process = start_features("add", store.path, "--descriptors", "A4,mel", "--workers", 0)
        process_group.append(process)
        signal_at(process, store.path, begin + 1 + int(share * (total - begin)), signal.SIGKILL)
        process.communicate(timeout=DEADLINE_S)
        assert set(Store.open(store.path).arrays) >= {"audio", "D4"}
    assert features("add", store.path, "--descriptors", "A4,mel", "--workers", 0).returncode == 0
    assert finished_bytes(store.path) == finished_bytes(long_store.path)


@pytest.mark.full
def test_of_two_builders_one_is_refused(
    long_corpus: Path, long_store: Store, tmp_path: Path, process_group
) -> None:
    command = ("build", "--corpus", long_corpus, "--out", tmp_path, "--workers", 0, "--json")
    folder = tmp_path / long_store.path.name
    first = start_features(*command)
    process_group.append(first)
    assert signal_at(first, folder, 1000, signal.SIGSTOP)
    second = features(*command)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 3
    assert json.loads(second.stdout)["error"]["kind"] == "locked"
    assert str(first.pid) in second.stderr
    first.communicate(timeout=DEADLINE_S)
    assert first.returncode == 0
    assert finished_bytes(folder) == finished_bytes(long_store.path)


@pytest.mark.full
def test_a_small_disk_fills_up_and_the_build_resumes_elsewhere(
    long_corpus: Path, long_store: Store, tmp_path: Path
) -> None:
    """A tmpfs of 8 MB where one may be mounted, else a limit on the size of files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ("build", "--corpus", long_corpus, "--out", disk, "--workers", "0", "--json")
    mounted = (
        shutil.which("mount") is not None
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True
        ).returncode
        == 0
    )
    try:
        if mounted:
            found = features(*command)
        else:
            import resource

            limit = (1 << 20, 1 << 20)  # EFBIG, which is an OSError just as well
            found = features(
                *command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            )
        assert found.returncode == 1, found.stderr
        assert "Traceback" not in found.stderr
        assert json.loads(found.stdout)["error"]["kind"] == "system"
        assert ("No space left" if mounted else "File too large") in found.stderr
        half = tmp_path / "out" / long_store.path.name
        shutil.copytree(disk / long_store.path.name, half)
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)
    build_quietly(corpus_of(long_corpus, name="long"), tmp_path / "out")
    assert finished_bytes(half) == finished_bytes(long_store.path)


@pytest.mark.full
def test_a_read_only_target_is_one_line(long_corpus: Path, tmp_path: Path) -> None:
    # /proc refuses even the superuser
    found = features(
        "build", "--corpus", long_corpus, "--out", "/proc/self/x", "--workers", 0, "--json"
    )
    assert found.returncode == 1
    assert json.loads(found.stdout)["error"]["kind"] == "system"
    assert "Traceback" not in found.stderr
