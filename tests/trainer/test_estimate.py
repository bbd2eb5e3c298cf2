"""What is said before a run starts, against what it then does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from trainer_fakes import FakeStore, run_config

from pipeline.base.errors import ConfigError, TrainingError
from trainer import devices
from trainer import estimate as estimate_module
from trainer.cache import ResidentStore
from trainer.devices import memory_errors_are_told
from trainer.estimate import check_memory, estimate
from trainer.model import build_model

CPU = torch.device("cpu")


@pytest.mark.parametrize(("preset", "arm"), [("paper", "d0"), ("sound", "a4r"), ("paper", "d4")])
def test_operations_and_memory_are_those_of_a_real_step(preset, arm, monkeypatch):
    """On real tensors: operations as torch counts them, memory as the backward pass keeps it."""
    monkeypatch.setattr(estimate_module, "matrix_rate", lambda *_: 1e9)
    config, store = run_config(preset, arm), FakeStore()
    found = estimate(config, store, CPU)
    model = build_model(config).train()
    resident = ResidentStore(store, "train", model.reads())
    batch = resident.batch(np.arange(config.budget.batch_size) % len(resident))
    batch.padding_BN[:] = False  # which is dropped on a CPU, not on a GPU
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model.training_step(batch)
    # torch counts no operations of its fused kernels; those of others are the same but for a seventh.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.training_step(batch)[0].backward()
    assert found.flops_a_step == pytest.approx(counter.get_total_flops(), rel=0.1)
    assert found.activation_bytes == pytest.approx(sum(kept.values()), rel=0.1)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found.state_bytes == 4 * sum(p.numel() for p in model.parameters()) + 12 * trained
    updates = config.budget.updates
    assert found.seconds == pytest.approx(found.flops_a_step * updates / (1e9 * 0.4))


def test_too_little_memory_is_said_with_the_remedy():
    config = run_config("sound", "d0")
    found = dataclasses.replace(estimate(config, FakeStore(), CPU), available_bytes=1_000_000)
    with pytest.raises(ConfigError, match="smaller --batch-size"):
        check_memory(found, CPU)
    check_memory(dataclasses.replace(found, available_bytes=found.needed_bytes), CPU)


def test_each_process_has_its_share_and_parts_that_do_not_fit_are_said(monkeypatch):
    monkeypatch.setattr(estimate_module, "matrix_rate", lambda *_: 1e9)
    config = run_config("sound", "d0")
    one, four = (estimate(config, FakeStore(), CPU, n) for n in (1, 4))
    assert four.activation_bytes == pytest.approx(one.activation_bytes / 4, rel=0.1)
    odd = run_config("sound", "d0", audio={"frontend": {"options": {"bands": 80}}})
    with pytest.raises(ConfigError, match="no step can be made"):
        estimate(odd, FakeStore(), CPU)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_memory_that_runs_out_is_one_line(error):
    with (
        pytest.raises(TrainingError, match="smaller --batch-size") as caught,
        memory_errors_are_told(),
    ):
        raise error
    assert caught.value.kind == "memory"
    with pytest.raises(RuntimeError, match="something else"), memory_errors_are_told():
        raise RuntimeError("something else")


def test_what_files_take_of_a_groups_memory_counts_as_free(monkeypatch):
    files = {
        "/proc/meminfo": ["MemAvailable: 9000 kB"],
        "/sys/fs/cgroup/memory.max": ["1000000"],
        "/sys/fs/cgroup/memory.current": ["900000"],
        "/sys/fs/cgroup/memory.stat": ["anon 100000", "active_file 300000", "inactive_file 400000"],
    }
    monkeypatch.setattr(devices, "_lines", lambda path: files.get(path, []))
    assert devices.available_memory(CPU) == 800_000
