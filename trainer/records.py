"""Evaluations as they lie on the disk and as people read them.

``<protocol>-<split>.json`` is the record of one evaluation; the ``.parquet`` beside it has the ranks
of every query, from which comparisons are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.base.errors import ConfigError, RunError
from pipeline.base.files import atomic_write, read_json, write_json
from pipeline.store.reader import Store
from trainer.retrieval.compare import MUST_AGREE, Scored
from trainer.retrieval.evaluate import Scores
from trainer.retrieval.intervals import BLOCKS, TOO_NARROW
from trainer.retrieval.pools import PAPER_SEED, POOL_SIZE
from trainer.retrieval.protocols import PROTOCOLS

RECORD_SCHEMA = 3
READ = (
    "seed", "hard_neg", "full", "hubness", "breakdown", "no_copy", "excluded", "pool_size", "ci_kind",
)  # fmt: skip


def file_name(
    protocol: str, split: str, seed: int | None = None, pool_size: int | None = None
) -> str:
    """Of an evaluation; other pools than the run's own never take the place of its scores."""
    asked = {"seed": seed, "pool": pool_size}
    return f"{protocol}-{split}" + "".join(f"-{k}{v}" for k, v in asked.items() if v is not None)


def write_scores(file: Path, record: Mapping[str, Any], scores: Scores) -> None:
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
        _line(name, record), [record[key] for key in (*MUST_AGREE, *READ)], columns["a2m"]
        return Scored(name=name, seed=seed, record=record, columns=columns)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        raise RunError(
            f"{name} has no evaluation {file.name}, or it does not read", kind="no-evaluation"
        ) from None


def store_identity(store: Store) -> str:
    """Which segments a store has, and which recordings are of one work: what scores depend on."""
    return f"{store.identity} {store.grouping}"


def check_protocols(protocols: Sequence[str], seed: int | None) -> None:
    """Refuse, before anything is embedded, an unknown protocol or a seed for pools that have none."""
    for name in protocols:
        if not PROTOCOLS.get(name).seeded and seed is not None:
            raise ConfigError(
                f"--seed {seed}: the {name} protocol has one fixed set of pools; leave --seed out, or "
                "name another --protocol"
            )


def common_seed(protocol: str) -> int | None:
    """The seed of pools that runs of any training seed are compared on."""
    return PAPER_SEED if PROTOCOLS.get(protocol).seeded else None


def scores_due(own_seed: int) -> list[tuple[str, str, int | None]]:
    """Evaluations (protocol, split, seed of the pools) by which a run can stand beside any other.

    Both protocols on both splits; where the run's ``own_seed`` draws other pools than those that runs
    of any seed are compared on, these, too.
    """
    due: list[tuple[str, str, int | None]] = []
    for split in ("validation", "test"):
        for name, protocol in PROTOCOLS.items():
            due.append((name, split, None))
            if protocol.seeded and own_seed != common_seed(name):
                due.append((name, split, common_seed(name)))
    return due


def pool_seed(protocol: str, given: int | None, default: int) -> int | None:
    """Only protocols whose pools may be drawn with any seed are given one."""
    return (default if given is None else given) if PROTOCOLS.get(protocol).seeded else given


def table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Records as aligned text, one line each; below them what their numbers leave out."""
    head = (
        f"{'':<28} {'protocol':<8} {'split':<10} {'S':>6} {'95 % interval':>16} {'drawn':>11} "
        f"{'R@1 a→m':>8} {'m→a':>6} {'no copy':>8} {'m→a':>6} {'R@10 a→m':>9} {'m→a':>6} "
        f"{'chance':>7} {'queries':>8}"
    )
    return "\n".join([head, *(_line(label, record) for label, record in rows), *remarks(rows)])


def remarks(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Who was left out, pools of another size, what intervals leave out: a sentence each."""
    found = []
    for label, r in rows:
        parts, sizes, hard = [], r["pool_size"], r["hard_neg"]
        if r["excluded"]:
            parts.append(f"{r['excluded']} queries without a full pool left out")
        if sizes["min"] != sizes["median"]:
            parts.append(f"pools of {sizes['min']} candidates or more (median {sizes['median']:g})")
        elif sizes["min"] != POOL_SIZE:
            parts.append(f"pools of {sizes['min']} candidates, not {POOL_SIZE}")
        # Records of former versions do not say how many have one.
        if hard.get("queries", r["queries"]) != r["queries"]:
            parts.append(
                f"{hard['queries']} of {r['queries']} queries have a negative of their own recording "
                "to beat"
            )
        if parts:
            found.append(f"{label}, {r['protocol']}: {'; '.join(parts)}.")
    if any(r["ci95"]["S"] and r["ci_kind"] == BLOCKS for _, r in rows):
        found.append(TOO_NARROW)
    return found


def _line(label: str, r: dict[str, Any]) -> str:
    interval = r["ci95"]["S"]
    shown = f"{interval[0]:.3f} – {interval[1]:.3f}" if interval else "—"
    alone = [(r["no_copy"] or {}).get(side, {}).get("R@1") for side in ("a2m", "m2a")]
    first, second = ("—" if x is None else f"{x:.3f}" for x in alone)
    return (
        f"{label:<28.28} {r['protocol']:<8} {r['split']:<10} {r['S']:>6.3f} {shown:>16} "
        f"{r['ci_kind'] if interval else '—':>11} "
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
