"""Corpus → plan → ingest → describe → commit; resumable at every byte.

A killed build leaves a folder with a journal and no commit record (or, when a finished store was
being extended, the old record): the same command continues. Only finished shards whose hash still
holds are kept. One builder at a time holds the folder's lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.base.config import to_plain
from pipeline.base.console import Console
from pipeline.base.errors import ConfigError, CorpusError, StoreError
from pipeline.checks import check_tasks, find_failures, run_check, with_measures
from pipeline.cluster import Executor
from pipeline.corpora.resolve import Corpus
from pipeline.describe import describe_tasks, run_describe
from pipeline.descriptors import DESCRIPTORS, Descriptor
from pipeline.ingest import ingest_tasks, run_ingest
from pipeline.job import BuildConfig, Job, refuse_foreign, write_build_info
from pipeline.parts import FOLDER as PARTS
from pipeline.plan import Failure, Input, fingerprint_inputs, identity_of, make_plan
from pipeline.refresh import RULES, out_of_date, refresh
from pipeline.store.reader import Store, read_record
from pipeline.store.schema import RECORD, ArrayInfo, audio_layout, descriptor_layout
from pipeline.store.writer import JOURNAL, commit, create_array, withdraw, write_table

__all__ = ["BuildConfig", "BuildResult", "add", "build"]

# Many tasks end together; few decode fewer recordings twice, where a task ends within one.
INGEST_TASKS_PER_WORKER = 3
CHECK_TASKS_PER_WORKER = 4
DESCRIBE_TASKS_PER_WORKER = 8
EXAMINED = ("audio", "ingest", "quality")  # stages whose failures need the samples to be found


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """What a build did. ``built`` names the arrays that were added; empty when nothing was to do."""

    store: Store
    built: list[str]
    failures: list[Failure]
    seconds: dict[str, float]


def choose_descriptors(names: tuple[str, ...]) -> list[Descriptor]:
    """The descriptors of these names, each once."""
    if len(set(names)) != len(names):
        raise ConfigError(f"a descriptor is named twice: {', '.join(names)}")
    return [DESCRIPTORS.get(name) for name in names]


def build(
    corpus: Corpus,
    out: Path,
    config: BuildConfig,
    console: Console,
    executor: Executor | None = None,
) -> BuildResult:
    """Build, resume or extend the store of ``corpus`` under ``out``.

    Parameters
    ----------
    executor : workers that are already there; without it ``config`` says which to start

    Raises
    ------
    CorpusError
        when more recordings fail than ``max_failures`` allows; nothing is committed.
    StoreError
        when another builder holds the folder, or the folder is not a store.
    """
    job = Job(config, console, executor)
    names = corpus.descriptors if config.descriptors is None else config.descriptors
    descriptors = choose_descriptors(names)
    inputs = _inputs(corpus, out, config, console)
    job.clock.lap("fingerprint")
    while True:
        _refuse_failures(corpus, inputs, config.max_failures)
        identity = identity_of(corpus.recordings, inputs, config.segmentation)
        folder = out / f"{corpus.name}-{identity[:12]}"
        refuse_foreign(folder)
        left_out = [i.failure for i in inputs if i.failure]
        if (store := _complete(folder, corpus, descriptors, config)) is not None:
            return BuildResult(store=store, built=[], failures=left_out, seconds=job.clock.laps)
        with job.hold(folder) as stay:
            _refresh(folder, corpus, job)
            built: list[str] = []
            fresh = not (folder / RECORD).exists()
            if fresh:
                failed = _build_new(corpus, inputs, folder, descriptors, job)
                built = ["audio", *(d.name for d in descriptors)]
            else:  # it may have been built under other limits
                failed = find_failures(Store.open(folder).table("recordings"), config.quality)
            if not failed:
                store, added = _extend(folder, descriptors, job)
                built = built or added
                if built:
                    write_build_info(folder, corpus, job)
                return BuildResult(
                    store=store, built=built, failures=left_out, seconds=job.clock.laps
                )
            # A file that opened well turned out unusable: its rows must go, so every offset moves.
            inputs = [
                dataclasses.replace(i, failure=f, fingerprint={}) if (f := failed.get(n)) else i
                for n, i in enumerate(inputs)
            ]
            _refuse_failures(corpus, inputs, config.max_failures, folder if fresh else None)
            stay.abandoned = fresh
        with contextlib.suppress(OSError):  # another builder may have come in since
            folder.rmdir()


def _complete(
    folder: Path, corpus: Corpus, descriptors: list[Descriptor], config: BuildConfig
) -> Store | None:
    """A finished store that lacks nothing, looked at without a lock: its disk may be read-only."""
    if not (folder / RECORD).exists() or any((folder / n).exists() for n in (JOURNAL, PARTS)):
        return None
    if out_of_date(folder, [r.composition for r in corpus.recordings]):
        return None
    store = Store.open(folder)
    if find_failures(store.table("recordings"), config.quality) or _missing(store, descriptors):
        return None
    return store


def _extend(folder: Path, descriptors: list[Descriptor], job: Job) -> tuple[Store, list[str]]:
    """Add arrays to a committed store from its own audio and notes; the rest is not touched."""
    with job.alone(folder):
        missing = _missing(Store.open(folder), descriptors)
        if missing:
            _prepare(folder, missing)
        else:
            shutil.rmtree(folder / JOURNAL, ignore_errors=True)
            return Store.open(folder), []
    with job.workers(folder) as executor:
        _describe(folder, missing, executor, job.console)
    job.clock.lap("describe")
    with job.alone(folder):
        store = Store.open(folder)
        if _missing(store, descriptors):
            commit(folder, store.record, missing)
    return Store.open(folder), [i.name for i in missing]


def _missing(store: Store, descriptors: list[Descriptor]) -> list[ArrayInfo]:
    wanted = [_layout(d, store) for d in descriptors]
    return [i for i in wanted if store.arrays.get(i.name) != i]


def _prepare(folder: Path, missing: list[ArrayInfo]) -> None:
    """Make empty arrays; those that are there under another definition leave the record first."""
    store = Store.open(folder)
    replaced = [i.name for i in missing if i.name in store.arrays]
    if replaced:
        withdraw(folder, store.record, replaced)
    (folder / JOURNAL).mkdir(exist_ok=True)
    for info in missing:
        create_array(folder, info)


def add(
    path: Path, config: BuildConfig, console: Console, executor: Executor | None = None
) -> BuildResult:
    """Add descriptors to a finished store without its corpus."""
    read_record(path)
    job = Job(config, console, executor)
    with job.hold(path):
        store, built = _extend(path, choose_descriptors(config.descriptors or ()), job)
    return BuildResult(store=store, built=built, failures=[], seconds=job.clock.laps)


def _build_new(
    corpus: Corpus,
    inputs: list[Input],
    folder: Path,
    descriptors: list[Descriptor],
    job: Job,
) -> dict[int, Failure]:
    """Plan, ingest, describe, commit; returns what failed while decoding (then: no commit)."""
    plan = make_plan(corpus.name, corpus.recordings, inputs, job.config.segmentation)
    if not plan.n_segments:
        raise CorpusError(f"{corpus.table}: no recording gives a segment")
    job.console.say(
        f"plan: {len(plan.sources)} recordings, {plan.n_segments} segments, {plan.n_notes} note "
        f"rows -> {folder}"
    )
    short = len(corpus.recordings) - len(plan.sources) - len(plan.failures)
    if short:
        job.console.say(f"{short} recordings are shorter than one segment and give none")
    audio = audio_layout(plan.n_samples, plan.identity)
    infos = [
        descriptor_layout(
            d, n_segments=plan.n_segments, n_notes=plan.n_notes, identity=plan.identity
        )
        for d in descriptors
    ]
    with job.alone(folder):
        if (folder / RECORD).exists():
            return {}
        (folder / JOURNAL).mkdir(parents=True, exist_ok=True)
        for name, table in plan.tables.items():
            write_table(folder, name, table)
        for info in (audio, *infos):
            create_array(folder, info)
    job.clock.lap("plan")
    with job.workers(folder) as executor:
        groups = INGEST_TASKS_PER_WORKER * executor.workers
        tasks = ingest_tasks(folder, audio, plan.sources, groups, executor.common)
        failures = _run(executor, run_ingest, tasks, "ingest audio", job.console)
        job.clock.lap("ingest")
        if failures:
            # Two tasks may meet one file; every part must name the same failure for it.
            return {f.recording: f for f in sorted(failures, key=dataclasses.astuple)}
        measures = _measure(folder, plan.tables["segments"], executor, job)
        recordings = with_measures(plan.tables["recordings"], measures)
        job.clock.lap("quality")
        if unusable := find_failures(recordings, job.config.quality):
            return unusable
        _describe(folder, infos, executor, job.console)
        job.clock.lap("describe")
    record = {
        "kind": "xmodal-store",
        "corpus": plan.corpus,
        "identity": plan.identity,
        "status": "partial" if plan.failures else "complete",
        "segmentation": to_plain(plan.segmentation),
        "licence": corpus.licence,
        **RULES,
        "config": {
            "checksum": job.config.checksum,
            "descriptors": [d.name for d in descriptors],
            "max_failures": job.config.max_failures,
            "quality": to_plain(job.config.quality),
            "audio": "files" if corpus.takes is None else "rendered",
        },
        "inputs": {
            r.key: {k: i.fingerprint[k] for k in ("audio", "midi")}
            for r, i in zip(corpus.recordings, inputs, strict=True)
            if i.fingerprint
        },
        "recordings": len(corpus.recordings),
        "segments": plan.n_segments,
        "notes": plan.n_notes,
        "failures": len(plan.failures),
        "files": {},
        "arrays": {},
    }
    with job.alone(folder):
        if not (folder / RECORD).exists():
            write_table(folder, "recordings", recordings)  # a part that came late wrote the plan's
            commit(folder, record, [audio, *infos])
    job.clock.lap("commit")
    return {}


def _refresh(folder: Path, corpus: Corpus, job: Job) -> None:
    """A finished store under the present rules for compositions and measures."""
    names = [r.composition for r in corpus.recordings]
    with job.alone(folder):
        stale = out_of_date(folder, names)
    measures: dict[int, dict[str, Any]] = {}
    if "quality" in stale:
        with job.workers(folder) as executor:
            segments = pq.read_table(folder / "segments.parquet")
            measures = _measure(folder, segments, executor, job)
    if stale:
        with job.alone(folder):
            said = refresh(folder, names, measures)
        job.console.say(f"{folder.name}: {said}")


def _measure(
    folder: Path, segments: pa.Table, executor: Executor, job: Job
) -> dict[int, dict[str, Any]]:
    """Measures by recording, from the store's audio and notes."""
    measures: dict[int, dict[str, Any]] = {}
    groups = CHECK_TASKS_PER_WORKER * executor.workers
    tasks = check_tasks(folder, segments, job.config.segmentation, groups)
    with job.console.progress("check audio against notes", len(tasks)) as update:
        for done, result in enumerate(executor.run(run_check, tasks), 1):
            measures.update((row.pop("recording"), row) for row in result["measures"])
            update(done, "")
    return measures


