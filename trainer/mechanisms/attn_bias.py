"""attn_bias: the descriptor shifts who attends to whom (method §3, the author's "-ab").

``s · φ(d_i)ᵀ W_h ψ(d_j)`` is added to the attention score of tokens i and j in head h, the same in
every layer; ``φ, ψ = GELU(Linear(d))``, ``W`` starts at zero (the mechanism starts as the identity),
``s`` at 0.01. The reference adds a ``[T, T]`` matrix in a loop of its own; here the two factors enter
as channels of queries and keys (:class:`trainer.attention.ScoreBias`), which is the same sum.

Shape suffixes: B batch, T tokens, H heads, R rank.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.descriptors.contract import Descriptor
from trainer.attention import ScoreBias
from trainer.batch import Batch, Tokens
from trainer.config import MechanismsConfig
from trainer.mechanisms.align import to_tokens
from trainer.mechanisms.contract import EVERY_AXIS, MECHANISMS, Host, Mechanism


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AttentionBiasOptions:
    """Rank of the bias, and the scale that it starts with."""

    rank: int = 16
    scale: float = 0.01


@MECHANISMS.register("attn_bias")
class AttentionBias(Mechanism):
    """A learnt bilinear form of two tokens' descriptors, added to every layer's scores."""

    slot = "scores"
    axes = EVERY_AXIS
    Options = AttentionBiasOptions
    summary = "bilinear form of two tokens' descriptors added to all attention scores"

    def __init__(
        self,
        host: Host,
        descriptor: Descriptor,
        config: MechanismsConfig,
        options: AttentionBiasOptions,
    ) -> None:
        super().__init__(host, descriptor, config, options)
        self.left = nn.Linear(descriptor.width, options.rank)
        self.right = nn.Linear(descriptor.width, options.rank)
        self.forms_HRR = nn.Parameter(torch.zeros(host.heads, options.rank, options.rank))
        self.scale = nn.Parameter(torch.tensor(options.scale))

    def score_bias(self, tokens: Tokens, batch: Batch) -> ScoreBias:
        """Both factors at every token."""
        d_BTK = to_tokens(self.values(batch), self.descriptor.axis, tokens, self.host.side)
        left_B1TR = F.gelu(self.left(d_BTK))[:, None]
        right_B1TR = F.gelu(self.right(d_BTK))[:, None]
        left_BHTR = self.scale * left_B1TR @ self.forms_HRR
        return ScoreBias(left_BHTR, right_B1TR.expand(-1, self.host.heads, -1, -1))
