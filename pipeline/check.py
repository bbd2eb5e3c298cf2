"""A corpus against the disk: every file there, readable, and the published one.

Three levels, each with what the one before has:

* ``header``: every file is there; audio headers and whole MIDI files are read as ``build`` reads them,
  and the audio is as long as the table promises.
* ``midi``: the table and every MIDI file have their known SHA-256.
* ``full``: the audio too, as far as its SHA-256 is known.

Known are: for MAESTRO the table and all MIDI files (they come with this package); ``checksums.csv`` in
the corpus' folder, which ``download`` writes; and whatever ``--manifest`` names.

What was learned of a file (its header, its SHA-256: facts, not verdicts) is remembered, so that a
check that was killed goes on, and a check that is repeated reads what has changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pipeline.audio import PAD_LIMIT_SAMPLES
from pipeline.base.console import Console
from pipeline.base.errors import MissingExtra, UsageError
from pipeline.corpora.checksums import FILE as CHECKSUMS
from pipeline.corpora.checksums import Checksum, read_checksums, write_checksums
from pipeline.corpora.manifests import Manifest, find_manifest
from pipeline.corpora.memory import Memory
from pipeline.corpora.recordings import SPLITS, Recording
from pipeline.corpora.resolve import Corpus
from pipeline.examine import READER_VERSIONS, File, examine, other_size
from pipeline.spectral import SAMPLE_RATE
from pipeline.store.schema import Segmentation

Level = Literal["header", "midi", "full"]
HASHED: dict[str, frozenset[str]] = {
    "header": frozenset(),
    "midi": frozenset({"table", "midi"}),
    "full": frozenset({"table", "midi", "audio"}),
}
EVERY_SEGMENT = Segmentation(max_per_recording=None)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CheckConfig:
    """What is checked.

    Attributes
    ----------
    manifest : a file of checksums to compare with, before those that are known
    write_manifest : where to record the checksums of everything that the level hashes
    midi_only : leave the audio out, for a copy that has none
    state : the file in which facts are remembered
    """

    level: Level = "header"
    manifest: Path | None = None
    write_manifest: Path | None = None
    midi_only: bool = False
    state: Path


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One file that is not what it should be; ``recording`` is -1 for the table."""

    recording: int
    split: str
    file: str
    kind: str
    message: str


def check_corpus(corpus: Corpus, config: CheckConfig, console: Console) -> dict[str, Any]:
    """Check every file of a corpus.

    Returns
    -------
    plain data: counts, one row per split, and ``problems``, each with file, kind and message.

    Raises
    ------
    UsageError
        for a level that has nothing to compare with, or a ``write_manifest`` that is there.
    """
    known = _known(corpus, config)
    files = list(_files(corpus, config, known))
    problems = _count_problems(corpus)
    hashes: dict[str, Checksum] = {}
    counts = {"remembered": 0, "compared": 0, "unknown": 0}
    memory = Memory(config.state, [str(corpus.root.resolve()), *READER_VERSIONS])
    with (
        console.progress(f"check {corpus.name}", len(files)) as update,
        contextlib.closing(examine(files, memory)) as examined,
    ):
        for done, found in enumerate(examined, 1):
            file = found.file
            if problem := found.problem or _verdict(file, found.facts):
                problems.append(_problem(file, *problem))
            counts["remembered"] += int(found.problem is None and not found.read)
            if file.kind in HASHED[config.level] and found.problem is None:
                counts["unknown" if file.expected is None else "compared"] += 1
            if file.row is not None and file.hashed and "sha256" in found.facts:
                hashes[file.name] = Checksum(
                    bytes=found.facts["size"], sha256=found.facts["sha256"]
                )
            update(done, file.name)
    recorded = config.write_manifest if config.write_manifest and not problems else None
    if recorded is not None:
        remark = f"{corpus.name}: SHA-256 and size of every file, as they were found"
        write_checksums(recorded, hashes, remark)
    return {
        "corpus": corpus.name,
        "root": str(corpus.root),
        "level": config.level,
        "status": "wrong" if problems else "ok",
        "recordings": len(corpus.recordings),
        "files": len(files),
        **counts,
        "manifest": recorded and str(recorded),
        "splits": _splits(corpus, problems),
        "problems": [dataclasses.asdict(p) for p in problems],
    }


def describe(report: dict[str, Any]) -> str:
    """The answer of :func:`check_corpus` as text: a table by split, then every problem."""
    try:
        import polars as pl
    except ImportError:
        raise MissingExtra("polars", "features") from None
    with pl.Config(
        tbl_formatting="ASCII_MARKDOWN",
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_rows=-1,
        tbl_cols=-1,
        fmt_str_lengths=40,
    ):
        table = str(pl.DataFrame(report["splits"]))
    lines = [f"{report['corpus']} in {report['root']}, level {report['level']}", table]
    if report["level"] != "header":
        lines.append(
            f"{report['compared']} files compared with their SHA-256"
            + (f"; of {report['unknown']} none is known" if report["unknown"] else "")
        )
    if report["manifest"]:
        lines.append(f"checksums written to {report['manifest']}")
    lines += [f"  [{p['kind']}] {p['message']}" for p in report["problems"]]
    lines.append(f"{len(report['problems']) or 'no'} problems in {report['files']} files")
    return "\n".join(lines)


