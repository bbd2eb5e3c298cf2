"""Whoever scores a run compares its embeddings as its configuration says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from bench_fakes import SPLIT, bench_of
from trainer_fakes import FakeStore, run_config

from trainer import scoring
from trainer.retrieval.gallery import Gallery


@pytest.fixture
def late() -> tuple[FakeStore, np.ndarray, np.ndarray]:
    """Embeddings of a split whose notes all come one part late."""
    store = FakeStore()
    head = run_config("sound", "d0").head
    n = len(Gallery.from_store(store, SPLIT))
    audio = np.random.default_rng(0).normal(size=(n, head.embedding)).astype(np.float32)
    return store, audio, np.roll(audio, head.embedding // head.slots, axis=1)


def without_lags() -> dict:
    return {"head": {"lags": 0}}


def test_the_validation_that_training_selects_by(late) -> None:
    store, audio, midi = late
    resident = SimpleNamespace(rows=Gallery.from_store(store, SPLIT).segment)
    found = []
    for over in ({}, without_lags()):
        config = run_config("sound", "d0", evaluation={"pool_size": 8}, **over)
        found.append(scoring.selection_score(store, config)(audio, midi, resident)["MRR"])
    assert found[0] == 1.0
    assert found[1] < 0.8


def test_an_evaluation(late, tmp_path) -> None:
    store, audio, midi = late
    found = []
    for i, over in enumerate(({}, without_lags())):
        run = bench_of(tmp_path / str(i), "d0", store, **over).run
        run.record |= {"reads": {}, "status": "finished"}
        run.finished = True
        (record,) = scoring.score_run(run, store, SPLIT, ["strict"], embedded=lambda: (audio, midi))
        found.append(record["a2m"]["R@1"])
    assert found[0] == 1.0
    assert found[1] < 0.8


def test_an_analysis(late, tmp_path) -> None:
    store, audio, midi = late
    found = [
        bench_of(tmp_path / str(i), "d0", store, **over)
        .scores({"audio": audio, "midi": midi}, "sound")
        .record()["m2a"]["R@1"]
        for i, over in enumerate(({}, without_lags()))
    ]
    assert found[0] == 1.0
    assert found[1] < 0.8
