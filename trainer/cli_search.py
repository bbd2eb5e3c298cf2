"""``xmodal-search index · query``. torch is imported inside commands: help is fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.console import Console, run_command, stop_signals_raise
from trainer.cli import REPEAT, SETTINGS, DeviceOption, JsonFlag

search_app = typer.Typer(
    **{**SETTINGS, "no_args_is_help": True},
    help="Which recording is it, and where? Index a store, then look for audio or MIDI files in it.",
    epilog="Examples:  xmodal-search index --baseline flux   ·   xmodal-search query piece.mid "
    "--index data/indexes/mine",
)

RunOption = Annotated[
    Path | None, typer.Option(help="Folder of a run, or of a model that xmodal-export wrote.")
]
BaselineOption = Annotated[
    str | None, typer.Option(help="A training-free baseline instead: flux, cqt, chroma, a4.")
]


@search_app.command(
    epilog="Examples:  xmodal-search index --baseline flux   ·   xmodal-search index "
    "data/features/demo-0123456789ab --run runs/a4r-0123456789ab --out data/indexes/mine   ·   "
    "xmodal-search index --run models/a4r --approximate"
)
def index(
    store: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of a store. [default: newest in data/features]", metavar="[STORE]"
        ),
    ] = None,
    run: RunOption = None,
    baseline: BaselineOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the index. [default: data/indexes/<corpus>-<run or baseline>]"
        ),
    ] = None,
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate", help="Also make an approximate index (FAISS), for many hours."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make it anew, whatever is there.")
    ] = False,
    device: DeviceOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Embed every segment of a store that has notes, both its sound and its notes.

    An index that is there is brought up to date: recordings that it has are not embedded again.
    """
    console = Console(as_json)

    def action() -> None:
        from trainer import searching

        searching.index(store, run, baseline, out, approximate, overwrite, device, console)

    with stop_signals_raise(REPEAT):
        run_command(console, action)


@search_app.command(
    epilog="Examples:  xmodal-search query piece.mid --index data/indexes/mine   ·   xmodal-search "
    "query take.wav --index data/indexes/mine --listen out.html   ·   xmodal-search query folder/ "
    "--index data/indexes/mine --json"
)
def query(
    files: Annotated[
        list[Path],
        typer.Argument(help="Audio or MIDI files of at least 4 s, or folders.", metavar="FILE..."),
    ],
    index: Annotated[Path, typer.Option(help="Folder of an index.")],
    run: Annotated[
        Path | None, typer.Option(help="Check that the index was made with this run or model.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Check that the index was made with this baseline.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=10, help="Recordings to tell.")] = 5,
    rate: Annotated[
        float,
        typer.Option(min=1e-9, max=1.0, help="False alarms up to which something is called found."),
    ] = 0.01,
    listen: Annotated[
        Path | None,
        typer.Option(help="Write a page to hear and see it; of several files, a folder of pages."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="The index's store, where it is not where it was.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Do not use the approximate index.")
    ] = False,
    device: DeviceOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Tell which recordings files are, and where in them.

    Notes are looked for among the recordings' sound, sound among their notes; whole pieces, excerpts,
    and what is played up to ten per cent slower or faster.
    """
    console = Console(as_json)

    def action() -> None:
        from trainer import searching

        searching.query(
            files, index, run, baseline, top, rate, listen, store, exact, device, console
        )

    with stop_signals_raise(REPEAT):
        run_command(console, action)


def main() -> None:
    """Entry point of ``xmodal-search``."""
    search_app()
