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
from trainer.cache import ResidentStore
from trainer.checkpoint import (
    Checkpoint,
    checkpoint_path,
    load_latest,
    prune,
    save_checkpoint,
    verifies,
)
from trainer.devices import autocast, matmul_precision, peak_memory
from trainer.guards import check_drift, check_step, constant_inputs
from trainer.layout import CHECKPOINTS, METRICS, MODEL
from trainer.metrics_log import Log, MetricsLog
from trainer.model import RetrievalModel
from trainer.optim import build_optimizer, set_rates
from trainer.ordering import Groups, batch_order
from trainer.parallel import ALONE, Processes
from trainer.schedules import update_multiplier
from trainer.signals import StopFlag, stop_on_signals

Event = dict[str, Any]
Report = Callable[[Event], None]
Evaluate = Callable[[RetrievalModel], Mapping[str, Any]]

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
    processes: Processes = ALONE,
    log: Callable[[int], Log] | None = None,
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
    log : makes one more log of what goes to ``metrics.jsonl``, given the step that it goes on after
    processes : those that share every step; only the first writes, evaluates and reports

    Raises
    ------
    Interrupted
        after a signal, with a checkpoint of the last finished step.
    RunError
        when the run diverges or something in it does not move.
    """
    if not processes.first:
        report = _silent
    loop = _Loop(model, resident, folder, arm, evaluate, report, initial_state, compiled, processes)
    if log is not None and processes.first:
        loop.logs.append(log(loop.progress.step))
    try:
        with stop_on_signals() as stop, matmul_precision(model.config.precision):
            loop.run(stop)
    finally:
        for each in loop.logs:
            each.close()
    return loop.result()


def _silent(event: Event) -> None:
    """Only the first process speaks."""


class _Loop:
    def __init__(
        self, model: RetrievalModel, resident: ResidentStore, folder: Path, arm: str,
        evaluate: Evaluate, report: Report, initial_state: Callable[[], Mapping[str, Tensor]],
        compiled: bool, processes: Processes,
    ) -> None:  # fmt: skip
        self.processes = processes
        self.stopping = False
        self.flag: Tensor | bool = False
        self.share = processes.share(model.config.budget.batch_size)
        self.model, self.resident, self.arm = model, resident, arm
        self.evaluate, self.report, self.initial_state = evaluate, report, initial_state
        self.config = model.config
        self.device = next(model.parameters()).device
        self.folder, self.checkpoints = folder, folder / CHECKPOINTS
        self.training_step = torch.compile(model.training_step) if compiled else model.training_step
        self.optimizer = build_optimizer(model, self.config.optimizer)
        per_recording = self.config.budget.per_recording
        recordings = resident.store.segments.recording[resident.rows].astype(np.int64)
        self.groups = Groups(recordings, per_recording) if per_recording > 1 else None
        self.progress = Progress()
        self.started, self.busy_s, self.own_steps = time.monotonic(), 0.0, 0
        self.unread: list[tuple[dict[str, Any], dict[str, Tensor], np.ndarray]] = []
        found = load_latest(
            self.checkpoints, lambda text: report({"event": "warning", "message": text})
        )
        if found is not None:
            self._restore(found)
        # Nobody writes before all have read; all go on from the same step.
        if processes.tell(self.progress.step) != self.progress.step:
            raise RunError("the processes of this run do not see the same checkpoints")
        self.logs: list[Log] = []
        if processes.first:
            self._open_log()

    def run(self, stop: StopFlag) -> None:
        """All remaining steps."""
        budget, progress = self.config.budget, self.progress
        if progress.step == 0:
            self._check_conditioning()
        while progress.step < budget.updates:
            began = time.monotonic()
            self._step(bool(stop))
            self.busy_s += time.monotonic() - began
            self.own_steps += 1
            if progress.step % budget.batches_per_epoch == 0:
                self._end_epoch(progress.step // budget.batches_per_epoch)
            elif self._asked(stop):
                self._save()
            if self._asked(stop):
                self.processes.tell()  # nobody leaves while the first one saves
                raise Interrupted(
                    f"stopped by {stop.name or 'a signal'} after step {progress.step} of "
                    f"{budget.updates}; repeat the command to go on from there"
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

    def _asked(self, stop: StopFlag) -> bool:
        """Whether to stop: of several processes, where all of them know that one was asked."""
        return bool(stop) if self.processes.count == 1 else self.stopping

    def _step(self, stop: bool) -> None:
        config, progress = self.config, self.progress
        epoch, within = divmod(progress.step, config.budget.batches_per_epoch)
        if within == 0 or self.own_steps == 0:
            self.model.begin_epoch(epoch + 1, config.budget.epochs)
        size = config.budget.batch_size
        index = batch_order(
            len(self.resident), size, config.seed, epoch, within, groups=self.groups
        )
        batch = self.resident.batch(index, self.share)
        batch.gather = self.processes.gather
        multiplier = update_multiplier(config.schedule, progress.step + 1, config.budget.updates)
        set_rates(self.optimizer, multiplier)
        seed_step(config.seed, progress.step, self.processes.rank)
        self.model.train()
        with autocast(config.precision, self.device):
            loss, parts = self.training_step(batch)
        self.optimizer.zero_grad(set_to_none=True)
        (loss / self.processes.count).backward()
        flag = self.processes.add_up(self.model.parameters(), stop)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip_norm)
        self.optimizer.step()
        progress.step += 1
        row = {"step": progress.step, "epoch": epoch + 1, "lr_multiplier": multiplier}
        values = {"loss": loss.detach(), "gradient_norm": norm, **parts}
        self.unread.append((row, values, self.resident.rows[index]))
        self.flag = flag
        if self.device.type == "cpu" or len(self.unread) >= CUDA_FLUSH_STEPS:
            self._flush()

    def _flush(self) -> None:
        """Read what is still on the device: whether to stop, and losses, to check and log."""
        self.stopping = bool(self.flag)
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
            self._write({**row, **values})
            self.report(
                {"event": "step", **row, **values, "segments_per_s": self._segments_per_s()}
            )
        self.unread.clear()

    def _write(self, row: dict[str, Any]) -> None:
        for log in self.logs:
            log.write(row)

    def _end_epoch(self, epoch: int) -> None:
        self._flush()
        if not self.processes.first:
            return
        progress, config = self.progress, self.config
        if epoch == 1:
            check_drift(self.optimizer, self.model, dict(self.initial_state()))
        if config.evaluation.due(epoch, config.budget.epochs):
            scores = self.evaluate(self.model)
            # Only what a repeated run would compute again: no times.
            kept = {k: scores[k] for k in ("S", "MRR", "a2m", "m2a") if k in scores}
            self._write({"step": progress.step, "epoch": epoch, "validation": kept})
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
        if not self.processes.first:
            return
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
        if best is None or not self.processes.first:
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

    def _open_log(self) -> None:
        path = self.folder / METRICS
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = MetricsLog(path, self.progress.metrics_bytes)
        self.logs.append(self.log)
        if self.log.missing_bytes:
            text = f"{path} lacks {self.log.missing_bytes} bytes of earlier steps"
            self.report({"event": "warning", "message": f"{text}; --overwrite would train again"})

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


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Make all random draws of a step (dropout, on every device) a function of (seed, step, rank)."""
    entropy = [seed, step, 0x5EED, *([rank] if rank else [])]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state) & (2**63 - 1))
