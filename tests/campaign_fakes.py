"""Campaigns and run folders as training would leave them, written in milliseconds without it.

Records go through the project's own writers; scores are computed, from random embeddings that lie the
closer together the better an arm is meant to be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.config import digest, merge, to_plain
from pipeline.base.files import write_json
from trainer.arms import arm_name, arm_pairs
from trainer.campaign.sweep import PlannedRun, Skipped, Sweep
from trainer.config import PairConfig, RunConfig
from trainer.metrics_log import MetricsLog
from trainer.presets import preset_config
from trainer.records import RECORD_SCHEMA, file_name, write_scores
from trainer.resolve import with_pairs
from trainer.retrieval.evaluate import Scores, score_embeddings
from trainer.retrieval.gallery import Gallery

STORE, IDENTITY, GROUPING = "demo-0123456789ab", "5" * 64, "c0ffee123456"
POOL = 24
BUDGET = {"epochs": 3, "batches_per_epoch": 10, "batch_size": 16}


def config_of(pairs: tuple[PairConfig, ...], seed: int = 42, **over: Any) -> RunConfig:
    """The paper's preset, tiny, with a small budget."""
    from pipeline.base.config import from_plain

    base = to_plain(with_pairs(preset_config("paper", "tiny"), pairs))
    short = {
        "seed": seed,
        "budget": BUDGET,
        "evaluation": {"first": 1, "every": 1, "epochs": [], "pool_size": POOL},
    }
    return from_plain(RunConfig, merge(merge(base, short), over))


def planned(
    index: int, arm: str | tuple[PairConfig, ...], seed: int = 42, *, group: str = "arms",
    settings: Mapping[str, Any] | None = None, after: int | None = None, label: str = "",
    leaks: bool = False, **over: Any,
) -> PlannedRun:  # fmt: skip
    """One run of a campaign; ``over`` is laid over its configuration."""
    pairs = arm_pairs(arm) if isinstance(arm, str) else arm
    config = config_of(pairs, seed, **over)
    name = arm_name(config.pairs)
    if config.control.name != "real":
        name = f"{name}-{config.control.name}"
    reads = ("audio", *sorted({p.descriptor for p in config.pairs}))
    signature = digest([to_plain(config), after])
    words = [f"{k.removesuffix('.name')} {v}" for k, v in (settings or {}).items()]
    budget, when = config.budget, config.evaluation
    return PlannedRun(
        index=index,
        group=group,
        label=", ".join([label or name, *words, f"seed {seed}"]),
        arm=name,
        seed=seed,
        settings=dict(settings or {}),
        signature=signature,
        folder=f"{name}-{signature}",
        after=after,
        config=to_plain(config),
        reads=reads,
        missing=(),
        updates=budget.updates,
        batch_size=budget.batch_size,
        evaluations=sum(when.due(e, budget.epochs) for e in range(1, budget.epochs + 1)),
        parameters=1_085_601,
        trainable=900_000 + 1000 * len(name),
        leaks=leaks,
    )


def sweep_of(
    out: Path, runs: Sequence[PlannedRun], *, reference: str | None = None,
    skipped: Sequence[Skipped] = (),
) -> Sweep:  # fmt: skip
    """A plan of these runs."""
    return Sweep(
        key="key",
        name="fake",
        title="Which arm, on few notes",
        summary="A campaign that was never trained.",
        reference=reference,
        store=str(out / "no-store" / STORE),
        store_name=STORE,
        out=str(out),
        runs=tuple(runs),
        skipped=tuple(skipped),
    )


def record_of(
    run: PlannedRun, status: str = "trained", start: Path | None = None
) -> dict[str, Any]:
    """What training writes to ``run.json``."""
    record: dict[str, Any] = {
        "schema": 1,
        "signature": run.signature,
        "arm": run.arm,
        "status": status,
        "config": run.config,
        "reads": {
            "store": IDENTITY,
            "compositions": GROUPING,
            **{name: digest(name) for name in run.reads},
        },
        "init": None if start is None else str(start),
        "store": {"path": f"gone/{STORE}", "name": STORE},
        "parameters": {"total": run.parameters, "trainable": run.trainable},
        "leaks": run.leaks,
        "commit": "0" * 40,
        "versions": {"python": "3.11.7"},
        "device": "x86_64",
        "threads": 2,
        "deterministic": False,
        "compiled": False,
        "processes": 1,
        "attempts": 1,
        "started_at": "2026-11-01T12:00:00Z",
    }
    if status == "trained":
        record |= {
            "best": {"S": 0.5, "step": run.updates},
            "step": run.updates,
            "performance": {
                "seconds": 12.5,
                "segments_per_s": 40.0 + 10 * len(run.reads),
                "peak_memory": {"host": 900_000_000},
            },
            "model_sha256": hashlib.sha256(run.signature.encode()).hexdigest(),
        }
    return record


