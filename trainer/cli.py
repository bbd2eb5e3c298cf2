"""``xmodal-train · evaluate · export``. torch is imported inside commands: help is fast."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.base.console import Console, run_command, stop_signals_raise
from pipeline.base.errors import UsageError

FEATURES = Path("data/features")
RUNS = Path("runs")
REPEAT = "nothing is lost; repeat the command to go on"


class Preset(StrEnum):
    """The published reference, or the corrected settings."""

    paper = "paper"
    sound = "sound"


class Size(StrEnum):
    """The paper's widths, or one that trains on a CPU."""

    base = "base"
    tiny = "tiny"


class Precision(StrEnum):
    """Number formats of the forward pass."""

    auto = "auto"
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


class Split(StrEnum):
    """What may be scored."""

    validation = "validation"
    test = "test"


class Part(StrEnum):
    """What a score may be broken down by."""

    composer = "composer"
    recording = "recording"
    density = "density"


class Listing(StrEnum):
    """What ``--list`` shows."""

    descriptors = "descriptors"
    mechanisms = "mechanisms"
    arms = "arms"


SETTINGS: dict[str, Any] = {
    "no_args_is_help": False,
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
train_app = typer.Typer(**SETTINGS)
evaluate_app = typer.Typer(**SETTINGS)
export_app = typer.Typer(**SETTINGS)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@train_app.command(
    epilog="Examples:  xmodal-train --descriptor A4 --mechanism reverse_xattn   ·   xmodal-train "
    "--descriptor D4 --mechanism concat --descriptor A4 --mechanism concat   ·   xmodal-train --arm "
    "d4-a4r --preset paper --seed 123   ·   xmodal-train --descriptor A4 --mechanism moe --set "
    "pairs.A4-moe.gate=top1 --set loss.name=siglip   ·   xmodal-train --list arms"
)
def train(
    store: Annotated[
        Path | None, typer.Option(help="Folder of a store. [default: newest in data/features]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder in which run folders are made.")] = RUNS,
    descriptor: Annotated[
        list[str] | None, typer.Option(help="Descriptor to inject; give pairs with --mechanism.")
    ] = None,
    mechanism: Annotated[
        list[str] | None, typer.Option(help="How the descriptor of the same rank enters.")
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="A named combination, for example d4-a4r.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Several runs, one after the other: foundation.")
    ] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="Reference, or corrected settings. [default: sound]")
    ] = None,
    size: Annotated[
        Size | None, typer.Option(help="Model size. [default: base on a GPU, tiny on a CPU]")
    ] = None,
    frontend: Annotated[
        str | None, typer.Option(help="mel, wave or wave-frozen. [default: the preset's]")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="vicreg, infonce or siglip. [default: the preset's]")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="cosine, trapezoidal or cosine-tail. [default: the preset's]")
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(help="none, run-d, run-b or gate-2. [default: the preset's]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="[default: the preset's]")] = None,
    batches_per_epoch: Annotated[
        int | None, typer.Option(min=1, help="[default: the preset's]")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="[default: the preset's]")] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of weights, batches and dropout. [default: 42]"),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Run, or exported model, whose encoders and heads this one starts from."),
    ] = None,
    device: DeviceOption = "auto",
    precision: Annotated[
        Precision, typer.Option(help="auto is bf16 on a GPU, fp32 on a CPU.")
    ] = Precision.auto,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile", help="Compile the training step. [default: on a GPU]"
        ),
    ] = None,
    evaluate_every: Annotated[int | None, typer.Option(min=1, help="In epochs.")] = None,
    pool_size: Annotated[
        int | None, typer.Option(min=2, help="Candidates per query. [default: 256]")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write curves for TensorBoard.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite/--resume", help="Start again, or go on with an existing run."),
    ] = False,
    deterministic: Annotated[bool, typer.Option(help="Only deterministic kernels (GPU).")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show the resolved run and stop.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="TOML laid over the preset; flags win over it.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting of the run (--dry-run shows them); may be repeated, wins over all.",
        ),
    ] = None,
    listing: Annotated[
        Listing | None, typer.Option("--list", help="List the choices and stop.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train one run on a store, select on validation, and print its scores beside the floor."""
    # Of several processes that torchrun starts, the first one speaks.
    console = Console(as_json, quiet=os.environ.get("RANK", "0") != "0")
    pairs = _pairs(descriptor or [], mechanism or [], arm)
    over: dict[str, Any] = {
        "budget": {
            "epochs": epochs,
            "batches_per_epoch": batches_per_epoch,
            "batch_size": batch_size,
        },
        "evaluation": {"every": evaluate_every, "pool_size": pool_size},
        "schedule": {"name": schedule},
        "loss": {"name": loss},
        "audio": {"frontend": {"name": frontend}},
        "freeze": freeze,
    }

    def action() -> None:
        from trainer import commands
        from trainer.request import Wanted, run_requests

        if listing is not None:
            data, text = commands.LISTINGS[listing.value]()
            console.result(data, text)
            return
        wanted = Wanted(
            pairs=pairs,
            arm=arm,
            preset=preset.value if preset else None,
            size=size.value if size else None,
            seed=seed,
            precision=precision.value,
            config=config,
            over=over,
            settings=settings or (),
            recipe=recipe,
        )
        requests = run_requests(
            wanted,
            store=store,
            device=device,
            console=console,
            out=out,
            init=init,
            compiled=compiled,
            tensorboard=tensorboard,
            overwrite=overwrite,
            deterministic=deterministic,
        )
        (commands.show_plans if dry_run else commands.train_all)(requests, console)

    with stop_signals_raise(REPEAT):
        run_command(console, action)


@evaluate_app.command(
    epilog="Examples:  xmodal-evaluate runs/a4r-0123456789ab --split test   ·   xmodal-evaluate "
    "runs/a4r-0123456789ab --protocol strict --by composer   ·   xmodal-evaluate --baseline "
    "flux --store data/features/demo-0123456789ab"
)
def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(help="Folder of a run, or of an exported model.", metavar="[RUN]"),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Score a training-free baseline instead: flux, cqt, chroma, chroma-dtw, a4, register."
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="paper or strict; may be repeated. [default: both]")
    ] = None,
    split: Annotated[Split, typer.Option(help="What to score.")] = Split.validation,
    store: Annotated[
        Path | None, typer.Option(help="Another store than the run's own; needed for a baseline.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Other pools of the paper protocol.")
    ] = None,
    pool_size: Annotated[
        int | None, typer.Option(min=2, help="Candidates per query. [default: the run's, 256]")
    ] = None,
    save_embeddings: Annotated[
        Path | None, typer.Option(help="Folder for audio.npy, midi.npy and segments.parquet.")
    ] = None,
    by: Annotated[
        Part | None, typer.Option(help="Also show the parts of the scores, by this.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs; baselines are kept in it.")] = RUNS,
    device: DeviceOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Score a run, or a training-free baseline, on a store's validation or test split."""
    console = Console(as_json)

    def action() -> None:
        from trainer import commands

        if (run is None) == (baseline is None):
            raise UsageError("give either the folder of a RUN or --baseline NAME")
        # Only the paper protocol's pools can be drawn again.
        protocols = protocol or (["paper", "strict"] if seed is None else ["paper"])
        if run is not None:
            commands.evaluate_run(
                run,
                split.value,
                protocols,
                store,
                seed,
                pool_size,
                save_embeddings,
                by.value if by else None,
                device,
                console,
            )
        elif store is None:
            raise UsageError("a baseline needs a store: --store DIR")
        else:
            commands.evaluate_baseline(
                str(baseline),
                store,
                split.value,
                protocols,
                seed,
                pool_size,
                by.value if by else None,
                out,
                console,
            )

    with stop_signals_raise(REPEAT):
        run_command(console, action)


