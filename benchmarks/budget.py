"""What a campaign will take before anybody ran it: operations, memory, hours of a device.

Operations of one training step of every distinct model are counted, not guessed
(:func:`trainer.estimate.estimate`); evaluations are left out. Hours are those at a stated rate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pipeline.base.config import digest, from_plain
from pipeline.store import Store
from trainer.campaign.sweep import PlannedRun, Sweep
from trainer.config import RunConfig
from trainer.estimate import ATTAINED, estimate

# An H200's matrix rates without sparsity, as its data sheet gives them: operations a second.
PEAK = {"bf16": 989e12, "tf32": 494e12, "fp32": 67e12}


def budget(sweep: Sweep, store: Path) -> dict[str, Any]:
    """All runs of a campaign, as if none had been made: counts, and one line for people (``said``)."""
    opened, flops_a_step, memory = Store.open(store), {}, 0
    operations, seconds = 0.0, 0.0
    for run in sweep.runs:
        config = from_plain(RunConfig, run.config)
        key = _model(run)
        if key not in flops_a_step:
            needs = estimate(config, opened, torch.device("cpu"))
            flops_a_step[key] = needs.flops_a_step
            memory = max(memory, needs.needed_bytes)
        here = float(flops_a_step[key]) * run.updates
        operations += here
        seconds += here / (PEAK[config.precision] * ATTAINED)
    updates, hours = sum(run.updates for run in sweep.runs), seconds / 3600
    return {
        "campaign": sweep.name,
        "store": opened.name,
        "runs": len(sweep.runs),
        "updates": updates,
        "operations": operations,
        "hours": round(hours, 2),
        "memory_bytes": memory,
        "said": (
            f"`{sweep.name}`: {len(sweep.runs)} runs, {updates:,} updates, {operations:.2g} "
            f"operations: {hours:.1f} h of an H200 at {ATTAINED:.0%} of its matrix rate, "
            f"{memory / 1e9:.1f} GB of memory (counted, not measured; evaluations come on top)"
        ),
    }


def _model(run: PlannedRun) -> str:
    """By what steps differ: not by the seed, the length or the rate."""
    varied = ("seed", "budget", "evaluation", "schedule", "optimizer")
    kept = {name: value for name, value in run.config.items() if name not in varied}
    return digest([kept, run.batch_size])
