"""Campaigns on a real Slurm of one node (`.ci/slurm` starts one): killed, stopped, finished."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_queue import queue, require_slurm, set_node

from pipeline.store import Store
from trainer.campaign.ledger import build_ledger
from trainer.campaign.manifest import read_campaign
from trainer.campaign.plan import plan_campaign
from trainer.campaign.slurm import Options, Submission, cancel, queue_states, submissions, submit
from trainer.campaign.state import State, logged_step, states
from trainer.campaign.sweep import PlannedRun, Sweep

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]
CAMPAIGN = """
title = "Four runs, two of which start from the first"
corpus = "tiny"
size = "tiny"
[settings.budget]
epochs = 3
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
TWO = CAMPAIGN[: CAMPAIGN.rindex("[[runs]]")].replace('"a4r", "d4a4"', '"a4r"')
# One of the four, in a campaign of its own: it is the same run, in the same folder.
LIMITED = CAMPAIGN.partition('[[runs]]\nname = "base"')[0] + CAMPAIGN[CAMPAIGN.rindex("[[runs]]") :]
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
PREEMPTED, KILLED, CANCELLED, ALONE = range(4)
USR2 = 1 << (signal.SIGUSR2 - 1)
DEADLINE_S = 240
OPTIONS = Options(cpus=1, memory="900M", time="10", device="cpu", threads=1)


@pytest.fixture
def _queue(request: pytest.FixtureRequest) -> Iterator[None]:
    require_slurm()
    with queue(alone="alone_with_it" in request.fixturenames):
        yield


@pytest.fixture
def alone_with_it() -> None:
    """Asked for by a test that takes the node down."""


@pytest.fixture
def campaign(_queue: None, split_store: Store, tmp_path: Path) -> Iterator[Callable[..., Sweep]]:
    """Plan the campaign with its runs in a folder; what it left in the queue goes at the end."""
    made: list[Sweep] = []

    def plan(out: str, text: str = CAMPAIGN, name: str = "four") -> Sweep:
        (tmp_path / f"{name}.toml").write_text(text)
        found = read_campaign(str(tmp_path / f"{name}.toml"))
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


