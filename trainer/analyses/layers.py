"""What the layers of the two encoders say of segments: the mean of each layer's output over tokens.

Shape suffixes: B batch, T tokens, C channels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from torch import Tensor

from trainer.analyses.bench import Bench
from trainer.analyses.subject import FloatArray
from trainer.batch import Batch, Tokens
from trainer.embed import over_batches
from trainer.encoders.flow import Onlooker


class LayerMeans(Onlooker):
    """A guest of an encoder that keeps every layer's mean over tokens, and changes nothing.

    ``padding``: whether padding counts, as it does in the reference.
    """

    slot = "layers"

    def __init__(self, padding: bool) -> None:
        self.padding = padding
        self.means: list[Tensor] = []

    def after_layer(self, x_BTC: Tensor, layer: int, tokens: Tokens, batch: Batch) -> Tensor:
        """Keep the mean."""
        x = x_BTC.float()
        if tokens.padding_BT is None or self.padding:
            self.means.append(x.mean(dim=1))
        else:
            keep_BT1 = (~tokens.padding_BT)[..., None]
            kept = x.masked_fill(~keep_BT1, 0).sum(dim=1)
            self.means.append(kept / keep_BT1.sum(dim=1).clamp(min=1))
        return x_BTC


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """What the layers say of n segments.

    Attributes
    ----------
    audio, midi : float32 [n, width] per layer, first to last
    recording : of every segment [n]
    padding : share of padding among the notes' places in the batches that were run
    """

    audio: list[FloatArray]
    midi: list[FloatArray]
    recording: npt.NDArray[np.int32]
    padding: float


def layer_means(
    bench: Bench, positions: npt.NDArray[np.int64], batch_size: int, padding: bool
) -> Layers:
    """Run the segments through both encoders, in batches of ``batch_size``."""
    model = bench.model

    def encode(batch: Batch) -> tuple[Tensor, ...]:
        audio, midi = LayerMeans(padding), LayerMeans(padding)
        model.audio(batch, [*model.arm_mechanisms("audio"), audio])
        model.midi(batch, [*model.arm_mechanisms("midi"), midi])
        return (batch.padding_BN.float().mean(dim=1), *audio.means, *midi.means)

    config = bench.run.config
    n_audio, n_midi = config.audio.transformer.layers, config.midi.transformer.layers
    names = ["shares of padding"]
    names += [f"means of audio layer {i + 1}" for i in range(n_audio)]
    names += [f"means of MIDI layer {i + 1}" for i in range(n_midi)]
    padded, *means = over_batches(model, bench.resident, encode, names, batch_size, positions)
    return Layers(
        audio=means[:n_audio],
        midi=means[n_audio:],
        recording=bench.gallery.recording[positions],
        padding=float(padded.mean()),
    )