def _describe(folder: Path, infos: list[ArrayInfo], executor: Executor, console: Console) -> None:
    groups = DESCRIBE_TASKS_PER_WORKER * executor.workers
    tasks = describe_tasks(folder, infos, groups, executor.common)
    label = f"describe {', '.join(i.name for i in infos)}"
    _run(executor, run_describe, tasks, label, console)


def _run(
    executor: Executor,
    function: Callable[[Any], dict[str, Any]],
    tasks: list[Any],
    label: str,
    console: Console,
) -> list[Failure]:
    failures: list[Failure] = []
    with console.progress(label, len(tasks)) as update:
        for done, result in enumerate(executor.run(function, tasks), 1):
            failures.extend(Failure(**f) for f in result["failures"])
            update(done, "")
    return failures


def _layout(descriptor: Descriptor, store: Store) -> ArrayInfo:
    return descriptor_layout(
        descriptor,
        n_segments=len(store.segments),
        n_notes=int(store.record["notes"]),
        identity=store.identity,
    )


def _inputs(corpus: Corpus, out: Path, config: BuildConfig, console: Console) -> list[Input]:
    suspects = _known_suspects(corpus, out)
    with console.progress("read headers and MIDI", len(corpus.recordings)) as update:
        return fingerprint_inputs(
            corpus.recordings,
            corpus.root,
            checksum=config.checksum,
            suspects=suspects,
            segmentation=config.segmentation,
            limits=config.quality,
            takes=corpus.takes,
            progress=lambda done, _: update(done, ""),
        )


