"""Transformer encoder layers whose loop is ours, so that mechanisms can reach between layers.

Weights, initial distributions and arithmetic are those of ``torch.nn.TransformerEncoderLayer`` with
exact GELU (method §4.1–4.2); attention is :class:`~trainer.attention.Attention`.

On a CPU, sequences with padding run *packed*: everything that treats tokens one by one sees only the
real ones (``[P, C]``), which halves the work on notes; only attention sees the padded shape. On a GPU
shapes stay fixed.

Shape suffixes: B batch, T queries, U keys, C channels, H heads, E channels of a head, P packed tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.attention import Attention, Packing, ScoreBias
from trainer.config import TransformerConfig
from trainer.dropout import Dropout


class EncoderLayer(nn.Module):
    """Self-attention and a GELU feed-forward, each with residual, dropout and LayerNorm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.attention = Attention(config.width, config.heads, config.attention_dropout)
        self.linear1 = nn.Linear(config.width, config.ffn)
        self.linear2 = nn.Linear(config.ffn, config.width)
        self.norm1 = nn.LayerNorm(config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)
        self.ffn_dropout = Dropout(config.ffn_dropout)

    def forward(
        self,
        x: Tensor,
        padding_BT: Tensor | None = None,
        bias: ScoreBias | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """``[B, T, C]`` → ``[B, T, C]``; with ``packing``, ``[P, C]`` → ``[P, C]``."""
        if self.pre_norm:
            x = x + self._attend(self.norm1(x), padding_BT, bias, packing)
            return x + self._feed(self.norm2(x))
        x = self.norm1(x + self._attend(x, padding_BT, bias, packing))
        return self.norm2(x + self._feed(x))

    def _attend(
        self, x: Tensor, padding: Tensor | None, bias: ScoreBias | None, packing: Packing | None
    ) -> Tensor:
        return self.dropout(self.attention.within(x, padding, bias, packing))

    def _feed(self, x: Tensor) -> Tensor:
        return self.dropout(self.linear2(self.ffn_dropout(F.gelu(self.linear1(x)))))


AfterLayer = Callable[[Tensor, int], Tensor]


class Transformer(nn.Module):
    """A stack of layers and, if configured, an output LayerNorm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        if config.layer_init == "identical":
            for layer in self.layers[1:]:
                layer.load_state_dict(self.layers[0].state_dict())
        self.norm = nn.LayerNorm(config.width) if config.output_norm else nn.Identity()

    def forward(
        self,
        x_BTC: Tensor,
        padding_BT: Tensor | None = None,
        bias: ScoreBias | None = None,
        after_layer: AfterLayer | None = None,
    ) -> Tensor:
        """``[B, T, C]`` → ``[B, T, C]``; ``after_layer(x, i)`` may change each layer's output.

        Outputs at padding mean nothing.
        """
        packing = None
        if padding_BT is not None and x_BTC.device.type == "cpu" and after_layer is None:
            packing = Packing(padding_BT)
            x_BTC = packing.pack(x_BTC)
        for index, layer in enumerate(self.layers):
            x_BTC = layer(x_BTC, padding_BT, bias, packing)
            if after_layer is not None:
                x_BTC = after_layer(x_BTC, index)
        x_BTC = self.norm(x_BTC)
        return x_BTC if packing is None else packing.unpack(x_BTC)
