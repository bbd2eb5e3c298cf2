"""film_head: FiLM inside the projection head (method §3, the author's "-pca").

The arm works in a *copy* of the encoder's head, which the encoder's own head, frozen, has lent its
weights to; after every hidden layer ``h ← (1 + γ) h + β`` with a generator per layer from the pooled
descriptor, zero at the start. ``copy = false`` modulates the encoder's own head instead.

A head without hidden layers (preset ``sound``) is modulated at its input. Every slot of time gets the
same modulation.

Shape suffixes: B batch, C channels.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn

from pipeline.descriptors.contract import Descriptor
from trainer.batch import Batch
from trainer.config import MechanismsConfig
from trainer.encoders.heads import ProjectionHead
from trainer.mechanisms.contract import EVERY_AXIS, MECHANISMS, Host, Mechanism
from trainer.mechanisms.film import generator


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FilmHeadOptions:
    """Width of the generators' hidden layer; whether the head is a copy beside the frozen own one."""

    hidden: int = 64
    copy: bool = True


@MECHANISMS.register("film_head")
class FilmHead(Mechanism):
    """Feature-wise modulation inside the projection head by the pooled descriptor."""

    slot = "head"
    axes = EVERY_AXIS
    pools = True
    Options = FilmHeadOptions
    summary = "FiLM inside (a copy of) the projection head; starts as identity"

    def __init__(
        self,
        host: Host,
        descriptor: Descriptor,
        config: MechanismsConfig,
        options: FilmHeadOptions,
    ) -> None:
        super().__init__(host, descriptor, config, options)
        self.copies = options.copy
        self.generators = nn.ModuleList(
            generator(self.source.width, options.hidden, 2 * width) for width in host.head_widths
        )
        self.copied: ProjectionHead | None = None

    def adopt(self, head: ProjectionHead) -> None:
        """Take the head's weights over, and freeze it."""
        if not self.copies:
            return
        if self.copied is None:
            self.copied = copy.deepcopy(head)
        self.copied.load_state_dict(head.state_dict())
        head.requires_grad_(False)

    def head(self, own: ProjectionHead) -> ProjectionHead:
        """The copy, once there is one."""
        return own if self.copied is None else self.copied

    def in_head(self, hidden: Tensor, layer: int, batch: Batch) -> Tensor:
        """``(1 + γ) h + β``."""
        both_B2C = batch.gather(self.generators[layer](self.pooled(batch)))
        rows_per_segment = len(hidden) // len(both_B2C)
        both_R2C = both_B2C.repeat_interleave(rows_per_segment, dim=0)
        gamma_RC, beta_RC = torch.chunk(both_R2C, 2, dim=-1)
        return (1 + gamma_RC) * hidden + beta_RC
