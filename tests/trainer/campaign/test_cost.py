"""What is left to compute: hours are those of runs that did the same work on the same device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from campaign_fakes import planned, sweep_of, write_run

from pipeline.base.files import read_json, write_json
from trainer.campaign.cost import Cost, left_to_do, seconds_left
from trainer.campaign.state import states
from trainer.campaign.sweep import PlannedRun, Sweep

UPDATES = 30
SHORT = {"epochs": 1, "batches_per_epoch": 1}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """d0, and a4r that starts from it; nothing is begun."""
    return sweep_of(tmp_path, [planned(0, "d0"), planned(1, "a4r", after=0)])


def measured(
    out: Path, run: PlannedRun, seconds: float, *, whole: float = 0.0, gpu: str = "", **over: Any
) -> None:
    """A run of which a step took so long, and, where given, all of it."""
    folder = write_run(out, run, **over)
    record = read_json(folder / "run.json")
    record["performance"] = {
        "segments_per_s": run.batch_size / seconds,
        "peak_memory": {"host": 1, "device": 1} if gpu else {"host": 1},
    }
    if gpu:
        record["device"] = gpu
    write_json(folder / "run.json", record)
    if whole:
        write_json(folder / "attempts.json", {"starts": 1, "seconds": whole})


def cost(sweep: Sweep) -> Cost:
    return left_to_do(sweep, states(sweep))


def hours(seconds: float) -> Any:
    return pytest.approx(seconds / 3600)


def other(name: str) -> dict[str, Any]:
    """Another front end than the fakes have."""
    return {"audio": {"frontend": {"name": name}}}


def test_where_nothing_was_measured_nothing_is_claimed(sweep: Sweep) -> None:
    found = cost(sweep)
    assert found == Cost(updates=2 * UPDATES)
    assert found.words() == (
        "60 updates are left; how long they take is not known: no run like them was finished here "
        "(xmodal-sweep preflight counts operations)"
    )


def test_where_nothing_is_left_nothing_is_claimed(sweep: Sweep) -> None:
    for run in sweep.runs:
        write_run(Path(sweep.out), run)
    assert cost(sweep).words() == "nothing is left to train"


def test_steps_take_what_those_of_the_same_arm_took(tmp_path: Path) -> None:
    runs = [planned(i, "d0", seed=i) for i in range(5)] + [planned(5, "a4"), planned(6, "a4r")]
    sweep = sweep_of(tmp_path, runs)
    for run, seconds in zip(runs[:3], (2.0, 3.0, 100.0), strict=True):
        measured(tmp_path, run, seconds)
    write_run(tmp_path, runs[3], status="interrupted", done=0.5)
    measured(tmp_path, runs[5], 7.0)
    found = cost(sweep)
    # d0: the median of its own; a4r, of which there is none: the median of all four.
    assert found.updates == found.of_updates == 15 + UPDATES + UPDATES
    assert found.hours == hours((15 + UPDATES) * 3.0 + UPDATES * 5.0)
    assert (found.measured, found.device, found.whole) == (4, "CPU", False)


@pytest.mark.parametrize(
    "over",
    [
        other("mel"), {"loss": {"name": "infonce", "options": {}}}, {"freeze": "none"},
        {"precision": "bf16"}, {"preset": "sound"}, {"size": "base"}, {"budget": {"batch_size": 4}},
    ],
    ids=lambda over: next(iter(over)),
)  # fmt: skip
def test_a_run_of_the_same_arm_that_does_other_work_tells_nothing(
    tmp_path: Path, over: dict[str, Any]
) -> None:
    runs = [planned(0, "d0"), planned(1, "d0", settings={"x": 1}, **over)]
    measured(tmp_path, runs[0], 2.0)
    measured(tmp_path, planned(0, "d0", seed=9), 2.0)
    found = cost(sweep_of(tmp_path, runs))
    assert (found.updates, found.hours) == (UPDATES, None)
    # Beside one that is known it is left out of the hours, and that is said.
    found = cost(sweep_of(tmp_path, [*runs, planned(2, "d0", seed=7)]))
    assert (found.hours, found.of_updates) == (hours(UPDATES * 2.0), UPDATES)
    assert found.words().endswith(
        "; 30 of them are in no hours: no run like theirs was finished here"
    )


def test_an_arm_that_was_measured_elsewhere(tmp_path: Path) -> None:
    runs = [planned(0, "d0"), planned(1, "d4")]
    sweep = sweep_of(tmp_path, runs)
    measured(tmp_path, runs[0], 2.0)
    measured(tmp_path, planned(0, "d4", seed=9, budget=SHORT), 11.0)
    measured(tmp_path, planned(0, "d4", seed=8, budget=SHORT), 13.0)
    # None of these is like it: another arm that begins alike, one that is not finished, a damaged one.
    measured(tmp_path, planned(0, "d4-a4r"), 1000.0)
    write_run(tmp_path, planned(0, "d4", seed=5), status="interrupted")
    for seed, text in ((4, "[]"), (3, "{"), (2, '{"arm": "d4", "config": 3}')):
        (write_run(tmp_path, planned(0, "d4", seed=seed)) / "run.json").write_text(text)
    found = cost(sweep)
    assert (found.updates, found.measured) == (UPDATES, 2)
    assert found.hours == hours(UPDATES * 12.0)


def test_own_runs_of_an_arm_come_before_those_elsewhere(tmp_path: Path) -> None:
    runs = [planned(0, "d0"), planned(1, "d0", seed=7)]
    measured(tmp_path, runs[0], 2.0)
    measured(tmp_path, planned(0, "d0", seed=9), 1000.0)
    assert cost(sweep_of(tmp_path, runs)).hours == hours(UPDATES * 2.0)


def test_times_of_another_device_are_not_mixed_in(tmp_path: Path) -> None:
    runs = [planned(i, "d0", seed=i) for i in range(4)]
    sweep = sweep_of(tmp_path, runs)
    measured(tmp_path, runs[0], 1.0, gpu="NVIDIA A")
    measured(tmp_path, runs[1], 1.0, gpu="NVIDIA A")
    measured(tmp_path, runs[2], 50.0)
    measured(tmp_path, planned(0, "d0", seed=9), 50.0, gpu="NVIDIA B")
    found = cost(sweep)
    assert (found.hours, found.device, found.measured) == (hours(UPDATES * 1.0), "NVIDIA A", 2)
    assert "of one NVIDIA A, evaluations not counted (from 2 finished runs)" in found.words()
    assert seconds_left(sweep, states(sweep), on_gpu=True) == {3: pytest.approx(UPDATES * 1.0)}
    assert seconds_left(sweep, states(sweep), on_gpu=False) == {3: pytest.approx(UPDATES * 50.0)}


def test_evaluations_and_scoring_are_counted_where_they_were_measured(tmp_path: Path) -> None:
    runs = [planned(0, "d0"), planned(1, "d0", seed=7), planned(2, "a4r")]
    sweep = sweep_of(tmp_path, runs)
    measured(tmp_path, runs[0], 2.0, whole=UPDATES * 2.0 * 1.5)
    found = cost(sweep)
    assert found.whole
    assert found.hours == hours(2 * UPDATES * 2.0 * 1.5)
    assert "with evaluations and scoring" in found.words()
    # A run that was begun twice has no time of its own; the share of the others counts.
    measured(tmp_path, runs[2], 4.0)
    measured(tmp_path, planned(3, "a4r", seed=5), 4.0)
    left = sweep_of(tmp_path, [*runs, planned(3, "a4r", seed=8)])
    assert cost(left).hours == hours(UPDATES * (2.0 + 4.0) * 1.5)


def test_a_run_that_is_still_to_be_scored_needs_no_steps(tmp_path: Path) -> None:
    runs = [planned(0, "d0"), planned(1, "d0", seed=7)]
    measured(tmp_path, runs[0], 2.0, splits=("validation",))
    found = cost(sweep_of(tmp_path, runs))
    assert (found.updates, found.measured) == (UPDATES, 1)
    assert found.hours == hours(UPDATES * 2.0)


@pytest.mark.parametrize(
    ("hours", "said"), [(0.25, "15 min"), (1.49, "89 min"), (1.5, "1.5 h"), (40.0, "40.0 h")]
)
def test_an_amount_is_said_in_minutes_or_hours(hours: float, said: str) -> None:
    known = Cost(updates=12345, hours=hours, of_updates=12345, measured=3, device="CPU", whole=True)
    assert known.words() == (
        f"12,345 updates are left, about {said} of one CPU, with evaluations and scoring (from 3 "
        "finished runs)"
    )
    assert "evaluations not counted" in dataclasses.replace(known, whole=False).words()
