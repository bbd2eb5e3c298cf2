"""Perturbations: each changes what it says and nothing else, and descriptors follow."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
import torch
from bench_fakes import bench_of
from makers import Spec, build_quietly, corpus_of, make_corpus
from matplotlib.figure import Figure

from pipeline.base.files import FolderLock
from pipeline.descriptors.contract import Notes
from trainer.analyses.contract import ANALYSES
from trainer.analyses.driver import analyze
from trainer.analyses.floor_bench import FloorBench
from trainer.analyses.invariance import Perturbed
from trainer.analyses.perturbations import (
    louder,
    noisy,
    notes_changed,
    rolled,
    sound_changed,
    transposed,
    unchanged,
)
from trainer.floors import Floor
from trainer.retrieval.baselines import BASELINES

POOL = 8  # the benches'
INVARIANCE, TRANSPOSITION = ANALYSES.get("invariance"), ANALYSES.get("transposition")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Real sound and notes: three recordings of half a minute to analyse."""
    specs = tuple(
        Spec(f"{split}-{i}", seconds=20.0, split=split, title=f"{split}, BWV {n}{i}")
        for n, split in enumerate(("train", "validation"), 1)
        for i in range(1 if split == "train" else 3)
    )
    corpus = corpus_of(make_corpus(tmp_path_factory.mktemp("corpus"), specs))
    return build_quietly(
        corpus, tmp_path_factory.mktemp("out"), descriptors=["A4", "D4", "mel", "D5"]
    ).store


@pytest.fixture(scope="module")
def bench(store, tmp_path_factory):
    return bench_of(tmp_path_factory.mktemp("runs"), "d4a4", store)


def some_batch(bench):
    return bench.resident.batch(np.arange(12))


def same(before, after, *names):
    return [torch.equal(before.arrays[n], after.arrays[n]) for n in names]


CONTROLS = [
    {"name": "real", "options": {}},
    {"name": "zero", "options": {}},
    {"name": "random", "options": {"rows": 0}},
    {"name": "shuffled", "options": {"within": "split"}},
]