def held_until_warned(sweep: Sweep, run: PlannedRun) -> threading.Thread:
    """Hold a run still until its limit is near: however fast it is, its training passes the limit.

    What ends it is Slurm's own warning, which is kept for it meanwhile.
    """
    pid = int(json.loads((sweep.path(run) / ".lock").read_text())["pid"])
    os.kill(pid, signal.SIGSTOP)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while not _pending(pid) & USR2:
                time.sleep(0.1)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def _pending(pid: int) -> int:
    """Signals that a process was sent and has not seen."""
    found = re.search(r"^ShdPnd:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1], 16) if found else 0


def test_a_campaign_survives_all_that_a_queue_does_to_it(
    campaign: Callable[..., Sweep], tmp_path: Path
) -> None:
    """Stopped by its time limit, preempted, killed, cancelled by hand; and again: every run ends once,
    and the ledger is that of a campaign that nothing happened to."""
    alone = campaign("alone")
    at_home = _at_home(alone, tmp_path / "four.toml")
    limited = campaign("queue", LIMITED, "limited")
    submit(limited, dataclasses.replace(OPTIONS, time="1", warn_s=10))
    sweep = campaign("queue")
    preempted, killed, cancelled, last = sweep.runs
    assert last.folder == limited.runs[0].folder
    first = submit(sweep, OPTIONS)
    assert runs(sweep, first) == [[PREEMPTED], [KILLED, CANCELLED]]  # the last is queued already
    assert first[1].after == f"afterok:{task(sweep, PREEMPTED)}"

    wait(limited, begun(limited, last))
    held = held_until_warned(limited, last)
    wait(sweep, begun(sweep, preempted))
    slurm("scontrol", "requeue", task(sweep, PREEMPTED))
    # What waits for a task that was queued again goes on waiting.
    wait(sweep, lambda: queue_states(sweep).get(PREEMPTED, "").startswith("PENDING"))
    assert queue_states(sweep)[KILLED] == "PENDING (Dependency)"
    # What the system does where memory runs out.
    wait(sweep, begun(sweep, killed))
    os.kill(json.loads((sweep.path(killed) / ".lock").read_text())["pid"], signal.SIGKILL)
    wait(sweep, begun(sweep, cancelled))
    slurm("scancel", task(sweep, CANCELLED))
    wait(sweep, lambda: not {KILLED, CANCELLED} & queue_states(sweep).keys())

    assert "exit code 137" in logs(sweep, KILLED)
    assert "asks to be queued again" not in logs(sweep, CANCELLED)
    assert logs(sweep, PREEMPTED).count("begins, start") == 2  # one log, appended to
    assert statuses(states(sweep))[:3] == ["done", "stopped", "stopped"]

    # Again, and at the same time from two places, from a copy of the store on the node.
    twice = [_elsewhere(sweep, tmp_path) for _ in range(2)]
    for process in twice:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0 or "wait for it, or stop it" in said, said
    again = submissions(sweep)[2:]
    assert sorted(i for r in runs(sweep, again) for i in r) == [KILLED, CANCELLED]
    wait(sweep, lambda: empty(sweep))
    held.join()
    assert statuses(states(sweep)) == ["done"] * 4, logs(sweep) + logs(limited)
    assert (tmp_path / "copies" / sweep.store_name / "store.json").is_file()
    of_limit = logs(limited, 0)
    assert of_limit.count("begins, start") >= 2
    assert "stopped by SIGUSR2" in of_limit
    for text in (*(logs(sweep, index) for index in (PREEMPTED, KILLED, CANCELLED)), of_limit):
        assert len(re.findall(r"task \S+ on \S+: done$", text, re.M)) == 1
    assert submit(sweep, OPTIONS) == []

    told, _ = at_home.communicate(timeout=DEADLINE_S)
    assert at_home.returncode == 0, told
    for run in sweep.runs:
        assert result(sweep, run) == result(alone, run), run.label
    assert ledger_of(sweep) == ledger_of(alone)


def ledger_of(sweep: Sweep) -> dict[tuple[str, str], float]:
    """Run and evaluation → S; all that were planned, and nothing else, are in the ledger."""
    table, problems = build_ledger(Path(sweep.out))
    rows = table.to_pylist()
    assert problems == []
    wanted = {(run.folder, name) for run in sweep.runs for name in run.scores}
    assert sorted((row["run"], row["evaluation"]) for row in rows) == sorted(wanted)
    assert {(row["status"], row["current"]) for row in rows} == {("trained", True)}
    return {(row["run"], row["evaluation"]): row["S"] for row in rows}


@pytest.mark.usefixtures("alone_with_it")
def test_a_node_that_fails_costs_the_steps_since_a_checkpoint(
    campaign: Callable[..., Sweep],
) -> None:
    """Alone with the queue: everything that runs on the node is ended, and queued again."""
    sweep = campaign("failed", LIMITED, "limited")
    (run,) = sweep.runs
    submit(sweep, OPTIONS)
    wait(sweep, begun(sweep, run, 16))  # a checkpoint was made after 15
    try:
        assert set_node("down").returncode == 0
        wait(sweep, lambda: queue_states(sweep).get(0, "").startswith("PENDING"))
    finally:
        set_node("resume")  # it may be back by itself
    wait(sweep, lambda: empty(sweep))
    assert statuses(states(sweep)) == ["done"], logs(sweep)
    assert logs(sweep, 0).count("begins, start") == 2
    assert "going on after step" in logs(sweep, 0)
    ledger_of(sweep)


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


def _at_home(sweep: Sweep, manifest: Path) -> subprocess.Popen[str]:
    """The whole campaign, uninterrupted, as a user of one machine does it."""
    command = [
        *(OPTIONS.programs / "xmodal-sweep", "run", manifest, "--store", sweep.store),
        *("--out", sweep.out, "--device", "cpu", "--threads", "1"),
    ]
    return subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


PROGRAM = """#!/bin/bash
echo "$3" >> "{0}/begun"
n=$(grep -cx "$3" "{0}/begun")
exit "$(cut -d' ' -f"$n" "{0}/codes.$3")"
"""


BASE, HELD, LATE, STOPPED = range(4)


def test_exit_codes_of_tasks_are_what_slurm_acts_on(
    campaign: Callable[..., Sweep], tmp_path: Path
) -> None:
    """A program that exits as it is told stands for the real one."""
    own = tmp_path / "bin"
    own.mkdir()
    (own / "xmodal-sweep").write_text(PROGRAM.format(tmp_path))
    (own / "xmodal-sweep").chmod(0o755)
    held = "77 " * 6  # once more than one start waits for
    codes = {BASE: f"3 {held}0", HELD: "77 77 0", LATE: "76", STOPPED: "75 75 75"}
    for index, text in codes.items():
        (tmp_path / f"codes.{index}").write_text(text)
    options = Options(cpus=1, memory="100M", time="5", requeues=1, busy_s=4, programs=own)
    sweep = campaign("fake")
    submit(sweep, options)
    wait(sweep, lambda: empty(sweep))
    begun = (tmp_path / "begun").read_text().split()
    # The base failed: what waits for it is gone from the queue, and was never begun.
    assert sorted(begun) == [str(BASE), str(STOPPED), str(STOPPED)]
    assert "was queued again 1 times already" in logs(sweep, STOPPED)

    submit(sweep, options)
    wait(sweep, lambda: empty(sweep))
    begun = (tmp_path / "begun").read_text().split()
    # Held by another, it waited in its place, then in the queue, and what starts from it with it.
    assert begun.count(str(BASE)) == 1 + 7
    assert "another process is at this run; asks to be queued again" in logs(sweep, BASE)
    last = len(begun) - begun[::-1].index(str(BASE))
    assert set(begun[last:]) >= {str(HELD), str(LATE)}
    assert not {str(HELD), str(LATE)} & set(begun[:last])
    assert begun.count(str(HELD)) == 3
    assert begun.count(str(LATE)) == 5  # looked again, in case it was seen late
    assert "is not finished" in logs(sweep, LATE)


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


TRAIN = ("--arm", "a4r", "--size", "tiny", "--epochs", "3", "--batches-per-epoch", "15",
         "--batch-size", "4", "--pool-size", "8")  # fmt: skip


@pytest.mark.usefixtures("_queue")
@pytest.mark.parametrize(
    ("example", "processes"), [("train-one-gpu", 1), ("train-four-gpus", 2), ("sweep", 1)]
)
def test_examples_go_on_when_they_were_warned(
    example: str, processes: int, split_store: Store, tmp_path: Path
) -> None:
    """On CPUs; two processes of one training for the four."""
    (tmp_path / "two.toml").write_text(TWO)
    own = {"STORE": str(split_store.path), "DEVICE": "cpu", "STAGE": str(tmp_path / "copies"),
           "CAMPAIGN": "two.toml", "OUT": "runs", "TMPDIR": str(tmp_path),
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
    assert len(runs) == (2 if example == "sweep" else 1), said(tmp_path)
    assert {run["status"] for run in runs} == {"trained"}, said(tmp_path)
    assert {run["processes"] for run in runs} == {processes}
    assert max(run["attempts"] for run in runs) == 2
    assert len(list(tmp_path.glob("xmodal-*.log"))) == 1  # one log, appended to


def said(folder: Path) -> str:
    return "\n".join(file.read_text() for file in folder.glob("*.log"))
