"""Campaigns: planned, tried, run here or submitted to a queue, watched, told.

Commands that only ask load no torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.base.console import Console, run_command, stop_signals_raise
from trainer.campaign.batch_script import REQUEUES
from trainer.cli import FEATURES, REPEAT, RUNS, SETTINGS, DeviceOption, JsonFlag
from trainer.cli_runs import ledger, runs_app

if TYPE_CHECKING:
    from trainer.campaign.sweep import Sweep

EXAMPLES = (
    "Examples:  xmodal-sweep plan screening --tiny   ·   xmodal-sweep run screening --tiny   ·   "
    "xmodal-sweep report screening --tiny"
)
sweep_app = typer.Typer(**{**SETTINGS, "no_args_is_help": True}, help=__doc__, epilog=EXAMPLES)
sweep_app.add_typer(runs_app, name="runs")

CampaignArgument = Annotated[
    str, typer.Argument(help="Name of a campaign (xmodal-sweep list), or a TOML file.")
]
TinyFlag = Annotated[bool, typer.Option("--tiny", help="At the size that a laptop trains.")]
StoreOption = Annotated[
    Path | None,
    typer.Option(help=f"Folder of a store. [default: newest of the corpus in {FEATURES}]"),
]
OutOption = Annotated[Path, typer.Option(help="Folder in which run folders are made.")]
TimeOption = Annotated[
    str | None, typer.Option(help="Limit of one task: minutes, HH:MM:SS or D-HH:MM:SS.")
]
RequeuesOption = Annotated[
    int, typer.Option(min=0, help="How often a task that reached its limit is queued again.")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads of each run on a CPU.")]


def _sweep(campaign: str, tiny: bool, store: Path | None, out: Path, console: Console) -> Sweep:
    from trainer.campaign.manifest import read_campaign
    from trainer.campaign.plan import choose_store, plan_campaign

    read = read_campaign(campaign, tiny=tiny)
    if store is None:
        store, word = choose_store(read, out, FEATURES)
        console.say(word)
    return plan_campaign(read, store, out)


def _known(campaign: str, tiny: bool, store: Path | None, out: Path, console: Console) -> Sweep:
    """The campaign as planned now; as it was planned where its store is gone, or the disk is full."""
    from pipeline.base.errors import StoreError
    from trainer.campaign.manifest import read_campaign
    from trainer.campaign.plan import kept_plan

    kept = kept_plan(read_campaign(campaign, tiny=tiny), out, store)
    try:
        return _sweep(campaign, tiny, store or (Path(kept.store) if kept else None), out, console)
    except (StoreError, OSError) as error:
        if kept is None:
            raise
        console.say(f"{error}; told from the plan that was kept: {kept.folder}")
        return kept


def _do(console: Console, action: Callable[[], None]) -> None:
    with stop_signals_raise(REPEAT):
        run_command(console, action)


@sweep_app.command("list", epilog="Example:  xmodal-sweep list --json")
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

        tell.plan(_sweep(campaign, tiny, store, out, console), console)

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

        sweep = _sweep(campaign, tiny, store, out, console)
        kind, found = tell.devices(device, gpus)
        tell.refuse_missing(sweep)
        run_campaign(sweep, slots(kind, found, jobs, threads), console)
        tell.status(sweep, console)

    _do(console, action)


@sweep_app.command(
    epilog="Examples:  xmodal-sweep preflight screening --tiny   ·   xmodal-sweep preflight seeds "
    "--device cuda --time 12:00:00 --full"
)
def preflight(
    campaign: CampaignArgument,
    tiny: TinyFlag = False,
    store: StoreOption = None,
    out: OutOption = RUNS,
    device: DeviceOption = "auto",
    time: TimeOption = None,
    requeues: RequeuesOption = REQUEUES,
    full: Annotated[bool, typer.Option("--full", help="Hash every file of the store.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Try, where you are, all that the runs will need: paths, space, hashes, a step of each arm."""
    console = Console(as_json)

    def action() -> None:
        from trainer.campaign import queueing

        sweep = _sweep(campaign, tiny, store, out, console)
        queueing.try_all(sweep, device, time, requeues, full, console)

    _do(console, action)