@pytest.mark.parametrize(
    ("arm", "control"),
    [("d0", CONTROLS[0]), *(("d4a4", control) for control in CONTROLS)],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_nothing_changed_is_the_store_to_the_bit(store, tmp_path, arm, control):
    """What a control put in place of descriptors is not undone by computing them anew."""
    bench = bench_of(tmp_path, arm, store, control=control)
    for side, change in (
        ("audio", sound_changed(bench, unchanged)),
        ("midi", notes_changed(bench, lambda notes: (notes, np.ones(len(notes), bool)))),
    ):
        assert np.array_equal(bench.changed(side, change)[side], bench.embeddings[side])
    # This one hears samples and keeps tokens.
    wave = bench_of(tmp_path / "paper", arm, store, preset="paper", control=control)
    change = sound_changed(wave, unchanged)
    assert np.array_equal(wave.changed("audio", change)["audio"], wave.embeddings["audio"])


@pytest.mark.parametrize("control", CONTROLS[1:], ids=lambda control: control["name"])
def test_a_controls_run_hears_the_change_and_keeps_its_control(store, tmp_path, control):
    bench = bench_of(tmp_path, "d4a4", store, control=control)
    batch = some_batch(bench)
    noisier = sound_changed(bench, noisy(10))(batch)
    assert same(batch, noisier, "mel", "A4", "D4") == [False, True, True]
    highest = int(batch.pitch_BN.max())
    fewer = notes_changed(bench, transposed(128 - highest, beyond="dropped"))(batch)
    assert int(fewer.padding_BN.sum()) > int(batch.padding_BN.sum())
    left = ~fewer.padding_BN
    assert torch.equal(fewer.arrays["D4"][left], batch.arrays["D4"][left])
    assert not fewer.arrays["D4"][~left].any()


def test_transposed_notes_keep_everything_but_pitch(bench):
    batch = some_batch(bench)
    moved = notes_changed(bench, transposed(3, beyond="clamped"))(batch)
    real = ~batch.padding_BN
    assert torch.equal(moved.pitch_BN[real], batch.pitch_BN[real] + 3)
    assert not moved.pitch_BN[~real].any()
    for name in ("velocity_BN", "onset_BN", "duration_BN", "padding_BN"):
        assert torch.equal(getattr(moved, name), getattr(batch, name))
    # intervals do not notice a transposition; nothing of the sound changes
    assert same(batch, moved, "A4", "mel", "D4") == [True, True, True]


def test_clamping_changes_intervals_and_dropping_does_not():
    notes = Notes(
        pitch=np.array([100, 120, 127], np.uint8),
        velocity=np.array([10, 64, 127], np.uint8),
        duration_bucket=np.zeros(3, np.uint8),
        onset_s=np.array([0.0, 1.0, 2.0], np.float32),
        duration_s=np.ones(3, np.float32),
    )
    clamped, kept = transposed(12, beyond="clamped")(notes)
    assert clamped.pitch.tolist() == [112, 127, 127]
    assert kept.all()
    assert transposed(12, beyond="dropped")(notes)[1].tolist() == [True, False, False]
    for factor, rounding, velocities in (
        (1.5, "truncated", [15, 96, 127]),
        (0.05, "truncated", [0, 3, 6]),
        (0.05, "rounded", [1, 3, 6]),
    ):
        assert louder(factor, rounding=rounding)(notes)[0].velocity.tolist() == velocities


def test_a_segment_that_loses_all_notes_is_given_the_dummy(bench):
    batch = some_batch(bench)
    empty = notes_changed(bench, transposed(120, beyond="dropped"))(batch)
    assert (~empty.padding_BN).sum(dim=1).tolist() == [1] * len(batch)
    assert empty.pitch_BN[:, 0].tolist() == [60] * len(batch)
    assert not empty.arrays["D4"].any()
    assert empty.pitch_BN.shape == batch.pitch_BN.shape


def test_notes_that_are_left_move_up_to_the_front(bench):
    batch = some_batch(bench)
    highest = int(batch.pitch_BN.max())
    fewer = notes_changed(bench, transposed(128 - highest, beyond="dropped"))(batch)
    for row in range(len(batch)):
        own = batch.pitch_BN[row] < highest
        own &= ~batch.padding_BN[row]
        count = int(own.sum())
        assert torch.equal(fewer.onset_BN[row, :count], batch.onset_BN[row, own])
        assert torch.equal(fewer.pitch_BN[row, :count], batch.pitch_BN[row, own] + 128 - highest)
        assert int((~fewer.padding_BN[row]).sum()) == count
        assert not fewer.arrays["D4"][row, count:].any()
    assert int(fewer.padding_BN.sum()) > int(batch.padding_BN.sum())


def test_the_window_moves_along_the_recording(store, bench):
    """Of neighbours one second apart, one's moved window is the other's own."""
    batch = some_batch(bench)
    later = sound_changed(bench, unchanged, shift=24_000)(batch)
    for row in range(11):
        if bench.gallery.recording[row] == bench.gallery.recording[row + 1]:
            torch.testing.assert_close(
                later.arrays["mel"][row], batch.arrays["mel"][row + 1], atol=2e-2, rtol=1e-2
            )
    rolled_batch = sound_changed(bench, rolled(-24_000))(batch)
    assert not torch.equal(rolled_batch.arrays["mel"], later.arrays["mel"])
    tail = rolled_batch.arrays["mel"][:, -40:]
    assert float(tail.max()) < 0.2 * float(batch.arrays["mel"].max())  # silence came in
    assert same(batch, later, "D4") == [True]
    assert torch.equal(later.pitch_BN, batch.pitch_BN)


def test_rolling_is_the_publication_s_to_the_sample():
    samples = np.arange(10, dtype=np.float32)
    assert rolled(3)(samples, 0).tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert rolled(-3)(samples, 0).tolist() == [3, 4, 5, 6, 7, 8, 9, 0, 0, 0]
    assert rolled(0)(samples, 0).tolist() == samples.tolist()


@pytest.mark.parametrize("snr", [40, 10])
def test_noise_has_its_level_and_is_the_same_every_time(snr):
    samples = (0.3 * np.sin(np.arange(96_000) / 20)).astype(np.float32)
    found = noisy(snr)(samples.copy(), 7)
    noise = found - samples
    level = 20 * np.log10(samples.std() / noise.std())
    assert level == pytest.approx(snr, abs=0.1)
    assert np.array_equal(found, noisy(snr)(samples.copy(), 7))
    assert not np.array_equal(found, noisy(snr)(samples.copy(), 8))
    silent = np.zeros(96_000, np.float32)
    assert not noisy(snr)(silent, 7).any()


@pytest.mark.parametrize("variant", ["paper", "sound"])
@pytest.mark.parametrize("analysis", [INVARIANCE, TRANSPOSITION], ids=lambda a: a.name)
def test_each_condition_changes_what_it_says(bench, analysis, variant):
    batch = some_batch(bench)
    assert isinstance(analysis, Perturbed)
    names = set()
    for step in analysis.steps(variant):
        names.add(step.name)
        changed = step.change(bench)(batch)
        if step.side == "midi":
            assert same(batch, changed, "A4", "mel") == [True, True]
            field = "velocity_BN" if step.family.startswith("velocity") else "pitch_BN"
            assert not torch.equal(getattr(changed, field), getattr(batch, field)), step.name
        else:
            assert same(batch, changed, "A4", "mel", "D4") == [False, False, True], step.name
            assert torch.equal(changed.pitch_BN, batch.pitch_BN)
    assert len(names) == {"invariance": 17, "transposition": 6}[analysis.name]


def test_every_condition_embeds_the_changed_side_alone(store, tmp_path, monkeypatch):
    bench = bench_of(tmp_path, "d4a4", store)
    n, counts = len(bench.gallery), {"audio": 0, "midi": 0}
    for side in counts:
        plain = getattr(bench.model, f"embed_{side}")

        def counted(batch, plain=plain, side=side):
            counts[side] += len(batch)
            return plain(batch)

        monkeypatch.setattr(bench.model, f"embed_{side}", counted)
    analyze([INVARIANCE], [bench], ["sound"])
    assert counts == {"audio": (1 + 4 + 5) * n, "midi": (1 + 4 + 4) * n}
    analyze([TRANSPOSITION], [bench], ["sound", "paper"])
    assert counts == {"audio": 10 * n, "midi": (9 + 12) * n}
    analyze([INVARIANCE], [bench], ["sound"])
    assert counts == {"audio": 10 * n, "midi": 21 * n}


def test_a_model_that_hears_no_velocity_does_not_notice_it(store, tmp_path):
    bench = bench_of(tmp_path, "d0", store)
    with torch.no_grad():
        bench.model.midi.notes.velocity.weight[:] = 0
    found = {}
    INVARIANCE.measure(bench, "sound", lambda name, c: found.setdefault(name, c()))
    for name, c in found.items():
        if name.startswith("velocity"):
            assert c["moved"]["midi"] == 0.0
            assert c["difference"] == 0.0
        elif name != "unchanged":
            assert max(c["moved"].values()) > 1e-4, name


def test_tables_and_pictures_are_made_from_the_records(bench):
    outcome = analyze([TRANSPOSITION], [bench], ["sound"])[0]
    table = TRANSPOSITION.table(outcome.findings, "sound")
    conditions = outcome.findings[0].conditions
    assert [row[0] for row in table.rows] == list(conditions)
    for row in table.rows:
        assert row[1] == conditions[row[0]]["S"]
        assert row[-1] == (None if row[0] == "unchanged" else "10-s blocks")  # of three recordings
    assert table.head[-1] == "drawn"
    figure = Figure(layout="constrained")
    TRANSPOSITION.draw(outcome.findings, "sound", figure)
    line = figure.axes[0].get_lines()[0]
    drawn = dict(zip(*line.get_data(), strict=True))
    assert set(drawn) == {-6, -3, -1, 0, 1, 3, 6}
    assert drawn[3] == conditions["semitones 3"]["S"]
    assert drawn[0] == conditions["unchanged"]["S"]


def floor_of(name, store, cache):
    return FloorBench(Floor(name, store, "validation", cache=cache, pool_size=POOL))


@pytest.mark.parametrize("name", ["flux", "chroma-dtw"])
def test_a_floor_is_asked_the_same(store, bench, tmp_path, name):
    floor = floor_of(name, store, tmp_path)
    whole = floor.changed("audio", unchanged), floor.changed("midi", lambda n: (n, n.pitch < 255))
    for changed in whole:
        for side, features in floor.embeddings.items():
            assert np.array_equal(changed[side], features)
    ours, theirs = analyze([INVARIANCE], [bench, floor], ["sound"])[0].findings
    assert list(theirs.conditions) == list(ours.conditions)
    assert (theirs.label, theirs.seed) == (f"floor: {name}", None)
    own = Floor(name, store, "validation", cache=tmp_path, pool_size=POOL)
    assert theirs.conditions["unchanged"]["S"] == own.scored("strict").record["S"]
    for step in INVARIANCE.steps("sound"):
        moved = theirs.conditions[step.name]["moved"]
        other = {"audio": "midi", "midi": "audio"}[step.side]
        assert moved[other] == 0
        blind = name == "chroma-dtw" and step.family.startswith("octaves")
        assert (moved[step.side] == 0) == blind, step.name
    head = INVARIANCE.table([ours, theirs], "sound").head
    assert [h for h in head if h.startswith("S ")] == [f"S {ours.label}", f"S floor: {name}"]


def test_a_floor_s_window_moves_to_where_a_run_s_does(store, tmp_path):
    """Of neighbours one second apart, one's moved window is the other's own."""
    floor = floor_of("flux", store, tmp_path)
    later = floor.changed("audio", unchanged, 24_000)["audio"]
    neighbours = np.flatnonzero(np.diff(floor.gallery.recording) == 0)
    assert len(neighbours) > 20
    assert np.array_equal(later[neighbours], floor.embeddings["audio"][neighbours + 1])


def test_a_floor_that_somebody_else_measures_is_waited_for(store, tmp_path):
    floor, other = (floor_of("register", store, tmp_path) for _ in range(2))
    lock = FolderLock(other.folder)
    lock.__enter__()
    leaves = threading.Timer(0.3, lock.__exit__, (None, None, None))
    leaves.start()
    (finding,) = analyze([TRANSPOSITION], [floor], ["sound"])[0].findings
    leaves.join()
    assert len(finding.conditions) == 7


def test_a_floor_s_findings_are_kept_and_of_its_own_definition(store, tmp_path, monkeypatch):
    floor = floor_of("register", store, tmp_path)
    first = [o.findings for o in analyze([TRANSPOSITION], [floor], ["paper", "sound"])]
    assert all(len(findings) == 1 for findings in first)
    monkeypatch.setattr(FloorBench, "changed", None)  # nothing is measured twice
    again = floor_of("register", store, tmp_path)
    second = [o.findings for o in analyze([TRANSPOSITION], [again], ["paper", "sound"])]
    assert second == first
    monkeypatch.setattr(type(BASELINES.get("register")), "version", 99)
    assert floor_of("register", store, tmp_path).key != floor.key


def test_other_analyses_leave_floors_out(store, bench, tmp_path):
    floor = floor_of("register", store, tmp_path)
    cost = ANALYSES.get("cost")
    found = analyze([cost], [bench, floor], [next(iter(cost.variants))])[0]
    assert [f.label for f in found.findings] == ["d4a4"]
    assert not found.refused


def test_a_floor_whose_packages_are_missing_keeps_no_run_from_being_asked(
    store, bench, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "librosa", None)
    floor = floor_of("cqt", store, tmp_path)
    found = analyze([TRANSPOSITION], [bench, floor], ["sound"])[0]
    assert [f.label for f in found.findings] == ["d4a4"]
    assert "librosa" in found.refused["floor: cqt"]
