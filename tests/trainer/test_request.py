"""What a user says becomes one resolved configuration, or one line of complaint."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.base.console import Console
from pipeline.base.errors import ConfigError
from trainer.config import SIZES
from trainer.model import build_model, parameter_inventory
from trainer.recipes import RECIPES
from trainer.request import Wanted, lay_over, parse_settings, run_requests, settings_of
from trainer.resolve import resolve


def requests(**wanted):
    return run_requests(
        Wanted(**wanted), store=Path("store"), device="cpu", console=Console(quiet=True)
    )


def config(**wanted):
    (request,) = requests(**{"size": "tiny", **wanted})
    return request.config


def test_flags_win_over_the_file_and_settings_over_all(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('preset = "paper"\nseed = 7\n[budget]\nepochs = 2\nbatch_size = 4\n')
    found = config(
        config=file,
        over={"budget": {"epochs": 3, "batch_size": None}},
        settings=["budget.epochs=4", "loss.name=siglip", "evaluation.every = 2"],
    )
    assert (found.preset, found.seed, found.budget.epochs, found.budget.batch_size) == (
        "paper", 7, 4, 4,
    )  # fmt: skip
    assert found.loss.name == "siglip"
    assert found.evaluation.every == 2


def test_a_thing_chosen_by_name_brings_its_own_options():
    found = config(
        over={"audio": {"frontend": {"name": "wave"}}, "schedule": {"name": "trapezoidal"}}
    )
    assert set(found.audio.frontend.options) == {"layers", "groups"}
    preset = resolve(lay_over("sound", "tiny")).schedule.options
    kept = found.schedule.options
    assert {k: kept[k] for k in preset} == preset  # warm-up is cosine's too
    assert kept["hold"] == 0.5


def test_a_files_own_layers_outlive_another_front_end(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        '[audio.frontend]\nname = "wave"\noptions = {layers = [[128, 512, 512, 0]], groups = 8}\n'
    )
    found = config(config=file, settings=["audio.frontend.name=wave-frozen"])
    assert found.audio.frontend.name == "wave-frozen"
    assert found.audio.frontend.options["layers"] == [[128, 512, 512, 0]]


def test_pairs_take_options():
    found = config(pairs=[("A4", "moe")], settings=["pairs.A4-moe.gate=top1"])
    assert found.pairs[0].options["gate"] == "top1"
    assert found.pairs[0].options["start"] == "zero"
    named = config(arm="moe-a4-v2", settings=["pairs.A4-moe.noise_last=0.2"])
    assert named.pairs[0].options["noise_last"] == 0.2
    assert named.pairs[0].options["start"] == "normal"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"settings": ["loss"]}, "KEY=VALUE"),
        ({"settings": ["=3"]}, "KEY=VALUE"),
        ({"settings": ["loss=siglip"]}, "loss.name = NAME"),
        ({"settings": ["schedule=cosine"]}, "schedule.name = NAME"),
        ({"settings": ["loss.name=5"]}, "loss.name = NAME"),
        ({"settings": ["loss.name=siglip", "loss.options=5"]}, "must be a table"),
        ({"settings": ["audio=5"]}, "must be a table"),
        ({"settings": ["preset=paper"]}, "use --preset"),
        ({"settings": ["size=base"]}, "use --size"),
        ({"settings": ["pairs=5"]}, "give DESCRIPTOR-MECHANISM"),
        ({"settings": ["pairs.A4-moe=5"]}, "give DESCRIPTOR-MECHANISM"),
        ({"settings": ["midi.transformer.attention_dropout=1.5"]}, "below 1"),
        ({"settings": ["mechanisms.dropout=-0.1"]}, "at least 0"),
        (
            {"pairs": [("A4", "third_tower")], "settings": ["pairs.A4-third_tower.heads=0"]},
            "at least 1",
        ),
        ({"settings": ["loss.nme=siglip"]}, "unknown"),
        ({"settings": ["budget.epochs=many"]}, "must be int"),
        ({"settings": ["pairs.A4-moe.gate=top1"]}, "this run has none"),
        ({"pairs": [("A4", "moe")], "settings": ["pairs.A4-moe.gat=top1"]}, "unknown"),
        ({"pairs": [("A4", "moe")], "settings": ["pairs.A4-moe.experts=1"]}, "at least 2"),
        ({"over": {"loss": {"name": "hinge"}}}, "unknown loss"),
        ({"recipe": "soup"}, "known: foundation"),
        ({"pairs": [("A4", "third_tower"), ("D4", "third_tower")]}, "both take the view slot"),
        ({"arm": "b4"}, "unknown arm"),
        ({"preset": "sound", "arm": "d4a4cm"}, "--preset paper"),
    ],
)
def test_what_cannot_be_is_one_line(wanted, words):
    with pytest.raises(ConfigError, match=words) as caught:
        config(**wanted)
    assert "\n" not in str(caught.value)


def test_settings_are_toml_or_words():
    assert parse_settings(["a.b=3", "a.c=[1, 2]", "a.d=word", 'e="x y"', "f=true"]) == {
        "a": {"b": 3, "c": [1, 2], "d": "word"},
        "e": "x y",
        "f": True,
    }


@pytest.mark.parametrize(
    "wanted",
    [
        {"arm": "moe-a4-v2", "preset": "paper"},
        {"pairs": [("A4", "third_tower"), ("D4", "concat")], "preset": "sound"},
        {"arm": "t3-tri", "settings": ["evaluation.epochs=[3, 5]"]},
    ],
)
def test_every_setting_that_is_shown_may_be_set(wanted):
    found = config(**wanted)
    again = config(**{**wanted, "settings": settings_of(found)})
    assert again == found
    assert "seed=42" in settings_of(found)


def test_epochs_to_evaluate_may_be_listed():
    found = config(settings=["evaluation.epochs=[10, 28]"]).evaluation
    assert [e for e in range(1, 31) if found.due(e, 30)] == [10, 28, 30]
    found = config(settings=["evaluation.first=25"]).evaluation
    assert [e for e in range(1, 31) if found.due(e, 30)] == [25, 26, 27, 28, 29, 30]
    with pytest.raises(ConfigError, match="at least 1 each"):
        config(settings=["evaluation.epochs=[0]"])


@pytest.mark.parametrize("size", SIZES)
def test_the_foundation_is_two_runs_of_the_reference(size):
    first, second = (r.config for r in requests(recipe="foundation", preset="paper", size=size))
    assert len(RECIPES["foundation"][size]) == 2
    rates = {g.name: g.lr for g in first.optimizer.groups}
    assert rates["midi"] == 1e-4
    assert rates["heads"] == 1e-3
    counts = {row.module: row.trainable for row in parameter_inventory(build_model(first, "meta"))}
    assert counts["audio.transformer"] == 0
    assert counts["midi"] > 0
    assert second.freeze == "run-d"
    assert {g.name: g.lr for g in second.optimizer.groups}["audio-upper"] == 1e-5
    assert first.evaluation.first == first.budget.epochs  # the last epoch counts
    if size == "base":
        assert (first.budget.updates, first.schedule.options["warmup"]) == (45_000, 500)
        assert (second.budget.updates, second.schedule.options["warmup"]) == (30_000, 200)


def test_flags_reach_every_stage_of_a_recipe():
    for request in requests(
        recipe="foundation", size="tiny", over={"budget": {"epochs": 1}}, seed=5
    ):
        assert request.config.budget.epochs == 1
        assert request.config.seed == 5
