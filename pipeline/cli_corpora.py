"""``xmodal-features check-corpus | download | make-csv``: getting a corpus ready to be read."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.base.console import Console, run_command, stop_signals_raise
from pipeline.base.errors import EXIT_DATA

AGAIN = "repeat the command to continue"
CHECKS = Path("data/checks")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


class CheckLevel(StrEnum):
    """How closely files are looked at."""

    header = "header"
    midi = "midi"
    full = "full"


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command(
        "check-corpus",
        epilog="Examples:  xmodal-features check-corpus --corpus maestro --root "
        "/data/maestro-v3.0.0 --level midi   ·   xmodal-features check-corpus --corpus "
        "my/pairs.csv --level full --write-manifest my/checksums.csv",
    )(check_corpus)
    app.command(
        "download",
        epilog="Examples:  xmodal-features download --out /data   ·   xmodal-features download "
        "--corpus maestro --midi-only --out /data",
    )(download)
    app.command(
        "make-csv",
        epilog="Example:  xmodal-features make-csv my/recordings --out my/recordings/pairs.csv",
    )(make_csv)
    app.command(
        "compositions",
        epilog="Examples:  xmodal-features compositions --corpus my/pairs.csv --out review.csv   ·   "
        "xmodal-features compositions --corpus maestro --root /data/maestro-v3.0.0",
    )(compositions)


def check_corpus(
    corpus: Annotated[
        str, typer.Option(help="maestro, demo, or a CSV with MAESTRO's seven columns.")
    ] = "maestro",
    root: Annotated[
        Path | None,
        typer.Option(help="Folder that the table's paths are relative to. [default: the CSV's]"),
    ] = None,
    level: Annotated[
        CheckLevel,
        typer.Option(help="Files and headers; and SHA-256 of MIDI; and of audio where known."),
    ] = CheckLevel.header,
    manifest: Annotated[
        Path | None, typer.Option(help="Checksums to compare with, besides those that are known.")
    ] = None,
    write_manifest: Annotated[
        Path | None, typer.Option(help="Record the checksums of what is there, if all is well.")
    ] = None,
    midi_only: Annotated[
        bool, typer.Option("--midi-only", help="Leave the audio out, for a copy without it.")
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Where facts about files are remembered. [default: data/checks/<corpus>-….json]"
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a corpus: every file there, readable, and the published one. Exit 3 if anything is wrong.

    A check that was stopped goes on; one that is repeated reads only what has changed.
    """
    console = Console(as_json)

    def action() -> None:
        from pipeline.check import CheckConfig, describe
        from pipeline.check import check_corpus as check
        from pipeline.corpora.resolve import CorpusRequest, resolve_corpus

        with stop_signals_raise(AGAIN):
            request = CorpusRequest(root=root, cache=Path("data/corpora"), workers=1)
            resolved = resolve_corpus(corpus, request)
            config = CheckConfig(
                level=level.value,
                manifest=manifest,
                write_manifest=write_manifest,
                midi_only=midi_only,
                state=state or CHECKS / _state_name(resolved.name, resolved.root),
            )
            report = check(resolved, config, console)
        console.result(report, "" if as_json else describe(report))
        if report["problems"]:
            console.say(f"error: {len(report['problems'])} problems in {resolved.root}")
            raise SystemExit(EXIT_DATA)

    run_command(console, action)