def _known_suspects(corpus: Corpus, out: Path) -> frozenset[int]:
    """Recordings that once failed after their header: they are examined before all others."""
    found: set[int] = set()
    for record in out.glob(f"{corpus.name}-*/{RECORD}"):
        try:
            rows = Store.open(record.parent).table("failures").to_pylist()
        except StoreError:
            continue
        found.update(
            row["recording"] for row in rows if row["stage"] in ("ingest", "audio", "quality")
        )
    return frozenset(found)


def _refuse_failures(
    corpus: Corpus, inputs: list[Input], allowed: int, kept: Path | None = None
) -> None:
    """Stop where too many recordings failed; ``kept`` is what was built before that was known."""
    failures = [i.failure for i in inputs if i.failure]
    if len(failures) <= allowed:
        return
    shown = "".join(
        f"\n  row {f.recording} [{f.stage}/{f.kind}] {f.message}" for f in failures[:20]
    )
    more = f"\n  … and {len(failures) - 20} more" if len(failures) > 20 else ""
    if kept is not None:
        more += (
            f"\n  what was built before that is kept: if these very files can be read again, the "
            f"same command goes on there; if not, delete {kept}"
        )
    raise CorpusError(
        f"{len(failures)} of {len(inputs)} recordings of {corpus.table} cannot be used; correct "
        f"them, or allow so many with --max-failures {len(failures)}:{shown}{more}",
        kind="failures",
    )
