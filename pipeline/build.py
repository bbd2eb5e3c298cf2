"""Corpus → plan → ingest → describe → commit; resumable at every byte.

A killed build leaves a folder with a journal and no commit record (or, when a finished store was
being extended, the old record): the same command continues. Only finished shards whose hash still
holds are kept. One builder at a time holds the folder's lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.base.config import to_plain
from pipeline.base.console import Console
from pipeline.base.errors import ConfigError, CorpusError, StoreError
from pipeline.base.files import FolderLock, sweep_temporaries, write_json
from pipeline.checks import check_tasks, find_failures, run_check, with_measures
from pipeline.cluster import Executor, open_executor
from pipeline.corpora.resolve import Corpus
from pipeline.describe import describe_tasks, run_describe
from pipeline.descriptors import DESCRIPTORS, Descriptor
from pipeline.ingest import ingest_tasks, run_ingest
from pipeline.plan import Checksum, Failure, Input, fingerprint_inputs, identity_of, make_plan
from pipeline.quality import QualityLimits
from pipeline.refresh import RULES, refresh
from pipeline.store.reader import Store, read_record
from pipeline.store.schema import (
    BUILD_INFO,
    RECORD,
    ArrayInfo,
    Segmentation,
    audio_layout,
    descriptor_layout,
)
from pipeline.store.writer import JOURNAL, commit, create_array, withdraw, write_table

# Many tasks end together; few decode fewer recordings twice, where a task ends within one.
INGEST_TASKS_PER_WORKER = 3
CHECK_TASKS_PER_WORKER = 4
DESCRIBE_TASKS_PER_WORKER = 8
VERSIONS = ("xmodal", "numpy", "scipy", "numba", "soxr", "soundfile", "symusic", "zarr", "pyarrow")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BuildConfig:
    """What is built and how; the first group is what a store's identity depends on.

    Attributes
    ----------
    segmentation, checksum : see their types
    descriptors : names, or None for the corpus' default
    max_failures : recordings that may be unusable before the build refuses
    quality : when a recording that can be read is unusable all the same
    workers, cluster : where tasks run; never change a byte
    """

    segmentation: Segmentation = dataclasses.field(default_factory=Segmentation)
    checksum: Checksum = "sampled"
    descriptors: tuple[str, ...] | None = None
    max_failures: int = 0
    quality: QualityLimits = dataclasses.field(default_factory=QualityLimits)
    workers: int = 0
    cluster: str = "local"

    def __post_init__(self) -> None:
        for name in ("max_failures", "workers"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: must not be negative")


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
    job = _Job(config, console, executor)
    names = corpus.descriptors if config.descriptors is None else config.descriptors
    descriptors = choose_descriptors(names)
    inputs = _inputs(corpus, out, config, console)
    job.clock.lap("fingerprint")
    while True:
        _refuse_failures(corpus, inputs, config.max_failures)
        identity = identity_of(corpus.recordings, inputs, config.segmentation)
        folder = out / f"{corpus.name}-{identity[:12]}"
        _refuse_foreign(folder)
        with FolderLock(folder):
            sweep_temporaries(folder)
            _refresh(folder, corpus, job)
            if finished := (folder / RECORD).exists():
                # Other limits may have been set than those that it was built under.
                failed = find_failures(Store.open(folder).table("recordings"), config.quality)
                if not failed:
                    store, built = _extend(folder, descriptors, job)
                    if built:
                        _write_build_info(folder, corpus, job)
                    failures = [i.failure for i in inputs if i.failure]
                    return BuildResult(
                        store=store, built=built, failures=failures, seconds=job.clock.laps
                    )
            else:
                failed = _build_new(corpus, inputs, folder, descriptors, job)
                if not failed:
                    _write_build_info(folder, corpus, job)
                    return BuildResult(
                        store=Store.open(folder),
                        built=["audio", *(d.name for d in descriptors)],
                        failures=[i.failure for i in inputs if i.failure],
                        seconds=job.clock.laps,
                    )
            # A file that opened well turned out unusable: its rows must go, so every offset moves.
            inputs = [
                dataclasses.replace(i, failure=f, fingerprint={}) if (f := failed.get(n)) else i
                for n, i in enumerate(inputs)
            ]
            _refuse_failures(corpus, inputs, config.max_failures)
            if not finished:
                _clear(folder)
        with contextlib.suppress(OSError):  # another builder may have come in since
            folder.rmdir()


def _extend(folder: Path, descriptors: list[Descriptor], job: _Job) -> tuple[Store, list[str]]:
    """Add arrays to a committed store from its own audio and notes; the rest is not touched.

    The caller holds the folder's lock.
    """
    store = Store.open(folder)
    wanted = [_layout(d, store) for d in descriptors]
    missing = [i for i in wanted if store.arrays.get(i.name) != i]
    if not missing:
        shutil.rmtree(folder / JOURNAL, ignore_errors=True)
        return store, []
    record = store.record
    replaced = [i.name for i in missing if i.name in store.arrays]
    if replaced:
        record = withdraw(folder, record, replaced)
    with job.workers() as executor:
        _describe(folder, missing, executor, job.console)
    job.clock.lap("describe")
    commit(folder, record, missing)
    return Store.open(folder), [i.name for i in missing]


def add(path: Path, config: BuildConfig, console: Console) -> BuildResult:
    """Add descriptors to a finished store without its corpus."""
    read_record(path)
    job = _Job(config, console)
    with FolderLock(path):
        sweep_temporaries(path)
        descriptors = choose_descriptors(config.descriptors or ())
        store, built = _extend(path, descriptors, job)
    return BuildResult(store=store, built=built, failures=[], seconds=job.clock.laps)


def _build_new(
    corpus: Corpus,
    inputs: list[Input],
    folder: Path,
    descriptors: list[Descriptor],
    job: _Job,
) -> dict[int, Failure]:
    """Plan, ingest, describe, commit; returns what failed while decoding (then: no commit)."""
    plan = make_plan(corpus.name, corpus.recordings, inputs, corpus.root, job.config.segmentation)
    if not plan.n_segments:
        raise CorpusError(f"{corpus.table}: no recording gives a segment")
    job.console.say(
        f"plan: {len(plan.sources)} recordings, {plan.n_segments} segments, {plan.n_notes} note "
        f"rows -> {folder}"
    )
    short = len(corpus.recordings) - len(plan.sources) - len(plan.failures)
    if short:
        job.console.say(f"{short} recordings are shorter than one segment and give none")
    (folder / JOURNAL).mkdir(parents=True, exist_ok=True)
    for name, table in plan.tables.items():
        write_table(folder, name, table)
    audio = audio_layout(plan.n_samples, plan.identity)
    infos = [
        descriptor_layout(
            d, n_segments=plan.n_segments, n_notes=plan.n_notes, identity=plan.identity
        )
        for d in descriptors
    ]
    create_array(folder, audio)
    job.clock.lap("plan")
    with job.workers() as executor:
        tasks = ingest_tasks(
            folder, audio, plan.sources, INGEST_TASKS_PER_WORKER * executor.workers
        )
        failures = _run(executor, run_ingest, tasks, "ingest audio", job.console)
        job.clock.lap("ingest")
        if failures:
            return {f.recording: f for f in failures}
        measures = _measure(folder, plan.tables["segments"], plan.segmentation, executor, job)
        recordings = with_measures(plan.tables["recordings"], measures)
        write_table(folder, "recordings", recordings)
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
    commit(folder, record, [audio, *infos])
    job.clock.lap("commit")
    return {}


def _refresh(folder: Path, corpus: Corpus, job: _Job) -> None:
    """A finished store under the present rules for compositions and measures."""

    def measure(segments: pa.Table) -> dict[int, dict[str, Any]]:
        with job.workers() as executor:
            return _measure(folder, segments, job.config.segmentation, executor, job)

    said = refresh(folder, [r.composition for r in corpus.recordings], measure)
    if said:
        job.console.say(f"{folder.name}: {said}")


def _measure(
    folder: Path, segments: pa.Table, segmentation: Segmentation, executor: Executor, job: _Job
) -> dict[int, dict[str, Any]]:
    """Measures by recording, from the store's audio and notes."""
    measures: dict[int, dict[str, Any]] = {}
    tasks = check_tasks(folder, segments, segmentation, CHECK_TASKS_PER_WORKER * executor.workers)
    with job.console.progress("check audio against notes", len(tasks)) as update:
        for done, result in enumerate(executor.run(run_check, tasks), 1):
            measures.update(result["measures"])
            update(done, "")
    return measures