def download(
    out: Annotated[Path, typer.Option(help="Folder in which the corpus' folder is made.")],
    corpus: Annotated[str, typer.Option(help="A corpus with a manifest.")] = "maestro",
    midi_only: Annotated[
        bool, typer.Option("--midi-only", help="The MIDI archive only (58 MB, not 108 GB).")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Folder to fetch from, for a mirror. [default: published]")
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(help="What another archive of that name must have. [default: published]"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch, verify and unpack a published corpus; stopped at any moment, the same command goes on.

    An archive that already lies in the folder is used. It is kept: delete it when it is not needed.
    """
    console = Console(as_json)

    def action() -> None:
        from pipeline.corpora.download import obtain
        from pipeline.corpora.manifests import load_manifest, other_archive

        manifest = load_manifest(corpus)
        archive = manifest.archives["midi" if midi_only else "full"]
        if sha256 is not None:
            archive = other_archive(archive, sha256)
        console.say(f"{manifest.name} {manifest.version}: {manifest.licence}, {manifest.owner}")
        with stop_signals_raise(AGAIN):
            done = obtain(archive, out, base_url=url or manifest.base_url, console=console)
        console.result({"corpus": manifest.name, **done}, _downloaded(corpus, done, midi_only))

    run_command(console, action)


def make_csv(
    folder: Annotated[Path, typer.Argument(help="Folder of recordings.", metavar="DIR")],
    out: Annotated[
        Path | None, typer.Option(help="The table, never overwritten. [default: DIR/pairs.csv]")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Propose a corpus table from paired audio and MIDI files, split by work: review it."""
    console = Console(as_json)

    def action() -> None:
        from pipeline.pairing import make_csv as make

        with stop_signals_raise("nothing was written"):
            made = make(folder, out, console)
        console.result(made, _made(made))

    run_command(console, action)


def _state_name(corpus: str, root: Path) -> str:
    from pipeline.base.config import digest

    return f"{corpus}-{digest(str(root.resolve()))}.json"


def _downloaded(corpus: str, done: dict[str, Any], midi_only: bool) -> str:
    check = "--level midi --midi-only" if midi_only else "--level full"
    lines = [f"{done['root']}: {done['did']}, {done['files']} files, {done['bytes'] / 1e9:.2f} GB"]
    if done["archive"]:
        lines.append(f"{done['archive']} is no longer needed")
    root = shlex.quote(done["root"])
    lines.append(f"next: xmodal-features check-corpus --corpus {corpus} --root {root} {check}")
    return "\n".join(lines)


def _made(made: dict[str, Any]) -> str:
    table, root = Path(made["table"]), made["root"]
    lines = [f"{table}: {made['recordings']} recordings; to be reviewed"]
    lines += [
        f"  {split:<11} {n['recordings']:>5} recordings {n['compositions']:>5} compositions"
        for split, n in made["splits"].items()
    ]
    lines += [f"  without a partner: {name}" for name in made["unpaired"]]
    lines += [f"  left out: {u['file']} [{u['kind']}] {u['why']}" for u in made["unusable"]]
    lines += [f"  look at: {r['file']}: {r['remark']}" for r in made["review"]]
    elsewhere = "" if table.parent == Path(root) else f" --root {shlex.quote(root)}"
    lines.append(
        f"next: xmodal-features build --corpus {shlex.quote(made['table'])}{elsewhere}, once titles, "
        "compositions and splits are right"
    )
    return "\n".join(lines)


def compositions(
    corpus: Annotated[
        str, typer.Option(help="demo, maestro, or a CSV with MAESTRO's seven columns.")
    ] = "demo",
    root: Annotated[
        Path | None, typer.Option(help="Folder of the corpus. [default: the CSV's]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file for the whole table.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Group a corpus' titles by composition, for review: doubtful ones, and ones in two splits."""
    console = Console(as_json)

    def action() -> None:
        from pipeline.base.files import atomic_write
        from pipeline.corpora.resolve import CorpusRequest, resolve_corpus
        from pipeline.corpora.review import as_csv, as_text, review

        # Where `build` keeps it: the demo corpus is not made twice.
        request = CorpusRequest(root=root, cache=Path("data/corpora"), workers=1)
        resolved = resolve_corpus(corpus, request)
        found = review(resolved.recordings)
        if out is not None:
            with atomic_write(out) as handle:
                handle.write(as_csv(found["rows"]).encode())
            console.say(f"wrote {out}")
        console.result(found, as_text(found, resolved.name))

    run_command(console, action)
