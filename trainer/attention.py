"""Multi-head attention, shared by encoders and mechanisms.

Weights, initial distributions and arithmetic are those of ``torch.nn.MultiheadAttention``; the product
is ``F.scaled_dot_product_attention`` with boolean masks. A row whose keys are all padding attends to
its first key, so it stays finite.

A bias on the scores comes as the product of two thin matrices, ``L Rᵀ``, and enters as further
channels of queries and keys: ``[q ; √E L] · [k ; R] / √E = q·k / √E + L·R``. No ``[T, T]`` matrix is
ever made, and fused kernels still run.

Shape suffixes: B batch, T queries, U keys, C channels, H heads, E channels of a head, R rank of a
bias, P packed tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.dropout import dropout

FEW_SCORES = 512 * 512  # a head and segment: a matrix of so many is no matter for memory


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


class ScoreBias(NamedTuple):
    """``left @ rightᵀ`` is added to the scaled scores before the softmax."""

    left_BHTR: Tensor
    right_BHUR: Tensor

    def dense(self) -> Tensor:
        """``[B, H, T, U]``: for looking at, and for tests."""
        return self.left_BHTR @ self.right_BHUR.mT


def joined(biases: Sequence[ScoreBias]) -> ScoreBias | None:
    """The sum of several biases: their ranks side by side."""
    if len(biases) < 2:
        return biases[0] if biases else None
    lefts, rights = zip(*biases, strict=True)
    return ScoreBias(torch.cat(lefts, dim=-1), torch.cat(rights, dim=-1))


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
    ) -> Tensor:
        """Attend from ``query_BTC`` to ``memory_BUC`` (keys and values): ``[B, T, C]``.

        ``padding_BU``: bool, True = a key nobody may attend to.
        """
        width = query_BTC.shape[-1]
        weight, bias = self.in_proj.weight, self.in_proj.bias
        q_BTC = F.linear(query_BTC, weight[:width], bias[:width])
        k_BUC, v_BUC = F.linear(memory_BUC, weight[width:], bias[width:]).chunk(2, dim=-1)
        out_BTC = self._attend(q_BTC, k_BUC, v_BUC, padding_BU, None)
        return self.out_proj(out_BTC)

    def weights(
        self, query_BTC: Tensor, memory_BUC: Tensor, padding_BU: Tensor | None = None
    ) -> Tensor:
        """Who attends to whom in :meth:`forward`, without dropout: ``[B, H, T, U]``, rows sum to 1.

        For looking at: the whole matrix is made.
        """
        width = query_BTC.shape[-1]
        weight, bias = self.in_proj.weight, self.in_proj.bias
        q_BHTE = self._split(F.linear(query_BTC, weight[:width], bias[:width]))
        k_BHUE = self._split(F.linear(memory_BUC, weight[width:-width], bias[width:-width]))
        scores = q_BHTE @ k_BHUE.mT / math.sqrt(q_BHTE.shape[-1])
        if padding_BU is not None:
            scores = scores.masked_fill(~visible_keys(padding_BU), -math.inf)
        return scores.softmax(dim=-1)

    def within(
        self,
        x: Tensor,
        padding_BT: Tensor | None,
        bias: ScoreBias | None,
        packing: Packing | None,
    ) -> Tensor:
        """Self-attention; with ``packing``, ``x`` is ``[P, C]`` and so is the result."""
        mixed = self.in_proj(x)
        mixed_BT3C = mixed if packing is None else packing.unpack(mixed)
        q_BTC, k_BTC, v_BTC = mixed_BT3C.chunk(3, dim=-1)
        out_BTC = self._attend(q_BTC, k_BTC, v_BTC, padding_BT, bias)
        return self.out_proj(out_BTC if packing is None else packing.pack(out_BTC))

    def _attend(
        self,
        q_BTC: Tensor,
        k_BUC: Tensor,
        v_BUC: Tensor,
        padding_BU: Tensor | None,
        bias: ScoreBias | None,
    ) -> Tensor:
        q_BHTE, k_BHUE, v_BHUE = map(self._split, (q_BTC, k_BUC, v_BUC))
        channels = q_BHTE.shape[-1]
        if bias is not None:
            left_BHTR = (bias.left_BHTR * math.sqrt(channels)).to(q_BHTE.dtype)
            right_BHUR = bias.right_BHUR.to(k_BHUE.dtype)
            q_BHTE = torch.cat([q_BHTE, left_BHTR], dim=-1)
            k_BHUE = torch.cat([k_BHUE, right_BHUR], dim=-1)
            # Flash kernels want values as wide as keys.
            v_BHUE = F.pad(v_BHUE, (0, right_BHUR.shape[-1]))
        visible = None if padding_BU is None else visible_keys(padding_BU)
        dropped = self.dropout if self.training else 0.0
        # On a CPU no fused kernel runs with dropout, and bfloat16's is slower where tokens are few.
        few = q_BHTE.shape[-2] * k_BHUE.shape[-2] <= FEW_SCORES
        slow = few and q_BHTE.dtype == torch.bfloat16
        apart = q_BHTE.device.type == "cpu" and (dropped or slow)
        attend = dropping_attention if apart else fused_attention
        out_BHTE = attend(q_BHTE, k_BHUE, v_BHUE, visible, dropped, 1 / math.sqrt(channels))
        return out_BHTE[..., :channels].transpose(1, 2).flatten(2)

    def _split(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, dropped: float, scale: float
) -> Tensor:
    """Torch's own."""
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=visible, dropout_p=dropped, scale=scale
    )


def dropping_attention(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, dropped: float, scale: float
) -> Tensor:
    """The same, written out, with cheap random numbers."""
    scores = (q * scale) @ k.mT
    if visible is not None:
        scores = scores.masked_fill(~visible, -math.inf)
    return dropout(scores.softmax(dim=-1), dropped) @ v


def visible_keys(padding_BU: Tensor) -> Tensor:
    """Bool [B, 1, 1, U], True = may be attended to; an all-padding row keeps its first key."""
    keep_BU = ~padding_BU
    first_U = torch.arange(padding_BU.shape[1], device=padding_BU.device) == 0
    keep_BU = keep_BU | (padding_BU.all(dim=1, keepdim=True) & first_U)
    return keep_BU[:, None, None, :]
