"""reverse_xattn: the descriptor asks, the sequence answers (method §3, rev-A and rev-M).

``z = LayerNorm(q + MHA(q, k=x, v=x))`` replaces the sequence; the encoder's own Transformer then runs
on ``z``. Queries are a linear map of the descriptor plus a position code:

* per frame (audio): a learnable table of 200 rows, N(0, 0.02²), of its own;
* per note (MIDI): the encoder's own position module, its dropout included.

A per-frame descriptor of the notes (D5) asks the notes from its own frames.

``key_padding = missing`` (the reference) lets notes attend to padding, so that an embedding depends on
its batch mates (§9.6); ``present`` hides it. Not the identity at the start (§9.8).

Shape suffixes: B batch, T tokens of the sequence, Q queries, C channels, K descriptor width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipeline.descriptors.contract import Axis, Descriptor
from trainer.attention import Attention
from trainer.batch import Batch, Tokens, frame_times
from trainer.config import MechanismsConfig
from trainer.mechanisms.contract import MECHANISMS, SEQUENCES, Host, Mechanism

QUERY_ROWS = 200

PositionCode = Callable[[Tokens], Tokens]


class FrameQueries(nn.Module):
    """Queries on the descriptor's own 188 frames, with a position table of their own."""

    def __init__(self, width: int, descriptor_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(descriptor_width, width)
        self.rows_1RC = nn.Parameter(torch.empty(1, QUERY_ROWS, width))
        nn.init.normal_(self.rows_1RC, std=0.02)

    def forward(self, values: torch.Tensor, tokens: Tokens, positions: PositionCode) -> Tokens:
        """Descriptor ``[B, Q, K]`` → queries at its frames, none of them padding."""
        q_BQC = self.project(values)
        q_BQC = q_BQC + self.rows_1RC[:, : q_BQC.shape[1]]
        return Tokens(x_BTC=q_BQC, time_BT=frame_times(q_BQC.shape[1], q_BQC))


class NoteQueries(nn.Module):
    """Queries at the notes themselves, through the encoder's position module."""

    def __init__(self, width: int, descriptor_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(descriptor_width, width)

    def forward(self, values: torch.Tensor, tokens: Tokens, positions: PositionCode) -> Tokens:
        """Descriptor ``[B, N, K]`` → queries at the notes' places."""
        return positions(tokens.replace(self.project(values)))


_QUERIES: dict[Axis, type[FrameQueries] | type[NoteQueries]] = {
    "frame": FrameQueries,
    "note": NoteQueries,
}


@MECHANISMS.register("reverse_xattn")
class ReverseCrossAttention(Mechanism):
    """Descriptor queries over the encoder's sequence; the Transformer runs on the answers."""

    slot = "sequence"
    axes = SEQUENCES
    replaces = True
    summary = (
        "descriptor as queries over the positioned sequence; the Transformer runs on the answers"
    )

    def __init__(
        self, host: Host, descriptor: Descriptor, config: MechanismsConfig, options: Any
    ) -> None:
        super().__init__(host, descriptor, config, options)
        self.queries = _QUERIES[descriptor.axis](host.width, descriptor.width)
        self.attention = Attention(host.width, config.heads, config.dropout)
        self.norm = nn.LayerNorm(host.width)
        self.hide_padding = config.key_padding == "present"

    def on_sequence(self, tokens: Tokens, batch: Batch, positions: PositionCode) -> Tokens:
        """Replace the sequence by the answers at the queries' places."""
        queries = self.queries(self.values(batch), tokens, positions)
        padding_BT = tokens.padding_BT if self.hide_padding else None
        answers_BQC = self.attention(queries.x_BTC, tokens.x_BTC, padding_BT)
        return queries.replace(self.norm(queries.x_BTC + answers_BQC))
