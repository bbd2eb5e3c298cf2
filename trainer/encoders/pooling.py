"""From tokens to one vector a segment.

Shape suffixes: B batch, T tokens, C channels, Q quarters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.base.registry import Registry
from trainer.batch import Tokens

Pool = Callable[[Tokens], Tensor]

POOLS: Registry[tuple[Pool, int]] = Registry("pool")
"""Name → (function, how many times the tokens' width its output has)."""

QUARTERS = 4
QUARTER_S = 1.0


def mean(tokens: Tokens) -> Tensor:
    """Mean over tokens that are not padding, denominator at least 1 (method §4.1–4.2): [B, C]."""
    if tokens.padding_BT is None:
        return tokens.x_BTC.mean(dim=1)
    keep_BT1 = (~tokens.padding_BT)[..., None].to(tokens.x_BTC.dtype)
    return (tokens.x_BTC * keep_BT1).sum(dim=1) / keep_BT1.sum(dim=1).clamp(min=1)


def quarters(tokens: Tokens) -> Tensor:
    """The means over the four seconds of the segment, side by side: [B, 4 C].

    A token belongs to the second of its time; one before the segment's start to the first, one
    after its end to the last. A second without tokens gives zeros.
    """
    batch, length, _ = tokens.x_BTC.shape
    quarter_BT = (tokens.time_BT / QUARTER_S).floor().clamp(0, QUARTERS - 1)
    index_Q = torch.arange(QUARTERS, device=quarter_BT.device)
    member_BQT = quarter_BT[:, None, :] == index_Q[None, :, None]
    if tokens.padding_BT is not None:
        member_BQT = member_BQT & ~tokens.padding_BT[:, None, :]
    weight_BQT = member_BQT.to(tokens.x_BTC.dtype)
    weight_BQT = weight_BQT / weight_BQT.sum(dim=-1, keepdim=True).clamp(min=1)
    return (weight_BQT.expand(batch, QUARTERS, length) @ tokens.x_BTC).flatten(1)


POOLS.add("mean", (mean, 1))
POOLS.add("quarters", (quarters, QUARTERS))
