"""What docs/campaigns.md lists: the campaigns that come with xmodal, and what one costs."""

from __future__ import annotations

from benchmarks.cells import load, machine, row
from pipeline.base.errors import ConfigError
from trainer.campaign.expand import pairs_of
from trainer.campaign.manifest import Campaign, Group, known_campaigns, read_campaign
from trainer.recipes import stages
from trainer.request import lay_over
from trainer.resolve import with_pairs


def campaigns() -> str:
    """Every campaign: what it asks, how many runs, how many updates, at both sizes."""
    lines = [
        row("campaign", "what", "runs", "updates", "runs, `--tiny`", "updates, `--tiny`"),
        "|---|---|--:|--:|--:|--:|",
    ]
    for name in known_campaigns():
        counts: list[int] = []
        for tiny in (False, True):
            counts += _size(read_campaign(name, tiny=tiny))
        told = read_campaign(name)
        cells = [f"{count:,}" for count in counts]
        lines.append(row(f"`{name}`", f"**{told.title}** {told.summary}".rstrip(), *cells))
    return "\n".join(lines)


def _size(campaign: Campaign) -> tuple[int, int]:
    """Runs and updates; how many pairs of a grid can be made follows from what is registered."""
    runs = updates = 0
    for group in campaign.groups:
        if group.recipe is not None:
            for stage in stages(group.recipe, campaign.size):
                config = lay_over(campaign.preset, campaign.size, stage.over, group.settings)
                runs, updates = runs + 1, updates + config.budget.updates
            continue
        made, each = _made(campaign, group)
        runs, updates = runs + made, updates + made * each
    return runs, updates


def _made(campaign: Campaign, group: Group) -> tuple[int, int]:
    base = lay_over(campaign.preset, campaign.size, campaign.settings, group.settings)
    made = 0
    for pairs in pairs_of(group):
        try:
            with_pairs(base, pairs)
        except ConfigError:
            continue
        made += len(group.seeds or campaign.seeds) * len(list(group.variations()))
    return made, base.budget.updates


def sweeps() -> str:
    """What planning, asking, collecting and starting cost, and the tiny screening."""
    data = load("campaigns")
    folders, start, screening = data["folders"], data["start"], data["screening"]
    runs = f"{folders['runs']:,} run folders"
    rows = [
        (f"`plan` of {runs}", _median(folders["plan"]), "≤ 2 s"),
        (f"`status` of {runs}", _median(folders["status"]), "≤ 2 s"),
        (f"`ledger` of {runs}", _median(folders["ledger"]), "≤ 5 s"),
        (
            "… their first `plan`, by which every run is resolved",
            f"{folders['first_plan_seconds']:.1f} s",
            "—",
        ),
        (
            "a task of the tiny `a4r`, from its call to its first step",
            _median(start["task"]),
            "≤ 15 s",
        ),
        (
            "… from `submit` as a user calls it, preflight first, the queue being empty",
            _median(start.get("tried")),
            "≤ 15 s",
        ),
        ("… from `submit --no-preflight`, likewise", _median(start["submit"]), "≤ 15 s"),
        (
            f"the tiny screening on the demo ({screening['arms']} arms, {screening['runs']} runs, "
            f"{screening['updates']:,} updates, each run scored by both protocols on both splits; "
            f"commit {screening['commits'][0][:10]})",
            f"{screening['seconds'] / 60:.0f} min",
            "≤ 30 min",
        ),
    ]
    lines = [row("what", "measured", "goal"), "|---|---|---|", *(row(*cells) for cells in rows)]
    note = (
        f"By `python -m benchmarks.campaigns` on {machine(data)}; medians (highest) of commands as a "
        "user calls them, the start of Python included."
    )
    return "\n".join([*lines, "", note])


def _median(found: dict[str, float] | None) -> str:
    if found is None:
        return "not measured yet, or no Slurm was there"
    return f"{found['seconds']:.1f} s ({found['highest']:.1f})"
