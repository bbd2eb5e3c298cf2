"""Probes: what is planted is found, what is not is not, and neighbours give nothing away."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pipeline.base.errors import MissingExtra
from pipeline.descriptors.contract import Notes
from trainer.analyses import probes, regression, targets
from trainer.analyses.contract import AnalysisError, Finding
from trainer.analyses.probes import Probes, grouped_split, probed_rows, random_split
from trainer.analyses.targets import read_targets
from trainer.retrieval.gallery import Gallery

RATE, LENGTH = 24_000, 96_000


class SoundStore:
    """Segments of 4 s at hop 1 s over one timeline, and their notes."""

    name = "sounds-0123456789ab"

    def __init__(self, timeline, pitches):
        self.timeline = timeline
        counts = np.array([len(p) for p in pitches])
        self.segments = SimpleNamespace(
            audio_start=np.arange(len(pitches)) * RATE,
            note_start=np.cumsum(counts) - counts,
            note_count=counts.astype(np.int32),
        )
        flat = np.concatenate([np.asarray(p, np.uint8) for p in pitches])
        zeros = np.zeros(len(flat), np.float32)
        self._notes = Notes(
            pitch=flat,
            velocity=flat,
            duration_bucket=np.zeros(len(flat), np.uint8),
            onset_s=zeros,
            duration_s=zeros,
        )

    def read(self, name, start, stop):
        assert name == "audio"
        return self.timeline[start:stop]

    def notes(self, start, stop):
        return self._notes.rows(start, stop)


@pytest.fixture
def three_penalties(monkeypatch):
    """To be quick."""
    monkeypatch.setattr(regression, "PENALTIES", (0.1, 10.0, 1e4))


def sine(hz):
    return np.round(20_000 * np.sin(2 * np.pi * hz * np.arange(LENGTH) / RATE)).astype(np.int16)


def make_gallery(recordings, per=12, compositions=None, valid=None):
    recording = np.repeat(np.arange(recordings), per)
    works = np.arange(recordings) if compositions is None else np.asarray(compositions)
    n = len(recording)
    return Gallery.from_columns(
        split="validation",
        segment=np.arange(n),
        recording=recording,
        composer=[f"composer {r % 3}" for r in recording],
        composition=[f"work {works[r]}" for r in recording],
        start_s=np.tile(np.arange(float(per)), recordings),
        valid=np.ones(n, bool) if valid is None else valid,
    )


def make_bench(gallery, audio, midi=None, store=None):
    audio = np.asarray(audio, np.float32)
    return SimpleNamespace(
        gallery=gallery,
        split="validation",
        store=store or SimpleNamespace(name="fake-0123456789ab"),
        embeddings={"audio": audio, "midi": audio if midi is None else midi.astype(np.float32)},
    )


# Targets


@pytest.mark.parametrize("pitch", [45, 57, 60, 66, 69, 83])
def test_a_sine_is_in_its_pitch_class_in_sound_and_in_another_in_paper(pitch):
    store = SoundStore(sine(440 * 2 ** ((pitch - 69) / 12)), [[pitch]])
    sound, paper = (read_targets(store, np.array([0]), v)["chroma"][0] for v in ("sound", "paper"))
    assert sound.sum() == pytest.approx(1)
    assert sound.argmax() == pitch % 12
    assert sound.max() > 0.5  # without a window, skirts reach into all classes
    assert paper.argmax() == (pitch - 8) % 12  # 7.02 semitones lower, and then the one below
    assert paper[pitch % 12] < 0.15


def test_the_centroid_is_in_bins_of_a_quarter_hertz():
    for hz in (500, 3000):
        found = read_targets(SoundStore(sine(hz), [[60]]), np.array([0]), "sound")
        # Rounding to 16 bits leaves a little noise everywhere.
        assert found["centroid"][0, 0] == pytest.approx(hz * 4, rel=0.05)


@pytest.mark.parametrize("variant", ["paper", "sound"])
def test_targets_are_those_of_loops(variant, monkeypatch):
    """Blocks, gaps between rows and shared reads change nothing; a segment without notes has one."""
    rng = np.random.default_rng(1)
    pitches = [rng.integers(0, 128, n).tolist() for n in (5, 0, 1, 30, 2, 7, 0)]
    timeline = rng.integers(-9000, 9000, 10 * RATE).astype(np.int16)
    timeline[: 4 * RATE] = 0
    store = SoundStore(timeline, pitches)
    monkeypatch.setattr(targets, "READ_BLOCK", 2)
    rows = np.array([0, 1, 3, 4, 6])
    found = read_targets(store, rows, variant)
    assert {k: v.shape for k, v in found.items()} == {k: (5, w) for k, w in targets.WIDTHS.items()}
    for i, row in enumerate(rows):
        notes = pitches[row] or [60]
        counted = Counter(notes)
        expected = [counted[p] / len(notes) for p in range(128)]
        np.testing.assert_allclose(found["pitch"][i], expected)
        steps = [max(0, min(24, b - a + 12)) for a, b in itertools.pairwise(notes)]
        expected = [steps.count(k) / max(1, len(steps)) for k in range(25)]
        np.testing.assert_allclose(found["interval"][i], expected)
        samples = timeline[row * RATE : row * RATE + LENGTH] / 32768
        magnitude = np.abs(np.fft.rfft(samples))
        chroma = np.zeros(12)
        for k in range(1, len(magnitude)):
            hz = k * (16_000 if variant == "paper" else RATE) / LENGTH
            if hz > 20:
                semitone = 69 + 12 * np.log2(hz / 440)
                chroma[(int(semitone) if variant == "paper" else round(semitone)) % 12] += (
                    magnitude[k]
                )
        total = magnitude.sum() or 1
        np.testing.assert_allclose(found["chroma"][i], chroma / (chroma.sum() or 1), rtol=1e-3)
        centroid = sum(k * m for k, m in enumerate(magnitude)) / total
        assert found["centroid"][i, 0] == pytest.approx(centroid, rel=1e-4)
    assert not found["chroma"][0].any()  # silence


# Probes


def test_what_embeddings_contain_linearly_is_read_and_the_rest_is_not(three_penalties):
    rng = np.random.default_rng(2)
    gallery = make_gallery(24, per=8)
    n = len(gallery)
    y = rng.normal(size=(n, 12)) * np.arange(1, 13)  # scales differ
    y[:, 3] = 7  # what never changes does not count
    planted = y @ rng.normal(size=(12, 256)) + 0.1 * rng.normal(size=(n, 256))
    bench = make_bench(gallery, planted, rng.normal(size=(n, 256)))
    there = grouped_split(bench, np.arange(n), "audio", y, "linear")
    assert there["R2"] > 0.95
    assert there["ci95"][0] > 0.9
    assert there["dimensions"] == 11
    assert abs(there["shuffled"]) < 0.05
    absent = grouped_split(bench, np.arange(n), "midi", y, "linear")
    assert absent["R2"] < 0.02
    assert absent["ci95"][0] <= max(0, absent["R2"])
    assert absent["ci95"][1] > -0.1
    assert absent["resampled"] == "recordings"
    assert random_split(bench, np.arange(n), "midi", y, "mlp")["R2"] < 0.1


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_recordings_leak_through_a_random_split_and_not_through_folds(kind, three_penalties):
    """Embeddings that know nothing but their recording, and targets that only it determines."""
    rng = np.random.default_rng(3)
    gallery = make_gallery(16, per=20)
    n = len(gallery)
    place, value = rng.normal(size=(16, 256)), rng.normal(size=(16, 12))
    x = place[gallery.recording] + 0.1 * rng.normal(size=(n, 256))
    y = value[gallery.recording] + 0.1 * rng.normal(size=(n, 12))
    bench, rows = make_bench(gallery, x), np.arange(n)
    assert random_split(bench, rows, "audio", y, kind)["R2"] > 0.8
    found = grouped_split(bench, rows, "audio", y, kind)
    assert found["R2"] <= 0.02
    assert found["divided_by"] == "compositions"


def test_performances_of_one_composition_stay_together():
    gallery = make_gallery(10, compositions=[r // 2 for r in range(10)])
    groups, what = probes.grouping(gallery, np.arange(len(gallery)))
    assert what == "compositions"
    tested = np.zeros(len(gallery), int)
    for train, test in regression.folds(groups, 5):
        assert not set(gallery.composition[train]) & set(gallery.composition[test])
        tested[test] += 1
    assert (tested == 1).all()
    few = make_gallery(6, compositions=[0, 0, 0, 1, 1, 2])
    groups, what = probes.grouping(few, np.arange(len(few)))
    assert what == "recordings"
    assert (groups == few.recording).all()


def least_squares(x, y, tested, groups):
    return tested @ np.linalg.lstsq(x, y, rcond=None)[0]


def test_r2_is_that_of_an_independent_computation(monkeypatch):
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(4)
    gallery = make_gallery(5)  # so that every fold is one recording
    n = len(gallery)
    x = rng.normal(size=(n, 6))
    y = x @ rng.normal(size=(6, 4)) * [1, 10, 0.1, 3] + rng.normal(size=(n, 4))
    bench = make_bench(gallery, x)
    x = bench.embeddings["audio"].astype(float)
    monkeypatch.setitem(regression.PREDICT, "linear", least_squares)
    found = grouped_split(bench, np.arange(n), "audio", y, "linear")
    z = y / y.std(axis=0)
    errors = distances = 0.0
    for recording in range(5):
        out = gallery.recording == recording
        mean = z[~out].mean(axis=0)
        predicted = mean + least_squares(x[~out], z[~out] - mean, x[out], None)
        errors += ((z[out] - predicted) ** 2).sum()
        distances += ((z[out] - mean) ** 2).sum()
    assert found["R2"] == pytest.approx(1 - errors / distances)
    assert found["resampled"] == "10-s blocks"

    found = random_split(bench, np.arange(n), "audio", y, "linear")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(42)).numpy()
    train, test = order[: n - n // 5], order[n - n // 5 :]
    z = (y - y[train].mean(axis=0)) / y[train].std(axis=0, ddof=1)
    predicted = least_squares(x[train], z[train], x[test], None)
    expected = r2_score(z[test], predicted, multioutput="variance_weighted")
    assert found == {
        "R2": pytest.approx(expected), "segments": n, "tested": n // 5, "unseen": 0
    }  # fmt: skip


def test_a_dimension_that_only_tested_segments_know_is_counted():
    rng = np.random.default_rng(5)
    gallery = make_gallery(5)
    n = len(gallery)
    y = rng.normal(size=(n, 3))
    y[:, 1] = 0
    y[torch.randperm(n, generator=torch.Generator().manual_seed(42)).numpy()[-1], 1] = 1
    found = random_split(
        make_bench(gallery, rng.normal(size=(n, 256))), np.arange(n), "audio", y, "mlp"
    )
    assert found["unseen"] == 1


def test_probes_are_the_same_every_time_and_leave_the_global_generators_alone():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(60, 256)), rng.normal(size=(60, 5))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = regression.predict_mlp(x, y, x, np.arange(60))
    torch.rand(3)
    again = regression.predict_mlp(x, y, x, np.arange(60))
    assert np.array_equal(first, again)
    torch.set_rng_state(before[0])
    regression.predict_mlp(x, y, x, np.arange(60))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_too_few_recordings_or_segments_are_said():
    bench = make_bench(make_gallery(4), np.zeros((48, 256)))
    with pytest.raises(AnalysisError, match=r"at least 5 recordings.* has 4") as caught:
        probed_rows(bench, "sound")
    assert caught.value.kind == "too-few"
    assert len(probed_rows(bench, "paper")) == 48
    with pytest.raises(AnalysisError, match="at least 10 segments"):
        probed_rows(make_bench(make_gallery(2, per=4), np.zeros((8, 256))), "paper")
    valid = np.arange(72) >= 24  # two of six recordings have nothing valid
    with pytest.raises(AnalysisError, match="has 4 with valid segments"):
        probed_rows(make_bench(make_gallery(6, valid=valid), np.zeros((72, 256))), "sound")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtra, match=r"scikit-learn.*analysis"):
        regression.predict_linear(
            np.zeros((9, 2)), np.zeros((9, 1)), np.zeros((1, 2)), np.arange(9)
        )


@pytest.mark.parametrize("variant", ["paper", "sound"])
def test_measured_kept_tabled_and_drawn(variant, monkeypatch, three_penalties):
    monkeypatch.setattr(probes, "PAIRS", (("audio", "pitch"), ("midi", "centroid")))
    rng = np.random.default_rng(7)
    gallery = make_gallery(5, per=8, valid=np.arange(40) % 8 != 5)
    store = SoundStore(
        rng.integers(-9000, 9000, 44 * RATE).astype(np.int16),
        [rng.integers(40, 80, 6).tolist() for _ in range(40)],
    )
    bench = make_bench(gallery, rng.normal(size=(40, 256)), rng.normal(size=(40, 256)), store)
    kept = {}

    def condition(name, compute):
        if name not in kept:
            kept[name] = json.loads(json.dumps(compute(), allow_nan=False))
        return dict(kept[name])

    analysis = Probes()
    json.dumps(analysis.settings(bench, variant))
    summary = analysis.measure(bench, variant, condition)
    kinds = ["mlp"] if variant == "paper" else ["linear", "mlp"]
    pairs = ["audio → pitch", "MIDI → centroid"]
    assert list(summary) == list(kept) == [f"{p}, {k}" for k in kinds for p in pairs]
    assert kept["audio → pitch, mlp"]["segments"] == (40 if variant == "paper" else 35)
    store.read = None  # what is kept needs no targets
    assert analysis.measure(bench, variant, condition) == summary

    findings = [
        Finding(label=label, arm="a4r", seed=1, conditions=kept, summary=summary)
        for label in ("a4r", "d0")
    ]
    table = analysis.table(findings, variant)
    assert len(table.rows) == 2 * len(kept)
    assert all(len(row) == len(table.head) for row in table.rows)
    assert table.rows[0][:4] == [
        "a4r",
        "audio → pitch",
        kinds[0],
        summary[f"audio → pitch, {kinds[0]}"],
    ]
    figure = Figure(layout="constrained")
    analysis.draw(findings, variant, figure)
    figure.draw_without_rendering()
    assert len(figure.axes) == len(kinds)
    heights = [bar.get_height() for bar in figure.axes[-1].patches]
    assert heights == [kept[f"{p}, mlp"]["R2"] for _ in findings for p in pairs]
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["a4r", "d0"] + ["shuffled embeddings"] * (variant == "sound")
