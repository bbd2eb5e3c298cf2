"""film: every layer's output scaled and shifted by what one vector a segment says (method §3).

``h ← (1 + γ_l) h + β_l`` after each Transformer layer, with ``(γ, β) = Linear(ReLU(Linear(c)))`` for
all layers at once; ``c`` is the pooled descriptor. The last layer starts at zero, so the mechanism
starts as the identity. On MIDI the encoder's output LayerNorm follows.

In ``paper``, ``c`` of A4 is its time mean, which is 0 (§9.3): the arm learns a constant.

Shape suffixes: B batch, T tokens, C channels.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from pipeline.descriptors.contract import Descriptor
from trainer.batch import Batch, Tokens
from trainer.config import MechanismsConfig
from trainer.mechanisms.contract import EVERY_AXIS, MECHANISMS, Host, Mechanism


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FilmOptions:
    """Width of the generator's hidden layer."""

    hidden: int = 128


def generator(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """``Linear → ReLU → Linear``; the last layer gives zeros at the start."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), last)


@MECHANISMS.register("film")
class Film(Mechanism):
    """Feature-wise modulation of every Transformer layer by the pooled descriptor."""

    slot = "layers"
    axes = EVERY_AXIS
    pools = True
    Options = FilmOptions
    summary = "every layer's output scaled and shifted by the pooled descriptor; starts as identity"

    def __init__(
        self, host: Host, descriptor: Descriptor, config: MechanismsConfig, options: FilmOptions
    ) -> None:
        super().__init__(host, descriptor, config, options)
        outputs = host.layers * 2 * host.width
        self.generate = generator(self.source.width, options.hidden, outputs)

    def after_layer(self, x_BTC: Tensor, layer: int, tokens: Tokens, batch: Batch) -> Tensor:
        """``(1 + γ) x + β``, the same for all tokens of a segment."""
        both_BL2C = self.generate(self.pooled(batch)).unflatten(-1, (self.host.layers, 2, -1))
        gamma_B1C, beta_B1C = both_BL2C[:, layer, None].unbind(2)
        return (1 + gamma_B1C) * x_BTC + beta_B1C
