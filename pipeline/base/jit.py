"""Numba kernels that cost nothing until they are called.

Importing a module with kernels must not import Numba (``--help`` and the trainer do not need it):
:func:`kernel` compiles at the first call and caches the machine code beside the source. Kernels may
call kernels of their own file. ``NUMBA_DISABLE_JIT=1`` runs the same functions as plain Python.

Numba comes with the extra ``features``. Without it a kernel says so: of sound, plain Python would make
a thousand times as long work. A :func:`small_kernel` runs as plain Python there: what reads MIDI files
and their notes, a tenth of a second for ten thousand notes, needs no extra.
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
    return cast(F, _Kernel(function))


def small_kernel(function: F) -> F:
    """:func:`kernel`, but plain Python where Numba is not installed."""
    return cast(F, _SmallKernel(function))


class _Kernel:
    """A function, and its compiled form once there is one."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    @functools.cached_property
    def compiled(self) -> Any:
        """The Numba dispatcher."""
        numba = _numba()
        flags = {"reassoc", "contract", "nsz"}
        return numba.njit(cache=True, fastmath=flags, nogil=True)(self._function)

    def __call__(self, *args: Any) -> Any:
        return self.compiled(*args)


class _SmallKernel(_Kernel):
    @functools.cached_property
    def compiled(self) -> Any:
        """The Numba dispatcher, or the function itself."""
        try:
            return super().compiled
        except MissingExtra:
            return self._function


@functools.cache
def _numba() -> Any:
    """Numba, told that a kernel named inside another one stands for its compiled form."""
    try:
        import numba
    except ImportError:
        raise MissingExtra("numba", "features") from None
    from numba.extending import typeof_impl

    @typeof_impl.register(_Kernel)
    def typeof_kernel(value: _Kernel, context: Any) -> Any:
        return numba.types.Dispatcher(value.compiled)

    return numba
