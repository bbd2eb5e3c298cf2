"""Sensitivity: what was planted is found, what is ignored moves nothing, means of 0 stay 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bench_fakes import bench_of
from matplotlib.figure import Figure
from trainer_fakes import FakeStore

from trainer.analyses import sensitivity, shifts
from trainer.analyses.contract import AnalysisError, Finding
from trainer.analyses.driver import analyze
from trainer.analyses.sensitivity import ALL, Sensitivity
from trainer.analyses.shifts import Patterns, readings, resampled, spread, standardised
from trainer.arms import pair

SENSITIVITY = Sensitivity()


def with_zero_means(store: FakeStore) -> FakeStore:
    """A4 as it is: every band of every segment with mean 0 and variance 1, kept as float16."""
    values = store._arrays["A4"].astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= values.std(axis=1, keepdims=True)
    values[15] = 0  # a silent one
    store._arrays["A4"] = values.astype(np.float16)
    return store


@pytest.fixture(scope="module")
def store():
    return FakeStore(300, seed=8)


@pytest.fixture(scope="module")
def zero_mean_store():
    return with_zero_means(FakeStore(300, seed=9))


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(sensitivity, "PAPER_BATCHES", 2)
    monkeypatch.setattr(sensitivity, "PAPER_CORRELATED", 3)
    monkeypatch.setattr(sensitivity, "SEGMENTS", 20)


def measured(bench, variant):
    found = {}

    def condition(name, compute):
        found[name] = compute()
        return found[name]

    return SENSITIVITY.measure(bench, variant, condition), found


def hears_means(bench, weights):
    """Instead of the audio encoder: the time mean of every A4 dimension, weighed, beside a 1."""
    w_K = torch.tensor(weights)

    def embed(batch):
        means_BK = batch.arrays["A4"].mean(dim=1)
        return torch.cat([means_BK * w_K, torch.ones(len(batch), 1)], dim=1)

    bench.model.embed_audio = embed


@pytest.mark.parametrize("variant", ["paper", "sound"])
def test_an_ignored_dimension_moves_nothing(store, tmp_path, variant):
    bench = bench_of(tmp_path, "d4", store)
    mixed = bench.model.mechanisms["D4-concat"].project
    with torch.no_grad():
        mixed.weight[:, -2] = 0  # D4's third column
    summary, _ = measured(bench, variant)
    effects = list(summary["D4-concat"]["effect"].values())
    assert effects[2] == 0
    assert min(effects[:2] + effects[3:]) > 1e-4
    assert sum(summary["D4-concat"]["share"].values()) == pytest.approx(1)


def test_twice_the_weight_is_twice_the_effect(store, tmp_path):
    bench = bench_of(tmp_path, "a4", store)
    hears_means(bench, [1.0, 1, 2, 1, 0, 1, 1, 1])
    paper, _ = measured(bench, "paper")
    assert list(paper["A4-concat"]["effect"].values()) == pytest.approx(
        [0.1, 0.1, 0.2, 0.1, 0, 0.1, 0.1, 0.1], rel=1e-4, abs=1e-9
    )
    hears_means(bench, [0.01, 0.01, 0.02, 0.01, 0, 0.01, 0.01, 0.01])
    sound, conditions = measured(bench, "sound")
    effects = list(sound["A4-concat"]["effect"].values())
    assert effects[4] == 0
    assert effects[2] / effects[1] == pytest.approx(2, rel=0.02)
    assert effects[1] == pytest.approx(0.01, rel=0.02)  # σ is 1
    assert sound["A4-concat"][ALL] == pytest.approx(0.01 * np.sqrt(6 + 4), rel=0.02)
    first = conditions["A4-concat: 47–94 Hz"]
    assert first["sigma"] == pytest.approx(1, abs=0.02)
    assert first["pattern"] == "constant"
    assert first["ci95"][0] <= first["effect"] <= first["ci95"][1]
    assert first["effect"] == pytest.approx((first["plus"] + first["minus"]) / 2)


def test_a_step_is_as_long_as_the_dimension_is_spread(tmp_path):
    own = FakeStore(300, seed=8)
    own._arrays["A4"][..., 3] *= 5
    bench = bench_of(tmp_path, "a4", own)
    hears_means(bench, [0.01] * 8)
    effects = list(measured(bench, "sound")[0]["A4-concat"]["effect"].values())
    assert effects[3] / effects[2] == pytest.approx(5, rel=0.05)
    assert spread(bench, "A4").sigma_K[3] == pytest.approx(5, rel=0.05)


def test_a_mean_of_zero_is_found_and_kept(zero_mean_store, tmp_path):
    bench = bench_of(tmp_path, "a4", zero_mean_store)
    hears_means(bench, [1.0] * 8)
    assert spread(bench, "A4").zero_mean_K.all()
    assert spread(bench, "A4").means_K.max() < 1e-3
    paper, _ = measured(bench, "paper")
    sound, conditions = measured(bench, "sound")
    assert min(paper["A4-concat"]["effect"].values()) == pytest.approx(0.1, rel=1e-3)
    assert {c["pattern"] for c in conditions.values()} == {"zero-mean"}
    assert max(sound["A4-concat"]["effect"].values()) < 1e-5


def test_means_that_differ_are_not_taken_for_zero(store, tmp_path):
    bench = bench_of(tmp_path, "d4a4", store)
    for array in ("A4", "D4", "A4_level"):
        assert not spread(bench, array).zero_mean_K.any()


def test_zero_mean_patterns_come_from_other_recordings(zero_mean_store, tmp_path):
    bench = bench_of(tmp_path, "a4", zero_mean_store)
    positions = bench.apart(16, 20, "test")
    patterns = Patterns(bench, "A4", positions)
    own = dict(shifts.segment_values(bench, "A4", positions))
    donors = patterns._donors(own)
    recording = bench.gallery.recording
    assert all(recording[p] != recording[d] for p, d in donors.items())
    for position in positions:
        unit_TK = patterns.unit[int(position)]
        np.testing.assert_allclose(unit_TK.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(unit_TK.std(axis=0), 1)
        np.testing.assert_allclose(unit_TK, own[donors[int(position)]], atol=5e-3)
    again = Patterns(bench, "A4", positions)
    assert all((again.unit[p] == patterns.unit[p]).all() for p in patterns.unit)
    batch = bench.resident.batch(positions)
    changed = patterns.step(slice(2, 3), -1.0)(batch)
    moved = changed.arrays["A4"] - batch.arrays["A4"]
    assert moved[..., [0, 1, 3, 4, 5, 6, 7]].abs().max() == 0
    np.testing.assert_allclose(moved[..., 2].std(dim=1, correction=0), 1, atol=1e-2)


def test_a_mean_of_zero_cannot_be_kept_in_one_recording(tmp_path):
    bench = bench_of(tmp_path, "a4", with_zero_means(FakeStore(30)))
    positions = bench.apart(1, 20, "test")
    with pytest.raises(AnalysisError, match="another recording") as caught:
        _ = Patterns(bench, "A4", positions).unit
    assert caught.value.kind == "too-few"


def test_notes_are_moved_and_padding_is_not(store, tmp_path):
    bench = bench_of(tmp_path, "d4", store)
    positions = bench.apart(16, 20, "test")
    batch = bench.resident.batch(positions)
    changed = Patterns(bench, "D4", positions).step(slice(None), 1.0)(batch)
    moved = (changed.arrays["D4"] - batch.arrays["D4"]) / torch.tensor(
        spread(bench, "D4").sigma_K, dtype=torch.float32
    )
    assert moved[batch.padding_BN].abs().max() == 0
    np.testing.assert_allclose(moved[~batch.padding_BN], 1, atol=1e-5)
    per_note = dict(shifts.segment_values(bench, "D4", positions))
    for i, position in enumerate(positions):
        own = batch.arrays["D4"][i, ~batch.padding_BN[i]]
        np.testing.assert_array_equal(own, per_note[int(position)])


def test_correlations_are_pearsons(store, tmp_path):
    bench = bench_of(tmp_path, "a4", store, budget={"batch_size": 10})
    hears_means(bench, [1.0] * 8)
    _, conditions = measured(bench, "paper")
    means = bench.resident.batch(np.arange(30)).arrays["A4"].mean(dim=1).numpy()
    r = np.abs(np.corrcoef(means.T))
    for row, c in zip(r, conditions.values(), strict=True):
        assert c["r_max"] == pytest.approx(1)
        assert c["r_mean"] == pytest.approx(row.sum() / 9)  # the constant coordinate has none
        assert c["segments"] == 20


@pytest.mark.parametrize("arm", ["d0", "d1", "t3-anc"])
def test_a_run_without_descriptors_at_inference_is_refused(store, tmp_path, arm):
    bench = bench_of(tmp_path, arm, store)
    with pytest.raises(AnalysisError, match=f"{arm} reads no descriptor") as caught:
        measured(bench, "sound")
    assert caught.value.kind == "inapplicable"


def test_what_the_model_does_not_read_is_not_reported_as_no_effect(store, tmp_path):
    bench = bench_of(tmp_path, "a4", store)
    bench.model.embed_audio = lambda batch: torch.ones(len(batch), 4)
    with pytest.raises(AnalysisError, match="did not read") as caught:
        measured(bench, "sound")
    assert caught.value.kind == "unverified"


def test_an_array_moves_for_all_that_read_it_on_a_side(store, tmp_path):
    pairs = (pair("A4", "concat"), pair("A4", "moe"), pair("D4", "concat"), pair("D5", "aux_loss"))
    bench = bench_of(tmp_path, pairs, store)
    found = {r.name: (r.side, r.width) for r in readings(bench)}
    pooled = bench.model.mechanisms["A4-moe"].source.name
    assert pooled == "A4_level"
    assert found == {
        "A4-concat": ("audio", 8),
        "A4_level-moe": ("audio", 8),
        "D4-concat": ("midi", 4),
    }
    crossed = bench_of(tmp_path, "d4a4cm", store, preset="paper")
    assert {r.name: r.side for r in readings(crossed)} == {"D4-cm": "audio", "A4-cm": "midi"}
    twice = bench_of(tmp_path, (pair("A4", "concat"), pair("A4", "film")), store, preset="paper")
    assert [r.name for r in readings(twice)] == ["A4-concat+film"]


@pytest.mark.parametrize("variant", ["paper", "sound"])
def test_findings_are_tables_and_pictures(store, tmp_path, variant):
    bench = bench_of(tmp_path, "d4", store, budget={"batch_size": 8})
    summary, conditions = measured(bench, variant)
    assert len(conditions) == (4 if variant == "paper" else 5)
    findings = [
        Finding(label=f"d4 {i}", arm="d4", seed=i, conditions=conditions, summary=summary)
        for i in range(2)
    ]
    table = SENSITIVITY.table(findings, variant)
    assert len(table.rows) == 2 * len(conditions)
    assert {len(row) for row in table.rows} == {len(table.head)}
    if variant == "sound":
        drawn = table.head.index("drawn")
        assert {row[drawn] for row in table.rows} == {"10-s blocks"}  # of ten recordings
    figure = Figure()
    SENSITIVITY.draw(findings, variant, figure)
    (axes,) = figure.axes
    drawn = sorted(bar.get_height() for bar in axes.patches)
    assert drawn == pytest.approx(sorted(2 * [c["effect"] for c in conditions.values()]))
    names = [tick.get_text() for tick in axes.get_xticklabels()]
    assert names[0] == "from previous"
    assert (ALL in names) == (variant == "sound")


def test_trajectories_are_brought_to_a_length_and_standardised():
    values = np.array([[0.0, 1], [2, 1], [4, 1]])
    assert resampled(values, 5)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert (resampled(values, 3) == values).all()
    found = standardised(values)
    assert found[:, 0].std() == pytest.approx(1)
    assert (found[:, 1] == 0).all()
    assert (standardised(values[:1]) == 0).all()


@pytest.mark.parametrize("variant", ["paper", "sound"])
def test_every_dimension_embeds_its_own_side_of_the_chosen_segments(
    store, tmp_path, monkeypatch, variant
):
    bench = bench_of(tmp_path, "d4a4", store, budget={"batch_size": 10})
    counts = {"audio": 0, "midi": 0}
    for side in counts:
        plain = getattr(bench.model, f"embed_{side}")

        def counted(batch, plain=plain, side=side):
            counts[side] += len(batch)
            return plain(batch)

        monkeypatch.setattr(bench.model, f"embed_{side}", counted)
    analyze([SENSITIVITY], [bench], [variant])
    widths = {r.side: r.width for r in readings(bench)}
    assert widths == {"audio": 8, "midi": 4}
    if variant == "paper":  # once unchanged, once a dimension; 30 segments for the correlations
        assert counts == {side: (1 + k) * 20 + 30 for side, k in widths.items()}
    else:  # both signs, of every dimension and of all together
        assert counts == {side: (1 + 2 * (k + 1)) * 20 for side, k in widths.items()}
    before = dict(counts)
    analyze([SENSITIVITY], [bench], [variant])
    assert counts == before
