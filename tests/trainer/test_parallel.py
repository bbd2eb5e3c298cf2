"""Two processes are one process with the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.base.errors import ConfigError
from trainer.metrics_log import read_metrics
from trainer.parallel import Processes

SCRIPT = Path(__file__).parents[1] / "shared_training.py"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run(count: int, *arguments: object, codes: tuple[int, ...] = (0,)) -> None:
    shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
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
    ("preset", "arm"),
    [
        ("paper", "d4a4r"),
        ("paper", "t3-wt"),
        ("paper", "moe-dual"),
        ("paper", "d4a4cm"),
        ("sound", "a4r-pcd"),
        ("sound", "d1"),
    ],
)
def test_two_processes_are_one(preset: str, arm: str, tmp_path: Path) -> None:
    for count in (1, 2):
        run(count, arm, preset, tmp_path / str(count))
    one, two = (
        [r for r in read_metrics(tmp_path / n / "metrics.jsonl") if "loss" in r] for n in ("1", "2")
    )
    assert len(one) == len(two) == 6
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5 * max(1, abs(a["loss"])))
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-4)
    first, second = (torch.load(tmp_path / n / "final.pt") for n in ("1", "2"))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.full
def test_a_signal_to_one_stops_both_at_the_same_step_and_they_go_on(tmp_path: Path) -> None:
    run(2, "d4a4", "sound", tmp_path / "whole")
    run(2, "d4a4", "sound", tmp_path / "cut", 2, codes=(1,))
    run(2, "d4a4", "sound", tmp_path / "cut")
    one, two = (torch.load(tmp_path / n / "final.pt") for n in ("whole", "cut"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    steps = [r["step"] for r in read_metrics(tmp_path / "cut" / "metrics.jsonl") if "loss" in r]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    assert Processes(rank=1, count=2).share(8) == slice(4, 8)
    with pytest.raises(ConfigError, match="cannot be shared by 3"):
        Processes(rank=0, count=3).share(8)
