"""The log-mel spectrogram on the device, for stores that do not hold it.

The definition is the descriptor's (:mod:`pipeline.descriptors.mel`), filters and all; only the
transform is torch's. The result is rounded to float16, as a store's array is.

Shape suffixes: B batch, S samples, K bins, F frames, M mel bands.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from pipeline.descriptors.mel import Mel, filter_bank
from pipeline.stft import HOP_LENGTH, N_FFT


@torch.no_grad()
def log_mel(audio_BS: Tensor) -> Tensor:
    """float32 ``[B, 188, 96]`` from 24 kHz samples in [-1, 1)."""
    window, bank_MK = _constants(audio_BS.device)
    spectrum_BKF = torch.stft(
        audio_BS,
        N_FFT,
        HOP_LENGTH,
        window=window,
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    energy_BMF = bank_MK @ spectrum_BKF.abs()
    return torch.log1p(Mel.config.gain * energy_BMF).mT.half().float()


@cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(N_FFT, periodic=True, dtype=torch.float64)
    bank_MK = torch.from_numpy(filter_bank(Mel.config))
    return window.float().to(device), bank_MK.float().to(device)
