"""A corpus from a server's archive: whole or not there, whatever happens on the way."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import time
import zipfile
from pathlib import Path

import pytest
from file_server import Served, serve
from makers import Quiet, features, size_of, start_features

from pipeline.base.errors import ArchiveError, CorpusError, DownloadError, UsageError, XmodalError
from pipeline.base.files import FolderLock
from pipeline.corpora import download, transfer, unpacking
from pipeline.corpora.download import obtain
from pipeline.corpora.manifests import Archive
from pipeline.corpora.transfer import Patience

TOP = "maestro-v3.0.0"
FILES = {
    f"20{i:02}/{name}": random.Random(f"{i}{name}").randbytes(20_000)
    for i in range(4)
    for name in ("a.midi", "a.wav", "b.midi", "b.wav")
}


def archive_of(files: dict[str, bytes], top: str = TOP) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{top}/{name}", content)
    return buffer.getvalue()


CONTENT = archive_of(FILES)


def wanted(content: bytes = CONTENT) -> Archive:
    return Archive(
        file="maestro-v3.0.0.zip",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        unpacked_bytes=400_000,
        top=TOP,
        folder="corpus",
    )


def get(served: Served, out: Path, archive: Archive | None = None, attempts: int = 3) -> dict:
    patience = Patience(attempts=attempts, sleep=lambda seconds: None)
    return obtain(archive or wanted(), out, base_url=served.url, console=Quiet(), patience=patience)


def contents(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert found.pop("checksums.csv")
    return {name: path.read_bytes() for name, path in found.items()}


def visible(out: Path) -> list[str]:
    return sorted(p.name for p in out.iterdir() if not p.name.startswith("."))


def test_a_corpus_is_fetched_verified_and_unpacked(tmp_path: Path) -> None:
    with serve(CONTENT) as served:
        found = get(served, tmp_path)
        assert contents(tmp_path / "corpus") == FILES
        assert found == {
            "root": str(tmp_path / "corpus"),
            "did": "unpacked",
            "files": 16,
            "bytes": 320_000,
            "archive": str(tmp_path / "maestro-v3.0.0.zip"),
        }
        assert visible(tmp_path) == ["corpus", "maestro-v3.0.0.zip"]
        assert get(served, tmp_path)["did"] == "already there"
    assert len(served.log) == 1


def test_dropped_connections_and_a_changed_file(tmp_path: Path) -> None:
    other = archive_of({"README": b"another file"} | FILES)
    with serve(other, drops=[100_000]) as served:
        with pytest.raises(DownloadError, match="repeat the command"):
            get(served, tmp_path, wanted(other), attempts=0)
        served.content, served.etag, served.drops = CONTENT, '"v2"', [70_000, 70_000]
        get(served, tmp_path)
    assert contents(tmp_path / "corpus") == FILES
    assert [status for status, *_ in served.log] == [200, 200, 206, 206]


def test_a_wrong_archive_is_never_opened_and_goes(tmp_path: Path) -> None:
    wrong = bytearray(CONTENT)
    wrong[len(wrong) // 2] ^= 1
    with serve(bytes(wrong)) as served:
        with pytest.raises(CorpusError, match="its SHA-256 is") as caught:
            get(served, tmp_path)
        assert caught.value.kind == "checksum"
        assert visible(tmp_path) == []
        served.content = CONTENT
        get(served, tmp_path)  # from the start
    assert contents(tmp_path / "corpus") == FILES
    assert [asked for _, asked, _, _ in served.log] == [None, None]


def test_an_archive_that_is_there_is_used_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "maestro-v3.0.0.zip"
    path.write_bytes(CONTENT[:-1])
    with serve(CONTENT) as served:
        with pytest.raises(CorpusError, match="SHA-256"):
            get(served, tmp_path)
        assert path.read_bytes() == CONTENT[:-1]  # the user's: not ours to remove
        path.write_bytes(CONTENT)
        get(served, tmp_path)
    assert contents(tmp_path / "corpus") == FILES
    assert served.log == []


@pytest.mark.parametrize("top", ["other", ".."])
def test_a_hostile_archive_with_the_right_checksum_is_refused(top: str, tmp_path: Path) -> None:
    content = archive_of(FILES, top)
    with serve(content) as served, pytest.raises(ArchiveError, match="member"):
        get(served, tmp_path / "out", wanted(content))
    assert visible(tmp_path / "out") == ["maestro-v3.0.0.zip"]
    assert visible(tmp_path) == ["out"]


def test_verifying_is_not_repeated_unless_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    real = download.sha256_file
    monkeypatch.setattr(
        download, "sha256_file", lambda p, **kw: (hashed.append(p), real(p, **kw))[1]
    )
    path = tmp_path / "maestro-v3.0.0.zip"
    with serve(CONTENT) as served:
        get(served, tmp_path)
        shutil.rmtree(tmp_path / "corpus")
        get(served, tmp_path)
        assert hashed == [path.with_name("maestro-v3.0.0.zip.part")]
        shutil.rmtree(tmp_path / "corpus")
        os.utime(path, ns=(1, 1))
        get(served, tmp_path)
    assert len(hashed) == 2


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/mine.txt").write_text("mine")
    with serve(CONTENT) as served, pytest.raises(UsageError, match="exists"):
        get(served, tmp_path)
    assert served.log == []
    assert visible(tmp_path / "corpus") == ["mine.txt"]


def test_room_is_looked_at_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = wanted()
    needed = archive.bytes + archive.unpacked_bytes + unpacking.RESERVE_BYTES
    usage = shutil.disk_usage(tmp_path)
    with serve(CONTENT) as served:
        for free, refused in ((needed - 1, True), (needed, False)):
            monkeypatch.setattr(
                unpacking.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free)
            )
            if refused:
                with pytest.raises(XmodalError, match="make room") as caught:
                    get(served, tmp_path)
                assert (caught.value.kind, served.log) == ("space", [])
        get(served, tmp_path)
    assert contents(tmp_path / "corpus") == FILES


def test_two_at_once(tmp_path: Path) -> None:
    with (
        serve(CONTENT) as served,
        FolderLock(tmp_path, ".download.lock"),
        pytest.raises(XmodalError) as caught,
    ):
        get(served, tmp_path)
    assert caught.value.kind == "locked"


class Stop(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.mark.parametrize("step", ["fetch", "verify", "unpack"])
def test_stopped_in_any_step_it_goes_on(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BLOCK_BYTES", 10_000)
    calls: list[str] = []

    def stop(*args: object, **kwargs: object) -> None:
        calls.append(step)
        raise Stop

    with serve(CONTENT) as served, monkeypatch.context() as patch:
        where = {
            "fetch": (transfer, "_validator"),
            "verify": (download, "sha256_file"),
            "unpack": (unpacking, "write_checksums"),
        }
        patch.setattr(*where[step], stop)
        with pytest.raises(Stop):
            get(served, tmp_path)
        patch.undo()
        assert visible(tmp_path) != ["corpus"]
        get(served, tmp_path)
    assert calls == [step]
    assert contents(tmp_path / "corpus") == FILES
    assert len(served.log) == 1 + (step == "fetch")
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith((".unpacking", ".part"))] == []


def test_the_command(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    with serve(CONTENT) as served:
        command = ("download", "--midi-only", "--out", tmp_path, "--url", served.url + "/deep/")
        refused = features(*command, "--json")
        assert refused.returncode == 1, refused.stderr
        assert "58416533" in json.loads(refused.stdout)["error"]["message"]
        wrong = features(*command, "--sha256", "0" * 64, "--json")
        assert (wrong.returncode, json.loads(wrong.stdout)["error"]["kind"]) == (3, "checksum")
        unclear = features(*command, "--sha256", "123")
        assert (unclear.returncode, unclear.stdout) == (2, "")
        done = features(*command, "--sha256", sha256, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["corpus"], answer["files"], answer["did"]) == ("maestro", 16, "unpacked")
    assert contents(tmp_path / "maestro-v3.0.0-midi") == FILES
    assert "CC BY-NC-SA 4.0" in done.stderr


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_byte_the_same_command_goes_on(seed: int, tmp_path: Path) -> None:
    files = {f"d/{i}.wav": random.Random(i).randbytes(1 << 20) for i in range(24)}
    content, rng = archive_of(files), random.Random(seed)
    killed = 0
    with serve(content, drops=[3 << 20] * 6) as served:
        command = (
            *("download", "--midi-only", "--out", tmp_path, "--url", served.url),
            *("--sha256", hashlib.sha256(content).hexdigest()),
        )
        for _ in range(8):
            process = start_features(*command)
            size = rng.randrange(2 * len(content))
            give_up = time.monotonic() + 60
            while process.poll() is None and size_of(tmp_path) < size:
                assert time.monotonic() < give_up
                time.sleep(0.001)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
            process.communicate(timeout=60)
            target = tmp_path / "maestro-v3.0.0-midi"
            assert not target.exists() or contents(target) == files
        done = features(*command)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "maestro-v3.0.0-midi") == files
    assert killed >= 1
