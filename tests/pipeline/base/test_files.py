"""Atomic files, the lock, and sweeping up."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.base.console import stop_signals_raise
from pipeline.base.errors import Interrupted, StoreError
from pipeline.base.files import (
    STALE_AFTER_S,
    FolderLock,
    atomic_write,
    read_json,
    sweep_temporaries,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def half() -> None:
        with atomic_write(path) as handle:
            handle.write(b"half of")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_json_is_stable(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": "é"})
    write_json(tmp_path / "b", {"a": "é", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_sweeping_takes_temporaries_only(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for name in (".x.1.2.tmp", "c/0.abc.partial", "c/0", "x.tmp.json", "tmp"):
        (tmp_path / name).write_text("x")
    sweep_temporaries(tmp_path)
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["c/0", "tmp", "x.tmp.json"]


def test_sweeping_takes_what_the_dead_left_beside_a_lock(tmp_path: Path) -> None:
    """A part that was killed while it took the lock; one that lives may be taking it right now."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    mine, far = f".lock.{host}.{os.getpid()}-7", ".lock.far.away.12-7"
    dead = [f".lock.{host}.{ended.pid}-7", f".lock.{host}.{ended.pid}-7-stale"]
    old = ".lock.far.away.13-7"
    for name in (mine, far, old, *dead):
        (tmp_path / name).write_text("{}")
    long_ago = time.time() - 2 * STALE_AFTER_S
    os.utime(tmp_path / old, (long_ago, long_ago))
    with FolderLock(tmp_path):
        sweep_temporaries(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} == {".lock", mine, far}


WAITS = """
import sys
from pathlib import Path
from pipeline.base.files import FolderLock
class Told(FolderLock):
    def _link(self, me):
        taken = super()._link(me)
        print(taken, flush=True)
        return taken
with Told(Path(sys.argv[1]), patience_s=60):
    pass
"""


def waiting(folder: Path) -> subprocess.Popen[str]:
    """A process that found the folder locked and waits; it ends when it has had the lock."""
    command = [sys.executable, "-c", WAITS, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "False\n"
    return process


def test_one_that_waits_leaves_nothing_behind(tmp_path: Path) -> None:
    """However long it waits: it may be killed then."""
    with FolderLock(tmp_path):
        process = waiting(tmp_path)
        process.kill()
        process.communicate()
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_one_that_waits_for_a_folder_that_goes_makes_it_anew(tmp_path: Path) -> None:
    """As when the holder finds that the folder cannot become a store."""
    folder = tmp_path / "a"
    with FolderLock(folder):
        process = waiting(folder)
        folder.rename(tmp_path / "gone")
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert list(folder.iterdir()) == []


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        with pytest.raises(StoreError) as caught, FolderLock(tmp_path):
            pass
        assert caught.value.kind == "locked"
        assert str(os.getpid()) in str(caught.value)
        assert socket.gethostname() in str(caught.value)
    with FolderLock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_lost_is_left_to_whoever_has_it(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as first:
        theirs = {"host": "another", "pid": 1, "process_started": "7", "locked_at": 0}
        first.path.write_text(json.dumps(theirs))  # we were suspended for longer than ten minutes
    assert read_json(first.path) == theirs


HOLD = """
import os, sys
from pathlib import Path
from pipeline.base.files import FolderLock
FolderLock(Path(sys.argv[1])).__enter__()
os._exit(9)
"""


def test_the_lock_of_a_process_that_died_is_taken_over(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], check=False, timeout=60)
    assert (tmp_path / ".lock").exists()
    with FolderLock(tmp_path):
        assert read_json(tmp_path / ".lock")["pid"] == os.getpid()


RACE = """
import sys, time
from pathlib import Path
from pipeline.base.errors import StoreError
from pipeline.base.files import FolderLock
folder, won = Path(sys.argv[1]), 0
print("ready", flush=True)
sys.stdin.readline()
for _ in range(150):
    try:
        with FolderLock(folder):
            marker = folder / "inside"
            marker.touch(exist_ok=False)  # fails if anybody else is inside
            marker.unlink()
            won += 1
    except StoreError:
        continue
print(won)
"""


def test_racing_processes_are_never_inside_together(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert sum(won) >= 3


def test_a_stop_signal_waits_until_a_lock_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the process that stops would wait for itself where it tidies up, and others for it."""
    own = FolderLock._mine

    def struck(lock: FolderLock) -> bool:
        os.kill(os.getpid(), signal.SIGUSR2)
        return own(lock)

    after = ["not reached"]

    def work() -> None:
        with FolderLock(tmp_path):
            monkeypatch.setattr(FolderLock, "_mine", struck)
        monkeypatch.undo()
        after[:] = [p.name for p in tmp_path.iterdir()]
        time.sleep(10)  # it comes again

    with pytest.raises(Interrupted, match="SIGUSR2; come back"), stop_signals_raise("come back"):
        work()
    assert after == []
    with FolderLock(tmp_path):
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_a_stop_signal_just_after_a_lock_was_taken_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def struck(thread: threading.Thread) -> None:
        os.kill(os.getpid(), signal.SIGUSR2)

    monkeypatch.setattr(threading.Thread, "start", struck)
    with pytest.raises(Interrupted), stop_signals_raise("come back"), FolderLock(tmp_path):
        pass
    monkeypatch.undo()
    with FolderLock(tmp_path):
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]
