"""Metrics for machines, curves for people: the same rows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.base.errors import MissingExtra
from trainer.metrics_log import TensorBoardLog

ROWS = [
    {"step": 1, "epoch": 1, "loss": 2.0},
    {"step": 2, "epoch": 1, "loss": 1.5, "note": "words are no curve"},
    {"step": 2, "epoch": 1, "validation": {"S": 0.25, "a2m": {"R@1": 0.125}}},
]


def test_curves_are_the_rows_and_a_resumed_run_takes_its_own_back(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = TensorBoardLog(tmp_path, 0)
    for row in (*ROWS, {"step": 3, "epoch": 2, "loss": 9.0}):
        first.write(row)
    first.close()
    again = TensorBoardLog(tmp_path, 2)  # killed after step 3, whose checkpoint was that of step 2
    again.write({"step": 3, "epoch": 2, "loss": 1.25})
    again.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    curves = {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }
    assert curves == {
        "loss": [(1, 2.0), (2, 1.5), (3, 1.25)],
        "validation/S": [(2, 0.25)],
        "validation/a2m/R@1": [(2, 0.125)],
    }


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match="tensorboard"):
        TensorBoardLog(tmp_path, 0)
