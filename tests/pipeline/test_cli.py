"""``xmodal-features``: flags, exit codes, one document on stdout, one line per error, fast help."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from makers import FEATURES, features, features_here

from pipeline.cli import app
from pipeline.descriptors import DESCRIPTORS
from pipeline.store import Store

FLAGS = {
    "build": "--corpus --root --audio --soundfont --out --descriptors "
    "--max-segments-per-recording --checksum --workers --cluster --part --max-failures --config "
    "--json --help",
    "add": "--descriptors --workers --cluster --part --json --help",
    "verify": "--json --help",
    "report": "--out --json --help",
    "stage": "--verify --json --help",
    "info": "--json --help",
    "list": "--json --help",
    "check-corpus": "--corpus --root --level --manifest --write-manifest --midi-only --state --json "
    "--help",
    "download": "--out --corpus --midi-only --url --sha256 --json --help",
    "make-csv": "--out --json --help",
    "compositions": "--corpus --root --out --json --help",
}


def test_the_flags_are_pinned() -> None:
    group = typer.main.get_command(app)
    found = {
        name: {flag for p in command.params for flag in p.opts if flag.startswith("--")}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }
    assert found == {name: set(flags.split()) - {"--help"} for name, flags in FLAGS.items()}


HELP = """
import sys
from pipeline.cli import app
try:
    app({args!r}, prog_name="xmodal-features")
except SystemExit as end:
    assert end.code == 0, end.code
