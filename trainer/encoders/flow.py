"""The one path through either encoder, with the places where mechanisms may step in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from torch import Tensor

from trainer.batch import Batch, Tokens
from trainer.encoders.positions import Positions
from trainer.encoders.transformer import Transformer
from trainer.mechanisms.contract import Mechanism


def encode(
    batch: Batch,
    tokens: Tokens,
    positions: Positions,
    transformer: Transformer,
    mechanisms: Sequence[Mechanism],
) -> Tokens:
    """Tokens before positions → the Transformer's output."""
    for mechanism in mechanisms:
        tokens = mechanism.on_tokens(tokens, batch)
    tokens = positions(tokens)
    for mechanism in mechanisms:
        tokens = mechanism.on_sequence(tokens, batch, positions)
    biases = [m.attention_bias(tokens, batch) for m in mechanisms]
    given = [bias for bias in biases if bias is not None]
    places = tokens
    # Asked for only where a mechanism overrides it: padded sequences then run unpacked.
    between = [m for m in mechanisms if type(m).after_layer is not Mechanism.after_layer]

    def after_layer(x_BTC: Tensor, layer: int) -> Tensor:
        return reduce(lambda x, m: m.after_layer(x, layer, places, batch), between, x_BTC)

    x_BTC = transformer(
        tokens.x_BTC,
        tokens.padding_BT,
        sum(given[1:], given[0]) if given else None,
        after_layer if between else None,
    )
    return tokens.replace(x_BTC)
