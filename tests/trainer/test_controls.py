"""Parameter-matched controls: what stands in place of a descriptor, in training and evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from trainer_fakes import FakeStore, run_config

from pipeline.base.errors import ConfigError
from trainer.config import signature
from trainer.controls import CONTROLS, derangement
from trainer.model import build_model
from trainer.run import residents


@pytest.fixture(scope="module")
def store():
    return FakeStore(120, seed=5)


def resident_of(store, control, split="train", arm="d4a4", preset="sound", **options):
    config = run_config(preset, arm, control={"name": control, "options": options})
    return residents(
        config, build_model(config, "meta").reads(), store, split, "cpu", training=True
    )


INDEX = np.array([3, 40, 11, 25, 7, 60, 18, 33])


def test_real_is_the_store_and_changes_nothing(store):
    found = resident_of(store, "real")
    assert found.replace is None
    assert torch.equal(found.batch(INDEX).arrays["A4"], found.plain_batch(INDEX).arrays["A4"])


@pytest.mark.parametrize("control", [n for n in CONTROLS if n != "real"])
def test_descriptors_alone_are_replaced(store, control):
    found = resident_of(store, control)
    batch, plain = found.batch(INDEX), found.plain_batch(INDEX)
    for name in ("A4", "D4"):
        assert not torch.equal(batch.arrays[name], plain.arrays[name])
        assert batch.arrays[name].shape == plain.arrays[name].shape
    assert torch.equal(batch.arrays["mel"], plain.arrays["mel"])
    assert torch.equal(batch.pitch_BN, plain.pitch_BN)
    assert not batch.arrays["D4"][plain.padding_BN].any()
    again = resident_of(store, control).batch(INDEX)
    for name in ("A4", "D4"):
        assert torch.equal(again.arrays[name], batch.arrays[name])


@pytest.mark.parametrize("control", [n for n in CONTROLS if n != "real"])
def test_processes_that_share_a_batch_have_its_parts(store, control):
    found = resident_of(store, control)
    whole = found.batch(INDEX)
    for share in (slice(0, 4), slice(4, 8)):
        part = found.batch(INDEX, share)
        for name in ("A4", "D4"):
            assert torch.equal(part.arrays[name], whole.arrays[name][share])


def test_zero_is_zero(store):
    assert not resident_of(store, "zero").batch(INDEX).arrays["A4"].any()


def test_noise_has_the_training_splits_moments_and_is_drawn_anew(store):
    store = FakeStore(120, seed=5)
    store._arrays["A4"] = (store._arrays["A4"] * np.arange(1, 9) + np.arange(8)).astype(np.float16)
    found = resident_of(store, "random")
    values = torch.cat([found.batch(INDEX + i).arrays["A4"].flatten(0, 1) for i in range(8)])
    train = store.segments.split == "train"
    real = store.read("A4")[train].astype(np.float64).reshape(-1, 8)
    np.testing.assert_allclose(values.mean(0) - real.mean(0), 0, atol=0.4)
    np.testing.assert_allclose(values.std(0), real.std(0), rtol=0.05)
    one, two = found.batch(INDEX), found.batch(INDEX[::-1].copy())
    assert not torch.equal(one.arrays["A4"][0], two.arrays["A4"][-1])
    first = resident_of(store, "random", rows=8)
    assert not torch.equal(first.batch(INDEX).arrays["A4"], one.arrays["A4"])
    # validation is given noise of the training split's moments, too
    held_out = resident_of(store, "random", split="validation").batch(INDEX[:4] % 20)
    assert abs(float(held_out.arrays["A4"][..., 7].std()) / real.std(0)[7] - 1) < 0.1


def test_values_are_exchanged_within_a_batch_or_with_other_recordings(store):
    plain = resident_of(store, "real").batch(INDEX).arrays["A4"]
    within = resident_of(store, "shuffled", within="batch").batch(INDEX).arrays["A4"]
    keys = [float(x.sum()) for x in plain]
    assert sorted(float(x.sum()) for x in within) == sorted(keys)
    assert all(float(x.sum()) != key for x, key in zip(within, keys, strict=True))
    resident = resident_of(store, "shuffled")
    everybody = {
        float(x.sum()): row
        for row, x in zip(
            resident.rows, resident.plain_batch(np.arange(len(resident))).arrays["A4"], strict=True
        )
    }
    recording = store.segments.recording
    for place, x in zip(INDEX, resident.batch(INDEX).arrays["A4"], strict=True):
        giver = everybody[float(x.sum())]
        assert recording[giver] != recording[resident.rows[place]]


def test_a_derangement_leaves_nobody_in_place():
    for n in (2, 3, 16):
        for seed in range(20):
            order = derangement(n, np.random.default_rng(seed))
            assert sorted(order) == list(range(n))
            assert (order != np.arange(n)).all()


def test_a_control_is_another_run():
    real, zero = (
        run_config("sound", "a4", control={"name": name, "options": {}})
        for name in ("real", "zero")
    )
    assert signature(real, {"A4": "x"}) != signature(zero, {"A4": "x"})


def test_what_makes_no_sense_is_refused(store):
    with pytest.raises(ConfigError, match="without descriptors"):
        run_config("sound", "d0", control={"name": "zero", "options": {}})
    with pytest.raises(ConfigError, match="unknown control"):
        run_config("sound", "a4", control={"name": "nought", "options": {}})
    with pytest.raises(ConfigError, match="at least 0"):
        resident_of(store, "random", rows=-1)
    alone = FakeStore(30)
    lonely = resident_of(alone, "shuffled", split="validation")
    with pytest.raises(ConfigError, match="too few recordings"):
        lonely.batch(np.arange(4))
