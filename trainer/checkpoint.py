"""Checkpoints: folders that are whole or do not count, and exact enough to go on from.

``checkpoints/step-<n>/`` holds ``model.safetensors`` (parameters and buffers), ``optimizer.pt``
(loaded with ``weights_only=True``: nothing in it can run) and ``progress.json``.
``checkpoint.json``, with the size and SHA-256 of each, is written last, and the folder takes its
name only then. A folder that does not verify is passed over with a warning, and the one before it
is used.

Batch order and dropout are functions of (seed, step), so no generator state is needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.base.errors import RunError
from pipeline.base.files import fsync_dir, read_json, sha256_file, write_json
from trainer.layout import MODEL

OPTIMIZER, PROGRESS, COMMIT = "optimizer.pt", "progress.json", "checkpoint.json"
FILES = (MODEL, OPTIMIZER, PROGRESS)


@dataclasses.dataclass(slots=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint; tensors are on the CPU."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    progress: dict[str, Any]


def checkpoint_path(folder: Path, step: int) -> Path:
    """``folder/step-<n>``, padded so that names sort by step."""
    return folder / f"step-{step:08d}"


def save_checkpoint(
    folder: Path,
    step: int,
    model: dict[str, Tensor],
    optimizer: dict[str, Any],
    progress: dict[str, Any],
) -> Path:
    """Write one checkpoint durably below ``folder``; one of the same step is replaced."""
    target = checkpoint_path(folder, step)
    staged = folder / f".{target.name}.{os.getpid()}.tmp"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    save_weights(staged / MODEL, model)
    with _failing_as_os_error(staged / OPTIMIZER):
        torch.save(optimizer, staged / OPTIMIZER)
    _fsync(staged / OPTIMIZER)
    write_json(staged / PROGRESS, progress)
    entries = {name: _entry(staged / name) for name in FILES}
    write_json(staged / COMMIT, {"step": step, "files": entries})
    if target.exists():
        # Out of the way first: between the two renames the checkpoint before is the newest.
        replaced = folder / f".{target.name}.{os.getpid()}.old.tmp"
        shutil.rmtree(replaced, ignore_errors=True)
        target.replace(replaced)
    staged.replace(target)
    fsync_dir(folder)
    return target


def load_latest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None; the others are named through ``warn``."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            return load_checkpoint(path)
        except RunError as error:
            warn(f"{error}; going back to the one before it")
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Verify and load one checkpoint.

    Raises
    ------
    RunError
        (kind ``checkpoint``) when a file is missing, was changed, or cannot be read.
    """
    try:
        record = read_json(path / COMMIT)
        for name in FILES:
            if _entry(path / name) != record["files"][name]:
                raise RunError(f"checkpoint {path} is damaged: {name} changed", kind="checkpoint")
        return Checkpoint(
            step=int(record["step"]),
            model=load_weights(path / MODEL),
            optimizer=torch.load(path / OPTIMIZER, map_location="cpu", weights_only=True),
            progress=read_json(path / PROGRESS),
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.PickleError) as error:
        # torch's own refusal is a page long, and advises what must not be done.
        reason = str(error).splitlines()[0]
        raise RunError(f"checkpoint {path} is damaged ({reason})", kind="checkpoint") from None


def verifies(path: Path) -> bool:
    """Whether a checkpoint is there, and its model is the one that was saved."""
    try:
        saved = read_json(path / COMMIT)["files"][MODEL]
        return bool(_entry(path / MODEL) == saved)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def prune(folder: Path, keep: set[int], last: int = 2) -> None:
    """Delete all but the ``last`` newest checkpoints, the best that each of them knows, and ``keep``.

    A run that has to fall back to the checkpoint before still finds the best one of that time.
    """
    paths = sorted(folder.glob("step-*"))
    steps = keep | {step for path in paths[-last:] if (step := _best_step(path)) is not None}
    wanted = {checkpoint_path(folder, step) for step in steps} | set(paths[-last:])
    for path in [p for p in paths if p not in wanted] + list(folder.glob(".step-*.tmp")):
        shutil.rmtree(path, ignore_errors=True)


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write tensors as safetensors: temporary file, fsync, rename."""
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _failing_as_os_error(path):
        save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, staged)
    _fsync(staged)
    staged.replace(path)
    fsync_dir(path.parent)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU; a damaged one is a :class:`RunError`."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot read the weights {path} ({error})", kind="weights") from None


def _best_step(path: Path) -> int | None:
    """The best step that a checkpoint knows of, or None; one that does not read knows none."""
    try:
        step = read_json(path / PROGRESS)["best_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


@contextlib.contextmanager
def _failing_as_os_error(path: Path) -> Iterator[None]:
    """Writers that are not Python's say in their own way that a disk is full: make it an OSError."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        free = shutil.disk_usage(path.parent).free
        text = f"cannot write: {reason}; {free >> 20} MB are free there"
        raise OSError(errno.EIO, text, str(path)) from None


def _entry(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_file(path)}


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
