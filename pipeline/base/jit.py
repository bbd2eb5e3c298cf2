"""Numba kernels that cost nothing until they are called.

Importing a module with kernels must not import Numba (``--help`` and the trainer do not need it):
:func:`kernel` compiles at the first call and caches the machine code beside the source.
``NUMBA_DISABLE_JIT=1`` runs the same functions as plain Python.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from pipeline.base.errors import MissingExtra

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile with ``numba.njit`` at the first call.

    Reassociation is allowed (sums and products may be vectorised), NaN and infinity keep their
    meaning; no threads: parallelism belongs to the scheduler.
    """
    compiled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        if not compiled:
            try:
                import numba
            except ImportError:
                raise MissingExtra("numba", "features") from None
            flags = {"reassoc", "contract", "nsz"}
            compiled.append(numba.njit(cache=True, fastmath=flags, nogil=True)(function))
        return compiled[0](*args)

    return cast(F, call)
