"""Dropout whose random numbers cost little on a CPU.

torch draws a float there for every element, which takes longer than the products that are dropped;
16 bits say as well whether to keep one. The probability is rounded to a multiple of 2⁻¹⁶.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 1 << 16


def dropout(x: Tensor, p: float) -> Tensor:
    """``x`` with each element zero with probability ``p``, the others divided by ``1 - p``."""
    if x.device.type == "cuda":
        return F.dropout(x, p)
    dropped = round(p * STEPS)
    if dropped in (0, STEPS):
        return x if not dropped else x * 0
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(
        -(1 << 63), None
    )
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    kept = (bits >= dropped - STEPS // 2).view(torch.uint8)  # of which a product is made faster
    out: Tensor = _Kept.apply(x, kept, STEPS / (STEPS - dropped))
    return out


class _Kept(torch.autograd.Function):
    """``x * kept * scale``: for the way back nothing but ``kept`` is held, a byte an element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return kept.to(x.dtype).mul_(x).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return kept.to(gradient.dtype).mul_(gradient).mul_(ctx.scale), None, None


class Dropout(nn.Dropout):
    """:func:`dropout` in training."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements in training."""
        return dropout(x, self.p) if self.training and self.p else x
