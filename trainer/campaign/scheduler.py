"""What Slurm is asked, and what it answers: within a minute, or with an error that says what to do."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Iterable, Sequence

from pipeline.base.errors import XmodalError

ANSWER_S = 60.0
NAMES = 500  # that one command line asks for
MOST_TASKS = 1001  # of an array, where a site has not said otherwise
LIMITS = (r"^MaxArraySize\s*=\s*(\d+)", r"\bmax_array_tasks=(\d+)")


class QueueError(XmodalError):
    """The scheduler is not there, does not answer, or refuses."""

    kind = "queue"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A task that the scheduler knows.

    Attributes
    ----------
    job, task : its numbers
    state, reason : as Slurm calls them; the reason is empty where there is none
    user : number of whose it is
    """

    job: int
    task: int
    state: str
    reason: str = ""
    user: int = 0

    @property
    def id(self) -> str:
        """As commands of Slurm name it."""
        return f"{self.job}_{self.task}"

    @property
    def words(self) -> str:
        """State, and the reason for it: ``PENDING (JobHeldUser)``."""
        return f"{self.state} ({self.reason})" if self.reason else self.state


def known_tasks(names: Iterable[str]) -> dict[str, list[Task]]:
    """Name of a job → its tasks that the scheduler knows, whoever submitted them.

    It is asked by these names, and not at all without any.

    Raises
    ------
    QueueError
        when the scheduler does not answer.
    """
    wanted = sorted(set(names))
    found: dict[str, list[Task]] = {}
    for first in range(0, len(wanted), NAMES):
        asked = wanted[first : first + NAMES]
        command = ["squeue", "--noheader", "--array", f"--name={','.join(asked)}"]
        for line in ask([*command, "--format=%F|%K|%T|%U|%r|%j"]).splitlines():
            job, task, state, user, reason, name = [*line.strip().split("|", 5), *[""] * 5][:6]
            if name not in asked or not job.isdigit() or not task.isdigit():
                continue
            found.setdefault(name, []).append(
                Task(
                    job=int(job),
                    task=int(task),
                    state=state,
                    reason="" if reason == "None" else reason,
                    user=int(user) if user.isdigit() else -1,
                )
            )
    return found


def most_tasks() -> int:
    """How many tasks an array may have here."""
    try:
        said = ask(["scontrol", "show", "config"])
    except QueueError:
        return MOST_TASKS
    found = [int(m[1]) for pattern in LIMITS if (m := re.search(pattern, said, re.MULTILINE))]
    return min((n for n in found if n > 0), default=MOST_TASKS)


def ask(command: Sequence[str]) -> str:
    """What the scheduler answers, within a minute.

    Raises
    ------
    QueueError
        when it does not, or refuses.
    """
    # What a person likes to see of the queue must not hide tasks.
    shown = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_S, check=False, env=shown
        )
    except FileNotFoundError:
        raise QueueError(
            f"there is no {command[0]} here; use a machine from which Slurm is used, or "
            "xmodal-sweep run"
        ) from None
    except subprocess.TimeoutExpired:
        raise QueueError(
            f"the scheduler did not answer {command[0]} within {ANSWER_S:.0f} s; repeat the command "
            "later: nothing is submitted twice"
        ) from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = " ".join(said[-2:]) or f"exit code {done.returncode}"
        raise QueueError(f"the scheduler refuses: {reason}")
    return done.stdout
