"""What a mechanism is: the way one descriptor enters one encoder (method §3).

An encoder runs ``front end → on_tokens → positions → on_sequence → layers (score_bias,
after_layer) → pool → head (in_head)``. A mechanism overrides the hooks that it needs; the others pass
their input through. It reads its descriptor from the batch by name and knows no arm; encoders and
the training loop know no mechanism.

======== ===================== ==================================================
slot     hook                  for
======== ===================== ==================================================
tokens   ``on_tokens``         changing tokens before positions are added
sequence ``on_sequence``       changing or replacing the positioned sequence
layers   ``after_layer``       changing the output of each Transformer layer
scores   ``score_bias``        a bias on the attention scores of every layer
head     ``in_head``           changing hidden layers of the projection head
loss     ``auxiliary``         further terms of the loss; may be taken many times
view     ``pair_weight``       a further view, which weighs the loss anew; one a run
======== ===================== ==================================================

Any slot but the last two holds one mechanism a side. Any mechanism may add terms to the loss. All
parameters of mechanisms live below ``mechanisms`` in the model, which is where the optimiser finds
them.

Shape suffixes: B batch, T tokens, C channels, D embedding, H heads, R rank, K descriptor width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from pipeline.base.registry import Registry
from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Axis, Descriptor, Side
from trainer.batch import Batch
from trainer.config import MechanismsConfig
from trainer.encoders.flow import Onlooker
from trainer.encoders.heads import ProjectionHead
from trainer.mechanisms.align import mean_over_time

Slot = Literal["tokens", "sequence", "layers", "scores", "head", "loss", "view"]
PairLoss = Callable[[Tensor, Tensor], Tensor]

# Where a descriptor may lie on each side; D5, on frames, is one of the notes' descriptors.
EVERY_AXIS: Mapping[Side, tuple[Axis, ...]] = MappingProxyType(
    {"audio": ("frame", "segment"), "midi": ("frame", "note", "segment")}
)
SEQUENCES: Mapping[Side, tuple[Axis, ...]] = MappingProxyType(
    {"audio": ("frame",), "midi": ("frame", "note")}
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NoOptions:
    """For mechanisms without options of their own."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """What a mechanism may know of the encoder that it enters.

    ``head_widths``: channels of what ``in_head`` is called on, one per call. ``embedding``: length of
    the embedding.
    """

    side: Side
    width: int
    heads: int
    layers: int
    head_widths: tuple[int, ...]
    embedding: int


class Mechanism(Onlooker, nn.Module):
    """Base of all mechanisms: an onlooker, until it overrides one of the encoders' hooks.

    Attributes
    ----------
    slot : where it enters (see the module)
    axes : per side of the encoder, the descriptor axes it can take
    pools : whether it wants one vector a segment (then ``MechanismsConfig.pooled`` decides which)
    replaces : whether the sequence lies where its descriptor does from ``on_sequence`` on
    leaks : whether an embedding comes to depend on the item it is paired with; such a score is no
        retrieval score, and says so
    Options : frozen dataclass of its own options
    source : the descriptor whose values it reads: its own or, pooled, the declared companion
    """

    slot: ClassVar[Slot]
    axes: ClassVar[Mapping[Side, tuple[Axis, ...]]]
    pools: ClassVar[bool] = False
    replaces: ClassVar[bool] = False
    leaks: ClassVar[bool] = False
    summary: ClassVar[str]
    Options: ClassVar[type] = NoOptions

    def __init__(
        self, host: Host, descriptor: Descriptor, config: MechanismsConfig, options: Any
    ) -> None:
        super().__init__()
        self.host = host
        self.descriptor = descriptor
        self.source = descriptor
        if self.pools and config.pooled == "companion" and descriptor.pooled is not None:
            self.source = DESCRIPTORS.get(descriptor.pooled)

    @classmethod
    def enters(cls, descriptor: Descriptor) -> Side:
        """The encoder it enters: that of the descriptor's own modality."""
        return descriptor.side

    @classmethod
    def check(cls, options: Any) -> None:
        """Refuse options that make no sense, with a ``ConfigError``."""

    def reads(self) -> tuple[str, ...]:
        """The store's arrays that it needs."""
        return (self.source.name,)

    @property
    def embeds(self) -> bool:
        """Whether an embedding depends on it, or only the loss does."""
        return self.slot not in ("loss", "view")

    def values(self, batch: Batch) -> Tensor:
        """The descriptor of the batch: ``[B, 188, K]``, ``[B, K]`` or ``[B, N, K]``."""
        return batch.arrays[self.source.name]

    def pooled(self, batch: Batch) -> Tensor:
        """One vector a segment: ``[B, K]``, the mean over frames or over notes (not padding)."""
        return mean_over_time(self.values(batch), self.source.axis, batch.padding_BN)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Called in training before the first step of ``epoch`` (from 1), and on resume."""

    def adopt(self, head: ProjectionHead) -> None:
        """Called with the side's head when it is made, and again when it was given weights."""

    def pair_weight(self) -> float:
        """What the loss between the two embeddings is multiplied by."""
        return 1.0

    def auxiliary(
        self, batch: Batch, audio_BD: Tensor, midi_BD: Tensor, pair_loss: PairLoss
    ) -> dict[str, Tensor]:
        """Weighted terms to add to the loss, by name; equal names of several mechanisms average.

        The embeddings are those of all processes; so must be the terms (``batch.gather``).
        """
        return {}


MECHANISMS: Registry[type[Mechanism]] = Registry("mechanism", entry_point="xmodal.mechanisms")
