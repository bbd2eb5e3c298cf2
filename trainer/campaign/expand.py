"""From a campaign's groups to runs: grids, seeds, recipes; each with its configuration resolved.

torch is loaded when a campaign is expanded, not before: a plan that is kept is read without it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.config import to_plain
from pipeline.base.errors import ConfigError
from pipeline.store.reader import Store
from trainer.campaign.manifest import Campaign, Group
from trainer.campaign.sweep import PlannedRun, Skipped

if TYPE_CHECKING:
    from trainer.config import PairConfig, RunConfig
    from trainer.plan import Plan, Planner

ALL = ("all",)


def expanded(campaign: Campaign, store: Store, out: Path) -> tuple[list[PlannedRun], list[Skipped]]:
    """The campaign's runs in order, and the combinations of its grids that cannot be.

    Raises
    ------
    ConfigError
        for an unknown arm, settings that cannot be, one run that is named twice.
    """
    from trainer.plan import Planner

    planner = Planner(store, ahead=True)
    runs: list[PlannedRun] = []
    skipped: list[Skipped] = []
    last: dict[str, list[PlannedRun]] = {}
    for group in campaign.groups:
        start = _start(group, last)
        if group.recipe is not None:
            made = _recipe(campaign, group, planner, out, start, len(runs))
            last[group.name] = made[-1:]
        else:
            made = _group(campaign, group, planner, out, start, len(runs), skipped)
            last[group.name] = made
        runs += made
    seen: dict[str, PlannedRun] = {}
    for run in runs:
        other = seen.setdefault(run.signature, run)
        if other is not run:
            raise ConfigError(
                f"the campaign {campaign.name} names one run twice: '{other.label}' of "
                f"{other.group} and '{run.label}' of {run.group}"
            )
    return _told_apart(runs), skipped


def _told_apart(runs: list[PlannedRun]) -> list[PlannedRun]:
    """Where one arm is in several groups, its runs are called by their group, too."""
    groups: dict[str, set[str]] = {}
    for run in runs:
        groups.setdefault(run.name, set()).add(run.group)
    return [
        dataclasses.replace(run, label=f"{run.name}, {run.group}, seed {run.seed}")
        if len(groups[run.name]) > 1
        else run
        for run in runs
    ]


def _start(group: Group, last: dict[str, list[PlannedRun]]) -> PlannedRun | None:
    if group.start is None:
        return None
    found = last[group.start]
    if len(found) != 1:
        raise ConfigError(
            f"runs '{group.name}' start from '{group.start}', which is {len(found)} runs: it must be "
            "one, or a recipe"
        )
    return found[0]


def _recipe(
    campaign: Campaign,
    group: Group,
    planner: Planner,
    out: Path,
    start: PlannedRun | None,
    first: int,
) -> list[PlannedRun]:
    """The stages of a recipe; they know their own budgets."""
    from trainer.recipes import stages
    from trainer.request import lay_over

    assert group.recipe is not None
    made: list[PlannedRun] = []
    for stage in stages(group.recipe, campaign.size):
        seed = (group.seeds or campaign.seeds)[0]
        over = {**group.settings, "seed": seed}
        config = lay_over(campaign.preset, campaign.size, stage.over, over)
        start = _planned(planner, config, group, out, start, first + len(made), {}, stage.name)
        made.append(start)
    return made


def _group(
    campaign: Campaign,
    group: Group,
    planner: Planner,
    out: Path,
    start: PlannedRun | None,
    first: int,
    skipped: list[Skipped],
) -> list[PlannedRun]:
    from trainer.request import lay_over
    from trainer.resolve import with_pairs

    made: list[PlannedRun] = []
    for varied in group.variations():
        layers = [campaign.settings, group.settings, _nested(varied)]
        base = lay_over(campaign.preset, campaign.size, *layers)
        for pairs in pairs_of(group):
            own: list[PlannedRun] = []
            try:
                resolved = with_pairs(base, pairs)
                for seed in group.seeds or campaign.seeds:
                    config = dataclasses.replace(resolved, seed=seed)
                    index = first + len(made) + len(own)
                    own.append(_planned(planner, config, group, out, start, index, varied))
            except ConfigError as error:
                if group.arms:
                    raise
                skipped.append(Skipped(what=_said(pairs), why=str(error)))
            else:
                made += own
    return made


def pairs_of(group: Group) -> list[tuple[PairConfig, ...]]:
    """What a group injects, named or as a grid; resolving tells whether it can be made."""
    from pipeline.descriptors import DESCRIPTORS
    from trainer.arms import arm_pairs, pair
    from trainer.mechanisms import MECHANISMS

    if group.arms:
        return [arm_pairs(name) for name in group.arms]
    descriptors, mechanisms = group.descriptors, group.mechanisms
    if descriptors == ALL:
        descriptors = tuple(n for n, d in DESCRIPTORS.items() if d.role == "descriptor")
    if mechanisms == ALL:
        mechanisms = tuple(n for n, _ in MECHANISMS.items())
    return [(pair(d, m),) for d in descriptors for m in mechanisms]


def _planned(
    planner: Planner,
    config: RunConfig,
    group: Group,
    out: Path,
    start: PlannedRun | None,
    index: int,
    varied: dict[str, Any],
    name: str = "",
) -> PlannedRun:
    from trainer.plan import RunRequest
    from trainer.records import file_name, scores_due

    request = RunRequest(config=config, store=planner.store.path, out=out)
    plan: Plan = planner.plan(request, None if start is None else start.signature)
    budget, evaluation = plan.config.budget, plan.config.evaluation
    words = [f"{key.removesuffix('.name')} {value}" for key, value in varied.items()]
    return PlannedRun(
        index=index,
        group=group.name,
        label=", ".join([name or plan.arm, *words, f"seed {plan.config.seed}"]),
        arm=plan.arm,
        seed=plan.config.seed,
        settings=varied,
        signature=plan.signature,
        folder=plan.folder.name,
        after=None if start is None else start.index,
        config=to_plain(plan.config),
        reads=plan.reads,
        missing=plan.missing,
        updates=budget.updates,
        batch_size=budget.batch_size,
        evaluations=sum(evaluation.due(e, budget.epochs) for e in range(1, budget.epochs + 1)),
        scores=tuple(file_name(*asked) for asked in scores_due(plan.config.pool_seed)),
        parameters=plan.parameters,
        trainable=plan.trainable,
        leaks=plan.leaks,
    )


def _nested(varied: dict[str, Any]) -> dict[str, Any]:
    """Dotted settings as nested tables."""
    found: dict[str, Any] = {}
    for path, value in varied.items():
        *parents, leaf = path.split(".")
        place = found
        for key in parents:
            place = place.setdefault(key, {})
        place[leaf] = value
    return found


def _said(pairs: tuple[PairConfig, ...]) -> str:
    return " + ".join(f"{p.descriptor} {p.mechanism}" for p in pairs)
