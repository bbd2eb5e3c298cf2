"""Functions that a stop signal must not break off: what they give back would stay taken.

A signal's handler may raise anywhere, also between the end of a ``with`` block and the line that gives
its lock back. The lock of a process that lives is nobody's to take, so a process that waits for a lock
that it lost hold of itself waits for ever, and everybody with it. The handler
(:func:`pipeline.base.console.stop_signals_raise`) asks here, and comes again where it must not raise.
"""

from __future__ import annotations

from types import CodeType, FrameType, FunctionType
from typing import TypeVar, cast

T = TypeVar("T")
_codes: set[CodeType] = set()


def unbroken(function: T) -> T:
    """Decorator: stop signals come after this function."""
    _codes.add(cast(FunctionType, function).__code__)
    return function


def must_end(frame: FrameType | None) -> bool:
    """Whether the code that a signal met is such a function, or was called by one."""
    while frame is not None:
        if frame.f_code in _codes:
            return True
        frame = frame.f_back
    return False
