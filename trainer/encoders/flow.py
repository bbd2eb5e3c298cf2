"""The one path through either encoder, and the places where something may step in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import ClassVar, Protocol

from torch import Tensor

from trainer.attention import ScoreBias, joined
from trainer.batch import Batch, Tokens
from trainer.encoders.heads import ProjectionHead
from trainer.encoders.positions import Positions
from trainer.encoders.transformer import Transformer


class Guest(Protocol):
    """What steps into an encoder: every mechanism does (:mod:`trainer.mechanisms.contract`)."""

    @property
    def slot(self) -> str: ...  # noqa: D102

    def on_tokens(self, tokens: Tokens, batch: Batch) -> Tokens: ...  # noqa: D102

    def on_sequence(  # noqa: D102
        self, tokens: Tokens, batch: Batch, positions: Callable[[Tokens], Tokens]
    ) -> Tokens: ...

    def score_bias(self, tokens: Tokens, batch: Batch) -> ScoreBias | None: ...  # noqa: D102

    def after_layer(  # noqa: D102
        self, x_BTC: Tensor, layer: int, tokens: Tokens, batch: Batch
    ) -> Tensor: ...

    def head(self, own: ProjectionHead) -> ProjectionHead: ...  # noqa: D102

    def in_head(self, hidden: Tensor, layer: int, batch: Batch) -> Tensor: ...  # noqa: D102


class Onlooker:
    """A guest that changes nothing; what looks on overrides the hooks that it looks from.

    ``slot`` is ``layers`` where layers' outputs are wanted: padded sequences then run unpacked.
    """

    slot: ClassVar[str] = "onlooker"

    def on_tokens(self, tokens: Tokens, batch: Batch) -> Tokens:
        """Called before positions are added."""
        return tokens

    def on_sequence(
        self, tokens: Tokens, batch: Batch, positions: Callable[[Tokens], Tokens]
    ) -> Tokens:
        """Called after; ``positions`` is the encoder's own position module."""
        return tokens

    def score_bias(self, tokens: Tokens, batch: Batch) -> ScoreBias | None:
        """Added to the scores of every layer; ``tokens`` are those that the layers run on."""
        return None

    def after_layer(self, x_BTC: Tensor, layer: int, tokens: Tokens, batch: Batch) -> Tensor:
        """Called on each layer's output; ``tokens`` has the padding and times."""
        return x_BTC

    def head(self, own: ProjectionHead) -> ProjectionHead:
        """The head that this side's features go through; ``own`` is the encoder's."""
        return own

    def in_head(self, hidden: Tensor, layer: int, batch: Batch) -> Tensor:
        """Called inside the head (:class:`~trainer.encoders.heads.ProjectionHead`).

        Rows of ``hidden`` are segments (of all processes) × slots, slots fastest; what is computed
        from ``batch`` goes through ``batch.gather`` to have the same rows.
        """
        return hidden


def encode(
    batch: Batch,
    tokens: Tokens,
    positions: Positions,
    transformer: Transformer,
    guests: Sequence[Guest],
) -> Tokens:
    """Tokens before positions → the Transformer's output."""
    for guest in guests:
        tokens = guest.on_tokens(tokens, batch)
    tokens = positions(tokens)
    for guest in guests:
        tokens = guest.on_sequence(tokens, batch, positions)
    biases = [guest.score_bias(tokens, batch) for guest in guests]
    places = tokens
    # Only where one enters between layers: padded sequences then run unpacked.
    between = [guest for guest in guests if guest.slot == "layers"]

    def after_layer(x_BTC: Tensor, layer: int) -> Tensor:
        return reduce(lambda x, g: g.after_layer(x, layer, places, batch), between, x_BTC)

    x_BTC = transformer(
        tokens.x_BTC,
        tokens.padding_BT,
        joined([bias for bias in biases if bias is not None]),
        after_layer if between else None,
    )
    return tokens.replace(x_BTC)


def project(
    batch: Batch, pooled_BC: Tensor, own: ProjectionHead, guests: Sequence[Guest]
) -> Tensor:
    """Pooled features (of all processes) through the head: ``[B, D]``."""
    head = reduce(lambda h, g: g.head(h), guests, own)
    inside = [guest for guest in guests if guest.slot == "head"]

    def in_head(hidden: Tensor, layer: int) -> Tensor:
        return reduce(lambda h, g: g.in_head(h, layer, batch), inside, hidden)

    return head(pooled_BC, in_head if inside else None)
