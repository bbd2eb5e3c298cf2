"""moe: after every layer, two small experts mixed by a router that sees the descriptor (method §3).

``h ← h + Σ_e w_e E_e(h)``, ``w = softmax(router([h_t ; c]))`` for every token, ``c`` the pooled
descriptor; ``E_e = Linear(C→C/4) GELU Linear(C/4→C)``. A load-balance term, ``E · Var(p̄_e)`` of the
mean routing probabilities (for two experts ``(p̄_1 - p̄_2)²``), is averaged over layers, and over sides
where both have experts, and added with weight 0.01; padding does not count.

======== =========================================================================================
variant  options
======== =========================================================================================
v1       experts' last layers start at zero (the mechanism starts as the identity)
v2       they start at N(0, 0.02²); noise on router logits in training, 0.5 → 0.05 over the epochs
v3       v2, and 0.01 × the mean routing entropy in the loss (it rewards certain routers)
v4       v2, and only the likelier expert answers, its gradient passed straight through
======== =========================================================================================

Shape suffixes: B batch, T tokens, C channels, E experts.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.base.errors import ConfigError
from pipeline.descriptors.contract import Descriptor
from trainer.batch import Batch, Tokens
from trainer.config import MechanismsConfig
from trainer.mechanisms.contract import EVERY_AXIS, MECHANISMS, Host, Mechanism, PairLoss


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExpertsOptions:
    """How experts start, how their router is disturbed in training, and what the loss asks of it.

    ``noise_first`` and ``noise_last``: standard deviation of noise on router logits in the first and
    the last epoch, linear in between.
    """

    experts: int = 2
    router: int = 64
    start: Literal["zero", "normal"] = "zero"
    noise_first: float = 0.0
    noise_last: float = 0.0
    gate: Literal["soft", "top1"] = "soft"
    balance: float = 0.01
    entropy: float = 0.0


V2 = {"start": "normal", "noise_first": 0.5, "noise_last": 0.05}
VARIANTS: dict[str, dict[str, Any]] = {
    "v1": {},
    "v2": V2,
    "v3": {**V2, "entropy": 0.01},
    "v4": {**V2, "gate": "top1"},
}


class Adapter(nn.Module):
    """Router and experts of one layer."""

    def __init__(self, width: int, conditioning: int, options: ExpertsOptions) -> None:
        super().__init__()
        self.options = options
        self.router = nn.Sequential(
            nn.Linear(width + conditioning, options.router),
            nn.GELU(),
            nn.Linear(options.router, options.experts),
        )
        self.experts = nn.ModuleList(_expert(width, options) for _ in range(options.experts))

    def forward(self, x_BTC: Tensor, c_BK: Tensor, noise: float) -> tuple[Tensor, Tensor]:
        """(what to add, routing probabilities ``[B, T, E]``)."""
        c_BTK = c_BK[:, None].expand(-1, x_BTC.shape[1], -1)
        logits_BTE = self.router(torch.cat([x_BTC, c_BTK], dim=-1)).float()
        if noise:
            logits_BTE = logits_BTE + noise * torch.randn_like(logits_BTE)
        p_BTE = logits_BTE.softmax(dim=-1)
        weight_BTE = _straight_through(p_BTE) if self.options.gate == "top1" else p_BTE
        answers = [
            weight_BTE[..., e, None] * expert(x_BTC) for e, expert in enumerate(self.experts)
        ]
        return torch.stack(answers).sum(dim=0).to(x_BTC.dtype), p_BTE


@MECHANISMS.register("moe")
class Experts(Mechanism):
    """Adapters of a few experts after every layer, routed by token and pooled descriptor."""

    slot = "layers"
    axes = EVERY_AXIS
    pools = True
    Options = ExpertsOptions
    summary = "after every layer, experts routed by the token and the pooled descriptor"

    def __init__(
        self, host: Host, descriptor: Descriptor, config: MechanismsConfig, options: ExpertsOptions
    ) -> None:
        super().__init__(host, descriptor, config, options)
        self.options = options
        self.adapters = nn.ModuleList(
            Adapter(host.width, self.source.width, options) for _ in range(host.layers)
        )
        self.noise = options.noise_first
        self.routing: list[tuple[Tensor, Tensor | None]] = []

    @classmethod
    def check(cls, options: ExpertsOptions) -> None:
        """At least two experts, and a router."""
        if options.experts < 2 or options.router < 1:
            raise ConfigError("moe needs at least 2 experts and a router of at least 1 channel")

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Noise falls linearly from the first epoch to the last."""
        o = self.options
        part = (epoch - 1) / max(1, epochs - 1)
        self.noise = o.noise_first + (o.noise_last - o.noise_first) * part

    def after_layer(self, x_BTC: Tensor, layer: int, tokens: Tokens, batch: Batch) -> Tensor:
        """Add the experts' answers; in training, remember how tokens were routed."""
        noise = self.noise if self.training else 0.0
        added_BTC, p_BTE = self.adapters[layer](x_BTC, self.pooled(batch), noise)
        if self.training:
            if layer == 0:
                self.routing.clear()
            self.routing.append((p_BTE, tokens.padding_BT))
        return x_BTC + added_BTC

    def auxiliary(
        self, batch: Batch, audio_BD: Tensor, midi_BD: Tensor, pair_loss: PairLoss
    ) -> dict[str, Tensor]:
        """Load balance and routing entropy, over the tokens of all processes."""
        if not self.routing:  # nothing was remembered: not in training
            return {}
        balance, entropy = [], []
        for p_BTE, padding_BT in self.routing:
            keep_BT1 = torch.ones_like(p_BTE[..., :1])
            if padding_BT is not None:
                keep_BT1 = keep_BT1.masked_fill(padding_BT[..., None], 0)
            entropy_BT1 = -(p_BTE * (p_BTE + 1e-8).log()).sum(dim=-1, keepdim=True)
            sums_BX = (torch.cat([p_BTE, entropy_BT1, keep_BT1], dim=-1) * keep_BT1).sum(dim=1)
            sums_X = batch.gather(sums_BX).sum(dim=0)
            mean_X = sums_X[:-1] / sums_X[-1].clamp(min=1)
            balance.append(self.options.experts * mean_X[:-1].var())
            entropy.append(mean_X[-1])
        self.routing.clear()
        terms = {"load_balance": self.options.balance * torch.stack(balance).mean()}
        if self.options.entropy:
            terms["routing_entropy"] = self.options.entropy * torch.stack(entropy).mean()
        return terms


def _expert(width: int, options: ExpertsOptions) -> nn.Sequential:
    first, last = nn.Linear(width, width // 4), nn.Linear(width // 4, width)
    if options.start == "normal":
        nn.init.normal_(last.weight, std=0.02)
    else:
        nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.GELU(), last)


def _straight_through(p_BTE: Tensor) -> Tensor:
    """One for the likeliest expert, zero for the others; gradients as if it were ``p``."""
    chosen_BTE = F.one_hot(p_BTE.argmax(dim=-1), p_BTE.shape[-1]).to(p_BTE.dtype)
    return chosen_BTE + p_BTE - p_BTE.detach()
