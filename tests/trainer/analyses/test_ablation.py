"""Ablation: planted dependence is found, absent dependence is exactly zero, everything is verified."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from bench_fakes import bench_of
from trainer_fakes import FakeStore

from trainer.analyses import ablation, replacements, verification
from trainer.analyses.ablation import ablated, ablation_targets
from trainer.analyses.contract import ANALYSES, AnalysisError
from trainer.analyses.driver import analyze
from trainer.analyses.replacements import KINDS, donors, partners, replacement
from trainer.analyses.verification import Verified

ABLATION = ANALYSES.get("ablation")


def at_once(name, compute):
    return compute()


@pytest.fixture(scope="module")
def store():
    return FakeStore(120, seed=3)


@pytest.mark.parametrize("variant", ["paper", "sound"])
def test_a_model_that_ignores_d4_shows_no_effect_of_d4(store, tmp_path, variant):
    bench = bench_of(tmp_path, "d4a4", store)
    with torch.no_grad():
        mixed = bench.model.mechanisms["D4-concat"].project
        mixed.weight[:, -4:] = 0  # the columns that D4 enters by
    found = {}

    def condition(name, compute):
        found[name] = compute()
        return found[name]

    ABLATION.measure(bench, variant, condition)
    of_d4 = [name for name in found if name.startswith("D4")]
    of_a4 = [name for name in found if name.startswith("A4")]
    assert len(of_d4) == len(of_a4) == len(replacements.KINDS[variant])
    for name in of_d4:
        assert found[name]["moved"] == {"audio": 0.0, "midi": 0.0}, name
        assert found[name]["difference"] == 0.0
        assert found[name]["ci95"] in (None, [0.0, 0.0])
        assert found[name]["verified"]["replaced"] > 0.6  # some have no notes, some keep theirs
    for name in of_a4:
        assert found[name]["moved"]["audio"] > 1e-3, name
        assert found[name]["moved"]["midi"] == 0.0


def test_only_the_changed_side_is_embedded_again(store, tmp_path, monkeypatch):
    bench = bench_of(tmp_path, "d4a4", store)
    counts = {"audio": 0, "midi": 0}
    for side in counts:
        plain = getattr(bench.model, f"embed_{side}")

        def counted(batch, plain=plain, side=side):
            counts[side] += len(batch)
            return plain(batch)

        monkeypatch.setattr(bench.model, f"embed_{side}", counted)
    n = len(bench.gallery)
    bench.baseline("sound")
    assert counts == {"audio": n, "midi": n}
    ablated(bench, "audio", ("A4",), "zero", "sound")
    assert counts == {"audio": 2 * n, "midi": n}
    ablated(bench, "midi", ("D4",), "shuffle", "sound")
    assert counts == {"audio": 2 * n, "midi": 2 * n}
    again = bench_of(tmp_path, "d4a4", store, model=bench.model)
    again.baseline("paper")  # embeddings are read from the disk
    assert counts == {"audio": 2 * n, "midi": 2 * n}


def test_a_model_made_of_the_descriptor_alone_follows_it(store, tmp_path):
    """Embeddings that are a function of A4 alone: swapped, they lie where the partner's lay."""
    bench = bench_of(tmp_path, "a4", store, head={"lags": 0})
    bench.model.embed_audio = lambda batch: batch.arrays["A4"].mean(dim=1)
    bench.model.embed_midi = lambda batch: torch.from_numpy(
        store.read("A4")[batch.segments_B.numpy()].astype(np.float32)
    ).mean(dim=1)
    found = ablated(bench, "audio", ("A4",), "swap", "sound")
    assert found["follows"] == 1.0
    assert bench.baseline("sound").record()["a2m"]["R@1"] == 1.0
    assert found["a2m"]["R@1"] < 0.2
    bench.model.embed_audio = bench.model.embed_midi
    del bench.__dict__["embeddings"]
    (bench.folder / "embeddings.json").unlink()
    with pytest.raises(AnalysisError, match="did not read A4"):
        ablated(bench, "audio", ("A4",), "swap", "sound")


