"""Attention maps: the weights are those that the model uses, and summed up as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from bench_fakes import bench_of
from trainer_fakes import FakeStore

from trainer.analyses.attention import Look, coarse, measures
from trainer.analyses.contract import ANALYSES, AnalysisError
from trainer.attention import Attention

MAPS = ANALYSES.get("attention")


def at_once(name, compute):
    return compute()


@pytest.fixture(scope="module")
def store():
    return FakeStore(120)


def test_weights_are_those_of_the_attention_itself():
    attention = Attention(16, 4, 0.0).eval()
    x, y = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    padding = torch.arange(7)[None] >= torch.tensor([7, 4, 0])[:, None]
    weights = attention.weights(x, y, padding)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 4, 5))
    value = attention.in_proj(y)[..., 32:].unflatten(-1, (4, 4)).transpose(1, 2)
    made = attention.out_proj((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(made, attention(x, y, padding))
    assert not weights[1, :, :, 4:].any()


def test_uniform_and_diagonal_weights_are_summed_up_right():
    times = torch.arange(40) * 0.1
    uniform = torch.full((40, 40), 1 / 40)
    entropy, distance, chance, near, near_chance = measures(uniform, times, times)
    assert entropy == pytest.approx(1.0)
    assert distance == pytest.approx(chance)
    assert near == pytest.approx(near_chance)
    entropy, distance, _, near, _ = measures(torch.eye(40), times, times)
    assert (entropy, distance, near) == pytest.approx((0, 0, 1), abs=1e-6)
    shifted = torch.roll(torch.eye(40), 5, dims=1)[:35]
    assert measures(shifted, times[:35], times)[1] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arm", "shape"), [("a4r", "188 frames × tokens"), ("a4x", "tokens × frames"), ("d4x", "notes")]
)
def test_queries_and_keys_have_their_times(store, tmp_path, arm, shape):
    bench = bench_of(tmp_path, arm, store)
    mechanism = bench.model.every_mechanism()[0]
    batch = bench.resident.batch(np.arange(6))
    look = Look(bench, mechanism, batch)
    for row in range(6):
        weights, query, key = look.one(row)
        assert weights.shape == (len(query), len(key)), shape
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(query)))
        if arm == "d4x":
            notes = int((~batch.padding_BN[row]).sum())
            assert len(query) == len(key) == notes
        else:
            frames = query if arm == "a4r" else key
            assert len(frames) == 188
            assert float(frames[-1]) == pytest.approx(187 * 512 / 24_000)


def test_a_model_that_looks_at_its_own_time_is_seen_to(store, tmp_path, monkeypatch):
    bench = bench_of(tmp_path, "a4r", store)

    def weights(self, query, memory, padding=None):
        t, u = query.shape[1], memory.shape[1]
        place = torch.linspace(0, u - 1, t).round().long()
        return torch.nn.functional.one_hot(place, u).float()[None, None].expand(len(query), 2, t, u)

    monkeypatch.setattr(Attention, "weights", weights)
    found = {}
    MAPS.measure(bench, "sound", lambda n, c: found.setdefault(n, c()))
    c = found["A4-reverse_xattn on audio"]
    assert c["measures"]["distance"] < 0.1 < c["measures"]["distance of uniform"]
    assert c["measures"]["entropy"] < 1e-6
    assert len(c["map"]) <= 48
    assert math.isclose(c["query_times"][1], 187 * 512 / 24_000, rel_tol=1e-5)


def test_a_bias_is_shown_as_one(store, tmp_path):
    arm = (("A4", "attn_bias"),)
    bench = bench_of(tmp_path, arm, store)
    with torch.no_grad():
        bench.model.every_mechanism()[0].forms_HRR.normal_()
    found = {}
    MAPS.measure(bench, "sound", lambda n, c: found.setdefault(n, c()))
    c = found["A4-attn_bias on audio"]
    assert c["kind"] == "bias"
    assert np.abs(c["map"]).max() > 0
    assert c["measures"] == {}


def test_two_mechanisms_of_one_descriptor_have_a_map_each(store, tmp_path):
    bench = bench_of(tmp_path, (("A4", "xattn"), ("A4", "attn_bias")), store)
    found = {}
    MAPS.measure(bench, "sound", lambda n, c: found.setdefault(n, c()))
    kinds = {name: c["kind"] for name, c in found.items()}
    assert kinds == {"A4-attn_bias on audio": "bias", "A4-xattn on audio": "weights"}


def test_arms_without_attention_are_refused(store, tmp_path):
    with pytest.raises(AnalysisError, match="no attention mechanism"):
        MAPS.measure(bench_of(tmp_path, "d4a4", store), "sound", at_once)


def test_maps_are_made_small_by_averaging():
    big = torch.arange(96 * 96, dtype=torch.float32).reshape(96, 96)
    small = coarse(big)
    assert small.shape == (48, 48)
    torch.testing.assert_close(small[0, 0], big[:2, :2].mean())
    assert coarse(torch.ones(3, 200)).shape == (3, 48)
