"""A corpus against the disk: every fault is named, nothing is read twice, a kill loses little."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from makers import Quiet, corpus_of, features, write_midi

from pipeline import examine
from pipeline.base.errors import CorpusError, UsageError
from pipeline.check import CheckConfig, check_corpus, describe
from pipeline.corpora import memory
from pipeline.corpora.checksums import Checksum, read_checksums, write_checksums
from pipeline.corpora.manifests import load_manifest
from pipeline.corpora.memory import Memory


def check(table: Path, **config: Any) -> dict[str, Any]:
    state = config.pop("state", table.parent.parent / "state.json")
    return check_corpus(corpus_of(table), CheckConfig(state=state, **config), Quiet())


def problems(report: dict[str, Any]) -> list[tuple[int, str, str]]:
    return [(p["recording"], p["file"], p["kind"]) for p in report["problems"]]


@pytest.fixture
def manifest(own_corpus: Path, tmp_path: Path) -> Path:
    """Checksums of the corpus as it was made."""
    path = tmp_path / "checksums.csv"
    check(own_corpus, level="full", write_manifest=path, state=tmp_path / "first.json")
    return path


def test_a_good_corpus(own_corpus: Path) -> None:
    report = check(own_corpus)
    assert (report["status"], report["problems"]) == ("ok", [])
    assert (report["files"], report["recordings"], report["remembered"]) == (8, 4, 0)
    assert report["splits"][0] == {
        "split": "train",
        "recordings": 2,
        "hours": 0.01,
        "compositions": 2,
        "missing": 0,
        "wrong": 0,
    }
    text = describe(report)
    assert "| train " in text
    assert "no problems in 8 files" in text


def remove(folder: Path) -> None:
    (folder / "2008/studio-48k.wav").unlink()


def replace_by_folder(folder: Path) -> None:
    remove(folder)
    (folder / "2008/studio-48k.wav").mkdir()


def shorten_audio(folder: Path) -> None:
    path = folder / "2008/studio-48k.wav"
    path.write_bytes(path.read_bytes()[:-200_000])


def shorter_recording(folder: Path) -> None:
    shutil.copy(folder / "2008/deep-24.wav", folder / "2008/studio-48k.wav")


def text_for_audio(folder: Path) -> None:
    (folder / "2008/studio-48k.wav").write_text("RIFF?")


def cut_midi(folder: Path) -> None:
    path = folder / "2008/studio-48k.midi"
    path.write_bytes(path.read_bytes()[:-5])


def no_notes(folder: Path) -> None:
    write_midi(folder / "2008/studio-48k.midi", [])


def another_midi(folder: Path) -> None:
    shutil.copy(folder / "2008/deep-24.midi", folder / "2008/studio-48k.midi")


def one_tempo(folder: Path) -> None:
    """A change that keeps the size, and a file that can be read."""
    path = folder / "2008/studio-48k.midi"
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"\xff\x51\x03") + 5] ^= 1
    path.write_bytes(raw)


def one_sample(folder: Path) -> None:
    path = folder / "2008/studio-48k.wav"
    raw = bytearray(path.read_bytes())
    raw[200_000] ^= 1
    path.write_bytes(raw)


WAV, MIDI = "2008/studio-48k.wav", "2008/studio-48k.midi"
FAULTS: list[tuple[Callable[[Path], None], str, str, str]] = [
    (remove, "header", WAV, "missing"),
    (replace_by_folder, "header", WAV, "missing"),
    (shorten_audio, "header", WAV, "truncated"),
    (shorter_recording, "header", WAV, "duration"),
    (text_for_audio, "header", WAV, "unreadable"),
    (cut_midi, "header", MIDI, "unreadable"),
    (no_notes, "header", MIDI, "no-notes"),
    (another_midi, "midi", MIDI, "checksum"),
    (one_tempo, "midi", MIDI, "checksum"),
    (one_sample, "full", WAV, "checksum"),
]
LEVELS = ["header", "midi", "full"]


@pytest.mark.parametrize(("fault", "level", "file", "kind"), FAULTS)
def test_each_level_finds_what_it_should(
    fault: Callable[[Path], None],
    level: str,
    file: str,
    kind: str,
    own_corpus: Path,
    manifest: Path,
) -> None:
    fault(own_corpus.parent)
    for name in LEVELS:
        config = {} if name == "header" else {"manifest": manifest}
        report = check(own_corpus, level=name, **config)
        if LEVELS.index(name) < LEVELS.index(level):
            assert problems(report) == []
            continue
        assert report["status"] == "wrong"
        (problem,) = report["problems"]
        assert (problem["recording"], problem["file"]) == (1, file)
        assert problem["kind"] in (kind, "checksum")
        assert problem["kind"] == kind or name == "full"
        assert str(own_corpus.parent / file) in problem["message"]
        assert f"[{problem['kind']}]" in describe(report)


def test_checksums_are_recorded_and_compared(own_corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    recorded = check(own_corpus, level="full", write_manifest=path)
    assert (recorded["manifest"], recorded["unknown"]) == (str(path), 8)
    assert len(read_checksums(path)) == 8
    compared = check(own_corpus, level="full", manifest=path)
    assert (compared["compared"], compared["unknown"], compared["problems"]) == (8, 0, [])
    midi = check(own_corpus, level="midi", write_manifest=tmp_path / "midi.csv")
    assert midi["manifest"]
    assert {Path(name).suffix for name in read_checksums(tmp_path / "midi.csv")} == {".midi"}
    partly = check(own_corpus, level="full", manifest=tmp_path / "midi.csv")
    assert (partly["compared"], partly["unknown"]) == (4, 4)
    assert "of 4 none is known" in describe(partly)


def test_the_checksums_in_the_folder_are_found(own_corpus: Path, tmp_path: Path) -> None:
    check(own_corpus, level="full", write_manifest=own_corpus.parent / "checksums.csv")
    assert check(own_corpus, level="full")["compared"] == 8
    one_sample(own_corpus.parent)
    assert problems(check(own_corpus, level="full")) == [(1, WAV, "checksum")]


def test_nothing_is_recorded_of_a_corpus_with_faults(own_corpus: Path, tmp_path: Path) -> None:
    remove(own_corpus.parent)
    report = check(own_corpus, level="full", write_manifest=tmp_path / "m.csv")
    assert report["manifest"] is None
    assert not (tmp_path / "m.csv").exists()


def test_what_cannot_be_meant_is_refused(own_corpus: Path, manifest: Path) -> None:
    for config, why in (
        ({"level": "midi"}, "no checksums"),
        ({"level": "full"}, "no checksums"),
        ({"level": "header", "write_manifest": manifest.with_name("n.csv")}, "choose --level"),
        ({"level": "full", "write_manifest": manifest}, "not overwritten"),
    ):
        with pytest.raises(UsageError, match=why):
            check(own_corpus, **config)
    with pytest.raises(CorpusError, match="sha256,bytes,path"):
        check(own_corpus, level="full", manifest=own_corpus)


def test_a_copy_without_audio(own_corpus: Path) -> None:
    for path in own_corpus.parent.rglob("*.wav"):
        path.unlink()
    assert len(check(own_corpus)["problems"]) == 3
    report = check(own_corpus, midi_only=True)
    assert (report["files"], report["problems"]) == (4, [])


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose contents were hashed."""
    names: list[str] = []
    real = examine.sha256_file
    monkeypatch.setattr(examine, "sha256_file", lambda p: (names.append(p.name), real(p))[1])
    return names


