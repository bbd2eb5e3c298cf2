"""The MIDI encoder: note embedding → positions → Transformer → pool (method §4.2).

Shape suffixes: B batch, N notes, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.base.config import from_plain
from trainer.batch import Batch, Tokens
from trainer.config import MidiConfig
from trainer.encoders.flow import Guest, encode
from trainer.encoders.pooling import POOLS
from trainer.encoders.positions import POSITIONS, SecondsOptions, Sinusoids
from trainer.encoders.transformer import Transformer
from trainer.encoders.variation import other_clock, other_touch

PITCHES = VELOCITIES = 128
DURATION_BUCKETS = 32


class NoteEmbedding(nn.Module):
    """Pitch, velocity and duration bucket side by side → Linear → LayerNorm.

    With ``timing`` given, a learnt projection of sinusoids of the duration in seconds is added before
    the LayerNorm (buckets are 15 % wide; the onset enters through the positions).
    """

    def __init__(self, config: MidiConfig) -> None:
        super().__init__()
        width = config.transformer.width
        self.touch = config.touch
        self.pitch = nn.Embedding(PITCHES, config.pitch_width)
        self.velocity = nn.Embedding(VELOCITIES, config.velocity_width)
        self.duration = nn.Embedding(DURATION_BUCKETS, config.duration_width)
        fields = config.pitch_width + config.velocity_width + config.duration_width
        self.project = nn.Linear(fields, width)
        self.norm = nn.LayerNorm(width)
        self.seconds: nn.Module | None = None
        if config.timing == "given":
            sinusoids = Sinusoids(
                SecondsOptions(periods=16, shortest_s=0.1, longest_s=16.0, dropout=0.0)
            )
            self.seconds = nn.Sequential(sinusoids, nn.Linear(sinusoids.features, width))

    def forward(self, batch: Batch) -> Tensor:
        """``[B, N, C]``."""
        velocity_BN = batch.velocity_BN
        if self.training and self.touch > 1:
            velocity_BN = other_touch(velocity_BN, self.touch)
        fields_BNC = torch.cat(
            [
                self.pitch(batch.pitch_BN),
                self.velocity(velocity_BN),
                self.duration(batch.duration_bucket_BN),
            ],
            dim=-1,
        )
        x_BNC = self.project(fields_BNC)
        if self.seconds is not None:
            x_BNC = x_BNC + self.seconds(batch.duration_BN)
        return self.norm(x_BNC)


class MidiEncoder(nn.Module):
    """Segments' notes → one vector each; ``width`` is the vector's length."""

    def __init__(self, config: MidiConfig) -> None:
        super().__init__()
        self.notes = NoteEmbedding(config)
        self.clock_s = config.clock_s
        code = POSITIONS.get(config.positions.name)
        self.positions = code(
            config.transformer.width,
            from_plain(code.Options, config.positions.options, "midi.positions.options"),
        )
        self.transformer = Transformer(config.transformer)
        pool = POOLS.get(config.pool.name)
        self.pool = pool(from_plain(pool.Options, config.pool.options, "midi.pool.options"))
        self.width = self.pool.parts * config.transformer.width

    def forward(self, batch: Batch, guests: Sequence[Guest] = ()) -> Tensor:
        """Pooled features ``[B, width]`` (before the head)."""
        x_BTC, onset_BN = self.notes(batch), batch.onset_BN
        if self.training and self.clock_s:
            onset_BN = other_clock(onset_BN, self.clock_s)
        tokens = Tokens(x_BTC=x_BTC, time_BT=onset_BN, padding_BT=batch.padding_BN)
        tokens = encode(batch, tokens, self.positions, self.transformer, guests)
        return self.pool(tokens)
