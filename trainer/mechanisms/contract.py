"""What a mechanism is: the way one descriptor enters one encoder (method §3).

An encoder runs ``front end → on_tokens → positions → on_sequence → layers (attention_bias,
after_layer) → pool → head (in_head)``. A mechanism overrides the hooks that it needs; the others pass
their input through. It reads its descriptor from the batch by name and knows no arm; encoders and
the training loop know no mechanism.

======== ===================== ==================================================
slot     hook                  for
======== ===================== ==================================================
tokens   ``on_tokens``         changing tokens before positions are added
sequence ``on_sequence``       changing or replacing the positioned sequence
layers   ``after_layer``       changing the output of each Transformer layer
scores   ``attention_bias``    a bias on the attention scores of every layer
head     ``in_head``           changing hidden layers of the projection head
loss     ``auxiliary``         further terms of the loss; may be taken many times
======== ===================== ==================================================

Any slot but ``loss`` holds one mechanism a side. All parameters of mechanisms live below
``mechanisms`` in the model, which is where the optimiser finds them.

Shape suffixes: B batch, T tokens, C channels, D embedding, H heads, K descriptor width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from pipeline.base.registry import Registry
from pipeline.descriptors.contract import Axis, Descriptor, Side
from trainer.batch import Batch, Tokens
from trainer.config import MechanismsConfig

Slot = Literal["tokens", "sequence", "layers", "scores", "head", "loss"]
PairLoss = Callable[[Tensor, Tensor], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NoOptions:
    """For mechanisms without options of their own."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """What a mechanism may know of the encoder that it enters."""

    side: Side
    width: int
    heads: int
    layers: int


class Mechanism(nn.Module):
    """Base of all mechanisms.

    Attributes
    ----------
    slot : where it enters (see the module)
    axes : per side of the encoder, the descriptor axes it can take
    pools : whether it wants one vector a segment (then ``MechanismsConfig.pooled`` decides which)
    Options : frozen dataclass of its own options
    """

    slot: ClassVar[Slot]
    axes: ClassVar[Mapping[Side, tuple[Axis, ...]]]
    pools: ClassVar[bool] = False
    summary: ClassVar[str]
    Options: ClassVar[type] = NoOptions

    def __init__(
        self, host: Host, descriptor: Descriptor, config: MechanismsConfig, options: Any
    ) -> None:
        super().__init__()
        self.host = host
        self.descriptor = descriptor

    @classmethod
    def enters(cls, descriptor: Descriptor) -> Side:
        """The encoder it enters: that of the descriptor's own modality."""
        return descriptor.side

    def reads(self) -> tuple[str, ...]:
        """The store's arrays that it needs."""
        return (self.descriptor.name,)

    def values(self, batch: Batch) -> Tensor:
        """The descriptor of the batch: ``[B, 188, K]``, ``[B, K]`` or ``[B, N, K]``."""
        return batch.arrays[self.descriptor.name]

    def on_tokens(self, tokens: Tokens, batch: Batch) -> Tokens:
        """Called before positions are added."""
        return tokens

    def on_sequence(
        self, tokens: Tokens, batch: Batch, positions: Callable[[Tokens], Tokens]
    ) -> Tokens:
        """Called after; ``positions`` is the encoder's own position module."""
        return tokens

    def attention_bias(self, tokens: Tokens, batch: Batch) -> Tensor | None:
        """``[B, H, T, T]`` added to the scores of every layer, or None."""
        return None

    def after_layer(self, x_BTC: Tensor, layer: int, tokens: Tokens, batch: Batch) -> Tensor:
        """Called on each layer's output; ``tokens`` has the padding and times."""
        return x_BTC

    def in_head(self, hidden_BC: Tensor, layer: int, batch: Batch) -> Tensor:
        """Called on each hidden layer of this side's projection head."""
        return hidden_BC

    def auxiliary(
        self, batch: Batch, audio_BD: Tensor, midi_BD: Tensor, pair_loss: PairLoss
    ) -> dict[str, Tensor]:
        """Weighted terms to add to the loss, by name."""
        return {}

    def pooled_input(self, batch: Batch) -> Tensor | None:
        """``[B, K]`` that conditions the mechanism, if one vector a segment does."""
        return None


MECHANISMS: Registry[type[Mechanism]] = Registry("mechanism", entry_point="xmodal.mechanisms")
