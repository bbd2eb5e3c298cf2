"""Runs grouped by arm, compared on the same queries; floors beside them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from trainer_fakes import run_config

from trainer.analyses.comparison import (
    Comparison,
    comparison_table,
    draw_comparison,
    grouped,
    verdict,
)
from trainer.retrieval.compare import METRICS


def run_of(arm, seed, reads="x", **over):
    config = run_config("sound", arm, seed=seed, **over)
    name = arm if config.control.name == "real" else f"{arm}-{config.control.name}"
    return SimpleNamespace(config=config, record={"arm": name, "reads": {"store": reads}})


def test_runs_of_one_arm_are_those_that_differ_in_their_seed_alone():
    one = [run_of("a4r", seed) for seed in (1, 2, 3)]
    assert {k: len(v) for k, v in grouped([*one, run_of("d0", 1)]).items()} == {"a4r": 3, "d0": 1}
    others = [
        run_of("a4r", 1, budget={"batch_size": 32}),
        run_of("a4r", 1, evaluation={"every": 2}),
        run_of("a4r", 1, reads="another store"),
        run_of("a4r", 1, loss={"name": "siglip", "options": {}}),
    ]
    for other in others:
        groups = grouped([*one, other])
        assert len(groups) == 2
        assert [len(g) for g in groups.values()] == [3, 1]
    begun = run_of("a4r", 4)
    begun.record["init"] = "/nowhere/d0-0123456789ab"
    assert [len(g) for g in grouped([*one, begun]).values()] == [3, 1]
    control = run_of("a4r", 1, control={"name": "zero", "options": {}})
    assert list(grouped([*one, control])) == ["a4r", "a4r-zero"]


def found(difference, half, *, seeds=(3, 3), stated=None, p=0.1, unit="recordings"):
    one = {
        "first": 0.5, "second": 0.5 + difference, "difference": difference,
        "ci95": [difference - half, difference + half], "p_seeds": p, "smallest_p": 0.1,
        "p_queries": 0.01, "stated": abs(difference) > half if stated is None else stated,
    }  # fmt: skip
    return {
        "seeds": list(seeds),
        "trained": [True, True],
        "paired": True,
        "unit": unit,
        "units": 30,
        **dict.fromkeys(METRICS, one),
    }


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (found(0.2, 0.1), "higher"),
        (found(-0.2, 0.1), "lower"),
        (found(0.05, 0.1), "no difference shown"),
        (found(0.2, 0.1, seeds=(1, 1), stated=False), "fewer than 3 seeds: nothing is stated"),
        (
            found(0.2, 0.1, stated=False, unit="10-s blocks"),
            "fewer than 5 recordings: nothing is stated",
        ),
    ],
)
def test_the_verdict_says_what_may_be_said(data, word):
    assert verdict(data["S"], data) == word
    table = comparison_table([Comparison(first="d0", second="a4r", found=data)])
    assert len(table.rows) == len(METRICS)
    assert table.rows[0][0] == "a4r – d0"
    assert table.rows[0][-1] == word
    assert len(table.head) == len(table.rows[0])


def test_differences_are_drawn_with_their_intervals():
    figure = Figure()
    draw_comparison([Comparison(first="d0", second="a4r", found=found(0.2, 0.1))], figure)
    interval, middle = figure.axes[0].get_lines()[:2]
    assert np.allclose(interval.get_xdata(), [0.1, 0.3])
    assert np.allclose(middle.get_xdata(), 0.2)
