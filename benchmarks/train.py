"""What the trainer's data path costs.

1. Seconds until the A4 and the notes of 100,000 segments are resident (a synthetic store, in the page
   cache), through all checksums.
2. The share of a training step that is spent making its batch, on a real store.

    python -m benchmarks.train [STORE] [--device auto]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.common import environment, seconds, write
from pipeline.base.config import to_plain
from pipeline.descriptors import DESCRIPTORS
from pipeline.store import Store, find_newest
from pipeline.store.schema import (
    FAILURES,
    NOTES,
    RECORDINGS,
    SEGMENTS,
    Segmentation,
    descriptor_layout,
)
from pipeline.store.writer import commit, create_array, write_shard, write_table
from trainer.arms import arm_pairs, with_pairs
from trainer.cache import ResidentStore, batch_order
from trainer.devices import autocast, default_precision, default_size, pick_device
from trainer.model import build_model
from trainer.optim import build_optimizer
from trainer.presets import preset_config

SEGMENTS_RESIDENT = 100_000
NOTES_PER_SEGMENT = 42
STEPS = 60


def main() -> None:
    """Measure and write ``benchmarks/results/train-<device>.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--arms", default="d0,a4r")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    store = Store.open(arguments.store or find_newest(Path("data/features")))
    result: dict[str, Any] = {
        "environment": {**environment(), "device": device_name(device)},
        "residency": bench_residency(device),
        "steps": {arm: bench_step(store, arm, device) for arm in arguments.arms.split(",")},
    }
    write(f"train-{device.type}", result)


def device_name(device: torch.device) -> str:
    """The GPU's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


def bench_residency(device: torch.device) -> dict[str, Any]:
    """Load A4 and notes of 100,000 segments three times; the first one warms the page cache."""
    with tempfile.TemporaryDirectory(prefix="xmodal-bench-") as scratch:
        store = synthetic_store(Path(scratch) / "store")
        loads = [seconds(lambda: ResidentStore(store, "train", ["A4"], device)) for _ in range(4)]
    return {
        "segments": SEGMENTS_RESIDENT,
        "note_rows": SEGMENTS_RESIDENT * NOTES_PER_SEGMENT,
        "first_s": loads[0],
        "warm_s": statistics.median(loads[1:]),
    }


def synthetic_store(folder: Path) -> Store:
    """A store with random A4 and notes, and no audio."""
    random = np.random.default_rng(0)
    n, rows = SEGMENTS_RESIDENT, SEGMENTS_RESIDENT * NOTES_PER_SEGMENT
    (folder / ".build").mkdir(parents=True)
    segment = np.arange(n)
    tables = {
        "recordings": RECORDINGS.empty_table(),
        "failures": FAILURES.empty_table(),
        "segments": pa.table(
            {
                "segment": segment.astype(np.int32),
                "recording": np.zeros(n, np.int32),
                "split": ["train"] * n,
                "start_s": segment.astype(np.float64),
                "audio_start": segment * 24_000,
                "note_start": segment * NOTES_PER_SEGMENT,
                "note_count": np.full(n, NOTES_PER_SEGMENT, np.int32),
                "valid": np.ones(n, bool),
            },
            schema=SEGMENTS,
        ),
        "notes": pa.table(
            {
                "segment": np.repeat(segment, NOTES_PER_SEGMENT).astype(np.int32),
                "pitch": random.integers(21, 109, rows).astype(np.uint8),
                "velocity": random.integers(1, 128, rows).astype(np.uint8),
                "duration_bucket": random.integers(0, 32, rows).astype(np.uint8),
                "onset_s": random.uniform(0, 4, rows).astype(np.float32),
                "duration_s": random.uniform(0, 2, rows).astype(np.float32),
            },
            schema=NOTES,
        ),
    }
    for name, table in tables.items():
        write_table(folder, name, table)
    info = descriptor_layout(
        DESCRIPTORS.get("A4"), n_segments=n, n_notes=rows, identity="synthetic"
    )
    create_array(folder, info)
    for shard in range(info.n_shards):
        count = min(info.shard_rows, n - shard * info.shard_rows)
        values = random.standard_normal((count, *info.shape[1:]), np.float32).astype(np.float16)
        write_shard(folder, info, shard, values)
    record = {
        "identity": "synthetic",
        "status": "complete",
        "segmentation": to_plain(Segmentation()),
        "segments": n,
        "notes": rows,
    }
    commit(folder, record, [info])
    return Store.open(folder)


def bench_step(store: Store, arm: str, device: torch.device) -> dict[str, Any]:
    """Median seconds of making a batch and of a whole step, default preset."""
    size, precision = default_size(device), default_precision(device)
    plain = with_pairs(preset_config("sound", size), arm_pairs(arm))
    model = build_model(plain, device)
    resident = ResidentStore(store, "train", model.reads(), device)
    optimizer = build_optimizer(model, plain.optimizer)
    batch_size = plain.budget.batch_size
    making, stepping = [], []
    model.train()
    for step in range(STEPS):
        began = now(device)
        index = batch_order(len(resident), batch_size, 0, 0, step)
        batch = resident.batch(index)
        made = now(device)
        with autocast(precision, device):
            loss, _ = model.training_step(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ended = now(device)
        making.append(made - began)
        stepping.append(ended - began)
    warm = STEPS // 6
    data, whole = statistics.median(making[warm:]), statistics.median(stepping[warm:])
    return {
        "size": size,
        "precision": precision,
        "batch_size": batch_size,
        "data_ms": 1e3 * data,
        "step_ms": 1e3 * whole,
        "data_share": data / whole,
        "segments_per_s": batch_size / whole,
        "resident_bytes": resident.nbytes,
    }


def now(device: torch.device) -> float:
    """Wall time once the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
