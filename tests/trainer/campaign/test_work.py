"""One run of a campaign: trained once, scored once, refused where it must be, stopped anywhere."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from campaign_fakes import planned, sweep_of, write_run

from pipeline.base.console import stop_signals_raise
from pipeline.base.errors import ConfigError, Interrupted, RunError
from pipeline.base.files import FolderLock, read_json, write_json
from pipeline.store import Store
from trainer.campaign import work
from trainer.campaign.manifest import read_campaign
from trainer.campaign.plan import plan_campaign
from trainer.campaign.state import forget_idle, saved_step, states
from trainer.campaign.sweep import PlannedRun, Sweep
from trainer.campaign.work import Busy, Waits, do_run

CAMPAIGN = """
title = "Two runs, one from the other"
corpus = "tiny"
preset = "sound"
size = "tiny"
[settings.budget]
epochs = 2
batches_per_epoch = 4
batch_size = 4
[settings.evaluation]
pool_size = 8
first = 1
[[runs]]
name = "base"
arms = ["d0"]
[[runs]]
name = "arms"
from = "base"
arms = ["a4r"]
seeds = [7]
settings = { evaluation = { pool_seed = "training" } }
"""
STEPS = 8
# The arm's own pools for the paper protocol are of another seed than those of all.
SCORED = {"paper-validation", "paper-test", "strict-validation", "strict-test"}
COMMON = {"paper-validation-seed42", "paper-test-seed42"}
Make = Callable[[str], Sweep]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Others may be at work on the same cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make(split_store: Store, tmp_path: Path) -> Make:
    return lambda name: _planned(split_store, tmp_path / name)


def _planned(store: Store, out: Path) -> Sweep:
    out.mkdir()
    (out / "two.toml").write_text(CAMPAIGN)
    return plan_campaign(read_campaign(str(out / "two.toml")), store.path, out)


def result(sweep: Sweep, run: PlannedRun) -> dict[str, Any]:
    """Everything that must not depend on what happened to it."""
    folder = sweep.path(run)
    scores = {p.stem: json.loads(p.read_text()) for p in (folder / "evaluation").glob("*.json")}
    return {
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "model": (folder / "model.safetensors").read_bytes(),
        "scores": {n: {k: v for k, v in s.items() if k != "seconds"} for n, s in scores.items()},
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Told(list[dict[str, Any]]):
    """What was reported; a signal comes at the first event that is like this."""

    def __init__(self, *, stop_at: dict[str, Any] | None = None) -> None:
        self.stop_at = stop_at

    def __call__(self, event: dict[str, Any]) -> None:
        self.append(event)
        if self.stop_at and self.stop_at.items() <= event.items():
            os.kill(os.getpid(), signal.SIGTERM)

    def steps(self) -> list[int]:
        return [event["step"] for event in self if event["event"] == "step"]


# --- refused before anything is trained


def test_a_run_waits_until_the_one_that_it_starts_from_is_finished(make: Make) -> None:
    sweep = make("waits")
    base, arm = sweep.runs
    for status in (None, "running", "interrupted", "failed"):
        if status is not None:
            shutil.rmtree(sweep.path(base), ignore_errors=True)
            write_run(Path(sweep.out), base, status=status, done=0.5)
        with pytest.raises(Waits, match="which is not finished") as error:
            do_run(sweep, arm, device="cpu")
        assert error.value.exit_code == 76
        assert str(sweep.path(base)) in str(error.value)
    assert not sweep.path(arm).exists()


def test_a_folder_that_another_process_holds_is_left_to_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make("busy")
    base = sweep.runs[0]
    with FolderLock(sweep.path(base)):
        before = contents(sweep.path(base))
        with pytest.raises(Busy) as error:
            do_run(sweep, base, device="cpu")
        assert error.value.exit_code == 77
        assert contents(sweep.path(base)) == before
        # Taken between the look and the start.
        monkeypatch.setattr(FolderLock, "is_held", lambda self: False)
        with pytest.raises(Busy, match=f"by process {os.getpid()}") as error:
            do_run(sweep, base, device="cpu")
        assert error.value.exit_code == 77
        assert not (sweep.path(base) / "run.json").exists()
        # It was no start of ours; what the other one has noted meanwhile is not touched.
        assert not (sweep.path(base) / "attempts.json").exists()
        theirs = {"starts": 2, "step": 0, "idle": 1}
        write_json(sweep.path(base) / "attempts.json", theirs)
        with pytest.raises(Busy):
            do_run(sweep, base, device="cpu")
        assert read_json(sweep.path(base) / "attempts.json") == theirs


@pytest.mark.parametrize("change", ["config", "signature"])
def test_a_plan_that_code_or_store_do_not_give_any_more_is_refused(make: Make, change: str) -> None:
    sweep = make("other")
    base = sweep.runs[0]
    other = {"config": {**base.config, "seed": 43}, "signature": "0" * 12}[change]
    with pytest.raises(RunError, match="plan it again") as error:
        do_run(sweep, dataclasses.replace(base, **{change: other}), device="cpu")
    assert error.value.kind == "plan"
    assert base.label in str(error.value)
    assert not list(Path(sweep.out).glob("d0-*"))


def test_a_run_that_gains_no_step_is_not_begun_for_ever(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make("idle")
    base = sweep.runs[0]
    begun: list[int] = []

    def dies(plan: Any, score: object, report: object, begins: Callable[[], None]) -> None:
        begins()
        begun.append(saved_step(plan.folder))
        raise MemoryError

    def again() -> None:
        with pytest.raises(MemoryError):
            do_run(sweep, base, device="cpu")

    monkeypatch.setattr(work, "train", dies)
    again()
    again()
    (sweep.path(base) / "checkpoints/step-00000004").mkdir(parents=True)  # it gained steps
    again()
    again()
    again()
    assert begun == [0, 0, 4, 4, 4]
    attempts = sweep.path(base) / "attempts.json"
    for _ in range(2):
        with pytest.raises(
            RunError, match="3 starts in a row gained no step after step 4"
        ) as error:
            do_run(sweep, base, device="cpu")
        assert error.value.kind == "idle"
        assert "begins to count anew" in str(error.value)
    assert len(begun) == 5
    assert states(sweep)[0].note == str(error.value)
    forget_idle(sweep.path(base))
    again()
    died = {"failure": "MemoryError"}  # no record of the run tells it
    assert read_json(attempts) == {"starts": 6, "step": 4, "idle": 0, **died}
    assert states(sweep)[0].note == "MemoryError"


def test_why_a_start_ended_is_told_until_the_next_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make("told")
    base = sweep.runs[0]

    def refuses(*_: object) -> int:
        raise ConfigError("this run needs 90 GB")

    monkeypatch.setattr("trainer.training._room", refuses)
    with pytest.raises(ConfigError):
        do_run(sweep, base, device="cpu")
    assert (states(sweep)[0].status, states(sweep)[0].note) == ("failed", "this run needs 90 GB")
    # Another process has it by now: what it keeps there is its own.
    attempts = sweep.path(base) / "attempts.json"
    theirs = {"starts": 2, "step": 0, "idle": 0}
    lock = FolderLock(sweep.path(base))

    def taken(*_: object) -> None:
        lock.__enter__()
        write_json(attempts, theirs)
        raise ConfigError("this run needs 90 GB")

    monkeypatch.setattr(work, "train", taken)
    try:
        with pytest.raises(ConfigError):
            do_run(sweep, base, device="cpu")
        assert read_json(attempts) == theirs
    finally:
        lock.__exit__()


def test_memory_that_others_use_is_not_a_runs_own(make: Make) -> None:
    sweep = make("share")
    with pytest.raises(
        ConfigError, match=r"0\.0 GB are its share of what is free; use fewer --jobs"
    ):
        do_run(sweep, sweep.runs[0], device="cpu", memory=1_000_000)
    assert not (sweep.path(sweep.runs[0]) / "run.json").exists()


def test_a_run_is_under_way_until_it_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(tmp_path, [planned(0, "d0")])
    (run,) = sweep.runs
    folder = write_run(tmp_path, run, splits=())
    plan = SimpleNamespace(folder=folder, signature=run.signature, store=None, config=None)
    found: list[str] = []
    monkeypatch.setattr(work, "_request", lambda *_: None)
    monkeypatch.setattr(work, "plan_run", lambda _: plan)
    monkeypatch.setattr(work.scoring, "selection_score", lambda *_: None)
    monkeypatch.setattr(work, "train", lambda *_: SimpleNamespace(path=folder))
    monkeypatch.setattr(work, "score_all", lambda *_: found.append(states(sweep)[0].status))
    do_run(sweep, run)
    assert found == ["running"]
    assert states(sweep)[0].status == "stopped"
    assert "still to be scored" in states(sweep)[0].note


# --- trained


@pytest.fixture(scope="module")
def whole(split_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Both runs, of which nothing was interrupted."""
    sweep = _planned(split_store, tmp_path_factory.mktemp("work") / "whole")
    for run in sweep.runs:
        told = Told()
        do_run(sweep, run, device="cpu", report=told)
        assert told.steps() == list(range(1, STEPS + 1))
    return sweep


