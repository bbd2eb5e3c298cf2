"""Archives that must not be unpacked, and unpacking that may be killed anywhere."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import random
import stat
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ArchiveError, UsageError, XmodalError
from pipeline.corpora import archives, unpacking
from pipeline.corpora.archives import Limits, open_archive, read_member
from pipeline.corpora.checksums import Checksum, read_checksums
from pipeline.corpora.recordings import load_table
from pipeline.corpora.unpacking import unpack

TOP = "maestro-v3.0.0"
SHA = "0" * 64  # the caller's; here it only has to stay the same
FILES = {
    f"{TOP}/README": b"read me",
    f"{TOP}/2004/a.midi": b"MThd" * 100,
    f"{TOP}/2004/b.midi": random.Random(1).randbytes(5000),
    f"{TOP}/2018/Größe.wav": b"\0" * 3000,
    f"{TOP}/empty": b"",
}


def zipped(path: Path, files: dict[str, bytes] | None = None, **kwargs: Any) -> Path:
    kwargs = {"compression": zipfile.ZIP_DEFLATED, **kwargs}
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **kwargs) as archive:
        warnings.simplefilter("ignore")  # of names given twice
        for name, content in (FILES if files is None else files).items():
            archive.writestr(name, content)
    return path


def special(name: str, mode: int, content: bytes = b"/etc/passwd") -> Callable[[Path], None]:
    def make(path: Path) -> None:
        info = zipfile.ZipInfo(f"{TOP}/{name}")
        info.create_system, info.external_attr = 3, mode << 16
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{TOP}/a", b"a")
            archive.writestr(info, content)

    return make


def named(*names: str) -> Callable[[Path], None]:
    """Members under these names, written without ``zipfile`` looking at them."""

    def make(path: Path) -> None:
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
            warnings.simplefilter("ignore")
            for name in names:
                info = zipfile.ZipInfo("x")
                info.filename = name
                archive.writestr(info, b"content")

    return make


def flagged(bits: int) -> Callable[[Path], None]:
    """A member whose directory entry has general purpose bits set."""

    def make(path: Path) -> None:
        zipped(path)
        raw = bytearray(path.read_bytes())
        at = raw.find(b"PK\x01\x02")
        raw[at + 8 : at + 10] = struct.pack("<H", bits)
        path.write_bytes(raw)

    return make


def end_records(declared: int, size: int, offset: int) -> bytes:
    """The last records of an archive, in 64-bit form."""
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, declared, declared, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, offset + size, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)
    return end64 + locator + end


def crowd(count: int, declared: int | None = None) -> Callable[[Path], None]:
    """That many entries of one empty file; the archive's end says how many there are, or lies."""

    def make(path: Path) -> None:
        name = f"{TOP}/a".encode()
        entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, len(name), *[0] * 6) + name
        directory = entry * count
        path.write_bytes(directory + end_records(declared or count, len(directory), 0))

    return make


def overlapping(path: Path) -> None:
    """Two entries for one run of bytes: every copy unpacks the same data again."""
    zipped(path, {f"{TOP}/a": b"a" * 1000, f"{TOP}/b": b"a" * 1000}, compression=0)
    raw = bytearray(path.read_bytes())
    second = raw.find(b"PK\1\2", raw.find(b"PK\1\2") + 1)
    raw[second + 42 : second + 46] = struct.pack("<L", 0)
    path.write_bytes(raw)


def holding(files: dict[str, bytes], **kwargs: Any) -> Callable[[Path], None]:
    return lambda path: zipped(path, files, **kwargs) and None


