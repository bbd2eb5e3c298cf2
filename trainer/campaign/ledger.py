"""The ledger: one table of every run and every score, made from run folders and nothing else.

A row is one evaluation of one run; a run without any has one row, its scores null. The kept file
(``<out>/ledger.parquet``) holds nothing that the folders do not: delete it and it is made again. What
does not read is told and left out, a damaged run never stops the others.

``current`` says whether an evaluation belongs to the weights that the run ended with: its key is
computed again from the SHA-256 of the model and the fingerprints in ``run.json``. Neither the
model's file nor the store is opened, so a file that was changed by hand afterwards is not noticed
here (opening the run does that). It is null for runs that are not finished and for evaluations on
another store.

Nothing here imports torch: a thousand runs are read in a few seconds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from pipeline.base.config import digest_plain
from pipeline.base.errors import RunError
from pipeline.base.files import atomic_write
from trainer.campaign.reading import (
    CURVE,
    Damage,
    fraction,
    json_file,
    known,
    natural,
    number,
    read_curve,
    take,
)
from trainer.config import EvaluationConfig, common_settings
from trainer.layout import EVALUATION, FINISHED, METRICS, RUN_FILE
from trainer.records import RECORD_SCHEMA

LEDGER = "ledger.parquet"
ON_DEVICE = " computed on the device"  # as trainer.cache marks an array that the store lacked
IDENTITIES = ("store", "compositions")  # in a record's ``reads``, but no arrays
MOST_EPOCHS = 1_000_000
SIDES, AT = ("a2m", "m2a"), {"R1": "R@1", "R5": "R@5", "R10": "R@10", "MRR": "MRR"}
Row = dict[str, Any]
Log = tuple[list[dict[str, Any]] | None, list[str]]

READS = pa.list_(pa.struct([("array", pa.string()), ("fingerprint", pa.string())]))
_TEXT = (
    "run signature arm pairs preset size control frontend loss schedule freeze init store "
    "store_identity arrays configuration setting evaluated status device precision commit started_at"
)
_COUNTS = (
    "seed epochs updates batch_size evaluations step attempts threads processes parameters trainable "
    "peak_host peak_device best_step"
)
OF_RUN = pa.schema(
    [
        *[(name, pa.string()) for name in _TEXT.split()],
        *[(name, pa.int64()) for name in _COUNTS.split()],
        *[(name, pa.float64()) for name in ("segments_per_s", "train_seconds", "best_S")],
        ("leaks", pa.bool_()),
        ("reads", READS),
        ("curve", CURVE),
    ]
)
OF_EVALUATION = pa.schema(
    [
        *[(n, pa.string()) for n in ("evaluation", "scored_on", "protocol", "split", "pool_hash")],
        ("ci_kind", pa.string()),  # what was drawn for the interval: recordings, or 10-s blocks
        *[(n, pa.int64()) for n in ("pool_seed", "queries", "excluded", "recordings", "segments")],
        *[(n, pa.float64()) for n in ("S", "ci_low", "ci_high")],
        *[(f"{side}_{at}", pa.float64()) for side in SIDES for at in AT],
        *[(n, pa.float64()) for n in ("hard_neg", "no_copy_R1", "chance_R10")],
        ("current", pa.bool_()),
    ]
)
SCHEMA = pa.schema([*OF_RUN, *OF_EVALUATION])


def build_ledger(out: Path, only: Collection[str] | None = None) -> tuple[pa.Table, list[str]]:
    """Read every run folder directly below ``out``.

    Parameters
    ----------
    only : names of folders; default: all that have a ``run.json``

    Returns
    -------
    table, problems
        A row per run and evaluation, in the order of folders and of evaluations' names, of
        :data:`SCHEMA`: fractions 0–1, seconds, bytes. What could not be read, one line each.

    Raises
    ------
    RunError
        when there is no such folder.
    """
    if not out.is_dir():
        raise RunError(f"there is no folder {out} with runs in it")
    rows: list[Row] = []
    problems: list[str] = []
    signatures: dict[str, str] = {}
    folders = list(_run_folders(out, only))
    # Logs are most of the bytes, and are parsed outside of Python's lock.
    with ThreadPoolExecutor() as pool:
        logs = pool.map(lambda folder: read_curve(folder / METRICS), folders)
        for folder, log in zip(folders, logs, strict=True):
            found = list(_rows(folder, log, problems))
            rows += found
            if found:
                signature = found[0]["signature"]
                first = signatures.setdefault(signature, folder.name)
                if first != folder.name:
                    text = f"{folder.name} is {first} once more: a copy, not another training"
                    problems.append(text)
    return pa.Table.from_pylist(rows, schema=SCHEMA), problems


def write_ledger(out: Path) -> tuple[Path, pa.Table, list[str]]:
    """Make the ledger and keep it as ``<out>/ledger.parquet``: file, table, what did not read."""
    table, problems = build_ledger(out)
    with atomic_write(out / LEDGER) as handle:
        pq.write_table(table, handle)
    return out / LEDGER, table, problems


def to_csv(table: pa.Table, target: Path) -> Path:
    """The ledger for spreadsheets: everything but the curves and the list of arrays."""
    with atomic_write(target) as handle:
        pcsv.write_csv(table.drop_columns(["curve", "reads"]), handle)
    return target


def _run_folders(out: Path, only: Collection[str] | None) -> Iterator[Path]:
    with os.scandir(out) as entries:
        names = sorted(e.name for e in entries if only is None or e.name in only)
        names = [name for name in names if not name.startswith(".")]  # half-removed
    for name in names:
        if os.path.lexists(out / name / RUN_FILE):
            yield out / name


def _rows(folder: Path, log: Log, problems: list[str]) -> Iterator[Row]:
    """The rows of one run; none where its record does not read."""
    try:
        record = json_file(folder / RUN_FILE)
        run = _run(folder, record)
    except (ValueError, RecursionError, OSError) as error:
        problems.append(f"{folder.name}/{RUN_FILE} is left out: {_reason(error)}")
        return
    run["curve"], told = log
    problems += [f"{folder.name}/{METRICS}: {text}" for text in told]
    keys = _keys(record) if record["status"] == FINISHED else None
    found = False
    for name, file in _evaluations(folder / EVALUATION):
        try:
            scores = json_file(file)
            yield {**run, **_evaluation(name, scores, run["store_identity"], keys)}
            found = True
        except (Damage, OSError) as error:
            what = file.relative_to(folder.parent)
            problems.append(f"{what} is left out: {_reason(error)}")
    if not found:
        yield run


def _evaluations(folder: Path) -> Iterator[tuple[str, Path]]:
    """Records below ``evaluation``; those on another store lie in a folder of its name."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
        yield from ((e.name.removesuffix(".json"), Path(e)) for e in listed if _is_record(e))
        for inner in (Path(e) for e in listed if e.is_dir()):
            for file in sorted(inner.glob("*.json")):
                yield f"{inner.name}/{file.stem}", file


