"""A verified copy of a store on a local disk, for compute nodes.

``DIR/<name of the store>`` appears whole, by one rename, or not at all. Until then the copy grows in
``DIR/.<name>.staging``; each file gets its own name there only when all its bytes have come and have
the SHA-256 of the commit record, so a killed copy goes on where it stopped. Tasks of one node take a
lock: the first copies, the others wait for it and use the same copy.

A copy of an older state (the store got more descriptors since) keeps the files that are still right.
Only a folder that is a copy of this very store is ever replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.base.console import Console
from pipeline.base.errors import StoreError, UsageError, XmodalError
from pipeline.base.files import FolderLock, atomic_write, fsync_dir, sha256_file, sweep_temporaries
from pipeline.store.reader import Store, damaged, read_record
from pipeline.store.schema import BUILD_INFO, RECORD, SEAL

BLOCK = 4 << 20
STREAMS = 4  # files under way at once: a network file system serves several better than one
SPARE_BYTES = 64 << 20  # left free: folders, records, and what others write meanwhile


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """What staging did.

    Attributes
    ----------
    store : path of the copy
    copied, kept : files that were copied, and files that were already there and right
    bytes : copied
    """

    store: Path
    copied: int
    kept: int
    bytes: int
    seconds: float


def stage(source: Path, folder: Path, console: Console, *, full: bool = False) -> Staged:
    """Copy the store ``source`` into ``folder``, or recognise a finished copy.

    Parameters
    ----------
    full : hash every file of a finished copy, too; else its record and its files' sizes must do.
        What is found damaged is copied again

    Raises
    ------
    UsageError
        when ``folder`` is where the store lies already, or is within it.
    StoreError
        when the source is damaged or changes meanwhile, or the target is something else.
    XmodalError
        (kind ``no-space``) before anything is copied.
    """
    began = time.perf_counter()
    store = Store.open(source)
    target = folder / store.name
    _refuse_overlap(source, folder, target)
    _refuse_paths_outside(store)
    copied, kept, size = 0, len(store.record["files"]), 0
    if not _is_copy(target, store, console, full=full):
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder, f".{store.name}.lock", console):
            _refuse_foreign(target, store)
            if not _is_copy(target, store, console, full=full):
                copied, kept, size = _copy(store, target, console)
    seconds = round(time.perf_counter() - began, 3)
    return Staged(store=target, copied=copied, kept=kept, bytes=size, seconds=seconds)


@contextlib.contextmanager
def _turn(folder: Path, name: str, console: Console) -> Iterator[None]:
    """Hold the lock, once whoever holds it now has done."""
    lock = FolderLock(folder, name, patience_s=math.inf)
    if lock.is_held():
        console.say(f"another task copies the same store to {folder}; waiting for it")
    with lock:
        yield


def _refuse_overlap(source: Path, folder: Path, target: Path) -> None:
    origin = source.resolve()
    if target.resolve() == origin or folder.resolve().is_relative_to(origin):
        raise UsageError(f"{source} lies in {folder} already (or holds it); choose another folder")


def _refuse_paths_outside(store: Store) -> None:
    """A record is data from elsewhere: it must not say where else to write."""
    for name in store.record["files"]:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise damaged(store.path, RECORD, f"lists the file {name!r}, which is not within it")


def _refuse_foreign(target: Path, store: Store) -> None:
    """Only an empty folder, or a copy of this store, may stand where the copy goes."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
        return
    with contextlib.suppress(StoreError):
        if not target.is_symlink() and read_record(target)["identity"] == store.identity:
            return
    raise StoreError(
        f"{target} exists and is not a copy of {store.path}; move it away, or choose another folder",
        kind="not-a-copy",
    )


def _is_copy(target: Path, store: Store, console: Console, *, full: bool) -> bool:
    """Whether the target is a finished copy of the store's present state."""
    try:
        copy = Store.open(target)
    except StoreError:
        return False
    if copy.record[SEAL] != store.record[SEAL]:
        return False
    if not full:
        return True
    files = store.record["files"]
    right = True
    with console.progress("verify copy", len(files)) as update:
        for done, (name, entry) in enumerate(sorted(files.items()), 1):
            if not _is_right(target / name, entry):
                console.say(f"damaged, is copied again: {name}")
                right = False
            update(done, name)
    return right


