"""Transformer encoder layers whose loop is ours, so that mechanisms can reach between layers.

Weights, initial distributions and arithmetic are those of ``torch.nn.TransformerEncoderLayer`` with
exact GELU (method §4.1–4.2); attention is ``F.scaled_dot_product_attention`` with boolean masks or an
additive bias. A row whose keys are all padding attends to its first key, so it stays finite.

Shape suffixes: B batch, T queries, U keys, C channels, H heads, E channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import TransformerConfig


class Attention(nn.Module):
    """Multi-head attention, initialised like ``torch.nn.MultiheadAttention`` (biases on).

    Parameters
    ----------
    width : channels of queries, keys, values and output
    heads : number of heads
    dropout : dropout of attention weights in training
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query_BTC: Tensor,
        memory_BUC: Tensor,
        padding_BU: Tensor | None = None,
        bias_BHTU: Tensor | None = None,
    ) -> Tensor:
        """Attend from ``query_BTC`` to ``memory_BUC`` (keys and values): ``[B, T, C]``.

        Parameters
        ----------
        padding_BU : bool, True = a key nobody may attend to
        bias_BHTU : added to the scaled scores before the softmax
        """
        if query_BTC is memory_BUC:
            q_BTC, k_BUC, v_BUC = self.in_proj(query_BTC).chunk(3, dim=-1)
        else:
            width = query_BTC.shape[-1]
            weight, bias = self.in_proj.weight, self.in_proj.bias
            q_BTC = F.linear(query_BTC, weight[:width], bias[:width])
            k_BUC, v_BUC = F.linear(memory_BUC, weight[width:], bias[width:]).chunk(2, dim=-1)
        out_BHTE = F.scaled_dot_product_attention(
            self._split(q_BTC),
            self._split(k_BUC),
            self._split(v_BUC),
            attn_mask=_mask(padding_BU, bias_BHTU),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(out_BHTE.transpose(1, 2).flatten(2))

    def _split(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def visible_keys(padding_BU: Tensor) -> Tensor:
    """bool [B, 1, 1, U], True = may be attended to; an all-padding row keeps its first key."""
    keep_BU = ~padding_BU
    first_U = torch.arange(padding_BU.shape[1], device=padding_BU.device) == 0
    keep_BU = keep_BU | (padding_BU.all(dim=1, keepdim=True) & first_U)
    return keep_BU[:, None, None, :]


def _mask(padding_BU: Tensor | None, bias_BHTU: Tensor | None) -> Tensor | None:
    if padding_BU is None:
        return bias_BHTU
    keep_B11U = visible_keys(padding_BU)
    return keep_B11U if bias_BHTU is None else bias_BHTU.masked_fill(~keep_B11U, float("-inf"))


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
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BTC: Tensor, padding_BT: Tensor | None = None, bias_BHTT: Tensor | None = None
    ) -> Tensor:
        """``[B, T, C]`` → ``[B, T, C]``."""
        if self.pre_norm:
            x_BTC = x_BTC + self._attend(self.norm1(x_BTC), padding_BT, bias_BHTT)
            return x_BTC + self._feed(self.norm2(x_BTC))
        x_BTC = self.norm1(x_BTC + self._attend(x_BTC, padding_BT, bias_BHTT))
        return self.norm2(x_BTC + self._feed(x_BTC))

    def _attend(self, x_BTC: Tensor, padding_BT: Tensor | None, bias: Tensor | None) -> Tensor:
        return self.dropout(self.attention(x_BTC, x_BTC, padding_BT, bias))

    def _feed(self, x_BTC: Tensor) -> Tensor:
        return self.dropout(self.linear2(self.dropout(F.gelu(self.linear1(x_BTC)))))


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
        bias_BHTT: Tensor | None = None,
        after_layer: AfterLayer | None = None,
    ) -> Tensor:
        """``[B, T, C]`` → ``[B, T, C]``; ``after_layer(x, i)`` may change each layer's output."""
        for index, layer in enumerate(self.layers):
            x_BTC = layer(x_BTC, padding_BT, bias_BHTT)
            if after_layer is not None:
                x_BTC = after_layer(x_BTC, index)
        return self.norm(x_BTC)