def _is_record(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".json") and not entry.is_dir()


def _run(folder: Path, record: Mapping[str, Any]) -> Row:
    config = take(record, dict, "config")
    reads = take(record, dict, "reads")
    read = {str(array): take(record, str, "reads", array) for array in reads}
    batch_size, epochs = (natural(record, "config", "budget", k) for k in ("batch_size", "epochs"))
    updates = epochs * natural(record, "config", "budget", "batches_per_epoch")
    due = _due(record, epochs)
    speed = known(record, float, "performance", "segments_per_s")
    finished = take(record, str, "status") == FINISHED
    apart = {k: v for k, v in config.items() if k != "seed"}
    return {
        "run": folder.name,
        "signature": take(record, str, "signature"),
        "arm": take(record, str, "arm"),
        "pairs": _pairs(record),
        "preset": take(record, str, "config", "preset"),
        "size": take(record, str, "config", "size"),
        "seed": take(record, int, "config", "seed"),
        "control": known(record, str, "config", "control", "name") or "real",
        "frontend": take(record, str, "config", "audio", "frontend", "name"),
        "loss": take(record, str, "config", "loss", "name"),
        "schedule": take(record, str, "config", "schedule", "name"),
        "freeze": take(record, str, "config", "freeze"),
        "init": _signature_of(known(record, str, "init")),
        "store": take(record, str, "store", "name"),
        "store_identity": f"{take(reads, str, 'store')} {read.get('compositions', '')}".rstrip(),
        "arrays": digest_plain(_plain(read)),
        "configuration": digest_plain([apart, read, _signature_of(known(record, str, "init"))]),
        "setting": digest_plain(common_settings(config)),
        "reads": [
            {"array": name, "fingerprint": value}
            for name, value in sorted(_plain(read).items())
            if name not in IDENTITIES
        ],
        "epochs": epochs,
        "updates": updates,
        "batch_size": batch_size,
        "evaluations": len(due),
        "evaluated": " ".join(map(str, due)),
        "status": record["status"],
        "step": known(record, int, "step"),
        "attempts": known(record, int, "attempts"),
        "device": known(record, str, "device"),
        "precision": known(record, str, "config", "precision"),
        "threads": known(record, int, "threads"),
        "processes": known(record, int, "processes"),
        "parameters": known(record, int, "parameters", "total"),
        "trainable": known(record, int, "parameters", "trainable"),
        "segments_per_s": speed,
        "train_seconds": updates * batch_size / speed if finished and speed else None,
        "peak_host": known(record, int, "performance", "peak_memory", "host"),
        "peak_device": known(record, int, "performance", "peak_memory", "device"),
        "best_S": known(record, float, "best", "S"),
        "best_step": known(record, int, "best", "step"),
        "commit": known(record, str, "commit"),
        "started_at": known(record, str, "started_at"),
        "leaks": bool(known(record, bool, "leaks")),
    }


