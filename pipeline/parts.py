"""One build by many jobs of a queue: ``--part i/n``, without any process that lives through it all.

Every part is the same command and runs the same build. Where the build comes to tasks, the parts
share them: a task is taken by linking a claim file, its result is a small JSON file, and nobody goes
on to the next stage before every task has its result, whoever made it. A part that starts late finds
less to do; one that dies leaves a claim that goes stale, and another takes the task again. The tables
are written, and the store is committed, by whichever part comes first; the others see that it is
done. Everything that is shared lies in ``.parts`` inside the store's folder and goes with the last.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.base.config import digest
from pipeline.base.errors import CorpusError, StoreError, UsageError
from pipeline.base.files import LOCK, FolderLock, read_json, sweep_temporaries, write_json
from pipeline.store.writer import JOURNAL

FOLDER = ".parts"
POLL_S = 0.5
PATIENCE_S = 600.0  # for the moments in which one part plans or commits


def parse_part(text: str) -> tuple[int, int]:
    """``"2/8"`` → (2, 8): the second of eight parts.

    Raises
    ------
    UsageError
        unless 1 ≤ i ≤ n.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= count:
        raise UsageError(f"part '{text}': give i/n with 1 <= i <= n, for example 2/8")
    return index, count


class SharedTasks:
    """An executor that shares its tasks with the other parts of the same build.

    ``index`` and ``count`` only decide where a part begins, so that parts meet rarely.
    """

    common = True

    def __init__(self, folder: Path, index: int, count: int) -> None:
        self.folder, self.index, self.workers = folder / FOLDER, index, count

    def run(self, function: Callable[[Any], Any], tasks: list[Any]) -> Iterator[Any]:
        """Yield the result of every task: done here, or by another part."""
        stage = self.folder / digest([function.__name__, tasks])
        waiting = deque(range(len(tasks)))
        waiting.rotate(-((self.index - 1) * len(tasks) // self.workers))
        unchanged = 0
        while waiting:
            number = waiting.popleft()
            result = _result(stage, number) or _take(stage, number, function, tasks[number])
            if result is not None:
                unchanged = 0
                yield result
                continue
            waiting.append(number)
            unchanged += 1
            if unchanged >= len(waiting):  # all that is left is in other hands
                time.sleep(POLL_S)
                unchanged = 0


def _forget_failures(folder: Path) -> None:
    """Results of tasks that could not use a file: whoever wants them does the task again."""
    for path in folder.glob("*/*.json"):
        if read_json(path).get("failures"):
            path.unlink()


def _result(stage: Path, number: int) -> Any:
    try:
        return read_json(stage / f"{number}.json")
    except FileNotFoundError:
        return None


def _take(stage: Path, number: int, function: Callable[[Any], Any], task: Any) -> Any:
    """Do the task, unless it is another part's; None then."""
    try:
        with FolderLock(stage, name=f"{number}.claim"):
            result = _result(stage, number)
            if result is None:
                result = function(task)
                write_json(stage / f"{number}.json", result)
            return result
    except StoreError as error:
        if error.kind != "locked":
            raise
        return None


class Presence:
    """A part's stay in a store's folder. While one lasts, no other builder may have the folder.

    Attributes
    ----------
    abandoned : set when the folder cannot become a store; the last part to leave empties it
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.abandoned = folder, False
        self._here = FolderLock(folder / FOLDER, name=f"{socket.gethostname()}.{os.getpid()}.part")

    def __enter__(self) -> Presence:
        with self.alone():
            self._here.__enter__()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self.alone():
            if kind is CorpusError:
                # What failed now may work when the command is repeated.
                _forget_failures(self.folder / FOLDER)
            self._here.__exit__()
            if not parts_at_work(self.folder):
                sweep_temporaries(self.folder)  # of parts that were killed while they wrote
                if self.abandoned or kind is None:
                    shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
                if self.abandoned:
                    empty(self.folder)

    def alone(self) -> contextlib.AbstractContextManager[Any]:
        """The folder's own lock, for the moments in which only one part may act."""
        return FolderLock(self.folder, patience_s=PATIENCE_S)


def parts_at_work(folder: Path) -> bool:
    """Whether a living part of a shared build is in the folder."""
    return any(
        FolderLock(folder / FOLDER, name=p.name).is_held() for p in (folder / FOLDER).glob("*.part")
    )


def empty(folder: Path) -> None:
    """Empty a folder whose lock the caller holds, but for the lock.

    The journal goes last: it is what the folder is known by as a build of ours.
    """
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == JOURNAL):
        if entry.is_dir():
            shutil.rmtree(entry)
        elif not entry.name.startswith(LOCK):
            entry.unlink()
