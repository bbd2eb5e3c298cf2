"""What is tried of files before runs are queued: folders, space, versions, beginnings, the store."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from pipeline.base.errors import StoreError, XmodalError
from pipeline.base.files import FolderLock, read_json, sha256_file
from pipeline.store.reader import Store
from trainer.campaign.state import State, attempts, bytes_below
from trainer.campaign.sweep import PlannedRun, Sweep
from trainer.layout import RUN_FILE
from trainer.run import open_run

CHECKPOINTS = 4  # of a run: the last two, the best, and the one that is being written
TOLD = ("python", "torch", "numpy", "zarr")
SAMPLE_BYTES = 256 << 20
SPARE_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was tried.

    Attributes
    ----------
    name : what
    ok : whether tasks would get past it
    warning : what tasks get past, though somebody should know it
    detail : what was found
    remedy : what to do where it is not ok
    """

    name: str
    ok: bool
    warning: bool = False
    detail: str
    remedy: str = ""

    @property
    def mark(self) -> str:
        """By which people see how it went."""
        return ("!!" if self.warning else "ok") if self.ok else "NO"


def folder_checks(sweep: Sweep, left: Sequence[PlannedRun]) -> Iterator[Check]:
    """Whether runs can be written and locked where they belong, and have the room."""
    out = Path(sweep.out).resolve()
    probe = out / f".preflight-{os.getpid()}"
    try:
        probe.mkdir(parents=True)
        with FolderLock(probe):
            (probe / "bytes").write_bytes(bytes(1 << 20))
    except (OSError, StoreError) as error:
        yield Check(
            name="folder of runs",
            ok=False,
            detail=f"cannot write and lock in {out} ({error})",
            remedy="choose another --out",
        )
        return
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    yield Check(name="folder of runs", ok=True, detail=f"{out} can be written to and locked")
    need = sum(max(0, _bytes_of(run) - bytes_below(sweep.path(run))) for run in left) + SPARE_BYTES
    free = shutil.disk_usage(out).free
    yield Check(
        name="space",
        ok=free >= need,
        detail=f"{free / 1e9:.2f} GB free, checkpoints of {len(left)} runs need {need / 1e9:.2f} GB",
        remedy="" if free >= need else "make room, or choose another --out",
    )


def _bytes_of(run: PlannedRun) -> int:
    """What a run's folder grows to: parameters, and two moments of those that are trained."""
    return 4 * (CHECKPOINTS * (run.parameters + 2 * run.trainable) + run.parameters)


def versions(sweep: Sweep, left: Sequence[PlannedRun]) -> Check:
    """Runs that were begun with other packages go on with these; what may differ is told."""
    others: dict[str, list[str]] = {}  # difference → runs
    compared = 0
    for run in left:
        try:
            begun: dict[str, str] = read_json(sweep.path(run) / RUN_FILE)["versions"]
            compared += 1
            for name, version in begun.items():
                if (now := _version(name)) != version:
                    text = f"begun with {name} {version}, here is {now}"
                    others.setdefault(text, []).append(run.label)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    if not compared:
        here = ", ".join(f"{name} {_version(name)}" for name in TOLD)
        detail = f"no run was begun, so there are none to compare with; here are {here}"
        return Check(name="versions", ok=True, detail=detail)
    if not others:
        detail = f"those that {compared} begun runs were begun with"
        return Check(name="versions", ok=True, detail=detail)
    told = "; ".join(f"{_some(runs)}: {text}" for text, runs in others.items())
    return Check(
        name="versions",
        ok=True,
        warning=True,
        detail=f"{told}; they go on all the same, and their last bits may be others",
    )


def _some(labels: Sequence[str]) -> str:
    return labels[0] + (f" and {len(labels) - 1} more" if len(labels) > 1 else "")


def _version(name: str) -> str:
    if name == "python":
        return platform.python_version()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def beginnings(sweep: Sweep, left: Sequence[PlannedRun], found: Sequence[State]) -> Iterator[Check]:
    """What runs start from, or go on from, is as it was left.

    One run that cannot go on is told, and holds up no other; a start that is gone ends all that start
    from it, and does not come back by itself.
    """
    starts: dict[int, str] = {}  # run that is started from → what is the matter with it
    for run in left:
        if problem := _problem(sweep, run):
            yield Check(name=f"beginning of {run.label}", ok=True, warning=True, detail=problem)
        after = run.after
        if after is None or found[after].status != "done" or after in starts:
            continue
        starts[after] = _problem_of_start(sweep.path(sweep.runs[after]))
        if starts[after]:
            yield Check(
                name="beginnings",
                ok=False,
                detail=f"{run.label} starts from {sweep.path(sweep.runs[after])}: {starts[after]}",
                remedy="repeat that run, which restores it from its checkpoint",
            )
    if any(starts.values()):
        return
    again = sum(found[run.index].status == "failed" for run in left)
    detail = "what runs start from is whole"
    yield Check(
        name="beginnings",
        ok=True,
        detail=f"{detail}; {again} runs that failed are tried again" if again else detail,
    )


def _problem(sweep: Sweep, run: PlannedRun) -> str:
    """Why a run that was begun would not go on; empty where nothing is known."""
    path = sweep.path(run)
    if idle := attempts(path).get("failure"):
        return str(idle)
    if not (path / RUN_FILE).exists():
        return ""
    try:
        begun = open_run(path)
    except XmodalError as error:
        return str(error)
    declared = begun.record.get("parameters")
    if declared not in (None, {"total": run.parameters, "trainable": run.trainable}):
        return (
            f"{path} was begun with another number of parameters ({declared}); go on with the "
            "version that began it, or delete it"
        )
    return ""


def _problem_of_start(path: Path) -> str:
    try:
        whole = open_run(path).whole
    except (OSError, XmodalError) as error:
        return str(error)
    return "" if whole else "its model is gone or was changed"


def store_checks(store: Store, sweep: Sweep, full: bool) -> Iterator[Check]:
    """Whether the store is what was committed: all of it, or a sample; and has what runs read."""
    files = sorted(store.record["files"].items(), key=lambda item: item[1]["size"])
    began, total, hashed = time.monotonic(), 0, 0
    for name, entry in files:
        if not full and hashed and total + entry["size"] > SAMPLE_BYTES:
            break
        if sha256_file(store.path / name) != entry["sha256"]:
            yield Check(
                name="store",
                ok=False,
                detail=f"{store.path / name} does not match its SHA-256",
                remedy=f"see xmodal-features verify {store.path}",
            )
            return
        total, hashed = total + entry["size"], hashed + 1
    seconds = time.monotonic() - began
    yield Check(
        name="store",
        ok=True,
        detail=f"{store.path}: {len(files)} files of the right size, {hashed} of them hashed "
        f"({total / 1e6:.0f} MB, {seconds:.1f} s)",
    )
    missing = [name for name in sweep.missing if name not in store.arrays]
    add = f"xmodal-features add {store.path} --descriptors {','.join(missing)}"
    yield Check(
        name="arrays",
        ok=not missing,
        detail=f"the store lacks {', '.join(missing)}"
        if missing
        else "all that runs read are there",
        remedy=f"add them: {add}" if missing else "",
    )
