"""CKA and RSA against their definitions, chance, and what padding does to either variant."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from bench_fakes import bench_of
from matplotlib.figure import Figure
from scipy.spatial.distance import pdist
from scipy.stats import rankdata, spearmanr
from trainer_fakes import FakeStore

from trainer.analyses import layers, similarity
from trainer.analyses.contract import AnalysisError, Finding
from trainer.analyses.geometry import (
    average_ranks,
    biased_kernel,
    debiased_kernel,
    jackknife,
    likeness,
    permutation,
    ranked_dissimilarity,
)
from trainer.analyses.layers import LayerMeans, Layers, layer_means
from trainer.analyses.similarity import ANYWHERE, WITHIN, Similarity, compared, permuted


@pytest.fixture(scope="module")
def store():
    return FakeStore(480, seed=5)


def alike(measure, x, y):
    return float(likeness([measure(x)], [measure(y)])[0, 0])


def rotation(width, rng):
    return np.linalg.qr(rng.normal(size=(width, width)))[0]


def test_independent_features_are_alike_to_the_biased_estimator_only():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 100, 1000))
    assert alike(biased_kernel, x, y) > 0.8
    assert abs(alike(debiased_kernel, x, y)) < 0.05


@pytest.mark.parametrize("measure", [biased_kernel, debiased_kernel])
def test_rotation_scale_and_offset_do_not_matter_to_cka(measure):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 12))
    moved = 3.7 * x @ rotation(12, rng) + rng.normal(size=12)
    assert alike(measure, x, moved) == pytest.approx(1)
    assert alike(measure, x, moved[::-1]) < 0.9


def test_biased_cka_is_its_formula():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 9))
    y[:, :5] += x
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    cross, own = np.linalg.norm(x.T @ y) ** 2, np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    assert alike(biased_kernel, x, y) == pytest.approx(cross / own)


def u_statistic(x, y):
    """HSIC as the mean of its kernel over all ordered quadruples of different items."""
    k, m = x @ x.T, y @ y.T
    terms = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        for i, j, q, r in itertools.permutations(range(len(x)), 4)
    ]
    return np.mean(terms)


def test_debiased_cka_is_made_of_the_u_statistic():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 4))
    y[:, :3] += 0.7 * x
    wanted = u_statistic(x, y) / np.sqrt(u_statistic(x, x) * u_statistic(y, y))
    assert alike(debiased_kernel, x, y) == pytest.approx(wanted)


def test_rsa_is_the_spearman_correlation_of_cosine_distances():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(12, 5)), 1 + rng.normal(size=(12, 3))
    y[:, :2] += x[:, :2]
    wanted = spearmanr(pdist(x, "cosine"), pdist(y, "cosine")).statistic
    assert alike(ranked_dissimilarity, x, y) == pytest.approx(wanted)
    values = rng.integers(0, 5, 40).astype(float)
    assert average_ranks(values).tolist() == rankdata(values).tolist()


@pytest.mark.parametrize("measure", [biased_kernel, debiased_kernel])
def test_what_is_the_same_for_all_items_is_like_nothing(measure):
    x = np.random.default_rng(5).normal(size=(20, 4))
    assert alike(measure, np.full((20, 4), 0.1), x) == 0


def test_permutations_are_permutations_and_stay_within_groups():
    groups = np.array([2, 0, 0, 1, 2, 2, 0, 1, 1, 1])
    anywhere, within = permutation(10, 3), permutation(10, 3, groups)
    for order in (anywhere, within):
        assert sorted(order) == list(range(10))
    assert (groups[within] == groups).all()
    assert (groups[anywhere] != groups).any()
    assert any((permutation(10, d, groups) != np.arange(10)).any() for d in range(3))
    assert (permutation(10, 3) == anywhere).all()


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(6).normal(size=12)
    found = jackknife(lambda keep: float(values[keep].mean()), np.arange(12))
    half = (found["ci95"][1] - found["ci95"][0]) / 2
    assert half == pytest.approx(2.200985 * values.std(ddof=1) / np.sqrt(12))
    assert np.mean(found["ci95"]) == pytest.approx(values.mean())
    assert jackknife(lambda keep: 0.0, np.arange(4)) == {"ci95": None, "groups": 4}


def planted(moment: float) -> Layers:
    """Two sides that share which recording it is and, by ``moment``, which moment of it."""
    rng = np.random.default_rng(7)
    recording = np.repeat(np.arange(12), 8)
    piece = rng.normal(size=(12, 20))[recording]
    shared = moment * rng.normal(size=(96, 20))

    def side():
        return [(piece + shared + 0.5 * rng.normal(size=(96, 20))) @ rotation(20, rng)]

    return Layers(audio=side() * 2, midi=side() * 3, recording=recording, padding=0.0)


@pytest.mark.parametrize("measure", [debiased_kernel, ranked_dissimilarity])
def test_the_piece_survives_a_permutation_within_recordings_and_the_moment_does_not(measure):
    for moment in (0.0, 1.5):
        found = compared(planted(moment), measure, "sound")
        anywhere = permuted(planted(moment), measure, ANYWHERE)
        within = permuted(planted(moment), measure, WITHIN)
        assert np.shape(found["matrix"]) == (2, 3)
        assert abs(anywhere["mean"]) < 0.03
        assert anywhere["mean"] < anywhere["q975"] < within["mean"]
        assert found["ci95"][0] < found["mean"] < found["ci95"][1]
        if moment:
            assert found["mean"] > within["q975"] + 0.1
        else:
            assert found["mean"] == pytest.approx(within["mean"], abs=0.05)


def test_the_listener_changes_nothing_and_hears_every_layer(store, tmp_path):
    bench = bench_of(tmp_path, "film-dual", store)
    batch = bench.resident.batch(np.arange(8))
    model = bench.model
    with torch.no_grad():
        for side, encoder in (("audio", model.audio), ("midi", model.midi)):
            guests = model.arm_mechanisms(side)
            listener = LayerMeans(padding=False)
            heard = encoder(batch, [*guests, listener])
            torch.testing.assert_close(heard, encoder(batch, guests))
            assert len(listener.means) == len(encoder.transformer.layers)


def test_padding_reaches_the_published_variant_only(store, tmp_path):
    bench = bench_of(tmp_path, "d4a4", store, preset="paper")
    counts = bench.resident.note_counts
    short = np.flatnonzero((counts > 2) & (counts < 15))[:10]
    longest = int(counts.argmax())
    assert counts[longest] > 30
    for padding in (True, False):
        alone = layer_means(bench, short, 16, padding)
        beside = layer_means(bench, np.append(short, longest), 16, padding)
        assert beside.padding > alone.padding
        for before, after in zip(alone.audio, beside.audio, strict=True):
            np.testing.assert_allclose(before, after[:-1], atol=1e-5)
        moved = [
            np.abs(before - after[:-1]).max()
            for before, after in zip(alone.midi, beside.midi, strict=True)
        ]
        assert min(moved) > 1e-2 if padding else max(moved) < 1e-4


@pytest.mark.parametrize(("arm", "preset"), [("d4-a4r", "sound"), ("d4a4cm", "paper")])
def test_both_variants_of_runs_are_tables_and_pictures(store, tmp_path, monkeypatch, arm, preset):
    monkeypatch.setattr(similarity, "PAPER_SEGMENTS", 30)
    monkeypatch.setattr(similarity, "SEGMENTS", 36)
    bench = bench_of(tmp_path, arm, store, preset=preset, budget={"batch_size": 10})
    analysis = Similarity()
    for variant in ("paper", "sound"):
        conditions: dict[str, dict] = {}

        def condition(name, compute, conditions=conditions):
            conditions[name] = compute()
            return conditions[name]

        summary = analysis.measure(bench, variant, condition)
        assert set(summary) == {"CKA", "RSA"}
        assert len(conditions) == (2 if variant == "paper" else 6)
        n = 30 if variant == "paper" else 36
        assert {c["segments"] for c in conditions.values() if "segments" in c} == {n}
        assert analysis.settings(bench, variant)["batch_size"] == (10 if variant == "paper" else 64)
        findings = [
            Finding(label=f"{arm} {i}", arm=arm, seed=i, conditions=conditions, summary=summary)
            for i in range(5)
        ]
        table = analysis.table(findings, variant)
        assert len(table.rows) == 10
        assert {len(row) for row in table.rows} == {len(table.head)}
        figure = Figure()
        analysis.draw(findings, variant, figure)
        written = {text.get_text() for axes in figure.findobj(match=_axes) for text in axes.texts}
        matrix = conditions["CKA"]["matrix"]
        assert {f"{value:.2f}" for row in matrix for value in row} <= written


def _axes(artist):
    return hasattr(artist, "texts") and hasattr(artist, "get_xlim")


def test_too_few_segments_are_refused(tmp_path):
    bench = bench_of(tmp_path, "d0", FakeStore(60))
    with pytest.raises(AnalysisError, match="CKA needs at least") as caught:
        Similarity().measure(bench, "sound", lambda name, compute: compute())
    assert caught.value.kind == "too-few"


@pytest.mark.parametrize(
    ("variant", "size", "padding"), [("paper", 10, True), ("sound", 64, False)]
)
def test_layers_are_run_once_for_all_conditions(
    store, tmp_path, monkeypatch, variant, size, padding
):
    monkeypatch.setattr(similarity, "PAPER_SEGMENTS", 36)
    monkeypatch.setattr(similarity, "SEGMENTS", 36)
    bench = bench_of(tmp_path, "d0", store, budget={"batch_size": 10})
    calls = []

    def counted(*given, **named):
        calls.append((given, named))
        return layers.layer_means(*given, **named)

    monkeypatch.setattr(similarity, "layer_means", counted)
    Similarity().measure(bench, variant, lambda name, compute: compute())
    ((_, positions, batch_size), named) = calls[0]
    assert (len(calls), batch_size, named) == (1, size, {"padding": padding})
    if variant == "paper":
        assert positions.tolist() == list(range(36))
    else:
        assert bench.gallery.valid[positions].all()
        same = np.diff(bench.gallery.recording[positions]) == 0
        assert np.diff(bench.gallery.start_s[positions])[same].min() >= 4
