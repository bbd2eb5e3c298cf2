"""Campaigns as people write them: TOML files of groups of runs (``data_manifests/campaigns``).

A manifest says for which corpus it is, what is laid over the preset for every run, and its groups of
runs. A group is arms × seeds × settings that vary, or a recipe (runs that start from each other), or
a grid of descriptors × mechanisms; it may start from a group of one run. ``[tiny]`` says what is
different at the size that a laptop trains.

    title = "Which arm, from one foundation"
    corpus = "maestro"

    [settings.budget]
    epochs = 5

    [tiny]
    corpus = "demo"

    [[runs]]
    name = "foundation"
    recipe = "foundation"

    [[runs]]
    name = "arms"
    from = "foundation"
    arms = ["d0", "a4r"]
    seeds = [42, 123]
    vary = { "loss.name" = ["vicreg", "infonce"] }
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.base.config import digest, from_plain, load_toml, merge
from pipeline.base.errors import ConfigError
from trainer.config import Preset, Size

DEFAULT_SEEDS = (42,)
FOLDER = Path(__file__).resolve().parents[2] / "data_manifests" / "campaigns"
TINY = "tiny"
SAID_ELSEWHERE = {"preset": "preset", "size": "size", "seed": "seeds"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Runs that differ in arm, seed and what varies.

    Attributes
    ----------
    name : others start from it by this
    start : name of the group, of one run or one recipe, whose (last) run these start from
    recipe : runs that start from each other; or
    arms : names of arms; or
    descriptors, mechanisms : a grid, names or ``["all"]``; what cannot be combined is left out and
        told
    seeds : of every arm
    settings : nested, laid over the campaign's
    vary : dotted setting → values; every combination is a run
    """

    name: str
    start: str | None = None
    recipe: str | None = None
    arms: tuple[str, ...] = ()
    descriptors: tuple[str, ...] = ()
    mechanisms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    vary: dict[str, Any] = dataclasses.field(default_factory=dict)

    def variations(self) -> Iterator[dict[str, Any]]:
        """Every combination of what varies: dotted setting → value."""
        for values in itertools.product(*self.vary.values()):
            yield dict(zip(self.vary, values, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Campaign:
    """A manifest, at one size.

    ``reference``: name of the recorded results that stand beside it in the report, if any;
    ``source``: where it is described; ``file``: the manifest, empty for one that comes with xmodal.
    """

    name: str
    title: str
    corpus: str
    groups: tuple[Group, ...]
    summary: str = ""
    source: str = ""
    preset: Preset = "paper"
    size: Size = "base"
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    reference: str | None = None
    file: str = ""

    @property
    def key(self) -> str:
        """Changes with everything that it says."""
        return digest(self)


def known_campaigns() -> dict[str, Path]:
    """Name → file of the manifests that come with xmodal."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.toml"))}


def read_campaign(name: str, *, tiny: bool = False) -> Campaign:
    """A campaign by the name of a manifest that comes with xmodal, or by the path of a file.

    Raises
    ------
    ConfigError
        when there is no such campaign, or it says what cannot be.
    """
    known = known_campaigns()
    path = known.get(name, Path(name))
    if name not in known and not path.is_file():
        raise ConfigError(
            f"there is no campaign '{name}': give one of {', '.join(known)}, or a TOML file"
        )
    data = load_toml(path)
    over = data.pop(TINY, {})
    groups = data.pop("runs", [])
    if not isinstance(groups, list) or not all(isinstance(g, dict) for g in groups) or not groups:
        raise ConfigError(f"{path}: give at least one [[runs]] table")
    owns = [group.pop(TINY, {}) for group in groups]
    if not all(isinstance(own, dict) for own in (over, *owns)):
        raise ConfigError(f"{path}: {TINY} must be a table")
    for group, own in zip(groups, owns, strict=True):
        if tiny:
            group.update(merge(group, own))
    if tiny:
        data = merge({**data, "size": "tiny"}, over)
    where = str(path)
    made = [_group(group, f"{where}: runs[{i}]") for i, group in enumerate(groups)]
    plain = {"name": f"{path.stem}-tiny" if tiny else path.stem, **data}
    campaign = from_plain(Campaign, {**plain, "groups": []}, where)
    file = "" if name in known else str(path.resolve())
    campaign = dataclasses.replace(campaign, groups=tuple(made), file=file)
    _check(campaign, where)
    return campaign


def _group(data: dict[str, Any], where: str) -> Group:
    return from_plain(Group, {"start" if k == "from" else k: v for k, v in data.items()}, where)


def _check(campaign: Campaign, where: str) -> None:
    if not campaign.seeds:
        raise ConfigError(f"{where}: seeds must not be empty")
    for settings in (campaign.settings, *({**g.settings, **g.vary} for g in campaign.groups)):
        for key in SAID_ELSEWHERE.keys() & settings.keys():
            raise ConfigError(f"{where}: {key} is no setting here: say {SAID_ELSEWHERE[key]} = …")
    before: set[str] = set()
    for group in campaign.groups:
        kinds = [bool(group.recipe), bool(group.arms), bool(group.descriptors or group.mechanisms)]
        if sum(kinds) != 1:
            raise ConfigError(
                f"{where}: runs '{group.name}': give one of recipe, arms, or descriptors and "
                "mechanisms"
            )
        if bool(group.descriptors) != bool(group.mechanisms):
            raise ConfigError(
                f"{where}: runs '{group.name}': descriptors and mechanisms go together"
            )
        if group.recipe and (group.vary or len(group.seeds) > 1):
            raise ConfigError(
                f"{where}: runs '{group.name}': a recipe has one seed, and nothing in it varies"
            )
        if group.name in before:
            raise ConfigError(f"{where}: two groups are called '{group.name}'")
        if group.start is not None and group.start not in before:
            raise ConfigError(
                f"{where}: runs '{group.name}' start from '{group.start}', which is not a group "
                "above it"
            )
        for setting, values in group.vary.items():
            if not isinstance(values, list) or not values:
                raise ConfigError(
                    f"{where}: runs '{group.name}': vary.\"{setting}\" must be a list"
                )
        before.add(group.name)
