"""From tokens to one vector a segment.

``mean`` is the reference's: everything that happens in four seconds becomes one average. ``slots``
keeps when it happened: the segment is cut into equal slots of time, each slot is averaged by itself,
and the averages lie side by side. With a head that is shared by the slots
(`trainer.encoders.heads`), the cosine of two embeddings is a sum of local agreements, so that every
slot of every training pair is an example of what a moment of sound and its notes have in common.

Shape suffixes: B batch, T tokens, C channels, S slots.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from pipeline.base.registry import Registry
from pipeline.spectral import SEGMENT_S
from trainer.batch import Tokens


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MeanOptions:
    """``mean`` has no options."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SlotsOptions:
    """That many equal parts of the segment."""

    slots: int


class MeanPool:
    """Mean over tokens that are not padding, denominator at least 1 (method §4.1–4.2): [B, C]."""

    Options = MeanOptions

    def __init__(self, options: MeanOptions) -> None:
        self.parts = 1

    def __call__(self, tokens: Tokens) -> Tensor:
        """``[B, C]``."""
        if tokens.padding_BT is None:
            return tokens.x_BTC.mean(dim=1)
        keep_BT1 = (~tokens.padding_BT)[..., None].to(tokens.x_BTC.dtype)
        return (tokens.x_BTC * keep_BT1).sum(dim=1) / keep_BT1.sum(dim=1).clamp(min=1)


class SlotPool:
    """The means over equal parts of the segment, side by side: [B, S C].

    A token belongs to the slot of its time; one before the segment's start to the first, one after
    its end to the last. A slot without tokens gives zeros.
    """

    Options = SlotsOptions

    def __init__(self, options: SlotsOptions) -> None:
        self.parts = options.slots

    def __call__(self, tokens: Tokens) -> Tensor:
        """``[B, S C]``."""
        batch, length, _ = tokens.x_BTC.shape
        slot_BT = (tokens.time_BT * (self.parts / SEGMENT_S)).floor().clamp(0, self.parts - 1)
        index_S = torch.arange(self.parts, device=slot_BT.device)
        member_BST = slot_BT[:, None, :] == index_S[None, :, None]
        if tokens.padding_BT is not None:
            member_BST = member_BST & ~tokens.padding_BT[:, None, :]
        weight_BST = member_BST.to(tokens.x_BTC.dtype)
        weight_BST = weight_BST / weight_BST.sum(dim=-1, keepdim=True).clamp(min=1)
        return (weight_BST.expand(batch, self.parts, length) @ tokens.x_BTC).flatten(1)


POOLS: Registry[Any] = Registry("pool")
"""Name → class; ``parts`` says how many times the tokens' width its output has."""

POOLS.add("mean", MeanPool)
POOLS.add("slots", SlotPool)
