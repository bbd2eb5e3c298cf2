"""Projection heads (method §4.3).

Shape suffixes: B batch, C channels, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from trainer.config import HeadConfig

InHead = Callable[[Tensor, int], Tensor]


class ProjectionHead(nn.Module):
    """Linear BN ReLU, Linear BN ReLU, Linear; Xavier-uniform weights, zero biases, no output norm."""

    def __init__(self, width: int, config: HeadConfig) -> None:
        super().__init__()
        widths = [width, config.hidden, config.hidden]
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.output = nn.Linear(config.hidden, config.embedding)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, pooled_BC: Tensor, in_head: InHead | None = None) -> Tensor:
        """``[B, C]`` → ``[B, D]``; ``in_head(h, i)`` may change each hidden layer's output."""
        for index, layer in enumerate(self.hidden):
            pooled_BC = layer(pooled_BC)
            if in_head is not None:
                pooled_BC = in_head(pooled_BC, index)
        return self.output(pooled_BC)
