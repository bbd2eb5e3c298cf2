"""What every command prints: results on stdout, progress on stderr, errors as one line.

With ``--json`` stdout carries one JSON document and nothing else. On a terminal, progress is a bar;
elsewhere it is a plain line now and then, flushed at once, so that a queue's log can be followed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pipeline.base.errors import EXIT_FAILURE, Interrupted, XmodalError
from pipeline.base.unbroken import must_end

PLAIN_EVERY_S = 5.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
COMPILERS = {"numba", "llvmlite"}  # packages; what is raised below their callbacks is dropped
AGAIN_S = 0.2


class Console:
    """One command's output.

    Parameters
    ----------
    as_json : print one JSON document on stdout instead of text
    quiet : say nothing but errors (another process of the same command speaks)
    """

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet
        # A file's name may be no text in this locale: it is told in escapes, not in a traceback.
        with contextlib.suppress(AttributeError, ValueError):
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        self.bars = sys.stderr.isatty() and not quiet

    def say(self, text: str) -> None:
        """A line about what is going on (stderr)."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def result(self, data: Any, text: str) -> None:
        """The command's answer (stdout)."""
        print(_as_json(data, indent=1) if self.as_json else text, flush=True)

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[float, str], None]]:
        """Yields ``update(done, note)``, which is also where a stop signal is raised at the latest."""
        with (_bar if self.bars else self._lines)(label, total) as show:

            def update(done: float, note: str = "") -> None:
                show(done, note)
                _raise_if_stopped()

            yield update

    @contextlib.contextmanager
    def _lines(self, label: str, total: int) -> Iterator[Callable[[float, str], None]]:
        began = last = time.monotonic()

        def plain(done: float, note: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if done >= total or now - last >= PLAIN_EVERY_S:
                last = now
                self.say(f"{label}: {done:g}/{total} {note}".rstrip() + f" ({now - began:.0f} s)")

        yield plain


@contextlib.contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[float, str], None]]:
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=RichConsole(stderr=True)) as bar:
        task = bar.add_task(label, total=total, note="")

        def update(done: float, note: str = "") -> None:
            bar.update(task, completed=done, note=note)

        yield update


def _as_json(data: Any, indent: int | None = None) -> str:
    """JSON as stdout can hold it; escapes of half characters are JSON's own."""
    unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    return json.dumps(data, indent=indent, ensure_ascii=not unicode)


def run_command(console: Console, action: Callable[[], Any]) -> None:
    """Run a command's body; leave with its exit code. A user's error is one line, not a traceback.

    ``XMODAL_DEBUG=1`` shows tracebacks.
    """
    try:
        with _stopping_shows():
            action()
    except XmodalError as error:
        if os.environ.get("XMODAL_DEBUG"):
            raise
        if isinstance(error, Interrupted):  # the reads of zarr's that nobody waits for are no news
            logging.getLogger("asyncio").disabled = True
            warnings.simplefilter("ignore")
        _leave(console, error.kind, str(error), error.exit_code, error.details)
    except BrokenPipeError:  # whoever read our output has read enough: `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the last flush would complain
        raise SystemExit(EXIT_FAILURE) from None
    except OSError as error:  # a full disk, a read-only folder: the system's word and the file
        if os.environ.get("XMODAL_DEBUG"):
            raise
        where = f" ({error.filename})" if error.filename else ""
        _leave(console, "system", f"{error.strerror or error}{where}", EXIT_FAILURE)


@contextlib.contextmanager
def _stopping_shows() -> Iterator[None]:
    """Whatever comes of work that was told to stop, its end or an error, is that it stopped."""
    try:
        yield
    except Exception as error:
        if not _stopped or isinstance(error, Interrupted):
            raise
        raise Interrupted(_stopped[0]) from error
    _raise_if_stopped()


def _leave(console: Console, kind: str, message: str, code: int, details: Any = None) -> NoReturn:
    if console.as_json:
        error = {"kind": kind, "message": message}
        document = {"error": error if details is None else {**error, "details": details}}
        print(_as_json(document), flush=True)
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code) from None


@contextlib.contextmanager
def stop_signals_raise(remedy: str) -> Iterator[None]:
    """Inside the block, TERM, INT and USR2 raise :class:`Interrupted` (exit 75) with ``remedy``.

    For work that may stop anywhere because everything it writes is atomic. Python drops an exception
    that comes up inside a destructor; progress updates and the block's end raise it again. A compiler
    of kernels would drop it, too, or break by it, and a lock that is being given back would stay taken
    (:mod:`pipeline.base.unbroken`): there the signal comes again until they are done.
    """
    again: list[threading.Timer] = []

    def stop(number: int, frame: FrameType | None) -> None:
        _stopped.append(f"stopped by {signal.Signals(number).name}; {remedy}")
        if _compiles(frame) or must_end(frame):
            again.append(threading.Timer(AGAIN_S, os.kill, (os.getpid(), number)))
            again[-1].daemon = True
            again[-1].start()
            return
        _raise_if_stopped()

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        with _stopping_shows():
            yield
    finally:
        for timer in again:
            timer.cancel()
            timer.join()
        _stopped.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


_stopped: list[str] = []


def _compiles(frame: FrameType | None) -> bool:
    """Whether the code that a signal met was called by Numba or LLVM."""
    while frame is not None:
        if COMPILERS.intersection(Path(frame.f_code.co_filename).parts):
            return True
        frame = frame.f_back
    return False


def _raise_if_stopped() -> None:
    if _stopped:
        raise Interrupted(_stopped[0])


def program(name: str) -> str:
    """How a user of this shell starts another of our commands: its name, or its path if need be."""
    beside = Path(sys.argv[0]).absolute().parent / name
    if not beside.exists() or shutil.which(name) == str(beside):
        return name
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)
