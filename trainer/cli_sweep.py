"""``xmodal-sweep``: campaigns, planned, run, submitted, told. torch is imported where it is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.base.console import Console, run_command, stop_signals_raise
from trainer.cli import FEATURES, REPEAT, RUNS, SETTINGS, DeviceOption, JsonFlag

if TYPE_CHECKING:
    from trainer.campaign.plan import Sweep

sweep_app = typer.Typer(**{**SETTINGS, "no_args_is_help": True})

CampaignArgument = Annotated[
    str, typer.Argument(help="Name of a campaign (xmodal-sweep list), or a TOML file.")
]
TinyFlag = Annotated[bool, typer.Option("--tiny", help="At the size that a laptop trains.")]
StoreOption = Annotated[
    Path | None,
    typer.Option(help=f"Folder of a store. [default: newest of the corpus in {FEATURES}]"),
]
OutOption = Annotated[Path, typer.Option(help="Folder in which run folders are made.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads of each run on a CPU.")]


def _sweep(campaign: str, tiny: bool, store: Path | None, out: Path) -> Sweep:
    from trainer.campaign.manifest import read_campaign
    from trainer.campaign.plan import find_store, plan_campaign

    read = read_campaign(campaign, tiny=tiny)
    return plan_campaign(read, store or find_store(read.corpus, FEATURES), out)


def _do(console: Console, action: Callable[[], None]) -> None:
    with stop_signals_raise(REPEAT):
        run_command(console, action)


@sweep_app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """Campaigns that come with xmodal."""
    console = Console(as_json)

    def action() -> None:
        from trainer.campaign import tell

        tell.campaigns(console)

    _do(console, action)


@sweep_app.command(epilog="Example:  xmodal-sweep plan screening --tiny")
def plan(
    campaign: CampaignArgument,
    tiny: TinyFlag = False,
    store: StoreOption = None,
    out: OutOption = RUNS,
    as_json: JsonFlag = False,
) -> None:
    """Every run of a campaign: done, stopped or missing, and what is left to compute."""
    console = Console(as_json)

    def action() -> None:
        from trainer.campaign import tell

        tell.plan(_sweep(campaign, tiny, store, out), console)

    _do(console, action)


@sweep_app.command(
    epilog="Examples:  xmodal-sweep run screening --tiny   ·   xmodal-sweep run seeds --gpus 0,1 "
    "--jobs 2"
)
def run(
    campaign: CampaignArgument,
    tiny: TinyFlag = False,
    store: StoreOption = None,
    out: OutOption = RUNS,
    device: DeviceOption = "auto",
    gpus: Annotated[
        str | None, typer.Option(help="Which GPUs, such as 0,1. [default: all that are there]")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs side by side on each device.")] = 1,
    threads: ThreadsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Do every run of a campaign on this machine; stop it at any time, repeat it to go on."""
    console = Console(as_json)

    def action() -> None:
        from trainer.campaign import tell
        from trainer.campaign.launch import run_campaign, slots

        sweep = _sweep(campaign, tiny, store, out)
        kind, found = tell.devices(device, gpus)
        tell.refuse_missing(sweep)
        run_campaign(sweep, slots(kind, found, jobs, threads), console)
        tell.status(sweep, console)

    _do(console, action)


@sweep_app.command(epilog="Example:  xmodal-sweep status screening --tiny")
def status(
    campaign: CampaignArgument,
    tiny: TinyFlag = False,
    store: StoreOption = None,
    out: OutOption = RUNS,
    as_json: JsonFlag = False,
) -> None:
    """Where every run of a campaign stands."""
    console = Console(as_json)

    def action() -> None:
        from trainer.campaign import tell

        tell.status(_sweep(campaign, tiny, store, out), console)

    _do(console, action)


@sweep_app.command(
    epilog="Example:  xmodal-sweep task runs/campaigns/screening-tiny-demo-0123456789ab/plan.json 3"
)
def task(
    plan_file: Annotated[Path, typer.Argument(help="plan.json of a campaign.", metavar="PLAN")],
    index: Annotated[int, typer.Argument(help="Number of the run in the plan.")],
    store: Annotated[
        Path | None, typer.Option(help="Another copy of the campaign's store.")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Do one run of a campaign: what a task of a queue calls.

    Exit codes: 0 done · 75 stopped, to be repeated · 76 the run that it starts from is not finished ·
    77 another process is at it · 1 failed.
    """
    console = Console(as_json)

    def action() -> None:
        from pipeline.base.errors import UsageError
        from trainer.campaign import tell
        from trainer.campaign.plan import read_plan

        sweep = read_plan(plan_file)
        if not 0 <= index < len(sweep.runs):
            raise UsageError(f"{plan_file} has the runs 0 to {len(sweep.runs) - 1}, no {index}")
        tell.task(sweep, sweep.runs[index], store, device, threads, console)

    _do(console, action)


def main() -> None:
    """Entry point of ``xmodal-sweep``."""
    sweep_app()