BOMB = b"\0" * (8 << 20)
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "absolute": (named("/etc/passwd"), "unsafe-name"),
    "absolute below top": (named(f"/{TOP}/a"), "unsafe-name"),
    "parent": (named("../a"), "unsafe-name"),
    "parent below top": (named(f"{TOP}/../../a"), "unsafe-name"),
    "parent at the end": (named(f"{TOP}/a/.."), "unsafe-name"),
    "dot": (named(f"{TOP}/./a"), "unsafe-name"),
    "empty part": (named(f"{TOP}//a"), "unsafe-name"),
    "backslash": (named(f"{TOP}\\..\\..\\a"), "unsafe-name"),
    "drive": (named(f"C:/{TOP}/a"), "unsafe-name"),
    "newline": (named(f"{TOP}/a\nb"), "unsafe-name"),
    "escape": (named(f"{TOP}/a\x1b[2J"), "unsafe-name"),
    "trailing space": (named(f"{TOP}/a "), "unsafe-name"),
    "empty name": (named(""), "unsafe-name"),
    "long part": (named(f"{TOP}/{'a' * 300}"), "unsafe-name"),
    "long name": (named("/".join([TOP, *["a" * 200] * 8])), "unsafe-name"),
    "deep": (named("/".join([TOP, *"a" * 40])), "unsafe-name"),
    "outside top": (named(f"{TOP}/a", "b"), "unsafe-name"),
    "beside top": (named(f"{TOP}x/a"), "unsafe-name"),
    "top is a file": (named(TOP), "unsafe-name"),
    "symlink": (special("link", stat.S_IFLNK | 0o777), "special-file"),
    "symlink to a folder": (special("link/", stat.S_IFLNK | 0o777, b""), "special-file"),
    "device": (special("sda", stat.S_IFBLK | 0o600, b""), "special-file"),
    "terminal": (special("tty", stat.S_IFCHR | 0o600, b""), "special-file"),
    "pipe": (special("pipe", stat.S_IFIFO | 0o600, b""), "special-file"),
    "socket": (special("socket", stat.S_IFSOCK | 0o600, b""), "special-file"),
    "folder called a file": (special("d", stat.S_IFDIR | 0o700, b""), "special-file"),
    "folder with contents": (special("d/", stat.S_IFDIR | 0o700), "special-file"),
    "duplicate": (named(f"{TOP}/a", f"{TOP}/b", f"{TOP}/a"), "collision"),
    "case": (named(f"{TOP}/a", f"{TOP}/A"), "collision"),
    "case of a folder": (named(f"{TOP}/d/a", f"{TOP}/D/b"), "collision"),
    "case deep down": (named(f"{TOP}/x/y/z/a", f"{TOP}/x/Y/z/b"), "collision"),
    "sharp s": (named(f"{TOP}/straße", f"{TOP}/STRASSE"), "collision"),
    "unicode form": (named(f"{TOP}/\u00e9", f"{TOP}/e\u0301"), "collision"),
    "file above a file": (named(f"{TOP}/a", f"{TOP}/a/b"), "collision"),
    "file below a file": (named(f"{TOP}/a/b", f"{TOP}/a"), "collision"),
    "our own file": (named(f"{TOP}/checksums.csv"), "collision"),
    "encrypted": (flagged(0x1), "encrypted"),
    "strong encryption": (flagged(0x41), "encrypted"),
    "masked": (flagged(0x2000), "encrypted"),
    "bzip2": (holding({f"{TOP}/a": b"a"}, compression=zipfile.ZIP_BZIP2), "unreadable"),
    "lzma": (holding({f"{TOP}/a": b"a"}, compression=zipfile.ZIP_LZMA), "unreadable"),
    "10^6 members": (crowd(10**6), "too-large"),
    "10^6 members that say 1": (crowd(10**6, 1), "too-large"),
    "20,001 members": (crowd(20_001), "too-large"),
    "ratio 1000:1": (holding({f"{TOP}/a": BOMB}), "too-large"),
    "overlap": (overlapping, "overlap"),
    "empty file": (lambda path: path.write_bytes(b"") and None, "unreadable"),
    "text": (lambda path: path.write_bytes(b"<html>not found</html>" * 99) and None, "unreadable"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_must_not_be_unpacked_is_refused_whole(name: str, tmp_path: Path) -> None:
    make, kind = HOSTILE[name]
    path = tmp_path / "x.zip"
    make(path)
    with pytest.raises(ArchiveError) as caught:
        unpack(path, tmp_path / "out" / "corpus", sha256=SHA, top=TOP)
    assert caught.value.kind == kind
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_a_million_members_are_refused_before_they_are_parsed(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    crowd(10**6, 1)(path)
    assert path.stat().st_size > 46e6
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="larger than 4 MiB"):
        unpack(path, tmp_path / "corpus", sha256=SHA, top=TOP)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * archives.DIRECTORY_BYTES


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(members=4), "5 members"),
        (Limits(bytes=8000), "take 8407 bytes"),
    ],
)
def test_limits_are_the_callers(limits: Limits, why: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip")
    with pytest.raises(ArchiveError, match=why) as caught:
        unpack(path, tmp_path / "corpus", sha256=SHA, top=TOP, limits=limits)
    assert caught.value.kind == "too-large"
    just_enough = Limits(members=5, bytes=8407)
    unpack(path, tmp_path / "corpus", sha256=SHA, top=TOP, limits=just_enough)


def test_a_good_archive_becomes_a_folder_with_its_checksums(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    path = zipped(tmp_path / "x.zip", {f"{TOP}/": b"", f"{TOP}/2004/": b"", **FILES})
    found = unpack(
        path, tmp_path / "c", sha256=SHA, top=TOP, progress=lambda *state: told.append(state)
    )
    expected = {name.removeprefix(f"{TOP}/"): content for name, content in FILES.items()}
    assert contents(tmp_path / "c") == expected
    assert {name: (c.bytes, c.sha256) for name, c in found.items()} == {
        name: (len(content), hashlib.sha256(content).hexdigest())
        for name, content in expected.items()
    }
    assert read_checksums(tmp_path / "c" / "checksums.csv") == found
    assert told[-1][:2] == (8407, 8407)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "x.zip"]
    with pytest.raises(UsageError, match="exists"):
        unpack(path, tmp_path / "c", sha256=SHA, top=TOP)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything but the record of it."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "checksums.csv"
    }


