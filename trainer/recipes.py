"""Recipes: several runs, each starting from the one before.

``foundation`` is the starting point of the paper's screening (method §6.3). Its first stage leaves the
whole audio encoder random and trains MIDI encoder and heads (45 epochs; the reference's first epochs
had 200 batches, later ones 1,000; all have 1,000 here), the last epoch counts; its second stage is
policy run-d from there, and the best epoch counts. At size tiny both have 5 epochs of 60 batches.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.base.errors import ConfigError
from trainer.config import Size


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One run of a recipe: a name, and what is laid over the preset."""

    name: str
    over: dict[str, Any]


def _gate_2(epochs: int, batches: int, warmup: int) -> Stage:
    groups = [
        {"name": "midi", "modules": ["midi"], "lr": 1e-4},
        {"name": "heads", "modules": ["audio_head", "midi_head", "loss"], "lr": 1e-3},
        {"name": "mechanisms", "modules": ["mechanisms"], "lr": 5e-4},
    ]
    return Stage(
        name="gate-2",
        over={
            "freeze": "gate-2",
            "optimizer": {"groups": groups},
            "schedule": {"name": "cosine", "options": {"warmup": warmup}},
            "budget": {"epochs": epochs, "batches_per_epoch": batches},
            "evaluation": {"first": epochs},
        },
    )


def _d_02(epochs: int, batches: int, warmup: int) -> Stage:
    return Stage(
        name="d-02",
        over={
            "freeze": "run-d",
            "schedule": {"name": "cosine", "options": {"warmup": warmup}},
            "budget": {"epochs": epochs, "batches_per_epoch": batches},
            "evaluation": {"first": 1},
        },
    )


RECIPES: dict[str, dict[Size, tuple[Stage, ...]]] = {
    "foundation": {
        "base": (_gate_2(45, 1000, 500), _d_02(30, 1000, 200)),
        "tiny": (_gate_2(5, 60, 24), _d_02(5, 60, 12)),
    }
}


def stages(recipe: str, size: Size) -> tuple[Stage, ...]:
    """The runs of a recipe, in order."""
    if recipe not in RECIPES:
        raise ConfigError(f"unknown recipe '{recipe}': known: {', '.join(RECIPES)}")
    return RECIPES[recipe][size]