def write_run(
    out: Path, run: PlannedRun, *, quality: float = 1.0, status: str = "trained", done: float = 1.0,
    splits: Sequence[str] = ("validation", "test"), recordings: int = 8, start: Path | None = None,
) -> Path:  # fmt: skip
    """A run folder; ``quality`` 0 is chance, ``done`` is the share of its epochs.

    One that is not finished has a checkpoint of its last step, as one that was told to stop.
    """
    folder = out / run.folder
    folder.mkdir(parents=True)
    record = record_of(run, status, start)
    write_json(folder / "run.json", record)
    write_log(folder / "metrics.jsonl", run, quality, done)
    if status != "trained" and (steps := int(run.updates * done)):
        (folder / "checkpoints" / f"step-{steps:08d}").mkdir(parents=True)
    if status == "trained":
        (folder / "model.safetensors").write_bytes(run.signature.encode())
        key = digest(
            {"schema": RECORD_SCHEMA, "model": record["model_sha256"], "reads": record["reads"]}
        )
        for split in splits:
            for protocol in ("paper", "strict"):
                scores = scored(split, protocol, quality, run.seed + len(run.arm), recordings)
                write_scores(
                    folder / "evaluation" / file_name(protocol, split),
                    scores.record()
                    | {
                        "run": run.folder,
                        "store": STORE,
                        "store_identity": f"{IDENTITY} {GROUPING}",
                        "key": key,
                        "leaks": run.leaks,
                        "seconds": 0.1,
                    },
                    scores,
                )
    return folder


def write_log(file: Path, run: PlannedRun, quality: float = 1.0, done: float = 1.0) -> None:
    """``metrics.jsonl``: losses that fall, a score that rises after every epoch."""
    log = MetricsLog(file)
    epochs, each = run.config["budget"]["epochs"], run.config["budget"]["batches_per_epoch"]
    rng = np.random.default_rng(run.seed)
    for step in range(1, int(epochs * each * done) + 1):
        epoch = (step - 1) // each + 1
        loss = 14.0 - quality * epoch / epochs + 0.1 * rng.random()
        log.write({"step": step, "epoch": epoch, "lr_multiplier": 0.5, "loss": loss})
        if step % each == 0:
            validation = {"S": min(1.0, 0.2 + 0.2 * quality * epoch / epochs), "a2m": {}, "m2a": {}}
            log.write({"step": step, "epoch": epoch, "validation": validation})
    log.close()


def scored(split: str, protocol: str, quality: float, seed: int, recordings: int = 8) -> Scores:
    """Scores of random embeddings on a split of ``recordings`` times 20 segments."""
    gallery = gallery_of(split, recordings)
    rng = np.random.default_rng(seed)
    audio = rng.standard_normal((len(gallery), 12)).astype(np.float32)
    noise = rng.standard_normal(audio.shape).astype(np.float32)
    midi = (quality * audio + noise).astype(np.float32)
    pool_seed = 42 if protocol == "paper" else None
    return score_embeddings(audio, midi, gallery, protocol, seed=pool_seed, pool_size=POOL)


def gallery_of(split: str, recordings: int = 8) -> Gallery:
    """Twenty segments, a second apart, of each of some recordings, each its own composition."""
    recording = np.repeat(np.arange(recordings), 20)
    return Gallery.from_columns(
        split=split,
        segment=np.arange(len(recording)) + (0 if split == "validation" else 1000),
        recording=recording,
        composer=recording % 3,
        composition=recording,
        start_s=np.tile(np.arange(20.0), recordings),
        valid=np.ones(len(recording), bool),
    )


def programs(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


QUALITY = {"d0": 0.3, "a4": 0.45, "a4r": 0.6, "d4a4": 0.65, "d4r": 0.2, "d4a4cm": 3.0}
SEEDS = (42, 123, 456)


def screening_of(out: Path) -> Sweep:
    """Three seeds of d0, a4r and d4a4; one of a4, d4r, d4a4cm; a7 stopped, a8 not begun."""
    runs = [planned(0, "d0", group="foundation", label="first stage", budget={"epochs": 5})]
    arms = [(a, s) for a in ("d0", "a4r", "d4a4") for s in SEEDS]
    arms += [(a, 42) for a in ("a4", "d4r", "d4a4cm", "a7", "a8")]
    for arm, seed in arms:
        runs.append(planned(len(runs), arm, seed, after=0, leaks=arm == "d4a4cm"))
    start = write_run(out, runs[0], quality=0.3)
    for run in runs[1:]:
        if run.arm == "a7":
            write_run(out, run, status="interrupted", done=0.7, start=start)
        elif run.arm != "a8":
            write_run(out, run, quality=QUALITY[run.arm], start=start)
    left = Skipped(what="D1 concat", why="D1 is one vector a segment; concat wants one a frame")
    return sweep_of(out, runs, reference="screening", skipped=[left])
