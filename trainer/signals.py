"""Signals set a flag; the loop looks at it at step boundaries."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class StopFlag:
    """``name`` of the signal that asked to stop, or None."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __bool__(self) -> bool:
        return self.name is not None

    def raise_(self, number: int, _frame: FrameType | None = None) -> None:
        """Signal handler; a second Ctrl-C ends the program at once."""
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Within the block, TERM, INT and USR2 only set the flag (main thread; elsewhere nothing does)."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, flag.raise_) for number in STOP_SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
