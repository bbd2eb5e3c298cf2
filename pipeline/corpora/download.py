"""A published corpus from its archive: room, transfer, SHA-256, contents looked through, unpacked.

Whatever stops it, the same command goes on from there, and no step is done twice: missing bytes of
the archive, its verification, the members that are not yet unpacked. The folder of the corpus is there
only when it is whole; in it ``checksums.csv`` says so for every file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.base.console import Console
from pipeline.base.errors import CorpusError
from pipeline.base.files import FolderLock, fsync_dir, read_json, sha256_file, write_json
from pipeline.corpora import transfer, unpacking
from pipeline.corpora.archives import Limits
from pipeline.corpora.checksums import FILE as CHECKSUMS
from pipeline.corpora.checksums import read_checksums
from pipeline.corpora.manifests import Archive
from pipeline.corpora.transfer import Patience, Progress


def obtain(
    archive: Archive,
    out: Path,
    *,
    base_url: str,
    console: Console,
    limits: Limits | None = None,
    patience: Patience | None = None,
) -> dict[str, Any]:
    """Make ``out/<archive.folder>``; an archive that already lies in ``out`` is not fetched again.

    Parameters
    ----------
    archive : what is expected; ``bytes`` 0 means that its size is not known
    base_url : where the archive lies, with or without a slash at its end

    Returns
    -------
    what is there now, as plain data: ``root, did, files, bytes, archive``.

    Raises
    ------
    DownloadError, ArchiveError, UsageError, XmodalError
        and :class:`CorpusError` (kind ``checksum``) for an archive with another SHA-256: it is
        removed if this command fetched it, and left alone if it was there before.
    """
    target, path = out / archive.folder, out / archive.file
    out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out, ".download.lock"):
        if (target / CHECKSUMS).is_file():
            unpacking.clear_staging(target)
            return _answer(target, path, "already there")
        unpacking.refuse_existing(target)
        if not path.exists():
            _fetch(archive, path, base_url, console, patience)
        _verify(archive, path, path, console)
        with console.progress("unpack, %", 100) as update:
            unpacking.unpack(
                path,
                target,
                sha256=archive.sha256,
                top=archive.top,
                limits=limits,
                progress=_percent(update),
            )
        return _answer(target, path, "unpacked")


def _fetch(
    archive: Archive, path: Path, base_url: str, console: Console, patience: Patience | None
) -> None:
    url = f"{base_url.rstrip('/')}/{archive.file}"
    part = transfer.part_of(path)
    here = part.stat().st_size if part.exists() else 0
    unpacking.require_space(path.parent, max(0, archive.bytes - here) + archive.unpacked_bytes)
    console.say(f"fetching {url}" + (f", from byte {here} on" if here else ""))
    with console.progress("fetch, %", 100) as update:
        transfer.fetch(
            url,
            path,
            expected=archive.bytes or None,
            progress=_percent(update),
            patience=patience,
        )
    try:
        _verify(archive, part, path, console)
    except CorpusError:
        transfer.discard(path)  # going on from wrong bytes can never end well
        raise
    part.replace(path)
    transfer.discard(path)
    fsync_dir(path.parent)


def _verify(archive: Archive, found: Path, path: Path, console: Console) -> None:
    """Compare the SHA-256, unless that was done before and the file has not changed since."""
    stat = found.stat()
    now = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": archive.sha256}
    record = path.with_name(f".{path.name}.verified.json")
    with contextlib.suppress(OSError, ValueError):
        if read_json(record) == now:
            return
    with console.progress("compare SHA-256, %", 100) as update:
        tell = _percent(update)
        sha256 = sha256_file(found, progress=lambda done: tell(done, stat.st_size, ""))
    if sha256 != archive.sha256:
        raise CorpusError(
            f"{found}: its SHA-256 is {sha256}, but the archive's is {archive.sha256}; "
            "it is damaged or another file: fetch it again",
            kind="checksum",
        )
    write_json(record, now)


def _percent(update: Callable[[float, str], None]) -> Progress:
    def tell(done: int, total: int, note: str) -> None:
        share = round(100 * done / total, 1) if total else 0.0
        update(share, f"{done / 1e6:.0f} of {total / 1e6:.0f} MB {note}".rstrip())

    return tell


def _answer(target: Path, archive: Path, did: str) -> dict[str, Any]:
    files = read_checksums(target / CHECKSUMS)
    return {
        "root": str(target),
        "did": did,
        "files": len(files),
        "bytes": sum(checksum.bytes for checksum in files.values()),
        "archive": str(archive) if archive.exists() else None,
    }
