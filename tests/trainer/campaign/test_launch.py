"""Campaigns on one machine: order, failures, stops, room; of tasks that train nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from campaign_fakes import planned, sweep_of, write_run

from pipeline.base.config import to_plain
from pipeline.base.console import Console, stop_signals_raise
from pipeline.base.errors import Interrupted, XmodalError
from pipeline.base.files import FolderLock, write_json
from trainer.campaign import launch, tell
from trainer.campaign.launch import Slot, run_campaign, slots
from trainer.campaign.plan import read_plan
from trainer.campaign.state import states

DEADLINE_S = 120

# A task that trains nothing: it does what the next word of its file says, and keeps a diary.
TASK = """
import json, os, shutil, signal, sys, time
from pathlib import Path
here, index = Path(os.environ["FAKE_TASKS"]), int(sys.argv[3])
sweep = json.loads(Path(sys.argv[2]).read_text())
folder = sweep["runs"][index]["folder"]
def note(word):
    with (here / "diary").open("a") as diary:
        diary.write(f"{word} {index}\\n")
note("begins")
with (here / "given").open("a") as given:
    given.write(" ".join(sys.argv[4:]) + "\\n")
acts = here / f"acts-{index}"
act, *left = acts.read_text().split() if acts.exists() else ["done"]
if left:
    acts.write_text(" ".join(left))
print("train: 1/60 loss 1.0", flush=True)
act, _, other = act.partition("@")  # 75@0: not before run 0 has begun
while other and f"begins {other}\\n" not in (here / "diary").read_text():
    time.sleep(0.02)
if act == "done":
    time.sleep(0.1)
    shutil.rmtree(Path(sweep["out"], folder), ignore_errors=True)
    shutil.copytree(here / "trained" / folder, Path(sweep["out"], folder))
elif act == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif act == "sleeps":
    time.sleep(60)
else:
    print(f"error: it ends with {act}")
    print("and a library has the last word")
