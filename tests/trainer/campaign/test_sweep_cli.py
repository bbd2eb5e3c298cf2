"""``xmodal-sweep``: what it answers, on which stream, and what it exits with."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from campaign_fakes import write_run
from click.testing import Result
from makers import build_quietly, corpus_of
from typer.testing import CliRunner

from pipeline.base.errors import ConfigError
from pipeline.base.files import FolderLock, read_json
from pipeline.store import Store
from trainer.campaign import tell
from trainer.campaign.manifest import known_campaigns, read_campaign
from trainer.campaign.plan import read_plan
from trainer.campaign.sweep import Sweep
from trainer.cli_sweep import sweep_app

CAMPAIGN = """
title = "Four runs, two of which start from the first"
summary = "What every arm adds."
corpus = "tiny"
size = "tiny"
[settings.budget]
epochs = 4
batches_per_epoch = 15
batch_size = 4
[settings.evaluation]
pool_size = {pool}
first = 1
[[runs]]
name = "base"
arms = ["d0"]
[[runs]]
name = "arms"
from = "base"
arms = ["a4r", "d4a4"]
[[runs]]
name = "alone"
descriptors = ["A4", "A4_level"]
mechanisms = ["xattn"]
"""
ADD = "xmodal-features add {store} --descriptors A4,D4"


class Here:
    """A campaign's file, a store and a folder of runs, and the commands on them."""

    def __init__(self, folder: Path, store: Path, pool: int = 8) -> None:
        self.file, self.store, self.out = folder / "four.toml", store, folder / "runs"
        self.file.write_text(CAMPAIGN.format(pool=pool))

    def call(self, command: str, *flags: object) -> Result:
        where = ("--store", self.store, "--out", self.out)
        return sweep(command, self.file, *where, *flags)

    def plan(self) -> Sweep:
        done = self.call("plan", "--json")
        assert done.exit_code == 0, done.stderr
        return read_plan(Path(json.loads(done.stdout)["plan"]))


def sweep(*words: object) -> Result:
    return CliRunner().invoke(sweep_app, [str(w) for word in words for w in _split(word)])


def _split(word: object) -> list[object]:
    return [*word.split()] if isinstance(word, str) else [word]


def refused(done: Result, code: int, *words: str) -> str:
    """One line on stderr, nothing on stdout, and the exit code."""
    assert done.exit_code == code, (done.output, done.exception)
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1), done.output
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr
    return done.stderr


@pytest.fixture
def here(split_store: Store, tmp_path: Path) -> Here:
    return Here(tmp_path, split_store.path)


