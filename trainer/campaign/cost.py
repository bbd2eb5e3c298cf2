"""Hours that a campaign still needs, from what runs like its own took here.

Of a finished run two times are known: that of a step (``run.json``), and, where one start did it all,
that of everything from its start to its last score (``attempts.json``). The second over all its steps
is the *share*: what loading, evaluations, checkpoints and scoring come to. A run that is left is given

1. the median step of the finished runs that do the same work: arm, front end, loss, freeze policy,
   preset, size, batch, precision; of this campaign, or else of the whole folder of runs;
2. where there are none, that of runs of other arms that are alike in all the rest, likewise;
3. else nothing: its updates are told, and its hours are not.

and the median share of these runs, else of all that have one. Times of two GPUs, or of a GPU and a
CPU, are never mixed: those of the device that most of the campaign's finished runs had count (of those
elsewhere, where it has none). Kinds of CPU are not told apart. Where nothing has been measured nothing
is claimed; ``xmodal-sweep preflight`` counts operations instead.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.base.config import digest_plain
from trainer.campaign.state import State, pace, run_record
from trainer.campaign.sweep import PlannedRun, Sweep
from trainer.layout import RUN_FILE

Kind = tuple[str, str]  # arm, and all else that makes the step


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What is left.

    Attributes
    ----------
    updates : optimiser updates
    hours : of one device working at one run at a time; None where no like run was measured
    of_updates : as many of them are in the hours; of the rest nothing is known
    whole : whether evaluations and scoring are in the hours
    measured : finished runs that the hours were counted from
    device : that these ran on; empty where there are none
    """

    updates: int
    hours: float | None = None
    of_updates: int = 0
    whole: bool = False
    measured: int = 0
    device: str = ""

    def words(self) -> str:
        """A line."""
        if not self.updates:
            return "nothing is left to train"
        left = f"{self.updates:,} updates are left"
        if self.hours is None:
            return (
                f"{left}; how long they take is not known: no run like them was finished here "
                "(xmodal-sweep preflight counts operations)"
            )
        amount = f"{self.hours * 60:.0f} min" if self.hours < 1.5 else f"{self.hours:.1f} h"
        beside = "with evaluations and scoring" if self.whole else "evaluations not counted"
        text = f"{left}, about {amount} of one {self.device}, {beside}"
        text += f" (from {self.measured} finished runs)"
        if rest := self.updates - self.of_updates:
            text += f"; {rest:,} of them are in no hours: no run like theirs was finished here"
        return text


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Took:
    """Of one finished run: seconds of a step, and the share."""

    kind: Kind
    gpu: str | None
    step_s: float
    share: float | None


def left_to_do(sweep: Sweep, found: Sequence[State]) -> Cost:
    """Of all runs that are not done."""
    left = _left(sweep, found)
    updates = sum(left.values())
    if not updates:
        return Cost(updates=0)
    times = _Times(sweep, found)
    seconds, of_updates, whole = 0.0, 0, True
    used: set[int] = set()
    for run in (sweep.runs[index] for index in left):
        if like := times.of(run):
            step, share = times.step_and_share(like)
            seconds += left[run.index] * step * (share or 1.0)
            whole = whole and share is not None
            of_updates += left[run.index]
            used |= {id(each) for each in like}
    if not used:
        return Cost(updates=updates)
    return Cost(
        updates=updates,
        hours=seconds / 3600,
        of_updates=of_updates,
        whole=whole,
        measured=len(used),
        device=times.gpu or "CPU",
    )


def seconds_left(sweep: Sweep, found: Sequence[State], *, on_gpu: bool) -> dict[int, float]:
    """Number of a run → seconds that it still takes on a GPU, or on a CPU, where that was measured."""
    times = _Times(sweep, found, on_gpu)
    seconds: dict[int, float] = {}
    for index, updates in _left(sweep, found).items():
        if like := times.of(sweep.runs[index]):
            step, share = times.step_and_share(like)
            seconds[index] = updates * step * (share or 1.0)
    return seconds


