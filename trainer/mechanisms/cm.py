"""cm: each encoder is given the *other* modality's descriptor (method §3, d4a4cm).

``x ← LayerNorm(Linear([x ; d]))`` before positions, with a descriptor of the notes brought to the
audio tokens, and one of the sound to the notes, by linear interpolation over the index, padding
included: nothing is aligned in time, and embeddings depend on batch mates (§9.6).

**It leaks**: the embedding of a sound is computed with the very notes that it is then asked to find
(§9.7), so its score is no retrieval score. Preset ``paper`` only; results say so.

Shape suffixes: B batch, T tokens, U rows of the descriptor, C channels, K descriptor width.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F

from pipeline.descriptors.contract import Axis, Descriptor, Side
from trainer.batch import Batch, Tokens
from trainer.mechanisms.concat import Concat
from trainer.mechanisms.contract import MECHANISMS

AXES: Mapping[Side, tuple[Axis, ...]] = MappingProxyType(
    {"audio": ("frame", "note"), "midi": ("frame", "note")}
)


@MECHANISMS.register("cm")
class CrossModalConcat(Concat):
    """The paired item's descriptor beside every token: the answer, given away."""

    axes = AXES
    leaks = True
    summary = "concat of the other modality's descriptor: leaks the paired item (paper only)"

    @classmethod
    def enters(cls, descriptor: Descriptor) -> Side:
        """The encoder of the other modality."""
        return "midi" if descriptor.side == "audio" else "audio"

    def on_tokens(self, tokens: Tokens, batch: Batch) -> Tokens:
        """Mix the stretched descriptor into every token."""
        d_BKU = self.values(batch).transpose(1, 2)
        d_BTK = F.interpolate(d_BKU, size=tokens.x_BTC.shape[1], mode="linear").transpose(1, 2)
        return tokens.replace(self.norm(self.project(torch.cat([tokens.x_BTC, d_BTK], dim=-1))))