def test_replacements_are_what_they_say(store, tmp_path):
    bench = bench_of(tmp_path, "d4a4", store)
    batch = bench.resident.batch(np.arange(16))
    recording = bench.gallery.recording
    for name in ("A4", "D4"):
        real = batch.arrays[name]
        keep = ~batch.padding_BN if name == "D4" else torch.ones(real.shape[:2], dtype=bool)
        for variant in ("paper", "sound"):
            zero = replacement(bench, (name,), "zero", variant)(batch).arrays[name]
            assert not zero.any()
            noise = replacement(bench, (name,), "noise", variant)(batch).arrays[name]
            assert torch.isfinite(noise).all()
            assert (noise != real)[keep].all()
            if (name, variant) != ("D4", "paper"):  # padding zeros make that one too quiet
                assert abs(float(noise[keep].std() / real[keep].std()) - 1) < 0.25
        assert not noise[~keep].any()
        # paper: within the batch; every row is some row of the batch
        mixed = replacement(bench, (name,), "shuffle", "paper")(batch).arrays[name]
        assert sorted(map(float, mixed.flatten(1).sum(dim=1))) == pytest.approx(
            sorted(map(float, real.flatten(1).sum(dim=1)))
        )
    giver = donors(bench)
    assert sorted(giver) == list(range(len(recording)))
    assert (recording[giver] != recording).all()
    given = replacement(bench, ("A4",), "shuffle", "sound")(batch).arrays["A4"]
    rows = bench.gallery.segment[giver[:16]]
    np.testing.assert_array_equal(given.numpy(), store.read("A4")[rows].astype(np.float32))
    partner = partners(bench)
    assert (partner[partner] == np.arange(len(recording))).all()
    moved = partner != np.arange(len(recording))
    assert moved.sum() >= len(recording) - 1
    assert (recording[partner] != recording)[moved].all()


def test_notes_are_given_values_in_order_and_again(store, tmp_path):
    bench = bench_of(tmp_path, "d4a4", store)
    giver = donors(bench)
    index = np.arange(16)
    batch, given = bench.resident.batch(index), bench.resident.batch(giver[index])
    found = replacement(bench, ("D4",), "shuffle", "sound")(batch).arrays["D4"]
    for row in range(16):
        own, theirs = int((~batch.padding_BN[row]).sum()), int((~given.padding_BN[row]).sum())
        for note in range(own):
            expected = given.arrays["D4"][row, note % theirs]
            torch.testing.assert_close(found[row, note], expected)
        assert not found[row, own:].any()


def test_sound_noise_is_as_smooth_as_the_descriptor(store, tmp_path):
    bench = bench_of(tmp_path, "a4", store)
    smooth = np.cumsum(np.random.default_rng(0).normal(size=store.read("A4").shape), axis=1)
    smooth -= smooth.mean(axis=1, keepdims=True)
    smooth /= smooth.std(axis=1, keepdims=True)
    store_smooth = FakeStore(120, seed=3)
    store_smooth._arrays["A4"] = smooth.astype(np.float16)
    bench = bench_of(tmp_path / "smooth", "a4", store_smooth)
    batch = bench.resident.batch(np.arange(30))

    def lag_one(x):
        x = x - x.mean()
        return float((x[:, 1:] * x[:, :-1]).mean() / x.square().mean())

    real = lag_one(batch.arrays["A4"])
    sound = lag_one(replacement(bench, ("A4",), "noise", "sound")(batch).arrays["A4"])
    paper = lag_one(replacement(bench, ("A4",), "noise", "paper")(batch).arrays["A4"])
    assert real > 0.9
    assert sound > 0.85
    assert abs(paper) < 0.1


EVERY_KIND = [(variant, kind) for variant, kinds in KINDS.items() for kind in kinds]


def replaced_by(change):
    """A stand-in for what makes replacements: ``change(name, values, batch)`` → values."""

    def made(bench, arrays, kind, variant):
        def replace(batch):
            values = {n: change(n, batch.arrays[n], batch) for n in arrays}
            return dataclasses.replace(batch, arrays={**batch.arrays, **values})

        return replace

    return made


@pytest.mark.parametrize("side_and_array", [("audio", "A4"), ("midi", "D4")], ids=lambda s: s[1])
@pytest.mark.parametrize(("variant", "kind"), EVERY_KIND)
def test_a_replacement_that_replaces_nothing_is_found(
    store, tmp_path, monkeypatch, variant, kind, side_and_array
):
    """The published defect (§9.24): the function was replaced where nobody read it any more."""
    side, array = side_and_array
    bench = bench_of(tmp_path, "d4a4", store)
    assert ablated(bench, side, (array,), kind, variant)["verified"]["replaced"] > 0.6
    monkeypatch.setattr(ablation, "replacement", replaced_by(lambda name, values, batch: values))
    with pytest.raises(AnalysisError) as caught:
        ablated(bench, side, (array,), kind, variant)
    assert caught.value.kind == "unverified"


@pytest.mark.parametrize("kind", KINDS["sound"])
def test_a_replacement_that_leaves_one_segment_alone_is_found(store, tmp_path, monkeypatch, kind):
    bench = bench_of(tmp_path, "d4a4", store)

    def forgetful(bench, arrays, kind, variant):
        plain = replacement(bench, arrays, kind, variant)

        def change(batch):
            found = plain(batch)
            for name in arrays:
                found.arrays[name] = found.arrays[name].clone()
                found.arrays[name][1] = batch.arrays[name][1]
            return found

        return change

    monkeypatch.setattr(ablation, "replacement", forgetful)
    for side, array in (("audio", "A4"), ("midi", "D4")):
        with pytest.raises(AnalysisError) as caught:
            ablated(bench, side, (array,), kind, "sound")
        assert caught.value.kind == "unverified"


