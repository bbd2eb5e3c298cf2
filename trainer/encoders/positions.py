"""What tells a token where it is: rows by index, sinusoids of the index, sinusoids of seconds.

Each module takes a :class:`Tokens` and returns one; mechanisms may call the same module again on a
sequence of their own (method §3, rev-M).

Shape suffixes: B batch, T tokens, C channels, P periods, F features.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.base.registry import Registry
from trainer.batch import Tokens
from trainer.dropout import Dropout


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RowsOptions:
    """Number of rows by token index, and dropout after the sum."""

    rows: int
    dropout: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SecondsOptions:
    """Periods of the sinusoids, from shortest to longest in equal ratios, in seconds."""

    periods: int
    shortest_s: float
    longest_s: float
    dropout: float


class Positions(nn.Module):
    """Base: ``Positions(width, options)``; called on :class:`Tokens`, returns :class:`Tokens`."""

    Options: type

    def __init__(self, width: int, options: object) -> None:
        super().__init__()


POSITIONS: Registry[type[Positions]] = Registry("position code")


@POSITIONS.register("table")
class PositionTable(Positions):
    """Rows drawn from N(0, 0.02²); a longer sequence interpolates them (method §4.1)."""

    Options = RowsOptions

    def __init__(self, width: int, options: RowsOptions) -> None:
        super().__init__(width, options)
        self.rows_1RC = nn.Parameter(torch.empty(1, options.rows, width))
        nn.init.normal_(self.rows_1RC, std=0.02)
        self.dropout = Dropout(options.dropout)

    def forward(self, tokens: Tokens) -> Tokens:
        """Add row ``t`` to token ``t``."""
        n_tokens = tokens.x_BTC.shape[1]
        rows_1TC = self.rows_1RC[:, :n_tokens]
        if n_tokens > self.rows_1RC.shape[1]:
            rows_1CT = F.interpolate(self.rows_1RC.transpose(1, 2), size=n_tokens, mode="linear")
            rows_1TC = rows_1CT.transpose(1, 2)
        return tokens.replace(self.dropout(tokens.x_BTC + rows_1TC))


@POSITIONS.register("index")
class IndexSinusoids(Positions):
    """The fixed sinusoids of "Attention is all you need", base 10,000 (method §4.2)."""

    Options = RowsOptions

    def __init__(self, width: int, options: RowsOptions) -> None:
        super().__init__(width, options)
        self.width, self.rows = width, options.rows
        self.dropout = Dropout(options.dropout)
        self.register_buffer("table_RC", index_sinusoids(options.rows, width), persistent=False)

    def forward(self, tokens: Tokens) -> Tokens:
        """Add the sinusoids of ``t`` to token ``t``, then dropout."""
        n_tokens = tokens.x_BTC.shape[1]
        table_RC: Tensor = self.get_buffer("table_RC")
        if n_tokens > self.rows:  # the reference fails here
            table_RC = index_sinusoids(n_tokens, self.width).to(table_RC)
        return tokens.replace(self.dropout(tokens.x_BTC + table_RC[:n_tokens]))


@POSITIONS.register("seconds")
class SecondsSinusoids(Positions):
    """A learnt projection of sinusoids of the token's time: notes and frames share one clock."""

    Options = SecondsOptions

    def __init__(self, width: int, options: SecondsOptions) -> None:
        super().__init__(width, options)
        self.sinusoids = Sinusoids(options)
        self.project = nn.Linear(self.sinusoids.features, width)
        self.dropout = Dropout(options.dropout)

    def forward(self, tokens: Tokens) -> Tokens:
        """Add the code of each token's time, then dropout."""
        code_BTC = self.project(self.sinusoids(tokens.time_BT))
        return tokens.replace(self.dropout(tokens.x_BTC + code_BTC))


class Sinusoids(nn.Module):
    """sin and cos of a quantity in seconds at ``periods`` periods: ``[...]`` → ``[..., 2 P]``."""

    def __init__(self, options: SecondsOptions) -> None:
        super().__init__()
        self.features = 2 * options.periods
        periods_P = torch.logspace(
            math.log10(options.shortest_s), math.log10(options.longest_s), options.periods
        )
        self.register_buffer("omega_P", 2 * math.pi / periods_P, persistent=False)

    def forward(self, seconds: Tensor) -> Tensor:
        """float32 ``[..., 2 P]``."""
        phase = seconds.float().unsqueeze(-1) * self.get_buffer("omega_P")
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


def index_sinusoids(rows: int, width: int) -> Tensor:
    """float32 [rows, width]: sin in even channels, cos in odd ones."""
    index_R1 = torch.arange(rows, dtype=torch.float32)[:, None]
    decay_F = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(1e4) / width))
    return torch.stack([(index_R1 * decay_F).sin(), (index_R1 * decay_F).cos()], dim=-1).flatten(1)
