"""Every mechanism against its formula (method §3), written with torch's own modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from trainer_fakes import run_config

from pipeline.base.errors import ConfigError
from trainer.arms import ARMS
from trainer.attention import Attention, ScoreBias
from trainer.batch import Tokens
from trainer.cache import ResidentStore
from trainer.guards import constant_inputs
from trainer.mechanisms.align import frames_at, notes_to_frames, resample
from trainer.model import build_model
from trainer.presets import preset_config
from trainer.resolve import with_pairs

PLAIN = {"dropout": 0.0, "ffn_dropout": 0.0, "attention_dropout": 0.0}
STILL = {
    "audio": {"transformer": PLAIN},
    "midi": {"transformer": PLAIN},
    "mechanisms": {"dropout": 0.0},
}


def batch_of(store, model, n=6):
    resident = ResidentStore(store, "train", model.reads(), segments="valid")
    return resident.batch(np.arange(n))


def made(store, preset, arm, **over):
    model = build_model(run_config(preset, arm, **over)).eval()
    return model, batch_of(store, model)


def only(model):
    (mechanism,) = model.mechanisms.values()
    return mechanism


def torchs(attention: Attention) -> nn.MultiheadAttention:
    """torch's module with our weights."""
    width = attention.out_proj.in_features
    theirs = nn.MultiheadAttention(width, attention.heads, batch_first=True).eval()
    theirs.in_proj_weight.data = attention.in_proj.weight.data
    theirs.in_proj_bias.data = attention.in_proj.bias.data
    theirs.out_proj.load_state_dict(attention.out_proj.state_dict())
    return theirs


# ---- where a descriptor is brought


@pytest.mark.parametrize("n_tokens", [188, 235, 2400])
def test_frames_are_interpolated_up(n_tokens):
    frames = torch.randn(2, 188, 3)
    expected = F.interpolate(frames.mT, size=n_tokens, mode="linear", align_corners=False).mT
    torch.testing.assert_close(resample(frames, n_tokens), expected)


def test_frames_are_averaged_down():
    frames = torch.randn(2, 188, 3)
    expected = frames.unflatten(1, (47, 4)).mean(dim=2)
    torch.testing.assert_close(resample(frames, 47), expected)


def test_frames_at_times_are_those_of_numpys_interpolation():
    frames, times = torch.randn(2, 188, 3), torch.tensor([[-0.5, 0.0, 0.011, 1.7, 3.99, 9.0]])
    found = frames_at(frames, times)
    grid = np.arange(188) * 512 / 24_000
    for b in range(2):
        for k in range(3):
            expected = np.interp(times[0].numpy(), grid, frames[b, :, k].numpy())
            np.testing.assert_allclose(found[b, :, k].numpy(), expected, atol=1e-4)


def test_notes_are_resampled_over_their_own_number():
    counts = [1, 2, 7, 188, 300]
    notes = torch.randn(len(counts), 300, 4)
    padding = torch.arange(300)[None] >= torch.tensor(counts)[:, None]
    found = notes_to_frames(notes, padding, 188)
    for b, n in enumerate(counts):
        alone = F.interpolate(notes[b, :n].T[None].double(), size=188, mode="linear")[0].T
        # float32 places a frame among 300 notes within 300 × 2⁻²⁴ × a few
        torch.testing.assert_close(found[b], alone.float(), atol=2e-4, rtol=1e-4)
    changed = notes.masked_fill(padding[..., None], 99.0)
    torch.testing.assert_close(notes_to_frames(changed, padding, 188), found)


# ---- formulas


@pytest.mark.parametrize(("arm", "side"), [("a4x", "audio"), ("d4x", "midi")])
def test_xattn_is_its_formula(arm, side, store):
    model, batch = made(store, "paper", arm)
    mechanism = only(model)
    length = {"audio": 188, "midi": batch.padding_BN.shape[1]}[side]
    x = torch.randn(len(batch), length, mechanism.host.width)
    memory = mechanism.project(batch.arrays[mechanism.descriptor.name])
    answers, _ = torchs(mechanism.attention)(x, memory, memory)
    expected = F.layer_norm(x + answers, x.shape[-1:])
    found = mechanism.on_sequence(Tokens(x_BTC=x, time_BT=torch.zeros(1, length)), batch, None)
    torch.testing.assert_close(found.x_BTC, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("preset", "hidden"), [("paper", False), ("sound", True)])
