"""aux_loss: the embeddings must also agree with what a small network makes of the descriptor.

Encoders stay as they are. ``r = LayerNorm(Linear(MLP(d)))`` has the embedding's length, and
``weight · (V(a, r) + V(m, r)) / 2`` joins the loss (method §3 aux, §5; the reference's D1–D3 with
weight 0.1). ``MLP``: ``Linear → LayerNorm → ReLU → Dropout → Linear → LayerNorm → ReLU → Linear``.

Shape suffixes: B batch, D embedding.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from pipeline.descriptors.contract import Descriptor
from trainer.batch import Batch
from trainer.config import MechanismsConfig
from trainer.dropout import Dropout
from trainer.mechanisms.contract import EVERY_AXIS, MECHANISMS, Host, Mechanism, PairLoss


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AuxiliaryOptions:
    """Widths of the network, dropout inside it, and the weight of its term."""

    hidden: int = 128
    output: int = 64
    dropout: float = 0.1
    weight: float = 0.1


@MECHANISMS.register("aux_loss")
class AuxiliaryLoss(Mechanism):
    """A third view of the segment, from the descriptor alone, in the loss alone."""

    slot = "loss"
    axes = EVERY_AXIS
    pools = True
    Options = AuxiliaryOptions
    summary = "a further term of the loss: both embeddings agree with a network of the descriptor"

    def __init__(
        self,
        host: Host,
        descriptor: Descriptor,
        config: MechanismsConfig,
        options: AuxiliaryOptions,
    ) -> None:
        super().__init__(host, descriptor, config, options)
        hidden, output = options.hidden, options.output
        self.weight = options.weight
        self.encode = nn.Sequential(
            nn.Linear(self.source.width, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            Dropout(options.dropout),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, output),
        )
        self.project = nn.Sequential(
            nn.Linear(output, host.embedding), nn.LayerNorm(host.embedding)
        )

    def auxiliary(
        self, batch: Batch, audio_BD: Tensor, midi_BD: Tensor, pair_loss: PairLoss
    ) -> dict[str, Tensor]:
        """The weighted mean of the losses between either embedding and the third view."""
        r_BD = batch.gather(self.project(self.encode(self.pooled(batch))))
        term = 0.5 * (pair_loss(audio_BD, r_BD) + pair_loss(midi_BD, r_BD))
        return {f"auxiliary_{self.descriptor.name}": self.weight * term}
