"""Where a run computes, and in which numbers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from pipeline.base.errors import ConfigError, TrainingError
from trainer.config import Precision, Size


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` takes a GPU when there is one; asking for an absent one is an error, never a fallback.

    Raises
    ------
    ConfigError
        for an unknown name, or for ``cuda`` where there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"unknown device '{name}': use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device '{name}': use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine has no usable GPU; use --device cpu or auto")
    if (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ConfigError(f"--device {name}: there is no such device on this machine")
    return device


def default_size(device: torch.device) -> Size:
    """Base on a GPU, tiny on a CPU."""
    return "base" if device.type == "cuda" else "tiny"


def default_precision(device: torch.device) -> Precision:
    """bf16 on a GPU, fp32 on a CPU."""
    return "bf16" if device.type == "cuda" else "fp32"


def default_compiled(device: torch.device) -> bool:
    """Compiled on a GPU whose compiler is there; on a CPU compiling costs more than it saves."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


@contextlib.contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Within the block float32 matrix products use TF32 if ``precision`` says so, else float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """For the forward pass: bfloat16 where it is safe, if ``precision`` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def is_slow(precision: Precision, device: torch.device) -> bool:
    """Whether float32 is many times as fast: PyTorch has no bfloat16 for x86 without AVX-512."""
    without = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return precision == "bf16" and device.type == "cpu" and x86 and without


def no_autocast(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Within the block every product keeps its own precision (a model without memory has no other)."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within the block only deterministic kernels run, if ``wanted`` (CPU runs always repeat)."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def memory_errors_are_told() -> Iterator[None]:
    """Memory that runs out within the block is a :class:`TrainingError` with what would help."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        short = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not short and "allocate memory" not in str(error):
            raise
        raise TrainingError(
            "out of memory: use a smaller --batch-size, --size tiny or --precision bf16",
            kind="memory",
        ) from error


def peak_memory(device: torch.device) -> dict[str, int]:
    """Highest memory use so far, in bytes: ``host`` and, on a GPU, ``device``."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak


def available_memory(device: torch.device) -> int:
    """Free bytes of the GPU, or of this machine within its control group's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit, used = (_lines(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit and used and limit[0].isdigit():
        # What files take of it is given back when it is needed.
        stat = dict(line.split() for line in _lines("/sys/fs/cgroup/memory.stat"))
        cached = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))
        free = min(free, int(limit[0]) - int(used[0]) + cached)
    return free


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return []
