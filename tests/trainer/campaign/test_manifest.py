"""Manifests: what those that come with xmodal name, at both sizes; what a manifest cannot say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError
from pipeline.descriptors import DESCRIPTORS
from trainer.arms import FAMILIES, SCREENING, arm_pairs
from trainer.campaign import manifest as module
from trainer.campaign.manifest import Campaign, Group, known_campaigns, read_campaign
from trainer.campaign.recorded import known_recorded
from trainer.config import RunConfig
from trainer.losses import LOSSES
from trainer.recipes import stages
from trainer.request import lay_over, parse_settings
from trainer.resolve import with_pairs

NAMES = (
    "encoders", "families", "foundation", "grid", "matched", "schedules", "screening", "seeds",
)  # fmt: skip
EPOCHS = {
    "encoders": 10, "families": 5, "grid": 5, "matched": 30, "schedules": 60, "screening": 5,
    "seeds": 30,
}  # fmt: skip
FOUNDED = ("screening", "families", "grid")
ARMS = '\n[[runs]]\nname = "arms"\narms = ["d0"]\n'
HEAD = 'title = "Title"\ncorpus = "tiny"\n'


def written(folder: Path, text: str, *, tiny: bool = False, name: str = "own") -> Campaign:
    file = folder / f"{name}.toml"
    file.write_text(text, encoding="utf-8")
    return read_campaign(str(file), tiny=tiny)


def group_of(name: str, group: str = "arms", *, tiny: bool = False) -> tuple[Campaign, Group]:
    campaign = read_campaign(name, tiny=tiny)
    (found,) = (g for g in campaign.groups if g.name == group)
    return campaign, found


def configs(campaign: Campaign, group: Group) -> list[RunConfig]:
    """Of every arm and variation, without seeds."""
    return [
        with_pairs(
            lay_over(
                campaign.preset,
                campaign.size,
                campaign.settings,
                group.settings,
                parse_settings([f"{key}={value}" for key, value in varied.items()]),
            ),
            arm_pairs(arm),
        )
        for varied in group.variations()
        for arm in group.arms
    ]


def test_the_campaigns_that_come_with_xmodal() -> None:
    assert tuple(known_campaigns()) == NAMES
    for name in NAMES:
        big, small = read_campaign(name), read_campaign(name, tiny=True)
        assert (big.name, big.corpus, big.size, big.preset) == (name, "maestro", "base", "paper")
        assert (small.name, small.corpus, small.size) == (f"{name}-tiny", "demo", "tiny")
        assert [g.name for g in small.groups] == [g.name for g in big.groups]
        assert small.seeds == big.seeds
        assert min(len(big.title), len(big.summary), len(big.source)) > 5
        assert big.reference is None or big.reference in known_recorded()


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("name", EPOCHS)
def test_every_arm_can_be_and_has_the_budget_of_its_campaign(name: str, tiny: bool) -> None:
    campaign = read_campaign(name, tiny=tiny)
    found = [c for group in campaign.groups if group.arms for c in configs(campaign, group)]
    budgets = {
        (c.budget.epochs, c.budget.batches_per_epoch, c.budget.batch_size, c.size) for c in found
    }
    assert budgets == {(5, 60, 16, "tiny") if tiny else (EPOCHS[name], 1000, 16, "base")}


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("name", [*FOUNDED, "foundation"])
def test_the_foundation_has_its_own_budget_and_at_tiny_size_that_of_all(
    name: str, tiny: bool
) -> None:
    campaign = read_campaign(name, tiny=tiny)
    group = next(group for group in campaign.groups if group.recipe is not None)
    assert group.recipe is not None
    found = [
        lay_over(campaign.preset, campaign.size, stage.over, group.settings)
        for stage in stages(group.recipe, campaign.size)
    ]
    budgets = [(c.budget.epochs, c.budget.batches_per_epoch, c.budget.batch_size) for c in found]
    assert budgets == ([(5, 60, 16)] * 2 if tiny else [(45, 1000, 16), (30, 1000, 16)])


def test_when_runs_are_evaluated() -> None:
    def due(name: str, tiny: bool) -> set[tuple[int, ...]]:
        campaign = read_campaign(name, tiny=tiny)
        found = [c for group in campaign.groups if group.arms for c in configs(campaign, group)]
        return {
            tuple(e for e in range(1, c.budget.epochs + 1) if c.evaluation.due(e, c.budget.epochs))
            for c in found
        }

    expected: dict[str, tuple[int, ...]] = {
        "screening": (1, 2, 3, 4, 5),
        "families": (1, 2, 3, 4, 5),
        "grid": (1, 2, 3, 4, 5),
        "seeds": (25, 26, 27, 28, 29, 30),
        "schedules": tuple(range(5, 61, 5)),
        "matched": (5, 10, 15, 20, 25, 28, 29, 30),
        "encoders": tuple(range(1, 11)),
    }
    assert {name: due(name, tiny=False) for name in expected} == {
        name: {epochs} for name, epochs in expected.items()
    }
    assert {name: due(name, tiny=True) for name in expected} == {
        name: {(1, 2, 3, 4, 5)} for name in expected
    }


def test_screening_and_families_name_every_arm_of_their_phase() -> None:
    _, screening = group_of("screening")
    assert len(screening.arms) == 13
    assert set(screening.arms) == set(SCREENING)
    _, families = group_of("families")
    assert len(FAMILIES) == 11
    assert sorted(families.arms) == sorted(["d0", *FAMILIES])


@pytest.mark.parametrize("name", [*FOUNDED, "foundation"])
def test_who_starts_from_the_foundation(name: str) -> None:
    first, *rest = read_campaign(name).groups
    assert (first.name, first.recipe, first.start) == ("foundation", "foundation", None)
    assert {group.start for group in rest} == ({"foundation"} if rest else set())


def test_what_varies_in_the_others() -> None:
    five = (42, 123, 456, 789, 1337)
    seeds, group = group_of("seeds")
    assert seeds.seeds == five
    assert sorted(group.arms) == sorted(["d0", "a4r", "d4-a4r", "d4a4"])
    _, group = group_of("schedules")
    assert list(group.variations()) == [
        {"schedule.name": name} for name in ("cosine", "trapezoidal", "cosine-tail")
    ]
    assert len(group.arms) >= 3
    matched, group = group_of("matched", "d4a4")
    assert group.arms == ("d4a4",)
    assert len(matched.seeds) == 3
    controls = ["real", "zero", "random", "shuffled"]
    assert [v["control.name"] for v in group.variations()] == controls
    _, group = group_of("encoders")
    combined = [(v["audio.frontend.name"], v["loss.name"]) for v in group.variations()]
    assert len(combined) == len(set(combined)) == 9
    assert {loss for _, loss in combined} == {"vicreg", "infonce", "siglip"} <= set(LOSSES)
    assert {end for end, _ in combined} == {"wave-frozen", "wave", "mel"}
    _, group = group_of("grid", "pairs")
    assert (group.descriptors, group.mechanisms) == (("all",), ("all",))
    assert len(DESCRIPTORS.names()) > 5


def test_tiny_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    text = (
        f"{HEAD}seeds = [1, 2]\n[settings.budget]\nepochs = 9\nbatch_size = 8\n"
        '[tiny]\ncorpus = "demo"\n[tiny.settings.budget]\nepochs = 2\n'
        '[[runs]]\nname = "arms"\narms = ["d0", "a4"]\n[runs.tiny]\narms = ["a4"]\n'
    )
    big, small = written(tmp_path, text), written(tmp_path, text, tiny=True)
    assert (big.size, big.corpus, big.groups[0].arms) == ("base", "tiny", ("d0", "a4"))
    assert big.settings == {"budget": {"epochs": 9, "batch_size": 8}}
    assert (small.size, small.corpus, small.groups[0].arms) == ("tiny", "demo", ("a4",))
    assert small.settings == {"budget": {"epochs": 2, "batch_size": 8}}
    assert (small.seeds, small.title, small.name) == ((1, 2), "Title", "own-tiny")


def test_the_key_changes_with_everything_that_a_manifest_says(tmp_path: Path) -> None:
    texts = [
        HEAD + ARMS,
        HEAD.replace("Title", "Other") + ARMS,
        HEAD + "seeds = [7]\n" + ARMS,
        HEAD + '[settings]\nfreeze = "none"\n' + ARMS,
        HEAD + ARMS.replace("d0", "a4"),
        HEAD + ARMS + "seeds = [7]\n",
        HEAD + ARMS + 'vary = { "loss.name" = ["vicreg"] }\n',
    ]
    keys = [written(tmp_path, text).key for text in texts]
    assert len(set(keys)) == len(texts)
    assert written(tmp_path, texts[0]).key == keys[0]
    assert written(tmp_path, texts[0], tiny=True).key not in keys


def test_a_manifest_has_the_name_of_its_file_and_those_that_are_known_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written(tmp_path, HEAD + ARMS, name="mine").name == "mine"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "screening").write_text(HEAD + ARMS, encoding="utf-8")
    assert read_campaign("screening").corpus == "maestro"


def test_an_unknown_campaign_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    for name in ("screaming", str(tmp_path), str(tmp_path / "none.toml")):
        with pytest.raises(ConfigError, match=f"no campaign '{re.escape(name)}'.*screening, seeds"):
            read_campaign(name)


FIRST = '[[runs]]\nname = "first"\n'
RECIPE = HEAD + FIRST + 'recipe = "foundation"\n'
SELF = HEAD + FIRST + 'arms = ["d0"]\nfrom = "first"\n'
LATER = HEAD + FIRST + 'arms = ["d0"]\nfrom = "later"\n[[runs]]\nname = "later"\narms = ["a4"]\n'
BOTH = HEAD + FIRST + 'arms = ["d0"]\ndescriptors = ["A4"]\nmechanisms = ["xattn"]\n'
ONE_OF = "'first': give one of recipe, arms, or descriptors and mechanisms"
NO_RUNS = r"give at least one \[\[runs\]\] table"
TOGETHER = "'first': descriptors and mechanisms go together"
LIST = "'arms': vary.\"loss.name\" must be a list"
ONE_SEED = "'first': a recipe has one seed, and nothing in it varies"
BAD = [
    ("title = \n", "is not valid TOML"),
    (HEAD + "heading = 1\n" + ARMS, "own.toml.heading is unknown"),
    (HEAD + FIRST + 'arm = "d0"\n', r"runs\[0\].arm is unknown"),
    ('title = "x"\n' + ARMS, "corpus is missing"),
    (HEAD + '[[runs]]\narms = ["d0"]\n', r"runs\[0\].name is missing"),
    (HEAD + 'size = "huge"\n' + ARMS, "size = 'huge': must be one of base, tiny"),
    (HEAD, NO_RUNS),
    (HEAD + "runs = []\n", NO_RUNS),
    (HEAD + '[runs]\nname = "x"\n', NO_RUNS),
    (HEAD + "runs = [3]\n", NO_RUNS),
    (HEAD + FIRST, ONE_OF),
    (RECIPE + 'arms = ["d0"]\n', ONE_OF),
    (RECIPE + 'mechanisms = ["xattn"]\n', ONE_OF),
    (BOTH, ONE_OF),
    (HEAD + FIRST + 'descriptors = ["A4"]\n', TOGETHER),
    (HEAD + FIRST + 'mechanisms = ["all"]\n', TOGETHER),
    (HEAD + ARMS + ARMS, "two groups are called 'arms'"),
    (LATER, "'first' start from 'later', which is not a group above"),
    (SELF, "'first' start from 'first', which is not a group above"),
    (HEAD + ARMS + 'vary = { "loss.name" = "vicreg" }\n', LIST),
    (HEAD + ARMS + 'vary = { "loss.name" = [] }\n', LIST),
    (HEAD + ARMS + "vary = 3\n", "vary = 3: must be a table"),
    (RECIPE + "seeds = [1, 2]\n", ONE_SEED),
    (RECIPE + 'vary = { "loss.name" = ["vicreg"] }\n', ONE_SEED),
    (HEAD + "seeds = []\n" + ARMS, "seeds must not be empty"),
    (HEAD + "tiny = 3\n" + ARMS, "tiny must be a table"),
    (HEAD + ARMS + "tiny = true\n", "tiny must be a table"),
    (HEAD + "[settings]\nseed = 3\n" + ARMS, "seed is no setting here: say seeds"),
    (HEAD + ARMS + 'settings = { size = "tiny" }\n', "size is no setting here: say size"),
    (HEAD + ARMS + 'vary = { preset = ["sound"] }\n', "preset is no setting here: say preset"),
]


@pytest.mark.parametrize(("text", "told"), BAD)
def test_what_a_manifest_cannot_say(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        written(tmp_path, text)
    assert str(tmp_path / "own.toml") in str(error.value)


def test_only_toml_files_of_the_folder_are_campaigns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.toml").write_text(HEAD + ARMS, encoding="utf-8")
    (tmp_path / "a.toml").write_text(HEAD + ARMS, encoding="utf-8")
    (tmp_path / "README.md").write_text("words", encoding="utf-8")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    assert list(known_campaigns()) == ["a", "b"]
    assert read_campaign("b").name == "b"


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"foundation"}))
def test_what_others_are_compared_with_comes_first(name: str) -> None:
    first = next(group for group in read_campaign(name).groups if group.recipe is None)
    assert first.arms[0] == "d0"


@pytest.mark.parametrize("tiny", [False, True])
def test_the_example_of_the_documents_is_a_campaign(tmp_path: Path, tiny: bool) -> None:
    page = (Path(__file__).parents[3] / "docs/campaigns.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    campaign = written(tmp_path, example, tiny=tiny)
    assert [group.name for group in campaign.groups] == ["foundation", "arms", "grid"]
    assert (campaign.corpus, campaign.size) == (("demo", "tiny") if tiny else ("maestro", "base"))
    assert all(config.budget.epochs == 5 for config in configs(campaign, campaign.groups[1]))
