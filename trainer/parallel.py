"""Several processes as one: ``torchrun`` starts them, one per GPU, and every step is theirs together.

Each embeds its share of the batch. Pooled features are gathered with gradients, so heads, batch
statistics, negatives and loss are those of one process that had the whole batch. Every process then
computes the same loss, and what all of them ask of a share's features is added up on the way back:
hence the loss is divided by the number of processes before, and gradients of parameters are summed
after. Two processes equal one at the same batch, but for random draws (dropout, variation) and the
order of sums.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.base.errors import ConfigError

T = TypeVar("T")
PATIENCE = datetime.timedelta(hours=2)  # the others wait while the first one evaluates


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """The processes of one training, and which of them this is."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes, evaluates and speaks."""
        return self.rank == 0

    def share(self, size: int) -> slice:
        """Rows of a batch of ``size`` that are this process's.

        Raises
        ------
        ConfigError
            when the batch cannot be shared equally.
        """
        if size % self.count:
            raise ConfigError(f"a batch of {size} cannot be shared by {self.count} processes")
        part = size // self.count
        return slice(self.rank * part, (self.rank + 1) * part)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in their order, with gradients."""
        if self.count == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self)
        return gathered

    def add_up(self, parameters: Iterable[nn.Parameter], flag: bool) -> Tensor | bool:
        """Sum the gradients of all processes, and say whether any of them raised its flag."""
        if self.count == 1:
            return flag
        gradients = [p.grad for p in parameters if p.grad is not None]
        sign = torch.tensor([float(flag)], device=gradients[0].device)
        flat = torch.cat([*(g.flatten() for g in gradients), sign])
        dist.all_reduce(flat)
        sizes = [g.numel() for g in gradients]
        for gradient, summed in zip(gradients, flat[:-1].split(sizes), strict=True):
            gradient.copy_(summed.view_as(gradient))
        return flat[-1] > 0

    def tell(self, value: T | None = None) -> T:
        """What the first process says, on all of them."""
        said: list[Any] = [value]
        if self.count > 1:
            dist.broadcast_object_list(said)
        answer: T = said[0]
        return answer


ALONE = Processes()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, processes: Processes) -> Tensor:
        ctx.processes, ctx.length = processes, len(rows)
        parts = [torch.empty_like(rows) for _ in range(processes.count)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        summed = gradient.contiguous()
        dist.all_reduce(summed)
        start = ctx.processes.rank * ctx.length
        return summed[start : start + ctx.length], None


def join(device: torch.device) -> tuple[Processes, torch.device]:
    """The processes that ``torchrun`` started, and this one's device; alone without it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ:
        return Processes(), device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    return Processes(rank=int(os.environ["RANK"]), count=count), device


def is_first() -> bool:
    """Whether this process speaks: alone, or the first that ``torchrun`` started."""
    return os.environ.get("RANK", "0") == "0"