note("ends")
sys.exit(0 if act == "done" else int(act))
"""
BASE, ARM, FURTHER, ALONE = range(4)


class Fake:
    """A campaign of four runs, of which one starts from the first and one from that, and its tasks."""

    def __init__(self, folder: Path, out: Path) -> None:
        runs = [
            planned(BASE, "d0"),
            planned(ARM, "a4r", after=BASE),
            planned(FURTHER, "d4a4", after=ARM),
            planned(ALONE, "a4"),
        ]
        self.folder, self.out = folder, out
        self.sweep = sweep_of(out, runs)

    def acts(self, run: int, *words: str) -> None:
        (self.folder / f"acts-{run}").write_text(" ".join(words))

    def diary(self) -> list[str]:
        return (self.folder / "diary").read_text().splitlines()

    def statuses(self) -> list[str]:
        return [state.status for state in states(self.sweep)]

    def launch(self, jobs: int = 2) -> None:
        run_campaign(self.sweep, slots("cpu", [], jobs, 1), Console())


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake(tmp_path, tmp_path / "runs")
    for run in made.sweep.runs:
        write_run(tmp_path / "trained", run)
    monkeypatch.setattr(launch, "TASK", TASK)
    monkeypatch.setattr(launch, "LOOK_S", 0.02)
    monkeypatch.setenv("FAKE_TASKS", str(tmp_path))
    return made


def test_a_run_begins_when_the_run_that_it_starts_from_is_done(
    fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    # Begun once, and not waiting by itself: what it starts from was deleted since.
    write_run(fake.out, fake.sweep.runs[ARM], status="interrupted", done=0.5)
    fake.launch()
    diary = fake.diary()
    assert fake.statuses() == ["done"] * 4
    assert sorted(diary[:2]) == ["begins 0", "begins 3"]
    assert [d for d in diary if not d.endswith("3")] == [
        f"{word} {run}" for run in (BASE, ARM, FURTHER) for word in ("begins", "ends")
    ]
    said = capsys.readouterr().err
    assert said.count("120/120") == 1  # the end is told once, and not while something runs
    fake.launch()
    assert fake.diary() == diary


def test_no_more_runs_go_on_at_a_time_than_there_is_room_for(fake: Fake) -> None:
    fake.launch(jobs=1)
    words = [line.split()[0] for line in fake.diary()]
    assert words == ["begins", "ends"] * 4


def test_a_run_that_fails_takes_only_those_that_start_from_it_with_it(fake: Fake) -> None:
    # What it said of an earlier failure is not what it dies of now.
    folder = write_run(fake.out, fake.sweep.runs[BASE], status="failed", done=0.5)
    record = json.loads((folder / "run.json").read_text())
    write_json(folder / "run.json", {**record, "failure": {"message": "as it was long ago"}})
    fake.acts(BASE, "3", "done")
    with pytest.raises(XmodalError) as error:
        fake.launch()
    said = str(error.value)
    assert (error.value.exit_code, error.value.kind) == (1, "runs-failed")
    assert said.startswith("3 of 4 runs failed")
    assert "d0, seed 42: it ends with 3;" in said
    assert "a4r, seed 42: starts from d0, seed 42" in said
    assert "d4a4, seed 42: starts from a4r, seed 42" in said
    assert str(fake.sweep.folder / "logs") in said
    assert "long ago" not in said
    assert fake.statuses() == ["failed", "waiting", "waiting", "done"]
    fake.launch()
    assert fake.statuses() == ["done"] * 4


def test_runs_that_gained_no_step_get_another_try(fake: Fake) -> None:
    folder = fake.sweep.path(fake.sweep.runs[BASE])
    folder.mkdir(parents=True)
    write_json(folder / "attempts.json", {"starts": 3, "idle": 3, "failure": "no step gained"})
    assert fake.statuses()[BASE] == "failed"
    fake.launch()
    assert fake.statuses() == ["done"] * 4


def test_a_killed_run_is_told_as_killed(fake: Fake) -> None:
    fake.acts(ALONE, "killed")
    with pytest.raises(XmodalError, match=r"a4, seed 42: ended by SIGKILL .*out of memory"):
        fake.launch()
    assert fake.statuses() == ["done", "done", "done", "missing"]


def test_what_another_process_is_at_is_looked_at_again(fake: Fake) -> None:
    fake.acts(BASE, "77", "76", "77", "done")
    with FolderLock(fake.out / fake.sweep.runs[ALONE].folder):
        # A launcher waits for what is held: it is stopped when all else is done.
        with pytest.raises(Interrupted), _stopped_when(lambda: fake.statuses()[2] == "done"):
            fake.launch()
        assert "begins 3" not in fake.diary()
    assert fake.diary().count("begins 0") == 4
    fake.launch()
    assert fake.statuses() == ["done"] * 4


@contextlib.contextmanager
def _stopped_when(until: Callable[[], bool]) -> Iterator[None]:
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if until():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    with stop_signals_raise("again"):
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def test_a_run_that_was_stopped_by_hand_stops_the_campaign(fake: Fake) -> None:
    fake.acts(BASE, "sleeps")
    fake.acts(ALONE, "75@0")
    with pytest.raises(Interrupted, match="a run was stopped") as error:
        fake.launch()
    assert error.value.exit_code == 75
    assert "begins 0" in fake.diary()
    assert "ends 0" not in fake.diary()  # the one that sleeps was stopped, too


def test_a_stop_while_a_run_is_begun_reaches_that_run(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        made.append(real(*args, **options))
        os.kill(os.getpid(), signal.SIGTERM)
        return made[-1]

    fake.acts(BASE, "sleeps")
    monkeypatch.setattr(launch.subprocess, "Popen", popen)
    with pytest.raises(Interrupted), stop_signals_raise("again"):
        fake.launch()
    monkeypatch.undo()
    try:
        assert [process.returncode for process in made] == [-signal.SIGTERM]
    finally:
        made[0].kill()


def test_runs_are_those_of_the_plan_that_was_launched(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not of one that was made since; and they lie where the launcher looks, from wherever begun."""
    monkeypatch.chdir(tmp_path)
    relative = sweep_of(Path("runs"), fake.sweep.runs)
    newer = sweep_of(Path("elsewhere"), fake.sweep.runs[::-1])
    write_json(relative.folder / "plan.json", to_plain(newer))
    run_campaign(relative, slots("cpu", [], 2, 1), Console())
    assert fake.statuses() == ["done"] * 4
    (kept,) = (relative.folder / "launched").glob("*.json")
    assert read_plan(kept).out == str(tmp_path / "runs")
    assert read_plan(kept).runs == relative.runs


