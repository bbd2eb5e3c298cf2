"""One step of a planned run, made at once: what a task does first, on a few segments of its store.

Forward, backward and update of the real model on real segments, and the pools of the evaluations. A
login node has neither the memory for a whole split nor the time for a whole batch of a large model.
"""

from __future__ import annotations

import dataclasses
import math
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.base.errors import ConfigError, StoreError, TrainingError
from pipeline.store.reader import SegmentTable, Store
from trainer.batch import Batch
from trainer.devices import autocast, matmul_precision
from trainer.guards import constant_inputs
from trainer.model import RetrievalModel
from trainer.optim import build_optimizer
from trainer.plan import Plan
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.protocols import PROTOCOLS
from trainer.run import residents
from trainer.training import initial_model

SMALL = 2  # segments of a step that a login node can afford
PLENTY = 20_000_000  # parameters, above which it cannot afford more
SPLITS = ("train", "validation", "test")


def rehearse(plan: Plan, start: Path | None, device: torch.device) -> str:
    """Make one step as a task would, on a few segments of the store; says how it went.

    Parameters
    ----------
    start : folder of the finished run that it starts from, where there is one already

    Raises
    ------
    XmodalError, RuntimeError
        for what would end the run at its first step or its first evaluation.
    """
    config, store = plan.config, plan.store
    for split in SPLITS:
        if not len(store.segments.of_split(split)):
            raise StoreError(f"the store {store.path} has no {split} segments", kind="empty")
    trainable = store.segments.of_split("train")
    if config.segments == "valid":
        trainable = trainable[store.segments.valid[trainable]]
    if len(trainable) < config.budget.batch_size:
        raise ConfigError(
            f"the training split has {len(trainable)} segments, fewer than one batch of "
            f"{config.budget.batch_size}"
        )
    try_pools(store, config.evaluation.pool_size)
    began = time.monotonic()
    model = initial_model(config, start).to(device).train()
    size = config.budget.batch_size
    if device.type == "cpu" and plan.parameters > PLENTY:
        size = min(size, SMALL)
    few: Any = _Few(store, trainable[: config.budget.batch_size])
    resident = residents(config, plan.reads, few, "train", device, training=True)
    dead = constant_inputs(model, resident.batch(np.arange(len(resident))))
    if dead and config.preset != "paper":
        raise ConfigError(f"{', '.join(dead)} is the same for every segment")
    loss = _step(model, resident.batch(np.arange(size)), device)
    seconds = time.monotonic() - began
    less = "" if size == config.budget.batch_size else f" with a batch of {size} only"
    return f"loss {loss:.3f} on {device.type}{less}, model made and step done in {seconds:.1f} s"


@cache
def try_pools(store: Store, size: int) -> None:
    """Draw the pools that a finished run is scored on.

    Raises
    ------
    RetrievalError
        when a split is too small for them.
    """
    for split in SPLITS[1:]:
        gallery = Gallery.from_store(store, split)
        for _, protocol in PROTOCOLS.items():
            protocol.pools(gallery, None, size)


def _step(model: RetrievalModel, batch: Batch, device: torch.device) -> float:
    """Forward, backward, update; the loss."""
    config = model.config
    optimizer = build_optimizer(model, config.optimizer)
    model.begin_epoch(1, config.budget.epochs)
    with matmul_precision(config.precision):
        with autocast(config.precision, device):
            loss, _ = model.training_step(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        optimizer.step()
    found, length = float(loss.detach()), float(norm)
    if not math.isfinite(found) or not math.isfinite(length):
        raise TrainingError(f"loss {found}, gradient norm {length}", kind="diverged")
    return found


class _Few:
    """A store of which only some segments are in use: a login node does not load a whole split."""

    def __init__(self, store: Store, rows: Any) -> None:
        self._store = store
        split = np.full(len(store.segments), "unused", object)
        split[rows] = "train"
        self.segments: SegmentTable = dataclasses.replace(store.segments, split=split)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