@export_app.command(epilog="Example:  xmodal-export runs/a4r-0123456789ab models/a4r")
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[
        Path | None,
        typer.Argument(
            help="Folder to write. [default: models/<name of the run>]", metavar="[DIR]"
        ),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="The run's store, where it is not where it was.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older one.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a run's model, its configuration and a model card to a folder of their own."""
    console = Console(as_json)

    def action() -> None:
        from trainer import commands

        commands.export(run, out, store, overwrite, console)

    with stop_signals_raise(REPEAT):
        run_command(console, action)


def export_main() -> None:
    """Entry point of ``xmodal-export``."""
    export_app()


def train_main() -> None:
    """Entry point of ``xmodal-train``."""
    train_app()


def evaluate_main() -> None:
    """Entry point of ``xmodal-evaluate``."""
    evaluate_app()


def _pairs(descriptors: list[str], mechanisms: list[str], arm: str | None) -> list[tuple[str, str]]:
    if arm is not None and (descriptors or mechanisms):
        raise typer.BadParameter("--arm names its own pairs; give either it or --descriptor pairs")
    if len(descriptors) != len(mechanisms):
        raise typer.BadParameter(
            f"{len(descriptors)} --descriptor but {len(mechanisms)} --mechanism: they go in pairs"
        )
    return list(zip(descriptors, mechanisms, strict=True))
