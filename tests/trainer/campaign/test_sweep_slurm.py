"""Campaigns on a real Slurm of one node (`.ci/slurm` starts one): killed, stopped, finished."""

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

from pipeline.store import Store
from trainer.campaign.manifest import read_campaign
from trainer.campaign.plan import PlannedRun, Sweep, plan_campaign
from trainer.campaign.slurm import Options, Submission, cancel, queue_states, submissions, submit
from trainer.campaign.state import State, logged_step, states

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]
CAMPAIGN = """
title = "Four runs, two of which start from the first"
corpus = "tiny"
size = "tiny"
[settings.budget]
epochs = 4
batches_per_epoch = 15
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
arms = ["a4r", "d4a4"]
[[runs]]
name = "alone"
arms = ["film-a4"]
"""
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
BASE, REQUEUED, CANCELLED, KILLED = range(4)
DEADLINE_S = 240
OPTIONS = Options(cpus=1, memory="900M", time="10", device="cpu", threads=1)


@pytest.fixture(scope="module")
def _queue() -> None:
    if not shutil.which("sinfo") or not shutil.which("sbatch"):
        pytest.skip("no Slurm; as root: .ci/slurm")
    found = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False)
    if not found.stdout.strip():
        pytest.skip("no Slurm answers; as root: .ci/slurm")


@pytest.fixture
def campaign(_queue: None, split_store: Store, tmp_path: Path) -> Iterator[Callable[..., Sweep]]:
    """Plan the campaign with its runs in a folder; what it left in the queue goes at the end."""
    made: list[Sweep] = []

    def plan(out: str, text: str = CAMPAIGN) -> Sweep:
        (tmp_path / "four.toml").write_text(text)
        found = read_campaign(str(tmp_path / "four.toml"))
        made.append(plan_campaign(found, split_store.path, tmp_path / out))
        return made[-1]

    yield plan
    for sweep in made:
        cancel(sweep)


def wait(sweep: Sweep, until: Callable[[], bool]) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while not until():
        assert time.monotonic() < give_up, f"{queue_states(sweep)}\n{logs(sweep)}"
        time.sleep(0.05)


def empty(sweep: Sweep) -> bool:
    time.sleep(0.5)
    said: list[str] = []
    return not queue_states(sweep, said.append) and not said


def begun(sweep: Sweep, run: PlannedRun, steps: int = 3) -> Callable[[], bool]:
    return lambda: logged_step(sweep.path(run)) >= steps


def task(sweep: Sweep, index: int) -> str:
    """Job and number of the task that was submitted for a run last."""
    return tasks(sweep, index)[-1]


def tasks(sweep: Sweep, index: int) -> list[str]:
    folder = sweep.runs[index].folder
    return [f"{s.job}_{t}" for s in submissions(sweep) for t, f in s.runs.items() if f == folder]


def runs(sweep: Sweep, made: list[Submission]) -> list[list[int]]:
    """Numbers of the runs of every array."""
    numbers = {run.folder: run.index for run in sweep.runs}
    return [[numbers[folder] for folder in each.runs.values()] for each in made]


def logs(sweep: Sweep, index: int | None = None) -> str:
    folder = sweep.folder / "logs"
    files = folder.glob("*.log")
    if index is not None:
        files = (f for name in tasks(sweep, index) if (f := folder / f"{name}.log").exists())
    return "\n".join(f"{file.name}\n{file.read_text()}" for file in sorted(files))


def slurm(*command: str, patience: float = 60) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def result(sweep: Sweep, run: PlannedRun) -> dict[str, Any]:
    """Everything that must not depend on what happened to its tasks."""
    folder = sweep.path(run)
    scores = {p.name: json.loads(p.read_text()) for p in (folder / "evaluation").glob("*.json")}
    assert len(scores) == 4
    return {
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "model": (folder / "model.safetensors").read_bytes(),
        "scores": {n: {k: v for k, v in s.items() if k != "seconds"} for n, s in scores.items()},
    }


def statuses(found: list[State]) -> list[str]:
    return [state.status for state in found]


