"""Audio front ends: from samples or a cached spectrogram to tokens.

A front end says which of the store's arrays it ``reads`` (``audio`` is the sample axis), so that a
run keeps nothing resident that it does not use.

Shape suffixes: B batch, S samples, F frames, M mel bands, T tokens, C channels.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.base.errors import ConfigError
from pipeline.base.registry import Registry
from trainer.batch import Batch, Tokens, frame_times, grid_times
from trainer.encoders.variation import other_recorder


class Frontend(nn.Module):
    """Base: ``Frontend(width, options)`` → :class:`Tokens` of ``width`` channels.

    ``frozen`` front ends are never trained: no gradients, always in evaluation mode.
    """

    Options: ClassVar[type]
    reads: ClassVar[tuple[str, ...]]
    frozen: ClassVar[bool] = False

    def __init__(self, width: int, options: Any) -> None:
        super().__init__()


FRONTENDS: Registry[type[Frontend]] = Registry("audio front end")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WaveOptions:
    """One row [channels, kernel, stride, padding] per convolution; groups of each GroupNorm."""

    layers: tuple[tuple[int, ...], ...]
    groups: int


@FRONTENDS.register("wave")
class Wave(Frontend):
    """Four convolutions over the samples, each followed by GroupNorm and exact GELU (method §4.1).

    At base: 40 samples a token, 2,400 tokens, a receptive field of 3.3 ms.
    """

    Options = WaveOptions
    reads = ("audio",)

    def __init__(self, width: int, options: WaveOptions) -> None:
        super().__init__(width, options)
        if options.layers[-1][0] != width:
            raise ConfigError(
                f"the last convolution has {options.layers[-1][0]} channels, the Transformer {width}"
            )
        blocks: list[nn.Module] = []
        inputs = 1
        for channels, kernel, stride, padding in options.layers:
            convolution = nn.Conv1d(inputs, channels, kernel, stride=stride, padding=padding)
            blocks += [convolution, nn.GroupNorm(options.groups, channels), nn.GELU()]
            inputs = channels
        self.blocks = nn.Sequential(*blocks)

    def forward(self, batch: Batch) -> Tokens:
        """Samples of the batch → tokens on an even time grid."""
        assert batch.audio_BS is not None, "the batch was made without audio"
        x_BTC = self.convolve(batch.audio_BS)
        return Tokens(x_BTC=x_BTC, time_BT=grid_times(x_BTC.shape[1], x_BTC))

    def convolve(self, audio_BS: Tensor) -> Tensor:
        """``[B, S]`` → ``[B, T, C]``."""
        x_BCT: Tensor = self.blocks(audio_BS[:, None])
        return x_BCT.transpose(1, 2)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WaveFrozenOptions(WaveOptions):
    """``precision``: of the convolutions, the ``run``'s own or always ``bf16``."""

    precision: Literal["run", "bf16"] = "run"


@FRONTENDS.register("wave-frozen")
class WaveFrozen(Wave):
    """The same, random and never trained, as in every run of the reference (§9.1).

    Nothing is learnt through it, so it may run in fewer bits than the rest.
    """

    Options = WaveFrozenOptions
    frozen = True

    def __init__(self, width: int, options: WaveFrozenOptions) -> None:
        super().__init__(width, options)
        self.low = options.precision == "bf16"
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tokens:
        """Without gradients."""
        if batch.tokens_BTC is not None:
            x_BTC = batch.tokens_BTC
            return Tokens(x_BTC=x_BTC, time_BT=grid_times(x_BTC.shape[1], x_BTC))
        assert batch.audio_BS is not None, "the batch was made without audio"
        device = batch.audio_BS.device.type
        if not self.low or device == "meta":
            return super().forward(batch)
        with torch.autocast(device, torch.bfloat16):
            tokens = super().forward(batch)
        return tokens.replace(tokens.x_BTC.float())

    def convolve(self, audio_BS: Tensor) -> Tensor:
        """On a CPU segment by segment: what lies between convolutions then stays in its caches."""
        if audio_BS.device.type != "cpu":
            return super().convolve(audio_BS)
        return torch.cat([super(WaveFrozen, self).convolve(one_1S) for one_1S in audio_BS.split(1)])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MelOptions:
    """Strides and kernel of the convolutions; the input minus ``mean``, divided by ``std``.

    The two are constants near the mean and standard deviation of log-mel values of piano recordings,
    so that the first layer sees values of order one. They are no statistics of a batch (an embedding
    never depends on its batch mates), nor of the segment: taking each band's mean away was tried and
    costs about half the score, since a sustained note is then nearly gone.

    With ``level_db``, ``colour_db`` or ``noise``, every segment of a training batch is heard through a
    recorder of its own (:func:`~trainer.encoders.variation.other_recorder` says what the three mean).
    """

    strides: tuple[int, ...]
    bands: int = 96
    kernel: int = 5
    mean: float = 0.2
    std: float = 0.4
    level_db: float = 0.0
    colour_db: float = 0.0
    noise: float = 0.0


@FRONTENDS.register("mel")
class MelConvolution(Frontend):
    """Strided convolutions over the cached log-mel spectrogram, then LayerNorm."""

    Options = MelOptions
    reads = ("mel",)

    def __init__(self, width: int, options: MelOptions) -> None:
        super().__init__(width, options)
        self.varied = any((options.level_db, options.colour_db, options.noise))
        self.mean, self.std = options.mean, options.std
        self.options = options
        self.stride = math.prod(options.strides)
        inputs = [options.bands] + [width] * (len(options.strides) - 1)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(n, width, options.kernel, stride=stride, padding=options.kernel // 2)
            for n, stride in zip(inputs, options.strides, strict=True)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, batch: Batch) -> Tokens:
        """``mel`` of the batch ``[B, 188, 96]`` → a token at every ``stride``-th frame."""
        mel_BFM, o = batch.arrays["mel"], self.options
        if self.training and self.varied:
            mel_BFM = other_recorder(mel_BFM, o.level_db, o.colour_db, o.noise)
        x_BCT = ((mel_BFM - self.mean) / self.std).transpose(1, 2)
        for convolution in self.convolutions:
            x_BCT = F.gelu(convolution(x_BCT))
        x_BTC: Tensor = self.norm(x_BCT.transpose(1, 2))
        return Tokens(x_BTC=x_BTC, time_BT=frame_times(x_BTC.shape[1], x_BTC, self.stride))