def test_what_has_not_changed_is_not_read_again(
    own_corpus: Path, manifest: Path, hashed: list[str]
) -> None:
    check(own_corpus)
    report = check(own_corpus, level="full", manifest=manifest)
    assert (len(hashed), report["remembered"]) == (8, 0)
    report = check(own_corpus, level="full", manifest=manifest)
    assert (len(hashed), report["remembered"]) == (8, 8)
    os.utime(own_corpus.parent / WAV, ns=(1, 1))
    one_tempo(own_corpus.parent)
    report = check(own_corpus, level="full", manifest=manifest)
    assert sorted(hashed[8:]) == ["studio-48k.midi", "studio-48k.wav"]
    assert problems(report) == [(1, MIDI, "checksum")]


def test_a_verdict_is_never_remembered(own_corpus: Path, manifest: Path, hashed: list[str]) -> None:
    one_sample(own_corpus.parent)
    for _ in range(2):
        assert problems(check(own_corpus, level="full", manifest=manifest))
    good = read_checksums(manifest)
    found = Checksum(bytes=good[WAV].bytes, sha256=examine.sha256_file(own_corpus.parent / WAV))
    write_checksums(manifest, {**good, WAV: found}, "corrected")
    assert not problems(check(own_corpus, level="full", manifest=manifest))
    assert hashed.count("studio-48k.wav") == 2  # once by the check, once by this test


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"subject": "x", "files": {}}', '{"files": 1}']
)
def test_a_damaged_memory_is_an_empty_one(content: str, own_corpus: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    check(own_corpus, state=state)
    good = json.loads(state.read_text())
    state.write_text(content)
    report = check(own_corpus, state=state)
    assert (report["remembered"], report["problems"]) == (0, [])
    assert json.loads(state.read_text()) == good


def test_a_memory_of_another_folder_does_not_count(own_corpus: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    check(own_corpus, state=state)
    shutil.copytree(own_corpus.parent, tmp_path / "copy")
    assert check(tmp_path / "copy" / own_corpus.name, state=state)["remembered"] == 0


def test_a_stopped_check_goes_on(own_corpus: Path, manifest: Path, hashed: list[str]) -> None:
    class Stopping(Quiet):
        def progress(self, label: str, total: int) -> Any:
            def update(done: float, note: str = "") -> None:
                raise KeyboardInterrupt

            return contextlib.nullcontext(update)

    state = own_corpus.parent.parent / "state.json"
    config = CheckConfig(level="full", manifest=manifest, state=state)
    with pytest.raises(KeyboardInterrupt):
        check_corpus(corpus_of(own_corpus), config, Stopping())
    before = len(hashed)
    assert before >= 1
    report = check(own_corpus, level="full", manifest=manifest)
    assert (report["problems"], report["remembered"]) == ([], before)
    assert len(hashed) == len(set(hashed)) == 8


def test_a_file_that_changes_while_it_is_read_is_said(
    own_corpus: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = examine.sha256_file

    def touched(path: Path) -> str:
        if path.name == "studio-48k.wav":
            os.utime(path, ns=(5, 5))
        return real(path)

    monkeypatch.setattr(examine, "sha256_file", touched)
    report = check(own_corpus, level="full", manifest=manifest)
    assert problems(report) == [(1, WAV, "changed")]


def test_memory_is_written_every_few_files_or_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SAVE_FILES", 3)
    kept = Memory(tmp_path / "m.json", ["x"])
    for i in range(8):
        kept.put(f"f{i}", {"i": i}, 1)
        there = Memory(tmp_path / "m.json", ["x"])
        assert [there.get(f"f{j}") == {"i": j} for j in range(8)] == [
            j < (i + 1) // 3 * 3 for j in range(8)
        ]
    kept.put("large", {}, memory.SAVE_BYTES)
    assert Memory(tmp_path / "m.json", ["x"]).get("f7") == {"i": 7}
    assert Memory(tmp_path / "m.json", ["y"]).get("f7") == {}


def test_maestro_is_held_to_its_manifest(own_corpus: Path, tmp_path: Path) -> None:
    table = own_corpus.rename(own_corpus.with_name("maestro-v3.0.0.csv"))
    assert problems(check(table)) == [(-1, table.name, "counts")]
    report = check(table, level="midi")
    assert problems(report) == [(-1, table.name, "counts"), (-1, table.name, "checksum")]
    assert (report["compared"], report["unknown"]) == (1, 4)


def test_the_command_and_its_exit_codes(own_corpus: Path, tmp_path: Path) -> None:
    base = ("check-corpus", "--corpus", own_corpus, "--json")
    good = features(*base, cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["status"] == "ok"
    assert len(list(tmp_path.glob("data/checks/tiny-*.json"))) == 1
    remove(own_corpus.parent)
    bad = features(*base, "--state", tmp_path / "s.json", cwd=tmp_path)
    assert bad.returncode == 3
    assert [p["kind"] for p in json.loads(bad.stdout)["problems"]] == ["missing"]
    errors = [line for line in bad.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: 1 problems in {own_corpus.parent}"]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
from makers import Quiet, corpus_of
from pipeline import examine
from pipeline.check import CheckConfig, check_corpus
from pipeline.corpora import memory
memory.SAVE_FILES = 1
real, count = examine.sha256_file, 0
def sha256_file(path):
    global count
    count += 1
    if count == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path)
examine.sha256_file = sha256_file
table, manifest, state = map(Path, sys.argv[1:])
check_corpus(corpus_of(table), CheckConfig(level="full", manifest=manifest, state=state), Quiet())
"""


@pytest.mark.full
def test_a_killed_check_goes_on(
    own_corpus: Path, manifest: Path, hashed: list[str], tmp_path: Path
) -> None:
    state = tmp_path / "killed.json"
    found = subprocess.run(
        [sys.executable, "-c", KILLED, own_corpus, manifest, state],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert found.returncode == -signal.SIGKILL
    report = check(own_corpus, level="full", manifest=manifest, state=state)
    assert report["problems"] == []
    assert report["remembered"] >= 1
    assert len(hashed) == 8 - report["remembered"]


@pytest.mark.full
def test_the_real_midi_files_are_the_published_ones(real_data: Path, tmp_path: Path) -> None:
    from pipeline.corpora.manifests import FOLDER

    command = (
        *("check-corpus", "--corpus", real_data / "maestro-subset.csv", "--root"),
        *(real_data / "maestro", "--midi-only", "--level", "midi", "--json", "--manifest"),
        FOLDER / load_manifest("maestro").checksums,
    )
    found = features(*command, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert (report["compared"], report["unknown"], report["problems"]) == (205, 0, [])
    whole = features(
        *("check-corpus", "--corpus", real_data / "maestro-v3.0.0.csv", "--root"),
        *(real_data / "maestro", "--midi-only", "--level", "midi", "--json"),
        cwd=tmp_path,
    )
    assert whole.returncode == 3
    report = json.loads(whole.stdout)
    assert {p["kind"] for p in report["problems"]} == {"missing"}
    assert (len(report["problems"]), report["compared"]) == (1276 - 205, 205 + 1)