@sweep_app.command(
    epilog="Examples:  xmodal-sweep submit screening --gpus 1 --time 12:00:00 "
    "--stage '/local/$USER'   ·   xmodal-sweep submit seeds --gpus 1 --time 4:00:00 --partition gpu "
    "--setup 'module load cuda' --extra=--constraint=a100"
)
def submit(
    campaign: CampaignArgument,
    tiny: TinyFlag = False,
    store: StoreOption = None,
    out: OutOption = RUNS,
    time: TimeOption = None,
    gpus: Annotated[int, typer.Option(min=0, max=1, help="GPUs of a task: 1 or none.")] = 0,
    cpus: Annotated[int, typer.Option(min=1, help="Cores of a task.")] = 4,
    memory: Annotated[str, typer.Option(help="Memory of a task.")] = "16G",
    partition: Annotated[str | None, typer.Option(help="As the site calls it.")] = None,
    account: Annotated[str | None, typer.Option(help="As the site calls it.")] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Most tasks of an array that may run at a time.")
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            help="Copy the store to the node's own disk: a folder that outlives jobs, such as "
            "/local/$USER; the copy stays there until you delete it."
        ),
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option(help="Line of shell that comes first; may be repeated.")
    ] = None,
    extra: Annotated[
        list[str] | None, typer.Option(help="Another option of sbatch; may be repeated.")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    requeues: RequeuesOption = REQUEUES,
    check: Annotated[
        bool, typer.Option("--preflight/--no-preflight", help="Try everything first.")
    ] = True,
    full: Annotated[bool, typer.Option("--full", help="Hash every file of the store.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Queue with Slurm what is not done: arrays of one run a task; never the same run twice."""
    console = Console(as_json)

    def action() -> None:
        from trainer.campaign import queueing
        from trainer.campaign.batch_script import Options

        options = Options(
            time=time,
            gpus=gpus,
            cpus=cpus,
            memory=memory,
            partition=partition,
            account=account,
            at_once=at_once,
            stage=stage,
            setup=tuple(setup or ()),
            extra=tuple(extra or ()),
            device=device,
            threads=threads,
            requeues=requeues,
        )
        queueing.put(_sweep(campaign, tiny, store, out, console), options, check, full, console)

    _do(console, action)


@sweep_app.command(epilog="Example:  xmodal-sweep cancel screening")
def cancel(
    campaign: CampaignArgument,
    tiny: TinyFlag = False,
    store: StoreOption = None,
    out: OutOption = RUNS,
    as_json: JsonFlag = False,
) -> None:
    """Take a campaign out of the queue; tasks that run leave checkpoints."""
    console = Console(as_json)

    def action() -> None:
        from trainer.campaign import queueing

        queueing.take_out(_known(campaign, tiny, store, out, console), console)

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

        tell.status(_known(campaign, tiny, store, out, console), console)

    _do(console, action)


@sweep_app.command(
    epilog="Examples:  xmodal-sweep report screening --tiny   ·   xmodal-sweep report seeds --floor "
    "flux --floor a4 --page seeds.html"
)
def report(
    campaign: CampaignArgument,
    tiny: TinyFlag = False,
    store: StoreOption = None,
    out: OutOption = RUNS,
    page: Annotated[
        Path | None, typer.Option(help="The page. [default: report.html beside the plan]")
    ] = None,
    floor: Annotated[
        list[str] | None,
        typer.Option(
            help="A training-free floor, or all; may be repeated. [default: all six where validation "
            "and test have at most 2,000 segments; else those scored before, and the quick ones: "
            "chroma, a4, register]"
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write one page of a campaign: leaderboard, differences, curves, heat map, cost, seeds."""
    console = Console(as_json)

    def action() -> None:
        from trainer.campaign.report import write_report

        sweep = _known(campaign, tiny, store, out, console)
        given = {"--store": store, "--out": None if out == RUNS else out, "--page": page}
        words = ["xmodal-sweep", "report", campaign, *(["--tiny"] if tiny else [])]
        words += [str(x) for pair in given.items() if pair[1] is not None for x in pair]
        written = write_report(
            sweep, page, floors=floor or None, command=shlex.join(words), say=console.say
        )
        console.result({"page": str(written)}, str(written))

    _do(console, action)


sweep_app.command(epilog="Example:  xmodal-sweep ledger --out runs --csv runs.csv")(ledger)


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
    memory: Annotated[
        int | None,
        typer.Option(
            min=1, help="Bytes of the device that it may use. [default: all that is free]"
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Do one run of a campaign: what a task of a queue calls.

    Exit codes: 0 done · 75 stopped, to be repeated · 76 the run that it starts from is not finished ·
    77 another process is at it · any other: failed.
    """
    console = Console(as_json)

    def action() -> None:
        from pipeline.base.errors import UsageError
        from trainer.campaign import tell
        from trainer.campaign.plan import read_plan

        sweep = read_plan(plan_file)
        if not 0 <= index < len(sweep.runs):
            raise UsageError(f"{plan_file} has the runs 0 to {len(sweep.runs) - 1}, no {index}")
        tell.task(sweep, sweep.runs[index], store, device, threads, memory, console)

    _do(console, action)


def main() -> None:
    """Entry point of ``xmodal-sweep``."""
    sweep_app()
