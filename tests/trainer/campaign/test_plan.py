"""From a manifest and a store to runs: their order, what they start from, what cannot be."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.config import from_plain
from pipeline.base.errors import ConfigError
from pipeline.base.files import read_json, write_json
from pipeline.descriptors import DESCRIPTORS
from pipeline.store import Store
from pipeline.store.schema import seal
from trainer import plan as planning
from trainer.campaign.manifest import Campaign, read_campaign
from trainer.campaign.plan import plan_campaign
from trainer.campaign.standing import entries_of
from trainer.campaign.state import states
from trainer.campaign.sweep import Sweep
from trainer.config import RunConfig
from trainer.mechanisms import MECHANISMS
from trainer.plan import Planner, RunRequest, plan_run

HEAD = """
title = "Some runs"
corpus = "tiny"
size = "tiny"
{top}
[settings.budget]
epochs = 2
batches_per_epoch = 3
batch_size = 4
"""
BASE = '[[runs]]\nname = "base"\narms = ["d0"]\n'
ARMS = '[[runs]]\nname = "arms"\nfrom = "base"\narms = ["a4r", "d4a4"]\n'
Make = Callable[..., Sweep]


def written(folder: Path, body: str, *, top: str = "", name: str = "own") -> Campaign:
    file = folder / f"{name}.toml"
    file.write_text(HEAD.format(top=top) + body, encoding="utf-8")
    return read_campaign(str(file))


@pytest.fixture
def make(split_store: Store, tmp_path: Path) -> Make:
    """Plan a manifest of these groups, in a folder of runs of the test's own."""

    def made(body: str = BASE + ARMS, *, store: Path | None = None, **rest: Any) -> Sweep:
        campaign = written(tmp_path, body, **rest)
        return plan_campaign(campaign, store or split_store.path, tmp_path / "runs")

    return made


@pytest.fixture
def copied(split_store: Store, tmp_path: Path) -> Path:
    """The folder of a copy of the store that a test may change."""
    target = tmp_path / "features" / split_store.path.name
    return Path(shutil.copytree(split_store.path, target))


def by_arm(sweep: Sweep) -> dict[str, str]:
    return {run.arm: run.signature for run in sweep.runs}


def test_runs_are_in_order_and_say_what_they_start_from(make: Make) -> None:
    top = 'seeds = [42, 7]\nsummary = "Said."\nreference = "seeds"'
    sweep = make(BASE + "seeds = [3]\n" + ARMS, top=top)
    assert [(r.group, r.label, r.seed, r.after) for r in sweep.runs] == [
        ("base", "d0, seed 3", 3, None),
        ("arms", "a4r, seed 42", 42, 0),
        ("arms", "a4r, seed 7", 7, 0),
        ("arms", "d4a4, seed 42", 42, 0),
        ("arms", "d4a4, seed 7", 7, 0),
    ]
    assert [run.index for run in sweep.runs] == list(range(5))
    assert (sweep.name, sweep.title, sweep.summary) == ("own", "Some runs", "Said.")
    assert sweep.reference == "seeds"
    run = sweep.runs[1]
    assert sweep.path(run) == Path(sweep.out) / f"a4r-{run.signature}"
    assert sweep.folder == Path(sweep.out) / "campaigns" / f"own-{sweep.store_name}"
    assert (run.updates, run.batch_size, run.evaluations) == (6, 4, 2)
    assert set(run.reads) == {"audio", "A4"}
    assert 0 < run.trainable < run.parameters
    assert not run.leaks


def test_a_run_is_the_one_that_the_trainer_would_make(make: Make) -> None:
    sweep = make()
    for run in sweep.runs:
        config = from_plain(RunConfig, run.config)
        request = RunRequest(config=config, store=Path(sweep.store), out=Path(sweep.out))
        start = None if run.after is None else sweep.runs[run.after].signature
        plan = plan_run(request, init=start)
        assert (plan.signature, plan.folder) == (run.signature, sweep.path(run))
        assert (plan.reads, plan.parameters) == (run.reads, run.parameters)


