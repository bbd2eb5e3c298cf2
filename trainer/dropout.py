"""Dropout whose random numbers cost little on a CPU.

torch draws a float there for every element, which takes longer than the products that are dropped;
16 bits say as well whether to keep one. The probability is rounded to a multiple of 2⁻¹⁶.
"""

from __future__ import annotations

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
    return x * (bits >= dropped - STEPS // 2) * (STEPS / (STEPS - dropped))


class Dropout(nn.Dropout):
    """:func:`dropout` in training. For wide tensors; others keep torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements in training."""
        return dropout(x, self.p) if self.training and self.p else x
