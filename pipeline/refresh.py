"""Bringing a finished store's recordings table to the present rules.

Which titles are one composition and what is measured of a recording are no part of a store's
identity: the rules improve, and a corpus must not be read again for it. Two columns are written anew,
``composition`` from the corpus table and ``checks`` from the store's own audio and notes; no other
column and no other file changes, and the result is what a new build would have written.
"""

from __future__ import annotations

from collections.abc import Callable
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
Measure = Callable[[pa.Table], dict[int, dict[str, Any]]]


def refresh(folder: Path, names: list[str], measure: Measure) -> str:
    """Refresh the store in ``folder``, if there is a finished one; says what changed, or nothing.

    The commit record steps aside while the table is replaced, so that nobody reads the one with the
    hash of the other; a build that was killed in between goes on here. The caller holds the lock.

    Parameters
    ----------
    names : the composition of every recording
    measure : segments table → measures by recording; called only when they are out of date
    """
    aside = folder / JOURNAL / RECORD
    if (folder / RECORD).exists():
        aside.unlink(missing_ok=True)
        record, table = read_record(folder), Store.open(folder).table("recordings")
    elif aside.exists():
        # The table is the old or the new one: both are whole, and differ in these columns alone.
        record, table = read_json(aside), pq.read_table(folder / "recordings.parquet")
    else:
        return ""
    column = table.schema.get_field_index("composition")
    renamed = sum(a != b for a, b in zip(table.column(column).to_pylist(), names, strict=True))
    outdated = record.get("quality") != quality.VERSION
    if not renamed and not outdated and not aside.exists():
        return ""
    table = table.set_column(column, table.schema.field(column), [names])
    if outdated:
        table = with_measures(table, measure(pq.read_table(folder / "segments.parquet")))
    if not aside.exists():
        aside.parent.mkdir(exist_ok=True)
        (folder / RECORD).replace(aside)
    write_table(folder, "recordings", table)
    commit(folder, {**record, **RULES}, [])
    measured = "; measured anew" if outdated else ""
    return f"{renamed} recordings have another composition under the present rules{measured}"