@pytest.fixture
def begun(whole: Sweep, make: Make) -> Sweep:
    """The campaign in a folder of its own, in which the first run is done."""
    sweep = make("begun")
    shutil.copytree(whole.path(whole.runs[0]), sweep.path(sweep.runs[0]))
    return sweep


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_run_is_scored_by_both_protocols_on_both_splits_and_repeated_it_is_found(
    whole: Sweep,
) -> None:
    base, arm = whole.runs
    found = [set(result(whole, run)["scores"]) for run in whole.runs]
    assert found == [SCORED, SCORED | COMMON]
    assert result(whole, arm)["scores"]["paper-test-seed42"]["seed"] == 42
    assert result(whole, arm)["scores"]["paper-test"]["seed"] == 7
    assert read_json(whole.path(arm) / "run.json")["init"] == str(whole.path(base))
    assert [s.status for s in states(whole)] == ["done", "done"]
    for run in whole.runs:
        kept = read_json(whole.path(run) / "attempts.json")
        steps = read_json(whole.path(run) / "run.json")["performance"]["seconds"]
        assert (kept["starts"], kept["seconds"] > steps) == (1, True)  # scoring is in it
        before, told = contents(whole.path(run)), Told()
        assert do_run(whole, run, device="cpu", report=told).signature == run.signature
        assert contents(whole.path(run)) == before
        assert [event["event"] for event in told] == ["finished"]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_run_on_a_copy_of_the_store_names_the_campaigns_own(
    whole: Sweep, begun: Sweep, split_store: Store, tmp_path: Path
) -> None:
    copy = shutil.copytree(split_store.path, tmp_path / "node" / split_store.path.name)
    arm = begun.runs[1]
    do_run(begun, arm, store=copy, device="cpu")
    shutil.rmtree(copy)
    record = (begun.path(arm) / "run.json").read_text()
    assert json.loads(record)["store"] == {"path": begun.store, "name": begun.store_name}
    assert str(tmp_path / "node") not in record
    assert result(begun, arm) == result(whole, whole.runs[1])
    do_run(begun, arm, device="cpu")  # scored on the copy is scored


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_stop_in_training_or_scoring_costs_nothing(whole: Sweep, begun: Sweep) -> None:
    arm = begun.runs[1]
    for stop_at, steps, status in (
        ({"event": "step", "step": 3}, [1, 2, 3], "interrupted"),
        ({"event": "scoring", "split": "validation"}, [4, 5, 6, 7, 8], "trained"),
        ({"event": "scoring", "split": "test"}, [], "trained"),
    ):
        told = Told(stop_at=stop_at)
        with pytest.raises(Interrupted) as error, stop_signals_raise("repeat"):
            do_run(begun, arm, device="cpu", report=told)
        assert error.value.exit_code == 75
        assert told.steps() == steps
        assert read_json(begun.path(arm) / "run.json")["status"] == status
        assert states(begun)[1].status == "stopped"
        assert not FolderLock(begun.path(arm)).is_held()
    scored = contents(begun.path(arm) / "evaluation")
    assert {Path(name).stem for name in scored} >= {"paper-validation", "strict-validation"}
    do_run(begun, arm, device="cpu")
    assert contents(begun.path(arm) / "evaluation").items() >= scored.items()
    assert result(begun, arm) == result(whole, whole.runs[1])
    assert read_json(begun.path(arm) / "run.json")["attempts"] == 2
    # How long it takes was not seen: no start did all of it.
    assert "seconds" not in read_json(begun.path(arm) / "attempts.json")


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Sets the size that files may grow to; a disk that is full says nearly the same."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_full_disk_ends_a_run_that_goes_on_when_there_is_room(
    whole: Sweep, begun: Sweep, small_files: Callable[[int], None]
) -> None:
    arm = begun.runs[1]
    small_files(1 << 20)
    with pytest.raises(OSError, match=r"too large|cannot write") as error:
        do_run(begun, arm, device="cpu")
    assert begun.path(arm).name in str(error.value.filename)
    assert states(begun)[1].status == "failed"
    assert "too large" in states(begun)[1].note.lower()
    small_files(resource.RLIM_INFINITY)
    do_run(begun, arm, device="cpu")
    assert result(begun, arm) == result(whole, whole.runs[1])
