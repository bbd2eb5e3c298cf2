"""Maps: mixed sides are mixed, sides apart are apart, and the numbers are those of loops."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipeline.base.errors import MissingExtra
from trainer.analyses import maps, projections
from trainer.analyses.bench import Bench
from trainer.analyses.contract import AnalysisError, Finding
from trainer.analyses.maps import Maps, mapped_rows
from trainer.analyses.projections import gap, neighbours, principal, t_sne
from trainer.analyses.subject import normalised
from trainer.retrieval.gallery import Gallery


def make_bench(audio, midi, recordings=6, composers=3):
    """Recordings of equal length at hop 1 s; every seventh segment is not valid."""
    n = len(audio)
    recording = np.arange(n) * recordings // n
    start = np.arange(n) - np.searchsorted(recording, recording)
    gallery = Gallery.from_columns(
        split="validation",
        segment=np.arange(n) + 100,
        recording=recording,
        composer=[f"composer {r % composers}" for r in recording],
        composition=[f"work {r}" for r in recording],
        start_s=start.astype(float),
        valid=np.arange(n) % 7 != 3,
        recordings={r: f"2004/recording-{r}" for r in range(recordings)},
    )
    bench = SimpleNamespace(
        gallery=gallery,
        split="validation",
        store=SimpleNamespace(name="fake-0123456789ab"),
        embeddings={"audio": audio.astype(np.float32), "midi": midi.astype(np.float32)},
    )
    bench.apart = lambda least, most, why: Bench.apart(bench, least, most, why)
    return bench


def unit(points):
    return normalised(np.asarray(points)).astype(float)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(projections, "ITERATIONS", 250)


def test_identical_sides_are_mixed_and_sides_apart_are_not():
    rng = np.random.default_rng(0)
    side = rng.normal(size=(60, 16))
    labels = np.arange(60) // 10
    same = neighbours(unit(np.concatenate([side, side])), labels, labels // 2)
    assert same["other_side"] == {"share": 0.5, "chance": 0.5}
    shift = np.full(16, 50.0)
    apart = neighbours(unit(np.concatenate([side + shift, side - shift])), labels, labels // 2)
    assert apart["other_side"]["share"] == 0


def test_recordings_that_keep_together_are_each_others_neighbours():
    rng = np.random.default_rng(1)
    labels = np.arange(120) // 20
    side = rng.normal(size=(6, 16))[labels] * 10 + rng.normal(size=(120, 16)) * 0.1
    found = neighbours(unit(np.concatenate([side, side + 0.01])), labels, labels % 2)
    assert found["same_recording"]["share"] == found["same_composer"]["share"] == 1
    assert found["same_recording"]["chance"] == pytest.approx(19 / 119)
    assert found["same_composer"]["chance"] == pytest.approx(59 / 119)
    noise = rng.normal(size=(240, 16))
    found = neighbours(unit(noise), labels, labels % 2)
    assert found["same_recording"]["share"] == pytest.approx(19 / 119, abs=0.04)
    assert found["same_composer"]["share"] == pytest.approx(59 / 119, abs=0.04)


def test_neighbours_are_those_of_loops(monkeypatch):
    monkeypatch.setattr(projections, "BLOCK", 7)
    rng = np.random.default_rng(2)
    n = 25
    points = unit(rng.normal(size=(2 * n, 8)))
    recording, composer = rng.integers(0, 5, n), rng.integers(0, 3, n)
    hits = np.zeros(3)
    for i in range(2 * n):
        others = [j for j in range(2 * n) if j not in (i, (i + n) % (2 * n))]
        others.sort(key=lambda j: np.sum((points[i] - points[j]) ** 2))
        for j in others[:10]:
            hits[0] += (i < n) != (j < n)
            hits[1] += recording[i % n] == recording[j % n]
            hits[2] += composer[i % n] == composer[j % n]
    found = neighbours(points, recording, composer)
    assert [f["share"] for f in found.values()] == pytest.approx(hits / (2 * n * 10))
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    expected = np.mean([recording[i] == recording[j] for i, j in pairs])
    assert found["same_recording"]["chance"] == pytest.approx(expected)


def test_a_shift_alone_is_a_gap_of_one():
    rng = np.random.default_rng(3)
    side = rng.normal(size=(40, 16))
    shift = rng.normal(size=16)
    found = gap(np.concatenate([side, side + shift]))
    assert found["gap"] == pytest.approx(1)
    assert found["centroids"] == pytest.approx(np.linalg.norm(shift))
    assert gap(np.concatenate([side, side]))["gap"] == 0
    around = gap(np.concatenate([side, side + rng.normal(size=side.shape)]))
    assert around["gap"] < 0.4


def test_principal_components_are_those_of_the_covariance():
    points = np.random.default_rng(4).normal(size=(50, 8)) * np.arange(8, 0, -1)
    values, vectors = np.linalg.eigh(np.cov(points.T))
    expected = (points - points.mean(axis=0)) @ vectors[:, [-1, -2]]
    found = principal(points)
    places = np.concatenate([found["audio"], found["midi"]])
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-4)
    assert found["variance"] == pytest.approx(values[-2:].sum() / values.sum())
    assert places[0, 0] == round(places[0, 0], 4)


def test_t_sne_is_the_same_every_time_and_keeps_clusters_apart(quick):
    rng = np.random.default_rng(5)
    label = np.arange(80) % 2
    points = rng.normal(size=(80, 16)) + 20 * label[:, None]
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = t_sne(points), t_sne(points)
    assert first == again
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    places = np.concatenate([first["audio"], first["midi"]])
    distance = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(80)
    assert (label[distance.argmin(axis=1)] == label).mean() > 0.95


def test_which_segments_are_on_the_map(monkeypatch):
    zeros = np.zeros((240, 4))
    bench = make_bench(zeros, zeros)
    assert (mapped_rows(bench, "paper") == np.arange(240)).all()
    monkeypatch.setattr(maps, "SEGMENTS", 30)
    expected = np.sort(np.random.RandomState(42).choice(240, 30, replace=False))
    assert (mapped_rows(bench, "paper") == expected).all()
    rows = mapped_rows(bench, "sound")
    gallery = bench.gallery
    assert len(rows) == 30
    assert gallery.valid[rows].all()
    same = np.diff(gallery.recording[rows]) == 0
    assert (np.diff(gallery.start_s[rows])[same] >= 4).all()
    small = make_bench(zeros[:19], zeros[:19])
    for variant in ("paper", "sound"):
        with pytest.raises(AnalysisError, match="a map needs at least 20 segments") as caught:
            mapped_rows(small, variant)
        assert caught.value.kind == "too-few"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(MissingExtra, match=r"scikit-learn.*analysis"):
        t_sne(np.zeros((80, 4)))


@pytest.mark.parametrize("variant", ["paper", "sound"])
def test_measured_kept_tabled_and_drawn(variant, quick):
    rng = np.random.default_rng(6)
    findings = []
    analysis = Maps()
    for label in ("a4r", "d0"):
        n = 13 * 12
        audio = rng.normal(size=(n, 256))
        bench = make_bench(audio, audio + rng.normal(size=(n, 256)), recordings=13, composers=12)
        kept = {}

        def condition(name, compute, kept=kept):
            if name not in kept:
                kept[name] = json.loads(json.dumps(compute(), allow_nan=False))
            return dict(kept[name])

        json.dumps(analysis.settings(bench, variant))
        summary = analysis.measure(bench, variant, condition)
        bench.embeddings = None  # what is kept needs none
        assert analysis.measure(bench, variant, condition) == summary
        findings.append(Finding(label=label, arm=label, seed=1, conditions=kept, summary=summary))
    first, second = (f.conditions for f in findings)
    assert first["segments"] == second["segments"]
    assert first["segments"]["segment"][0] == 100
    assert first["segments"]["recordings"][0] == "2004/recording-0"
    n = len(first["segments"]["segment"])
    assert np.shape(first["t-SNE"]["midi"]) == (n, 2)
    table = analysis.table(findings, variant)
    assert [row[0] for row in table.rows] == ["a4r", "d0"]
    assert all(len(row) == len(table.head) for row in table.rows)

    figure = Figure(layout="constrained")
    analysis.draw(findings, variant, figure)
    figure.draw_without_rendering()
    columns, rows = (2, 2) if variant == "paper" else (3, 4)
    assert len(figure.axes) == columns * (rows + 1)
    drawn = np.concatenate([c.get_offsets() for c in figure.axes[0].collections])
    method = "t-SNE" if variant == "paper" else "PCA"
    expected = np.concatenate([first[method]["audio"], first[method]["midi"]])
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(expected, axis=0))
    texts = [t.get_text() for t in figure.axes[-1].get_legend().get_texts()]
    assert len(texts) == 11
    assert texts[-1] == "3 others"
