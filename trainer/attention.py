"""Multi-head attention, shared by encoders and mechanisms.

Weights, initial distributions and arithmetic are those of ``torch.nn.MultiheadAttention``; the product
is ``F.scaled_dot_product_attention`` with boolean masks or an additive bias. A row whose keys are all
padding attends to its first key, so it stays finite.

Shape suffixes: B batch, T queries, U keys, C channels, H heads, E channels of a head, P packed tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
