"""Runs grouped by arm, compared on the same queries; floors beside them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from trainer_fakes import run_config

from pipeline.base.config import to_plain
from trainer.analyses.comparison import (
    Comparison,
    compare_runs,
    comparison_table,
    draw_comparison,
    grouped,
    unlike,
    verdict,
)
from trainer.arms import ARMS
from trainer.config import common_settings, differing
from trainer.retrieval.compare import METRICS, Scored


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


def benches(level, arm, drawn, **over):
    """Three seeds of an arm that finds first places with probability ``level``; 30 recordings."""
    made = []
    for seed in (1, 2, 3):
        run = run_of(arm, seed, **over)
        run.path = f"{arm}-{drawn}-{seed}"
        rng = np.random.default_rng([drawn, seed])
        columns = {
            "segment": np.arange(600),
            "recording": np.repeat(np.arange(30), 20),
            "start_s": np.tile(np.arange(20.0), 30),
            **{side: np.where(rng.random(600) < level, 0, 50) for side in ("a2m", "m2a")},
        }
        record = dict.fromkeys(("protocol", "split", "store_identity", "pool_hash"), "same")
        scored = Scored(name=run.path, seed=seed, record=record, columns=columns)
        made.append(
            SimpleNamespace(
                run=run, store=None, split="test", scored=lambda protocol, pools, s=scored: s
            )
        )
    return made


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"budget": {"epochs": 60}}, "budget.epochs"),
        ({"budget": {"batch_size": 8}}, "budget.batch_size"),
        ({"evaluation": {"every": 5}}, "evaluation.every"),
        ({"evaluation": {"epochs": [1, 2]}}, "evaluation.epochs"),
        ({"loss": {"name": "siglip"}}, "loss.name"),
        ({"precision": "bf16"}, "precision"),
        ({"freeze": "run-d"}, "freeze"),
        ({"reads": "another store"}, "the data (store)"),
    ],
)
def test_a_difference_between_runs_that_differ_in_more_than_their_arm_is_not_stated(over, words):
    """The published tables set 60 epochs beside one, and five chances to be best beside two."""

    def compared(**over):
        runs = [*benches(0.5, "d0", 0), *benches(0.8, "a4r", 7, **over)]
        (c,) = compare_runs(runs, "strict", baselines=[], cache=None)
        return c, comparison_table([c]).rows[0][-1]

    c, said = compared()
    assert c.found["S"]["stated"]
    assert said == "higher"
    c, said = compared(**over)
    assert not any(c.found[metric]["stated"] for metric in METRICS)
    assert c.found["S"]["ci95"][0] > 0.05  # it is the settings that forbid it
    assert said.startswith("differ in ")
    assert words in said
    assert said.endswith(": nothing is stated")


def test_what_runs_started_from_is_a_setting(tmp_path):
    first, second = run_of("d0", 1), run_of("a4r", 1)
    assert unlike(first, second) == []
    second.record["init"] = str(tmp_path / "d0-0123456789ab")
    assert unlike(first, second) == ["the beginning (--init)"]
    first.record["init"] = second.record["init"]
    assert unlike(first, second) == []


def test_a_verdict_lists_some_settings_and_counts_the_others():
    paper = SimpleNamespace(config=run_config("paper", "a4r"), record={"reads": {}})
    named = unlike(run_of("d0", 1), paper)
    assert named[0] == "preset"
    data = found(0.2, 0.1, stated=False) | {"unlike": named}
    said = verdict(data["S"], data)
    assert said == f"differ in {', '.join(named[:4])} and {len(named) - 4} more: nothing is stated"


@pytest.mark.parametrize("preset", ["paper", "sound"])
def test_no_named_arm_brings_other_settings_with_it(preset):
    settings = common_settings(to_plain(run_config(preset, "d0")))
    leaks = {"d4a4cm"} if preset == "sound" else set()  # refused there
    for arm in set(ARMS) - leaks:
        config = run_config(preset, arm)
        assert differing(settings, common_settings(to_plain(config))) == [], arm
        other = dataclasses.replace(config, seed=7)
        assert differing(common_settings(to_plain(other)), settings) == [], arm


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
