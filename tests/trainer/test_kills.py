"""``kill -9`` at random moments of ``xmodal-train``: repeating the command gives the same result."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import Spec, build_quietly, corpus_of, make_corpus

DEADLINE_S = 120
COMMAND = ("--descriptor", "A4", "--mechanism", "reverse_xattn", "--size", "tiny", "--epochs", "6",
           "--batches-per-epoch", "3", "--batch-size", "4", "--pool-size", "8")  # fmt: skip


def start(store: Path, out: Path) -> subprocess.Popen[str]:
    path = Path(sys.executable).parent / "xmodal-train"
    return subprocess.Popen(
        [str(path), *COMMAND, "--store", str(store), "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for_run(process: subprocess.Popen[str], out: Path) -> None:
    """Return once the run's folder is there (or the process has ended)."""
    began = time.monotonic()
    while not list(out.glob("a4r-*/run.json")) and process.poll() is None:
        assert time.monotonic() - began < DEADLINE_S
        time.sleep(0.01)


def result(out: Path) -> dict[str, Any]:
    """Everything that must not depend on interruptions."""
    (folder,) = out.glob("a4r-*")
    assert json.loads((folder / "run.json").read_text())["status"] == "trained"
    scores = {p.name: json.loads(p.read_text()) for p in (folder / "evaluation").glob("*.json")}
    assert len(scores) == 2
    return {
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "model": (folder / "model.safetensors").read_bytes(),
        "scores": {n: {k: v for k, v in s.items() if k != "seconds"} for n, s in scores.items()},
    }


@pytest.mark.full
def test_a_training_killed_at_random_moments_ends_with_the_same_bytes_and_scores(
    tmp_path: Path,
) -> None:
    specs = tuple(
        Spec(f"{split}-{i}", seconds=24.0, split=split, title=f"{split}, BWV {n}{i}")
        for n, split in enumerate(("train", "validation"), 1)
        for i in range(2)
    )
    store = build_quietly(corpus_of(make_corpus(tmp_path / "corpus", specs)), tmp_path / "s").store
    whole = start(store.path, tmp_path / "whole")
    wait_for_run(whole, tmp_path / "whole")
    began = time.monotonic()
    assert whole.wait(DEADLINE_S) == 0, whole.communicate()[0]
    lasted, expected = time.monotonic() - began, result(tmp_path / "whole")
    seed = time.time_ns() % 1_000_000
    print(f"moments drawn with seed {seed}")  # shown when the test fails
    rng, killed, horizon = np.random.default_rng(seed), 0, lasted
    for trial in itertools.count():
        out = tmp_path / str(trial)
        for _ in range(2):
            process = start(store.path, out)
            wait_for_run(process, out)
            time.sleep(rng.uniform(0, horizon))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            if process.returncode == -signal.SIGKILL:
                killed += 1
            else:  # it had ended: the machine is faster than it was, or little was left to do
                assert process.returncode == 0
                horizon *= 0.8
        last = start(store.path, out)
        said, _ = last.communicate(timeout=DEADLINE_S)
        assert last.returncode == 0, said
        assert result(out) == expected
        if killed >= 4:
            break
