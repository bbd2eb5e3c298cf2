"""Sizes and SHA-256 of a corpus' files: one CSV form, whether published, recorded or unpacked.

Lines that begin with ``#`` are remarks; then ``sha256,bytes,path``, sorted by path. Paths are
relative to the corpus' root, with forward slashes::

    # what this is
    sha256,bytes,path
    ee99010b…,78805,2018/MIDI-Unprocessed_Chamber3_….midi
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pipeline.base.errors import CorpusError
from pipeline.base.files import atomic_write

COLUMNS = ["sha256", "bytes", "path"]
FILE = "checksums.csv"  # beside the table, where a corpus brings its own
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Checksum:
    """What one file must be: its size in bytes and its SHA-256 (64 hexadecimal digits)."""

    bytes: int
    sha256: str


def read_checksums(path: Path) -> dict[str, Checksum]:
    """Path → checksum.

    Raises
    ------
    CorpusError
        (kind ``checksums``) for a file that cannot be read or is not of this form, naming the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"cannot read checksums from {path}: {error}", kind="checksums") from None
    found: dict[str, Checksum] = {}
    header = False
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip():
            continue
        row = next(csv.reader([line]))
        if not header:
            header = row == COLUMNS
            if header:
                continue
        if not header or not _good(row) or row[2] in found:
            raise CorpusError(
                f"{path}, line {number}: not of the form {','.join(COLUMNS)}, each path once; "
                "xmodal-features check-corpus --write-manifest writes such files",
                kind="checksums",
            )
        found[row[2]] = Checksum(bytes=int(row[1]), sha256=row[0])
    if not header:
        raise CorpusError(f"{path} holds no checksums", kind="checksums")
    return found


def write_checksums(path: Path, checksums: Mapping[str, Checksum], remark: str) -> None:
    """Write ``checksums`` under a one-line ``remark``; a file that is there is replaced whole."""
    with atomic_write(path, "w") as handle:
        handle.write(f"# {remark}\n")
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name in sorted(checksums):
            writer.writerow([checksums[name].sha256, checksums[name].bytes, name])


def _good(row: list[str]) -> bool:
    if len(row) != len(COLUMNS) or not _SHA256.fullmatch(row[0]):
        return False
    path = PurePosixPath(row[2])
    inside = bool(path.name) and not path.is_absolute() and ".." not in path.parts
    return inside and row[1].isascii() and row[1].isdigit()
