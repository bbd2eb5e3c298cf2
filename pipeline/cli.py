"""``xmodal-features``: the offline stage. Heavy imports happen inside commands: help is fast."""

from __future__ import annotations

import dataclasses
import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import cli_corpora
from pipeline.base.console import Console, program, run_command, stop_signals_raise

app = typer.Typer(
    name="xmodal-features",
    help="Read a corpus once, write a small exact store.\n\n"
    "Exit codes: 0 ok, 1 failure, 2 usage, 3 data failed validation, 75 stopped and resumable.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
StoreArgument = Annotated[Path, typer.Argument(help="Folder of a store.", metavar="STORE")]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=0, help="Worker processes; 0 works in this process. [default: all cores]"),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        help="Address of a running Dask scheduler (tcp://…), or 'local'. [default: local]"
    ),
]
PartOption = Annotated[
    str | None,
    typer.Option(help="i/n: share the work with n - 1 other jobs that run this same command."),
]


class AudioSource(StrEnum):
    """Where sound comes from."""

    files = "files"
    rendered = "rendered"


class ChecksumMode(StrEnum):
    """How audio files are fingerprinted."""

    sampled = "sampled"
    full = "full"


@app.command(
    epilog="Examples:  xmodal-features build --corpus demo   ·   xmodal-features build --corpus "
    "maestro --root /data/maestro-v3.0.0 --workers 16   ·   xmodal-features build --corpus "
    "my/pairs.csv --descriptors A4,D4,mel   ·   without any audio:  xmodal-features build --corpus "
    "my/midi --audio rendered --soundfont test=other.sf2   ·   in job i of an array of 8:  "
    "xmodal-features build --corpus maestro --root /data/maestro-v3.0.0 --part $SLURM_ARRAY_TASK_ID/8"
)
def build(
    corpus: Annotated[
        str,
        typer.Option(
            help="demo, maestro, a CSV with MAESTRO's seven columns, or a folder of MIDI files."
        ),
    ] = "demo",
    root: Annotated[
        Path | None,
        typer.Option(help="Folder that the table's paths are relative to. [default: the CSV's]"),
    ] = None,
    audio: Annotated[
        AudioSource,
        typer.Option(help="Read audio files, or render the MIDI files: no audio is needed then."),
    ] = AudioSource.files,
    soundfont: Annotated[
        list[str] | None,
        typer.Option(
            help="To render with: FILE.sf2, or SPLIT=FILE.sf2 for one split. Repeat to draw from "
            "several. [default: the one that comes with pretty_midi]",
            metavar="[SPLIT=]FILE",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder in which stores are made.")] = Path(
        "data/features"
    ),
    descriptors: Annotated[
        str | None,
        typer.Option(help="Names separated by commas, or 'all'. [default: the corpus' own]"),
    ] = None,
    max_segments_per_recording: Annotated[
        str | None, typer.Option(help="A number, or 'none'. [default: 100, the paper's cap]")
    ] = None,
    checksum: Annotated[
        ChecksumMode | None,
        typer.Option(help="Fingerprint audio by samples of each file, or full. [default: sampled]"),
    ] = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    part: PartOption = None,
    max_failures: Annotated[
        int | None, typer.Option(min=0, help="Recordings that may be unusable. [default: 0]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with build settings; flags win.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Build, resume or extend a store. A finished one is recognised and left alone."""
    console = Console(as_json)

    def action() -> None:
        from pipeline.build import build as build_store
        from pipeline.corpora.resolve import CORPORA, CorpusRequest, resolve_corpus
        from pipeline.pairing import folder_table

        # Only what was given: a flag's default must not win over the file.
        flags: dict[str, Any] = {
            "checksum": checksum and checksum.value,
            "descriptors": _names(descriptors),
            "max_failures": max_failures,
            "workers": workers,
            "cluster": cluster,
            "part": part,
        }
        flags = {name: value for name, value in flags.items() if value is not None}
        if max_segments_per_recording is not None:
            flags["segmentation"] = {"max_per_recording": _cap(max_segments_per_recording)}
        settings = _build_config(config, flags)
        rendered = audio is AudioSource.rendered
        with stop_signals_raise("repeat the command to continue"):
            name, base = corpus, root
            # A folder that is called like a corpus is meant by a path: ./maestro
            if rendered and corpus not in CORPORA and Path(corpus).is_dir():
                name = str(folder_table(Path(corpus), out.parent / "corpora", console))
                base = root or Path(corpus)
            with console.progress(f"corpus {corpus}", 1) as update:
                request = CorpusRequest(
                    root=base,
                    cache=out.parent / "corpora",
                    workers=settings.workers,
                    progress=lambda done, total, note: update(done / total, note),
                    rendered=rendered,
                    soundfonts=tuple(soundfont or ()),
                )
                resolved = resolve_corpus(name, request)
            result = build_store(resolved, out, settings, console)
        _report(console, result)

    run_command(console, action)


@app.command(
    epilog="Example:  xmodal-features add data/features/maestro-0123456789ab --descriptors A4"
)
def add(
    store: StoreArgument,
    descriptors: Annotated[str, typer.Option(help="Names separated by commas, or 'all'.")],
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    part: PartOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add descriptors to a finished store, from its own audio and notes; no recording is read."""
    console = Console(as_json)

    def action() -> None:
        from pipeline.build import BuildConfig
        from pipeline.build import add as add_arrays

        settings = BuildConfig(
            descriptors=_names(descriptors),
            workers=_workers(part) if workers is None else workers,
            cluster=cluster or "local",
            part=part,
        )
        with stop_signals_raise("repeat the command to continue"):
            _report(console, add_arrays(store, settings, console))

    run_command(console, action)


@app.command(epilog="Example:  xmodal-features verify data/features/demo-0123456789ab")
def verify(store: StoreArgument, as_json: JsonFlag = False) -> None:
    """Check every file of a store against its SHA-256, and every table and array against its form."""
    console = Console(as_json)

    def action() -> None:
        from pipeline.verify import verify as verify_store

        report = verify_store(store, console)
        console.result(
            report, f"{store}: {report['files']} files, {report['bytes']} bytes, all well"
        )

    run_command(console, action)


@app.command(epilog="Example:  xmodal-features info data/features/demo-0123456789ab --json")
def info(store: StoreArgument, as_json: JsonFlag = False) -> None:
    """Show what a store holds."""
    console = Console(as_json)

    def action() -> None:
        from pipeline.info import describe_store
        from pipeline.store import Store

        data, text = describe_store(Store.open(store))
        console.result(data, text)

    run_command(console, action)


@app.command(
    epilog="Examples:  xmodal-features report data/features/demo-0123456789ab   ·   "
    "xmodal-features report data/features/demo-0123456789ab --out report.html"
)
def report(
    store: StoreArgument,
    out: Annotated[
        Path | None, typer.Option(help="File to write. [default: STORE.html, beside the store]")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write one HTML page about a store: contents, distributions, segments to see and hear."""
    console = Console(as_json)

    def action() -> None:
        from pipeline.report import write_report
        from pipeline.store import Store

        opened = Store.open(store)
        file = store.absolute().parent / f"{opened.name}.html" if out is None else out
        data = write_report(opened, file, console)
        console.result(data, f"{file}: {data['bytes'] / 1e6:.1f} MB; open it in any browser")

    run_command(console, action)


@app.command(
    epilog="Examples:  xmodal-features stage /project/features/maestro-0123456789ab /local/scratch"
    "   ·   STORE=$(xmodal-features stage /project/features/maestro-0123456789ab $TMPDIR)"
)
def stage(
    store: StoreArgument,
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder on a local disk; the copy's name is the store's.", metavar="DIR"
        ),
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash a copy that is there already, and mend it.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Copy a store to a local disk, verified, once per node; print the path to use."""
    console = Console(as_json)

    def action() -> None:
        from pipeline.stage import stage as stage_store

        with stop_signals_raise("repeat the command to continue"):
            done = stage_store(store, folder, console, full=verify)
        did = f"{done.copied} files copied ({done.bytes / 1e6:.0f} MB), {done.kept} were there"
        console.say(f"{did}, {done.seconds:.1f} s")
        console.result({**dataclasses.asdict(done), "store": str(done.store)}, str(done.store))

    run_command(console, action)


@app.command("list", epilog="Example:  xmodal-features list")
def list_descriptors(as_json: JsonFlag = False) -> None:
    """List the descriptors: side, shape, bytes and milliseconds per segment, units and meaning."""
    console = Console(as_json)

    def action() -> None:
        from pipeline.info import describe_registry

        data, text = describe_registry()
        console.result(data, text)

    run_command(console, action)


cli_corpora.register(app)


def main() -> None:
    """Entry point of ``xmodal-features``."""
    app()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _workers(part: str | None) -> int:
    """All cores; a part of a shared build works in its own process."""
    return _cores() if part is None else 0


def _cap(text: str) -> int | None:
    if text.lower() == "none":
        return None
    if not text.isdigit() or int(text) < 1:
        raise typer.BadParameter(f"'{text}' is neither a positive number nor 'none'")
    return int(text)


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    if text == "all":
        from pipeline.descriptors import DESCRIPTORS

        return tuple(DESCRIPTORS.names())
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise typer.BadParameter(f"'{text}' names no descriptor", param_hint="--descriptors")
    return names


def _build_config(file: Path | None, flags: dict[str, Any]) -> Any:
    from pipeline.base.config import from_plain, load_toml, merge
    from pipeline.build import BuildConfig

    settings = merge(load_toml(file) if file else {}, flags)
    settings.setdefault("workers", _workers(settings.get("part")))
    return from_plain(BuildConfig, settings, "build")


def _report(console: Console, result: Any) -> None:
    store = result.store
    for failure in result.failures:
        console.say(f"left out: row {failure.recording} [{failure.kind}] {failure.message}")
    record = store.record
    did = f"built {', '.join(result.built)}" if result.built else "already complete, nothing to do"
    data = {
        "store": str(store.path),
        "status": record["status"],
        "recordings": record["recordings"],
        "segments": record["segments"],
        "notes": record["notes"],
        "failures": len(result.failures),
        "built": result.built,
        "arrays": list(store.arrays),
        "bytes": sum(entry["size"] for entry in record["files"].values()),
        "seconds": result.seconds,
    }
    seconds = sum(result.seconds.values())
    text = (
        f"{store.path}: {did}\n"
        f"  {data['recordings']} recordings, {data['segments']} segments, "
        f"{data['bytes'] / 1e6:.0f} MB, {seconds:.1f} s\n"
        f"next: {program('xmodal-train')} --descriptor A4 --mechanism reverse_xattn --store "
        f"{shlex.quote(str(store.path))}"
    )
    console.result(data, text)
