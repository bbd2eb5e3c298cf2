"""A model whose numbers are none is refused in one line, and keeps no other from being asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bench_fakes import bench_of
from trainer_fakes import FakeStore

from pipeline.base.files import sha256_file, write_json
from trainer.analyses import sensitivity
from trainer.analyses.contract import ANALYSES
from trainer.analyses.driver import analyze
from trainer.embed import embed_side
from trainer.retrieval.gallery import RetrievalError

ASKED = (
    "ablation", "attention", "invariance", "maps", "probes", "sensitivity", "similarity",
    "transposition",
)  # fmt: skip


@pytest.fixture(scope="module")
def store():
    return FakeStore(480, seed=5)


def diverged(folder, store):
    bench = bench_of(folder, "a4r", store)
    with torch.no_grad():
        for parameter in bench.model.parameters():
            parameter.fill_(float("nan"))
    # The encoders themselves would take their time for the same embeddings.
    bench.model.embed_audio = bench.model.embed_midi = lambda batch: (
        batch.arrays["A4"].mean(dim=(1, 2))[:, None] * float("nan")
    )
    return bench


@pytest.mark.parametrize("name", ASKED)
def test_a_diverged_model_is_refused_by_every_analysis(store, tmp_path, name):
    analysis = ANALYSES.get(name)
    outcomes = analyze([analysis], [diverged(tmp_path, store)], ["paper", "sound"])
    assert len(outcomes) == len(analysis.variants)
    for outcome in outcomes:
        assert outcome.findings == []
        (why,) = outcome.refused.values()
        assert "hold NaN or infinity (the first is row " in why
        assert "\n" not in why


def test_other_runs_and_other_analyses_go_on(store, tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "SEGMENTS", 16)
    broken, whole = diverged(tmp_path / "1", store), bench_of(tmp_path / "2", "d0", store)
    asked = [ANALYSES.get(n) for n in ("similarity", "sensitivity", "cost")]
    by_name = {o.analysis.name: o for o in analyze(asked, [broken, whole], ["sound"])}
    assert list(by_name["similarity"].refused) == ["a4r"]
    assert [f.label for f in by_name["similarity"].findings] == ["d0"]
    assert "NaN" in by_name["sensitivity"].refused["a4r"]
    assert [f.label for f in by_name["cost"].findings] == ["a4r", "d0"]


def test_what_and_which_row_are_named(tmp_path):
    bench = bench_of(tmp_path, "a4r", FakeStore(120))
    plain = bench.model.embed_midi

    def embed(batch):
        embeddings = plain(batch)
        embeddings[bench.resident.positions(batch.segments_B) == 37] = float("inf")
        return embeddings

    bench.model.embed_midi = embed
    with pytest.raises(RetrievalError) as caught:
        embed_side(bench.model, bench.resident, "midi")
    assert caught.value.kind == "not-finite"
    assert str(caught.value).startswith(
        "1 of 40 MIDI embeddings hold NaN or infinity (the first is row 37 of the validation split)"
    )


def test_embeddings_that_were_kept_with_a_hole_are_made_again(tmp_path):
    store = FakeStore()
    bench = bench_of(tmp_path, "a4r", store)
    whole = bench.embeddings["audio"].copy()
    files = {side: bench.folder / f"{side}.npy" for side in ("audio", "midi")}
    holed = whole.copy()
    holed[3, 4] = np.nan
    np.save(files["audio"], holed)
    sums = {side: sha256_file(file) for side, file in files.items()}
    write_json(bench.folder / "embeddings.json", {"key": bench.key, "sha256": sums})
    again = bench_of(tmp_path, "a4r", store, model=bench.model)
    assert np.array_equal(again.embeddings["audio"], whole)
