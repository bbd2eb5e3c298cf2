"""A campaign on this machine: every run in a process of its own, several at a time.

Runs are independent processes, so that one that dies (out of memory, a broken driver) takes nothing
with it. A stop is passed on to all of them; each leaves a checkpoint. Which run comes next is read
from the run folders, so that another launcher, or a queue, may work on the same campaign.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.base.config import digest, to_plain
from pipeline.base.console import Console
from pipeline.base.errors import EXIT_RESUMABLE, Interrupted, XmodalError
from pipeline.base.files import write_json
from trainer.campaign.state import (
    BUSY,
    WAITS,
    State,
    forget_idle,
    logged_step,
    run_state,
    saved_step,
    states,
)
from trainer.campaign.sweep import LAUNCHED, LOGS, PlannedRun, Sweep
from trainer.signals import stop_on_signals

BEGINS, ERROR = "--- ", "error: "  # lines of a log
LOOK_S = 0.5
OTHERS_S = 3.0
"""How often other launchers' runs are looked at, when none of ours is under way."""
PATIENCE_S = 300.0
"""How long runs may take to write a checkpoint after a stop, before they are killed."""
TASK = "from trainer.cli_sweep import main; main()"


FREE = "import torch; print(torch.cuda.mem_get_info()[0])"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """Room for one run at a time: a device, the threads that it computes with, bytes that it may use.

    ``memory`` is None where it has the device for itself.
    """

    device: str
    threads: int
    visible: str | None = None
    memory: int | None = None

    def environment(self) -> dict[str, str]:
        """Of the run's process."""
        own = {"OMP_NUM_THREADS": str(self.threads), "PYTHONUNBUFFERED": "1"}
        if self.visible is not None:
            own["CUDA_VISIBLE_DEVICES"] = self.visible
        return {**os.environ, **own}


