"""What run folders weigh, and what of them may go.

Only three things ever go: checkpoints of runs that have ended well (their model stays, and with it
every score and analysis), what a process that died left half-written, and, where it is asked for,
whole runs that did not end and that no campaign wants. A folder that a process holds is left alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pipeline.base.errors import ConfigError, RunError, XmodalError
from pipeline.base.files import FolderLock, read_json, sha256_file
from trainer.campaign.plan import read_plan
from trainer.campaign.state import bytes_below
from trainer.campaign.sweep import CAMPAIGNS, LAUNCHED, PLAN_FILE, SUBMITTED
from trainer.layout import CHECKPOINTS, FINISHED, MODEL, RUN_FILE

GONE = ".removed-"
DAMAGED = "damaged"
SPARED = (FINISHED, "running", DAMAGED)
RECENT_S = 30 * 24 * 3600.0
Kind = Literal["checkpoints", "leftover", "unplanned"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunSize:
    """A run folder.

    Attributes
    ----------
    run, arm, seed, status : as its record tells; ``running`` while a process holds it
    total, checkpoints : bytes of all its files, and of its checkpoints
    campaigns : kept plans that name it
    """

    run: str
    arm: str
    seed: int | None
    status: str
    total: int
    checkpoints: int
    campaigns: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Prunable:
    """A file or folder that may go, why, and its size in bytes."""

    path: Path
    kind: Kind
    why: str
    size: int


def run_sizes(out: Path) -> list[RunSize]:
    """Every run folder below ``out``, in the order of their names.

    Raises
    ------
    RunError
        when there is no such folder.
    """
    if not out.is_dir():
        raise RunError(f"there is no folder {out} with runs in it")
    wanted = _planned(out)
    found: list[RunSize] = []
    for folder in _run_folders(out):
        record = _record(folder)
        config = record.get("config")
        seed = config.get("seed") if isinstance(config, dict) else None
        held = FolderLock(folder).is_held()
        found.append(
            RunSize(
                run=folder.name,
                arm=str(record.get("arm", "?")),
                seed=seed if isinstance(seed, int) else None,
                status="running" if held else str(record.get("status", DAMAGED)),
                total=bytes_below(folder),
                checkpoints=bytes_below(folder / CHECKPOINTS),
                campaigns=tuple(wanted.get(folder.name, ())),
            )
        )
    return found


def prunable(out: Path, *, unplanned: bool = False) -> list[Prunable]:
    """What may go.

    Parameters
    ----------
    unplanned : also whole runs that did not end, and that no plan of a campaign names, such as those
        of a configuration that is not the default any more. What was launched or submitted in the
        last 30 days counts as planned; a run whose record does not read is nobody's to remove.

    Raises
    ------
    RunError
        when there is no such folder.
    ConfigError
        when unplanned runs are asked for, and a kept plan does not read: it may name any of them.
    """
    found: list[Prunable] = []
    runs = run_sizes(out)
    if unplanned:
        for file in _plans(out):
            read_plan(file)
    for run in runs:
        folder = out / run.run
        if run.status == FINISHED and run.checkpoints and (folder / MODEL).exists():
            why = "the run has ended; its model stays"
            found.append(
                Prunable(
                    path=folder / CHECKPOINTS, kind="checkpoints", why=why, size=run.checkpoints
                )
            )
        elif unplanned and run.status not in SPARED and not run.campaigns:
            why = f"{run.status}, and no campaign names it"
            found.append(Prunable(path=folder, kind="unplanned", why=why, size=run.total))
    going = [item.path for item in found]
    for left in sorted(_leftovers(out)):
        if any(left.is_relative_to(path) for path in going):
            continue
        why = "left by a process that died"
        found.append(Prunable(path=left, kind="leftover", why=why, size=bytes_below(left)))
    return found


def prune(items: Sequence[Prunable]) -> tuple[list[Prunable], list[str]]:
    """Remove them; what a process has taken meanwhile, or the system keeps, stays and is told.

    Returns
    -------
    removed, kept
        What went; and why something else did not, a line each.
    """
    removed: list[Prunable] = []
    kept: list[str] = []
    for item in items:
        folder = item.path.parent if item.kind == "checkpoints" else item.path
        try:
            with contextlib.ExitStack() as held:
                if item.kind != "leftover":
                    held.enter_context(FolderLock(folder))
                    _look_again(item, folder)  # a process may have been at it since it was listed
                # Out of the way at once: a kill in the middle leaves a leftover, not half a run.
                gone = item.path.with_name(f"{GONE}{item.path.name}-{os.getpid()}")
                item.path.rename(gone)
                shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
            removed.append(item)
        except (OSError, XmodalError) as error:
            kept.append(f"{item.path} stays: {error}")
    return removed, kept


def _run_folders(out: Path) -> list[Path]:
    found = (path for path in out.iterdir() if (path / RUN_FILE).exists())
    return sorted(path for path in found if not path.name.startswith(GONE))


def _plans(out: Path) -> list[Path]:
    """Plans, and the copies of them that tasks work by which may still be under way."""
    copies = [
        *(out / CAMPAIGNS).glob(f"*/{SUBMITTED}/*/{PLAN_FILE}"),
        *(out / CAMPAIGNS).glob(f"*/{LAUNCHED}/*.json"),
    ]
    recent = [file for file in copies if time.time() - file.stat().st_mtime < RECENT_S]
    return sorted([*(out / CAMPAIGNS).glob(f"*/{PLAN_FILE}"), *recent])


def _look_again(item: Prunable, folder: Path) -> None:
    record = _record(folder)
    ended = record.get("status") == FINISHED
    if item.kind == "checkpoints":
        whole = ended and sha256_file(folder / MODEL) == record.get("model_sha256")
        if not whole:
            raise RunError(
                "the run is not what it was, or its model is not the one that it ended with"
            )
    elif ended or not record or folder.name in _planned(folder.parent):
        raise RunError("it has ended meanwhile, or a campaign names it now")


def _leftovers(out: Path) -> Iterator[Path]:
    """Half-removed folders and half-written files of processes that are gone."""
    for folder in (out, *_run_folders(out)):
        if folder != out and FolderLock(folder).is_held():
            continue
        yield from folder.glob(f"{GONE}*")
        if folder != out:
            yield from (*folder.glob(".*.tmp"), *(folder / CHECKPOINTS).glob(".*.tmp"))


def _planned(out: Path) -> dict[str, list[str]]:
    """Folder of a run → campaigns whose kept plans name it."""
    found: dict[str, list[str]] = {}
    for file in _plans(out):
        with contextlib.suppress(ConfigError):
            for run in read_plan(file).runs:
                name = file.relative_to(out / CAMPAIGNS).parts[0]
                if name not in found.setdefault(run.folder, []):
                    found[run.folder].append(name)
    return found


def _record(folder: Path) -> dict[str, object]:
    try:
        found = read_json(folder / RUN_FILE)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
