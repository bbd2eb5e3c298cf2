"""An untrained run on a store in memory, for tests of analyses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trainer_fakes import FakeStore, run_config

from trainer.analyses.bench import Bench
from trainer.layout import MODEL
from trainer.model import RetrievalModel, build_model

SPLIT = "validation"


def bench_of(
    folder: Path,
    arm: Any,
    store: FakeStore,
    *,
    preset: str = "sound",
    model: RetrievalModel | None = None,
    **over: Any,
) -> Bench:
    """A bench whose run has random weights (or ``model``), with pools that the store can fill."""
    over.setdefault("evaluation", {"pool_size": 8, "batch_size": 16})
    config = run_config(preset, arm, **over)
    made = model or build_model(config).eval()
    path = folder / f"run-{arm if isinstance(arm, str) else 'pairs'}"
    path.mkdir(parents=True, exist_ok=True)
    (path / MODEL).write_bytes(b"weights")
    run = SimpleNamespace(
        path=path,
        config=made.config,
        record={"arm": arm, "parameters": {"total": 1}},
        signature="0123456789ab",
        leaks=False,
        load_model=lambda device: made,
    )
    return Bench(run, store, SPLIT)