def test_a_campaign_survives_all_that_a_queue_does_to_it(
    campaign: Callable[..., Sweep], tmp_path: Path
) -> None:
    """Warned, requeued, cancelled by hand and killed: every run ends once, and with the same bits."""
    sweep = campaign("queue")
    base, requeued, cancelled, killed = sweep.runs
    first = submit(sweep, OPTIONS)
    assert runs(sweep, first) == [[BASE, KILLED], [REQUEUED, CANCELLED]]
    assert first[1].after == f"afterok:{task(sweep, BASE)}"

    # What a time limit does: the warning goes to the program, not to the shell.
    wait(sweep, begun(sweep, base))
    slurm("scancel", "--signal=USR2", task(sweep, BASE))
    # What the system does where memory runs out.
    wait(sweep, begun(sweep, killed))
    os.kill(json.loads((sweep.path(killed) / ".lock").read_text())["pid"], signal.SIGKILL)
    wait(sweep, lambda: "asks to be queued again" in logs(sweep, BASE))
    # What waits for a task that was queued again goes on waiting.
    assert queue_states(sweep)[REQUEUED] == "PENDING (Dependency)"

    # What preemption and a node that fails do: the queue itself starts it again.
    wait(sweep, begun(sweep, requeued))
    slurm("scontrol", "requeue", task(sweep, REQUEUED))
    wait(sweep, begun(sweep, cancelled))
    slurm("scancel", task(sweep, CANCELLED))
    wait(sweep, lambda: empty(sweep))

    assert "exit code 137" in logs(sweep, KILLED)
    assert "asks to be queued again" not in logs(sweep, CANCELLED)
    assert logs(sweep, BASE).count("begins, start") == 2  # one log, appended to
    assert logs(sweep, REQUEUED).count("begins, start") == 2
    assert statuses(states(sweep))[:3] == ["done", "done", "stopped"]

    # Again, and at the same time from two places, from a copy of the store on the node.
    twice = [_elsewhere(sweep, tmp_path) for _ in range(2)]
    for process in twice:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0 or "wait for it, or stop it" in said, said
    assert sorted(i for r in runs(sweep, submissions(sweep)[2:]) for i in r) == [CANCELLED, KILLED]
    wait(sweep, lambda: empty(sweep))
    assert statuses(states(sweep)) == ["done"] * 4, logs(sweep)
    assert (tmp_path / "copies" / sweep.store_name / "store.json").is_file()
    for index in range(4):
        assert len(re.findall(r"task \S+ on \S+: done$", logs(sweep, index), re.M)) == 1
    assert submit(sweep, OPTIONS) == []

    alone = campaign("alone")
    for run in alone.runs:
        _at_home(alone, run)
    for run in sweep.runs:
        assert result(sweep, run) == result(alone, run), run.label


def _elsewhere(sweep: Sweep, disk: Path) -> subprocess.Popen[str]:
    """Submit in a process of its own, with a copy of the store on the node."""
    code = f"""
import sys
from pathlib import Path
from trainer.campaign.plan import read_plan
from trainer.campaign.slurm import Options, submit
submit(read_plan(Path(sys.argv[1])), Options(
    cpus=1, memory="900M", time="10", device="cpu", threads=1,
    setup=("export LOCAL_DISK={disk}",), stage="$LOCAL_DISK/copies",
), print)
"""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(sweep.folder / "plan.json")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _at_home(sweep: Sweep, run: PlannedRun) -> None:
    """The same run, uninterrupted, in a process of its own."""
    program = OPTIONS.programs / "xmodal-sweep"
    command = [program, "task", sweep.folder / "plan.json", run.index, "--device", "cpu"]
    slurm(*map(str, command), "--threads", "1", patience=DEADLINE_S)


PROGRAM = """#!/bin/bash
echo "$3" >> "{0}/begun"
n=$(grep -cx "$3" "{0}/begun")
exit "$(cut -d' ' -f"$n" "{0}/codes.$3")"
"""


def test_exit_codes_of_tasks_are_what_slurm_acts_on(
    campaign: Callable[..., Sweep], tmp_path: Path
) -> None:
    """A program that exits as it is told stands for the real one."""
    own = tmp_path / "bin"
    own.mkdir()
    (own / "xmodal-sweep").write_text(PROGRAM.format(tmp_path))
    (own / "xmodal-sweep").chmod(0o755)
    held = "77 " * 6  # once more than one start waits for
    codes = {BASE: f"3 {held}0", REQUEUED: "77 77 0", CANCELLED: "76", KILLED: "75 75 75"}
    for index, text in codes.items():
        (tmp_path / f"codes.{index}").write_text(text)
    options = Options(cpus=1, memory="100M", time="5", requeues=1, busy_s=4, programs=own)
    sweep = campaign("fake")
    submit(sweep, options)
    wait(sweep, lambda: empty(sweep))
    begun = (tmp_path / "begun").read_text().split()
    # The base failed: what waits for it is gone from the queue, and was never begun.
    assert sorted(begun) == [str(BASE), str(KILLED), str(KILLED)]
    assert "was queued again 1 times already" in logs(sweep, KILLED)

    submit(sweep, options)
    wait(sweep, lambda: empty(sweep))
    begun = (tmp_path / "begun").read_text().split()
    # Held by another, it waited in its place, then in the queue, and what starts from it with it.
    assert begun.count(str(BASE)) == 1 + 7
    assert "another process is at this run; asks to be queued again" in logs(sweep, BASE)
    last = len(begun) - begun[::-1].index(str(BASE))
    assert set(begun[last:]) >= {str(REQUEUED), str(CANCELLED)}
    assert not {str(REQUEUED), str(CANCELLED)} & set(begun[:last])
    assert begun.count(str(REQUEUED)) == 3
    assert begun.count(str(CANCELLED)) == 5  # looked again, in case it was seen late
    assert "is not finished" in logs(sweep, CANCELLED)


