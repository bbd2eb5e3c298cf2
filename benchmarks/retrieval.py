"""What scores and analyses cost: every metric against one matrix product, one side against both.

python -m benchmarks.retrieval

``metrics``: all scores of 13,532 × 13,532 similarities in both directions (pools, full gallery,
hubness, hard negatives, breakdowns, intervals) against one product of the same embeddings, in turn;
the largest temporary memory beside the embeddings. ``invariance``: the invariance suite as it is, each
condition embedding the side that it changes, against the same conditions embedding both sides.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import environment, of_pairs, seconds, write
from benchmarks.synthetic import synthetic_store
from pipeline.descriptors.contract import Side
from pipeline.store import Store
from trainer.analyses import ANALYSES
from trainer.analyses.bench import Bench
from trainer.analyses.invariance import Perturbed, Step
from trainer.arms import arm_pairs
from trainer.checkpoint import save_weights
from trainer.embed import embed_side
from trainer.layout import FINISHED, MODEL
from trainer.model import build_model
from trainer.presets import preset_config
from trainer.resolve import with_pairs
from trainer.retrieval.evaluate import evaluate_embeddings
from trainer.retrieval.gallery import Gallery
from trainer.run import Run

SEGMENTS = 13_532
RECORDINGS = 137
WIDTH = 256
ROUNDS = 5
"""Validation of MAESTRO, capped at 100 segments a recording (method §1.3)."""


def validation_like(seed: int = 0) -> tuple[np.ndarray, np.ndarray, Gallery]:
    """Embeddings and a gallery of the size and shape of MAESTRO's validation split."""
    rng = np.random.default_rng(seed)
    recording = np.sort(rng.integers(0, RECORDINGS, SEGMENTS))
    start = np.concatenate([np.arange(c, dtype=float) for c in np.bincount(recording)])
    piece = rng.normal(size=(RECORDINGS, WIDTH)).astype(np.float32)[recording]
    audio = piece + rng.normal(size=(SEGMENTS, WIDTH)).astype(np.float32)
    midi = audio + rng.normal(size=(SEGMENTS, WIDTH)).astype(np.float32)
    gallery = Gallery.from_columns(
        split="validation",
        segment=np.arange(SEGMENTS),
        recording=recording,
        composer=recording % 20,
        composition=recording,
        start_s=start,
        valid=np.ones(SEGMENTS, bool),
        notes=rng.integers(1, 120, SEGMENTS),
    )
    return audio, midi, gallery


def metrics_against_product(rounds: int) -> dict[str, Any]:
    """Seconds of one product and of all metrics of each protocol, in turn."""
    audio, midi, gallery = validation_like()
    copied = np.arange(SEGMENTS) % 7 == 0
    found: dict[str, Any] = {"segments": SEGMENTS, "width": WIDTH}

    def product() -> None:
        audio @ midi.T

    for protocol in ("paper", "strict"):

        def metrics(protocol: str = protocol) -> None:
            evaluate_embeddings(audio, midi, gallery, protocol, copied=copied)

        metrics()
        product()
        pairs = [(seconds(product), seconds(metrics)) for _ in range(rounds)]
        found[protocol] = of_pairs(pairs)
    return found


def memory_of_metrics() -> dict[str, float]:
    """Peak of a process of its own: with embeddings and gallery alone, and after scoring."""
    audio, midi, gallery = validation_like()
    before = _peak()
    for protocol in ("paper", "strict"):
        evaluate_embeddings(audio, midi, gallery, protocol)
    return {"before_bytes": before, "peak_bytes": _peak()}


def _peak() -> float:
    """The process's own peak; ``ru_maxrss`` would begin with that of the one that started it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024.0
    raise RuntimeError("no VmHWM: this measures on Linux alone")


def one_side_against_both(rounds: int, segments: int = 900) -> dict[str, Any]:
    """Seconds of the invariance suite, and of the same with both sides embedded for every condition.

    An untrained model of the ``sound`` preset at tiny size, on a synthetic store.
    """
    found: dict[str, Any] = {"segments": segments}
    with tempfile.TemporaryDirectory() as folder:
        store = synthetic_store(Path(folder) / "store", segments, ("audio", "mel", "A4", "D4"))
        for arm in ("d0", "a4r"):
            bench = _untrained(Path(folder) / arm, arm, store)
            bench.baseline("sound")
            suite = ANALYSES.get("invariance")
            assert isinstance(suite, Perturbed)
            steps = list(suite.steps("sound"))

            def one(bench: Bench = bench, steps: list[Step] = steps) -> None:
                for step in steps:
                    bench.effect(bench.changed(step.side, step.change(bench)), "sound")

            def both(bench: Bench = bench, steps: list[Step] = steps) -> None:
                for step in steps:
                    other: Side = "midi" if step.side == "audio" else "audio"
                    changed = bench.changed(step.side, step.change(bench))
                    changed[other] = embed_side(bench.model, bench.resident, other)
                    bench.effect(changed, "sound")

            one()
            found[arm] = of_pairs([(seconds(one), seconds(both)) for _ in range(rounds)])
            found[arm]["conditions"] = len(steps)
    return found


def _untrained(folder: Path, arm: str, store: Store) -> Bench:
    """A run folder whose model was never trained: the work is the same."""
    config = with_pairs(preset_config("sound", "tiny"), arm_pairs(arm))
    evaluation = dataclasses.replace(config.evaluation, pool_size=64)
    config = dataclasses.replace(config, evaluation=evaluation)
    folder.mkdir(parents=True)
    save_weights(folder / MODEL, build_model(config).state_dict())
    record = {"signature": "0" * 12, "status": FINISHED, "arm": arm}
    return Bench(Run(path=folder, config=config, record=record), store, "train")


def main() -> None:
    """Measure and write ``benchmarks/results/retrieval.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(memory_of_metrics()))
        return
    # A process of its own, so that nothing else is in its peak.
    own = subprocess.run(
        [sys.executable, "-m", "benchmarks.retrieval", "--memory"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    data = {
        "environment": environment(),
        "memory": json.loads(own.stdout),
        "metrics": metrics_against_product(arguments.rounds),
        "invariance": one_side_against_both(max(3, arguments.rounds // 2)),
    }
    write("retrieval", data)


if __name__ == "__main__":
    main()