def test_stages_of_a_recipe_start_from_each_other_and_the_last_starts_the_rest(
    make: Make,
) -> None:
    recipe = '[[runs]]\nname = "first"\nrecipe = "foundation"\n'
    sweep = make(recipe + ARMS.replace('"base"', '"first"'), top="seeds = [9, 8]")
    assert [(r.label, r.after) for r in sweep.runs] == [
        ("gate-2, seed 9", None), ("d-02, seed 9", 0), ("a4r, seed 9", 1), ("a4r, seed 8", 1),
        ("d4a4, seed 9", 1), ("d4a4, seed 8", 1),
    ]  # fmt: skip
    assert sweep.runs[0].updates == 300  # a recipe knows its own budget
    assert make(recipe + "seeds = [5]\n").runs[0].seed == 5


def test_a_changed_beginning_makes_other_runs_of_those_that_start_from_it(make: Make) -> None:
    sweep = make()
    other = make(BASE + "settings = { divergence_factor = 9.0 }\n" + ARMS)
    apart = make(BASE + ARMS.replace('from = "base"\n', ""))
    for mine, changed, alone in zip(sweep.runs[1:], other.runs[1:], apart.runs[1:], strict=True):
        assert mine.config == changed.config == alone.config
        assert len({mine.signature, changed.signature, alone.signature}) == 3
    assert apart.runs[0].signature == sweep.runs[0].signature


def test_the_same_run_of_two_campaigns_has_one_folder(make: Make) -> None:
    sweep, other = make(name="one"), make(BASE + ARMS.replace('"a4r", ', ""), name="two")
    assert sweep.folder != other.folder
    assert [sweep.path(r) for r in sweep.runs if r.arm != "a4r"] == [
        other.path(r) for r in other.runs
    ]


def test_settings_that_vary_are_combined(make: Make) -> None:
    vary = 'vary = { "loss.name" = ["vicreg", "siglip"], "budget.epochs" = [1, 3] }\n'
    sweep = make(BASE + vary)
    assert [run.label for run in sweep.runs] == [
        f"d0, loss {loss}, budget.epochs {epochs}, seed 42"
        for loss in ("vicreg", "siglip")
        for epochs in (1, 3)
    ]
    for run in sweep.runs:
        assert run.settings["loss.name"] == run.config["loss"]["name"]
        assert run.settings["budget.epochs"] == run.config["budget"]["epochs"]
        assert run.config["budget"]["batch_size"] == 4
        assert run.updates == 3 * run.settings["budget.epochs"]
    zero = make('[[runs]]\nname = "x"\narms = ["a4"]\nvary = { "control.name" = ["zero"] }\n')
    assert zero.runs[0].arm == "a4-zero"
    assert zero.runs[0].folder.startswith("a4-zero-")
    assert make('[[runs]]\nname = "x"\narms = ["d4a4cm"]\n').runs[0].leaks


BAD = [
    (BASE.replace("d0", "a44"), "unknown arm 'a44'"),
    (BASE + "settings = { budgets = {} }\n", "budgets is unknown"),
    (BASE + 'vary = { "loss.kind" = ["vicreg"] }\n', "kind is unknown"),
    (BASE.replace('["d0"]', '["d0", "d0"]'), "names one run twice: 'd0, seed 42' of base and"),
    (
        BASE + '[[runs]]\nname = "x"\narms = ["d0"]\nvary = { "loss.name" = ["vicreg"] }\n',
        "twice: 'd0, seed 42' of base and 'd0, loss vicreg, seed 42' of x",
    ),
    (BASE + "seeds = [1, 2]\n" + ARMS, "'arms' start from 'base', which is 2 runs"),
    (BASE + 'vary = { "control.name" = ["zero"] }\n', "control = zero: an arm without"),
]


def test_an_arm_of_two_groups_is_called_by_its_group(make: Make) -> None:
    other = '[[runs]]\nname = "siglip"\narms = ["d0", "a4r"]\n'
    settings = 'settings = { loss = { name = "siglip" } }\n'
    sweep = make(BASE + "seeds = [3]\n" + other + settings, top="seeds = [3, 4]")
    assert [r.label for r in sweep.runs] == [
        "d0, base, seed 3",
        "d0, siglip, seed 3",  # and all seeds of it are called alike
        "d0, siglip, seed 4",
        "a4r, seed 3",
        "a4r, seed 4",
    ]
    entries = entries_of(sweep, states(sweep))
    assert [(e.label, len(e.runs)) for e in entries] == [
        ("d0, base", 1), ("d0, siglip", 2), ("a4r", 2),
    ]  # fmt: skip
    assert not any(e.is_stage for e in entries)


