"""From a run and a store to ``evaluation/<protocol>-<split>.json``.

Each evaluation is its own file, written as soon as it is made. Selection only ever sees the
validation split; the test split is scored by ``xmodal-evaluate`` alone, of finished runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.base.errors import RunError, StoreError
from pipeline.base.files import atomic_write
from pipeline.store.reader import Store
from trainer.cache import ON_DEVICE, ResidentStore, fingerprints
from trainer.config import RunConfig
from trainer.devices import pick_device
from trainer.embed import embed_split
from trainer.records import check_protocols, file_name, pool_seed, read_scored, write_scores
from trainer.retrieval.compare import Scored
from trainer.retrieval.evaluate import evaluate_embeddings, score_embeddings
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.protocols import PROTOCOLS
from trainer.retrieval.repeats import has_copy
from trainer.run import EVALUATION, Run, residents

FloatArray = npt.NDArray[np.float32]


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

    def score(audio: FloatArray, midi: FloatArray, resident: ResidentStore) -> Mapping[str, Any]:
        record = evaluate_embeddings(
            audio, midi, gallery, protocol, pools=pools, full=False, store=store.name
        )
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
) -> list[dict[str, Any]]:
    """Embed one split once and score it under each protocol; writes one file per protocol.

    Parameters
    ----------
    store : the run's own, or another one with the arrays that the run reads
    seed : of the paper protocol's pools; default: the run's own setting
    pool_size : default: the run's own setting
    save_embeddings : folder for ``audio.npy``, ``midi.npy`` and ``segments.parquet``

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
    target = pick_device(device)
    model = run.load_model(target)
    resident = residents(run.config, model.reads(), store, split, target, training=False)
    audio, midi = embed_split(model, resident)
    gallery = Gallery.from_store(store, split)
    if save_embeddings is not None:
        _save_embeddings(save_embeddings, audio, midi, store, resident.rows)
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
        )
        record = scores.record() | {
            "run": run.path.name,
            "store": store.name,
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
) -> Scored:
    """A run's evaluation of its own store, read where it was made before; with every query's ranks."""
    folder = run.path / EVALUATION / ("" if reads_same(run, store) else store.name)
    file = folder / file_name(protocol, split, seed)
    try:
        return read_scored(file, run.path.name, run.config.seed)
    except RunError:
        score_run(run, store, split, [protocol], device=device, seed=seed)
        return read_scored(file, run.path.name, run.config.seed)


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