def test_room_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {None: 1001, "0": 80, "GPU-5": 40}
    monkeypatch.setattr(launch, "free_memory", lambda slot: free[slot.visible])
    cores = len(os.sched_getaffinity(0))
    half = Slot(device="cpu", threads=max(1, cores // 2), memory=500)
    assert slots("cpu", [], 2, None) == [half] * 2
    assert [s.memory for s in slots("cpu", [], 1, None)] == [None]  # all that is free, then
    assert [s.memory for s in slots("cuda", ["0", "GPU-5"], 1, 1)] == [None, None]
    found = slots("cuda", ["0", "GPU-5"], 2, 3)
    assert [s.memory for s in found] == [40, 20] * 2
    assert [s.visible for s in found] == ["0", "GPU-5"] * 2
    assert {(s.device, s.threads) for s in found} == {("cuda", 3)}
    own = found[1].environment()
    assert (own["CUDA_VISIBLE_DEVICES"], own["OMP_NUM_THREADS"]) == ("GPU-5", "3")


def test_what_is_free_is_what_the_device_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1e6 < launch.free_memory(Slot(device="cpu", threads=1)) < 1e15
    # A GPU is asked by another process, with that GPU alone in its sight.
    ask = "import os; print(len(os.environ['CUDA_VISIBLE_DEVICES']) * 1000)"
    monkeypatch.setattr(launch, "FREE", ask)
    assert launch.free_memory(Slot(device="cuda", threads=1, visible="GPU-5")) == 5000
    monkeypatch.setattr(launch, "FREE", "raise RuntimeError('no driver')")
    with pytest.raises(XmodalError, match=r"of the GPU 3 is not known: RuntimeError: no driver"):
        launch.free_memory(Slot(device="cuda", threads=1, visible="3"))


def test_a_task_is_told_its_share(fake: Fake) -> None:
    room = [Slot(device="cpu", threads=1, memory=12345)]
    run_campaign(fake.sweep, room, Console())
    given = (fake.folder / "given").read_text().splitlines()
    assert set(given) == {"--device cpu --threads 1 --memory 12345"}


def test_the_last_line_of_the_progress_is_what_was_done(
    fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(fake.out, fake.sweep.runs[ALONE], status="running", done=0.5)
    shutil.move(folder / "checkpoints/step-00000015", folder / "checkpoints/step-00000010")
    fake.acts(ALONE, "3")
    with pytest.raises(XmodalError, match="1 of 4 runs failed"):
        fake.launch()
    said = capsys.readouterr().err
    assert "120/120" not in said  # three runs of 30 updates, and 10 that are in a checkpoint


def test_of_a_run_that_could_note_nothing_the_log_tells_why_it_stopped(fake: Fake) -> None:
    write_run(fake.out, fake.sweep.runs[ALONE], status="running", done=0.5)
    fake.acts(ALONE, "3")
    with pytest.raises(XmodalError):
        fake.launch()
    found = tell._states(fake.sweep)
    assert [s.status for s in found] == ["done", "done", "done", "stopped"]
    assert [s.note for s in found] == ["", "", "", "it ends with 3"]
