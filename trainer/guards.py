"""What stops a run that cannot come to anything: NaN, divergence, nothing moving, constant input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.base.errors import TrainingError
from trainer.batch import Batch
from trainer.model import RetrievalModel, parameter_inventory

LEAST_DRIFT = 1e-6
LEAST_STD = 1e-4


def check_step(
    values: dict[str, float], *, first_loss: float, factor: float, step: int,
    segments: Sequence[int], arm: str,
) -> None:  # fmt: skip
    """Loss and gradient norm are finite, and the loss is not ``factor`` times the first one.

    Raises
    ------
    TrainingError
        (kind ``diverged``) naming arm, step and the batch's segments.
    """
    items = ", ".join(map(str, segments[:64]))
    where = f"arm {arm}, step {step}, segments {items}"
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(values[name]):
            raise TrainingError(f"{name} is {values[name]}: {where}", kind="diverged")
    limit = factor * max(abs(first_loss), 1.0)
    if values["loss"] > limit:
        raise TrainingError(
            f"loss {values['loss']:.4g} is more than {factor:g} times the first one "
            f"({first_loss:.4g}): {where}; lower the learning rate",
            kind="diverged",
        )


def check_drift(
    optimizer: torch.optim.Optimizer, model: RetrievalModel, start: dict[str, Tensor]
) -> None:
    """Every optimiser group, and every part of the model, has moved since the start (method §6.6).

    Parameters
    ----------
    start : the model's state before the first step

    Raises
    ------
    TrainingError
        (kind ``no-drift``) naming what stood still: relative change below 1e-6, or none at all of a
        single number, which may have been moved there and back (InfoNCE's scale in a short epoch).
    """
    parts: dict[str, list[str]] = {}
    for group in optimizer.param_groups:
        parts.setdefault(f"group {group['group']}", []).extend(group["names"])
    now = dict(model.named_parameters())
    for row in parameter_inventory(model)[:-1]:
        prefix = f"{row.module}."
        names = [n for n, p in now.items() if n.startswith(prefix) and p.requires_grad]
        parts |= {row.module: names} if names else {}
    for part, names in parts.items():
        moved = size = 0.0
        for name in names:
            before = start[name].double()
            moved += float((now[name].detach().cpu().double() - before).square().sum())
            size += float(before.square().sum())
        single = sum(start[name].numel() for name in names) == 1
        least = 0.0 if single else LEAST_DRIFT * math.sqrt(size)
        if math.sqrt(moved) <= least:
            raise TrainingError(
                f"{part} did not move in the first epoch: no gradient reaches it", kind="no-drift"
            )


@torch.no_grad()
def constant_inputs(model: RetrievalModel, batch: Batch) -> list[str]:
    """Mechanisms that are conditioned on one vector a segment which is the same for all segments.

    The control that gives zeros means to do that.
    """
    dead: list[str] = []
    if model.config.control.name == "zero":
        return dead
    for mechanism in model.every_mechanism():
        if mechanism.pools and float(mechanism.pooled(batch).std(dim=0).max()) < LEAST_STD:
            dead.append(f"{mechanism.source.name} pooled for {type(mechanism).__name__}")
    return dead
