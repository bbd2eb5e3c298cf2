"""Campaigns on one machine: order, failures, stops; and real ones, whose processes are killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from campaign_fakes import planned, sweep_of, write_run

from pipeline.base.config import to_plain
from pipeline.base.console import Console, stop_signals_raise
from pipeline.base.errors import Interrupted, XmodalError
from pipeline.base.files import FolderLock, write_json
from pipeline.store import Store
from trainer.campaign import launch
from trainer.campaign.launch import Slot, run_campaign, slots
from trainer.campaign.manifest import read_campaign
from trainer.campaign.plan import PlannedRun, Sweep, plan_campaign, read_plan
from trainer.campaign.state import logged_step, saved_step, states
from trainer.campaign.work import do_run

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
acts = here / f"acts-{index}"
act, *left = acts.read_text().split() if acts.exists() else ["done"]
if left:
    acts.write_text(" ".join(left))
print("train: 1/60 loss 1.0", flush=True)
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
    fake.acts(ALONE, "75")
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


def test_room_is_shared_out() -> None:
    cores = len(os.sched_getaffinity(0))
    assert slots("cpu", [], 2, None) == [Slot(device="cpu", threads=max(1, cores // 2))] * 2
    found = slots("cuda", ["0", "GPU-5"], 2, 3)
    assert [s.visible for s in found] == ["0", "GPU-5"] * 2
    assert {(s.device, s.threads) for s in found} == {("cuda", 3)}
    own = found[1].environment()
    assert (own["CUDA_VISIBLE_DEVICES"], own["OMP_NUM_THREADS"]) == ("GPU-5", "3")


# --- real ones

CAMPAIGN = """
title = "Three runs, one of which starts from the first"
corpus = "tiny"
preset = "sound"
size = "tiny"
[settings.budget]
epochs = 4
batches_per_epoch = 8
batch_size = 4
[settings.evaluation]
pool_size = 8
first = 1
[[runs]]
name = "base"
arms = ["d0"]
[[runs]]
name = "arm"
from = "base"
arms = ["d4"]
[[runs]]
name = "alone"
arms = ["a4"]
"""
STEPS, EPOCH = 32, 8


class Real:
    """A campaign on a store, and its launchers."""

    def __init__(self, store: Path, folder: Path) -> None:
        self.folder, self.store = folder, store
        self.file, self.out = folder / "three.toml", folder / "runs"
        self.file.write_text(CAMPAIGN)
        self.sweep = plan_campaign(read_campaign(str(self.file)), store, self.out)
        self.base, self.arm, self.alone = self.sweep.runs
        self.launched: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [Path(sys.executable).parent / "xmodal-sweep", *(words or ("run",)), self.file]
        flags = ["--store", self.store, "--out", self.out, "--json"]
        own = [] if words else ["--jobs", 2, "--threads", 1, "--device", "cpu"]
        process = subprocess.Popen(
            [*map(str, [*command, *flags, *own])],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.launched.append(process)
        return process

    def wait(self, process: subprocess.Popen[bytes], until: Callable[[], bool]) -> None:
        give_up = time.monotonic() + DEADLINE_S
        while not until():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up, self.logs()
            time.sleep(0.02)

    def reached(self, step: int, *runs: PlannedRun) -> Callable[[], bool]:
        """Whether they are trained so far, by processes that live."""

        def reached() -> bool:
            folders = [self.sweep.path(run) for run in runs]
            return all(FolderLock(f).is_held() and logged_step(f) >= step for f in folders)

        return reached

    def pid(self, run: PlannedRun) -> int:
        return int(json.loads((self.sweep.path(run) / ".lock").read_text())["pid"])

    def end(self, process: subprocess.Popen[bytes], code: int) -> Any:
        """Its answer; it must be one JSON document, and the exit code must be this."""
        said, told = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == code, (told.decode(), self.logs())
        return json.loads(said)

    def logs(self) -> str:
        files = sorted((self.sweep.folder / "logs").glob("*.log"))
        return "\n".join(f"{file.name}\n{file.read_text()}" for file in files)

    def results(self) -> list[dict[str, Any]]:
        return [result(self.sweep, run) for run in self.sweep.runs]

    def attempts(self) -> list[int]:
        records = [self.sweep.path(run) / "run.json" for run in self.sweep.runs]
        return [json.loads(file.read_text())["attempts"] for file in records]


def result(sweep: Sweep, run: PlannedRun) -> dict[str, Any]:
    """Everything that must not depend on what happened to its processes."""
    folder = sweep.path(run)
    scores = {p.name: json.loads(p.read_text()) for p in (folder / "evaluation").glob("*.json")}
    assert len(scores) == 4
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    return {
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "model": (folder / "model.safetensors").read_bytes(),
        "scores": {n: {k: v for k, v in s.items() if k != "seconds"} for n, s in scores.items()},
    }


@pytest.fixture(scope="module")
def whole(split_store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What every run comes to when nothing happens to it."""
    real = Real(split_store.path, tmp_path_factory.mktemp("whole"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for run in real.sweep.runs:
            do_run(real.sweep, run, device="cpu")
    finally:
        torch.set_num_threads(before)
    return real.results()


@pytest.fixture
def real(split_store: Store, tmp_path: Path) -> Iterator[Real]:
    """A campaign on a copy of the store; no process of it outlives the test."""
    made = Real(shutil.copytree(split_store.path, tmp_path / split_store.path.name), tmp_path)
    yield made
    for process in made.launched:
        if process.poll() is None:
            process.kill()
        process.wait()
    for run in made.sweep.runs:
        if FolderLock(made.sweep.path(run)).is_held():
            os.kill(made.pid(run), signal.SIGKILL)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_stops_and_kills_of_launchers_lose_nothing_and_train_nothing_twice(
    real: Real, whole: list[dict[str, Any]]
) -> None:
    base, alone = real.base, real.alone
    for step, everybody in ((2, False), (EPOCH + 2, True)):
        launcher = real.start()
        real.wait(launcher, real.reached(step, base, alone))
        pids = [real.pid(run) for run in (base, alone)]
        # A queue's stop, and a Ctrl-C, which a terminal sends to a whole process group.
        if everybody:
            os.killpg(launcher.pid, signal.SIGINT)
        else:
            launcher.send_signal(signal.SIGTERM)
        assert real.end(launcher, 75)["error"]["kind"] == "interrupted"
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        found = states(real.sweep)
        assert [s.status for s in found] == ["stopped", "waiting", "stopped"]
        for run, state in ((base, found[0]), (alone, found[2])):
            assert saved_step(real.sweep.path(run)) == state.step >= step

    launcher = real.start()
    real.wait(launcher, real.reached(2 * EPOCH + 2, base, alone))
    launcher.kill()
    launcher.wait()
    pids = [real.pid(run) for run in (base, alone)]  # they go on
    two = [real.start(), real.start()]
    for process in two:
        assert real.end(process, 0)["counts"] == {"done": 3}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert real.attempts() == [3, 1, 3]
    assert real.results() == whole


@pytest.mark.full
@pytest.mark.timeout(600)
def test_what_fails_is_told_and_done_by_the_same_command(
    real: Real, whole: list[dict[str, Any]]
) -> None:
    base, sweep = real.base, real.sweep
    in_the_way = sweep.path(base) / "checkpoints"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    said = real.end(real.start(), 1)["error"]
    assert said["kind"] == "runs-failed"
    assert str(in_the_way) in said["message"]
    assert f"d4, seed 42: starts from {base.label}" in said["message"]
    assert f"logs are in {sweep.folder / 'logs'}" in said["message"]
    assert states(sweep)[2].status == "done"
    assert not sweep.path(real.arm).exists()
    in_the_way.unlink()

    # What the system does where memory runs out.
    launcher = real.start()
    real.wait(launcher, real.reached(EPOCH + 2, base))
    os.kill(real.pid(base), signal.SIGKILL)
    assert f"{base.label}: ended by SIGKILL" in real.end(launcher, 1)["error"]["message"]
    assert saved_step(sweep.path(base)) == EPOCH

    # The store goes while it is trained.
    launcher = real.start()
    real.wait(launcher, real.reached(EPOCH + 2, base))
    away = real.store.rename(real.folder / "away")
    assert str(real.store) in real.end(launcher, 1)["error"]["message"]
    assert states(sweep)[0].status == "failed"
    away.rename(real.store)
    assert real.end(real.start(), 0)["counts"] == {"done": 3}
    assert real.results() == whole

    shutil.rmtree(real.store)
    assert str(real.store) in real.end(real.start(), 3)["error"]["message"]
    assert real.end(real.start("status"), 0)["counts"] == {"done": 3}
    assert real.attempts() == [4, 1, 1]
