"""The training loop. It knows no mechanism and no arm: the model computes its own loss.

A step is a pure function of the state and of (seed, step): which segments it sees, and its dropout.
That, and checkpoints taken only between steps, make a resumed run equal to an uninterrupted one, bit
for bit on a CPU.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.base.config import from_plain, to_plain
from pipeline.base.errors import Interrupted, RunError
from pipeline.base.files import atomic_write
from trainer.cache import ResidentStore, batch_order
from trainer.checkpoint import (
    MODEL,
    Checkpoint,
    checkpoint_path,
    load_latest,
    prune,
    save_checkpoint,
    verifies,
)
from trainer.devices import autocast, matmul_precision, peak_memory
from trainer.guards import check_drift, check_step, constant_inputs
from trainer.metrics_log import MetricsLog
from trainer.model import RetrievalModel
from trainer.optim import build_optimizer, set_rates
from trainer.schedules import update_multiplier
from trainer.signals import StopFlag, stop_on_signals

Event = dict[str, Any]
Report = Callable[[Event], None]
Evaluate = Callable[[RetrievalModel], Mapping[str, Any]]

CHECKPOINTS, METRICS = "checkpoints", "metrics.jsonl"
CUDA_FLUSH_STEPS = 25  # reading a loss waits for the GPU; on a CPU it costs nothing


@dataclasses.dataclass(slots=True, kw_only=True)
class Progress:
    """Where a run stands; part of every checkpoint."""

    step: int = 0
    best_S: float | None = None
    best_MRR: float = -1.0
    best_step: int | None = None
    first_loss: float | None = None
    metrics_bytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """What came out: the best validation score (a fraction), and what it cost."""

    step: int
    best_S: float | None
    best_step: int | None
    seconds: float
    segments_per_s: float
    peak_memory: dict[str, int]


def fit(
    model: RetrievalModel,
    resident: ResidentStore,
    folder: Path,
    *,
    arm: str,
    evaluate: Evaluate,
    report: Report = lambda event: None,
    initial_state: Callable[[], Mapping[str, Tensor]],
    compiled: bool = False,
) -> FitResult:
    """Train ``model`` for its configured budget, going on from the newest checkpoint in ``folder``.

    Parameters
    ----------
    model : on the device, as initialised; ``model.config`` says everything else
    resident : the training split
    folder : the run's; gets ``checkpoints/``, ``metrics.jsonl`` and ``model.safetensors`` of the best
    arm : for messages
    evaluate : called with the model when an evaluation is due; must return ``S``, by which the best
        is chosen, and may return ``MRR``, which decides between steps of equal S
    report : called with a dict that has ``event``: ``resumed``, ``step``, ``evaluation``, ``epoch``,
        ``checkpoint`` or ``warning``
    initial_state : the model's state before step 1, for the drift check
    compiled : whether to compile the training step

    Raises
    ------
    Interrupted
        after a signal, with a checkpoint of the last finished step.
    RunError
        when the run diverges or something in it does not move.
    """
    loop = _Loop(model, resident, folder, arm, evaluate, report, initial_state, compiled)
    try:
        with stop_on_signals() as stop, matmul_precision(model.config.precision):
            loop.run(stop)
    finally:
        loop.log.close()
    return loop.result()


class _Loop:
    def __init__(
        self, model: RetrievalModel, resident: ResidentStore, folder: Path, arm: str,
        evaluate: Evaluate, report: Report, initial_state: Callable[[], Mapping[str, Tensor]],
        compiled: bool,
    ) -> None:  # fmt: skip
        self.model, self.resident, self.arm = model, resident, arm
        self.evaluate, self.report, self.initial_state = evaluate, report, initial_state
        self.config = model.config
        self.device = next(model.parameters()).device
        self.folder, self.checkpoints = folder, folder / CHECKPOINTS
        self.training_step = torch.compile(model.training_step) if compiled else model.training_step
        self.optimizer = build_optimizer(model, self.config.optimizer)
        self.progress = Progress()
        self.started, self.busy_s, self.own_steps = time.monotonic(), 0.0, 0
        self.unread: list[tuple[dict[str, Any], dict[str, Tensor], np.ndarray]] = []
        found = load_latest(
            self.checkpoints, lambda text: report({"event": "warning", "message": text})
        )
        if found is not None:
            self._restore(found)
        folder.mkdir(parents=True, exist_ok=True)
        self.log = MetricsLog(folder / METRICS, self.progress.metrics_bytes)
        if self.log.missing_bytes:
            text = f"{folder / METRICS} lacks {self.log.missing_bytes} bytes of earlier steps"
            report({"event": "warning", "message": f"{text}; --overwrite would train again"})

    def run(self, stop: StopFlag) -> None:
        """All remaining steps."""
        budget, progress = self.config.budget, self.progress
        if progress.step == 0:
            self._check_conditioning()
        while progress.step < budget.updates:
            began = time.monotonic()
            self._step()
            self.busy_s += time.monotonic() - began
            self.own_steps += 1
            if progress.step % budget.batches_per_epoch == 0:
                self._end_epoch(progress.step // budget.batches_per_epoch)
            elif stop:
                self._save()
            if stop:
                raise Interrupted(
                    f"stopped by {stop.name} after step {progress.step} of {budget.updates}; repeat "
                    "the command to go on from there"
                )
        self._publish()

    def result(self) -> FitResult:
        """Scores and cost."""
        return FitResult(
            step=self.progress.step,
            best_S=self.progress.best_S,
            best_step=self.progress.best_step,
            seconds=time.monotonic() - self.started,
            segments_per_s=self._segments_per_s(),
            peak_memory=peak_memory(self.device),
        )

    def _step(self) -> None:
        config, progress = self.config, self.progress
        epoch, within = divmod(progress.step, config.budget.batches_per_epoch)
        size = config.budget.batch_size
        index = batch_order(len(self.resident), size, config.seed, epoch, within)
        batch = self.resident.batch(index)
        multiplier = update_multiplier(config.schedule, progress.step + 1, config.budget.updates)
        set_rates(self.optimizer, multiplier)
        seed_step(config.seed, progress.step)
        self.model.train()
        with autocast(config.precision, self.device):
            loss, parts = self.training_step(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip_norm)
        self.optimizer.step()
        progress.step += 1
        row = {"step": progress.step, "epoch": epoch + 1, "lr_multiplier": multiplier}
        values = {"loss": loss.detach(), "gradient_norm": norm, **parts}
        self.unread.append((row, values, self.resident.rows[index]))
        if self.device.type == "cpu" or len(self.unread) >= CUDA_FLUSH_STEPS:
            self._flush()

    def _flush(self) -> None:
        """Read the losses that are still on the device, check them, log them."""
        for row, tensors, segments in self.unread:
            values = {name: float(value) for name, value in tensors.items()}
            if self.progress.first_loss is None:
                self.progress.first_loss = values["loss"]
            check_step(
                values,
                first_loss=self.progress.first_loss,
                factor=self.config.divergence_factor,
                step=row["step"],
                segments=segments.tolist(),
                arm=self.arm,
            )
            self.log.write({**row, **values})
            self.report(
                {"event": "step", **row, **values, "segments_per_s": self._segments_per_s()}
            )
        self.unread.clear()

    def _end_epoch(self, epoch: int) -> None:
        self._flush()
        progress, config = self.progress, self.config
        if epoch == 1:
            check_drift(self.optimizer, self.model, dict(self.initial_state()))
        if config.evaluation.due(epoch, config.budget.epochs):
            scores = self.evaluate(self.model)
            # Only what a repeated run would compute again: no times.
            kept = {k: scores[k] for k in ("S", "MRR", "a2m", "m2a") if k in scores}
            self.log.write({"step": progress.step, "epoch": epoch, "validation": kept})
            score = float(scores["S"]), float(scores.get("MRR", 0.0))
            if progress.best_S is None or score > (progress.best_S, progress.best_MRR):
                (progress.best_S, progress.best_MRR), progress.best_step = score, progress.step
            event = {"event": "evaluation", "step": progress.step, "epoch": epoch}
            self.report({**event, "best_S": progress.best_S, **scores})
        self._save()
        memory = peak_memory(self.device)
        speed = self._segments_per_s()
        self.report(
            {"event": "epoch", "epoch": epoch, "segments_per_s": speed, "peak_memory": memory}
        )

    def _save(self) -> None:
        self._flush()
        progress = self.progress
        progress.metrics_bytes = self.log.commit()
        save_checkpoint(
            self.checkpoints,
            progress.step,
            self.model.state_dict(),
            self.optimizer.state_dict(),
            to_plain(progress),
        )
        self._publish()
        prune(self.checkpoints, keep=set() if progress.best_step is None else {progress.best_step})
        self.report({"event": "checkpoint", "step": progress.step})

    def _publish(self) -> None:
        """``model.safetensors`` of the run = the best checkpoint's."""
        best = self.progress.best_step
        if best is None:
            return
        source, target = checkpoint_path(self.checkpoints, best) / MODEL, self.folder / MODEL
        if not verifies(source.parent):
            raise RunError(
                f"the best checkpoint {source.parent} is gone or damaged; use --overwrite to train "
                "again",
                kind="checkpoint",
            )
        with source.open("rb") as reader, atomic_write(target) as writer:
            shutil.copyfileobj(reader, writer)

    def _restore(self, found: Checkpoint) -> None:
        self.progress = from_plain(Progress, found.progress, "progress")
        self.model.load_state_dict(found.model, strict=True)
        self.optimizer.load_state_dict(found.optimizer)
        self.report({"event": "resumed", "step": found.step})

    def _check_conditioning(self) -> None:
        config = self.config
        index = batch_order(len(self.resident), config.budget.batch_size, config.seed, 0, 0)
        dead = constant_inputs(self.model, self.resident.batch(index))
        if not dead:
            return
        text = f"{', '.join(dead)} is the same for every segment"
        if config.preset != "paper":
            raise RunError(
                f"{text}: the mechanism would learn nothing from it", kind="constant-input"
            )
        self.report({"event": "warning", "message": f"{text} (as in the reference)"})

    def _segments_per_s(self) -> float:
        return self.own_steps * self.config.budget.batch_size / max(self.busy_s, 1e-9)


def seed_step(seed: int, step: int) -> None:
    """Make all random draws of a step (dropout, on every device) a function of (seed, step)."""
    state = np.random.SeedSequence([seed, step, 0x5EED]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state) & (2**63 - 1))
