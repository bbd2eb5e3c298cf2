"""Variation of what an encoder sees in training: recorders, touch, clocks. Nothing in evaluation.

A corpus has few instruments, rooms and microphones, and a model leans on whatever they have in common.
In training each segment is therefore heard through a recorder of its own, drawn anew at every step:
its level, its colour (a smooth curve over the bands), its noise. Notes are struck harder or softer as
a whole, and come a little early or late: files that are called aligned may be tens of milliseconds
apart, which a fine pool takes for other music. Descriptors are read from the store and do not vary:
beside a varied encoder they are the surer channel, which may favour arms that have them. Draws come
from torch's generator, which every step seeds (:func:`trainer.fit.seed_step`).

Shape suffixes: B batch, F frames, M mel bands, N notes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.descriptors.mel import Mel

CURVES = 4  # cosines over the bands, the first of half a period


def other_recorder(mel_BFM: Tensor, level_db: float, colour_db: float, noise: float) -> Tensor:
    """Log-mel values as another recorder would give them.

    Parameters
    ----------
    level_db : the level changes by up to that much, either way
    colour_db : standard deviation of each of the colour's cosines
    noise : the loudest noise's RMS relative to the segment's; the softest is 40 dB below; 0: none
    """
    gain = Mel.config.gain
    energy_BFM = torch.expm1(mel_BFM) / gain
    bands = mel_BFM.shape[2]
    place_M = (torch.arange(bands, device=mel_BFM.device) + 0.5) / bands
    order_K = torch.arange(1, CURVES + 1, device=mel_BFM.device)
    curve_KM = torch.cos(math.pi * order_K[:, None] * place_M)
    weight_BK = colour_db * torch.randn_like(mel_BFM[:, 0, :CURVES])
    level_B1 = level_db * (2 * torch.rand_like(mel_BFM[:, 0, :1]) - 1)
    db_BM = level_B1 + weight_BK @ curve_KM
    energy_BFM = energy_BFM * (10 ** (db_BM / 20))[:, None]
    rms_B11 = energy_BFM.square().mean(dim=(1, 2), keepdim=True).sqrt()
    share_B11 = noise * 10 ** (-2 * torch.rand_like(rms_B11))
    noise_BFM = rms_B11 * share_B11 * torch.randn_like(mel_BFM)
    return torch.log1p(gain * (energy_BFM.square() + noise_BFM.square()).sqrt())


def other_touch(velocity_BN: Tensor, factor: float) -> Tensor:
    """Velocities of every segment times a factor between ``1 / factor`` and ``factor``; 0 stays."""
    exponent_B1 = 2 * torch.rand(len(velocity_BN), 1, device=velocity_BN.device) - 1
    struck = (velocity_BN * factor**exponent_B1).round().clamp(1, 127).to(velocity_BN.dtype)
    return torch.where(velocity_BN > 0, struck, velocity_BN)


def other_clock(onset_BN: Tensor, most_s: float) -> Tensor:
    """Onsets of every segment, moved together by up to ``most_s`` seconds, either way."""
    return onset_BN + most_s * (2 * torch.rand_like(onset_BN[:, :1]) - 1)
