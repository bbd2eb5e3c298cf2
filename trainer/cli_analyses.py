"""``xmodal-analyze · compare``. torch is imported inside commands: help is fast."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.console import Console, run_command, stop_signals_raise
from pipeline.base.errors import UsageError
from trainer.cli import REPEAT, SETTINGS, DeviceOption, JsonFlag, Split

analyze_app = typer.Typer(**SETTINGS)
compare_app = typer.Typer(**SETTINGS)

StoreOption = Annotated[
    Path | None, typer.Option(help="A store to analyse on, instead of the runs' own.")
]


class Variants(StrEnum):
    """Which readings of an analysis."""

    paper = "paper"
    sound = "sound"
    both = "both"


@analyze_app.command(
    epilog="Examples:  xmodal-analyze all runs/a4r-0123456789ab runs/d0-89abcdef0123   ·   "
    "xmodal-analyze ablation runs/a4r-* --variant sound   ·   xmodal-analyze matched "
    "runs/a4r-0123456789ab   ·   xmodal-analyze invariance runs/d0-* --baseline flux   ·   "
    "xmodal-analyze --list"
)
def analyze(
    analysis: Annotated[
        str | None, typer.Argument(help="Name of an analysis, or all.", metavar="[ANALYSIS|all]")
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of finished runs, or of exported models.", metavar="[RUN]..."),
    ] = None,
    variant: Annotated[
        Variants, typer.Option(help="As published, in a sound variant, or both.")
    ] = Variants.both,
    split: Annotated[Split, typer.Option(help="What to analyse.")] = Split.validation,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Ask this floor, too: invariance and transposition can; may be repeated."
        ),
    ] = None,
    store: StoreOption = None,
    out: Annotated[
        Path, typer.Option(help="Folder for pictures, JSON and, of all, index.html.")
    ] = Path("analyses"),
    device: DeviceOption = "auto",
    listing: Annotated[bool, typer.Option("--list", help="List the analyses and stop.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask what trained runs do with their descriptors; of all analyses, make one page.

    What was measured before is read from the runs' folders. `matched` trains the controls that it
    needs; `all` shows them where they are there.
    """
    console = Console(as_json)

    def action() -> None:
        from trainer import analyzing

        if listing:
            analyzing.list_analyses(console)
            return
        if analysis is None:
            raise UsageError("name an analysis, or all; --list shows them")
        chosen = ("paper", "sound") if variant is Variants.both else (variant.value,)
        analyzing.analyze_runs(
            analysis,
            runs or [],
            variants=chosen,  # type: ignore[arg-type]
            split=split.value,
            store_path=store,
            out=out,
            device=device,
            console=console,
            baselines=baseline or [],
        )

    with stop_signals_raise(REPEAT):
        run_command(console, action)


@compare_app.command(
    epilog="Examples:  xmodal-compare runs/d0-* runs/a4r-*   ·   xmodal-compare runs/a4r-* --baseline "
    "flux --split test   ·   xmodal-compare runs/d0-* runs/a4r-* --protocol paper --out comparison"
)
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of finished runs, or of exported models.", metavar="RUN..."),
    ],
    protocol: Annotated[
        list[str] | None, typer.Option(help="paper or strict; may be repeated. [default: both]")
    ] = None,
    split: Annotated[Split, typer.Option(help="What was scored.")] = Split.validation,
    baseline: Annotated[
        list[str] | None, typer.Option(help="Also against this floor; may be repeated.")
    ] = None,
    store: StoreOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a picture and JSON. [default: none]")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Compare arms over seeds.

    Runs that differ in their seed alone are one arm; the first arm is the reference.

    Differences are paired on the same queries; their intervals hold the doubt of other seeds and of
    other recordings. Nothing is stated with fewer than three seeds. Evaluations that are missing are
    made.
    """
    console = Console(as_json)

    def action() -> None:
        from trainer import analyzing

        analyzing.compare_all(
            runs,
            split=split.value,
            protocols=protocol or ["paper", "strict"],
            baselines=baseline or [],
            store_path=store,
            out=out,
            device=device,
            console=console,
        )

    with stop_signals_raise(REPEAT):
        run_command(console, action)


def analyze_main() -> None:
    """Entry point of ``xmodal-analyze``."""
    analyze_app()


def compare_main() -> None:
    """Entry point of ``xmodal-compare``."""
    compare_app()
