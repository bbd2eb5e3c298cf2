"""Training-free baselines scored on a store: once per split and protocol, kept beside the runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.config import digest
from pipeline.base.errors import MissingExtra, RunError
from pipeline.store.reader import Store
from trainer.records import (
    RECORD_SCHEMA,
    check_protocols,
    file_name,
    pool_seed,
    read_scored,
    store_identity,
    write_scores,
)
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


class Floor:
    """One baseline on one split of a store; its features are computed when they are first needed.

    Parameters
    ----------
    name : of the baseline
    cache : folder in which scores are kept
    progress : called with (segments done, segments in all) while features are computed
    """

    def __init__(
        self,
        name: str,
        store: Store,
        split: str,
        *,
        cache: Path,
        pool_size: int = POOL_SIZE,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.name, self.store, self.split = name, store, split
        self.pool_size, self.progress = pool_size, progress
        settings = {
            "schema": RECORD_SCHEMA,
            "version": BASELINES.get(name).version,
            "store": store.identity,
            "compositions": store.grouping,
            "baseline": name,
            "pool_size": pool_size,
        }
        self.folder = cache / f"{name}-{digest(settings)}"

    @cached_property
    def similarities(self) -> tuple[Similarity, Similarity]:
        """Audio → MIDI and MIDI → audio."""
        features = embed_baseline(self.name, self.store, self.split, self.progress)
        return BASELINES.get(self.name).similarities(*features)

    def scored(self, protocol: str, seed: int | None = None) -> Scored:
        """Its scores under a protocol, read where they were made before.

        ``seed``: of the paper protocol's pools; default: the protocol's own.
        """
        check_protocols([protocol], seed)
        seed = pool_seed(protocol, seed, PROTOCOLS.get(protocol).seed)
        file = self.folder / file_name(protocol, self.split, seed)
        with contextlib.suppress(RunError):
            return read_scored(file, self.name, None)
        started = time.perf_counter()
        gallery, copied = _split(self.store, self.split)
        scores = score_similarities(
            *self.similarities,
            gallery,
            protocol,
            seed=seed,
            pool_size=self.pool_size,
            copied=copied,
        )
        seconds = time.perf_counter() - started
        record = scores.record() | {
            "run": self.name,
            "store": self.store.name,
            "store_identity": store_identity(self.store),
            "seconds": seconds,
        }
        write_scores(file, record, scores)
        return read_scored(file, self.name, None)


@lru_cache(maxsize=4)
def _split(store: Store, split: str) -> tuple[Gallery, npt.NDArray[np.bool_]]:
    """What all floors of a split share: its gallery, and which segments have copies."""
    gallery = Gallery.from_store(store, split)
    return gallery, has_copy(store, gallery)


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
    split = records[0]["split"]
    for name in BASELINES:
        floor = Floor(
            name, store, split, cache=cache, pool_size=pool_size, progress=telling(name, say)
        )
        try:
            found[name] = [
                dict(floor.scored(r["protocol"], pool_seed(r["protocol"], None, r["seed"])).record)
                for r in records
            ]
        except MissingExtra as error:
            missing.setdefault(str(error), []).append(name)
    for reason, names in missing.items():
        say(f"without the floors {', '.join(names)}: {reason}")
    return found


def telling(name: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Progress as a line at the start and every thousand segments."""
    told = -1

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done // 1000 > told:
            told = done // 1000
            say(f"floor {name}, made once for this store: {done:,} of {total:,} segments")

    return progress