@pytest.mark.parametrize(("body", "told"), BAD)
def test_what_cannot_be_planned(make: Make, tmp_path: Path, body: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(body)
    assert not (tmp_path / "runs").exists()


def test_a_store_of_another_corpus_is_refused(split_store: Store, tmp_path: Path) -> None:
    campaign = dataclasses.replace(written(tmp_path, BASE), corpus="maestro")
    with pytest.raises(ConfigError, match=r"'maestro'.* is of 'tiny'"):
        plan_campaign(campaign, split_store.path, tmp_path / "runs")


def test_arrays_that_the_store_has_not_are_listed(make: Make, copied: Path) -> None:
    body = BASE.replace('["d0"]', '["d0", "a4", "a7", "a9"]')
    sweep = make(body, store=copied)
    assert {run.arm: run.missing for run in sweep.runs} == {
        "d0": (), "a4": (), "a7": ("A7",), "a9": ("A9",),
    }  # fmt: skip
    assert sweep.missing == ["A7", "A9"]
    record = read_json(copied / "store.json")
    added = DESCRIPTORS.get("A7").fingerprint(record["identity"])
    record["arrays"]["A7"] = {**record["arrays"]["A4"], "fingerprint": added}
    write_json(copied / "store.json", seal(record))
    then = make(body, store=copied)
    assert then.missing == ["A9"]
    assert by_arm(then) == by_arm(sweep)


GRID = '[[runs]]\nname = "grid"\ndescriptors = {}\nmechanisms = {}\n'


def pairs_of(sweep: Sweep) -> list[str]:
    return [
        f"{p['descriptor']} {p['mechanism']}" for run in sweep.runs for p in run.config["pairs"]
    ]


def test_a_grid_leaves_out_what_cannot_be_and_says_why(make: Make) -> None:
    sweep = make(GRID.format('["A4", "A4_level"]', '["concat", "xattn"]'), top="seeds = [1, 2]")
    can = ["A4 concat", "A4 concat", "A4 xattn", "A4 xattn", "A4_level concat", "A4_level concat"]
    assert pairs_of(sweep) == can
    assert [run.seed for run in sweep.runs] == [1, 2] * 3
    (left,) = sweep.skipped
    assert left.what == "A4_level xattn"
    assert "takes per-frame descriptors; A4_level is one value per segment" in left.why
    assert make(BASE).skipped == ()


def test_a_grid_leaves_out_what_no_model_can_be_made_of(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = planning._buildable

    def buildable(config: RunConfig) -> Any:
        if config.pairs[0].mechanism == "concat":
            raise ConfigError("no model can be made of this configuration: too wide")
        return real(config)

    monkeypatch.setattr(planning, "_buildable", buildable)
    sweep = make(GRID.format('["A4"]', '["concat", "xattn"]'), top="seeds = [1, 2]")
    assert [(s.what, s.why.rpartition(": ")[2]) for s in sweep.skipped] == [
        ("A4 concat", "too wide")
    ]
    assert [(run.index, run.arm) for run in sweep.runs] == [(0, "a4x"), (1, "a4x")]
    with pytest.raises(ConfigError, match="too wide"):
        make(BASE.replace("d0", "a4"))


def test_the_grid_tries_every_descriptor_with_every_mechanism(
    split_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def one_model(self: Planner, config: RunConfig) -> Any:
        if not made:
            model = planning._buildable(config)
            made.append((model, planning.parameter_inventory(model)))
        return made[0]

    monkeypatch.setattr(Planner, "_model", one_model)
    campaign = dataclasses.replace(read_campaign("grid", tiny=True), corpus="tiny")
    sweep = plan_campaign(campaign, split_store.path, tmp_path / "runs")
    every = {
        f"{name} {mechanism}"
        for name, descriptor in DESCRIPTORS.items()
        for mechanism in MECHANISMS
        if descriptor.role == "descriptor"
    }
    tried, left = pairs_of(sweep), [skipped.what for skipped in sweep.skipped]
    assert len(every) >= 200
    assert sorted([*tried, *left]) == sorted(every)
    assert all(len(skipped.why) > 20 for skipped in sweep.skipped)
    assert len(tried) > 10 * len(left) > 0
    assert {run.after for run in sweep.runs if run.group == "pairs"} == {1}
