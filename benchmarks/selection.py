"""What choosing and telling by the same queries adds to a score: docs/method.md, known-issues V3.

    python -m benchmarks.selection --store STORE [--out runs] [--jobs 2]

The reference scores 13 arms after each of 5 epochs on 500 queries of the validation split, and
tells the best of these scores. Here ``benchmarks/campaigns/selection.toml`` does the same at size
``tiny`` on the store of ``benchmarks.reproduce --tier cpu``; every evaluation keeps the rank of
every answer (strict protocol). :mod:`benchmarks.halves` then chooses by half of them and asks the
other half: queries at random, or works whole.

Writes ``benchmarks/results/selection.json``.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import environment, write
from benchmarks.halves import optimism
from benchmarks.tiers import OWN
from pipeline.base.config import from_plain
from pipeline.base.files import atomic_write
from pipeline.store import Store
from trainer.cache import ResidentStore
from trainer.campaign.manifest import read_campaign
from trainer.campaign.plan import plan_campaign
from trainer.campaign.sweep import PlannedRun, Sweep
from trainer.config import RunConfig
from trainer.plan import RunRequest, plan_run
from trainer.retrieval.evaluate import score_embeddings
from trainer.retrieval.gallery import Gallery
from trainer.run import open_run
from trainer.scoring import comparison_of, selection_score
from trainer.training import FloatArray, train

CAMPAIGN = OWN / "selection.toml"
KEPT = "answered.npz"  # beside a run: what each of its evaluations answered
SIDES = ("a2m", "m2a")
HIT = 10


def main() -> None:
    """Train what is missing, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    sweep = plan_campaign(read_campaign(str(CAMPAIGN), tiny=True), arguments.store, arguments.out)
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs, mp_context=spawn) as pool:
        files = list(pool.map(answered, sweep.runs, [sweep] * len(sweep.runs)))
    store = Store.open(arguments.store)
    found = [np.load(file) for file in files]
    if any(not np.array_equal(each["segment"], found[0]["segment"]) for each in found):
        raise SystemExit("the runs did not answer the same queries")
    hits_MEDQ = np.stack([each["ranks"] for each in found]) < HIT
    gallery = Gallery.from_store(store, "validation")
    row_Q = np.searchsorted(gallery.segment, found[0]["segment"])
    S_ME = hits_MEDQ.mean(-1).min(-1)
    write(
        "selection",
        {
            "environment": environment(),
            "store": {"name": store.name, "identity": store.identity},
            "updates": sweep.runs[0].updates,
            "batch_size": sweep.runs[0].config["budget"]["batch_size"],
            "queries": len(row_Q),
            "queries_per_half": len(row_Q) // 2,
            "recordings": len(np.unique(gallery.recording[row_Q])),
            "works": len(np.unique(gallery.composition[row_Q])),
            "S": {
                run.arm: [round(float(S), 6) for S in scores]
                for run, scores in zip(sweep.runs, S_ME, strict=True)
            },
            "queries_halved": optimism(hits_MEDQ, np.arange(len(row_Q))),
            "works_halved": optimism(hits_MEDQ, gallery.composition[row_Q]),
        },
    )


def answered(planned: PlannedRun, sweep: Sweep) -> Path:
    """The file of what a run answered at its evaluations; where it is not there, the run is trained.

    ``ranks`` int [E, D, Q], ``segment`` int [Q] of every query, ``model`` SHA-256 of the weights.
    """
    torch.set_num_threads(1)
    folder = sweep.path(planned)
    file = folder / KEPT
    if _is_of(file, folder):
        return file
    # From the beginning: of a run that goes on, the evaluations before are gone.
    request = RunRequest(
        config=from_plain(RunConfig, planned.config),
        store=Path(sweep.store),
        out=Path(sweep.out),
        device="cpu",
        overwrite=True,
    )
    plan = plan_run(request)
    gallery = Gallery.from_store(plan.store, "validation")
    choose, comparison = selection_score(plan.store, plan.config), comparison_of(plan.config)
    kept: list[dict[str, np.ndarray]] = []

    def score(audio: FloatArray, midi: FloatArray, resident: ResidentStore) -> Mapping[str, Any]:
        scores = score_embeddings(
            audio, midi, gallery, "strict", pool_size=plan.config.evaluation.pool_size,
            full=False, segments=resident.rows, comparison=comparison,
        )  # fmt: skip
        kept.append(scores.per_query())
        return choose(audio, midi, resident)

    run = train(plan, score)
    print(f"{planned.label}: trained", flush=True)
    ranks = np.stack([[each[side] for side in SIDES] for each in kept])
    weights = run.record["model_sha256"]
    with atomic_write(file) as handle:
        np.savez_compressed(handle, ranks=ranks, segment=kept[0]["segment"], model=weights)
    return file


def _is_of(file: Path, folder: Path) -> bool:
    """Whether the file is of the weights that the run has now."""
    if not file.is_file() or not (run := open_run(folder)).finished:
        return False
    return str(np.load(file)["model"]) == run.record["model_sha256"]


if __name__ == "__main__":
    main()
