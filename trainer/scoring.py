"""From a run and a store to ``evaluation/<protocol>-<split>.json``.

Each evaluation is its own file, written as soon as it is made. Selection only ever sees the
validation split; the test split is scored of finished runs alone, by ``xmodal-evaluate`` and by
campaigns.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.base.config import digest
from pipeline.base.errors import RunError, StoreError
from pipeline.base.files import atomic_write
from pipeline.store.reader import Store
from pipeline.store.schema import RECORD
from trainer.cache import ON_DEVICE, ResidentStore, fingerprints
from trainer.config import RunConfig
from trainer.devices import pick_device
from trainer.embed import embed_split
from trainer.layout import EVALUATION
from trainer.records import (
    RECORD_SCHEMA,
    check_protocols,
    file_name,
    pool_seed,
    read_scored,
    store_identity,
    write_scores,
)
from trainer.retrieval.compare import Scored
from trainer.retrieval.evaluate import evaluate_embeddings, score_embeddings
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.lags import Comparison
from trainer.retrieval.protocols import PROTOCOLS
from trainer.retrieval.repeats import has_copy
from trainer.run import Run, residents

FEATURES = Path("data/features")

FloatArray = npt.NDArray[np.float32]
Embedded = Callable[[], tuple[FloatArray, FloatArray]]


def comparison_of(config: RunConfig) -> Comparison:
    """How embeddings of such a run are compared."""
    head = config.head
    return Comparison(slots=head.slots, lags=head.lags, cost=head.lag_cost)


def selection_score(
    store: Store, config: RunConfig
) -> Callable[[FloatArray, FloatArray, ResidentStore], Mapping[str, Any]]:
    """What training selects by: the configured protocol on the validation split.

    The record gets a further ``MRR``, the mean of both directions: it tells steps of equal S apart.

    Raises
    ------
    RetrievalError
        now, not after the first epoch, when the split is too small for such pools.
    """
    protocol = config.evaluation.selection
    gallery = Gallery.from_store(store, "validation")
    seed = pool_seed(protocol, None, config.pool_seed)
    pools = PROTOCOLS.get(protocol).pools(gallery, seed, config.evaluation.pool_size)
    comparison = comparison_of(config)

    def score(audio: FloatArray, midi: FloatArray, resident: ResidentStore) -> Mapping[str, Any]:
        record = evaluate_embeddings(
            audio, midi, gallery, protocol, pools=pools, full=False, store=store.name,
            segments=resident.rows, comparison=comparison,
        )  # fmt: skip
        return {**record, "MRR": (record["a2m"]["MRR"] + record["m2a"]["MRR"]) / 2}

    return score


def score_run(
    run: Run,
    store: Store,
    split: str,
    protocols: Sequence[str],
    *,
    device: str = "auto",
    seed: int | None = None,
    pool_size: int | None = None,
    save_embeddings: Path | None = None,
    embedded: Embedded | None = None,
) -> list[dict[str, Any]]:
    """Embed one split once and score it under each protocol; writes one file per protocol.

    Parameters
    ----------
    store : the run's own, or another one with the arrays that the run reads
    seed : of the paper protocol's pools; default: the run's own setting
    pool_size : default: the run's own setting
    save_embeddings : folder for ``audio.npy``, ``midi.npy`` and ``segments.parquet``
    embedded : gives the split's embeddings where they were made before

    Returns
    -------
    The records, in the order of ``protocols``.
    """
    check_protocols(protocols, seed)
    if split == "test" and not run.finished:
        raise RunError(
            f"{run.path} is not finished ({run.record['status']}): the test split is scored once, "
            "when nothing is chosen any more; repeat its xmodal-train command"
        )
    audio, midi = embedded() if embedded else _embed(run, store, split, device)
    gallery = Gallery.from_store(store, split)
    if save_embeddings is not None:
        _save_embeddings(save_embeddings, audio, midi, store, gallery.segment.astype(np.int64))
    folder = run.path / EVALUATION / ("" if reads_same(run, store) else store.name)
    copied = has_copy(store, gallery)
    records = []
    for protocol in protocols:
        started = time.perf_counter()
        scores = score_embeddings(
            audio,
            midi,
            gallery,
            protocol,
            seed=pool_seed(protocol, seed, run.config.pool_seed),
            pool_size=pool_size or run.config.evaluation.pool_size,
            copied=copied,
            comparison=comparison_of(run.config),
        )
        record = scores.record() | {
            "run": run.path.name,
            "store": store.name,
            "store_identity": store_identity(store),
            "key": evaluation_key(run, store),
            "leaks": run.leaks,
            "seconds": time.perf_counter() - started,
        }
        write_scores(folder / file_name(protocol, split, seed, pool_size), record, scores)
        records.append(record)
    return records


def scored_run(
    run: Run,
    store: Store,
    split: str,
    protocol: str,
    *,
    device: str = "auto",
    seed: int | None = None,
    embedded: Embedded | None = None,
) -> Scored:
    """A run's evaluation, read where the same weights and arrays gave it before, or made now."""
    if (found := kept_scores(run, store, split, protocol, seed=seed)) is not None:
        return found
    score_run(run, store, split, [protocol], device=device, seed=seed, embedded=embedded)
    folder = _folder(run, store)
    return read_scored(folder / file_name(protocol, split, seed), run.path.name, run.config.seed)


