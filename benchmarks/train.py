"""What training costs, beside the reference's way of it; no data set is needed.

1. *resident*: seconds until A4 and notes of 100,000 segments are in memory, through all checksums.
2. *steps*: milliseconds of a training step and of making its batch, arms of both presets.
3. *model only*: our step against the plain one (:mod:`benchmarks.plain_training`) on the same batch.
4. *end to end*: batches from the store against batches decoded and parsed item by item by loader
   processes, from 10-minute 44.1 kHz stereo WAVs and 5,900-note MIDI files; training steps included.
5. *split*: embedding and scoring MAESTRO's 13,532 validation segments.
6. *run*: the paper's 30 epochs, from the above.

    python -m benchmarks.train [--device auto] [--size tiny|base] [--only steps,…]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import plain_training as plain
from benchmarks.common import environment, seconds, write
from benchmarks.recordings import bench_end_to_end
from benchmarks.stepping import PLAIN_SHAPES, Trainer, now
from benchmarks.synthetic import NOTES_PER_SEGMENT, synthetic_store
from pipeline.store import Store
from trainer.cache import ResidentStore
from trainer.config import Precision
from trainer.devices import default_size, pick_device
from trainer.embed import embed_split
from trainer.estimate import matrix_rate
from trainer.ordering import batch_order
from trainer.retrieval.evaluate import evaluate_embeddings
from trainer.retrieval.gallery import Gallery

RESIDENT, VALIDATION = 100_000, 13_532
ARRAYS = ("audio", "mel", "A4", "D4")
ARMS = ("d0", "d4a4", "a4r")
REFERENCE = {"epochs": 30, "batches": 1000, "evaluations": 6}


def main() -> None:
    """Measure and write ``benchmarks/results/train-<device>.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", choices=("base", "tiny"))
    parser.add_argument("--only", default="resident,steps,model,end,split")
    parser.add_argument("--seconds", type=float, default=6.0, help="of measuring each step")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    size = arguments.size or default_size(device)
    wanted = arguments.only.split(",")
    gpu = device.type == "cuda"
    precision: Precision = "bf16" if gpu else "fp32"
    formats: tuple[Precision, ...] = ("bf16", "tf32", "fp32") if gpu else ("fp32",)
    result: dict[str, Any] = {
        "environment": {**environment(), "device": device_name(device)},
        "size": size,
        "matrix_flops": {p: matrix_rate(device, p, 1.0) for p in formats},
    }
    with tempfile.TemporaryDirectory(prefix="xmodal-bench-") as scratch:
        if "resident" in wanted:
            result["residency"] = bench_residency(Path(scratch) / "resident", device)
        store = synthetic_store(Path(scratch) / "store", 1600, ARRAYS)
        if "steps" in wanted:
            result["steps"] = {
                f"{preset}-{arm}": bench_step(
                    store, preset, size, arm, device, precision, gpu, arguments.seconds
                )
                for preset in ("paper", "sound")
                for arm in ARMS
            }
        if "model" in wanted:
            result["model_only"] = {
                arm: bench_model(store, size, arm, device, precision, gpu, arguments.seconds)
                for arm in ARMS
            }
        if "end" in wanted:
            result["end_to_end"] = {
                arm: bench_end_to_end(Path(scratch), size, arm, device, precision, gpu)
                for arm in ("d0", "a4r")
            }
        if "split" in wanted:
            whole = synthetic_store(Path(scratch) / "split", VALIDATION if gpu else 1600, ARRAYS)
            result["split"] = {
                arm: bench_split(whole, size, arm, device, precision) for arm in ("d0", "a4r")
            }
    if {"steps", "split"} <= set(wanted):
        result["run"] = {arm: project(result, arm) for arm in ("d0", "a4r")}
    write(f"train-{device.type}", result)