heavy = "torch numba librosa scipy zarr pyarrow dask soundfile pretty_midi music21 polars".split()
print([m for m in heavy if m in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("command", [None, *FLAGS])
def test_help_is_light_and_complete(command: str | None) -> None:
    args = [command, "--help"] if command else ["--help"]
    code = HELP.format(args=args)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert found.stderr.strip() == "[]"
    wanted = FLAGS[command].split() if command else list(FLAGS)
    assert all(word in found.stdout for word in wanted)
    if command:
        assert "Example" in found.stdout


def test_build_info_verify_and_add(own_corpus: Path, tiny_store: Store, tmp_path: Path) -> None:
    out = tmp_path / "my features"
    built = features(
        *("build", "--corpus", own_corpus, "--out", out, "--workers", 0),
        *("--descriptors", "D4", "--json"),
    )
    assert built.returncode == 0, built.stderr
    answer = json.loads(built.stdout)
    assert answer["built"] == ["audio", "D4"]
    assert (answer["recordings"], answer["segments"], answer["status"]) == (4, 22, "complete")
    store = Path(answer["store"])
    assert store.name == tiny_store.path.name
    assert "plan: 4 recordings, 22 segments" in built.stderr

    added = features("add", store, "--descriptors", "A4", "--workers", 0, "--json")
    assert json.loads(added.stdout)["built"] == ["A4"]

    again = features(
        "build", "--corpus", own_corpus, "--out", out, "--workers", 0, "--descriptors", "A4"
    )
    assert again.returncode == 0
    assert "already complete, nothing to do" in again.stdout
    assert f"--store '{store}'" in again.stdout  # can be pasted

    info = features_here("info", store, "--json")
    answer = json.loads(info.stdout)
    notes = int(tiny_store.segments.note_count[tiny_store.segments.of_split("train")].sum())
    assert answer["splits"]["train"] == {
        "recordings": 2, "compositions": 2, "segments": 15, "valid": 15, "notes": notes,
        "hours": 0.0058,
    }  # fmt: skip
    assert answer["shared_compositions"] == []
    assert sum(s["notes"] for s in answer["splits"].values()) == answer["notes"]
    assert set(answer["arrays"]) == {"audio", "A4", "D4"}

    assert json.loads(features_here("verify", store, "--json").stdout)["status"] == "complete"
    (store / "notes.parquet").write_bytes(b"x")
    (store / "segments.parquet").unlink()
    broken = features_here("verify", store, "--json")
    assert broken.returncode == 3
    error = json.loads(broken.stdout)["error"]
    assert error["kind"] == "damaged"
    assert [d["file"] for d in error["details"]] == ["notes.parquet", "segments.parquet"]
    assert "hash files: " in broken.stderr


def test_a_report_lies_beside_its_store(own_store: Path, tmp_path: Path) -> None:
    found = features_here("report", ".", "--json", cwd=own_store)
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout)
    page = own_store.parent / f"{own_store.name}.html"
    assert answer["report"] == str(page)
    assert answer["bytes"] == page.stat().st_size
    assert features_here("verify", own_store).returncode == 0  # nothing was written into it
    named = features_here("report", own_store, "--out", tmp_path / "r.html")
    assert named.returncode == 0
    assert str(tmp_path / "r.html") in named.stdout


def test_list_shows_the_registry() -> None:
    found = json.loads(features_here("list", "--json").stdout)
    assert [d["name"] for d in found] == list(DESCRIPTORS.names())
    lines = features_here("list").stdout.splitlines()
    for d, line in zip(found, lines, strict=True):
        assert line.split()[0] == d["name"]
        assert f" {d['bytes_per_segment']} B " in line
        assert f" {d['cost_ms']:g} ms " in line
        assert line.endswith(f"  {d['summary']}; {d['units']}")


ERRORS = {
    "no table": (["build", "--corpus", "none.csv"], 3, "corpus"),
    "unknown corpus": (["build", "--corpus", "maestr0"], 2, "config"),
    "maestro without root": (["build", "--corpus", "maestro"], 3, "corpus"),
    "unknown descriptor": (["build", "--corpus", "CSV", "--descriptors", "A44"], 2, "config"),
    "no descriptor": (["build", "--corpus", "CSV", "--descriptors", ","], 2, None),
    "unknown key in a file": (["build", "--corpus", "CSV", "--config", "BAD"], 2, "config"),
    "no such file of settings": (["build", "--corpus", "CSV", "--config", "no.toml"], 2, "config"),
    "not a store": (["info", "."], 3, "not-a-store"),
    "no store": (["verify", "nowhere"], 3, "missing"),
    "report of nothing": (["report", "nowhere"], 3, "missing"),
    "stage of nothing": (["stage", ".", "elsewhere"], 3, "not-a-store"),
    "out is a file": (["build", "--corpus", "CSV", "--out", "CSV", "--workers", "0"], 1, "system"),
    "cap 0": (["build", "--corpus", "CSV", "--max-segments-per-recording", "0"], 2, None),
    "unknown flag": (["build", "--colour", "red"], 2, None),
    "unknown command": (["make"], 2, None),
    "workers -1": (["build", "--workers", "-1"], 2, None),
}


IN_A_PROCESS = ("no table", "cap 0", "unknown command")  # as a shell sees them


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line_with_their_exit_code(
    name: str, own_corpus: Path, tmp_path: Path
) -> None:
    args, code, kind = ERRORS[name]
    (tmp_path / "bad.toml").write_text("speed = 9\n")
    words = {"CSV": str(own_corpus), "BAD": str(tmp_path / "bad.toml")}
    args = [words.get(a, a) for a in args]
    json_flag = [] if kind is None else ["--json"]
    run = features if name in IN_A_PROCESS else features_here
    found = run(*args, *json_flag, cwd=tmp_path)
    assert found.returncode == code, found.stderr
    assert "Traceback" not in found.stderr
    errors = [line for line in found.stderr.splitlines() if line.lower().startswith("error: ")]
    assert len(errors) == 1
    if kind is None:
        assert found.stdout == ""
    else:
        document = json.loads(found.stdout)["error"]
        assert document["kind"] == kind
        assert errors == [f"error: {document['message']}"]


def test_settings_of_a_file_count_and_flags_win(own_corpus: Path, tmp_path: Path) -> None:
    config = tmp_path / "build.toml"
    config.write_text(
        'workers = 0\nmax_failures = 1\ndescriptors = ["D4"]\n[segmentation]\nmax_per_recording = 2\n'
    )
    (own_corpus.parent / "2008/mono-flac.midi").unlink()
    base = (
        "build",
        "--corpus",
        own_corpus,
        "--out",
        tmp_path / "out",
        "--config",
        config,
        "--json",
    )
    found = features_here(*base)
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout)
    assert (answer["segments"], answer["built"]) == (6, ["audio", "D4"])
    assert (answer["failures"], answer["status"]) == (1, "partial")
    flagged = features_here(*base, "--max-segments-per-recording", "3")
    assert json.loads(flagged.stdout)["segments"] == 9
    refused = features_here(*base, "--max-failures", "0")
    assert refused.returncode == 3
    assert json.loads(refused.stdout)["error"]["kind"] == "failures"


def test_a_root_elsewhere(own_corpus: Path, tiny_store: Store, tmp_path: Path) -> None:
    table = shutil.copy(own_corpus, tmp_path / "tiny.csv")
    found = features_here(
        *("build", "--corpus", table, "--root", own_corpus.parent, "--out", tmp_path / "out"),
        *("--workers", 0, "--descriptors", "D4", "--json"),
    )
    assert Path(json.loads(found.stdout)["store"]).name == tiny_store.path.name


def test_a_log_can_be_read_while_the_build_runs(long_corpus: Path, tmp_path: Path) -> None:
    """As a queue keeps it: a file, and nobody asked Python not to buffer."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    command = [*FEATURES, "build", "--corpus", long_corpus, "--out", tmp_path, "--workers", "0"]
    log, give_up = tmp_path / "log", time.monotonic() + 60
    with log.open("w") as file:
        process = subprocess.Popen(
            [*map(str, command)], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    while "plan: 6 recordings" not in log.read_text():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert process.poll() is None  # it has six minutes of sound to read yet
    process.kill()
    process.wait()


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    """``xmodal-features list | head -1``."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*FEATURES, "list"], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    os.close(reader)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 1