def test_padding_notes_answer_only_in_the_reference(preset, hidden, store):
    model, batch = made(store, preset, "d4x")
    assert batch.padding_BN.any()
    with torch.no_grad():
        before = model.embed_midi(batch)
        batch.arrays["D4"] = batch.arrays["D4"].masked_fill(batch.padding_BN[..., None], 5.0)
        after = model.embed_midi(batch)
    assert torch.equal(before, after) is hidden


@pytest.mark.parametrize(("arm", "layers"), [("film-a4", 2), ("film-d4", 2)])
def test_film_scales_and_shifts_every_layer(arm, layers, store):
    model, batch = made(store, "paper", arm)
    mechanism = only(model)
    last = mechanism.generate[-1]
    nn.init.normal_(last.weight)
    nn.init.normal_(last.bias)
    if arm == "film-a4":
        c = batch.arrays["A4"].mean(dim=1)
    else:
        keep = (~batch.padding_BN)[..., None]
        c = (batch.arrays["D4"] * keep).sum(dim=1) / keep.sum(dim=1)
    out = last(torch.relu(mechanism.generate[0](c))).reshape(len(batch), layers, 2, -1)
    x = torch.randn(len(batch), 5, mechanism.host.width)
    for layer in range(layers):
        gamma, beta = out[:, layer, 0, None], out[:, layer, 1, None]
        found = mechanism.after_layer(x, layer, None, batch)
        torch.testing.assert_close(found, (1 + gamma) * x + beta, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arm", ["film-dual", "moe-dual", "a7-ab", "a7-pca", "t3-anc", "d1"])
@pytest.mark.parametrize("preset", ["paper", "sound"])
def test_these_mechanisms_start_as_the_identity(preset, arm, store):
    model, batch = made(store, preset, arm)
    base = build_model(run_config(preset, "d0")).eval()
    with torch.no_grad():
        for found, expected in zip(model(batch), base(batch), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arm", ["a4", "d4", "a4x", "d4x", "a4r", "d4r", "moe-a4-v2"])
def test_these_do_not(arm, store):
    model, batch = made(store, "paper", arm)
    base = build_model(run_config("paper", "d0")).eval()
    with torch.no_grad():
        same = [torch.allclose(a, b, atol=1e-3) for a, b in zip(model(batch), base(batch))]  # noqa: B905
    assert sorted(same) == [False, True]  # the other side's encoder has no mechanism


def test_a_factored_bias_is_the_dense_one():
    torch.manual_seed(0)
    attention = Attention(32, 4, 0.0)
    x = torch.randn(3, 10, 32)
    padding = torch.arange(10)[None] >= torch.tensor([10, 4, 1])[:, None]
    bias = ScoreBias(torch.randn(3, 4, 10, 16), torch.randn(3, 4, 10, 16))
    found = attention.within(x, padding, bias, None)
    q, k, v = attention.in_proj(x).chunk(3, dim=-1)
    q, k, v = (t.unflatten(-1, (4, 8)).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.mT / 8**0.5 + bias.left_BHTR @ bias.right_BHUR.mT
    scores = scores.masked_fill(padding[:, None, None], float("-inf"))
    expected = attention.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_attn_bias_is_its_formula(store):
    model, batch = made(store, "paper", "a7-ab")
    mechanism = only(model)
    nn.init.normal_(mechanism.forms_HRR)
    tokens = Tokens(x_BTC=torch.randn(6, 188, 128), time_BT=torch.zeros(1, 188))
    d = batch.arrays["A7"]
    phi, psi = F.gelu(mechanism.left(d)), F.gelu(mechanism.right(d))
    expected = 0.01 * torch.einsum("bir,hrs,bjs->bhij", phi, mechanism.forms_HRR, psi)
    torch.testing.assert_close(
        mechanism.score_bias(tokens, batch).dense(), expected, atol=1e-4, rtol=1e-4
    )


def test_experts_are_their_formula(store):
    model, batch = made(store, "paper", "moe-a4-v2")
    mechanism = only(model)
    x = torch.randn(len(batch), 5, mechanism.host.width)
    c = batch.arrays["A4"].mean(dim=1)[:, None].expand(-1, 5, -1)
    adapter = mechanism.adapters[1]
    w = adapter.router(torch.cat([x, c], dim=-1)).softmax(dim=-1)
    expected = x + sum(w[..., e, None] * adapter.experts[e](x) for e in range(2))
    torch.testing.assert_close(mechanism.after_layer(x, 1, None, batch), expected)


def test_load_balance_and_entropy_count_no_padding(store):
    model, batch = made(store, "paper", "moe-dual")
    mechanism = model.mechanisms["D4-moe"]
    object.__setattr__(mechanism, "options", type(mechanism.options)(entropy=0.01))
    probabilities = torch.rand(len(batch), batch.padding_BN.shape[1], 1)
    p = torch.cat([probabilities, 1 - probabilities], dim=-1)
    mechanism.routing = [(p, batch.padding_BN), (p * 0 + 0.5, batch.padding_BN)]
    terms = mechanism.auxiliary(batch, None, None, None)
    kept = p[~batch.padding_BN]
    mean = kept.mean(dim=0)
    expected = 0.01 * ((mean[0] - mean[1]) ** 2 + 0) / 2
    torch.testing.assert_close(terms["load_balance"], expected)
    entropy = -(kept * (kept + 1e-8).log()).sum(dim=-1).mean()
    torch.testing.assert_close(terms["routing_entropy"], 0.01 * (entropy + np.log(2)) / 2)


def test_noise_falls_over_the_epochs_and_is_for_training_alone(store):
    model, batch = made(store, "paper", "moe-a4-v2")
    mechanism = only(model)
    found = []
    for epoch in range(1, 6):
        model.begin_epoch(epoch, 5)
        found.append(mechanism.noise)
    np.testing.assert_allclose(found, [0.5 - 0.45 * e / 4 for e in range(5)])
    with torch.no_grad():
        assert torch.equal(model.embed_audio(batch), model.embed_audio(batch))
        model.train()
        x = torch.randn(len(batch), 5, 128)
        places = Tokens(x_BTC=x, time_BT=torch.zeros(1, 5))
        once = mechanism.after_layer(x, 0, places, batch)
        assert not torch.equal(once, mechanism.after_layer(x, 0, places, batch))


def test_a_hard_gate_lets_one_expert_answer_and_gradients_through(store):
    model, batch = made(store, "paper", "moe-a4-v4")
    mechanism = only(model)
    adapter = mechanism.adapters[0]
    x = torch.randn(len(batch), 5, 128)
    c = mechanism.pooled(batch)
    added, p = adapter(x, c, 0.0)
    best = p.argmax(dim=-1)
    expected = torch.stack([e(x) for e in adapter.experts], dim=-1).gather(
        -1, best[..., None, None].expand(*x.shape, 1)
    )[..., 0]
    torch.testing.assert_close(added, expected)
    added.sum().backward()
    assert float(adapter.router[0].weight.grad.abs().max()) > 0


def test_terms_of_one_name_average_and_others_add(store):
    model, batch = made(store, "paper", "moe-dual", **STILL)
    model.train()
    model.mechanisms["A4-moe"].auxiliary = lambda *_: {"load_balance": torch.tensor(4.0)}
    model.mechanisms["D4-moe"].auxiliary = lambda *_: {
        "load_balance": torch.tensor(2.0), "other": torch.tensor(7.0)
    }  # fmt: skip
    loss, parts = model.training_step(batch)
    torch.testing.assert_close(loss.detach(), parts["pair"] + 3.0 + 7.0)


@pytest.mark.parametrize(
    ("arm", "pair", "third"),
    [("t3-tri", 1 / 3, 1 / 3), ("t3-anc", 0, 0.5), ("t3-wt", 1, 0.15), ("d1", 1, 0.05)],
)
def test_a_third_view_is_weighed_as_declared(arm, pair, third, store):
    model = build_model(run_config("paper", arm, **STILL))
    batch = batch_of(store, model)
    mechanism = next(m for m in model.every_mechanism() if m.slot in ("loss", "view"))
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for module in mechanism.modules():
        if isinstance(module, Attention):
            module.dropout = 0.0
    loss, _ = model.training_step(batch)
    audio, midi = model(batch)
    if arm == "d1":
        r = mechanism.project(mechanism.encode(batch.arrays["D1"]))
    else:
        r = mechanism.embed(batch)
    v = model.loss
    expected = pair * v(audio, midi)[0] + third * (v(audio, r)[0] + v(midi, r)[0])
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_the_third_tower_is_for_training_alone(store):
    with_tower, batch = made(store, "paper", "t3-wt")
    without = build_model(run_config("paper", "d4a4")).eval()
    without.load_state_dict(
        {k: v for k, v in with_tower.state_dict().items() if k in without.state_dict()}
    )
    with torch.no_grad():
        for a, b in zip(with_tower(batch), without(batch), strict=True):
            assert torch.equal(a, b)


# ---- heads


def test_a_copied_head_has_the_heads_weights_and_freezes_it(store):
    model, batch = made(store, "paper", "a7-pca")
    mechanism = only(model)
    copied, own = mechanism.copied, model.audio_head
    assert not any(p.requires_grad for p in own.parameters())
    assert all(p.requires_grad for p in copied.parameters())
    for name, value in own.state_dict().items():
        assert torch.equal(copied.state_dict()[name], value)
    with torch.no_grad():
        for p in own.parameters():
            p.add_(1.0)
        before = model.embed_audio(batch)
        model.adopt_heads()
        assert not torch.equal(before, model.embed_audio(batch))
    for name, value in own.state_dict().items():
        assert torch.equal(copied.state_dict()[name], value)


@pytest.mark.parametrize("preset", ["paper", "sound"])
def test_film_in_the_head_is_its_formula(preset, store):
    model, batch = made(store, preset, "a4r-pcm")
    mechanism = model.mechanisms["D4-film_head"]
    for generator in mechanism.generators:
        nn.init.normal_(generator[-1].weight, std=0.1)
    head = mechanism.copied
    hidden = model.midi(batch).reshape(len(batch) * head.slots, -1)
    c = mechanism.pooled(batch).repeat_interleave(head.slots, dim=0)
    layers = head.hidden or [nn.Identity()]
    for layer, generator in zip(layers, mechanism.generators, strict=True):
        gamma, beta = generator(c).chunk(2, dim=-1)
        hidden = (1 + gamma) * layer(hidden) + beta
    expected = head.output(hidden).reshape(len(batch), -1)
    torch.testing.assert_close(model.embed_midi(batch), expected, atol=1e-5, rtol=1e-5)


# ---- what is given


def test_cm_gives_the_answer_away_and_exists_under_paper_alone(store):
    with pytest.raises(ConfigError, match="no retrieval score"):
        with_pairs(preset_config("sound", "tiny"), ARMS["d4a4cm"])
    model, batch = made(store, "paper", "d4a4cm")
    assert all(m.leaks for m in model.every_mechanism())
    with torch.no_grad():
        before = model.embed_audio(batch)
        batch.arrays["D4"] = batch.arrays["D4"].flip(0)
        assert not torch.allclose(before, model.embed_audio(batch))


@pytest.mark.parametrize("arm", ["film-a4", "moe-a4"])
def test_the_reference_gives_pooled_mechanisms_a_constant(arm, store):
    """A4 is z-scored over time (method §9.3): ``sound`` gives its level instead."""
    paper, batch = made(store, "paper", arm)
    batch.arrays["A4"] -= batch.arrays["A4"].mean(dim=1, keepdim=True)
    assert constant_inputs(paper, batch)
    sound, batch = made(store, "sound", arm)
    assert "A4_level" in sound.reads()
    assert "A4" not in sound.reads()
    assert not constant_inputs(sound, batch)


@pytest.mark.parametrize("mechanism", ["concat", "xattn", "reverse_xattn", "film", "attn_bias"])
def test_a_contour_on_frames_enters_the_notes_side(mechanism, store):
    """Nobody has named these arms."""
    config = with_pairs(run_config("sound", "d0"), [("D5", mechanism)])
    model = build_model(config)
    batch = batch_of(store, model)
    loss, _ = model.train().training_step(batch)
    loss.backward()
    base = build_model(run_config("sound", "d0")).eval()
    with torch.no_grad():
        own = model.eval()(batch)
        assert torch.allclose(own[0], base(batch)[0], atol=1e-6)
    assert torch.isfinite(loss)


def test_values_at_notes_are_refused_where_the_sequence_moved_to_frames():
    sound = preset_config("sound", "tiny")
    with pytest.raises(ConfigError, match="no values"):
        with_pairs(sound, [("D5", "reverse_xattn"), ("D4", "attn_bias")])
    with_pairs(sound, [("D4", "reverse_xattn"), ("D4", "attn_bias")])
