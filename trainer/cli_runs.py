"""``xmodal-sweep runs`` and ``ledger``: what lies in a folder of runs, of whichever campaign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.console import Console, run_command, stop_signals_raise
from trainer.cli import REPEAT, RUNS, SETTINGS, JsonFlag

runs_app = typer.Typer(
    **{**SETTINGS, "no_args_is_help": True},
    help="Run folders: what they weigh, what may go.",
    epilog="Examples:  xmodal-sweep runs list   ·   xmodal-sweep runs prune",
)
OutOption = Annotated[Path, typer.Option(help="Folder of run folders.")]


@runs_app.command("list", epilog="Example:  xmodal-sweep runs list --out runs")
def list_runs(out: OutOption = RUNS, as_json: JsonFlag = False) -> None:
    """Every run folder: arm, seed, status, size, and the campaigns that name it."""
    console = Console(as_json)

    def action() -> None:
        from trainer.campaign import keeping

        keeping.tell_sizes(out, console)

    with stop_signals_raise(REPEAT):
        run_command(console, action)


@runs_app.command(
    epilog="Examples:  xmodal-sweep runs prune   ·   xmodal-sweep runs prune --unplanned --yes"
)
def prune(
    out: OutOption = RUNS,
    unplanned: Annotated[
        bool,
        typer.Option("--unplanned", help="Also runs that did not end and that no campaign names."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; else it is only shown.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show, or remove, what is not needed any more: checkpoints of runs that have ended, leftovers.

    Models, records and scores stay.
    """
    console = Console(as_json)

    def action() -> None:
        from trainer.campaign import keeping

        keeping.prune_runs(out, unplanned, yes, console)

    with stop_signals_raise(REPEAT):
        run_command(console, action)


def ledger(
    out: OutOption = RUNS,
    csv: Annotated[Path | None, typer.Option(help="Also write it as CSV to this file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make one table of all runs and their scores: ledger.parquet beside the runs."""
    console = Console(as_json)

    def action() -> None:
        from trainer.campaign import keeping

        keeping.tell_ledger(out, csv, console)

    with stop_signals_raise(REPEAT):
        run_command(console, action)
