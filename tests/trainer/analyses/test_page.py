"""The page: what one run or floor cannot be asked does not take the rest of it away."""

from __future__ import annotations

from types import SimpleNamespace

from bench_fakes import bench_of
from trainer_fakes import FakeStore

from pipeline.base.console import Console
from trainer import analyzing
from trainer.analyses.contract import ANALYSES
from trainer.analyses.driver import analyze
from trainer.retrieval.gallery import RetrievalError


def test_a_store_too_small_for_pools_does_not_lose_the_page(tmp_path, monkeypatch):
    bench = bench_of(tmp_path, "d4a4", FakeStore())

    def too_few(protocol, seed=None):
        raise RetrievalError(f"20 segments cannot fill a {protocol} pool", kind="pool-size")

    bench.run.record["reads"] = {"store": bench.store.identity}
    bench.scored = too_few
    monkeypatch.setattr(analyzing, "Floor", lambda *_, **__: SimpleNamespace(scored=too_few))
    (outcome,) = analyze([ANALYSES.get("cost")], [bench], ["sound"])
    out = tmp_path / "out"
    path = analyzing.write_page([bench], [(outcome, None)], ["paper", "sound"], out, Console(False))
    text = path.read_text(encoding="utf-8")
    assert "d4a4 has no scores under strict: 20 segments cannot fill a strict pool" in text
    assert "floor: flux has no scores under paper: 20 segments cannot fill a paper pool" in text
    assert ANALYSES.get("cost").question in text
    assert outcome.findings
