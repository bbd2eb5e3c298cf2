"""ZIP archives from elsewhere: looked through before anything is written, then unpacked with care.

Only ZIP is read (what MAESTRO comes as); it has no hard links, and only plain files and folders pass.
The directory of an archive is judged as a whole, and one bad member refuses all of it:

========================  =====================================================================
kind of the error         refused
========================  =====================================================================
``unreadable``            not a ZIP, cut short, another compression than none or deflate
``too-large``             directory above 4 MiB (read before it is parsed: a million members take
                          46 MB), members, bytes in all, ratio of one member or of all
``unsafe-name``           absolute, ``..``, ``.``, empty parts, backslash, drive, control characters,
                          too long, too deep, or outside the one folder that was announced
``special-file``          symbolic links, devices, pipes, sockets
``encrypted``             members that need a password
``collision``             a name twice, names that differ only in case or Unicode form at any
                          level, a file where a folder has to be
``overlap``               members that share bytes of the archive
``damaged``               (while unpacking) contents that do not match their size or CRC-32
========================  =====================================================================

Names are judged by the strictest file system that the copy might end up on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from pipeline.base.errors import ArchiveError

DIRECTORY_BYTES = 4 << 20
MAX_NAME_BYTES, MAX_PART_BYTES, MAX_DEPTH = 1024, 240, 16
LOCAL_HEADER_BYTES = 30
END_BYTES, END64_BYTES = 22, 56 + 20  # the last record; its 64-bit form and the pointer to that
SMALL_BYTES = 1 << 20  # members up to this size may shrink as well as they like
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|^/|^[A-Za-z]:")
_FLAGS_ENCRYPTED = 0x1 | 0x40 | 0x2000  # a password, strong encryption, a masked directory
_TROUBLE = (
    zipfile.BadZipFile,
    RuntimeError,  # zipfile's word for a password, or for a compression that it cannot read
    ValueError,
    OverflowError,
    EOFError,
    struct.error,
    zlib.error,
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What an archive may ask for; MAESTRO has about 2,600 members, 129 GB, a ratio of 1.2."""

    members: int = 20_000
    bytes: int = 512 << 30
    ratio: float = 100.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One plain file of an archive: where it goes (below the top folder), and its size."""

    path: str
    bytes: int
    info: zipfile.ZipInfo


@contextlib.contextmanager
def open_archive(
    path: Path, *, top: str, limits: Limits | None = None
) -> Iterator[tuple[zipfile.ZipFile, list[Member]]]:
    """Open an archive whose members all lie in the folder ``top``, and judge its directory.

    Yields
    ------
    the open archive and its plain files, in the archive's own order.

    Raises
    ------
    ArchiveError
        of the kinds above, naming archive and member.
    """
    try:
        with _Guarded(io.FileIO(path)) as raw, _opened(raw) as archive:
            if len(archive.infolist()) != (declared := _declared_members(path)):
                raise ArchiveError(
                    f"its directory has {len(archive.infolist())} members instead of {declared}; "
                    "fetch it again",
                    kind="unreadable",
                )
            yield archive, _judge(archive.infolist(), top, limits or Limits())
    except ArchiveError as error:
        raise ArchiveError(f"{path}: {error}", kind=error.kind) from None


def read_member(archive: zipfile.ZipFile, member: Member, block: int = 1 << 20) -> Iterator[bytes]:
    """The contents of one member, in blocks; after the last, size and CRC-32 have been compared.

    Raises
    ------
    ArchiveError
        kind ``damaged``.
    """
    read = 0
    try:
        with archive.open(member.info) as handle:
            while data := handle.read(block):
                read += len(data)
                yield data
    except _TROUBLE as error:
        raise ArchiveError(f"'{member.path}' is damaged ({error})", kind="damaged") from None
    if read != member.bytes:
        raise ArchiveError(
            f"'{member.path}' is damaged ({read} bytes instead of {member.bytes})", kind="damaged"
        )


class _Guarded(io.BufferedReader):
    """A file that is never read in huge pieces.

    ``zipfile`` reads the whole directory at once and makes an object of every entry; how large it is
    the archive itself says. This is the one place where that can be stopped beforehand.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``DIRECTORY_BYTES``; more raises :class:`ArchiveError`."""
        least = DIRECTORY_BYTES + 1
        data = super().read(least if size is None or size < 0 else min(size, least))
        if len(data) > DIRECTORY_BYTES:
            raise ArchiveError(
                f"its directory is larger than {DIRECTORY_BYTES >> 20} MiB", kind="too-large"
            )
        return data


def _opened(raw: _Guarded) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(raw)
    except (*_TROUBLE, OSError) as error:
        raise ArchiveError(f"not a whole ZIP archive ({error})", kind="unreadable") from None


def _declared_members(path: Path) -> int:
    """How many members the archive's last record says it has, or -1.

    ``zipfile`` does not ask: an entry whose length is damaged hides those after it.
    """
    with path.open("rb") as raw:
        raw.seek(-min(path.stat().st_size, END_BYTES + 0xFFFF + END64_BYTES), io.SEEK_END)
        tail = raw.read()
    end = tail.rfind(b"PK\x05\x06")
    short = int.from_bytes(tail[end + 10 : end + 12], "little")
    if short != 0xFFFF:
        return short
    end64 = tail[max(0, end - END64_BYTES) : end]
    return int.from_bytes(end64[32:40], "little") if end64[:4] == b"PK\x06\x06" else -1


def _judge(infos: list[zipfile.ZipInfo], top: str, limits: Limits) -> list[Member]:
    if len(infos) > limits.members:
        raise ArchiveError(f"{len(infos)} members, more than {limits.members}", kind="too-large")
    for info in infos:
        _judge_name(info, top)
        _judge_kind(info)
    _judge_sizes(infos, limits)
    _judge_overlap(infos)
    _judge_tree(infos)
    return [
        Member(path=info.filename.removeprefix(f"{top}/"), bytes=info.file_size, info=info)
        for info in infos
        if not info.is_dir()
    ]


def _judge_name(info: zipfile.ZipInfo, top: str) -> None:
    """In normal form, below ``top``, and the same in both places that can name a member."""
    name = info.orig_filename
    parts = name.removesuffix("/").split("/")
    bad = (
        name != info.filename
        or _UNSAFE.search(name)
        or any(part in ("", ".", "..") or part != part.strip() for part in parts)
        or any(len(part.encode(errors="replace")) > MAX_PART_BYTES for part in parts)
        or len(name.encode(errors="replace")) > MAX_NAME_BYTES
        or len(parts) > MAX_DEPTH
    )
    if bad:
        raise ArchiveError(
            f"member {name[:80]!r} has a name that is not safe to unpack", kind="unsafe-name"
        )
    if parts[0] != top or (len(parts) == 1 and not info.is_dir()):
        raise ArchiveError(
            f"member {name[:80]!r} lies outside the folder '{top}'", kind="unsafe-name"
        )


def _judge_kind(info: zipfile.ZipInfo) -> None:
    """A plain file or a folder, as its Unix mode (if it has one) and its name agree."""
    if info.flag_bits & _FLAGS_ENCRYPTED:
        raise ArchiveError(f"member '{info.filename}' is encrypted", kind="encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(
            f"member '{info.filename}' has compression {info.compress_type}; only stored and "
            "deflated members are read",
            kind="unreadable",
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    allowed = (0, stat.S_IFDIR) if info.is_dir() else (0, stat.S_IFREG)
    if kind not in allowed or (info.is_dir() and info.file_size):
        raise ArchiveError(
            f"member '{info.filename}' is neither a plain file nor a folder", kind="special-file"
        )


def _judge_sizes(infos: list[zipfile.ZipInfo], limits: Limits) -> None:
    """What is declared; :func:`read_member` holds the contents to it."""
    total = sum(info.file_size for info in infos)
    packed = sum(info.compress_size for info in infos)
    if total > limits.bytes:
        raise ArchiveError(
            f"its contents take {total} bytes, more than {limits.bytes}", kind="too-large"
        )
    every = [(info.filename, info.file_size, info.compress_size) for info in infos]
    for name, size, small in [*every, ("all members together", total, packed)]:
        if size > SMALL_BYTES and size > limits.ratio * small:
            raise ArchiveError(
                f"'{name}' unpacks to more than {limits.ratio:g} times its size", kind="too-large"
            )


def _judge_overlap(infos: list[zipfile.ZipInfo]) -> None:
    end, before = 0, ""
    for info in sorted(infos, key=lambda i: i.header_offset):
        if info.header_offset < end:
            raise ArchiveError(
                f"members '{before}' and '{info.filename}' share bytes", kind="overlap"
            )
        # The local header may be longer (its extra field), never shorter.
        name = info.filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
        end = info.header_offset + LOCAL_HEADER_BYTES + len(name) + info.compress_size
        before = info.filename


def _judge_tree(infos: Iterable[zipfile.ZipInfo]) -> None:
    """Every path one spelling, every file once, no file above another."""
    spelled: dict[str, tuple[str, bool]] = {}
    leaves: set[str] = set()
    for info in infos:
        path = PurePosixPath(info.filename)
        if info.filename in leaves:
            raise ArchiveError(f"member '{info.filename}' is there twice", kind="collision")
        leaves.add(info.filename)
        for at, is_folder in [(path, info.is_dir()), *((p, True) for p in path.parents[:-1])]:
            key = unicodedata.normalize("NFC", str(at).casefold())
            known = spelled.setdefault(key, (str(at), is_folder))
            if known != (str(at), is_folder):
                raise ArchiveError(
                    f"'{known[0]}' and '{at}' cannot both be unpacked", kind="collision"
                )
