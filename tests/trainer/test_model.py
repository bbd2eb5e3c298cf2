"""Parameter counts, the reference's oddities, and that one batch runs through every arm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.base.errors import ConfigError
from trainer.arms import ARMS, FAMILIES, SCREENING, arm_name
from trainer.cache import ResidentStore
from trainer.config import TransformerConfig
from trainer.encoders.transformer import Transformer
from trainer.model import build_model, parameter_inventory
from trainer.optim import build_optimizer, check_inventory
from trainer.presets import preset_config
from trainer.resolve import with_pairs

# method §4.4: total and trainable under run-d
COUNTS = {
    "d0": (74_194_432, 64_891_904),
    "d4": (74_460_160, 65_157_632),
    "a4": (75_254_272, 65_951_744),
    "a4x": (78_404_096, 69_101_568),
    "a4r": (78_608_896, 69_306_368),
    "d4x": (75_248_640, 65_946_112),
    "d4r": (75_248_640, 65_946_112),
    "d4a4": (75_520_000, 66_217_472),
    "d4-a4r": (78_874_624, 69_572_096),
    "d4a4r": (79_663_104, 70_360_576),
    "d4a4cm": (75_517_952, 66_215_424),
}
TRAINABLE = {
    "t3-tri": 67_933_440,
    "t3-wt": 67_933_440,
    "t3-anc": 66_607_872,
    "film-a4": 65_949_824,
    "film-d4": 65_420_928,
    "film-dual": 66_478_848,
    "moe-a4": 69_361_416,
    "moe-a4-v2": 69_361_416,
    "moe-a4-v3": 69_361_416,
    "moe-a4-v4": 69_361_416,
    "moe-dual": 70_547_984,
    # logged by the author for later arms
    "a7r": 69_310_464,
    "a9r": 69_310_464,
    "a10a": 65_955_840,
    "a7-pca": 65_026_688,
    "a7-ab": 64_894_369,
}
# method §3: what the arm adds to d0
ADDED = {
    "a7": 1_063_936,
    "a8": 1_063_936,
    "a9": 1_063_936,
    "a7x": 4_213_760,
    "d1": 58_944,
    "d2": 231_808,
    "d3": 62_144,
}
PRESETS = ["paper", "sound"]
CASES = [(p, arm) for p in PRESETS for arm in ARMS if p == "paper" or "cm" not in arm]


@pytest.mark.parametrize("arm", [*COUNTS, *TRAINABLE, *ADDED])
def test_parameter_counts_at_base(arm, make_config):
    model = build_model(make_config("paper", arm, size="base"), "meta")
    assert all(p.device.type == "meta" for p in model.parameters())
    total = parameter_inventory(model)[-1]
    base_total, base_trainable = COUNTS["d0"]
    if arm in COUNTS:
        assert (total.total, total.trainable) == COUNTS[arm]
    elif arm in TRAINABLE:
        assert total.trainable == TRAINABLE[arm]
    else:
        assert total.total - base_total == total.trainable - base_trainable == ADDED[arm]


def test_every_arm_of_the_paper_has_a_known_count():
    assert len(SCREENING) == 13
    assert len(FAMILIES) == 11
    assert {*SCREENING, *FAMILIES} <= {*COUNTS, *TRAINABLE, *ADDED}


def test_run_b_freezes_two_more_layers(make_config):
    model = build_model(make_config("paper", "d0", size="base", freeze="run-b"), "meta")
    assert parameter_inventory(model)[-1].trainable == 39_699_456


@pytest.mark.parametrize(("preset", "arm"), CASES)
def test_training_moves_what_is_not_frozen(preset, arm, make_config, store):
    config = make_config(preset, arm)
    model = build_model(config)
    resident = ResidentStore(store, "train", model.reads(), segments=config.segments)
    optimizer = build_optimizer(model, config.optimizer)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.train()
    for _ in range(2):  # below layers that start at zero, parameters move at the second step
        loss, parts = model.training_step(resident.batch(np.arange(8)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
        assert parts
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name


@pytest.mark.parametrize(("preset", "arm"), CASES)
def test_padding_does_not_leak_but_where_the_reference_lets_it(preset, arm, make_config, store):
    model = build_model(make_config(preset, arm)).eval()
    resident = ResidentStore(
        store, "train", model.reads(), segments="valid", note_padding="longest"
    )
    order = np.argsort(resident._count_np)
    short, long = order[:2], order[-2:]
    with torch.no_grad():
        alone = model(resident.batch(short))
        together = model(resident.batch(np.concatenate([short, long])))
    difference = max(float((a - b[:2]).abs().max()) for a, b in zip(alone, together, strict=True))
    over_notes = {"reverse_xattn", "xattn", "cm"}
    leaks = preset == "paper" and any(
        p.mechanism in over_notes and (p.descriptor == "D4" or p.mechanism == "cm")
        for p in ARMS[arm]
    )
    if leaks:
        assert difference > 1e-4
    else:
        assert difference < 1e-6 * max(1.0, float(alone[1].abs().max()))


def test_all_padding_stays_finite(make_config, store):
    model = build_model(make_config("sound", "d4r")).train()
    resident = ResidentStore(store, "train", model.reads())
    batch = resident.batch([0, 1, 2])
    batch.padding_BN[1] = True
    loss, _ = model.training_step(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(("preset", "same"), [("paper", True), ("sound", False)])
def test_layers_start_identical_in_the_reference(preset, same, make_config):
    model = build_model(make_config(preset, "d0"))
    for encoder in (model.audio, model.midi):
        first, second = encoder.transformer.layers[:2]
        assert torch.equal(first.linear1.weight, second.linear1.weight) is same
        assert torch.equal(first.attention.in_proj.weight, second.attention.in_proj.weight) is same


@pytest.mark.parametrize(("preset", "sees_time"), [("paper", False), ("sound", True)])
def test_the_reference_sees_no_onset_times(preset, sees_time, make_config, store):
    model = build_model(make_config(preset, "d0")).eval()
    resident = ResidentStore(store, "train", model.reads())
    batch = resident.batch(np.arange(4))
    with torch.no_grad():
        before = model.embed_midi(batch)
        batch.onset_BN += 0.3
        after = model.embed_midi(batch)
    assert torch.equal(before, after) is not sees_time


def test_the_paper_front_end_is_frozen_and_sounds_is_not(make_config):
    paper, sound = (build_model(make_config(p, "d0")) for p in PRESETS)
    assert not any(p.requires_grad for p in paper.audio.frontend.parameters())
    assert all(p.requires_grad for p in sound.audio.frontend.parameters())
    paper.train()
    assert not paper.audio.frontend.training


def test_arms_of_one_seed_share_base_weights(make_config):
    base = build_model(make_config("sound", "d0")).state_dict()
    arm = build_model(make_config("sound", "d4a4r")).state_dict()
    other = build_model(make_config("sound", "d0", seed=7)).state_dict()
    assert all(torch.equal(arm[name], value) for name, value in base.items())
    assert not all(torch.equal(other[name], value) for name, value in base.items())


def test_building_leaves_the_random_state_alone(make_config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model(make_config("sound", "d0"))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_equals_torchs_own_encoder(norm):
    config = TransformerConfig(
        width=32, heads=4, ffn=64, layers=2, norm=norm, output_norm=False, dropout=0.0,
        ffn_dropout=0.0, attention_dropout=0.0, layer_init="independent",
    )  # fmt: skip
    ours = Transformer(config).eval()
    layer = nn.TransformerEncoderLayer(
        32, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm == "pre"
    )
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train()
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        other.self_attn.in_proj_weight.data = mine.attention.in_proj.weight.data
        other.self_attn.in_proj_bias.data = mine.attention.in_proj.bias.data
        other.self_attn.out_proj.load_state_dict(mine.attention.out_proj.state_dict())
        for name in ("linear1", "linear2", "norm1", "norm2"):
            getattr(other, name).load_state_dict(getattr(mine, name).state_dict())
    x = torch.randn(3, 10, 32)
    padding = torch.arange(10)[None] >= torch.tensor([10, 4, 1])[:, None]
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    got = ours(x, padding)
    expected = theirs(x, src_key_padding_mask=padding)
    torch.testing.assert_close(got[~padding], expected[~padding], atol=1e-5, rtol=1e-5)
    fixed = ours(x, padding, after_layer=lambda h, i: h)  # not packed
    torch.testing.assert_close(got[~padding], fixed[~padding], atol=1e-5, rtol=1e-5)


def test_initial_attention_is_distributed_like_torchs():
    config = TransformerConfig(
        width=64, heads=4, ffn=256, layers=1, norm="post", output_norm=False, dropout=0.0,
        ffn_dropout=0.0, attention_dropout=0.0, layer_init="identical",
    )  # fmt: skip
    ours = Transformer(config).layers[0]
    bound = (6 / (64 + 3 * 64)) ** 0.5  # Xavier over the packed [3C, C] matrix
    weight = ours.attention.in_proj.weight
    assert 0.98 * bound < float(weight.detach().abs().max()) <= bound
    assert not ours.attention.in_proj.bias.any()
    assert not ours.attention.out_proj.bias.any()
    default = 64**-0.5  # Linear: Kaiming-uniform, a = √5
    assert 0.95 * default < float(ours.attention.out_proj.weight.detach().abs().max()) <= default


@pytest.mark.parametrize(
    ("pairs", "word"),
    [
        ([("A4", "concat"), ("A4", "concat")], "tokens slot"),
        ([("nothing", "concat")], "unknown descriptor"),
        ([("A4", "nothing")], "unknown mechanism"),
        ([("mel", "concat")], "front end"),
    ],
)
def test_impossible_combinations_are_refused(pairs, word):
    with pytest.raises(ConfigError, match=word) as caught:
        with_pairs(preset_config("sound", "tiny"), pairs)
    assert "\n" not in str(caught.value)


def test_order_of_pairs_does_not_matter(make_config):
    one = with_pairs(preset_config("paper", "tiny"), [("D4", "concat"), ("A4", "concat")])
    two = with_pairs(preset_config("paper", "tiny"), [("A4", "concat"), ("D4", "concat")])
    assert one == two
    assert arm_name(one.pairs) == "d4a4"


def test_inventory_finds_a_forgotten_a_double_and_a_frozen_parameter(make_config):
    model = build_model(make_config("paper", "a4"))
    groups = build_optimizer(model, model.config.optimizer).param_groups
    check_inventory(model, groups)
    with pytest.raises(ConfigError, match="in no optimizer group"):
        check_inventory(model, groups[:-1])
    with pytest.raises(ConfigError, match="in optimizer groups"):
        check_inventory(model, [*groups, groups[-1]])
    groups[-1]["params"][0].requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        check_inventory(model, groups)


def test_learning_rates_follow_from_module_paths(make_config):
    model = build_model(make_config("paper", "d4a4", size="base"), "meta")
    rates = {}
    for group in build_optimizer(model, model.config.optimizer).param_groups:
        assert group["weight_decay"] == 1e-4
        rates |= dict.fromkeys(group["names"], group["lr"])
    assert rates["audio.transformer.layers.1.norm1.weight"] == 5e-6
    assert rates["audio.transformer.layers.2.linear1.weight"] == 1e-5
    assert rates["midi.notes.pitch.weight"] == 5e-5
    assert rates["audio_head.output.bias"] == 1e-4
    assert rates["mechanisms.A4-concat.norm.weight"] == 5e-4


def test_a_pooled_constant_is_refused_but_under_paper(make_config):
    from trainer.mechanisms import MECHANISMS
    from trainer.mechanisms.concat import Concat

    class Pooling(Concat):
        pools = True

    MECHANISMS._items["pooling-test"] = Pooling
    try:
        sound = make_config("sound", "d0", mechanisms={"pooled": "mean"})
        with pytest.raises(ConfigError, match="constant by construction"):
            with_pairs(sound, [("A4", "pooling-test")])
        with_pairs(make_config("paper", "d0"), [("A4", "pooling-test")])
    finally:
        del MECHANISMS._items["pooling-test"]