def _describe(folder: Path, infos: list[ArrayInfo], executor: Executor, console: Console) -> None:
    (folder / JOURNAL).mkdir(exist_ok=True)
    for info in infos:
        create_array(folder, info)
    tasks = describe_tasks(folder, infos, DESCRIBE_TASKS_PER_WORKER * executor.workers)
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
            failures.extend(result["failures"])
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


def _refuse_failures(corpus: Corpus, inputs: list[Input], allowed: int) -> None:
    failures = [i.failure for i in inputs if i.failure]
    if len(failures) <= allowed:
        return
    shown = "".join(
        f"\n  row {f.recording} [{f.stage}/{f.kind}] {f.message}" for f in failures[:20]
    )
    more = f"\n  … and {len(failures) - 20} more" if len(failures) > 20 else ""
    raise CorpusError(
        f"{len(failures)} of {len(inputs)} recordings of {corpus.table} cannot be used; correct "
        f"them, or allow so many with --max-failures {len(failures)}:{shown}{more}",
        kind="failures",
    )


def _refuse_foreign(folder: Path) -> None:
    """Never write into a folder that is neither a store nor a build of ours."""
    if not folder.exists():
        return
    if not folder.is_dir() or not (
        (folder / RECORD).exists()
        or (folder / JOURNAL).is_dir()
        or all(p.name.startswith(".lock") for p in folder.iterdir())
    ):
        raise StoreError(
            f"{folder} exists and is not a store; move it away, or choose another --out",
            kind="not-a-store",
        )


def _clear(folder: Path) -> None:
    """Empty a folder whose lock we hold, but for the lock."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif not entry.name.startswith(".lock"):
            entry.unlink()


def _write_build_info(folder: Path, corpus: Corpus, job: _Job) -> None:
    versions: dict[str, str | None] = {}
    for package in VERSIONS:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    info = {
        "root": str(corpus.root.resolve()),
        "table": str(corpus.table.resolve()),
        "config": to_plain(job.config),
        "seconds": job.clock.laps,
        "host": socket.gethostname(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": versions,
    }
    write_json(folder / BUILD_INFO, info)


class _Job:
    """What all steps of one build share: settings, output, clock, workers."""

    def __init__(
        self, config: BuildConfig, console: Console, executor: Executor | None = None
    ) -> None:
        self.config, self.console, self._executor = config, console, executor
        self.clock = _Clock()

    @contextlib.contextmanager
    def workers(self) -> Iterator[Executor]:
        """The given executor, or one that lives as long as the block."""
        if self._executor is not None:
            yield self._executor
            return
        with open_executor(self.config.workers, self.config.cluster) as executor:
            yield executor


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self._last, 3)
        self._last = now
