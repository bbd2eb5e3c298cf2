"""The examples of docs/clusters.md on a real Slurm of one node (`.ci/slurm` starts one)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from makers import Quiet, contents, differing
from slurm_queue import queue as shared_queue
from slurm_queue import require_slurm

from pipeline.store import Store
from pipeline.verify import verify

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
pytestmark = pytest.mark.full


@pytest.fixture(autouse=True)
def _node() -> Iterator[None]:
    """Tests of campaigns take the node down; not while there are jobs of ours."""
    with shared_queue():
        yield


@pytest.fixture(scope="module")
def queue() -> dict[str, str]:
    """The environment in which to talk to a Slurm that has an idle or busy node."""
    require_slurm()
    here = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


def run(command: list[object], env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)], env=env, cwd=cwd, capture_output=True, text=True, timeout=280
    )


def logs(folder: Path) -> str:
    return "\n".join(p.read_text() for p in sorted(folder.glob("*.log")))


def same(store: Path, other: Path) -> None:
    assert differing(contents(store), contents(other)) == {}
    assert Store.open(store).record["files"] == Store.open(other).record["files"]
    verify(store, Quiet())


def test_the_array_script_is_one_that_slurm_takes(queue: dict[str, str], tmp_path: Path) -> None:
    script = EXAMPLES / "build-array.sbatch"
    found = run(["sbatch", "--test-only", "--mem=500M", script], queue, tmp_path)
    assert found.returncode == 0, found.stderr


def test_an_array_of_jobs_builds_the_same_bytes(
    queue: dict[str, str], long_corpus: Path, long_store: Store, tmp_path: Path
) -> None:
    """Four jobs on a node of few cores: some run side by side, the others come late."""
    env = {**queue, "CORPUS": str(long_corpus), "OUT": str(tmp_path / "out")}
    script = EXAMPLES / "build-array.sbatch"
    done = run(["sbatch", "--wait", "--array=1-4", "--mem=500M", script], env, tmp_path)
    assert done.returncode == 0, done.stderr + logs(tmp_path)
    assert len(list(tmp_path.glob("xmodal-features-*_*.log"))) == 4
    same(tmp_path / "out" / long_store.path.name, long_store.path)


def test_jobs_that_the_queue_stops_go_on_when_they_are_requeued(
    queue: dict[str, str], long_corpus: Path, long_store: Store, tmp_path: Path
) -> None:
    """The warning signal → exit 75 → requeued by the script itself → the same bytes."""
    env = {**queue, "CORPUS": str(long_corpus), "OUT": str(tmp_path / "out")}
    script = EXAMPLES / "build-array.sbatch"
    sent = run(["sbatch", "--parsable", "--array=1-2", "--mem=500M", script], env, tmp_path)
    job = sent.stdout.strip()
    give_up = time.monotonic() + 100
    while not list((tmp_path / "out").glob("*/.build/audio.*.json")):
        assert time.monotonic() < give_up, logs(tmp_path)
        time.sleep(0.02)
    assert run(["scancel", "--batch", "--signal=USR2", job], queue, tmp_path).returncode == 0
    while run(["squeue", "-h", "-j", job], queue, tmp_path).stdout.strip():
        assert time.monotonic() < give_up + 100, logs(tmp_path)
        time.sleep(0.5)
    assert "stopped by SIGUSR2; repeat the command to continue" in logs(tmp_path)
    same(tmp_path / "out" / long_store.path.name, long_store.path)


def test_dask_workers_that_are_slurm_jobs_build_the_same_bytes(
    queue: dict[str, str], long_corpus: Path, long_store: Store, tmp_path: Path
) -> None:
    flags = ["--jobs", 2, "--memory", "500MB", "--interface", "lo"]
    build = ["--corpus", long_corpus, "--out", tmp_path / "out"]
    done = run(
        [sys.executable, EXAMPLES / "slurm_cluster.py", *flags, "--", *build], queue, tmp_path
    )
    assert done.returncode == 0, done.stderr
    same(tmp_path / "out" / long_store.path.name, long_store.path)
