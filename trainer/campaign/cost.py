"""Hours that a campaign still needs, from steps that its own finished runs took.

A run that nobody has measured is given the step of the finished runs that are most like it: the same
arm in this campaign, the same arm and batches at the same size elsewhere in the folder of runs, else
the median of the campaign's. Where nothing has been measured nothing is claimed; ``xmodal-sweep
preflight`` counts operations instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from trainer.campaign.plan import PlannedRun, Sweep
from trainer.campaign.state import State, run_record, seconds_a_step


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What is left.

    Attributes
    ----------
    updates : optimiser updates
    hours : of one device working at one run at a time, evaluations not counted; None where no step
        was measured yet
    measured : finished runs whose steps that was counted from
    """

    updates: int
    hours: float | None
    measured: int

    def words(self) -> str:
        """A line."""
        if not self.updates:
            return "nothing is left to train"
        left = f"{self.updates:,} updates are left"
        if self.hours is None:
            return f"{left}; how long they take is known when a run has finished"
        amount = f"{self.hours * 60:.0f} min" if self.hours < 1.5 else f"{self.hours:.1f} h"
        return f"{left}, about {amount} of one device (from {self.measured} finished runs)"


def left_to_do(sweep: Sweep, found: Sequence[State]) -> Cost:
    """Of all runs that are not done."""
    measured: dict[str, list[float]] = {}
    for run, state in zip(sweep.runs, found, strict=True):
        if state.seconds_a_step is not None:
            measured.setdefault(run.arm, []).append(state.seconds_a_step)
    unknown = {
        (run.arm, run.batch_size, run.config["size"]): run
        for run, state in zip(sweep.runs, found, strict=True)
        if state.status != "done" and run.arm not in measured
    }
    for run in unknown.values():
        if elsewhere := _elsewhere(sweep, run):
            measured.setdefault(run.arm, []).extend(elsewhere)
    every = [seconds for own in measured.values() for seconds in own]
    updates, seconds = 0, 0.0
    for run, state in zip(sweep.runs, found, strict=True):
        left = 0 if state.status == "done" else max(0, run.updates - state.step)
        updates += left
        if every:
            seconds += left * median(measured.get(run.arm, every))
    return Cost(updates=updates, hours=seconds / 3600 if every else None, measured=len(every))


def _elsewhere(sweep: Sweep, run: PlannedRun) -> list[float]:
    """Seconds of a step of finished runs of other campaigns: same arm, size and batch."""
    found: list[float] = []
    own = {planned.folder for planned in sweep.runs}
    for folder in Path(sweep.out).glob(f"{run.arm}-*"):
        record = None if folder.name in own else run_record(folder)
        if record is None or record.get("arm") != run.arm:  # d4-a4r begins with d4, too
            continue
        config = record.get("config")
        if not isinstance(config, dict) or config.get("size") != run.config["size"]:
            continue
        budget = config.get("budget")
        if isinstance(budget, dict) and budget.get("batch_size") == run.batch_size:
            speed = seconds_a_step(record, run)
            found += [] if speed is None else [speed]
    return found
