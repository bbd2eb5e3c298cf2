"""One batch of segments as tensors, and the token sequence that runs through an encoder.

Shape suffixes: B segments, S samples, N notes (padded), T tokens, C channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.spectral import FRAME_S


def alone(rows: Tensor) -> Tensor:
    """The rows of all processes, where there is one process."""
    return rows


@dataclasses.dataclass(slots=True, kw_only=True)
class Batch:
    """Segments side by side.

    Attributes
    ----------
    segments_B : int64, row numbers in the store (for messages and joins)
    audio_BS : float32 in [-1, 1), 24 kHz mono, or None when no part of the model reads it
    pitch_BN, velocity_BN, duration_bucket_BN : int64; 0 in padding
    onset_BN : float32 seconds from the segment's start, negative when already sounding; -1 in padding
    duration_BN : float32 seconds; 0 in padding
    padding_BN : bool, **True = padding**
    arrays : the store's arrays by name, float32: ``[B, 188, K]``, ``[B, K]`` or, per note,
        ``[B, N, K]`` with zeros in padding
    tokens_BTC : what a frozen front end made of the sound, where that was kept
    gather : puts the rows of all processes that share a training step together, in order, with
        gradients; the identity in one process
    """

    segments_B: Tensor
    audio_BS: Tensor | None
    pitch_BN: Tensor
    velocity_BN: Tensor
    duration_bucket_BN: Tensor
    onset_BN: Tensor
    duration_BN: Tensor
    padding_BN: Tensor
    arrays: dict[str, Tensor]
    tokens_BTC: Tensor | None = None
    gather: Callable[[Tensor], Tensor] = alone

    def __len__(self) -> int:
        return len(self.segments_B)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device (asynchronously from pinned memory)."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        moved = {k: move(v) for k, v in values.items() if isinstance(v, Tensor)}
        arrays = {k: move(v) for k, v in self.arrays.items()}
        return Batch(**{**values, **moved, "arrays": arrays})


@dataclasses.dataclass(slots=True, kw_only=True)
class Tokens:
    """A sequence inside an encoder: values, where they are in time, which of them are padding.

    Attributes
    ----------
    x_BTC : float32
    time_BT : seconds from the segment's start; ``[1, T]`` where all items share a grid
    padding_BT : bool, True = padding, or None when every token counts
    """

    x_BTC: Tensor
    time_BT: Tensor
    padding_BT: Tensor | None = None

    def replace(self, x_BTC: Tensor) -> Tokens:
        """The same places with other values."""
        return Tokens(x_BTC=x_BTC, time_BT=self.time_BT, padding_BT=self.padding_BT)


def grid_times(n_tokens: int, like: Tensor, seconds: float = 4.0) -> Tensor:
    """Centres of ``n_tokens`` equal parts of the segment: float32 [1, T] on ``like``'s device."""
    index_T = torch.arange(n_tokens, device=like.device, dtype=torch.float32)
    return ((index_T + 0.5) * (seconds / n_tokens))[None]


def frame_times(n_tokens: int, like: Tensor, stride: int = 1) -> Tensor:
    """Centres of every ``stride``-th STFT frame: float32 [1, T]; frame t is centred on t x 21.3 ms."""
    index_T = torch.arange(n_tokens, device=like.device, dtype=torch.float32)
    return (index_T * (stride * FRAME_S))[None]
