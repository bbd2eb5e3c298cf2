"""The test Slurm, shared by test processes: who takes its only node down must be alone with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

LOCK = Path(tempfile.gettempdir()) / "xmodal-test-slurm.lock"


def require_slurm() -> None:
    """Skip where no Slurm answers (in CI a skip of this kind fails)."""
    if not shutil.which("sinfo") or not shutil.which("sbatch"):
        pytest.skip("no Slurm; as root: .ci/slurm")
    found = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False)
    if not found.stdout.strip():
        pytest.skip("no Slurm answers; as root: .ci/slurm")


@contextlib.contextmanager
def queue(*, alone: bool = False) -> Iterator[None]:
    """Within the block the node stays up; ``alone``: nobody else has jobs on it."""
    with LOCK.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def set_node(state: str) -> subprocess.CompletedProcess[str]:
    """``down`` or ``resume``, as an administrator."""
    own = [] if os.getuid() == 0 else ["sudo", "-n"]
    name = subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout
    command = ["scontrol", "update", f"nodename={name.strip()}", f"state={state}", "reason=test"]
    return subprocess.run([*own, *command], capture_output=True, text=True, check=False)