def device_name(device: torch.device) -> str:
    """The GPU's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


def bench_residency(folder: Path, device: torch.device) -> dict[str, Any]:
    """Load A4 and notes of 100,000 segments four times; the first one warms the page cache."""
    store = synthetic_store(folder, RESIDENT, ("A4",))
    splits = ("train", "validation")

    def load() -> list[ResidentStore]:
        return [ResidentStore(store, split, ["A4"], device) for split in splits]

    loads = [seconds(load) for _ in range(4)]
    return {
        "segments": sum(map(len, load())),
        "note_rows": RESIDENT * NOTES_PER_SEGMENT,
        "first_s": loads[0],
        "warm_s": statistics.median(loads[1:]),
    }


def bench_step(
    store: Store, preset: str, size: str, arm: str, device: torch.device, precision: str,
    compiled: bool, budget_s: float,
) -> dict[str, Any]:  # fmt: skip
    """Median milliseconds of making a batch and of a whole step; operations; memory."""
    trainer = Trainer(preset, size, arm, device, precision, compiled)
    resident = ResidentStore(store, "train", trainer.model.reads(), device)
    count = trainer.config.budget.batch_size
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with FlopCounterMode(display=False) as counter:
        loss, _ = trainer.model.training_step(resident.batch(np.arange(count)))
        loss.backward()
    making, stepping = [], []
    until = None
    step = 0
    while until is None or time.perf_counter() < until or step < 8:
        began = now(device)
        batch = resident.batch(batch_order(len(resident), count, 0, 0, step))
        made = now(device)
        trainer.step(batch)
        ended = now(device)
        if step >= 4:  # compiled, warm
            until = until or time.perf_counter() + budget_s
            making.append(made - began)
            stepping.append(ended - began)
        step += 1
    data, whole = statistics.median(making), statistics.median(stepping)
    flops = int(counter.get_total_flops())
    found = {
        "precision": precision,
        "compiled": compiled,
        "batch_size": count,
        "steps": len(stepping),
        "data_ms": 1e3 * data,
        "step_ms": 1e3 * whole,
        "data_share": data / whole,
        "segments_per_s": count / whole,
        "flops": flops,
        "flops_per_s": flops / whole,
        "resident_bytes": resident.nbytes,
    }
    if device.type == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated(device)
    return found


def bench_model(
    store: Store, size: str, arm: str, device: torch.device, precision: str, compiled: bool,
    budget_s: float,
) -> dict[str, Any]:  # fmt: skip
    """Our step against the plain one, in turn, on one cached batch of 16."""
    trainer = Trainer("paper", size, arm, device, precision, compiled)
    resident = ResidentStore(store, "train", trainer.model.reads(), device)
    batch = resident.batch(np.arange(trainer.config.budget.batch_size))
    model = plain.Plain(arm, **PLAIN_SHAPES[size]).to(device)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-5, weight_decay=1e-4
    )
    audio = ResidentStore(store, "train", ["audio"], device).batch(
        np.arange(trainer.config.budget.batch_size)
    )
    item = {
        "audio": audio.audio_BS,
        "pitch": audio.pitch_BN,
        "velocity": audio.velocity_BN,
        "bucket": audio.duration_bucket_BN,
        "mask": audio.padding_BN,
    }
    pairs = []
    until = None
    while until is None or time.perf_counter() < until or len(pairs) < 7:
        began = now(device)
        trainer.step(batch)
        between = now(device)
        plain.training_step(model, optimizer, item)  # type: ignore[arg-type]
        pairs.append((between - began, now(device) - between))
        until = until or time.perf_counter() + 2 * budget_s
    return ratios(pairs[4:])


def bench_split(
    store: Store, size: str, arm: str, device: torch.device, precision: str
) -> dict[str, Any]:
    """Seconds of embedding a split and of scoring it; on a CPU extrapolated from fewer segments."""
    trainer = Trainer("paper", size, arm, device, precision, False)
    split = "train"
    resident = ResidentStore(store, split, trainer.model.reads(), device, note_padding="buckets")
    embed_split(trainer.model, resident, 128)
    began = now(device)
    audio, midi = embed_split(trainer.model, resident, 128)
    embedded = now(device)
    gallery = Gallery.from_store(store, split)
    evaluate_embeddings(audio, midi, gallery, "paper", seed=42, pool_size=256)
    scored = now(device)
    scale = VALIDATION / len(resident)
    return {
        "segments": len(resident),
        "embed_s": embedded - began,
        "score_s": scored - embedded,
        "all_s": scale * (embedded - began) + (scored - embedded),
    }


def project(result: dict[str, Any], arm: str) -> dict[str, float]:
    """Minutes of the paper's 30 epochs with six evaluations."""
    step_s = result["steps"][f"paper-{arm}"]["step_ms"] / 1e3
    steps = REFERENCE["epochs"] * REFERENCE["batches"]
    evaluation_s = result["split"][arm]["all_s"]
    total = steps * step_s + REFERENCE["evaluations"] * evaluation_s
    return {"steps": steps, "minutes": total / 60, "evaluation_s": evaluation_s}


def ratios(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """Median and range of theirs / ours."""
    found = sorted(b / a for a, b in pairs)
    return {
        "ours_ms": 1e3 * statistics.median(a for a, _ in pairs),
        "theirs_ms": 1e3 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(found),
        "ratio_low": found[len(found) // 10],
        "ratio_high": found[-1 - len(found) // 10],
        "rounds": len(found),
    }


if __name__ == "__main__":
    main()
