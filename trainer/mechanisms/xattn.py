"""xattn: the sequence asks, the descriptor answers (method §3, xattn-A and xattn-M).

``x ← LayerNorm(x + MHA(q=x, k=e, v=e))`` with ``e = Linear(d)`` on the positioned sequence; the
descriptor stays at its own rate and has no position code. ``key_padding`` is as in
:mod:`trainer.mechanisms.reverse_xattn`. Not the identity at the start (§9.8).

Shape suffixes: B batch, T tokens, U frames or notes of the descriptor, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from pipeline.descriptors.contract import Descriptor
from trainer.attention import Attention
from trainer.batch import Batch, Tokens
from trainer.config import MechanismsConfig
from trainer.mechanisms.contract import MECHANISMS, SEQUENCES, Host, Mechanism


@MECHANISMS.register("xattn")
class CrossAttention(Mechanism):
    """The positioned sequence as queries over the descriptor, added to it."""

    slot = "sequence"
    axes = SEQUENCES
    summary = "positioned sequence as queries over the descriptor, added and normalised"

    def __init__(
        self, host: Host, descriptor: Descriptor, config: MechanismsConfig, options: Any
    ) -> None:
        super().__init__(host, descriptor, config, options)
        self.project = nn.Linear(descriptor.width, host.width)
        self.attention = Attention(host.width, config.heads, config.dropout)
        self.norm = nn.LayerNorm(host.width)
        self.hide_padding = config.key_padding == "present" and descriptor.axis == "note"

    def on_sequence(
        self, tokens: Tokens, batch: Batch, positions: Callable[[Tokens], Tokens]
    ) -> Tokens:
        """Add the descriptor's answers to every token."""
        memory_BUC = self.project(self.values(batch))
        padding_BU = batch.padding_BN if self.hide_padding else None
        answers_BTC = self.attention(tokens.x_BTC, memory_BUC, padding_BU)
        return tokens.replace(self.norm(tokens.x_BTC + answers_BTC))