EXPECTED = {name.removeprefix(f"{TOP}/"): content for name, content in FILES.items()}


@pytest.mark.parametrize("share", range(0, 100, 4))
def test_an_archive_cut_short_is_refused(share: int, tmp_path: Path) -> None:
    raw = zipped(tmp_path / "whole.zip").read_bytes()
    path = tmp_path / "x.zip"
    path.write_bytes(raw[: len(raw) * share // 100])
    with pytest.raises(ArchiveError):
        unpack(path, tmp_path / "c", sha256=SHA, top=TOP)
    assert not (tmp_path / "c").exists()


def test_a_flipped_bit_never_gives_other_contents(tmp_path: Path) -> None:
    """In every byte of the directory, and at 60 places of the rest.

    Names lie outside the CRC; the archive's own SHA-256, compared before, covers them.
    """
    raw = zipped(tmp_path / "whole.zip").read_bytes()
    rng, path, refused = random.Random(0), tmp_path / "x.zip", 0
    directory = raw.find(b"PK\1\2")
    places = [*range(directory, len(raw)), *(rng.randrange(directory) for _ in range(60))]
    for at in places:
        broken = bytearray(raw)
        broken[at] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            with open_archive(path, top=TOP) as (opened, members):
                found = [b"".join(read_member(opened, member)) for member in members]
        except ArchiveError:
            refused += 1
            continue
        assert found == list(EXPECTED.values()), at
    assert refused > len(places) / 2


@pytest.mark.parametrize(("declared", "good"), [(5, True), (4, False), (6, False)])
def test_a_64_bit_directory_is_read(declared: int, good: bool, tmp_path: Path) -> None:
    """What archives above 4 GiB have, whatever their number of members."""
    path = zipped(tmp_path / "x.zip")
    raw = path.read_bytes()
    size, offset = struct.unpack("<2L", raw[-10:-2])
    path.write_bytes(raw[:-22] + end_records(declared, size, offset))
    if good:
        unpack(path, tmp_path / "c", sha256=SHA, top=TOP)
        assert contents(tmp_path / "c") == EXPECTED
        return
    with pytest.raises(ArchiveError, match=f"5 members instead of {declared}"):
        unpack(path, tmp_path / "c", sha256=SHA, top=TOP)


def test_contents_that_do_not_match_their_crc_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", compression=0)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"read me", b"read us"))
    with pytest.raises(ArchiveError, match="'README' is damaged") as caught:
        unpack(path, tmp_path / "c", sha256=SHA, top=TOP)
    assert caught.value.kind == "damaged"
    assert not (tmp_path / "c").exists()


def test_a_member_larger_than_it_says_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {f"{TOP}/a": b"a" * 5000})
    raw = bytearray(path.read_bytes())
    for signature, at in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        start = raw.find(signature) + at
        raw[start : start + 4] = struct.pack("<L", 50)
    path.write_bytes(raw)
    with pytest.raises(ArchiveError) as caught:
        unpack(path, tmp_path / "c", sha256=SHA, top=TOP)
    assert caught.value.kind == "damaged"


class Stop(Exception):
    """Stands for a kill: nothing after it runs."""


def stopped_after(members: int, path: Path, target: Path, sha256: str = SHA) -> list[str]:
    """Unpack and stop; the members that were written."""
    written: list[str] = []

    def tell(done: int, total: int, name: str) -> None:
        written.append(name)
        if len(written) == members:
            raise Stop

    with contextlib.suppress(Stop):
        unpack(path, target, sha256=sha256, top=TOP, progress=tell)
    return written


@pytest.mark.parametrize("members", range(1, 6))
def test_unpacking_goes_on_where_it_was_stopped(members: int, tmp_path: Path) -> None:
    path, target = zipped(tmp_path / "x.zip"), tmp_path / "c"
    first = stopped_after(members, path, target)
    assert not target.exists()
    second = stopped_after(99, path, target)
    assert first + second == list(EXPECTED)
    assert contents(target) == EXPECTED
    checksums = read_checksums(target / "checksums.csv")
    assert checksums["README"] == Checksum(bytes=7, sha256=hashlib.sha256(b"read me").hexdigest())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "x.zip"]


