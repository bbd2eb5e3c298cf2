"""third_tower: a third encoder, of descriptors alone, that trains the other two (method §3, t3).

The descriptor and those ``beside`` it lie side by side on the 188 frames (notes of a segment
resampled over their own number) → ``Linear → LayerNorm → sinusoids + dropout → 2 pre-norm layers →
LayerNorm → mean → Linear → BatchNorm → ReLU → Linear``. Its embedding ``r`` exists in the loss only:

======= =====================================
terms   loss
======= =====================================
tri     (V(a, m) + V(a, r) + V(m, r)) / 3
anc     (V(a, r) + V(m, r)) / 2
wt      V(a, m) + 0.3 · (V(a, r) + V(m, r)) / 2
======= =====================================

Shape suffixes: B batch, F frames, C channels, D embedding.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.base.errors import ConfigError
from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Descriptor
from pipeline.spectral import N_FRAMES
from trainer.batch import Batch, Tokens, frame_times
from trainer.config import MechanismsConfig, TransformerConfig
from trainer.encoders.positions import IndexSinusoids, RowsOptions
from trainer.encoders.transformer import Transformer
from trainer.mechanisms.align import notes_to_frames
from trainer.mechanisms.contract import EVERY_AXIS, MECHANISMS, Host, Mechanism, PairLoss

Terms = Literal["tri", "anc", "wt"]


class Weights(NamedTuple):
    """Of V(a, m) and of V(a, r) + V(m, r)."""

    pair: float
    third: float


WEIGHTS: dict[Terms, Weights] = {
    "tri": Weights(1 / 3, 1 / 3),
    "anc": Weights(0.0, 0.5),
    "wt": Weights(1.0, 0.15),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TowerOptions:
    """Further descriptors of the tower, how the loss weighs it, and its shape."""

    beside: tuple[str, ...] = ()
    terms: Terms = "wt"
    width: int = 256
    heads: int = 4
    layers: int = 2
    dropout: float = 0.1
    layer_init: Literal["identical", "independent"] = "identical"


@MECHANISMS.register("third_tower")
class ThirdTower(Mechanism):
    """Descriptors as a third view with an encoder of its own, in the loss alone."""

    slot = "view"
    axes = EVERY_AXIS
    Options = TowerOptions
    summary = "a third encoder of the descriptor(s); its embedding enters the loss alone"

    def __init__(
        self, host: Host, descriptor: Descriptor, config: MechanismsConfig, options: TowerOptions
    ) -> None:
        super().__init__(host, descriptor, config, options)
        self.weights = WEIGHTS[options.terms]
        self.together = (descriptor, *map(DESCRIPTORS.get, options.beside))
        width = options.width
        self.project = nn.Linear(sum(d.width for d in self.together), width)
        self.norm = nn.LayerNorm(width)
        self.positions = IndexSinusoids(width, RowsOptions(rows=N_FRAMES, dropout=options.dropout))
        self.transformer = Transformer(
            TransformerConfig(
                width=width,
                heads=options.heads,
                ffn=4 * width,
                layers=options.layers,
                norm="pre",
                output_norm=True,
                dropout=options.dropout,
                ffn_dropout=options.dropout,
                attention_dropout=options.dropout,
                layer_init=options.layer_init,
            )
        )
        self.hidden = nn.Linear(width, host.embedding)
        self.batch_norm = nn.BatchNorm1d(host.embedding)
        self.output = nn.Linear(host.embedding, host.embedding)

    @classmethod
    def check(cls, options: TowerOptions) -> None:
        """Descriptors beside exist, each once; heads divide the width."""
        for name in options.beside:
            if DESCRIPTORS.get(name).role != "descriptor":
                raise ConfigError(f"third_tower: {name} is the input of a front end")
        if len(set(options.beside)) != len(options.beside):
            raise ConfigError("third_tower: a descriptor stands twice in beside")
        if options.heads < 1 or options.width < 1 or options.layers < 1:
            raise ConfigError("third_tower: width, heads and layers must be at least 1")
        if options.width % options.heads:
            raise ConfigError(
                f"third_tower: width {options.width} is not a multiple of {options.heads} heads"
            )

    def reads(self) -> tuple[str, ...]:
        """Every descriptor of the tower."""
        return tuple(dict.fromkeys(d.name for d in self.together))

    def pair_weight(self) -> float:
        """Weight of V(a, m)."""
        return self.weights.pair

    def embed(self, batch: Batch) -> Tensor:
        """The third view of every segment (of all processes): ``[B, D]``."""
        x_BFC = torch.cat([self._on_frames(d, batch) for d in self.together], dim=-1)
        x_BFC = self.norm(self.project(x_BFC))
        tokens = self.positions(Tokens(x_BTC=x_BFC, time_BT=frame_times(N_FRAMES, x_BFC)))
        pooled_BC = batch.gather(self.transformer(tokens.x_BTC).mean(dim=1))
        return self.output(self.batch_norm(self.hidden(pooled_BC)).relu())

    def auxiliary(
        self, batch: Batch, audio_BD: Tensor, midi_BD: Tensor, pair_loss: PairLoss
    ) -> dict[str, Tensor]:
        """The weighted losses between either embedding and the third view."""
        r_BD = self.embed(batch)
        term = pair_loss(audio_BD, r_BD) + pair_loss(midi_BD, r_BD)
        return {"third_tower": self.weights.third * term}

    def _on_frames(self, descriptor: Descriptor, batch: Batch) -> Tensor:
        values = batch.arrays[descriptor.name]
        if descriptor.axis == "segment":
            return values[:, None].expand(-1, N_FRAMES, -1)
        if descriptor.axis == "frame":
            return values
        return notes_to_frames(values, batch.padding_BN, N_FRAMES)
