"""Unpacking an archive so that the target is either absent or whole, across any number of kills.

Members are written into a hidden folder beside the target. Each finished one is a line of a journal;
a second attempt skips those whose line is there and whose file still has its size. At the end the
checksums of everything that was unpacked are written beside it, and one rename makes the target.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pipeline.base.errors import ArchiveError, UsageError, XmodalError
from pipeline.base.files import fsync_dir
from pipeline.corpora.archives import Limits, Member, open_archive, read_member
from pipeline.corpora.checksums import FILE as CHECKSUMS
from pipeline.corpora.checksums import Checksum, write_checksums

RESERVE_BYTES = 256 << 20  # what stays free on the disk
Progress = Callable[[int, int, str], None]


def unpack(
    archive: Path,
    target: Path,
    *,
    sha256: str,
    top: str,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> dict[str, Checksum]:
    """Unpack the contents of the folder ``top`` of an archive into the new folder ``target``.

    Parameters
    ----------
    sha256 : of the archive, which the caller has verified; a resumed unpacking must have the same
    progress : called with (bytes done, bytes in all, member)

    Returns
    -------
    checksum of every file, as they also lie in ``target/checksums.csv``.

    Raises
    ------
    ArchiveError
        for anything that must not be unpacked, before the first byte is written.
    UsageError
        (kind ``exists``) when the target is there.
    XmodalError
        (kind ``space``) when the disk is too small.
    """
    refuse_existing(target)
    with open_archive(archive, top=top, limits=limits) as (opened, members):
        if any(member.path == CHECKSUMS for member in members):
            raise ArchiveError(f"holds a file '{CHECKSUMS}' of its own", kind="collision")
        staging = staging_of(target)
        done = _resume(staging, sha256, members)
        total = sum(member.bytes for member in members)
        written = sum(checksum.bytes for checksum in done.values())
        require_space(target.parent, total - written)
        with (staging / "journal").open("a", encoding="utf-8") as journal:
            for member in members:
                if member.path in done:
                    continue
                done[member.path] = _write(opened, member, staging / "files")
                _note(journal, member.path, done[member.path])
                written += member.bytes
                if progress is not None:
                    progress(written, total, member.path)
    remark = f"{archive.name} (SHA-256 {sha256}): size and SHA-256 of every file, as unpacked"
    write_checksums(staging / "files" / CHECKSUMS, done, remark)
    (staging / "files").rename(target)
    fsync_dir(target.parent)
    shutil.rmtree(staging)
    return done


def refuse_existing(target: Path) -> None:
    """Nothing that is there is ever replaced."""
    if target.exists():
        raise UsageError(
            f"{target} exists and was not made by this command; choose another --out, or compare "
            "it with: xmodal-features check-corpus",
            kind="exists",
        )


def staging_of(target: Path) -> Path:
    """The hidden folder in which ``target`` is made."""
    return target.with_name(f".{target.name}.unpacking")


def clear_staging(target: Path) -> None:
    """Remove what a kill right after the last step may have left."""
    shutil.rmtree(staging_of(target), ignore_errors=True)


def require_space(folder: Path, wanted: int) -> None:
    """Refuse to begin what the disk cannot hold."""
    free = shutil.disk_usage(folder).free
    if wanted + RESERVE_BYTES > free:
        raise XmodalError(
            f"{folder} has {free / 1e9:.1f} GB free, but {(wanted + RESERVE_BYTES) / 1e9:.1f} GB "
            "are needed; make room or choose another --out",
            kind="space",
        )


def _resume(staging: Path, sha256: str, members: list[Member]) -> dict[str, Checksum]:
    """What an earlier attempt with the same archive has finished; anything else is cleared away."""
    lines = _journal(staging / "journal")
    if not lines or lines[0] != {"archive": sha256}:
        shutil.rmtree(staging, ignore_errors=True)
        (staging / "files").mkdir(parents=True, mode=0o755)
        with (staging / "journal").open("w", encoding="utf-8") as handle:
            _line(handle, {"archive": sha256})
        return {}
    wanted = {member.path: member.bytes for member in members}
    done: dict[str, Checksum] = {}
    for line in lines[1:]:
        path = staging / "files" / line["path"]
        size = wanted.get(line["path"], -1)
        if path.is_file() and not path.is_symlink() and path.stat().st_size == size:
            done[line["path"]] = Checksum(bytes=size, sha256=line["sha256"])
    return done


def _journal(path: Path) -> list[dict[str, Any]]:
    """Whole lines; what a kill left of the last one does not count, and is cut off."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    whole = text[: text.rfind("\n") + 1]
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        return []
    if whole != text:
        os.truncate(path, len(whole.encode()))
    return lines


def _write(opened: zipfile.ZipFile, member: Member, folder: Path) -> Checksum:
    path = folder / member.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as handle:
        for block in read_member(opened, member):
            digest.update(block)
            handle.write(block)
        handle.flush()
        os.fsync(handle.fileno())
    return Checksum(bytes=member.bytes, sha256=digest.hexdigest())


def _note(journal: IO[str], path: str, checksum: Checksum) -> None:
    _line(journal, {"path": path, "sha256": checksum.sha256})


def _line(handle: IO[str], value: dict[str, Any]) -> None:
    handle.write(json.dumps(value, ensure_ascii=False) + "\n")
    handle.flush()