def test_only_what_is_named_is_replaced(store, tmp_path):
    bench = bench_of(tmp_path, "a4", store)

    def clumsy(batch):
        return dataclasses.replace(batch, arrays={k: v + 1 for k, v in batch.arrays.items()})

    with pytest.raises(AnalysisError, match="mel changed although"):
        Verified(bench, clumsy, ("A4",), "noise", "sound")(bench.resident.batch(np.arange(4)))


@pytest.mark.parametrize("kind", ["shuffle", "swap"])
def test_values_of_somebody_else_than_the_giver_are_found(store, tmp_path, monkeypatch, kind):
    """Everything is replaced, by values of another recording, but not by those that are meant."""
    bench = bench_of(tmp_path, "d4a4", store)
    other = {"shuffle": partners, "swap": donors}[kind](bench)
    monkeypatch.setattr(
        ablation, "replacement", lambda b, arrays, *_: replacements._from_donors(b, arrays, other)
    )
    for side, array in (("audio", "A4"), ("midi", "D4")):
        with pytest.raises(AnalysisError, match=f"another {array} than their giver's"):
            ablated(bench, side, (array,), kind, "sound")


@pytest.mark.parametrize("kind", ["shuffle", "swap"])
def test_a_giver_of_the_same_recording_is_found(store, tmp_path, monkeypatch, kind):
    bench = bench_of(tmp_path, "a4", store)

    def neighbours(bench):
        return np.arange(len(bench.gallery)) ^ 1

    for module in (replacements, verification):
        for name in ("donors", "partners"):
            monkeypatch.setattr(module, name, neighbours)
    with pytest.raises(AnalysisError, match="40 segments values of their own recording"):
        ablated(bench, "audio", ("A4",), kind, "sound")


def test_of_an_odd_number_the_last_keeps_its_own(tmp_path):
    bench = bench_of(tmp_path, "d4a4", FakeStore(115, seed=3))
    assert len(bench.gallery) == 35
    found = ablated(bench, "audio", ("A4",), "swap", "sound")
    assert found["verified"]["replaced"] == pytest.approx(34 / 35)
    assert ablated(bench, "audio", ("A4",), "shuffle", "sound")["verified"]["replaced"] == 1.0


def test_a_control_is_not_asked(store, tmp_path):
    bench = bench_of(tmp_path, "d4a4", store, control={"name": "zero", "options": {}})
    with pytest.raises(AnalysisError, match=r"its descriptors are replaced already \(zero\)"):
        ABLATION.measure(bench, "sound", at_once)


def test_the_table_says_how_much_was_replaced_and_what_intervals_are_of(store, tmp_path):
    (outcome,) = analyze([ABLATION], [bench_of(tmp_path, "a4", store)], ["sound"])
    table = ABLATION.table(outcome.findings, "sound")
    rows = {row[1]: dict(zip(table.head, row, strict=True)) for row in table.rows}
    assert rows["A4 swap"]["replaced"] == 1.0
    assert rows["A4 zero"]["drawn"] == "10-s blocks"  # of four recordings
    assert rows["unchanged"]["replaced"] is None


def test_an_arm_without_descriptors_is_refused(store, tmp_path):
    with pytest.raises(AnalysisError, match="reads no descriptor"):
        ABLATION.measure(bench_of(tmp_path, "d0", store), "sound", at_once)
    with pytest.raises(AnalysisError, match="reads no descriptor"):
        ABLATION.measure(bench_of(tmp_path, "d1", store), "sound", at_once)


def test_one_recording_has_nobody_to_exchange_with(tmp_path):
    alone = FakeStore(30)  # one recording a split
    bench = bench_of(tmp_path, "a4", alone, evaluation={"pool_size": 2, "batch_size": 16})
    with pytest.raises(AnalysisError, match="one recording has 10 of the 10"):
        ablated(bench, "audio", ("A4",), "shuffle", "sound")


def test_targets_follow_from_the_arm(store, tmp_path):
    assert list(ablation_targets(bench_of(tmp_path, "d4-a4r", store))) == ["A4", "D4"]
    two = (("A4", "concat"), ("A8", "reverse_xattn"))
    targets = ablation_targets(bench_of(tmp_path, two, store))
    assert targets["all of audio"] == ("audio", ("A4", "A8"))
    twice = (("A4", "concat"), ("A4", "film"))
    bench = bench_of(tmp_path, twice, store)
    assert ablation_targets(bench) == {"A4": ("audio", ("A4", "A4_level"))}
    assert ablated(bench, "audio", ("A4", "A4_level"), "zero", "sound")["verified"]["read"]
    film = ablation_targets(bench_of(tmp_path, "film-a4", store))
    assert film == {"A4": ("audio", ("A4_level",))}
