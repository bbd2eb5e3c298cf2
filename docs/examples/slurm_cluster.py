"""One store by Dask workers that run as Slurm jobs.

    python docs/examples/slurm_cluster.py --jobs 8 -- --corpus maestro --root /data/maestro-v3.0.0

Starts a scheduler here, asks the queue for ``--jobs`` workers, and builds with whatever comes. What
follows ``--`` goes to ``xmodal-features build``. Needs the extra ``slurm``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from dask.distributed import Client
from dask_jobqueue import SLURMCluster


def main() -> int:
    """Build; the exit code is that of ``xmodal-features``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--memory", default="2GB", help="of one job")
    parser.add_argument(
        "--interface", help="this machine's network as the workers see it, e.g. ib0"
    )
    parser.add_argument("build", nargs="*", help="flags of xmodal-features build, after --")
    arguments = parser.parse_args()
    with (
        SLURMCluster(
            cores=1,  # one thread per process: kernels and BLAS are single-threaded
            processes=1,
            memory=arguments.memory,
            walltime="01:00:00",
            interface=arguments.interface,
            # The kernels use the same memory again and again: give it back to the system rarely.
            job_script_prologue=["export OMP_NUM_THREADS=1 MALLOC_TRIM_THRESHOLD_=268435456"],
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.scale(jobs=arguments.jobs)
        client.wait_for_workers(arguments.jobs)
        address = ["--cluster", cluster.scheduler_address]
        return subprocess.run(["xmodal-features", "build", *arguments.build, *address]).returncode


if __name__ == "__main__":
    sys.exit(main())
