"""Files that are either wholly there or not there at all, and a lock that dies with its owner.

Every write goes temp file → ``fsync`` → ``rename`` → ``fsync`` of the folder, so that a kill at any
byte leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.base.errors import StoreError
from pipeline.base.unbroken import unbroken

HEARTBEAT_S = 30.0
STALE_AFTER_S = 600.0
LOCK = ".lock"
POLL_S = 0.05
GONE_AT_MOST = 200


def fsync_dir(folder: Path) -> None:
    """Make the folder's own entries durable (a rename is not, until then)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.filename is None:  # a full disk has no name of its own
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as stable, readable JSON (sorted keys, no NaN)."""
    with atomic_write(path, "w") as handle:
        json.dump(value, handle, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
        handle.write("\n")


def read_json(path: Path) -> Any:
    """Read JSON written by :func:`write_json`."""
    with open(path, encoding="utf-8") as handle:
        return json.load(handle)


def sha256_file(
    path: Path, block: int = 1 << 20, progress: Callable[[int], None] | None = None
) -> str:
    """SHA-256 of a whole file, as 64 hexadecimal digits; ``progress`` is told the bytes read."""
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as handle:
        while chunk := handle.read(block):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done)
    return digest.hexdigest()


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed writer left behind (only ever called by the holder of the lock)."""
    for pattern in (".*.tmp", "*.partial"):  # ours, and zarr's
        # Listed first: removing folders while they are walked would end the walk.
        for leftover in list(folder.rglob(pattern)):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
    for leftover in list(folder.glob(f"{LOCK}.*")):
        if _nobodys(leftover):
            leftover.unlink(missing_ok=True)


class FolderLock:
    """One writer per folder, across processes and hosts.

    The lock file names host, pid and start, and is touched every ``HEARTBEAT_S`` seconds. It is
    stale, and is taken over, when its process is gone (same host) or its heartbeat is older than
    ``STALE_AFTER_S`` (another host).

    Parameters
    ----------
    patience_s : how long to wait for another owner to leave, seconds

    Raises
    ------
    StoreError
        (kind ``locked``) when another live process holds the folder.
    """

    def __init__(self, folder: Path, name: str = LOCK, patience_s: float = 0.0) -> None:
        self.path = folder / name
        self._patience_s = patience_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._owner: dict[str, Any] | None = None

    def __enter__(self) -> FolderLock:
        me = self._owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": _process_start(os.getpid()),
            "locked_at": time.time(),
        }
        try:
            self._wait_for(me)
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()
        except BaseException:  # a stop signal just after it was taken
            self.__exit__()
            raise
        return self

    @unbroken
    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()
        if self._mine():  # whoever was suspended for long may have lost it
            self.path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Whether a live process holds it now."""
        owner = _read_owner(self.path)
        return owner is not None and self._alive(owner)

    def _wait_for(self, me: dict[str, Any]) -> None:
        give_up = time.monotonic() + self._patience_s
        gone = 0  # times in a row that it was neither free nor there: its owner left in between
        while not self._link(me):
            content = _content(self.path)
            owner = _owner(content)
            gone = gone + 1 if content is None else 0
            if gone > GONE_AT_MOST:
                raise StoreError(f"{self.path.parent} cannot be locked: it does not stay there")
            if content is not None and (owner is None or not self._alive(owner)):
                self._break_stale(content)
                continue
            if owner is not None and time.monotonic() >= give_up:
                raise StoreError(
                    f"{self.path.parent} is being written by process {owner['pid']} on "
                    f"{owner['host']}; wait for it, or stop it, then repeat the command",
                    kind="locked",
                )
            time.sleep(POLL_S)

    def _link(self, me: dict[str, Any]) -> bool:
        """Take it if it is free. A complete file is linked into place: no reader sees an empty one."""
        if self.path.exists():
            return False
        with contextlib.suppress(FileExistsError):  # or removed at this very moment
            self.path.parent.mkdir(parents=True, exist_ok=True)
        staged = self._own()
        try:
            staged.write_text(json.dumps(me))
            os.link(staged, self.path)
        except FileExistsError:  # a network's first answer may have been lost
            return self._mine()
        except FileNotFoundError:  # the folder was removed in between
            return False
        finally:
            staged.unlink(missing_ok=True)
        return True

    def _own(self, kind: str = "") -> Path:
        """A file beside the lock that nobody else writes; :func:`_nobodys` knows its name."""
        me = f"{socket.gethostname()}.{os.getpid()}-{threading.get_ident()}"
        return self.path.with_name(f"{self.path.name}.{me}{kind}")

    def _break_stale(self, content: str) -> None:
        """Move a dead owner's lock aside; put it back if somebody else's came in between."""
        aside = self._own("-stale")
        try:
            if _content(self.path) == content:
                os.rename(self.path, aside)
                os.utime(aside)  # the lock's own age would have it swept up
        except FileNotFoundError:
            return
        if _content(aside) not in (content, None):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(aside, self.path)
        aside.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                if self._mine():
                    os.utime(self.path)

    def _mine(self) -> bool:
        return _read_owner(self.path) == self._owner

    def _alive(self, owner: dict[str, Any]) -> bool:
        if owner["host"] == socket.gethostname():
            started = _process_start(int(owner["pid"]))
            return started is not None and started == owner.get("process_started")
        try:
            return time.time() - self.path.stat().st_mtime < STALE_AFTER_S
        except OSError:
            return False


def _content(path: Path) -> str | None:
    """What a lock file says; None if there is none."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None


def _owner(content: str | None) -> dict[str, Any] | None:
    try:
        owner = json.loads(content or "")
    except ValueError:
        return None
    return owner if isinstance(owner, dict) and {"host", "pid"} <= owner.keys() else None


def _read_owner(path: Path) -> dict[str, Any] | None:
    try:
        return _owner(_content(path))
    except OSError:
        return None


def _nobodys(path: Path) -> bool:
    """Whether the process is gone that made this file beside a lock (``.lock.host.pid-thread``)."""
    host, _, who = path.name.removeprefix(f"{LOCK}.").rpartition(".")
    pid = who.partition("-")[0]
    if host == socket.gethostname() and pid.isdecimal():
        return _process_start(int(pid)) is None
    try:
        return time.time() - path.stat().st_mtime > STALE_AFTER_S
    except OSError:
        return False


def _process_start(pid: int) -> str | None:
    """When a process of this host started, or None if there is none: pids are used again."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as handle:
            return handle.read().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return None
    try:  # no /proc here: existence is all that can be asked
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