def cut_journal(staging: Path) -> None:
    journal = staging / "journal"
    journal.write_bytes(journal.read_bytes()[:-10])


def garble_journal(staging: Path) -> None:
    (staging / "journal").write_bytes(b"\xff{{{\n")


def shorten_file(staging: Path) -> None:
    (staging / "files/2004/a.midi").write_bytes(b"short")


def remove_file(staging: Path) -> None:
    (staging / "files/2004/a.midi").unlink()


def replace_by_link(staging: Path) -> None:
    (staging / "elsewhere").write_bytes(FILES[f"{TOP}/2004/a.midi"])
    (staging / "files/2004/a.midi").unlink()
    (staging / "files/2004/a.midi").symlink_to(staging / "elsewhere")


def leave_half_a_member(staging: Path) -> None:
    (staging / "files/2018").mkdir()
    (staging / "files/2018/Größe.wav").write_bytes(b"half")


@pytest.mark.parametrize(
    "damage",
    [
        cut_journal,
        garble_journal,
        shorten_file,
        remove_file,
        replace_by_link,
        leave_half_a_member,
    ],
)
def test_a_damaged_half_is_mended(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path, target = zipped(tmp_path / "x.zip"), tmp_path / "c"
    stopped_after(3, path, target)
    damage(unpacking.staging_of(target))
    unpack(path, target, sha256=SHA, top=TOP)
    assert contents(target) == EXPECTED
    assert not any(p.is_symlink() for p in target.rglob("*"))


def test_another_archive_does_not_go_on_from_this_one(tmp_path: Path) -> None:
    path, target = zipped(tmp_path / "x.zip"), tmp_path / "c"
    stopped_after(3, path, target)
    other = {name: content[::-1] for name, content in FILES.items()}
    zipped(path, other)
    assert len(stopped_after(99, path, target, sha256="1" * 64)) == len(other)
    assert contents(target) == {k.removeprefix(f"{TOP}/"): v for k, v in other.items()}


def test_a_disk_without_room_is_said_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = unpacking.shutil.disk_usage(tmp_path)
    small = usage._replace(free=unpacking.RESERVE_BYTES + 8406)
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: small)
    with pytest.raises(XmodalError, match="GB free") as caught:
        unpack(zipped(tmp_path / "x.zip"), tmp_path / "c", sha256=SHA, top=TOP)
    assert caught.value.kind == "space"
    assert not list(tmp_path.rglob("*.midi"))


def test_members_are_known_to_the_reader_by_their_own_names_only(tmp_path: Path) -> None:
    """The name in the directory and the one before the contents have to be the same."""
    path = zipped(tmp_path / "x.zip", compression=0)
    raw = path.read_bytes()
    at = raw.find(b"README")
    path.write_bytes(raw[:at] + b"REMOVE" + raw[at + 6 :])
    with pytest.raises(ArchiveError):
        unpack(path, tmp_path / "c", sha256=SHA, top=TOP)


def test_a_long_comment_and_leading_bytes_do_no_harm(tmp_path: Path) -> None:
    """What self-extracting archives look like; zipfile reads them, and so do we."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"c" * 60_000
        archive.writestr(f"{TOP}/a", b"a")
    path = tmp_path / "x.zip"
    path.write_bytes(b"#!/bin/sh\n" * 10 + buffer.getvalue())
    with open_archive(path, top=TOP) as (_, members):
        assert [dataclasses.asdict(m)["path"] for m in members] == ["a"]


def test_maestros_own_names_pass(real_data: Path, tmp_path: Path) -> None:
    table = load_table(real_data / "maestro-v3.0.0.csv")
    names = [name for r in table for name in (r.midi_path, r.audio_path)]
    path = tmp_path / "x.zip"
    zipped(path, {f"{TOP}/{name}": b"" for name in ["LICENSE", "README", *names]}, compression=0)
    with open_archive(path, top=TOP) as (_, members):
        assert [m.path for m in members] == ["LICENSE", "README", *names]
