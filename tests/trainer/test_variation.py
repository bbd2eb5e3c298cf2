"""What training varies: recorders, touch and clocks; in evaluation nothing changes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from trainer_fakes import unvaried

from pipeline.base.errors import ConfigError
from pipeline.descriptors.mel import Mel
from trainer.batch import Batch
from trainer.encoders.variation import other_clock, other_recorder, other_touch
from trainer.model import build_model

GAIN = Mel.config.gain


def segments(count: int = 64) -> torch.Tensor:
    """Log-mel values of bands that sound now and then."""
    torch.manual_seed(1)
    return torch.log1p(GAIN * torch.rand(count, 188, 96).pow(8))


def rms(mel: torch.Tensor) -> torch.Tensor:
    return (torch.expm1(mel) / GAIN).square().mean(dim=(1, 2)).sqrt()


def test_the_level_changes_by_what_is_said():
    mel = segments()
    torch.manual_seed(0)
    change = 20 * torch.log10(rms(other_recorder(mel, 12.0, 0.0, 0.0)) / rms(mel))
    assert change.abs().max() <= 12.01
    assert change.std() > 4
    torch.testing.assert_close(other_recorder(mel, 0.0, 0.0, 0.0), mel, atol=1e-5, rtol=1e-5)


def test_colour_is_a_smooth_curve_over_the_bands_and_the_same_at_all_times():
    mel = torch.log1p(torch.expm1(segments()) + 1.0)  # nothing so soft that rounding is heard
    torch.manual_seed(0)
    heard = torch.expm1(other_recorder(mel, 0.0, 4.0, 0.0)) / torch.expm1(mel)
    db = 20 * torch.log10(heard)
    torch.testing.assert_close(db[:, 0], db[:, 100], atol=1e-2, rtol=0)
    curve = db[:, 50]
    assert (curve[:, 1:] - curve[:, :-1]).abs().max() < 3
    assert 2 < curve.std(dim=1).mean() < 10


def test_noise_is_that_much_below_the_segment():
    silent_bands = segments()
    silent_bands[:, :, 48:] = 0
    torch.manual_seed(0)
    noisy = other_recorder(silent_bands, 0.0, 0.0, 0.316)
    noise = (torch.expm1(noisy[:, :, 48:]) / GAIN).square().mean(dim=(1, 2)).sqrt()
    db = 20 * torch.log10(noise / rms(silent_bands))
    assert -50.5 < db.min() < -40
    assert -16 < db.max() < -9.5


def test_touch_is_one_factor_a_segment():
    velocity = torch.tensor([[10, 40, 80, 0], [60, 60, 120, 127]]).repeat(50, 1)
    torch.manual_seed(0)
    changed = other_touch(velocity, 1.5)
    assert changed.dtype == velocity.dtype
    assert (changed[velocity == 0] == 0).all()
    assert changed.max() <= 127
    assert changed[velocity > 0].min() >= 1
    factor = (changed / velocity)[:, 1]
    assert 0.65 < factor.min() < 0.75
    assert 1.35 < factor.max() < 1.53
    torch.testing.assert_close((changed / velocity)[::2, 2], factor[::2], atol=0.02, rtol=0)


def test_a_clock_moves_all_notes_of_a_segment_alike():
    onset = torch.tensor([[-0.5, 0.25, 3.0], [0.0, 1.0, -1.0]]).repeat(100, 1)
    torch.manual_seed(0)
    moved = other_clock(onset, 0.06) - onset
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), atol=1e-6, rtol=0)
    assert -0.06 <= moved.min() < -0.055
    assert 0.055 < moved.max() <= 0.06
    assert moved[:, 0].unique().numel() > 150


@pytest.mark.parametrize(
    ("setting", "side"),
    [
        ({"touch": 1.5}, 1),
        ({"clock_s": 0.06}, 1),
        ({"noise": 0.2}, 0),
        ({"level_db": 6.0}, 0),
        ({"colour_db": 6.0}, 0),
    ],
)
def test_each_variation_reaches_its_own_encoder(make_config, store, setting, side):
    from trainer.cache import ResidentStore

    varied = unvaried("sound")
    part = varied["midi"] if side else varied["audio"]["frontend"]["options"]
    part.update(setting)
    config = make_config("sound", "d0", **varied)
    batch = ResidentStore(store, "train", ["mel"]).batch([0, 1, 2])
    model = build_model(config).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    first, second = model(batch), model(batch)
    assert (first[side] - second[side]).abs().max() > 1e-4
    torch.testing.assert_close(first[1 - side], second[1 - side])


VARIED = {
    "audio": {"frontend": {"options": {"level_db": 12.0, "colour_db": 4.0, "noise": 0.18}}},
    "midi": {"touch": 1.5, "clock_s": 0.06},
}


def test_training_varies_and_evaluation_does_not(make_config, store):
    from trainer.cache import ResidentStore

    resident = ResidentStore(store, "train", ["mel"])
    batch: Batch = resident.batch([0, 1, 2])
    plain = build_model(make_config("sound", "d0"))
    varied = build_model(make_config("sound", "d0", **VARIED))
    for model in (plain, varied):
        model.eval()
    torch.testing.assert_close(plain(batch), varied(batch))
    varied.audio.train()
    varied.midi.train()
    for module in varied.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    torch.manual_seed(0)
    first = varied(batch)
    second = varied(batch)
    for one, other, kept in zip(first, second, plain(batch), strict=True):
        assert (one - other).abs().max() > 1e-4
        assert (one - kept).abs().max() > 1e-4
    torch.manual_seed(0)
    torch.testing.assert_close(varied(batch), first)


@pytest.mark.parametrize(("name", "value"), [("touch", 0.5), ("clock_s", -0.1)])
def test_variations_that_mean_nothing_are_refused(make_config, name, value):
    config = make_config("sound", "d0")
    wrong = dataclasses.replace(config, midi=dataclasses.replace(config.midi, **{name: value}))
    with pytest.raises(ConfigError, match=rf"midi\.{name}"):
        build_model(wrong)
