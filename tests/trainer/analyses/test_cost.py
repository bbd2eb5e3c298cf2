"""Cost by counting: the published ratio and what it leaves out, both."""

from __future__ import annotations

import pytest
import torch
from bench_fakes import bench_of
from trainer_fakes import FakeStore, run_config

from trainer.analyses.contract import ANALYSES
from trainer.analyses.cost import BEHIND, AttentionCount, count, ratios
from trainer.arms import ARMS
from trainer.attention import Attention


@pytest.fixture(scope="module")
def counts():
    store = FakeStore()
    arms = ("d0", "a4r", "a4x", "d4r")
    return {a: count(run_config("paper", a, size="base"), store) for a in arms}


def test_the_published_163_becomes_38_9_when_the_cross_attention_is_counted(counts):
    published = ratios(counts["a4r"], counts["d0"], "paper")["audio"]["one layer"]
    assert published == pytest.approx((2400 / 188) ** 2)
    assert round(published) == 163
    assert counts["d0"]["audio"]["entries"] == 4 * 2400**2
    assert counts["a4r"]["audio"]["entries"] == 4 * 188**2 + 188 * 2400
    assert counts["a4r"]["audio"]["in_mechanisms"] == 188 * 2400
    counted = ratios(counts["a4r"], counts["d0"], "sound")["audio"]
    assert round(counted["entries"], 1) == 38.9


def test_all_operations_of_the_audio_side_fall_by_5_8(counts):
    """§10: CNN 30.4 GFLOP, 336 behind it at 2,400 tokens, about 32 with the short sequence."""
    d0, a4r = counts["d0"]["audio"], counts["a4r"]["audio"]
    assert d0["front_end_flops"] == pytest.approx(30.4e9, rel=0.01)
    assert d0["flops"] - d0["front_end_flops"] == pytest.approx(336e9, rel=0.01)
    assert a4r["flops"] - a4r["front_end_flops"] == pytest.approx(32.2e9, rel=0.01)
    found = ratios(counts["a4r"], counts["d0"], "sound")["audio"]
    assert found["flops"] == pytest.approx(5.8, abs=0.1)
    assert found[BEHIND] == pytest.approx(10.4, abs=0.1)


def test_a_mechanism_that_adds_attention_costs_more_than_d0(counts):
    d0, a4x = counts["d0"]["audio"], counts["a4x"]["audio"]
    assert a4x["entries"] == d0["entries"] + 2400 * 188
    assert a4x["in_mechanisms"] == 2400 * 188
    assert a4x["flops"] > d0["flops"]
    notes = counts["d4r"]["midi"]
    assert notes["in_mechanisms"] == notes["queries"] ** 2
    assert notes["entries"] == counts["d0"]["midi"]["entries"] + notes["queries"] ** 2


def test_counting_changes_no_result():
    attention = Attention(16, 4, 0.0).eval()
    x, y = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    with torch.no_grad():
        expected = attention(x, y)
        with AttentionCount() as mode:
            torch.testing.assert_close(attention(x, y).shape, expected.shape)
    assert mode.entries == 5 * 7
    assert mode.largest == (5, 7)


def test_runs_and_the_papers_size_are_counted(tmp_path):
    bench = bench_of(tmp_path, "a4r", FakeStore())
    found = ANALYSES.get("cost").measure(bench, "sound", lambda name, compute: compute())
    assert set(found) == {"this run", "paper, base"}
    assert round(found["paper, base"]["audio"]["entries"], 1) == 38.9


def test_every_named_arm_is_counted_in_the_documents_beside_the_published_figure():
    costs = pytest.importorskip("benchmarks.training_words").costs
    rows = [line.split(" | ") for line in costs().splitlines() if line.startswith("| `")]
    by_arm = {cells[0].strip("| `"): cells for cells in rows}
    assert list(by_arm) == list(ARMS)
    assert by_arm["a4r"][1:6] == ["188", "163 ×", "38.9 ×", "63", "5.85 ×"]
    assert by_arm["d0"][1:4] == ["2,400", "1 ×", "1 ×"]
    assert by_arm["d4r"][7] == "0.8 ×"  # on the notes' side it costs more
