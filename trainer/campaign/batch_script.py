"""The text of a batch script: one Slurm array, each of whose tasks does one run of a campaign.

Written so that none of the ways in which such scripts are known to die is left in it:

* no ``set -e``, ``-u`` or ``pipefail``: what a site's profile leaves undefined, and what a pattern
  does not match, ends nothing; every exit code that matters is looked at;
* the queue's warning goes to the step (``--signal`` without ``B:``), that is to the program, which
  saves a checkpoint and exits with 75; the shell then asks for the task to be queued again;
* memory is a number, logs are appended to, caches belong to one job, paths are absolute.

Tasks of an array count from 0, whatever their runs' numbers are: sites limit the numbers of tasks.
The script names the run of each, in the copy of the plan that was made for the submission, so that
planning again changes nothing for tasks that wait.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import ConfigError
from pipeline.base.files import STALE_AFTER_S

SEEN_S = 120
"""How long a task waits for what another machine wrote: a network file system may show it late."""
BUSY_S = int(STALE_AFTER_S) + 60
"""How long a task waits for a lock: the one of a node that died is stale after ten minutes."""
REQUEUES = 50
TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
FOLDER = re.compile(r"[\w$@%+=:,./{}~-]+")
ASKS_FOR_GPUS = re.compile(r"(--gpus\b|--gpus-|-G|--gres[= ]\S*gpu).*")
WORD = re.compile(r"[\w@%+=:,./\[\]&|*!-]+")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is asked of the queue for every run.

    Attributes
    ----------
    partition, account : as the site calls them; its defaults where not given
    time : limit of one task, as Slurm writes it: minutes, ``HH:MM:SS``, ``D-HH:MM:SS``
    cpus, gpus, memory : of one task; a run uses one GPU at most
    at_once : tasks of an array that may run at a time
    stage : folder on the node's own disk that the store is copied to, such as ``/local/$USER``; one
        that outlives jobs, or every task copies again
    extra : more options of sbatch, such as ``--constraint=a100``
    setup : lines of shell that come first, such as ``module load cuda``
    device, threads : of each run; unless given, the GPU where one is asked for, and as many threads
        as ``cpus``
    warn_s : how long before its limit a task is warned
    requeues : how often a task that was stopped is queued again
    busy_s : how long a task waits while another process is at its run, before it is queued again
    programs : folder of the commands that tasks call
    """

    partition: str | None = None
    account: str | None = None
    time: str | None = None
    cpus: int = 4
    gpus: int = 0
    memory: str | None = "16G"
    at_once: int | None = None
    stage: str | None = None
    extra: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    device: str = "auto"
    threads: int | None = None
    warn_s: int = 300
    requeues: int = REQUEUES
    busy_s: int = BUSY_S
    programs: Path = Path(sys.executable).parent

    def check(self) -> None:
        """Refuse what no queue could do.

        Raises
        ------
        ConfigError
            naming the option.
        """
        if self.time is not None:
            minutes(self.time)
        for name in ("cpus", "requeues", "warn_s", "at_once", "threads"):
            value = getattr(self, name)
            if value is not None and value < (0 if name == "requeues" else 1):
                raise ConfigError(f"{name} = {value}: must be at least 1")
        if self.gpus not in (0, 1):
            raise ConfigError(f"gpus = {self.gpus}: a run of a campaign uses one GPU, or none")
        if self.gpus == 0 and self.device.startswith("cuda"):
            raise ConfigError("device = cuda: ask the queue for a GPU, too: gpus = 1")
        if self.gpus == 1 and self.device == "cpu":
            raise ConfigError("gpus = 1 with device = cpu: the GPU would be idle")
        if self.gpus == 0 and any(ASKS_FOR_GPUS.match(line) for line in self.extra):
            raise ConfigError("extra asks for a GPU that no run would use: say gpus = 1, too")
        if self.memory is not None and not self.memory.strip("0KMGT"):
            raise ConfigError(
                f"memory = {self.memory}: that asks for whole nodes; say how much, such as 16G"
            )
        if self.stage is not None and not FOLDER.fullmatch(self.stage):
            raise ConfigError(f"stage = {self.stage!r}: give a folder, such as /local/$USER")
        for name in ("partition", "account", "memory"):
            value = getattr(self, name)
            if value is not None and not WORD.fullmatch(value):
                raise ConfigError(f"{name} = {value!r}: must be one word")
        for line in self.extra:
            if not line.startswith("-") or "\n" in line:
                raise ConfigError(f"extra = {line!r}: give an option of sbatch, such as --qos=long")

    @property
    def target(self) -> str:
        """The device of each run, the same wherever it is asked: no task falls back to its CPU."""
        if self.device != "auto":
            return self.device
        return "cuda" if self.gpus else "cpu"

    @property
    def patience(self) -> int:
        """Seconds that a task waits for a run that is held; of a short limit, half."""
        if self.time is None:
            return self.busy_s
        return max(1, min(self.busy_s, int(minutes(self.time) * 30)))

    @property
    def warning(self) -> int:
        """Seconds before the limit; of a short limit, half."""
        if self.time is None:
            return self.warn_s
        return max(1, min(self.warn_s, int(minutes(self.time) * 30)))


