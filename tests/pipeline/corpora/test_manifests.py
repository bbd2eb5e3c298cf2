"""The published corpora in numbers, and the one form of checksums."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError, CorpusError, UsageError
from pipeline.corpora.checksums import Checksum, read_checksums, write_checksums
from pipeline.corpora.manifests import FOLDER, find_manifest, load_manifest, other_archive
from pipeline.corpora.recordings import load_table
from pipeline.plan import count_segments
from pipeline.store.schema import Segmentation

ROOT = Path(__file__).parents[3]


def test_the_manifest_of_maestro() -> None:
    found = load_manifest("maestro")
    assert (found.version, found.licence) == ("3.0.0", "CC BY-NC-SA 4.0")
    assert found.archives["full"].sha256 == (
        "6680fea5be2339ea15091a249fbd70e49551246ddbd5ca50f1b2352c08c95291"
    )
    assert found.archives["midi"].sha256 == (
        "70470ee253295c8d2c71e6d9d4a815189e35c89624b76d22fce5a019d5dde12c"
    )
    files = found.files()
    assert sum(name.endswith(".midi") for name in files) == sum(found.recordings.values()) == 1276
    midi_bytes = sum(c.bytes for name, c in files.items() if name.endswith(".midi"))
    assert midi_bytes < found.archives["midi"].unpacked_bytes
    # 16-bit stereo at 44.1 kHz is the least that the audio can take.
    assert found.hours * 3600 * 44_100 * 4 < found.archives["full"].unpacked_bytes


def test_its_numbers_follow_from_the_published_table(real_data: Path) -> None:
    found, path = load_manifest("maestro"), real_data / "maestro-v3.0.0.csv"
    content = path.read_bytes()
    expected = Checksum(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    assert found.tables == {path.name: expected}
    table = load_table(path)
    for split, count in found.recordings.items():
        assert sum(r.split == split for r in table) == count
    assert round(sum(r.duration_s for r in table) / 3600, 1) == found.hours
    assert count_segments(table, Segmentation()) == found.segments.cap_100
    assert count_segments(table, Segmentation(max_per_recording=None)) == found.segments.all
    with (real_data / "maestro-midi-sha256.csv").open(encoding="utf-8", newline="") as handle:
        rows = {r["midi_filename"]: (int(r["bytes"]), r["sha256"]) for r in csv.DictReader(handle)}
    files = {name: (c.bytes, c.sha256) for name, c in found.files().items()}
    assert {name: files[name] for name in rows} == rows
    assert {r.midi_path for r in table} == rows.keys()


def test_unknown_corpora() -> None:
    assert find_manifest("demo") is None
    with pytest.raises(ConfigError, match="known: maestro"):
        load_manifest("maestr0")
    with pytest.raises(ConfigError, match="no manifest"):
        load_manifest("../data_manifests/maestro")


def test_another_archive_of_the_same_name() -> None:
    archive = load_manifest("maestro").archives["midi"]
    other = other_archive(archive, "AB" * 32)
    assert (other.sha256, other.bytes, other.file) == ("ab" * 32, 0, archive.file)
    for wrong in ("", "ab", "g" * 64, "ab" * 33):
        with pytest.raises(UsageError, match="64"):
            other_archive(archive, wrong)


def test_checksums_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.csv"
    expected = {
        name: Checksum(bytes=i, sha256=f"{i:064x}")
        for i, name in enumerate(("b/c.wav", 'a, "quoted".midi', "#hash.wav", "ü.wav"))
    }
    write_checksums(path, expected, "what this is")
    assert read_checksums(path) == expected
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["# what this is", "sha256,bytes,path"]
    again = tmp_path / "again.csv"
    write_checksums(again, dict(reversed(expected.items())), "what this is")
    assert again.read_bytes() == path.read_bytes()


GOOD = f"{'a' * 64},1,a.wav"
BAD = {
    "nothing": "",
    "a remark only": "# x\n",
    "no header": f"{GOOD}\n",
    "another header": f"path,bytes,sha256\n{GOOD}\n",
    "short": f"sha256,bytes,path\n{GOOD}\n{'a' * 64},1\n",
    "long": f"sha256,bytes,path\n{GOOD},x\n",
    "a short hash": f"sha256,bytes,path\n{'a' * 63},1,a.wav\n",
    "capitals": f"sha256,bytes,path\n{'A' * 64},1,a.wav\n",
    "no size": f"sha256,bytes,path\n{'a' * 64},,a.wav\n",
    "a negative size": f"sha256,bytes,path\n{'a' * 64},-1,a.wav\n",
    "absolute": f"sha256,bytes,path\n{'a' * 64},1,/a.wav\n",
    "above": f"sha256,bytes,path\n{'a' * 64},1,../a.wav\n",
    "twice": f"sha256,bytes,path\n{GOOD}\n{GOOD}\n",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_a_file_of_checksums_is_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(BAD[name])
    with pytest.raises(CorpusError, match=r"x\.csv") as caught:
        read_checksums(tmp_path / "x.csv")
    assert caught.value.kind == "checksums"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none.csv", tmp_path, tmp_path / "latin.csv"):
        with pytest.raises(CorpusError, match="cannot read"):
            read_checksums(path)


@pytest.mark.full
def test_an_installed_wheel_brings_the_manifests(tmp_path: Path) -> None:
    source = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split("\0")
    for name in filter(None, listed):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    made = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / made.stdout.split()[-1]) as wheel:
        wheel.extractall(tmp_path / "site")
    code = (
        "from pipeline.corpora import manifests as m; print(m.__file__); "
        "print(len(m.load_manifest('maestro').files()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    ).stdout.split()
    assert found == [str(tmp_path / "site/pipeline/corpora/manifests.py"), "1277"]
    assert (FOLDER / "README.md").is_file()
