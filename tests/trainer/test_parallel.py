"""Two processes are one process with the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.base.errors import ConfigError
from trainer.metrics_log import read_metrics
from trainer.parallel import Processes

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS / "shared_training.py"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run(count: int, *arguments: object, codes: tuple[int, ...] = (0,)) -> None:
    shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    # The tests' own folder is searched last: it has one that is called like the package it tests.
    shared |= {"PYTHONSAFEPATH": 1, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, arguments)],
            env={**os.environ, **{k: str(v) for k, v in shared.items()}, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    for process in processes:
        _, err = process.communicate(timeout=240)
        assert process.returncode in codes, err


@pytest.mark.full
@pytest.mark.parametrize(
    ("preset", "arms"),
    [("paper", ["d4a4r", "t3-wt", "moe-dual", "d4a4cm"]), ("sound", ["a4r-pcd", "d1"])],
)
def test_two_processes_are_one(preset: str, arms: list[str], tmp_path: Path) -> None:
    for count in (1, 2):
        run(count, ",".join(arms), preset, tmp_path / str(count))
    for arm in arms:
        one, two = (losses(tmp_path / n / arm) for n in ("1", "2"))
        assert len(one) == len(two) == 6
        for a, b in zip(one, two, strict=True):
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-5 * max(1, abs(a["loss"])))
            assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-4)
        first, second = (torch.load(tmp_path / n / arm / "final.pt") for n in ("1", "2"))
        for name, value in first.items():
            torch.testing.assert_close(value, second[name], atol=1e-5, rtol=1e-5, msg=name)


def losses(folder: Path) -> list[dict[str, Any]]:
    """The rows of every step."""
    return [r for r in read_metrics(folder / "metrics.jsonl") if "loss" in r]


@pytest.mark.full
def test_a_signal_to_one_stops_both_at_the_same_step_and_they_go_on(tmp_path: Path) -> None:
    run(2, "d4a4", "sound", tmp_path / "whole")
    run(2, "d4a4", "sound", tmp_path / "cut", 2, codes=(1,))
    # The step after the signal is when everybody learns of it.
    assert [r["step"] for r in losses(tmp_path / "cut/d4a4")] == [1, 2, 3]
    run(2, "d4a4", "sound", tmp_path / "cut")
    one, two = (torch.load(tmp_path / n / "d4a4/final.pt") for n in ("whole", "cut"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert [r["step"] for r in losses(tmp_path / "cut/d4a4")] == [1, 2, 3, 4, 5, 6]


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    assert Processes(rank=1, count=2).share(8) == slice(4, 8)
    with pytest.raises(ConfigError, match="cannot be shared by 3"):
        Processes(rank=0, count=3).share(8)
