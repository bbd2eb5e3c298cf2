"""What a run will need, before it starts: operations counted on a model without memory.

One training step of the very model runs on torch's ``meta`` device. Its floating-point operations and
the tensors that it keeps for the backward pass are counted; the device's matrix rate is measured for a
moment. Time is a guess within a factor of two or so (small models wait for launches and memory);
memory is close.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from pipeline.base.errors import ConfigError
from pipeline.descriptors import DESCRIPTORS
from pipeline.spectral import N_FRAMES, SEGMENT_SAMPLES
from pipeline.store.reader import Store
from trainer.attention import dropping_attention
from trainer.batch import Batch
from trainer.cache import held_arrays, padded_length
from trainer.config import Precision, RunConfig
from trainer.devices import available_memory, matmul_precision
from trainer.model import RetrievalModel, build_model

ATTAINED = 0.4  # of the matrix rate: what training steps of these models reach
MATRIX, SMALL_MATRIX = 2048, 256
# Autocast does not exist on the meta device: products keep half of float32's bytes, norms all of them.
KEPT_IN_BF16 = 0.6
SPARE = 1.15  # allocators round up and keep some


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Floating-point operations of a step; bytes on the device; seconds of the whole training.

    ``resident_bytes`` are the data that lie on the device, ``state_bytes`` weights, gradients and the
    optimiser's moments, ``activation_bytes`` what the backward pass of one batch needs.
    """

    flops_a_step: int
    resident_bytes: int
    state_bytes: int
    activation_bytes: int
    available_bytes: int
    seconds: float

    @property
    def needed_bytes(self) -> int:
        """Memory of the device at the peak."""
        return int((self.state_bytes + self.activation_bytes) * SPARE) + self.resident_bytes


def estimate(config: RunConfig, store: Store, device: torch.device, processes: int = 1) -> Estimate:
    """Count one step of the resolved ``config`` on ``store``; measure the device's rate.

    Of several ``processes`` each has its share of the batch.

    Raises
    ------
    ConfigError
        when the parts of the model do not fit each other.
    """
    model = build_model(config, "meta").train()
    batch = meta_batch(model, store, config.budget.batch_size // processes, device)
    kept: dict[int, int] = {}
    own = {p.untyped_storage()._cdata for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with _FusedAttention(device), FlopCounterMode(display=False) as counter:
        try:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss, _ = model.training_step(batch)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"no step can be made of this configuration: {reason}") from None
        loss.backward()
    activation = sum(kept.values())
    if config.precision == "bf16":
        activation = int(activation * KEPT_IN_BF16)
    flops = int(counter.get_total_flops())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    rate = matrix_rate(device, config.precision)
    available = available_memory(device)
    resident = _resident_bytes(model, store)
    if device.type == "cuda" and resident >= available // 2:
        resident = 0  # stays in host memory (trainer.cache)
    return Estimate(
        flops_a_step=flops,
        resident_bytes=resident,
        state_bytes=4 * (total + 3 * trained),
        activation_bytes=activation,
        available_bytes=available,
        seconds=flops * config.budget.updates / (rate * ATTAINED),
    )


class _Fused(torch.autograd.Function):
    """What a fused kernel costs: it keeps no scores, and multiplies them out again on the way back."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = (q @ k.mT) @ v
        ctx.save_for_backward(q, k, v, out, out.new_empty(out.shape[:-1]))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, _, _ = ctx.saved_tensors
        scores, change = q @ k.mT, gradient @ v.mT
        return change @ k, change.mT @ q, scores.mT @ gradient


class _FusedAttention(TorchFunctionMode):
    """The meta device knows no fused kernels; those that would run on ``device`` count as fused."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        if function is not F.scaled_dot_product_attention:
            return function(*args, **options)
        dropped = options.get("dropout_p")
        if dropped and self.device.type == "cpu":  # as in trainer.attention
            q, k, v = args[:3]
            visible, scale = options["attn_mask"], options["scale"]
            return dropping_attention(q, k, v, visible, dropped, scale)
        return _Fused.apply(*args[:3])


def check_memory(found: Estimate, device: torch.device, *, shared: bool = False) -> None:
    """Refuse, before the first step, what cannot fit; ``shared``: others run on the device, too.

    Raises
    ------
    ConfigError
        naming what is needed, what is there, and what would help.
    """
    if found.needed_bytes <= found.available_bytes:
        return
    free, fewer = (
        ("are its share of what is free", "fewer --jobs, ") if shared else ("are free", "")
    )
    raise ConfigError(
        f"this run needs about {found.needed_bytes / 1e9:.1f} GB on {device.type}, of which "
        f"{found.activation_bytes / 1e9:.1f} GB for a batch, and {found.available_bytes / 1e9:.1f} GB "
        f"{free}; use {fewer}a smaller --batch-size, --size tiny or --precision bf16"
    )


def meta_batch(model: RetrievalModel, store: Store, size: int, device: torch.device) -> Batch:
    """A batch of this store's usual shape, without memory."""
    counts = store.segments.note_count
    usual = int(np.quantile(counts, 1 - 1 / max(2, size))) if len(counts) else 1
    notes = padded_length(usual, device.type)

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    shapes = {"frame": (size, N_FRAMES), "segment": (size,), "note": (size, notes)}
    arrays = {
        name: empty(*shapes[d.axis], d.width)
        for name in model.reads()
        if name != "audio" and (d := DESCRIPTORS.get(name))
    }
    return Batch(
        segments_B=empty(size, dtype=torch.int64),
        audio_BS=empty(size, SEGMENT_SAMPLES) if "audio" in model.reads() else None,
        pitch_BN=empty(size, notes, dtype=torch.int64),
        velocity_BN=empty(size, notes, dtype=torch.int64),
        duration_bucket_BN=empty(size, notes, dtype=torch.int64),
        onset_BN=empty(size, notes),
        duration_BN=empty(size, notes),
        padding_BN=empty(size, notes, dtype=torch.bool),
        arrays=arrays,
    )


def matrix_rate(device: torch.device, precision: Precision, seconds: float = 0.3) -> float:
    """Floating-point operations a second that large matrix products reach here, now.

    As large as ``seconds`` allow: a processor without bfloat16 takes minutes for one of the largest.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    whole = torch.randn(MATRIX, MATRIX, device=device, dtype=dtype)
    with matmul_precision(precision), torch.no_grad():
        size = SMALL_MATRIX
        while size < MATRIX:
            # The first of a size may load kernels.
            took_s = min(_product_s(whole[:size, :size]) for _ in range(2))
            if 8 * took_s > seconds:
                break
            size *= 2
        took: list[float] = []
        until = time.monotonic() + seconds
        while len(took) < 3 or time.monotonic() < until:
            took.append(_product_s(whole[:size, :size]))
    return 2 * size**3 / float(np.median(took))


def _product_s(matrix: Tensor) -> float:
    began = time.monotonic()
    matrix @ matrix
    if matrix.device.type == "cuda":
        torch.cuda.synchronize(matrix.device)
    return time.monotonic() - began


def _resident_bytes(model: RetrievalModel, store: Store) -> int:
    """Training and validation rows of everything the run reads."""
    table = store.segments
    share = (
        float(np.mean(np.isin(table.split, ("train", "validation")))) if len(table.split) else 0.0
    )
    held = held_arrays(store, model.reads())
    arrays = sum(
        int(np.prod(store.arrays[n].shape)) * np.dtype(store.arrays[n].dtype).itemsize for n in held
    )
    return int(share * (arrays + 11 * int(table.note_count.sum())))
