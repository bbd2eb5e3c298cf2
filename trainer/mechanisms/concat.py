"""concat: ``x ← LayerNorm(Linear([x ; d]))`` before positions are added (method §3).

On audio, a per-frame descriptor is brought to the tokens' rate: by linear interpolation
(``align_corners=False``) where there are at least as many tokens as frames, as in the reference, and
by averaging the frames of a token where there are fewer (interpolation would drop most frames). On
MIDI, a per-note descriptor meets its notes one to one. A per-segment descriptor is repeated.
No residual, no activation, no dropout, default initialisation: the mechanism is not the identity at
the start (§9.8).

Shape suffixes: B batch, T tokens, C channels, K descriptor width.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.descriptors.contract import Axis, Descriptor
from trainer.batch import Batch, Tokens
from trainer.config import MechanismsConfig
from trainer.mechanisms.contract import MECHANISMS, Host, Mechanism


@MECHANISMS.register("concat")
class Concat(Mechanism):
    """The descriptor beside every token, mixed by one linear layer."""

    slot = "tokens"
    axes = MappingProxyType({"audio": ("frame", "segment"), "midi": ("note", "segment")})
    summary = "descriptor beside every token, one linear layer and LayerNorm, before positions"

    def __init__(
        self, host: Host, descriptor: Descriptor, config: MechanismsConfig, options: Any
    ) -> None:
        super().__init__(host, descriptor, config, options)
        self.project = nn.Linear(host.width + descriptor.width, host.width)
        self.norm = nn.LayerNorm(host.width)

    def on_tokens(self, tokens: Tokens, batch: Batch) -> Tokens:
        """Mix the descriptor into every token."""
        align = _ALIGN[self.descriptor.axis]
        aligned_BTK = align(self.values(batch), tokens.x_BTC.shape[1])
        mixed_BTC = self.project(torch.cat([tokens.x_BTC, aligned_BTK], dim=-1))
        return tokens.replace(self.norm(mixed_BTC))


def resample_frames(frames_BFK: Tensor, n_tokens: int) -> Tensor:
    """``[B, F, K]`` → ``[B, T, K]``: interpolated up, averaged down."""
    frames_BKF = frames_BFK.transpose(1, 2)
    if n_tokens >= frames_BKF.shape[-1]:
        tokens_BKT = F.interpolate(frames_BKF, size=n_tokens, mode="linear", align_corners=False)
    else:
        tokens_BKT = F.adaptive_avg_pool1d(frames_BKF, n_tokens)
    return tokens_BKT.transpose(1, 2)


def _repeat(segment_BK: Tensor, n_tokens: int) -> Tensor:
    return segment_BK[:, None].expand(-1, n_tokens, -1)


def _one_to_one(notes_BTK: Tensor, n_tokens: int) -> Tensor:
    return notes_BTK


_ALIGN: dict[Axis, Callable[[Tensor, int], Tensor]] = {
    "frame": resample_frames,
    "note": _one_to_one,
    "segment": _repeat,
}
