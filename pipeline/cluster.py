"""Where tasks run: in this process, on local Dask processes, or on an existing Dask scheduler.

Tasks are functions of one small dataclass that return small plain data; arrays never travel. A task
may run twice (Dask promises at least once): writing a shard again gives the same bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from pipeline.base.errors import MissingExtra, UsageError, XmodalError

# One thread per worker process everywhere: parallelism belongs to the scheduler.
SINGLE_THREADED = {
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class Executor(Protocol):
    """Runs tasks; results (plain data) come in the order in which they finish.

    ``common`` means that other processes run the same list, so that it must not depend on what is
    finished already.
    """

    workers: int
    common: bool

    def run(self, function: Callable[[Any], Any], tasks: list[Any]) -> Iterator[Any]:
        """Yield the result of every task."""


class InProcess:
    """One task after the other, here."""

    workers = 1
    common = False

    def run(self, function: Callable[[Any], Any], tasks: list[Any]) -> Iterator[Any]:
        """Yield the result of every task."""
        for task in tasks:
            yield function(task)


class OnDask:
    """Tasks on the workers of a Dask client."""

    common = False

    def __init__(self, client: Any, workers: int) -> None:
        self.client, self.workers = client, workers

    def run(self, function: Callable[[Any], Any], tasks: list[Any]) -> Iterator[Any]:
        """Yield results as tasks finish; the first error cancels the rest and is raised."""
        from dask.distributed import as_completed

        futures = self.client.map(function, tasks, pure=False, retries=0)
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            self.client.cancel(futures)
            raise


@contextlib.contextmanager
def open_executor(workers: int, address: str = "local") -> Iterator[Executor]:
    """An executor for ``workers`` local processes (0: this one) or for the scheduler at ``address``.

    Raises
    ------
    UsageError
        for an address without a scheduler.
    """
    if address == "local" and workers == 0:
        yield InProcess()
        return
    try:
        import dask
        from dask.distributed import Client, LocalCluster
    except ImportError:
        raise MissingExtra("dask[distributed]", "features") from None
    os.environ.update({k: os.environ.get(k, v) for k, v in SINGLE_THREADED.items()})
    dask.config.set(
        {
            # Workers write megabytes and hold little: no spilling, and room to breathe on one host.
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            # Sampling every worker's stack 100 times a second, and waking everybody 50 times a
            # second to see whether they still wake, is of no use to anyone here.
            "distributed.worker.profile.enabled": False,
            "distributed.admin.tick.interval": "1s",
            "distributed.admin.system-monitor.interval": "10s",
            "distributed.admin.large-graph-warning-threshold": "1GB",
            # Dask makes workers give every freed page back at once; for kernels that use the same
            # few megabytes again and again, that costs more than the kernels.
            "distributed.nanny.pre-spawn-environ": {
                **SINGLE_THREADED,
                "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
                "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
            },
        }
    )
    if address != "local":
        try:
            client = Client(address, timeout="20s")
        except (OSError, ValueError) as error:
            raise UsageError(f"no Dask scheduler answers at {address} ({error})") from None
        with client:
            count = len(client.scheduler_info(n_workers=-1)["workers"])
            if count == 0:
                raise XmodalError(f"the Dask scheduler at {address} has no workers")
            yield OnDask(client, count)
        return
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield OnDask(client, workers)
