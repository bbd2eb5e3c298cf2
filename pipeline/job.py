"""What all steps of a build share: its settings, who may write, where tasks run, how long it took."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from pipeline import parts
from pipeline.base.config import to_plain
from pipeline.base.console import Console
from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.files import LOCK, FolderLock, sweep_temporaries, write_json
from pipeline.cluster import Executor, open_executor
from pipeline.corpora.resolve import Corpus
from pipeline.parts import parse_part
from pipeline.plan import Checksum
from pipeline.quality import QualityLimits
from pipeline.store.schema import BUILD_INFO, RECORD, Segmentation
from pipeline.store.writer import JOURNAL

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
    part : "i/n" when this is one of n jobs of a queue that share the work (:mod:`pipeline.parts`)
    """

    segmentation: Segmentation = dataclasses.field(default_factory=Segmentation)
    checksum: Checksum = "sampled"
    descriptors: tuple[str, ...] | None = None
    max_failures: int = 0
    quality: QualityLimits = dataclasses.field(default_factory=QualityLimits)
    workers: int = 0
    cluster: str = "local"
    part: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_failures", "workers"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: must not be negative")
        if self.part is not None:
            parse_part(self.part)
            if self.workers or self.cluster != "local":
                raise ConfigError(f"part = {self.part}: a part has neither workers nor a cluster")


class Job:
    """What all steps of one build share: settings, output, clock, workers."""

    def __init__(
        self, config: BuildConfig, console: Console, executor: Executor | None = None
    ) -> None:
        self.config, self.console, self._executor = config, console, executor
        self.clock = Clock()

    @contextlib.contextmanager
    def hold(self, folder: Path) -> Iterator[Stay]:
        """Keep other builders out of the folder; of a shared build, all but its other parts."""
        if self.config.part is not None:
            with parts.Presence(folder) as presence:
                yield presence
            return
        stay = Alone()
        with FolderLock(folder):
            if parts.parts_at_work(folder):
                raise StoreError(
                    f"{folder} is being built by parts of a shared build; wait for them, or stop "
                    "them, then repeat the command",
                    kind="locked",
                )
            sweep_temporaries(folder)
            yield stay
            if stay.abandoned:
                parts.empty(folder)
            shutil.rmtree(folder / parts.FOLDER, ignore_errors=True)

    def alone(self, folder: Path) -> contextlib.AbstractContextManager[Any]:
        """For steps that one process takes for all parts."""
        if self.config.part is None:
            return contextlib.nullcontext()
        return FolderLock(folder, patience_s=parts.PATIENCE_S)

    @contextlib.contextmanager
    def workers(self, folder: Path) -> Iterator[Executor]:
        """The given executor, or one that lives as long as the block."""
        if self._executor is not None:
            yield self._executor
        elif self.config.part is not None:
            yield parts.SharedTasks(folder, *parse_part(self.config.part))
        else:
            with open_executor(self.config.workers, self.config.cluster) as executor:
                yield executor


class Stay(Protocol):
    """Time in a store's folder; ``abandoned`` empties it at the end."""

    abandoned: bool


@dataclasses.dataclass
class Alone:
    """The only builder's."""

    abandoned: bool = False


class Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """The time since the last lap belongs to ``name``."""
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self._last, 3)
        self._last = now


def refuse_foreign(folder: Path) -> None:
    """Never write into a folder that is neither a store nor a build of ours."""
    for wait in (0.1, 0.4, 0.0):  # parts of a shared build may be filling or emptying it
        if not folder.exists() or _ours(folder):
            return
        time.sleep(wait)
    raise StoreError(
        f"{folder} exists and is not a store; move it away, or choose another --out",
        kind="not-a-store",
    )


def _ours(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = {p.name for p in folder.iterdir()}
    return bool(names & {RECORD, JOURNAL}) or all(
        name.startswith((LOCK, parts.FOLDER)) for name in names
    )


def write_build_info(folder: Path, corpus: Corpus, job: Job) -> None:
    """``build.json``: when, where and with what; informative, never hashed."""
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
    if corpus.takes is not None:
        info["soundfonts"] = {t.sha256: t.soundfont for t in corpus.takes}
    write_json(folder / BUILD_INFO, info)
