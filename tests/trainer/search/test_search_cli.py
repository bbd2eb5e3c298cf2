"""``xmodal-search``: one document or some lines, errors of one line, kills that leave no trace."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser import parse, words
from click.testing import Result
from makers import smf, track, write_midi
from typer.testing import CliRunner

from pipeline.store import Store
from trainer.cli_search import search_app

DEADLINE_S = 120
PROCESS = "from trainer.cli_search import main; main()"
FLUX = ("--baseline", "flux")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(search_app, [str(a) for a in arguments])


def process(*arguments: object, code: str = PROCESS) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def document(done: Any) -> dict[str, Any]:
    """What was printed with --json, which is one document and nothing else."""
    return json.loads(done.stdout)


@pytest.fixture
def bad(tmp_path: Path) -> dict[str, Path]:
    """Files that cannot be looked for, by the kind of the error."""
    folder = tmp_path / "bad"
    folder.mkdir()
    write_midi(folder / "short.mid", [(0.0, 1.0, 60, 80), (1.0, 3.5, 64, 80)])
    soundfile.write(folder / "silent.wav", np.zeros(24_000 * 6, np.int16), 24_000)
    (folder / "no-notes.mid").write_bytes(smf(track()))
    (folder / "broken.mid").write_bytes(b"MThd\0\0")
    (folder / "broken.wav").write_bytes(b"RIFF, and no more")
    soundfile.write(folder / "short.wav", np.ones(24_000 * 3) * 0.5, 24_000)
    return {p.name: p for p in folder.iterdir()} | {"absent.wav": folder / "absent.wav"}


def told_in_one_line(done: Any, code: int, *said: str) -> None:
    assert done.exit_code == code, done.output
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    for each in said:
        assert each in lines[0]


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("short.mid", "too-short", "lasts 3.50 s; at least 4"),
        ("short.wav", "too-short", "lasts 3.00 s; at least 4"),
        ("silent.wav", "silent", "is silent from beginning to end"),
        ("no-notes.mid", "no-notes", "no notes"),
        ("broken.mid", None, "broken.mid"),
        ("broken.wav", None, "broken.wav"),
        ("absent.wav", None, "absent.wav"),
    ],
)
def test_what_cannot_be_looked_for(
    bad: dict[str, Path], flux_folder: Path, name: str, kind: str | None, said: str
) -> None:
    told_in_one_line(call("query", bad[name], "--index", flux_folder), 3, said, str(bad[name]))
    done = call("query", bad[name], "--index", flux_folder, "--json")
    assert done.exit_code == 3
    error = document(done)["error"]
    assert said in error["message"]
    assert error["kind"] == (kind or error["kind"]) != "usage"


def test_the_index_is_another_models(flux_folder: Path, files: Path) -> None:
    asked = ("query", files / "0.mid", "--index", flux_folder)
    told_in_one_line(call(*asked, "--baseline", "cqt"), 3, "made with flux, not with cqt")
    assert document(call(*asked, "--baseline", "cqt", "--json"))["error"]["kind"] == "other-model"
    assert call(*asked, *FLUX).exit_code == 0


def test_an_index_that_is_not_whole(flux_folder: Path, files: Path, tmp_path: Path) -> None:
    def query(index: Path) -> Result:
        return call("query", files / "0.mid", "--index", index)

    told_in_one_line(query(tmp_path / "none"), 3, "there is no index at", "xmodal-search index")
    copy = shutil.copytree(flux_folder, tmp_path / "copy")
    victim = next(copy.glob("midi-*.npy"))
    victim.write_bytes(victim.read_bytes()[:1000])
    told_in_one_line(query(copy), 3, f"{victim.name} has 1000 bytes", "--overwrite")
    (copy / "index.json").write_bytes((flux_folder / "index.json").read_bytes()[:500])
    told_in_one_line(query(copy), 3, "index.json does not read", "--overwrite")
    (tmp_path / "half/.parts").mkdir(parents=True)
    told_in_one_line(query(tmp_path / "half"), 3, "is half-made; repeat")
    told_in_one_line(query(files), 3, "is not an index")


def test_command_lines_that_mean_nothing(
    flux_folder: Path, files: Path, split_store: Store, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    told_in_one_line(call("index", split_store.path, *out), 2, "--run DIR or --baseline NAME")
    both = ("--run", tmp_path, *FLUX)
    told_in_one_line(call("index", split_store.path, *both, *out), 2, "--run DIR or --baseline")
    none = call("index", split_store.path, "--baseline", "random", *out)
    told_in_one_line(none, 2, "random")
    told_in_one_line(call("index", split_store.path, *FLUX, "--out", files), 2, "is no index")
    told_in_one_line(call("index", tmp_path / "none", *FLUX, *out), 3, "none")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    empty = call("query", tmp_path / "empty", "--index", flux_folder)
    told_in_one_line(empty, 2, "holds no audio or MIDI file")


def test_a_folder_with_unreadable_files_is_looked_for_but_for_them(
    bad: dict[str, Path], flux_folder: Path, files: Path, tmp_path: Path
) -> None:
    folder = bad["short.mid"].parent
    (folder / "deeper").mkdir()
    shutil.copy(files / "2.mid", folder / "deeper/two.MID")
    shutil.copy(files / "4.wav", folder / "four.wav")
    (folder / "notes.txt").write_text("no music")
    (folder / "a-folder.wav").mkdir()
    done = call("query", folder, files / "0.mid", "--index", flux_folder, "--json")
    assert done.exit_code == 3
    found = document(done)
    first = {Path(a["query"]).name: a["matches"][0]["recording"] for a in found["answers"]}
    assert first == {"four.wav": 4, "two.MID": 2, "0.mid": 0}
    wanted = {name for name in bad if name != "absent.wav"}
    assert {Path(f["file"]).name for f in found["failed"]} == wanted
    for failure in found["failed"]:
        assert set(failure) == {"file", "kind", "message"}
        assert f"error: {failure['message']}" in done.stderr.splitlines()
    said = call("query", folder, "--index", flux_folder)
    assert said.exit_code == 3
    assert said.stdout.splitlines()[-1] == (
        f"2 files looked for, 2 found, {len(wanted)} with errors"
    )
    both = call("query", files / "0.mid", files / "0.mid", files / "1.mid", "--index", flux_folder)
    assert both.exit_code == 0
    assert "2 files looked for, 2 found" in both.stdout


def test_pages_of_several_files(flux_folder: Path, files: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    for name in ("1.mid", "2.wav"):
        shutil.copy(files / name, tmp_path / "again" / name)
    out = tmp_path / "pages"
    given = [files / "1.mid", files / "1.wav", tmp_path / "again", files / "3.mid"]
    done = call("query", *given, "--index", flux_folder, "--listen", out)
    assert done.exit_code == 0, done.output
    names = {"1.html", "1.wav.html", "1.mid.html", "2.html", "3.html"}
    assert {p.name for p in out.iterdir()} == names
    for page, title in (("1.html", "1.mid"), ("1.wav.html", "1.wav"), ("3.html", "3.mid")):
        assert f"{title} found: " in words(parse((out / page).read_text()))


def test_the_store_moved_away(
    split_store: Store, tiny_store: Store, files: Path, tmp_path: Path
) -> None:
    here = shutil.copytree(split_store.path, tmp_path / "here")
    made = call("index", here, *FLUX, "--out", tmp_path / "index", "--json")
    assert made.exit_code == 0, made.output
    assert document(made)["rows"] == len(split_store.segments)
    there = here.rename(tmp_path / "there")
    page = tmp_path / "page.html"
    asked = ("query", files / "3.mid", "--index", tmp_path / "index", "--listen", page)
    done = call(*asked, "--json")
    assert done.exit_code == 0, done.output
    assert document(done)["matches"][0]["recording"] == 3
    assert f"warning: the index's store is not at {here}" in done.stderr
    assert "was moved away" in words(parse(page.read_text()))
    back = call(*asked, "--store", there, "--json")
    assert document(back) == document(done)
    assert "warning" not in back.stderr
    shown = parse(page.read_text())
    assert "was moved away" not in words(shown)
    first = [s for s in shown.iter("section") if "side" in (s.get("class") or "").split()][1]
    (player,) = first.iter("audio")
    wav = base64.b64decode((player.get("src") or "").split(",")[1])
    heard = np.frombuffer(wav[44:], "<i2")
    start = round(document(back)["matches"][0]["recording_s"][0] * 24_000)
    begins = int(split_store.segments.audio_start[split_store.segments.recording == 3][0])
    own = split_store.read("audio", begins + start, begins + start + len(heard))
    np.testing.assert_array_equal(heard, own)
    other = call(*asked, "--store", tiny_store.path)
    told_in_one_line(other, 3, "is not the store of the index")


def test_an_index_is_told(split_store: Store, tmp_path: Path) -> None:
    out = tmp_path / "index"
    n = len(split_store.segments)
    for told in (f"{n:,} embedded now, 0 kept", f"0 embedded now, {n:,} kept"):
        done = call("index", split_store.path, *FLUX, "--out", out)
        assert done.exit_code == 0, done.output
        first, *_, last = done.stdout.splitlines()
        assert first == f"{out}: {n:,} segments of 6 recordings, {told}"
        assert last.endswith(f"query FILE --index {out}")
    other = call("index", split_store.path, "--baseline", "chroma", "--out", out)
    told_in_one_line(other, 3, "made with flux, not with chroma", "--overwrite")
    replaced = call("index", split_store.path, "--baseline", "chroma", "--out", out, "--overwrite")
    assert replaced.exit_code == 0


@pytest.mark.full
def test_index_then_query_in_processes(split_store: Store, files: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    made = process("index", split_store.path, *FLUX, "--out", index, "--approximate", "--json")
    assert made.returncode == 0, made.stderr
    told = document(made)
    assert (told["rows"], told["recordings"], told["path"]) == (126, 6, str(index))
    assert {side: b["recall"] >= 0.9 for side, b in told["approximate"].items()} == {
        "audio": True, "midi": True,
    }  # fmt: skip
    for more in ((), ("--exact",)):
        done = process("query", files / "5.wav", "--index", index, "--json", *more)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        found = document(done)
        assert next(iter(found)) == "matches"
        assert done.stdout.startswith('{\n "matches": [')
        assert [m["rank"] for m in found["matches"]][:2] == [1, 2]
        assert (found["matches"][0]["recording"], found["found"]) == (5, True)
        assert len(found["matches"]) <= 5


# ---- kills

SMALL_BLOCKS = "from trainer.search import contents; contents.BLOCK = 20\n" + PROCESS
SLOW = (
    "import time\nfrom trainer.search.embedders import BaselineEmbedder as B\nown = B.segments\n"
    "B.segments = lambda *given: (time.sleep(60), own(*given))[1]\n" + PROCESS
)


def start(store: Store, out: Path, code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, "index", str(store.path), *FLUX, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_lock(process: subprocess.Popen[str], out: Path) -> None:
    """Return once it writes (or has ended)."""
    began = time.monotonic()
    while not (out / ".lock").exists() and process.poll() is None:
        assert time.monotonic() - began < DEADLINE_S
        time.sleep(0.005)


def contents(index: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(index.rglob("*")) if p.is_file()}


@pytest.mark.full
def test_an_index_killed_at_random_moments_ends_with_the_same_bytes(
    split_store: Store, tmp_path: Path
) -> None:
    whole = start(split_store, tmp_path / "whole", SMALL_BLOCKS)
    wait_for_lock(whole, tmp_path / "whole")
    began = time.monotonic()
    assert whole.wait(DEADLINE_S) == 0, whole.communicate()[1]
    horizon, expected = time.monotonic() - began, contents(tmp_path / "whole")
    assert "index.json" in expected
    seed = time.time_ns() % 1_000_000
    print(f"moments drawn with seed {seed}")  # shown when the test fails
    rng, killed, trial = np.random.default_rng(seed), 0, 0
    while killed < 3:
        out, trial = tmp_path / f"trial-{trial}", trial + 1
        for _ in range(2):
            one = start(split_store, out, SMALL_BLOCKS)
            wait_for_lock(one, out)
            time.sleep(rng.uniform(0, horizon))
            one.send_signal(signal.SIGKILL)
            said = one.communicate()
            if one.returncode == -signal.SIGKILL:
                killed += 1
            else:  # it had ended already
                assert one.returncode == 0, said
                horizon *= 0.8
        last = start(split_store, out, SMALL_BLOCKS)
        said = last.communicate(timeout=DEADLINE_S)
        assert last.returncode == 0, said
        assert contents(out) == expected


@pytest.mark.full
def test_an_index_that_is_told_to_stop_says_how_to_go_on(
    split_store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    slow = start(split_store, out, SLOW)
    wait_for_lock(slow, out)
    slow.send_signal(signal.SIGTERM)
    said = slow.communicate(timeout=DEADLINE_S)
    assert slow.returncode == 75, said
    assert said[0] == ""
    assert said[1].splitlines()[-1].startswith("error: stopped by SIGTERM; ")
    done = process("index", split_store.path, *FLUX, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert document(done)["rows"] == 126


def test_a_page_replaces_nothing_but_pages(flux_folder: Path, files: Path, tmp_path: Path) -> None:
    query = shutil.copy(files / "0.mid", tmp_path / "mine.mid")
    index = shutil.copytree(flux_folder, tmp_path / "index")
    before = {p: p.read_bytes() for p in [Path(query), *index.rglob("*")] if p.is_file()}
    asked = ("query", query, "--index", index, "--listen")
    for place in (query, index / "index.json", index / "page.html", tmp_path, tmp_path / "a.txt"):
        told_in_one_line(call(*asked, place), 2, str(place))
    told_in_one_line(call("query", query, query, "--index", index, "--listen", query), 2, "folder")
    assert {p: p.read_bytes() for p in before} == before
    assert not list(tmp_path.glob("*.txt"))
    page = tmp_path / "new/page.html"
    for _ in range(2):  # a page may be written again
        assert call(*asked, page).exit_code == 0
    assert page.stat().st_size > 10_000


def test_an_answer_is_told_before_its_page_fails(
    flux_folder: Path, files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.search.listening.listening_page", full)
    asked = ("query", files / "0.mid", "--index", flux_folder, "--json")
    done = call(*asked, "--listen", tmp_path / "page.html")
    assert done.exit_code == 1
    assert done.stdout.startswith('{\n "matches"')
    assert "No space left" in done.stderr


def test_a_header_that_promises_too_much_takes_no_memory(
    flux_folder: Path, files: Path, tmp_path: Path
) -> None:
    file = tmp_path / "long.wav"
    soundfile.write(file, np.full(8 * 24_000, 0.1), 24_000, subtype="PCM_16", format="RF64")
    raw = bytearray(file.read_bytes())
    place = raw.index(b"ds64") + 8
    for at in (place, place + 8, place + 16):  # sizes of the file and the data, number of frames
        raw[at : at + 8] = (10**13).to_bytes(8, "little")
    file.write_bytes(raw)
    shutil.copy(files / "0.mid", tmp_path / "good.mid")
    done = call("query", tmp_path, "--index", flux_folder, "--json")
    assert done.exit_code == 3
    told = document(done)
    assert [answer["query"] for answer in told["answers"]] == [str(tmp_path / "good.mid")]
    assert [each["file"] for each in told["failed"]] == [str(file)]


def test_names_that_are_no_text_are_told_in_escapes(
    flux_folder: Path, files: Path, tmp_path: Path
) -> None:
    name = bytes(tmp_path) + b"/odd-\xff.mid"
    Path(os.fsdecode(name)).write_bytes((files / "0.mid").read_bytes())
    for encoding in ("utf-8:strict", "ascii:strict"):
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, "query", name, "--index", flux_folder, "--json"],
            capture_output=True, timeout=DEADLINE_S, check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert os.fsencode(json.loads(done.stdout)["query"]) == name


def test_what_is_no_file(flux_folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mid")
    told_in_one_line(
        call("query", tmp_path / "pipe.mid", "--index", flux_folder), 3, "is no regular file"
    )