@pytest.fixture(scope="module")
def bare(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that lacks what the arms read."""
    folder = tmp_path_factory.mktemp("bare")
    return build_quietly(corpus_of(tiny_corpus), folder, descriptors=("mel",)).store.path


@pytest.fixture
def half(here: Here) -> Here:
    """The campaign half done, on a copy of the store: done, stopped, not begun, failed."""
    here.store = shutil.copytree(here.store, here.file.parent / here.store.name)
    base, stopped, _, failed = here.plan().runs
    write_run(here.out, base)
    write_run(here.out, stopped, status="interrupted", done=0.5)
    record = write_run(here.out, failed, status="failed", done=0.25) / "run.json"
    told = {**read_json(record), "failure": {"kind": "run", "message": "it diverged"}}
    record.write_text(json.dumps(told))
    return here


def test_the_campaigns_that_come_with_it_are_listed() -> None:
    done = sweep("list --json")
    assert done.exit_code == 0
    assert done.stderr == ""
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == list(known_campaigns())
    assert {"screening", "grid", "seeds"} <= {row["name"] for row in rows}
    for row, line in zip(rows, sweep("list").stdout.splitlines(), strict=True):
        assert line.split(maxsplit=1) == [row["name"], row["title"]]
        assert row["corpus"] == read_campaign(row["name"]).corpus


def test_a_plan_tells_every_run_and_what_is_left(here: Here) -> None:
    done = here.call("plan")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    first, *lines = done.stdout.splitlines()
    assert first == f"Four runs, two of which start from the first: 4 runs on {here.store.name}"
    assert lines[0] == "What every arm adds."
    assert "2 missing, 2 waiting of 4" in lines
    assert any(line.startswith("240 updates are left") for line in lines)
    assert "left out because they cannot be: 1" in lines
    assert any(line.startswith("  A4_level xattn: ") for line in lines)
    assert "xmodal-features add" not in done.stdout
    told = json.loads(here.call("plan", "--json").stdout)
    planned = read_plan(Path(told["plan"]))
    assert told["counts"] == {"missing": 2, "waiting": 2}
    assert told["missing_arrays"] == []
    assert [s["what"] for s in told["skipped"]] == ["A4_level xattn"]
    for run, row, line in zip(planned.runs, told["runs"], lines[2:6], strict=True):
        assert line.startswith(f"{run.index:>4}  {run.label} ")
        assert run.folder in line
        assert (row["index"], row["folder"], row["after"]) == (run.index, run.folder, run.after)
    assert [row["state"]["status"] for row in told["runs"]] == [
        "missing", "waiting", "waiting", "missing",
    ]  # fmt: skip
    assert list(here.out.iterdir()) == [here.out / "campaigns"]


def test_arrays_that_the_store_lacks_come_with_the_command_that_adds_them(
    tmp_path: Path, bare: Path
) -> None:
    lacking = Here(tmp_path, bare)
    add = ADD.format(store=bare)
    done = lacking.call("plan")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == f"first: {add}"
    told = json.loads(lacking.call("plan", "--json").stdout)
    assert told["missing_arrays"] == ["A4", "D4"]
    refused(lacking.call("run"), 3, "lacks A4, D4", add)
    error = json.loads(lacking.call("run", "--json").stdout)["error"]
    assert error["kind"] == "no-array"
    assert add in error["message"]
    refused(lacking.call("submit", "--no-preflight"), 3, add)
    assert list(lacking.out.iterdir()) == [lacking.out / "campaigns"]


def test_status_goes_on_from_the_kept_plan_when_the_store_is_gone(half: Here) -> None:
    told = half.call("status")
    assert told.exit_code == 0, told.stderr
    assert told.stderr == ""
    lines = told.stdout.splitlines()
    assert lines[4] == "1 done, 1 stopped, 1 failed, 1 missing of 4"
    assert "S 0.500" in lines[0]
    assert "30/60" in lines[1]
    assert lines[3].endswith("it diverged")
    assert "from 1 finished runs" in lines[5]
    before = json.loads(half.call("status", "--json").stdout)
    assert before["runs"][3]["state"]["note"] == "it diverged"

    shutil.rmtree(half.store)
    again = half.call("status", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout) == before
    (line,) = again.stderr.splitlines()
    assert str(half.store) in line
    assert f"told from the plan that was kept: {Path(before['plan']).parent}" in line
    assert half.call("status").stdout == told.stdout
    for command in ("plan", "run", "preflight", "submit"):
        refused(half.call(command), 3, str(half.store))
    assert half.call("cancel").exit_code == 0


@pytest.mark.parametrize(
    "command", ["plan", "run", "preflight", "submit", "cancel", "status", "report"]
)
def test_an_unknown_campaign_is_one_line_that_names_those_that_there_are(
    command: str, tmp_path: Path
) -> None:
    flags = ("--out", tmp_path)
    refused(sweep(command, "screning", *flags), 2, "no campaign 'screning'", "screening, seeds")
    done = sweep(command, "screning", "--json", *flags)
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"]["kind"] == "config"


def test_a_campaign_without_a_store_names_the_command_that_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(sweep("plan screening --tiny"), 3, "xmodal-features build --corpus demo")


def test_a_task_exits_as_a_queue_acts_on_it(here: Here) -> None:
    planned = here.plan()
    plan = planned.folder / "plan.json"
    flags = ("--device cpu --threads 2",)
    done = sweep("task", plan, 1, *flags)
    assert done.exit_code == 76
    assert done.stdout == ""
    assert "which is not finished" in done.stderr.splitlines()[-1]
    with FolderLock(planned.path(planned.runs[0])):
        assert sweep("task", plan, 0, *flags).exit_code == 77
        done = sweep("task", plan, 0, "--json", *flags)
        assert json.loads(done.stdout)["error"]["kind"] == "locked"
    for index in ("4", "-- -1"):
        refused(sweep("task", *flags, plan, index), 2, "has the runs 0 to 3", index.split()[-1])
    refused(sweep("task", here.file, 0), 2, "is no plan of a campaign")
    refused(sweep("task", here.out / "nowhere.json", 0), 2, "nowhere.json is no plan")


def test_what_a_task_was_planned_on_must_still_be_there(half: Here) -> None:
    planned = half.plan()
    shutil.rmtree(half.store)
    done = sweep("task", planned.folder / "plan.json", 3, "--device cpu --threads 2")
    assert done.exit_code == 3
    assert str(half.store) in done.stderr.splitlines()[-1]
    assert read_json(planned.path(planned.runs[3]) / "run.json")["status"] == "failed"


def test_the_ledger_is_one_table_of_all_runs(half: Here, tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    done = sweep("ledger", "--csv", file, "--json", "--out", half.out)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["files"] == [str(half.out / "ledger.parquet"), str(file)]
    with file.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert (told["runs"], told["rows"], told["problems"]) == (3, len(rows), [])
    assert {row["run"] for row in rows} == {p.parent.name for p in half.out.glob("*/run.json")}
    done = sweep("ledger", "--out", half.out)
    assert done.stdout == f"{half.out / 'ledger.parquet'}: 3 runs, {len(rows)} rows\n"


def test_a_report_has_the_floors_that_are_asked_for(half: Here, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = half.call("report", "--floor flux --json --page", page)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == {"page": str(page)}
    text = page.read_text()
    assert "Four runs, two of which start from the first" in text
    assert "flux" in text
    done = half.call("report", "--floor flux")
    assert done.exit_code == 0
    assert Path(done.stdout.strip()) == half.plan().folder / "report.html"
    done = half.call("report", "--floor fluxx")
    refused(done, 2, "fluxx", "flux")


def test_run_folders_are_listed_and_pruned(half: Here) -> None:
    planned = half.plan()
    saved = planned.path(planned.runs[0]) / "checkpoints/step-00000060/model.safetensors"
    saved.parent.mkdir(parents=True)
    saved.write_bytes(bytes(2_000_000))
    done = sweep("runs list --out", half.out)
    assert done.exit_code == 0
    first, *_, last = done.stdout.splitlines()
    assert first.split()[:2] == [planned.runs[0].folder, "trained"]
    assert planned.folder.name in first
    assert last.startswith("3 runs, ")
    rows = json.loads(sweep("runs list --json --out", half.out).stdout)
    assert [row["checkpoints"] for row in rows] == [2_000_000, 0, 0]

    shown = sweep("runs prune --out", half.out)
    assert shown.exit_code == 0
    assert f"{planned.runs[0].folder}/checkpoints" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "nothing was removed; add --yes to do it"
    told = json.loads(sweep("runs prune --json --out", half.out).stdout)
    assert [(i["kind"], i["size"]) for i in told["prunable"]] == [("checkpoints", 2_000_000)]
    assert saved.exists()
    told = json.loads(sweep("runs prune --yes --json --out", half.out).stdout)
    assert [i["kind"] for i in told["removed"]] == ["checkpoints"]
    assert not saved.parent.parent.exists()
    assert sweep("runs prune --yes --out", half.out).stdout == "0 bytes removed\n"
    refused(sweep("runs list --out", half.out / "nowhere"), 3, "there is no folder")


def test_a_preflight_that_fails_names_what_does(here: Here) -> None:
    here.store = shutil.copytree(here.store, here.file.parent / here.store.name)
    array = next(p for p in sorted((here.store / "arrays.zarr/A4").rglob("*")) if p.is_file())
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)
    done = here.call("preflight", "--device cpu")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[0].startswith("ok  folder of runs: ")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: 1 of 5 checks failed (store: ")
    assert f"{array} does not match its SHA-256" in last
    assert last.endswith("nothing was begun")
    error = json.loads(here.call("preflight", "--device cpu --json").stdout)["error"]
    assert error["kind"] == "preflight"
    assert [c["name"] for c in error["details"]["checks"] if not c["ok"]] == ["store"]
    done = here.call("submit", "--device cpu")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == last
    assert not list(here.out.rglob("submi*"))


def test_pools_that_are_too_large_are_found_before_anything_is_begun(
    split_store: Store, tmp_path: Path
) -> None:
    large = Here(tmp_path, split_store.path, pool=5000)
    done = large.call("preflight", "--device cpu --time 30 --json")
    assert done.exit_code == 1
    checks = json.loads(done.stdout)["error"]["details"]["checks"]
    assert [c["name"] for c in checks if not c["ok"]] == [
        f"a step of {run.label}" for run in large.plan().runs
    ]


def test_without_slurm_nothing_is_submitted(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    done = here.call("submit", "--no-preflight --time 10")
    refused(done, 1, "there is no sbatch here", "xmodal-sweep run")
    planned = here.plan()
    assert not (planned.folder / "submissions.jsonl").exists()
    done = here.call("submit", "--no-preflight --json --time 10")
    assert json.loads(done.stdout)["error"]["kind"] == "queue"
    refused(here.call("submit", "--no-preflight --time soon"), 2, "soon")
    # Nothing was submitted: there is nothing to ask a scheduler for.
    done = here.call("cancel")
    assert (done.exit_code, done.stdout) == (0, "nothing of it is in the queue\n")
    assert json.loads(here.call("cancel", "--json").stdout) == {"cancelled": []}
    # Something was: whether it is still there only a scheduler knows.
    line = {"name": "xmodal-a-b", "runs": {"0": planned.runs[0].folder}, "script": "s", "plan": "p",
            "logs": "l", "at": "2026-01-01T00:00:00Z", "job": 5}  # fmt: skip
    (planned.folder / "submissions.jsonl").write_text(json.dumps(line) + "\n")
    refused(here.call("cancel"), 1, "there is no squeue here")
    done = here.call("status")
    assert done.exit_code == 0
    assert done.stderr.startswith("what waits in the queue is not known: ")
    assert done.stdout.splitlines()[4] == "2 missing, 2 waiting of 4"


@pytest.mark.parametrize(
    ("command", "flags"),
    [("run", "--jobs 0"), ("run", "--device tpu"), ("submit", "--gpus 2"), ("submit", "--cpus 0")],
)
def test_flags_that_cannot_be_are_usage_errors(command: str, flags: str, here: Here) -> None:
    assert here.call(command, flags).exit_code == 2
    assert not list(here.out.glob("*-*"))


@pytest.mark.parametrize(
    ("given", "allotted", "found"),
    [
        (None, None, ["0", "1"]),
        (None, "2,GPU-5", ["2", "GPU-5"]),
        (None, "2, 3,7", ["2", "3"]),
        ("1", "2,3", ["1"]),
        (" 0, 1 ,", None, ["0", "1"]),
    ],
)
def test_gpus_are_those_that_are_named_or_else_allotted(
    given: str | None,
    allotted: str | None,
    found: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("trainer.devices.pick_device", torch.device)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if allotted is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allotted)
    assert tell.devices("cuda", given) == ("cuda", found)
    assert tell.devices("cpu", given) == ("cpu", [])
    with pytest.raises(ConfigError, match="--gpus 1"):
        tell.devices("cuda:1", given)


def test_the_real_program_answers_with_one_document_and_its_exit_code(here: Here) -> None:
    def program(*words: object) -> tuple[int, Any, str]:
        path = Path(sys.executable).parent / "xmodal-sweep"
        command = [path, *words, "--json"]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout), done.stderr

    where = ("--store", here.store, "--out", here.out)
    code, told, said = program("plan", here.file, *where)
    assert (code, said, len(told["runs"])) == (0, "", 4)
    code, told, said = program("task", told["plan"], 9)
    assert (code, told["error"]["kind"]) == (2, "usage")
    assert len(said.splitlines()) == 1
    code, told, said = program("plan", "screning", *where)
    assert (code, told["error"]["kind"]) == (2, "config")
    assert len(said.splitlines()) == 1