def _copy(store: Store, target: Path, console: Console) -> tuple[int, int, int]:
    """Fill the staging folder, then let it take the target's place: files copied, kept, bytes."""
    staging = target.with_name(f".{target.name}.staging")
    staging.mkdir(exist_ok=True)
    sweep_temporaries(staging)
    _reuse(target, staging, store)
    _drop_strangers(staging, store)
    files = store.record["files"]
    missing = {}
    with console.progress("look for files already copied", len(files)) as update:
        for done, (name, entry) in enumerate(sorted(files.items()), 1):
            if not _is_right(staging / name, entry):
                (staging / name).unlink(missing_ok=True)
                missing[name] = entry
            update(done, name)
    size = sum(entry["size"] for entry in missing.values())
    _refuse_full_disk(staging, size)
    _copy_files(store, staging, missing, console)
    with contextlib.suppress(FileNotFoundError), atomic_write(staging / BUILD_INFO) as handle:
        handle.write((store.path / BUILD_INFO).read_bytes())
    with atomic_write(staging / RECORD) as handle:
        handle.write((store.path / RECORD).read_bytes())
    if Store.open(staging).record[SEAL] != store.record[SEAL]:
        raise _changed(store)
    _put(staging, target)
    return len(missing), len(files) - len(missing), size


def _copy_files(store: Store, staging: Path, missing: dict[str, Any], console: Console) -> None:
    pool = ThreadPoolExecutor(STREAMS, thread_name_prefix="stage")
    try:
        with console.progress("copy", len(missing)) as update:
            under_way = {
                pool.submit(_copy_file, store, staging, name, entry): name
                for name, entry in sorted(missing.items(), key=lambda item: -item[1]["size"])
            }
            for done, future in enumerate(as_completed(under_way), 1):
                future.result()
                update(done, under_way[future])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _copy_file(store: Store, staging: Path, name: str, entry: dict[str, Any]) -> None:
    """Copy one file, hashing on the way; it gets its name only if the hash is the record's."""
    digest = hashlib.sha256()
    try:
        with (store.path / name).open("rb") as source, atomic_write(staging / name) as out:
            while block := source.read(BLOCK):
                digest.update(block)
                out.write(block)
            if digest.hexdigest() != entry["sha256"]:
                raise damaged(store.path, name, "does not match its SHA-256")
    except (StoreError, FileNotFoundError):
        if read_record(store.path)[SEAL] != store.record[SEAL]:
            raise _changed(store) from None
        raise


def _is_right(file: Path, entry: dict[str, Any]) -> bool:
    try:
        return file.stat().st_size == entry["size"] and sha256_file(file) == entry["sha256"]
    except OSError:
        return False


def _reuse(target: Path, staging: Path, store: Store) -> None:
    """Link what the present copy has of this store; where links are not possible, it is copied."""
    for name in store.record["files"]:
        old, new = target / name, staging / name
        if old.is_file() and not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                new.hardlink_to(old)


def _drop_strangers(staging: Path, store: Store) -> None:
    """Remove files that an earlier state of the store had."""
    for path in list(staging.rglob("*")):
        if path.is_file() and str(path.relative_to(staging)) not in store.record["files"]:
            path.unlink()


def _refuse_full_disk(staging: Path, size: int) -> None:
    free = shutil.disk_usage(staging).free
    if size and size + SPARE_BYTES > free:
        raise XmodalError(
            f"{staging.parent} has {free / 1e9:.2f} GB free, {(size + SPARE_BYTES) / 1e9:.2f} GB are "
            "needed; make room, or choose another folder",
            kind="no-space",
        )


def _put(staging: Path, target: Path) -> None:
    """Rename the finished copy into place; an older one goes, its open files stay readable."""
    aside = target.with_name(f".{target.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        target.rename(aside)
    try:
        staging.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise StoreError(f"{target} was made by another program", kind="not-a-copy") from None
        raise
    fsync_dir(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _changed(store: Store) -> StoreError:
    return StoreError(
        f"{store.path} was changed while it was copied; repeat the command", kind="changed"
    )
