"""Hours that a campaign still needs, from steps that its own finished runs took.

A run that nobody has measured is given the step of the finished run that is most like it: the same
arm, else the median of the campaign's. Where nothing has been measured nothing is claimed;
``xmodal-train --dry-run`` counts operations instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import median

from trainer.campaign.plan import Sweep
from trainer.campaign.state import State


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What is left.

    Attributes
    ----------
    updates : optimiser updates
    hours : of one device working at one run at a time, evaluations not counted; None where no step
        was measured yet
    measured : runs whose own steps were measured
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
    every = [seconds for own in measured.values() for seconds in own]
    updates, seconds = 0, 0.0
    for run, state in zip(sweep.runs, found, strict=True):
        left = 0 if state.status == "done" else max(0, run.updates - state.step)
        updates += left
        if every:
            seconds += left * median(measured.get(run.arm, every))
    return Cost(updates=updates, hours=seconds / 3600 if every else None, measured=len(every))