def slots(device: str, gpus: Sequence[str], jobs: int, threads: int | None) -> list[Slot]:
    """``jobs`` runs side by side on each GPU, or on this machine's cores.

    Parameters
    ----------
    device : cpu or cuda
    gpus : as ``CUDA_VISIBLE_DEVICES`` names them; ignored on a CPU
    threads : of each run; default: all cores shared out

    What is free of a device's memory now is shared out, too: by itself each run would take all that is
    free when it begins for its own, and the one that grew last would die.
    """
    places: Sequence[str | None] = gpus if device == "cuda" else [None]
    each = threads or max(1, len(os.sched_getaffinity(0)) // (jobs * len(places)))
    alone = [Slot(device=device, threads=each, visible=p) for p in places]
    if jobs > 1:
        alone = [dataclasses.replace(s, memory=free_memory(s) // jobs) for s in alone]
    return alone * jobs


def free_memory(slot: Slot) -> int:
    """Free bytes of a slot's device; a GPU is asked by a process that ends, for asking takes some."""
    if slot.device != "cuda":
        import torch

        from trainer.devices import available_memory

        return available_memory(torch.device("cpu"))
    done = subprocess.run(
        [sys.executable, "-c", FREE],
        env=slot.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        words = (done.stderr.splitlines() or ["it says nothing"])[-1]
        raise XmodalError(f"the free memory of the GPU {slot.visible} is not known: {words}")
    return int(done.stdout)


@dataclasses.dataclass(kw_only=True, slots=True)
class _Running:
    run: PlannedRun
    process: subprocess.Popen[bytes]
    slot: Slot
    began: float


def run_campaign(sweep: Sweep, room: Sequence[Slot], console: Console) -> list[State]:
    """Do every run that is not done, as many at a time as there are slots.

    Returns
    -------
    The states of all runs afterwards.

    Raises
    ------
    Interrupted
        after a stop signal, when every run has left its checkpoint.
    XmodalError
        (kind ``runs-failed``) at the end, when some run failed; the others were done.
    """
    launcher = _Launcher(sweep, room, console)
    total = sum(run.updates for run in sweep.runs)
    try:
        with console.progress(sweep.name, total) as update:
            launcher.work(update)
    except BaseException:
        launcher.stop()
        raise
    if launcher.failed:
        logs = sweep.folder / LOGS
        lines = "; ".join(f"{sweep.runs[i].label}: {text}" for i, text in launcher.failed.items())
        raise XmodalError(
            f"{len(launcher.failed)} of {len(sweep.runs)} runs failed ({lines}); their logs are in "
            f"{logs}; the same command does them again",
            kind="runs-failed",
        )
    return states(sweep)


class _Launcher:
    def __init__(self, sweep: Sweep, room: Sequence[Slot], console: Console) -> None:
        self.sweep, self.console = sweep, console
        self.free = list(room)
        self.running: dict[int, _Running] = {}
        self.failed: dict[int, str] = {}
        self.steps: dict[int, int] = {}
        self.left = {run.index for run in sweep.runs}
        for run in sweep.runs:
            forget_idle(sweep.path(run))
        # The plan as it is now: planning again meanwhile must not change what runs do.
        plain = to_plain(dataclasses.replace(sweep, out=str(Path(sweep.out).resolve())))
        self.plan = sweep.folder.resolve() / LAUNCHED / f"{digest(plain)}.json"
        write_json(self.plan, plain)

    def work(self, update: Callable[[float, str], None]) -> None:
        """Until every run is done, failed, or waits for one that failed."""
        while True:
            self._reap()
            self._begin()
            for index in self.running:
                self.steps[index] = logged_step(self.sweep.path(self.sweep.runs[index]))
            names = ", ".join(r.run.label for r in self.running.values())
            done = sum(self.steps.values())
            if not self.left and not self.running:
                update(done, "")
                return
            update(min(done, self._total() - 1), names)
            time.sleep(LOOK_S if self.running else OTHERS_S)

    def stop(self) -> None:
        """Ask every run to leave a checkpoint, and wait for it."""
        for each in self.running.values():
            each.process.send_signal(signal.SIGTERM)
        give_up = time.monotonic() + PATIENCE_S
        for each in self.running.values():
            try:
                each.process.wait(max(0.1, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                each.process.kill()
                each.process.wait()

    def _total(self) -> int:
        return sum(run.updates for run in self.sweep.runs)

    def _begin(self) -> None:
        """Fill the slots; without a free one nothing is looked at: folders may be far away."""
        for index in sorted(self.left) if self.free else ():
            run = self.sweep.runs[index]
            state = run_state(self.sweep, run)
            self.steps[index] = state.step
            if state.status == "done":
                self.left.discard(index)
            elif run.after in self.failed:
                self.left.discard(index)
                self.failed[index] = f"starts from {self.sweep.runs[run.after].label}"
            elif run.after in self.left or run.after in self.running:
                continue
            elif self.free and state.status in ("missing", "stopped", "failed"):
                self.left.discard(index)
                self._start(run, self.free.pop(0))

    def _start(self, run: PlannedRun, slot: Slot) -> None:
        log = self.sweep.folder / LOGS / f"{run.folder}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        options = ["--device", slot.device, "--threads", slot.threads]
        options += [] if slot.memory is None else ["--memory", slot.memory]
        command = [sys.executable, "-c", TASK, "task", self.plan, run.index, *options]
        with log.open("ab") as handle, stop_on_signals() as stop:
            handle.write(f"{BEGINS}{time.strftime('%Y-%m-%dT%H:%M:%S')} {run.label}\n".encode())
            handle.flush()
            process = subprocess.Popen(
                [*map(str, command)],
                stdout=handle,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=slot.environment(),
                start_new_session=True,  # a Ctrl-C reaches us alone; we pass it on once
            )
            self.running[run.index] = _Running(
                run=run, process=process, slot=slot, began=time.monotonic()
            )
        if stop.name:  # it came meanwhile, and comes again now that the run is known
            os.kill(os.getpid(), signal.Signals[stop.name])

    def _reap(self) -> None:
        for index, each in list(self.running.items()):
            code = each.process.poll()
            if code is None:
                continue
            del self.running[index]
            self.free.append(each.slot)
            seconds = time.monotonic() - each.began
            if code == 0:
                S = run_state(self.sweep, each.run).S
                score = "done" if S is None else f"S {S:.3f}"
                self.console.say(f"{each.run.label}: {score} ({seconds:.0f} s)")
                self.steps[index] = each.run.updates
            elif code in (BUSY, WAITS):
                self.left.add(index)  # somebody else's, or not yet: looked at again
            elif code == EXIT_RESUMABLE:
                raise Interrupted("a run was stopped; nothing is lost; repeat the command to go on")
            else:
                self.failed[index] = _reason(code, self.sweep, each.run)
                self.steps[index] = saved_step(self.sweep.path(each.run))
                self.console.say(f"{each.run.label}: failed: {self.failed[index]}")


def _reason(code: int, sweep: Sweep, run: PlannedRun) -> str:
    """Why a run died: the system's word, or what it said itself the last time that it was begun."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name} (killed, or out of memory)"
    lines = _last_lines(sweep, run)
    if lines is None:
        return f"exit code {code}, and it left no log"
    told = [line for line in lines if line.startswith(ERROR)] or lines
    return told[-1].removeprefix(ERROR) if told else f"exit code {code}, without a word"


def last_error(sweep: Sweep, run: PlannedRun) -> str:
    """What its log says that it died of, the last time that a launcher began it; else nothing."""
    told = [line for line in _last_lines(sweep, run) or () if line.startswith(ERROR)]
    return told[-1].removeprefix(ERROR) if told else ""


def _last_lines(sweep: Sweep, run: PlannedRun) -> list[str] | None:
    """Of the log, since the run was begun last; None where there is no log."""
    try:
        text = Path(sweep.folder / LOGS / f"{run.folder}.log").read_text(errors="replace")
    except OSError:
        return None
    return [line for line in text.rpartition(BEGINS)[2].splitlines()[1:] if line.strip()]
