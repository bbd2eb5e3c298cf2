"""What batch scripts say and do: with commands that answer as Slurm's do."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from campaign_fakes import programs

from pipeline.base.errors import ConfigError
from trainer.campaign.batch_script import Options, batch_script, minutes


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
while [[ "$1" == --* ]]; do given="$given$1 "; shift; done
if [ "$1" = xmodal-features ]; then echo "step" > "$FAKE/staged"; exec "$@"; fi
echo $given$* >> "$FAKE/srun"
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


def test_a_task_that_is_warned_while_the_store_is_copied_is_queued_again(
    perform: Callable[..., Ran], tmp_path: Path
) -> None:
    done = perform(0, stage="/local", full="75")
    assert done.returncode == 75
    assert "stopped while the store was copied; asks to be queued again" in done.stdout
    assert said(tmp_path, "scontrol") == ["show job --oneliner 100_0", "requeue 100_0"]
    assert said(tmp_path, "staged") == ["step"]  # the warning is for steps: no other would get it
    assert said(tmp_path, "srun") == []
    # A cancelled one is not.
    assert perform(0, stage="/local", full="75", state="CANCELLED").returncode == 75
    assert said(tmp_path, "scontrol").count("requeue 100_0") == 1


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
