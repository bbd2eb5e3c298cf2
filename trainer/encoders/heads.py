"""Projection heads (method §4.3).

Shape suffixes: B batch, C channels, D embedding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch import Tensor, nn

from trainer.config import HeadConfig

InHead = Callable[[Tensor, int], Tensor]


def widths_inside(width: int, config: HeadConfig) -> tuple[int, ...]:
    """Channels of what ``in_head`` is called on, one per call; ``width`` as for the head."""
    return config.hidden or (width // config.slots,)


class ProjectionHead(nn.Module):
    """(Linear BN ReLU) for every hidden layer, then Linear; no output norm.

    Xavier-uniform weights, zero biases. With ``config.slots`` > 1 the input is that many equal parts
    (parts of time, see :class:`~trainer.encoders.pooling.SlotPool`); each goes through the same small
    head to its share of the embedding, so that a cosine compares like times with like times.

    Parameters
    ----------
    width : channels of the pooled features
    """

    def __init__(self, width: int, config: HeadConfig) -> None:
        super().__init__()
        self.slots = config.slots
        widths = [width // self.slots, *config.hidden]
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())
            for a, b in itertools.pairwise(widths)
        )
        self.output = nn.Linear(widths[-1], config.embedding // self.slots)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, pooled_BC: Tensor, in_head: InHead | None = None) -> Tensor:
        """``[B, C]`` → ``[B, D]``; ``in_head(h, i)`` may change each hidden layer's output.

        Where there is no hidden layer it may change what goes in. Inside, the rows of ``h`` are
        segments × slots, slots fastest.
        """
        batch = len(pooled_BC)
        hidden = pooled_BC.reshape(batch * self.slots, -1)
        if in_head is not None and not self.hidden:
            hidden = in_head(hidden, 0)
        for index, layer in enumerate(self.hidden):
            hidden = layer(hidden)
            if in_head is not None:
                hidden = in_head(hidden, index)
        return self.output(hidden).reshape(batch, -1)
