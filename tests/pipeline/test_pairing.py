"""A corpus table from a folder of files: pairs, durations, splits; what build says to it."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import soundfile
from makers import Quiet, build_quietly, corpus_of, features, make_audio, make_notes, write_midi

from pipeline.base.errors import CorpusError, UsageError
from pipeline.pairing import find_pairs, make_csv, split_by_work


def record(folder: Path, name: str, seconds: float = 6.0, **where: str) -> float:
    """Write audio and MIDI; returns the end of the last note."""
    notes = make_notes(seconds, len(name))
    audio = folder / where.get("audio", "") / f"{name}{where.get('suffix', '.wav')}"
    audio.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(audio, make_audio(notes, seconds, 24_000, 1, 0), 24_000)
    write_midi(folder / where.get("midi", "") / f"{name}.mid", notes)
    return max(end for _, end, _, _ in notes)


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def make(folder: Path, out: Path | None = None) -> dict[str, Any]:
    return make_csv(folder, out, Quiet())


def paths(*names: str) -> list[PurePosixPath]:
    return [PurePosixPath(name) for name in names]


PAIRS = {
    "one folder": (["a.wav", "a.mid"], [("a.wav", "a.mid")], []),
    "suffixes": (["a.FLAC", "a.MIDI"], [("a.FLAC", "a.MIDI")], []),
    "parallel": (["audio/x/a.wav", "midi/x/a.mid"], [("audio/x/a.wav", "midi/x/a.mid")], []),
    "parallel below": (["x/wav/a.wav", "x/mid/a.mid"], [("x/wav/a.wav", "x/mid/a.mid")], []),
    "midi above": (["audio/a.wav", "a.mid"], [("audio/a.wav", "a.mid")], []),
    "dots": (["a.b.wav", "a.b.mid", "a.mid"], [("a.b.wav", "a.b.mid")], ["a.mid"]),
    "unicode forms": (["e\u0301.wav", "\u00e9.mid"], [("e\u0301.wav", "\u00e9.mid")], []),
    "other folders": (["x/a.wav", "y/a.mid"], [], ["x/a.wav", "y/a.mid"]),
    "other names": (["a.wav", "b.mid", "notes.txt"], [], ["a.wav", "b.mid"]),
    "two claims": (["a.wav", "a.flac", "a.mid"], [], ["a.flac", "a.mid", "a.wav"]),
    "nearest first": (
        ["a.wav", "a.mid", "audio/a.wav", "midi/a.mid"],
        [("a.wav", "a.mid"), ("audio/a.wav", "midi/a.mid")],
        [],
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_who_belongs_to_whom(name: str) -> None:
    files, expected, left = PAIRS[name]
    for order in (files, files[::-1]):
        pairs, unpaired = find_pairs(paths(*order))
        assert [(str(p.audio), str(p.midi)) for p in pairs] == expected
        assert unpaired == left


def test_a_table_that_build_accepts(tmp_path: Path) -> None:
    folder = tmp_path / "my recordings"
    end = record(folder, "Chopin - Nocturne op 9 no 2")
    record(folder, "Chopin - Nocturne op 9 no 2 (take 2)", suffix=".flac")
    record(folder, "BWV_846", audio="2018/Bach/audio", midi="2018/Bach/midi")
    record(folder, "K 545", audio="Mozart", midi="Mozart")
    (folder / "alone.wav").write_bytes(b"")
    (folder / ".hidden.wav").write_bytes(b"")
    made = make(folder)
    table = folder / "pairs.csv"
    assert (made["table"], made["recordings"]) == (str(table), 4)
    assert (made["unpaired"], made["unusable"], made["review"]) == (["alone.wav"], [], [])
    found = {Path(r["audio_filename"]).stem: r for r in rows(table)}
    nocturne = found["Chopin - Nocturne op 9 no 2"]
    assert nocturne["canonical_composer"] == "Chopin"
    assert float(nocturne["duration"]) == pytest.approx(end, abs=1e-3)
    assert found["BWV_846"]["year"] == "2018"
    assert found["BWV_846"]["midi_filename"] == "2018/Bach/midi/BWV_846.mid"
    take = found["Chopin - Nocturne op 9 no 2 (take 2)"]
    assert (take["composition"], take["split"]) == (nocturne["composition"], nocturne["split"])
    assert {r["split"] for r in found.values()} == {"train", "validation", "test"}
    store = build_quietly(corpus_of(table), tmp_path / "features", descriptors=("D4",)).store
    assert store.record["status"] == "complete"
    assert len(store.recordings.split) == 4


def test_the_same_folder_gives_the_same_table(tmp_path: Path) -> None:
    for name in ("b", "a", "c", "d"):
        record(tmp_path / "x", name)
    shutil.copytree(tmp_path / "x", tmp_path / "y")
    make(tmp_path / "x")
    make(tmp_path / "y")
    assert (tmp_path / "x/pairs.csv").read_bytes() == (tmp_path / "y/pairs.csv").read_bytes()


def test_what_cannot_be_used_is_left_out_and_said(tmp_path: Path) -> None:
    for name in ("good", "bad midi", "bad audio", "no notes"):
        record(tmp_path, name)
    (tmp_path / "bad midi.mid").write_bytes(b"MThd")
    (tmp_path / "bad audio.wav").write_bytes(b"RIFF")
    write_midi(tmp_path / "no notes.mid", [])
    made = make(tmp_path)
    assert [r["audio_filename"] for r in rows(tmp_path / "pairs.csv")] == ["good.wav"]
    assert {(u["file"], u["kind"]) for u in made["unusable"]} == {
        ("bad midi.wav", "unreadable"),
        ("bad audio.wav", "unreadable"),
        ("no notes.wav", "no-notes"),
    }


def test_the_audio_bounds_the_duration_and_the_reader_is_told(tmp_path: Path) -> None:
    record(tmp_path, "long notes", seconds=9.0)
    soundfile.write(tmp_path / "long notes.wav", np.zeros(24_000 * 5), 24_000)
    record(tmp_path, "short", seconds=3.0)
    made = make(tmp_path)
    by_name = {r["audio_filename"]: float(r["duration"]) for r in rows(tmp_path / "pairs.csv")}
    assert by_name["long notes.wav"] == 5.0
    remarks = {r["file"]: r["remark"] for r in made["review"]}
    assert "belong together" in remarks["long notes.wav"]
    assert "less than one segment" in remarks["short.wav"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    record(tmp_path, "a")
    (tmp_path / "pairs.csv").write_text("mine")
    with pytest.raises(UsageError, match="not overwritten"):
        make(tmp_path)
    assert (tmp_path / "pairs.csv").read_text() == "mine"
    made = make(tmp_path, tmp_path / "elsewhere" / "t.csv")
    assert made["root"] == str(tmp_path)
    assert rows(tmp_path / "elsewhere" / "t.csv")[0]["audio_filename"] == "a.wav"


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a\x1bb"])
def test_names_that_a_table_cannot_hold(name: str, tmp_path: Path) -> None:
    record(tmp_path, "a")
    (tmp_path / f"{name}.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match="rename") as caught:
        make(tmp_path)
    assert str(caught.value).isprintable()


def test_no_folder_and_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        make(tmp_path / "none")
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match="1 files without a partner"):
        make(tmp_path)
    assert not (tmp_path / "pairs.csv").exists()


def test_splits_are_about_80_10_10_and_stay(tmp_path: Path) -> None:
    works = {f"composer-op{i}" for i in range(2000)}
    found = split_by_work(works)
    share = {split: n / len(works) for split, n in Counter(found.values()).items()}
    assert share["train"] == pytest.approx(0.8, abs=0.03)
    assert share["validation"] == pytest.approx(0.1, abs=0.02)
    assert share["test"] == pytest.approx(0.1, abs=0.02)
    fewer = {w for w in works if not w.endswith("7")}
    assert split_by_work(fewer) == {w: found[w] for w in fewer}


@pytest.mark.parametrize("seed", range(30))
def test_no_split_is_empty_where_it_need_not_be(seed: int) -> None:
    for count in (1, 2, 3, 4, 7):
        found = split_by_work({f"{seed}-{i}" for i in range(count)})
        assert len(found) == count
        if count >= 3:
            assert set(found.values()) == {"train", "validation", "test"}


def test_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "in here"
    for name in ("a", "b", "c"):
        record(folder, name)
    (folder / "d.mid").write_bytes(b"")
    found = features("make-csv", folder, "--out", tmp_path / "t.csv")
    assert found.returncode == 0, found.stderr
    assert "without a partner: d.mid" in found.stdout
    assert f"--root '{folder}'" in found.stdout
    again = features("make-csv", folder, "--out", tmp_path / "t.csv", "--json")
    assert (again.returncode, json.loads(again.stdout)["error"]["kind"]) == (2, "usage")
