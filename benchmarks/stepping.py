"""A training step as the loop takes it, and the shapes of the plain model beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from trainer.arms import arm_pairs
from trainer.config import RunConfig
from trainer.devices import autocast, matmul_precision
from trainer.model import RetrievalModel, build_model
from trainer.optim import build_optimizer
from trainer.presets import PAPER_CNN, TINY_CNN
from trainer.request import lay_over
from trainer.resolve import with_pairs

PLAIN_SHAPES: dict[str, dict[str, Any]] = {
    "base": {"cnn": PAPER_CNN, "widths": (1024, 512), "heads": 8, "layers": 4, "hidden": 512},
    "tiny": {"cnn": TINY_CNN, "widths": (128, 128), "heads": 4, "layers": 2, "hidden": 256},
}


class Trainer:
    """One arm's model and optimiser, and a step as the loop takes it."""

    def __init__(
        self, preset: str, size: str, arm: str, device: torch.device, precision: str, compiled: bool
    ) -> None:
        over = {"precision": precision}
        config = with_pairs(lay_over(preset, size, over), arm_pairs(arm))  # type: ignore[arg-type]
        self.config: RunConfig = config
        self.device = device
        self.model: RetrievalModel = build_model(config, device).train()
        self.optimizer = build_optimizer(self.model, config.optimizer)
        step = self.model.training_step
        self.training_step: Callable[..., Any] = torch.compile(step) if compiled else step

    def step(self, batch: Any) -> None:
        """One update."""
        with matmul_precision(self.config.precision), autocast(self.config.precision, self.device):
            loss, _ = self.training_step(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


def now(device: torch.device) -> float:
    """Wall time once the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