def test_a_campaign_that_is_cancelled_leaves_the_queue(campaign: Callable[..., Sweep]) -> None:
    sweep = campaign("cancelled")
    submit(sweep, OPTIONS)
    wait(sweep, begun(sweep, sweep.runs[BASE], 1))
    assert len(cancel(sweep)) == 2
    wait(sweep, lambda: empty(sweep))
    assert "asks to be queued again" not in logs(sweep)
    assert statuses(states(sweep))[:3] == ["stopped", "waiting", "waiting"]
    steps = [int(p.name.partition("-")[2]) for p in sweep.path(sweep.runs[BASE]).glob("*/step-*")]
    assert steps  # a checkpoint was left


def test_what_slurm_cannot_give_is_refused_with_its_own_words(
    campaign: Callable[..., Sweep],
) -> None:
    sweep = campaign("refused")
    with pytest.raises(Exception, match=r"the scheduler refuses: .*\.sbatch"):
        submit(sweep, Options(partition="nowhere", cpus=1, memory="100M"))
    assert submissions(sweep) == []


TRAIN = ("--arm", "a4r", "--size", "tiny", "--epochs", "4", "--batches-per-epoch", "15",
         "--batch-size", "4", "--pool-size", "8")  # fmt: skip


@pytest.mark.usefixtures("_queue")
@pytest.mark.parametrize(
    ("example", "processes"), [("train-one-gpu", 1), ("train-four-gpus", 2), ("sweep", 1)]
)
def test_examples_go_on_when_they_were_warned(
    example: str, processes: int, split_store: Store, tmp_path: Path
) -> None:
    """On CPUs; two processes of one training for the four."""
    (tmp_path / "four.toml").write_text(CAMPAIGN)
    own = {"STORE": str(split_store.path), "DEVICE": "cpu", "STAGE": str(tmp_path / "copies"),
           "CAMPAIGN": "four.toml", "OUT": "runs", "TMPDIR": str(tmp_path),
           "PATH": f"{OPTIONS.programs}:{os.environ['PATH']}"}  # fmt: skip
    flags = [
        "--gres=none",
        "--time=10",
        "--mem=900M",
        "--cpus-per-task=1",
        f"--ntasks-per-node={processes}",
    ]
    arguments = ["--threads", "1"] if example == "sweep" else [*TRAIN, "--out", "runs"]
    done = subprocess.run(
        ["sbatch", "--parsable", *flags, EXAMPLES / f"{example}.sbatch", *arguments],
        env={**os.environ, **own}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    job, give_up = done.stdout.strip(), time.monotonic() + DEADLINE_S
    try:
        warned = False
        while slurm("squeue", "--noheader", "--jobs", job, "--format=%T").strip():
            assert time.monotonic() < give_up, said(tmp_path)
            if not warned and any(logged_step(p) >= 3 for p in (tmp_path / "runs").glob("*-*")):
                slurm("scancel", "--signal=USR2", job)
                warned = True
            time.sleep(0.1)
    finally:
        subprocess.run(["scancel", job], check=False)
    runs = [json.loads(p.read_text()) for p in (tmp_path / "runs").glob("*-*/run.json")]
    assert len(runs) == (4 if example == "sweep" else 1), said(tmp_path)
    assert {run["status"] for run in runs} == {"trained"}, said(tmp_path)
    assert {run["processes"] for run in runs} == {processes}
    assert max(run["attempts"] for run in runs) == 2
    assert len(list(tmp_path.glob("xmodal-*.log"))) == 1  # one log, appended to


def said(folder: Path) -> str:
    return "\n".join(file.read_text() for file in folder.glob("*.log"))
