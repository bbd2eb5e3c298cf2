"""The README's scores: train arms with the default preset, score the test split beside the floors.

Runs the commands that a user types, on one store, and gathers what they wrote. Arms × seeds that are
trained already are not trained again. Without a store, that of the corpus is built or found: the demo,
or for ``maps`` the real recordings of XMODAL_TEST_DATA.

    python -m benchmarks.scores [STORE] --name demo [--arms d0,a4r] [--seeds 42,43,44]
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.common import command, environment, write
from benchmarks.corpora import VARIABLE, real_table
from pipeline.info import describe_store
from pipeline.store import Store

PROTOCOLS = ("paper", "strict")


def main() -> None:
    """Train, score, write ``benchmarks/results/scores-<name>.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--name", required=True, help="demo or maps")
    parser.add_argument("--arms", default="d0,a4r")
    parser.add_argument("--seeds", default="42,43,44")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    seeds = [int(s) for s in arguments.seeds.split(",")]
    store = arguments.store or built(arguments.name)
    contents, _ = describe_store(Store.open(store))
    result: dict[str, Any] = {
        "environment": environment(),
        "splits": contents["splits"],
        "hours": contents["hours"],
        "identity": contents["identity"],
        "arms": {
            arm: [score(arm, seed, store, arguments.out) for seed in seeds]
            for arm in arguments.arms.split(",")
        },
    }
    result["floors"] = floors(next(iter(result["arms"].values()))[0], arguments.out)
    result["differences"] = differences(result["arms"], arguments.out)
    result["summary"] = {
        arm: {p: summary(runs, p) for p in PROTOCOLS} for arm, runs in result["arms"].items()
    }
    write(f"scores-{arguments.name}", result)


def built(name: str) -> Path:
    """The store of a corpus, as the command makes or finds it."""
    corpus = real_table() if name == "maps" else {"demo": "demo"}.get(name)
    if corpus is None:
        raise SystemExit(f"no corpus for {name}: give a store (maps needs {VARIABLE})")
    return Path(command("xmodal-features", "build", "--corpus", corpus)["store"])


def score(arm: str, seed: int, store: Path, out: Path) -> dict[str, Any]:
    """One run: its test scores, its cost."""
    arguments = ["--arm", arm, "--seed", seed, "--store", store, "--out", out, "--size", "tiny"]
    folder = Path(command("xmodal-train", *arguments, "--device", "cpu")["run"])
    scores = command("xmodal-evaluate", folder, "--split", "test")["scores"]
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {
        "run": folder.name,
        "seed": seed,
        "preset": record["config"]["preset"],
        "size": record["config"]["size"],
        "updates": record["step"],
        "training_seconds": record["performance"]["seconds"],
        "segments_per_s": record["performance"]["segments_per_s"],
        "threads": record["threads"],
        "attempts": record["attempts"],
        "validation_S": record["best"]["S"],
        "test": {s["protocol"]: s for s in scores},
    }


def floors(run: dict[str, Any], out: Path) -> dict[str, dict[str, Any]]:
    """Every training-free baseline on the same pools, by name and protocol."""
    told = command("xmodal-evaluate", out / run["run"], "--split", "test")["floors"]
    return {name: {s["protocol"]: s for s in scores} for name, scores in told.items()}


def differences(arms: dict[str, list[dict[str, Any]]], out: Path) -> dict[str, Any]:
    """Every arm against the first, and all against the floor, over the seeds."""
    runs = [out / run["run"] for runs in arms.values() for run in runs]
    told = command("xmodal-compare", *runs, "--split", "test", "--baseline", "flux")
    return dict(told)


def summary(runs: list[dict[str, Any]], protocol: str) -> dict[str, Any]:
    """Mean and spread over seeds of what the table shows."""
    found = [r["test"][protocol] for r in runs]
    picked = {
        "S": [r["S"] for r in found],
        "a2m_R@1": [r["a2m"]["R@1"] for r in found],
        "m2a_R@1": [r["m2a"]["R@1"] for r in found],
        "a2m_no_copy": [r["no_copy"]["a2m"]["R@1"] for r in found],
        "m2a_no_copy": [r["no_copy"]["m2a"]["R@1"] for r in found],
        "full_R@1": [min(r["full"][side]["R@1"] for side in ("a2m", "m2a")) for r in found],
    }
    return {
        name: {
            "mean": statistics.mean(values),
            "low": min(values),
            "high": max(values),
            "seeds": len(values),
        }
        for name, values in picked.items()
    }


if __name__ == "__main__":
    main()
