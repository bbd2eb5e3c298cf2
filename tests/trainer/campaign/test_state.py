"""Where runs stand, as their folders say, and what is left to compute."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from campaign_fakes import planned, sweep_of, write_run

from pipeline.base.files import FolderLock, read_json, write_json
from trainer.campaign import state as module
from trainer.campaign.cost import left_to_do
from trainer.campaign.state import State, forget_idle, logged_step, run_state, saved_step, states
from trainer.campaign.sweep import OWN_SCORES, Sweep
from trainer.records import file_name, scores_due

UPDATES = 30


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """d0, and a4r that starts from it; nothing is begun."""
    return sweep_of(tmp_path, [planned(0, "d0"), planned(1, "a4r", after=0)])


def begin(sweep: Sweep, index: int = 0, **over: Any) -> Path:
    return write_run(Path(sweep.out), sweep.runs[index], **over)


def change(folder: Path, **over: Any) -> None:
    write_json(folder / "run.json", read_json(folder / "run.json") | over)


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_nothing_is_begun(sweep: Sweep) -> None:
    first, second = states(sweep)
    assert first == State(status="missing", step=0)
    start = sweep.runs[0]
    assert second == State(status="waiting", step=0, note=f"for {start.folder}: {start.label}")
    assert run_state(sweep, sweep.runs[1]) == second


def test_a_finished_run_is_done_and_what_waited_for_it_is_missing(sweep: Sweep) -> None:
    folder = begin(sweep)
    change(folder, best={"S": 0.625, "step": 20}, performance={"segments_per_s": 64.0})
    first, second = states(sweep)
    assert first == State(status="done", step=UPDATES, seconds_a_step=0.25, S=0.625)
    assert second == run_state(sweep, sweep.runs[1]) == State(status="missing", step=0)


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_a_process_is_at_is_running(sweep: Sweep, status: str) -> None:
    folder = begin(sweep, status=status, done=0.5)
    with FolderLock(folder):
        assert states(sweep)[0] == State(status="running", step=15)
    assert states(sweep)[0].status != "running"


def test_a_run_that_begins_is_running(sweep: Sweep) -> None:
    with FolderLock(sweep.path(sweep.runs[0])):
        assert states(sweep)[0] == State(status="running", step=0, note="begins")


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_a_run_that_nobody_is_at_is_stopped(sweep: Sweep, status: str) -> None:
    begin(sweep, status=status, done=0.5)
    first, second = states(sweep)
    assert first == State(status="stopped", step=15)
    assert (second.status, second.note.partition(":")[0]) == (
        "waiting", f"for {sweep.runs[0].folder}",
    )  # fmt: skip


def test_a_run_of_which_only_a_checkpoint_is_left_is_stopped(sweep: Sweep) -> None:
    folder = begin(sweep, status="running", done=0.0)
    (folder / "metrics.jsonl").unlink()
    assert saved_step(folder) == 0
    for name in ("step-00000010", "step-00000020", ".step-00000030.7.tmp", "step-x"):
        (folder / "checkpoints" / name).mkdir(parents=True)
    assert states(sweep)[0] == State(status="stopped", step=20)
    assert saved_step(folder) == 20


def test_steps_after_the_last_checkpoint_are_to_be_made_again(sweep: Sweep) -> None:
    folder = begin(sweep, status="running", done=0.5)
    (folder / "checkpoints" / "step-00000015").rename(folder / "checkpoints" / "step-00000010")
    with FolderLock(folder):
        assert states(sweep)[0].step == logged_step(folder) == 15
    assert states(sweep)[0] == State(status="stopped", step=10)
    assert left_to_do(sweep, states(sweep)).updates == 20 + UPDATES
    (folder / "checkpoints" / "step-00000010").rmdir()
    assert left_to_do(sweep, states(sweep)).updates == 2 * UPDATES


@pytest.mark.parametrize("left", ["paper-test", "strict-test", "paper-validation"])
def test_a_trained_run_that_is_not_scored_is_stopped(sweep: Sweep, left: str) -> None:
    folder = begin(sweep)
    (folder / "evaluation" / f"{left}.json").unlink()
    first, second = states(sweep)
    assert (first.status, first.step, first.S) == ("stopped", UPDATES, 0.5)
    assert first.note == f"trained; still to be scored: {left}"
    assert second.status == "waiting"


def test_a_run_whose_scoring_failed_tells_why(sweep: Sweep) -> None:
    write_json(begin(sweep, splits=()) / "attempts.json", {"failure": "No space left on device"})
    state = states(sweep)[0]
    assert state.status == "stopped"
    assert state.note.endswith("strict-test; No space left on device")


def test_a_run_that_was_never_scored_names_all_that_is_left(sweep: Sweep) -> None:
    begin(sweep, splits=())
    scores = "paper-validation, strict-validation, paper-test, strict-test"
    assert states(sweep)[0].note == f"trained; still to be scored: {scores}"


def test_a_run_of_another_seed_is_scored_on_the_common_pools_too(sweep: Sweep) -> None:
    due = tuple(file_name(*asked) for asked in scores_due(7))
    assert set(due) - {"paper-validation", "strict-validation", "paper-test", "strict-test"} == {
        "paper-validation-seed42", "paper-test-seed42",
    }  # fmt: skip
    assert tuple(file_name(*asked) for asked in scores_due(42)) == OWN_SCORES
    run = dataclasses.replace(sweep.runs[0], scores=due)
    sweep = dataclasses.replace(sweep, runs=(run, *sweep.runs[1:]))
    begin(sweep)
    left = "paper-validation-seed42, paper-test-seed42"
    assert states(sweep)[0].note == f"trained; still to be scored: {left}"


def test_somebody_who_asks_gets_another_try(sweep: Sweep) -> None:
    folder = begin(sweep, status="interrupted", done=0.5)
    write_json(folder / "attempts.json", {"starts": 5, "idle": 3, "step": 2, "failure": "no gain"})
    assert states(sweep)[0].status == "failed"
    forget_idle(folder)
    assert states(sweep)[0].status == "stopped"
    assert read_json(folder / "attempts.json") == {"starts": 5}
    forget_idle(folder.parent / "none")
    assert not (folder.parent / "none").exists()


def test_a_run_that_failed_tells_why(sweep: Sweep) -> None:
    folder = begin(sweep, status="failed", done=0.5)
    assert states(sweep)[0].note == "for a reason that it does not tell"
    change(folder, failure={"kind": "training", "message": "the loss is nan"})
    first, second = states(sweep)
    assert first == State(status="failed", step=15, note="the loss is nan")
    assert second.status == "waiting"


def test_a_run_that_gains_no_step_has_failed(sweep: Sweep) -> None:
    folder = begin(sweep, status="running", done=0.5)
    write_json(folder / "attempts.json", {"starts": 2, "step": 10, "idle": 1})
    assert states(sweep)[0].status == "stopped"
    write_json(folder / "attempts.json", {"failure": "3 starts gained no step"})
    assert states(sweep)[0] == State(status="failed", step=15, note="3 starts gained no step")
    write_json(folder / "attempts.json", {"starts": 2, "failure": "No space left on device (f)"})
    assert states(sweep)[0].note == "No space left on device (f)"
    write_json(folder / "attempts.json", {"failure": "3 starts gained no step"})
    (folder / "run.json").unlink()  # they died before they could write it
    assert states(sweep)[0] == State(status="failed", step=0, note="3 starts gained no step")
    (folder / "attempts.json").write_text("{", encoding="utf-8")
    assert states(sweep)[0].status == "missing"


def test_a_finished_run_has_not_failed_by_what_was_before(sweep: Sweep) -> None:
    write_json(begin(sweep) / "attempts.json", {"failure": "3 starts gained no step"})
    assert states(sweep)[0].status == "done"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b"null", b"[1]", b'"trained"'])
def test_a_damaged_record_is_told_and_stops_no_other(sweep: Sweep, content: bytes) -> None:
    (begin(sweep) / "run.json").write_bytes(content)
    begin(sweep, 1)
    first, second = states(sweep)
    assert first.status == "failed"
    assert "run.json does not read" in first.note
    assert "train it again with --overwrite" in first.note
    assert second.status == "done"


def test_an_empty_folder_is_no_run(sweep: Sweep) -> None:
    sweep.path(sweep.runs[0]).mkdir()
    assert states(sweep)[0] == State(status="missing", step=0)


@pytest.mark.parametrize("begun", [True, False])
def test_the_lock_of_a_dead_process_holds_nothing(sweep: Sweep, begun: bool) -> None:
    folder = sweep.path(sweep.runs[0])
    folder.mkdir()
    if begun:
        folder.rmdir()
        begin(sweep, status="running", done=0.5)
    here = {"host": socket.gethostname(), "process_started": "1"}
    for pid in (dead_pid(), os.getpid()):  # the second: a number that is used again
        (folder / ".lock").write_text(json.dumps({**here, "pid": pid}), encoding="utf-8")
        assert states(sweep)[0].status == ("stopped" if begun else "missing")


def test_a_half_written_line_of_a_log_is_passed_over(sweep: Sweep) -> None:
    folder = begin(sweep, status="running", done=0.5)
    log = folder / "metrics.jsonl"
    whole = log.read_bytes()
    for end in (b'{"step": 16, "epo', b'{"step": 16', b"\x00" * 30, b"{}\n[]\n", b'{"step": null}'):
        log.write_bytes(whole + end)
        assert logged_step(folder) == 15
    log.write_bytes(b'{"st')
    assert logged_step(folder) == 0


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log, garbage = tmp_path / "metrics.jsonl", b"\xff\x00 no line\n" * 1000
    log.write_bytes(b'{"step": 7}\n' + garbage)
    assert logged_step(tmp_path) == 0  # it is there, before the end
    log.write_bytes(garbage + b'{"step": 8}\n')
    assert logged_step(tmp_path) == 8


def test_every_folder_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [planned(i, "d0", seed=i, after=i - 1 if i else None) for i in range(12)]
    sweep = sweep_of(tmp_path, runs)
    for run in runs[:6]:
        write_run(tmp_path, run)
    seen: list[Path] = []
    real = module.run_record

    def counted(folder: Path) -> dict[str, Any] | None:
        seen.append(folder)
        return real(folder)

    monkeypatch.setattr(module, "run_record", counted)
    found = [state.status for state in states(sweep)]
    assert found == ["done"] * 6 + ["missing"] + ["waiting"] * 5
    assert seen == [sweep.path(run) for run in runs]