def kept_scores(
    run: Run, store: Store, split: str, protocol: str, *, seed: int | None = None
) -> Scored | None:
    """A run's evaluation where its present weights, and arrays like the store's, gave it before."""
    file = _folder(run, store) / file_name(protocol, split, seed)
    with contextlib.suppress(RunError):
        found = read_scored(file, run.path.name, run.config.seed)
        if found.record.get("key") == evaluation_key(run, store):
            return found
    return None


def _folder(run: Run, store: Store) -> Path:
    """Where its evaluations on a store lie."""
    return run.path / EVALUATION / ("" if reads_same(run, store) else store.name)


def evaluation_key(run: Run, store: Store) -> str:
    """Changes with the weights, with what they read of a store, and with what a record holds."""
    arrays = [name for name in run.record["reads"] if name not in ("store", "compositions")]
    return digest(
        {
            "schema": RECORD_SCHEMA,
            "model": run.record.get("model_sha256"),
            "reads": fingerprints(store, arrays),
        }
    )


def _embed(run: Run, store: Store, split: str, device: str) -> tuple[FloatArray, FloatArray]:
    target = pick_device(device)
    model = run.load_model(target)
    resident = residents(run.config, model.reads(), store, split, target, training=False)
    return embed_split(model, resident)


def own_store(run: Run, say: Callable[[str], None] = lambda text: None) -> Store:
    """The store that a run was trained on, still where and what it was.

    Of an exported model, the one of that identity under ``data/features``; ``say`` is told which.
    """
    if run.store_path is None:
        return _store_of_export(run, say)
    try:
        store = Store.open(run.store_path)
    except StoreError as error:
        raise StoreError(
            f"{error} (the store of the run {run.path}; if it was moved: --store DIR)",
            kind=error.kind,
        ) from None
    if not reads_same(run, store):
        raise StoreError(
            f"{store.path} is not the store that {run.path} was trained on: it was built again from "
            f"other data or descriptors; to score on it all the same: --store {store.path}",
            kind="changed",
        )
    return store


def _store_of_export(run: Run, say: Callable[[str], None]) -> Store:
    for record in sorted(FEATURES.glob(f"*/{RECORD}")):
        with contextlib.suppress(StoreError):  # a damaged one is not the one
            store = Store.open(record.parent)
            if reads_same(run, store):
                say(f"store: {store.path} (the one that {run.path} was trained on)")
                return store
    raise StoreError(
        f"{run.path} is an exported model, which does not know where its store "
        f"{run.record['store']['name']} is, and {FEATURES} has none that holds what it reads; name "
        "one: --store DIR",
        kind="missing",
    )


def reads_same(run: Run, store: Store) -> bool:
    """Whether a store holds exactly what the run was trained on."""
    wanted = run.record["reads"]
    arrays = [name for name in wanted if name not in ("store", "compositions")]
    try:
        held = fingerprints(store, arrays)
    except StoreError:
        return False
    # An array that has been added since is what the device computed, but for its last bits.
    plain = [{k: v.removesuffix(ON_DEVICE) for k, v in r.items()} for r in (held, wanted)]
    return plain[0] == plain[1]


def _save_embeddings(
    folder: Path, audio: FloatArray, midi: FloatArray, store: Store, rows: npt.NDArray[np.int64]
) -> None:
    """``audio.npy`` and ``midi.npy`` float32 [segments, 256], and the joined table, row for row."""
    for name, values in (("audio", audio), ("midi", midi)):
        with atomic_write(folder / f"{name}.npy") as handle:
            np.save(handle, values.astype(np.float32), allow_pickle=False)
    segments = store.table("segments").take(pa.array(rows))
    recording = segments.column("recording")
    names = store.table("recordings")
    for column in ("composer", "title", "composition"):
        segments = segments.append_column(column, names.column(column).take(recording))
    with atomic_write(folder / "segments.parquet") as handle:
        pq.write_table(segments, handle)
