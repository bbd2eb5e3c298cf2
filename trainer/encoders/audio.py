"""The audio encoder: front end → positions → Transformer → pool (method §4.1).

Shape suffixes: B batch, T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pipeline.base.config import from_plain
from trainer.batch import Batch
from trainer.config import AudioConfig
from trainer.encoders.flow import Guest, encode
from trainer.encoders.frontends import FRONTENDS, Frontend
from trainer.encoders.pooling import POOLS
from trainer.encoders.positions import POSITIONS
from trainer.encoders.transformer import Transformer


class AudioEncoder(nn.Module):
    """Segments' sound → one vector each; ``width`` is the vector's length."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        kind = FRONTENDS.get(config.frontend.name)
        options: Any = from_plain(kind.Options, config.frontend.options, "audio.frontend.options")
        self.frontend: Frontend = kind(config.transformer.width, options)
        code = POSITIONS.get(config.positions.name)
        self.positions = code(
            config.transformer.width,
            from_plain(code.Options, config.positions.options, "audio.positions.options"),
        )
        self.transformer = Transformer(config.transformer)
        pool = POOLS.get(config.pool.name)
        self.pool = pool(from_plain(pool.Options, config.pool.options, "audio.pool.options"))
        self.width = self.pool.parts * config.transformer.width

    def train(self, mode: bool = True) -> AudioEncoder:
        """Training mode everywhere but in a frozen front end."""
        super().train(mode)
        if self.frontend.frozen:
            self.frontend.eval()
        return self

    def forward(self, batch: Batch, guests: Sequence[Guest] = ()) -> Tensor:
        """Pooled features ``[B, width]`` (before the head)."""
        tokens = self.frontend(batch)
        tokens = encode(batch, tokens, self.positions, self.transformer, guests)
        return self.pool(tokens)
