"""concat: ``x ← LayerNorm(Linear([x ; d]))`` before positions are added (method §3).

The descriptor is brought to every token (:mod:`trainer.mechanisms.align`). No residual, no activation,
no dropout, default initialisation: the mechanism is not the identity at the start (§9.8).

Shape suffixes: B batch, T tokens, C channels, K descriptor width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipeline.descriptors.contract import Descriptor
from trainer.batch import Batch, Tokens
from trainer.config import MechanismsConfig
from trainer.mechanisms.align import to_tokens
from trainer.mechanisms.contract import EVERY_AXIS, MECHANISMS, Host, Mechanism


@MECHANISMS.register("concat")
class Concat(Mechanism):
    """The descriptor beside every token, mixed by one linear layer."""

    slot = "tokens"
    axes = EVERY_AXIS
    summary = "descriptor beside every token, one linear layer and LayerNorm, before positions"

    def __init__(
        self, host: Host, descriptor: Descriptor, config: MechanismsConfig, options: Any
    ) -> None:
        super().__init__(host, descriptor, config, options)
        self.project = nn.Linear(host.width + descriptor.width, host.width)
        self.norm = nn.LayerNorm(host.width)

    def on_tokens(self, tokens: Tokens, batch: Batch) -> Tokens:
        """Mix the descriptor into every token."""
        d_BTK = to_tokens(self.values(batch), self.descriptor.axis, tokens, self.host.side)
        mixed_BTC = self.project(torch.cat([tokens.x_BTC, d_BTK], dim=-1))
        return tokens.replace(self.norm(mixed_BTC))
