"""Transformer encoder layers whose loop is ours, so that mechanisms can reach between layers.

Weights, initial distributions and arithmetic are those of ``torch.nn.TransformerEncoderLayer`` with
exact GELU (method §4.1–4.2); attention is ``F.scaled_dot_product_attention`` with boolean masks or an
additive bias. A row whose keys are all padding attends to its first key, so it stays finite.

On a CPU, sequences with padding run *packed*: everything that treats tokens one by one sees only the
real ones (``[P, C]``), which halves the work on notes; only attention sees the padded shape. On a GPU
shapes stay fixed.

Shape suffixes: B batch, T queries, U keys, C channels, H heads, E channels of a head, P packed tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import TransformerConfig


class Packing:
    """Padded ``[B, T, C]`` ↔ the real tokens alone, ``[P, C]``."""

    def __init__(self, padding_BT: Tensor) -> None:
        self.shape = padding_BT.shape
        self.place_P = (~padding_BT).flatten().nonzero().squeeze(1)

    def pack(self, x_BTC: Tensor) -> Tensor:
        """Drop padding."""
        return x_BTC.flatten(0, 1).index_select(0, self.place_P)

    def unpack(self, x_PC: Tensor) -> Tensor:
        """Put tokens back; padding becomes zeros."""
        flat = x_PC.new_zeros(self.shape.numel(), x_PC.shape[-1])
        return flat.index_copy(0, self.place_P, x_PC).unflatten(0, self.shape)


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
        width = query_BTC.shape[-1]
        weight, bias = self.in_proj.weight, self.in_proj.bias
        q_BTC = F.linear(query_BTC, weight[:width], bias[:width])
        k_BUC, v_BUC = F.linear(memory_BUC, weight[width:], bias[width:]).chunk(2, dim=-1)
        out_BTC = self._attend(q_BTC, k_BUC, v_BUC, _mask(padding_BU, bias_BHTU))
        return self.out_proj(out_BTC)

    def within(
        self,
        x: Tensor,
        padding_BT: Tensor | None,
        bias_BHTT: Tensor | None,
        packing: Packing | None,
    ) -> Tensor:
        """Self-attention; with ``packing``, ``x`` is ``[P, C]`` and so is the result."""
        mixed = self.in_proj(x)
        mixed_BT3C = mixed if packing is None else packing.unpack(mixed)
        q_BTC, k_BTC, v_BTC = mixed_BT3C.chunk(3, dim=-1)
        out_BTC = self._attend(q_BTC, k_BTC, v_BTC, _mask(padding_BT, bias_BHTT))
        return self.out_proj(out_BTC if packing is None else packing.pack(out_BTC))

    def _attend(self, q_BTC: Tensor, k_BUC: Tensor, v_BUC: Tensor, mask: Tensor | None) -> Tensor:
        out_BHTE = F.scaled_dot_product_attention(
            self._split(q_BTC),
            self._split(k_BUC),
            self._split(v_BUC),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return out_BHTE.transpose(1, 2).flatten(2)

    def _split(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def visible_keys(padding_BU: Tensor) -> Tensor:
    """Bool [B, 1, 1, U], True = may be attended to; an all-padding row keeps its first key."""
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
        self.ffn_dropout = nn.Dropout(config.ffn_dropout)

    def forward(
        self,
        x: Tensor,
        padding_BT: Tensor | None = None,
        bias_BHTT: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """``[B, T, C]`` → ``[B, T, C]``; with ``packing``, ``[P, C]`` → ``[P, C]``."""
        if self.pre_norm:
            x = x + self._attend(self.norm1(x), padding_BT, bias_BHTT, packing)
            return x + self._feed(self.norm2(x))
        x = self.norm1(x + self._attend(x, padding_BT, bias_BHTT, packing))
        return self.norm2(x + self._feed(x))

    def _attend(
        self, x: Tensor, padding: Tensor | None, bias: Tensor | None, packing: Packing | None
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
        bias_BHTT: Tensor | None = None,
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
            x_BTC = layer(x_BTC, padding_BT, bias_BHTT, packing)
            if after_layer is not None:
                x_BTC = after_layer(x_BTC, index)
        x_BTC = self.norm(x_BTC)
        return x_BTC if packing is None else packing.unpack(x_BTC)