def _evaluation(
    name: str, record: Mapping[str, Any], identity: str, keys: Collection[str] | None
) -> Row:
    own = take(record, str, "store_identity") == identity
    interval = known(record, list, "ci95", "S") or [None, None]
    low, high = (None if x is None else number(x, "ci95.S") for x in interval)
    alone = [known(record, float, "no_copy", side, "R@1") for side in SIDES]
    return {
        "evaluation": name,
        "scored_on": take(record, str, "store"),
        "store_identity": take(record, str, "store_identity"),
        "protocol": take(record, str, "protocol"),
        "split": take(record, str, "split"),
        "pool_seed": known(record, int, "seed"),
        "pool_hash": take(record, str, "pool_hash"),
        "S": fraction(record, "S"),
        "ci_low": low,
        "ci_high": high,
        "ci_kind": known(record, str, "ci_kind") if interval[0] is not None else None,
        **{f"{s}_{at}": fraction(record, s, key) for s in SIDES for at, key in AT.items()},
        "hard_neg": known(record, float, "hard_neg", "one"),
        "no_copy_R1": None if None in alone else min(x for x in alone if x is not None),
        "chance_R10": known(record, float, "chance", "R@10"),
        "queries": natural(record, "queries"),
        "excluded": known(record, int, "excluded"),
        "recordings": known(record, int, "recordings"),
        "segments": known(record, int, "segments"),
        "current": None if keys is None or not own else known(record, str, "key") in keys,
    }


def _pairs(record: Mapping[str, Any]) -> str:
    given = [p if isinstance(p, dict) else {} for p in take(record, list, "config", "pairs")]
    return " + ".join(f"{take(p, str, 'descriptor')} {take(p, str, 'mechanism')}" for p in given)


def _due(record: Mapping[str, Any], epochs: int) -> list[int]:
    """Epochs that end with an evaluation: arms that had other chances to be best differ in this."""
    if epochs > MOST_EPOCHS:
        raise Damage(f"config.budget.epochs = {epochs}")
    listed = known(record, list, "config", "evaluation", "epochs") or []
    when = EvaluationConfig(
        every=max(1, natural(record, "config", "evaluation", "every")),
        first=natural(record, "config", "evaluation", "first"),
        batch_size=0,
        pool_seed="fixed",
        epochs=tuple(int(number(e, "config.evaluation.epochs")) for e in listed),
    )
    return [e for e in range(1, epochs + 1) if when.due(e, epochs)]


def _keys(record: Mapping[str, Any]) -> list[str]:
    """:func:`trainer.scoring.evaluation_key` of the present weights, as the record tells it.

    An array that the store got after the training has lost its mark, so both are looked for.
    """
    same = {"schema": RECORD_SCHEMA, "model": record.get("model_sha256")}
    reads = record["reads"]
    return [digest_plain({**same, "reads": r}) for r in (reads, _plain(reads))]


def _plain(reads: Mapping[str, str]) -> dict[str, str]:
    return {name: value.removesuffix(ON_DEVICE) for name, value in reads.items()}


@lru_cache(maxsize=4096)
def _signature_of(folder: str | None) -> str | None:
    """Of the run that another one started from: from its record, else from its folder's name."""
    if folder is None:
        return None
    try:
        return take(json_file(Path(folder) / RUN_FILE), str, "signature")
    except (Damage, OSError):
        return Path(folder).name.rpartition("-")[2]


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
