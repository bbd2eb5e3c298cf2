"""AdamW whose groups follow from module paths, and the inventory that is taken before step 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipeline.base.errors import ConfigError
from trainer.config import GroupConfig, OptimizerConfig

FREEZE_POLICIES: dict[str, tuple[str, ...]] = {
    "none": (),
    "run-d": ("audio.frontend", "audio.positions"),
    "run-b": (
        "audio.frontend",
        "audio.positions",
        "audio.transformer.layers.0",
        "audio.transformer.layers.1",
    ),
    "gate-2": ("audio",),
}
"""Policy → paths of the modules that it freezes (method §6.2; ``gate-2`` is the foundation's first
stage, §6.3, which leaves the whole audio encoder random)."""


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the model's trainable parameters (method §6.1).

    A group's rate is written at ``lr`` and, for the schedule to multiply, at ``base_lr``. With
    ``decay = matrices`` each group splits into one with weight decay and one without.

    Raises
    ------
    ConfigError
        when a trainable parameter is in no group or in two (:func:`check_inventory`).
    """
    groups: list[dict[str, Any]] = []
    for group in config.groups:
        named = _below(model, group)
        for decayed in (True, False):
            chosen = {n: p for n, p in named.items() if _decays(p, config) is decayed}
            if chosen:
                groups.append(
                    {
                        "params": list(chosen.values()),
                        "names": list(chosen),
                        "group": group.name,
                        "lr": group.lr,
                        "base_lr": group.lr,
                        "weight_decay": config.weight_decay if decayed else 0.0,
                    }
                )
    check_inventory(model, groups)
    beta1, beta2 = config.betas
    return torch.optim.AdamW(groups, betas=(beta1, beta2), eps=config.eps, fused=True)


def check_inventory(model: nn.Module, groups: list[dict[str, Any]]) -> None:
    """Every trainable parameter in exactly one group, frozen ones in none.

    Raises
    ------
    ConfigError
        naming the first parameter that breaks the rule, and the groups involved.
    """
    owners: dict[int, list[str]] = {}
    for group in groups:
        for parameter in group["params"]:
            owners.setdefault(id(parameter), []).append(group["group"])
    for name, parameter in model.named_parameters():
        found = owners.get(id(parameter), [])
        if parameter.requires_grad and not found:
            raise ConfigError(f"parameter {name} would not be trained: it is in no optimizer group")
        if parameter.requires_grad and len(found) > 1:
            raise ConfigError(f"parameter {name} is in optimizer groups {' and '.join(found)}")
        if not parameter.requires_grad and found:
            raise ConfigError(f"parameter {name} is frozen, but in optimizer group {found[0]}")


def set_rates(optimizer: torch.optim.Optimizer, multiplier: float) -> None:
    """Every group's rate = its base rate × ``multiplier``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * multiplier


def _below(model: nn.Module, group: GroupConfig) -> dict[str, nn.Parameter]:
    named: dict[str, nn.Parameter] = {}
    for path in group.modules:
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise ConfigError(f"optimizer group {group.name}: the model has no {path}") from None
        named |= {f"{path}.{n}": p for n, p in module.named_parameters() if p.requires_grad}
    return named


def _decays(parameter: nn.Parameter, config: OptimizerConfig) -> bool:
    return config.decay == "all" or parameter.ndim >= 2
