"""Training-free baselines scored on a store: once per split and protocol, kept beside the runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.config import digest
from pipeline.base.errors import MissingExtra, RunError
from pipeline.store.reader import Store
from trainer.records import check_protocols, file_name, pool_seed, read_scored, write_scores
from trainer.retrieval.baselines import BASELINES, embed_baseline
from trainer.retrieval.compare import Scored
from trainer.retrieval.evaluate import score_similarities
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.metrics import Similarity
from trainer.retrieval.pools import POOL_SIZE
from trainer.retrieval.protocols import PROTOCOLS
from trainer.retrieval.repeats import has_copy

FLOOR = "flux"  # the baseline that an arm has to beat
BASELINE_FOLDER = "baselines"
RECORD_SCHEMA = 2


def score_baseline(
    name: str,
    store: Store,
    split: str,
    protocols: Sequence[str],
    *,
    cache: Path,
    seed: int | None = None,
    pool_size: int = POOL_SIZE,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Score a training-free baseline, or read what it scored before on the same store."""
    return [
        dict(scored.record)
        for scored in _baseline(name, store, split, protocols, cache, seed, pool_size, progress)
    ]


def scored_baseline(
    name: str,
    store: Store,
    split: str,
    protocol: str,
    *,
    cache: Path,
    seed: int | None = None,
    pool_size: int = POOL_SIZE,
) -> Scored:
    """As :func:`score_baseline`, with every query's ranks."""
    return _baseline(name, store, split, [protocol], cache, seed, pool_size, None)[0]


def _baseline(
    name: str,
    store: Store,
    split: str,
    protocols: Sequence[str],
    cache: Path,
    seed: int | None,
    pool_size: int,
    progress: Callable[[int, int], None] | None,
) -> list[Scored]:
    check_protocols(protocols, seed)
    baseline = BASELINES.get(name)
    settings = {
        "schema": RECORD_SCHEMA,
        "version": baseline.version,
        "store": store.identity,
        "compositions": store.grouping,
        "baseline": name,
        "seed": seed,
        "pool_size": pool_size,
    }
    folder = cache / f"{name}-{digest(settings)}"
    similarities: tuple[Similarity, Similarity] | None = None
    found = []
    for protocol in protocols:
        file = folder / file_name(protocol, split)
        try:
            found.append(read_scored(file, name, None))
            continue
        except RunError:
            pass
        started = time.perf_counter()
        if similarities is None:
            similarities = baseline.similarities(*embed_baseline(name, store, split, progress))
        gallery = Gallery.from_store(store, split)
        scores = score_similarities(
            *similarities,
            gallery,
            protocol,
            seed=pool_seed(protocol, seed, PROTOCOLS.get(protocol).seed),
            pool_size=pool_size,
            copied=has_copy(store, gallery),
        )
        seconds = time.perf_counter() - started
        record = scores.record() | {"run": name, "store": store.name, "seconds": seconds}
        write_scores(file, record, scores)
        found.append(read_scored(file, name, None))
    return found


def floors_beside(
    records: Sequence[dict[str, Any]],
    store: Store,
    cache: Path,
    pool_size: int,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, list[dict[str, Any]]]:
    """Every baseline's record for each record, on the same pools; none where kernels are missing."""
    found: dict[str, list[dict[str, Any]]] = {}
    missing: dict[str, list[str]] = {}
    for name in BASELINES:
        try:
            found[name] = [
                score_baseline(
                    name,
                    store,
                    record["split"],
                    [record["protocol"]],
                    cache=cache,
                    seed=pool_seed(record["protocol"], None, record["seed"]),
                    pool_size=pool_size,
                )[0]
                for record in records
            ]
        except MissingExtra as error:
            missing.setdefault(str(error), []).append(name)
    for reason, names in missing.items():
        say(f"without the floors {', '.join(names)}: {reason}")
    return found
