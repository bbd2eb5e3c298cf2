r"""One of the processes of a training on the fake store; its rank is in the environment.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 \
    python shared_training.py ARM,… PRESET OUT [STEP]

With STEP, the first process is sent SIGTERM after that step.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from trainer_fakes import FakeStore, run_config, unvaried

from pipeline.base.errors import Interrupted
from trainer.cache import ResidentStore
from trainer.fit import fit
from trainer.model import build_model
from trainer.parallel import Processes, join

# Draws of several processes are not those of one.
STILL = {"dropout": 0.0, "ffn_dropout": 0.0, "attention_dropout": 0.0}


def config_of(preset: str, arm: str):
    still = unvaried(preset)
    return run_config(
        preset,
        arm,
        audio={"transformer": STILL, **still["audio"]},
        midi={"transformer": STILL, "positions": {"options": {"dropout": 0.0}}, **still["midi"]},
        mechanisms={"dropout": 0.0},
        budget={"epochs": 2, "batches_per_epoch": 3, "batch_size": 8},
        optimizer={"eps": 1e-3},  # Adam's first steps are signs: rounding must not decide them
    )


def main() -> None:
    arms, preset, out = sys.argv[1:4]
    stop_at = int(sys.argv[4]) if len(sys.argv) > 4 else None
    torch.set_num_threads(1)
    processes, device = join(torch.device("cpu"))
    try:
        for arm in arms.split(","):
            train(arm, preset, Path(out) / arm, stop_at, processes, device)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr, flush=True)
        os._exit(1)  # threads that wait for the other process would abort an orderly end


def train(
    arm: str, preset: str, out: Path, stop_at: int | None, processes: Processes,
    device: torch.device,
) -> None:  # fmt: skip
    config = config_of(preset, arm)
    model = build_model(config)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    resident = ResidentStore(
        FakeStore(), "train", model.reads(), device, segments=config.segments,
        note_padding="longest" if preset == "paper" else "buckets",
    )  # fmt: skip
    initial = {k: v.clone() for k, v in model.state_dict().items()}

    def report(event) -> None:
        if event["event"] == "step" and event["step"] == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    fit(
        model, resident, out, arm=arm, evaluate=lambda m: {"S": 0.5}, report=report,
        initial_state=lambda: initial, processes=processes,
    )  # fmt: skip
    if processes.first:
        torch.save(model.state_dict(), out / "final.pt")


if __name__ == "__main__":
    main()
