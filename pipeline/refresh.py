"""Bringing a finished store's recordings table to the present rules.

Which titles are one composition and what is measured of a recording are no part of a store's
identity: the rules improve, and a corpus must not be read again for it. Two columns are written anew,
``composition`` from the corpus table and ``checks`` from the store's own audio and notes; no other
column and no other file changes, and the result is what a new build would have written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import quality
from pipeline.base.files import read_json
from pipeline.checks import with_measures
from pipeline.corpora import compositions
from pipeline.store.reader import Store, read_record
from pipeline.store.schema import RECORD
from pipeline.store.writer import JOURNAL, commit, write_table

RULES = {"compositions": compositions.VERSION, "quality": quality.VERSION}


def out_of_date(folder: Path, names: list[str]) -> set[str]:
    """What a finished store in ``folder`` has otherwise than the present rules, of :data:`RULES`.

    Nothing where there is no finished store. The caller holds the lock, here and in :func:`refresh`.
    """
    found = _read(folder)
    if found is None:
        return set()
    record, table = found
    renamed = table.column("composition").to_pylist() != names or _aside(folder).exists()
    outdated = record.get("quality") != quality.VERSION
    return {name for name, holds in (("compositions", renamed), ("quality", outdated)) if holds}


def refresh(folder: Path, names: list[str], measures: dict[int, dict[str, Any]]) -> str:
    """Bring the store up to date, unless another part of the build has; says what changed.

    The commit record steps aside while the table is replaced, so that nobody reads the one with the
    hash of the other; a build that was killed in between goes on here.

    Parameters
    ----------
    names : the composition of every recording
    measures : by recording; used if those of the store are out of date
    """
    stale, found = out_of_date(folder, names), _read(folder)
    if not stale or found is None:
        return "up to date"
    record, table = found
    at = table.schema.get_field_index("composition")
    renamed = sum(a != b for a, b in zip(table.column(at).to_pylist(), names, strict=True))
    table = table.set_column(at, table.schema.field(at), [names])
    if "quality" in stale:
        table = with_measures(table, measures)
    aside = _aside(folder)
    if not aside.exists():
        aside.parent.mkdir(exist_ok=True)
        (folder / RECORD).replace(aside)
    write_table(folder, "recordings", table)
    commit(folder, {**record, **RULES}, [])
    anew = "; measured anew" if "quality" in stale else ""
    return f"{renamed} recordings have another composition under the present rules{anew}"


def _aside(folder: Path) -> Path:
    return folder / JOURNAL / RECORD


def _read(folder: Path) -> tuple[dict[str, Any], pa.Table] | None:
    """Commit record and recordings table of a finished store, also of one killed in a refresh."""
    if (folder / RECORD).exists():
        _aside(folder).unlink(missing_ok=True)
        return read_record(folder), Store.open(folder).table("recordings")
    if _aside(folder).exists():
        # The table is the old or the new one: both are whole, and differ in these columns alone.
        return read_json(_aside(folder)), pq.read_table(folder / "recordings.parquet")
    return None
