"""What is submitted, when, and what the scripts do: with commands that answer as Slurm's do."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from campaign_fakes import planned, sweep_of, write_run

from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.files import FolderLock, write_json
from trainer.campaign import scheduler, slurm
from trainer.campaign.batch_script import Options, batch_script, minutes
from trainer.campaign.plan import Sweep, read_plan
from trainer.campaign.slurm import QueueError, cancel, queue_states, submissions, submit
from trainer.campaign.state import attempts

SBATCH = """#!/bin/bash
echo "$@" >> "$FAKE/sbatch"
case "$*" in
  *--test-only*)
    cat "$FAKE/words" >&2 2>/dev/null
    exit "$(cat "$FAKE/refuses" 2>/dev/null || echo 0)"
    ;;
esac
n=$(($(cat "$FAKE/jobs" 2>/dev/null || echo 100) + 1))
echo "$n" > "$FAKE/jobs"
script="${@: -1}"
name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
for task in $(sed -n 's/^#SBATCH --array=//p' "$script" | sed 's/%.*//; s/,/ /g'); do
  for i in $(seq "${task%-*}" "${task#*-}"); do
    echo "$n|$i|PENDING|$UID|None|$name" >> "$FAKE/queue"
  done
done
if [ -e "$FAKE/hangs" ]; then exec sleep 60; fi
echo "$n"
"""
SQUEUE = """#!/bin/bash
if [ -e "$FAKE/dead" ]; then echo "squeue: error: Unable to contact slurm controller" >&2; exit 1; fi
if [ -e "$FAKE/silent" ]; then exec sleep 60; fi
echo "$@" >> "$FAKE/squeue"
case "$*" in *--user*) exit 1 ;; esac
if [ -n "$SQUEUE_USERS" ]; then exit 0; fi
echo "7|N/A|PENDING|$UID|None|somebody's own"
cat "$FAKE/queue" 2>/dev/null || true
"""
LIMIT = """#!/bin/bash
cat "$FAKE/limits" 2>/dev/null || echo "MaxArraySize            = 10000"
"""
SCANCEL = """#!/bin/bash
echo "$@" >> "$FAKE/scancel"
"""


class Queue:
    """A scheduler that keeps what it is told in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs(folder / "bin", sbatch=SBATCH, squeue=SQUEUE, scancel=SCANCEL, scontrol=LIMIT)
        programs(folder / "own", **{"xmodal-sweep": "#!/bin/bash\n"})
        self.options = Options(programs=folder / "own")

    def calls(self, command: str = "sbatch") -> list[str]:
        file = self.folder / command
        return file.read_text().splitlines() if file.exists() else []

    def submitted(self) -> list[str]:
        return [call for call in self.calls() if "--test-only" not in call]

    def set(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def holds(self) -> list[tuple[str, int]]:
        lines = (self.folder / "queue").read_text().splitlines()
        return [(line.split("|")[0], int(line.split("|")[1])) for line in lines]


def programs(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    made = Queue(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{made.folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(made.folder))
    return made


def tasks(sweep: Sweep, *indices: int) -> dict[int, str]:
    """What is recorded of an array that does these runs."""
    return {task: sweep.runs[index].folder for task, index in enumerate(indices)}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Two runs that start from the first, one of these is started from, and one on its own."""
    runs = [
        planned(0, "d0"),
        planned(1, "a4r", after=0),
        planned(2, "d4a4", after=0),
        planned(3, "film-a4", after=2),
        planned(4, "d0", 123),
    ]
    return sweep_of(tmp_path / "runs", runs)


def test_runs_that_start_from_the_same_run_are_one_array_that_waits_for_it(
    queue: Queue, sweep: Sweep
) -> None:
    made = submit(sweep, queue.options)
    assert [(m.job, m.runs, m.after) for m in made] == [
        (101, tasks(sweep, 0, 4), None),
        (102, tasks(sweep, 1, 2), "afterok:101_0"),
        (103, tasks(sweep, 3), "afterok:102_1"),
    ]
    assert [("--dependency=afterok" in c, "--kill-on-invalid-dep=yes" in c)
            for c in queue.submitted()] == [(False, False), (True, True), (True, True)]  # fmt: skip
    assert submissions(sweep) == made
    assert queue_states(sweep) == dict.fromkeys(range(5), "PENDING")


def test_tasks_do_the_runs_of_the_plan_as_it_was_when_they_were_submitted(
    queue: Queue, sweep: Sweep
) -> None:
    (made, *_) = submit(sweep, queue.options)
    kept = read_plan(Path(made.plan))
    assert kept.runs == sweep.runs
    assert Path(kept.out).is_absolute()
    assert f"xmodal-sweep task {made.plan} " in Path(made.script).read_text()


def test_what_waits_in_the_queue_is_not_submitted_again(queue: Queue, sweep: Sweep) -> None:
    submit(sweep, queue.options)
    said: list[str] = []
    assert submit(sweep, queue.options, said.append) == []
    assert len(queue.submitted()) == 3
    assert ["in the queue already" in line for line in said] == [True] * 5


def test_only_what_left_the_queue_unfinished_is_submitted_again(
    queue: Queue, sweep: Sweep, tmp_path: Path
) -> None:
    submit(sweep, queue.options)
    write_run(tmp_path / "runs", sweep.runs[0])
    write_run(tmp_path / "runs", sweep.runs[1], status="failed", done=0.5)
    kept = [x for x in queue.calls("queue") if x.startswith(("102|1|", "103|"))]  # runs 2 and 3
    queue.set("queue", "\n".join(kept) + "\n")
    again = submit(sweep, queue.options)
    assert [(m.runs, m.after) for m in again] == [(tasks(sweep, 1, 4), None)]


def test_a_run_waits_for_a_task_of_an_earlier_submission(queue: Queue, sweep: Sweep) -> None:
    submit(sweep, queue.options)
    queue.set("queue", "\n".join(x for x in queue.calls("queue") if x.startswith("101")) + "\n")
    assert [m.after for m in submit(sweep, queue.options)] == ["afterok:101_0", "afterok:104_1"]


def test_another_campaign_with_the_same_run_does_not_submit_it_a_second_time(
    queue: Queue, sweep: Sweep, tmp_path: Path
) -> None:
    submit(sweep, queue.options)
    other = sweep_of(tmp_path / "runs", [sweep.runs[0], planned(1, "moe-a4", after=0)])
    other = type(sweep)(**{f: getattr(other, f) for f in other.__slots__} | {"name": "other"})
    (made,) = submit(other, queue.options)
    assert made.runs == tasks(other, 1)
    assert made.after == "afterok:101_0"


def test_a_run_that_a_process_is_at_is_left_to_it_with_what_starts_from_it(
    queue: Queue, sweep: Sweep, tmp_path: Path
) -> None:
    said: list[str] = []
    write_run(tmp_path / "runs", sweep.runs[0])
    with FolderLock(sweep.path(sweep.runs[2])):
        made = submit(sweep, queue.options, said.append)
    assert [m.runs for m in made] == [tasks(sweep, 1, 4)]
    assert "a process outside the queue" in said[0]
    assert "submit again later" in said[1]


def test_two_submissions_at_the_same_time_do_not_both_submit(queue: Queue, sweep: Sweep) -> None:
    with (
        FolderLock(Path(sweep.out) / "campaigns", slurm.LOCK),
        pytest.raises(StoreError, match="wait for it") as locked,
    ):
        submit(sweep, queue.options)
    assert locked.value.kind == "locked"
    assert queue.calls() == []


def test_a_job_that_was_taken_without_an_answer_is_known_to_the_next_submission(
    queue: Queue, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "ANSWER_S", 2.0)
    queue.set("hangs")
    with pytest.raises(QueueError, match="did not answer sbatch"):
        submit(sweep, queue.options)
    (queue.folder / "hangs").unlink()
    made = submit(sweep, queue.options)
    assert [m.runs for m in made] == [tasks(sweep, 1, 2), tasks(sweep, 3)]
    assert made[0].after == "afterok:101_0"
    assert [s.job for s in submissions(sweep)] == [None, 102, 103]
    assert len(queue.holds()) == 5


def test_a_dead_scheduler_is_told_and_nothing_hangs(
    queue: Queue, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(sweep, queue.options)
    before = queue.submitted()
    for trouble, words in (("dead", "Unable to contact slurm"), ("silent", "did not answer")):
        queue.set(trouble)
        monkeypatch.setattr(scheduler, "ANSWER_S", 2.0 if trouble == "silent" else 60.0)
        said: list[str] = []
        assert queue_states(sweep, said.append) == {}
        assert words in said[0]
        with pytest.raises(QueueError, match=words):
            submit(sweep, queue.options)
        with pytest.raises(QueueError, match=words):
            cancel(sweep)
        (queue.folder / trouble).unlink()
    assert queue.submitted() == before


def test_without_slurm_it_says_what_to_do(sweep: Sweep, monkeypatch: pytest.MonkeyPatch,
                                          tmp_path: Path) -> None:  # fmt: skip
    own = programs(tmp_path / "own", **{"xmodal-sweep": ""})
    monkeypatch.setenv("PATH", str(own))
    assert queue_states(sweep) == {}  # nothing was submitted: nobody is asked
    with pytest.raises(QueueError, match=r"there is no sbatch here.*xmodal-sweep run"):
        submit(sweep, Options(programs=own))


def test_what_slurm_refuses_is_refused_before_anything_is_submitted(
    queue: Queue, sweep: Sweep
) -> None:
    queue.set("refuses", "1")
    with pytest.raises(QueueError, match=r"the scheduler refuses.*\.sbatch"):
        submit(sweep, queue.options)
    assert queue.submitted() == []
    assert submissions(sweep) == []


def test_an_environment_without_the_command_is_refused(
    queue: Queue, sweep: Sweep, tmp_path: Path
) -> None:
    with pytest.raises(QueueError, match="has no xmodal-sweep"):
        submit(sweep, Options(programs=tmp_path))
    assert queue.calls() == []


def test_cancel_takes_out_the_jobs_of_this_campaign_alone(queue: Queue, sweep: Sweep) -> None:
    submit(sweep, queue.options)
    assert cancel(sweep) == ["101", "102", "103"]
    assert queue.calls("scancel") == ["101 102 103"]


def test_what_a_colleague_queued_is_not_submitted_again_and_not_cancelled(
    queue: Queue, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(sweep, queue.options)
    fields = [line.split("|") for line in queue.calls("queue")]
    for each in fields:
        each[3] = "1002" if each[0] == "102" else "1001"
    queue.set("queue", "\n".join("|".join(each) for each in fields) + "\n")
    assert submit(sweep, queue.options) == []
    told: list[str] = []
    with monkeypatch.context() as me:
        me.setattr(os, "getuid", lambda: 1001)
        assert cancel(sweep, told.append) == ["101", "103"]
        assert "job 102 was submitted by another user (number 1002)" in told[0]
        me.setattr(os, "getuid", lambda: 0)  # who may cancel everything
        assert cancel(sweep) == ["101", "102", "103"]
    assert queue.calls("scancel") == ["101 103", "101 102 103"]


def test_the_queue_is_asked_by_names_a_few_hundred_at_a_time(
    queue: Queue, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = submit(sweep, queue.options)
    monkeypatch.setattr(scheduler, "NAMES", 2)
    assert len(queue_states(sweep)) == 5
    names = sorted(m.name for m in made)
    asked = [re.search(r"--name=(\S+)", call) for call in queue.calls("squeue")]
    assert [found[1] for found in asked if found] == [",".join(names[:2]), names[2]]


def test_what_a_person_likes_to_see_of_the_queue_hides_no_task(
    queue: Queue, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(sweep, queue.options)
    monkeypatch.setenv("SQUEUE_USERS", "somebody")
    assert submit(sweep, queue.options) == []


def test_why_a_task_does_not_begin_is_told(queue: Queue, sweep: Sweep) -> None:
    submit(sweep, queue.options)
    held = [
        x.replace("None", "DependencyNeverSatisfied") if x[:3] == "103" else x
        for x in queue.calls("queue")
    ]
    queue.set("queue", "\n".join(held) + "\n")
    wanted = "PENDING (DependencyNeverSatisfied)"
    assert queue_states(sweep) == {**dict.fromkeys(range(5), "PENDING"), 3: wanted}
    told: list[str] = []
    submit(sweep, queue.options, told.append)
    assert any(f"(103_0, {wanted})" in line for line in told)


@pytest.mark.parametrize(
    "limits", ["MaxArraySize = 2", "MaxArraySize = 1001\nSchedulerParameters=a,max_array_tasks=2,b"]
)
def test_more_runs_than_an_array_may_have_are_several_arrays(
    queue: Queue, sweep: Sweep, tmp_path: Path, limits: str
) -> None:
    write_run(tmp_path / "runs", sweep.runs[0])
    queue.set("limits", limits + "\n")
    made = submit(sweep, queue.options)
    assert [(m.runs, m.after) for m in made] == [
        (tasks(sweep, 1, 2), None),
        (tasks(sweep, 4), None),
        (tasks(sweep, 3), "afterok:101_1"),
    ]
    texts = [Path(m.script).read_text() for m in made]
    assert ["--array=0-1\n" in texts[0], "--array=0-0\n" in texts[1]] == [True, True]
    assert [re.search(r"^runs=(.*)$", x, re.M)[1] for x in texts] == ["(1 2)", "(4)", "(3)"]  # type: ignore[index]


def test_a_site_that_does_not_tell_its_limit_has_slurms_own(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.set("limits", "nothing\n")
    assert scheduler.most_tasks() == 1001
    monkeypatch.setenv("PATH", "")
    assert scheduler.most_tasks() == 1001


def test_what_to_do_about_a_refusal_depends_on_what_was_refused(queue: Queue, sweep: Sweep) -> None:
    queue.set("refuses", "1")
    for words, remedy in (
        ("Invalid job array specification", "scontrol show config"),
        ("Requested partition configuration not available now", "sinfo --format"),
    ):
        queue.set("words", words)
        with pytest.raises(QueueError, match=f"{words}.*{remedy}"):
            submit(sweep, queue.options)


def test_a_run_that_gained_no_step_gets_another_try_when_it_is_submitted_again(
    queue: Queue, sweep: Sweep, tmp_path: Path
) -> None:
    write_run(tmp_path / "runs", sweep.runs[4], status="interrupted", done=0.5)
    idle = {"starts": 3, "step": 5, "idle": 3, "failure": "3 starts gained no step"}
    for index in (0, 4):
        write_json(sweep.path(sweep.runs[index]) / "attempts.json", idle)
    with FolderLock(sweep.path(sweep.runs[0])):  # of a run that is not queued nothing is forgotten
        submit(sweep, queue.options)
    assert [attempts(sweep.path(sweep.runs[i])).get("failure") for i in (0, 4)] == [
        "3 starts gained no step", None,
    ]  # fmt: skip


def test_a_half_written_record_loses_no_other(queue: Queue, sweep: Sweep) -> None:
    first = submit(sweep, queue.options)
    file = sweep.folder / slurm.RECORDS
    with file.open("a") as handle:
        handle.write('{"name": "xmodal-fa')
    kept = [x for x in queue.calls("queue") if not x.startswith("101|0|")]
    queue.set("queue", "\n".join(kept) + "\n")
    second = submit(sweep, queue.options)
    assert [m.runs for m in second] == [tasks(sweep, 0)]
    assert submissions(sweep) == [*first, *second]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"memory": "0"}, "whole nodes"),
        ({"memory": "0G"}, "whole nodes"),
        ({"time": "a day"}, "HH:MM:SS"),
        ({"time": "0"}, "HH:MM:SS"),
        ({"cpus": 0}, "cpus = 0"),
        ({"at_once": 0}, "at_once = 0"),
        ({"gpus": 2}, "one GPU"),
        ({"device": "cuda"}, "ask the queue for a GPU"),
        ({"gpus": 1, "device": "cpu"}, "idle"),
        ({"stage": "$(rm -rf /)"}, r"give a folder, such as /local/\$USER"),
        ({"partition": "a b"}, "one word"),
        ({"extra": ("--gres=gpu:a100:1",)}, "say gpus = 1, too"),
        ({"extra": ("-G1",)}, "say gpus = 1, too"),
        ({"extra": ("qos=long",)}, "such as --qos=long"),
        ({"extra": ("--qos=x\nrm -rf /",)}, "such as --qos=long"),
    ],
)
def test_options_that_no_queue_could_serve_are_refused(option: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Options(**option).check()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90", 90), ("90:30", 90.5), ("12:00:00", 720), ("2-00", 2880), ("1-12:30", 2190),
     ("1-0:0:30", 1440.5)],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_writes_them(text: str, wanted: float) -> None:
    assert minutes(text) == wanted


@pytest.mark.parametrize(
    ("gpus", "device", "target"),
    [(1, "auto", "cuda"), (0, "auto", "cpu"), (1, "cuda", "cuda"), (0, "cpu", "cpu")],
)
def test_what_is_asked_of_the_queue_decides_the_device(
    gpus: int, device: str, target: str, tmp_path: Path
) -> None:
    """A task on a node whose driver is broken fails; it does not train on the CPU."""
    options = Options(gpus=gpus, device=device)
    options.check()
    assert options.target == target
    assert f"--device {target} " in script_of(tmp_path, options)


def test_a_short_time_limit_is_warned_of_half_way() -> None:
    assert Options(time="4").warning == 120
    assert Options(time="12:00:00").warning == Options().warning == 300


def script_of(tmp_path: Path, options: Options, indices: Sequence[int] = (3,)) -> str:
    return batch_script(
        options,
        name="xmodal-try",
        title="Try",
        indices=indices,
        plan=tmp_path / "a folder" / "plan.json",
        store=tmp_path / "the store's",
        logs=tmp_path / "logs 100%",
        folder=tmp_path,
    )


def test_the_directives_are_those_that_were_asked_for(tmp_path: Path) -> None:
    options = Options(
        partition="gpu", account="me", time="12:00:00", cpus=8, gpus=1, memory="32G", at_once=4,
        extra=("--qos=long",), setup=("module load cuda",), device="cuda",
    )  # fmt: skip
    text = script_of(tmp_path, options, [0, 1, 2, 9])
    given = [x.removeprefix("#SBATCH ") for x in text.splitlines() if x.startswith("#SBATCH")]
    assert given == [
        "--job-name=xmodal-try", "--array=0-3%4", f'--chdir="{tmp_path}"',
        f'--output="{tmp_path}/logs 100%%/%A_%a.log"', "--open-mode=append", "--requeue",
        "--signal=USR2@300", "--ntasks=1", "--cpus-per-task=8", "--mem=32G", "--gres=gpu:1",
        "--time=12:00:00", "--partition=gpu", "--account=me", "--qos=long",
    ]  # fmt: skip
    # Modules first, then this environment, or another Python would come before it.
    assert text.index("module load cuda") < text.index("export PATH=")


def test_a_folder_that_sbatch_cannot_be_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rename the folder"):
        script_of(tmp_path / 'a "name"', Options())


Ran = subprocess.CompletedProcess[str]
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
PROJECT = Path("/project/you")


def example() -> str:
    """What a campaign's array looks like; write it again with this function where it changes."""
    folder = PROJECT / "runs/campaigns/screening-maestro-0123456789ab"
    return batch_script(
        Options(
            partition="gpu", account="you", time="12:00:00", cpus=8, gpus=1, memory="32G",
            at_once=4, stage="/local/$USER", setup=("module load cuda",), device="cuda",
            programs=PROJECT / "xmodal/.venv/bin",
        ),
        name="xmodal-screening-20260101-120000-c0de-1",
        title="Which arm, from one foundation",
        indices=range(2, 18),
        plan=folder / "submitted/20260101-120000-c0de/plan.json",
        store=PROJECT / "features/maestro-0123456789ab",
        logs=folder / "logs",
        folder=PROJECT,
    )  # fmt: skip


def test_the_example_of_an_array_is_what_is_submitted() -> None:
    assert (EXAMPLES / "sweep-array.sbatch").read_text() == example()


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.sbatch")), ids=lambda file: file.stem)
def test_examples_are_shell_and_have_none_of_the_known_traps(file: Path) -> None:
    text = file.read_text()
    checked = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert not re.search(r"^\s*(set|shopt) |--mem=0\b|\bls ", text, re.MULTILINE)
    for wanted in (
        "--mem=",
        "--open-mode=append",
        "--requeue",
        "NUMBA_CACHE_DIR",
        "scontrol requeue",
    ):
        assert wanted in text, wanted


@pytest.mark.parametrize("name", ["train-one-gpu", "train-four-gpus", "sweep"])
def test_examples_that_are_stopped_are_queued_again(
    name: str, perform: Callable[..., Ran], tmp_path: Path
) -> None:
    own = {"STORE": "/the store", "CAMPAIGN": "screening", "SLURM_CPUS_PER_TASK": "1",
           "SLURM_NTASKS": "2"}  # fmt: skip
    text = (EXAMPLES / f"{name}.sbatch").read_text()
    assert perform(75, text=text, env=own).returncode == 75
    assert said(tmp_path, "scontrol") == ["show job --oneliner 101", "requeue 101"]
    assert "--store /the store" in said(tmp_path, "srun")[-1]
    for env, state in (
        ({"REQUEUES": "1", "SLURM_RESTART_COUNT": "1"}, "RUNNING"),
        ({}, "CANCELLED"),
    ):
        done = perform(75, 75, 75, text=text, env={**own, **env}, state=state)
        assert done.returncode == 75
        assert said(tmp_path, "scontrol").count("requeue 101") == 1


SRUN = """#!/bin/bash
echo $* >> "$FAKE/srun"
n=$(wc -l < "$FAKE/srun")
exit "$(cut -d' ' -f"$n" "$FAKE/codes")"
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$FAKE/scontrol"
if [ -e "$FAKE/dead" ]; then exit 1; fi
case "$1" in show) echo "JobId=101 ArrayJobId=100 JobState=$(cat "$FAKE/state") Reason=None" ;; esac
"""


@pytest.fixture
def perform(tmp_path: Path) -> Callable[..., Ran]:
    """Run a script as a task whose program exits with the given codes, one after the other."""
    fake = tmp_path / "fake"
    features = 'echo "$*" > $FAKE/stage; exit $(cat $FAKE/full)'
    sleep = "#!/bin/bash\necho $* >> $FAKE/sleep\n"
    empty = {"xmodal-sweep": "", "xmodal-features": features}
    own = programs(tmp_path / "own", srun=SRUN, scontrol=SCONTROL, sleep=sleep, **empty)
    fake.mkdir()

    def run(
        *codes: int,
        text: str = "",
        state: str = "RUNNING",
        full: str = "1",
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Ran:
        (fake / "codes").write_text(" ".join(map(str, codes)))
        (fake / "state").write_text(state)
        (fake / "full").write_text(full)
        script = tmp_path / "script"
        script.write_text(text or script_of(tmp_path, Options(programs=own, **options)))
        given = {
            "PATH": f"{own}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), "FAKE": str(fake),
            "SLURM_JOB_ID": "101", "SLURM_ARRAY_JOB_ID": "100", "SLURM_ARRAY_TASK_ID": "0",
        }  # fmt: skip
        return subprocess.run(
            ["bash", str(script)], capture_output=True, text=True, timeout=60, check=False,
            env={**given, **(env or {})},
        )  # fmt: skip

    return run


def said(tmp_path: Path, name: str) -> list[str]:
    file = tmp_path / "fake" / name
    return file.read_text().splitlines() if file.exists() else []


def test_a_task_calls_the_program_with_the_number_of_its_run(
    perform: Callable[..., Ran], tmp_path: Path
) -> None:
    done = perform(0, device="cpu", cpus=2)
    assert done.returncode == 0, done.stderr
    assert "done" in done.stdout
    assert said(tmp_path, "srun") == [
        "--ntasks=1 --cpus-per-task=2 --mpi=none --unbuffered xmodal-sweep task "
        f"{tmp_path}/a folder/plan.json 3 --store {tmp_path}/the store's --device cpu --threads 2"
    ]
    assert not list(tmp_path.glob("xmodal-*"))  # the job's own caches are gone


def test_a_stopped_task_is_queued_again(perform: Callable[..., Ran], tmp_path: Path) -> None:
    assert perform(75).returncode == 75
    assert said(tmp_path, "scontrol") == ["show job --oneliner 100_0", "requeue 100_0"]


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PENDING", "TIMEOUT"])
def test_a_task_that_the_queue_itself_stopped_is_left_to_it(
    perform: Callable[..., Ran], tmp_path: Path, state: str
) -> None:
    done = perform(75, state=state)
    assert done.returncode == 75
    assert "requeue 100_0" not in said(tmp_path, "scontrol")
    assert "xmodal-sweep submit goes on with it" in done.stdout


def test_a_task_is_not_queued_again_for_ever(perform: Callable[..., Ran], tmp_path: Path) -> None:
    done = perform(75, requeues=5, env={"SLURM_RESTART_COUNT": "5"})
    assert done.returncode == 75
    assert "5 times already" in done.stdout
    assert said(tmp_path, "scontrol") == []


def test_a_scheduler_that_does_not_answer_a_task_is_asked_again_then_left(
    perform: Callable[..., Ran], tmp_path: Path
) -> None:
    (tmp_path / "fake" / "dead").touch()
    done = perform(75)
    assert done.returncode == 75
    assert "the scheduler does not answer" in done.stdout
    assert said(tmp_path, "sleep") == ["1", "5", "10", "30"]


def test_a_run_that_is_held_is_waited_for_as_long_as_a_dead_nodes_lock(
    perform: Callable[..., Ran], tmp_path: Path
) -> None:
    assert perform(77, 77, 0).returncode == 0
    assert said(tmp_path, "sleep") == ["30", "30"]


def test_a_task_whose_run_stays_held_goes_back_into_the_queue_so_that_nothing_starts_from_it(
    perform: Callable[..., Ran], tmp_path: Path
) -> None:
    done = perform(*[77] * 40)
    assert done.returncode == 77
    assert "another process is at this run; asks to be queued again" in done.stdout
    assert said(tmp_path, "scontrol") == ["show job --oneliner 100_0", "requeue 100_0"]
    assert sum(map(int, said(tmp_path, "sleep"))) == 660 > 600


def test_a_task_whose_run_stays_held_is_not_queued_again_for_ever(
    perform: Callable[..., Ran], tmp_path: Path
) -> None:
    done = perform(*[77] * 40, requeues=5, env={"SLURM_RESTART_COUNT": "5"})
    assert done.returncode == 77
    assert said(tmp_path, "scontrol") == []


def test_a_held_run_is_not_waited_for_beyond_the_time_limit(
    perform: Callable[..., Ran], tmp_path: Path
) -> None:
    perform(*[77] * 40, time="10")
    assert sum(map(int, said(tmp_path, "sleep"))) <= 315


def test_a_start_that_another_machine_has_just_finished_is_seen_a_little_later(
    perform: Callable[..., Ran], tmp_path: Path
) -> None:
    assert perform(76, 76, 0).returncode == 0
    assert said(tmp_path, "sleep") == ["30", "30"]


def test_a_run_whose_start_is_not_finished_fails_and_says_so(
    perform: Callable[..., Ran], tmp_path: Path
) -> None:
    done = perform(*[76] * 40)
    assert done.returncode == 76
    assert "the run that it starts from is not finished" in done.stdout
    assert said(tmp_path, "scontrol") == []
    assert sum(map(int, said(tmp_path, "sleep"))) == 120


@pytest.mark.parametrize("code", [1, 3, 137])
def test_a_failure_is_the_tasks_failure(
    perform: Callable[..., Ran], tmp_path: Path, code: int
) -> None:
    done = perform(code)
    assert done.returncode == code
    assert f"failed with exit code {code}" in done.stdout
    assert said(tmp_path, "scontrol") == []


def test_a_store_that_cannot_be_copied_is_read_where_it_is(
    perform: Callable[..., Ran], tmp_path: Path
) -> None:
    done = perform(0, stage="$HERE/copies", env={"HERE": "/local disk"})
    assert done.returncode == 0
    assert "could not be copied to /local disk/copies (exit code 1)" in done.stdout
    assert said(tmp_path, "stage") == [f"stage {tmp_path}/the store's /local disk/copies"]
    assert f"--store {tmp_path}/the store's " in said(tmp_path, "srun")[0]


def test_a_node_without_the_folder_for_copies_is_told(perform: Callable[..., Ran],
                                                      tmp_path: Path) -> None:  # fmt: skip
    done = perform(0, stage="$NOT_HERE")
    assert done.returncode == 0
    assert "'' is no folder here" in done.stdout
    assert said(tmp_path, "stage") == []


def test_a_node_that_does_not_see_the_environment_says_so(
    perform: Callable[..., Ran], tmp_path: Path
) -> None:
    (tmp_path / "own" / "xmodal-sweep").unlink()
    done = perform(0, env={"PATH": f"{tmp_path / 'own'}:/usr/bin:/bin"})
    assert done.returncode == 1
    assert "does this node see the environment?" in done.stdout


def test_records_are_lines_of_plain_json(queue: Queue, sweep: Sweep) -> None:
    submit(sweep, queue.options)
    lines = (sweep.folder / slurm.RECORDS).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(r["job"], sorted(r["runs"])) for r in records[:2]] == [
        (None, ["0", "1"]), (101, ["0", "1"]),
    ]  # fmt: skip
    assert all(Path(r["script"]).is_file() for r in records)