def minutes(time: str) -> float:
    """A time limit as Slurm writes it, in minutes.

    Raises
    ------
    ConfigError
        when it is none.
    """
    found = TIME.fullmatch(time)
    days, *numbers = found.groups() if found else (None,)
    a, b, c = (int(n or 0) for n in numbers) if numbers else (0, 0, 0)
    if days is not None:  # days-hours:minutes:seconds
        total = (int(days) * 24 + a) * 60 + b + c / 60
    elif found and found[4] is not None:  # hours:minutes:seconds
        total = a * 60 + b + c / 60
    else:  # minutes:seconds
        total = a + b / 60
    if total <= 0:
        raise ConfigError(
            f"time = {time!r}: give minutes, HH:MM:SS or D-HH:MM:SS, such as 12:00:00"
        )
    return total


def batch_script(
    options: Options,
    *,
    name: str,
    title: str,
    indices: Sequence[int],
    plan: Path,
    store: Path,
    logs: Path,
    folder: Path,
) -> str:
    """The script of one array.

    Parameters
    ----------
    name : of the job
    title : what the campaign is called
    indices : numbers of the runs, in the order of the tasks
    plan : the copy of the plan that they are numbered by
    store : of the campaign
    logs : folder of the tasks' logs
    folder : in which tasks work
    """
    options.check()
    for path in (plan, store, logs, folder):
        if any(c in str(path) for c in '\n\r"\\'):
            raise ConfigError(f"{str(path)!r}: sbatch takes no such path; rename the folder")
    step = shlex.join(
        ["srun", "--ntasks=1", f"--cpus-per-task={options.cpus}", "--mpi=none", "--unbuffered"]
    )
    task = f"{step} {shlex.join(['xmodal-sweep', 'task', str(plan)])}"
    flags = ["--device", options.target, "--threads", str(options.threads or options.cpus)]
    lines = [
        "#!/bin/bash",
        f"# {' '.join(title.split())}",
        "# Made by xmodal-sweep submit. Runs are numbered as in",
        f"# {plan}",
        *_directives(options, name, len(indices), logs, folder),
        "",
        "# The run of each task.",
        *textwrap.wrap(f"runs=({' '.join(map(str, indices))})", 100),
        _BEGIN,
        *options.setup,
        "",
        f'export PATH={shlex.quote(str(options.programs))}:"$PATH"',
        _CACHES,
        f"store={shlex.quote(str(store))}",
        _AGAIN.replace("@REQUEUES@", str(options.requeues)),
        *(
            [_STAGE.replace("@FOLDER@", options.stage).replace("@SRUN@", step)]
            if options.stage
            else []
        ),
        _RUN.replace("@TASK@", task)
        .replace("@FLAGS@", shlex.join(flags))
        .replace("@BUSY@", str(options.patience))
        .replace("@SEEN@", str(min(SEEN_S, options.patience)))
        .replace("@PAUSE@", str(max(1, min(30, options.patience // 20)))),
        _END,
    ]
    return "\n".join(lines)


def _directives(options: Options, name: str, tasks: int, logs: Path, folder: Path) -> list[str]:
    most = f"%{options.at_once}" if options.at_once else ""
    log = str(logs).replace("%", "%%")
    found = [
        f"--job-name={name}",
        f"--array=0-{tasks - 1}{most}",
        f'--chdir="{folder}"',
        f'--output="{log}/%A_%a.log"',
        "--open-mode=append",
        "--requeue",
        f"--signal=USR2@{options.warning}",
        "--ntasks=1",
        f"--cpus-per-task={options.cpus}",
        f"--mem={options.memory}" if options.memory else "",
        f"--gres=gpu:{options.gpus}" if options.gpus else "",
        f"--time={options.time}" if options.time else "",
        f"--partition={options.partition}" if options.partition else "",
        f"--account={options.account}" if options.account else "",
        *options.extra,
    ]
    return [f"#SBATCH {line}" for line in found if line]


_BEGIN = """run=${runs[$SLURM_ARRAY_TASK_ID]}

me="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
say() { echo "$(date '+%F %T') task $me on $(hostname -s): $*"; }
say "begins, start $((${SLURM_RESTART_COUNT:-0} + 1)): run $run of the plan"

# Signals are for the program; this shell outlives them, and decides what comes next.
ended=
trap 'ended=yes' TERM
trap : USR2
"""

_CACHES = """
# Compiled kernels and fonts are cached per job: two machines must not share one cache.
scratch="${TMPDIR:-/tmp}/xmodal-$SLURM_JOB_ID"
mkdir -p "$scratch"
trap 'rm -rf "$scratch"' EXIT
export NUMBA_CACHE_DIR="$scratch/numba" MPLCONFIGDIR="$scratch/matplotlib" PYTHONUNBUFFERED=1
if ! command -v xmodal-sweep >/dev/null; then
  say "xmodal-sweep is not at $PATH: does this node see the environment?"
  exit 1
fi
"""

_AGAIN = """
# Put this task back into the queue, where what waits for it goes on waiting; it leaves with its code.
again() {
  if [ "${SLURM_RESTART_COUNT:-0}" -ge @REQUEUES@ ]; then
    say "$1, and was queued again @REQUEUES@ times already; xmodal-sweep submit goes on with it"
    exit "$code"
  fi
  for pause in 1 5 10 30; do
    case "$(scontrol show job --oneliner "$me")" in
      *JobState=RUNNING*)
        say "$1; asks to be queued again"
        if scontrol requeue "$me"; then exit "$code"; fi
        ;;
      *JobState=*) # cancelled by hand, or the queue itself starts it again
        say "stopped from outside; xmodal-sweep submit goes on with it"
        exit "$code"
        ;;
    esac
    sleep "$pause"
  done
  say "$1, and the scheduler does not answer; xmodal-sweep submit goes on with it"
  exit "$code"
}
"""

_STAGE = """
# Once per node, if the folder outlives jobs: the first task copies and verifies, the others wait for
# it and use the same copy, which stays. It is a step, so that the queue's warning reaches it.
stage="@FOLDER@"
case "$stage" in
  /*)
    copy=$(@SRUN@ xmodal-features stage "$store" "$stage")
    code=$?
    if [ "$code" = 0 ]; then
      store=$copy
    elif [ "$code" = 75 ]; then
      again "stopped while the store was copied"
    elif [ -z "$ended" ]; then
      say "the store could not be copied to $stage (exit code $code); reading it where it is"
    fi
    ;;
  *) say "'$stage' is no folder here to copy the store to; reading it where it is" ;;
esac
"""

_RUN = """
# A run whose lock is held by a process that is gone (its node died) is free after ten minutes; what
# ended on another machine may be seen late.
code=75
if [ -n "$ended" ]; then again "stopped before it began"; fi
waited=0
while :; do
  code=0
  @TASK@ "$run" --store "$store" @FLAGS@ || code=$?
  case "$code" in
    76) most=@SEEN@ ;;
    77) most=@BUSY@ ;;
    *) break ;;
  esac
  if [ -n "$ended" ] || [ "$waited" -ge "$most" ]; then break; fi
  sleep @PAUSE@
  waited=$((waited + @PAUSE@))
done
"""

_END = """
case "$code" in
  0) say "done" ;;
  75) again "stopped" ;; # with a checkpoint
  76)
    say "cannot begin: the run that it starts from is not finished; see that one's log"
    exit "$code"
    ;;
  77) again "another process is at this run" ;;
  *)
    say "failed with exit code $code"
    exit "$code"
    ;;
esac
"""
