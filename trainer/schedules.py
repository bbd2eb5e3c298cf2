"""Learning-rate multipliers (method §6.5).

``m(k)`` is the multiplier after scheduler step ``k`` of ``T`` updates; the first ``W`` are a linear
warm-up, ``m(k) = k / W``. The reference steps its scheduler *after* the optimiser, so that update n
runs at ``m(n-1)`` and the very first one at the full base rate: ``first_update = full``. With
``first_update = warm`` update n runs at ``m(n)``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pipeline.base.config import from_plain
from pipeline.base.registry import Registry
from trainer.config import Choice

FirstUpdate = Literal["full", "warm"]


class Schedule(NamedTuple):
    """A function ``m(k, T, options)`` for W < k <= T, and the class of its options."""

    decay: Callable[[int, int, Any], float]
    Options: type


SCHEDULES: Registry[Schedule] = Registry("schedule")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CosineOptions:
    """Warm-up updates, and which multiplier the first update runs at."""

    warmup: int = 200
    first_update: FirstUpdate


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrapezoidalOptions(CosineOptions):
    """``hold``: part of the updates after warm-up that run at the full rate."""

    hold: float = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CosineTailOptions(CosineOptions):
    """A cosine over ``reference`` updates down to ``floor``, then a line to ``end`` at T.

    Without ``reference`` it is half of all updates: 30,000 of the paper's 60,000.
    """

    reference: int | None = None
    floor: float = 0.10
    end: float = 0.02


def cosine(k: int, total: int, options: CosineOptions) -> float:
    """½ (1 + cos(π (k - W) / (T - W)))."""
    return _half_cosine(k, options.warmup, total)


def trapezoidal(k: int, total: int, options: TrapezoidalOptions) -> float:
    """1 up to H = W + int(hold · (T - W)), then a half cosine to 0 at T."""
    held = hold_end(total, options)
    return 1.0 if k <= held else _half_cosine(k, held, total)


def hold_end(total: int, options: TrapezoidalOptions) -> int:
    """Last update at the full rate (25,100 of 50,000)."""
    return options.warmup + int(options.hold * (total - options.warmup))


def tail_start(reference: int, options: CosineTailOptions) -> int:
    """Update at which the cosine has come down to the floor (23,895 for 30,000)."""
    part = math.acos(2 * options.floor - 1) / math.pi
    return options.warmup + int(part * (reference - options.warmup))


def cosine_tail(k: int, total: int, options: CosineTailOptions) -> float:
    """A half cosine over the reference length until it reaches the floor, then a linear tail."""
    warmup, floor = options.warmup, options.floor
    reference = options.reference or total // 2
    tail = tail_start(reference, options)
    if k <= tail:
        return _half_cosine(k, warmup, reference)
    return floor + (options.end - floor) * min(1.0, (k - tail) / max(1, total - tail))


SCHEDULES.add("cosine", Schedule(cosine, CosineOptions))
SCHEDULES.add("trapezoidal", Schedule(trapezoidal, TrapezoidalOptions))
SCHEDULES.add("cosine-tail", Schedule(cosine_tail, CosineTailOptions))


def update_multiplier(choice: Choice, update: int, total: int) -> float:
    """What update number ``update`` (from 1) of ``total`` multiplies every base rate by."""
    schedule = SCHEDULES.get(choice.name)
    options: Any = from_plain(schedule.Options, choice.options, "schedule.options")
    if options.first_update == "full":
        update -= 1
        if update == 0:
            return 1.0
    if update <= options.warmup:
        return update / options.warmup
    return schedule.decay(update, total, options)


def _half_cosine(k: int, start: int, stop: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (k - start) / (stop - start)))
