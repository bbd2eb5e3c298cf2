"""Campaigns on one machine: processes are stopped and killed, the store goes, the disk fills up."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.base.files import FolderLock
from pipeline.store import Store
from trainer.campaign.manifest import read_campaign
from trainer.campaign.plan import plan_campaign
from trainer.campaign.state import logged_step, saved_step, states
from trainer.campaign.sweep import PlannedRun, Sweep
from trainer.campaign.work import do_run

DEADLINE_S = 120
CAMPAIGN = """
title = "Three runs, one of which starts from the first"
corpus = "tiny"
preset = "sound"
size = "tiny"
[settings.budget]
epochs = 4
batches_per_epoch = 24
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
STEPS, EPOCH = 96, 24


class Real:
    """A campaign on a store, and its launchers."""

    def __init__(self, store: Path, folder: Path, out: Path | None = None) -> None:
        self.folder, self.store = folder, store
        self.file, self.out = folder / "three.toml", out or folder / "runs"
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
        """Whether they are trained so far, by processes that live.

        Who is there first is held until the others are: one may be much faster than another.
        """
        held: dict[str, int] = {}

        def reached() -> bool:
            for run in runs:
                folder = self.sweep.path(run)
                there = FolderLock(folder).is_held() and logged_step(folder) >= step
                if there and run.label not in held:
                    held[run.label] = self.pid(run)
                    os.kill(held[run.label], signal.SIGSTOP)
            if len(held) < len(runs):
                return False
            for pid in held.values():
                os.kill(pid, signal.SIGCONT)
            return True

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


def as_root(*command: object) -> None:
    """A disk can be mounted by root alone."""
    own = [] if os.getuid() == 0 else ["sudo", "-n"]
    subprocess.run([*own, *map(str, command)], check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk with room for a few checkpoints."""
    disk = tmp_path / "disk"
    disk.mkdir()
    as_root("mount", "-t", "tmpfs", "-o", "size=40m,mode=777", "tmpfs", disk)
    yield disk
    as_root("umount", "--lazy", disk)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_disk_that_fills_up_is_told_and_costs_no_more_than_the_steps_since_a_checkpoint(
    split_store: Store, small_disk: Path, tmp_path: Path, whole: list[dict[str, Any]]
) -> None:
    real = Real(split_store.path, tmp_path, small_disk / "runs")
    launcher = real.start()
    _, told = launcher.communicate(timeout=DEADLINE_S)
    said = told.decode()
    assert launcher.returncode == 1, said
    # The system's word, or, where torch writes and has one of its own, how much is free.
    full = r"No space left on device|cannot write: .*; \d+ MB are free there"
    assert re.search(full, said), said
    answer = real.end(real.start("status"), 0)
    found = [row["state"] for row in answer["runs"]]
    ended = [state for state in found if state["status"] not in ("done", "waiting")]
    assert ended
    assert all(re.search(full, state["note"]) for state in ended), found
    done = 0
    for run, state in zip(real.sweep.runs, found, strict=True):
        saved = saved_step(real.sweep.path(run))
        assert state["step"] == (STEPS if state["status"] == "done" else saved)
        done += state["step"]
    assert answer["left"]["updates"] == 3 * STEPS - done > 0
    last = [line for line in said.splitlines() if line.startswith("three: ")][-1]
    assert f"/{3 * STEPS}" in last
    assert not last.startswith(f"three: {3 * STEPS}/")

    as_root("mount", "-o", "remount,size=400m", small_disk)
    assert real.end(real.start(), 0)["counts"] == {"done": 3}
    assert real.results() == whole
