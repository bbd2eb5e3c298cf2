"""What is submitted, when: with commands that answer as Slurm's do."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from campaign_fakes import planned, programs, sweep_of, write_run

from pipeline.base.errors import StoreError
from pipeline.base.files import FolderLock, write_json
from trainer.campaign import scheduler, slurm
from trainer.campaign.batch_script import Options
from trainer.campaign.plan import read_plan
from trainer.campaign.slurm import QueueError, cancel, queue_states, submissions, submit
from trainer.campaign.state import attempts
from trainer.campaign.sweep import Sweep

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


def test_records_are_lines_of_plain_json(queue: Queue, sweep: Sweep) -> None:
    submit(sweep, queue.options)
    lines = (sweep.folder / slurm.RECORDS).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(r["job"], sorted(r["runs"])) for r in records[:2]] == [
        (None, ["0", "1"]), (101, ["0", "1"]),
    ]  # fmt: skip
    assert all(Path(r["script"]).is_file() for r in records)