def _left(sweep: Sweep, found: Sequence[State]) -> dict[int, int]:
    """Number of a run → updates that it still needs."""
    pairs = zip(sweep.runs, found, strict=True)
    left = {run.index: run.updates - s.step for run, s in pairs if s.status != "done"}
    return {index: updates for index, updates in left.items() if updates > 0}


class _Times:
    """What finished runs took: the campaign's own, and, read when first needed, all others."""

    def __init__(self, sweep: Sweep, found: Sequence[State], on_gpu: bool | None = None) -> None:
        self.sweep, self.on_gpu = sweep, on_gpu
        pairs = zip(sweep.runs, found, strict=True)
        self.own = [t for run, state in pairs if (t := _took(run, state)) and self._is_asked(t)]

    @cached_property
    def others(self) -> list[Took]:
        """Of the folder of runs, not of this campaign."""
        return [took for took in _elsewhere(self.sweep) if self._is_asked(took)]

    @cached_property
    def gpu(self) -> str | None:
        """The device whose times count."""
        counted = Counter(each.gpu for each in self.own or self.others)
        return counted.most_common(1)[0][0] if counted else None

    def of(self, run: PlannedRun) -> list[Took]:
        """Of the runs that are most like it; none where nothing is."""
        kind = _kind(run.arm, run.config)
        for same in (lambda other: other == kind, lambda other: other[1] == kind[1]):
            if like := self._those(same, self.own) or self._those(same, self.others):
                return like
        return []

    def step_and_share(self, like: Sequence[Took]) -> tuple[float, float | None]:
        """Medians; the share is None where no run of the folder has one."""
        shares = [t.share for t in like if t.share is not None]
        if not shares:
            shares = [t.share for t in (*self.own, *self.others) if t.share and t.gpu == self.gpu]
        return median(t.step_s for t in like), median(shares) if shares else None

    def _those(self, same: Callable[[Kind], bool], among: Sequence[Took]) -> list[Took]:
        return [each for each in among if each.gpu == self.gpu and same(each.kind)]

    def _is_asked(self, took: Took) -> bool:
        return self.on_gpu is None or self.on_gpu == (took.gpu is not None)


def _took(run: PlannedRun, state: State) -> Took | None:
    return _time(
        run.arm, run.config, run.updates,
        seconds_a_step=state.seconds_a_step, seconds=state.seconds, gpu=state.gpu,
    )  # fmt: skip


def _time(
    arm: str, config: Mapping[str, Any], updates: int, *,
    seconds_a_step: float | None, seconds: float | None, gpu: str | None,
) -> Took | None:  # fmt: skip
    if seconds_a_step is None:
        return None
    share = seconds / (updates * seconds_a_step) if seconds else None
    return Took(kind=_kind(arm, config), gpu=gpu, step_s=seconds_a_step, share=share)


def _kind(arm: str, config: Mapping[str, Any]) -> Kind:
    work = [config["preset"], config["size"], config["audio"]["frontend"], config["loss"]["name"],
            config["freeze"], config["budget"]["batch_size"], config["precision"]]  # fmt: skip
    return arm, digest_plain(work)


def _elsewhere(sweep: Sweep) -> Iterator[Took]:
    own = {planned.folder for planned in sweep.runs}
    for file in sorted(Path(sweep.out).glob(f"*/{RUN_FILE}")):
        record = None if file.parent.name in own else run_record(file.parent)
        if record is None:
            continue
        try:
            config = record["config"]
            budget = config["budget"]
            times = pace(file.parent, record, budget["batch_size"])
            updates = budget["epochs"] * budget["batches_per_epoch"]
            took = _time(record["arm"], config, updates, **times)
        except (KeyError, TypeError, AttributeError, ZeroDivisionError):
            continue  # damaged: the ledger tells
        if took is not None:
            yield took