def _known(corpus: Corpus, config: CheckConfig) -> dict[str, Checksum]:
    """Every checksum that there is something to say about, the most trusted last."""
    if config.write_manifest is not None:
        if config.level == "header":
            raise UsageError("--write-manifest records checksums: choose --level midi or full")
        if config.write_manifest.exists():
            raise UsageError(
                f"{config.write_manifest} exists and is not overwritten; compare with it by "
                "--manifest, or name another file"
            )
    known: dict[str, Checksum] = {}
    if (own := corpus.root / CHECKSUMS).is_file():
        known |= read_checksums(own)
    if manifest := _manifest(corpus):
        known |= manifest.files()
    if config.manifest is not None:
        known |= read_checksums(config.manifest)
    if config.level != "header" and not known and config.write_manifest is None:
        raise UsageError(
            f"no checksums of the corpus '{corpus.name}' are known: name a file of them by "
            "--manifest, or record what is there by --write-manifest"
        )
    return known


def _manifest(corpus: Corpus) -> Manifest | None:
    """The manifest whose table this is; a user's own table may be called anything else."""
    manifest = find_manifest(corpus.table.stem.partition("-v")[0])
    if manifest is None or corpus.table.stem != f"{manifest.name}-v{manifest.version}":
        return None
    return manifest


def _files(corpus: Corpus, config: CheckConfig, known: dict[str, Checksum]) -> Iterator[File]:
    def file(kind: str, path: Path, name: str, row: Recording | None) -> File:
        expected = known.get(name) if kind in HASHED[config.level] else None
        wanted = expected is not None or (
            config.write_manifest is not None and kind in HASHED[config.level]
        )
        return File(kind=kind, path=path, name=name, row=row, expected=expected, hashed=wanted)

    if corpus.table.name in known:
        yield file("table", corpus.table, corpus.table.name, None)
    for row in corpus.recordings:
        yield file("midi", corpus.root / row.midi_path, row.midi_path, row)
        if not config.midi_only:
            yield file("audio", corpus.root / row.audio_path, row.audio_path, row)


def _verdict(file: File, facts: dict[str, Any]) -> tuple[str, str] | None:
    """What is wrong with a file that could be read: not the known one, or too short."""
    if file.expected is not None and other_size(file, facts):
        return "checksum", (
            f"{file.path}: {facts['size']} bytes long, the known file is {file.expected.bytes}"
        )
    if file.expected is not None and facts["sha256"] != file.expected.sha256:
        return "checksum", f"{file.path}: its contents are not those of the known file (SHA-256)"
    if file.kind == "audio" and file.row is not None:
        promised = EVERY_SEGMENT.timeline_samples(EVERY_SEGMENT.count(file.row.duration_s))
        if promised - facts["samples_24k"] > PAD_LIMIT_SAMPLES:
            return "duration", (
                f"{file.path}: lasts {facts['seconds']:.2f} s, the table says "
                f"{file.row.duration_s:.2f} s, segments reach {promised / SAMPLE_RATE:.0f} s"
            )
    return None


def _problem(file: File, kind: str, message: str) -> Problem:
    row = file.row
    return Problem(
        recording=row.recording if row else -1,
        split=row.split if row else "",
        file=file.name,
        kind=kind,
        message=message,
    )


def _count_problems(corpus: Corpus) -> list[Problem]:
    """Recordings per split against the manifest of a published corpus."""
    manifest = _manifest(corpus)
    if manifest is None:
        return []
    found = {split: sum(r.split == split for r in corpus.recordings) for split in SPLITS}
    if found == manifest.recordings:
        return []
    message = f"{corpus.table}: {found} recordings, {manifest.version} has {manifest.recordings}"
    return [Problem(recording=-1, split="", file=corpus.table.name, kind="counts", message=message)]


def _splits(corpus: Corpus, problems: list[Problem]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        mine = [r for r in corpus.recordings if r.split == split]
        wrong = [p for p in problems if p.split == split]
        rows.append(
            {
                "split": split,
                "recordings": len(mine),
                "hours": round(sum(r.duration_s for r in mine) / 3600, 2),
                "compositions": len({r.composition for r in mine}),
                "missing": sum(p.kind == "missing" for p in wrong),
                "wrong": sum(p.kind != "missing" for p in wrong),
            }
        )
    return rows
