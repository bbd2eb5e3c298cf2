"""From a run (or a training-free baseline) and a store to ``evaluation/<protocol>-<split>.json``.

Each evaluation is its own file, written as soon as it is made. Selection only ever sees the
validation split; the test split is scored by ``xmodal-evaluate`` alone. Baselines are scored once per
store, split and protocol, and kept beside the runs, so that they can stand next to every arm.
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

from pipeline.base.config import digest
from pipeline.base.errors import ConfigError, MissingExtra, RunError, StoreError
from pipeline.base.files import atomic_write, read_json, write_json
from pipeline.store.reader import Store
from trainer.cache import ON_DEVICE, ResidentStore, fingerprints
from trainer.config import RunConfig
from trainer.devices import pick_device
from trainer.embed import embed_split
from trainer.retrieval.baselines import BASELINES, embed_baseline
from trainer.retrieval.compare import Scored
from trainer.retrieval.evaluate import (
    Scores,
    evaluate_embeddings,
    score_embeddings,
    score_similarities,
)
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.metrics import Similarity
from trainer.retrieval.pools import PAPER_SEED, POOL_SIZE
from trainer.retrieval.protocols import PROTOCOLS
from trainer.retrieval.repeats import has_copy
from trainer.run import EVALUATION, Run, residents

FloatArray = npt.NDArray[np.float32]
FLOOR = "flux"  # the baseline that an arm has to beat
RECORD_SCHEMA = 2


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
    seed = _pool_seed(protocol, None, config.pool_seed)
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
            seed=_pool_seed(protocol, seed, run.config.pool_seed),
            pool_size=pool_size or run.config.evaluation.pool_size,
            copied=copied,
        )
        record = scores.record() | {
            "run": run.path.name,
            "store": store.name,
            "leaks": run.leaks,
            "seconds": time.perf_counter() - started,
        }
        _write(folder / file_name(protocol, split, seed, pool_size), record, scores)
        records.append(record)
    return records


def file_name(
    protocol: str, split: str, seed: int | None = None, pool_size: int | None = None
) -> str:
    """Of an evaluation; other pools than the run's own never take the place of its scores."""
    asked = {"seed": seed, "pool": pool_size}
    return f"{protocol}-{split}" + "".join(f"-{k}{v}" for k, v in asked.items() if v is not None)


def _write(file: Path, record: Mapping[str, Any], scores: Scores) -> None:
    """``<file>.json``, and before it ``<file>.parquet``: the ranks of every query."""
    table = pa.table({name: pa.array(column) for name, column in scores.per_query().items()})
    with atomic_write(file.with_name(f"{file.name}.parquet")) as handle:
        pq.write_table(table, handle)
    write_json(file.with_name(f"{file.name}.json"), record)


def read_scored(file: Path, name: str, seed: int | None) -> Scored:
    """What was written to ``<file>.json`` and ``.parquet``, for comparing.

    Raises
    ------
    RunError
        when there is no such evaluation.
    """
    try:
        record = read_json(file.with_name(f"{file.name}.json"))
        table = pq.read_table(file.with_name(f"{file.name}.parquet"))
        columns = {n: table.column(n).to_numpy() for n in table.column_names}
        _line(name, record), record["seed"], columns["a2m"]
        return Scored(name=name, seed=seed, record=record, columns=columns)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        raise RunError(
            f"{name} has no evaluation {file.name}, or it does not read", kind="no-evaluation"
        ) from None


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
            seed=_pool_seed(protocol, seed, PROTOCOLS.get(protocol).seed),
            pool_size=pool_size,
            copied=has_copy(store, gallery),
        )
        seconds = time.perf_counter() - started
        record = scores.record() | {"run": name, "store": store.name, "seconds": seconds}
        _write(file, record, scores)
        found.append(read_scored(file, name, None))
    return found


def floors(
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
                    seed=_pool_seed(record["protocol"], None, record["seed"]),
                    pool_size=pool_size,
                )[0]
                for record in records
            ]
        except MissingExtra as error:
            missing.setdefault(str(error), []).append(name)
    for reason, names in missing.items():
        say(f"without the floors {', '.join(names)}: {reason}")
    return found


def common_seed(protocol: str) -> int | None:
    """The seed of pools that runs of any training seed are compared on."""
    return PAPER_SEED if PROTOCOLS.get(protocol).seeded else None


def table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Records as aligned text, one line each."""
    head = (
        f"{'':<28} {'protocol':<8} {'split':<10} {'S':>6} {'95 % interval':>16} "
        f"{'R@1 a→m':>8} {'m→a':>6} {'no copy':>8} {'m→a':>6} {'R@10 a→m':>9} {'m→a':>6} "
        f"{'chance':>7} {'queries':>8}"
    )
    return "\n".join([head, *(_line(label, record) for label, record in rows)])


def _line(label: str, r: dict[str, Any]) -> str:
    interval = r["ci95"]["S"]
    shown = f"{interval[0]:.3f} – {interval[1]:.3f}" if interval else "—"
    alone = [(r["no_copy"] or {}).get(side, {}).get("R@1") for side in ("a2m", "m2a")]
    first, second = ("—" if x is None else f"{x:.3f}" for x in alone)
    return (
        f"{label:<28.28} {r['protocol']:<8} {r['split']:<10} {r['S']:>6.3f} {shown:>16} "
        f"{r['a2m']['R@1']:>8.3f} {r['m2a']['R@1']:>6.3f} {first:>8} {second:>6} "
        f"{r['a2m']['R@10']:>9.3f} {r['m2a']['R@10']:>6.3f} {r['chance']['R@10']:>7.3f} "
        f"{r['queries']:>8}"
    )


def parts_table(label: str, record: dict[str, Any], by: str) -> str:
    """The parts of a score as aligned text, the lowest S first."""
    parts = sorted(record["breakdown"][by].items(), key=lambda part: part[1]["S"])
    width = max(len(by), *(len(name) for name, _ in parts))
    head = f"{by:<{width}} {'queries':>8} {'S':>6} {'R@1 a→m':>8} {'m→a':>6}"
    lines = [
        f"{name:<{width}} {p['queries']:>8} {p['S']:>6.3f} {p['a2m']['R@1']:>8.3f} "
        f"{p['m2a']['R@1']:>6.3f}"
        for name, p in parts
    ]
    return "\n".join([f"{label}, {record['protocol']}", head, *lines])


def check_protocols(protocols: Sequence[str], seed: int | None) -> None:
    """Refuse, before anything is embedded, an unknown protocol or a seed for pools that have none."""
    for name in protocols:
        if not PROTOCOLS.get(name).seeded and seed is not None:
            raise ConfigError(
                f"--seed {seed}: the {name} protocol has one fixed set of pools; leave --seed out, or "
                "name another --protocol"
            )


def _pool_seed(protocol: str, given: int | None, default: int) -> int | None:
    """Only protocols whose pools may be drawn with any seed are given one."""
    return (default if given is None else given) if PROTOCOLS.get(protocol).seeded else given


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
