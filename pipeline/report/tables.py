"""Splits, failures, recordings and files as tables, with the charts that go with them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.base.charts import Series, bars, histogram, legend, panels, scatter
from pipeline.base.html import Html, folded, join, note, number, table, tag
from pipeline.corpora.recordings import SPLITS
from pipeline.info import SplitCounts, count_splits, shared_compositions
from pipeline.store.reader import Store

COMPOSERS = 7
FIRST = ("recording", "composer", "title", "split", "year", "duration_s", "n_segments")
HIDDEN = ("audio_path", "midi_path", "extra", "checks")
UNITS = {"_s": " (s)", "_ms": " (ms)", "_hz": " (Hz)", "_db": " (dB)", "_cents": " (cents)"}


def splits(store: Store) -> Html:
    """Counts of every split, who wrote the music, and how long recordings are."""
    counts = count_splits(store)
    fields = [f.name for f in dataclasses.fields(SplitCounts)]
    rows = [[name, *dataclasses.astuple(c)] for name, c in counts.items()]
    total = ["all", *(sum(getattr(c, f) for c in counts.values()) for f in fields)]
    shared = shared_compositions(store)
    leak = (
        note("No composition gives segments in more than one split.")
        if not shared
        else tag("p", f"In more than one split: {', '.join(shared)}.", class_="bad")
    )
    total[fields.index("compositions") + 1] -= len(shared)
    head = ["split", "recordings", "compositions", "segments", "with notes", "note rows", "hours"]
    return join(
        table(head, [*rows, [tag("b", cell) if cell == "all" else cell for cell in total]]),
        leak,
        legend(_present(store)),
        panels(_durations(store), _density(store), _composers(store), _years(store)),
    )


def failures(store: Store) -> Html:
    """Recordings that could not be used, and why."""
    rows = store.table("failures").to_pylist()
    if not rows:
        return note("Every recording of the corpus table could be used.")
    names = store.recordings.key
    head = ["row", "recording", "stage", "kind", "reason"]
    body = [
        [str(r["recording"]), names[r["recording"]], r["stage"], r["kind"], r["message"]]
        for r in rows
    ]
    return join(table(head, body), note("Building again tries them again."))


def recordings(store: Store) -> Html:
    """All recordings with every column that the store has of them."""
    columns = _columns(store.table("recordings"))
    constant = {k: v[0] for k, v in columns.items() if _may_be_constant(k) and _is_constant(v)}
    shown = {k: v for k, v in columns.items() if k not in constant}
    rows = [[_cell(name, value) for name, value in zip(shown, row, strict=True)]
            for row in zip(*shown.values(), strict=True)]  # fmt: skip
    said = "; ".join(
        f"{heading(k)} {number(v) if _is_number(v) else v}"
        for k, v in constant.items()
        if v is not None and v is not False
    )
    return join(
        tag("div", table([heading(k) for k in shown], rows, sortable=True), class_="tall"),
        note(f"{number(len(rows))} rows; a click on a column's head sorts by it. "),
        note(f"The same for all: {said}.") if said else None,
    )


def files(store: Store) -> Html:
    """Every file of the commit record."""
    listed = sorted(store.record["files"].items())
    rows = [[n, e["size"], tag("span", e["sha256"], class_="hash")] for n, e in listed]
    return folded(
        f"{number(len(rows))} files with their size and SHA-256",
        table(["file", "bytes", "SHA-256"], rows),
    )


def heading(name: str) -> str:
    """A column's name for people: ``notes_end_s`` is ``notes end (s)``."""
    for suffix, unit in UNITS.items():
        if name.endswith(suffix):
            name = name.removesuffix(suffix) + unit
            break
    return name.removeprefix("n_").replace("_", " ")


def _present(store: Store) -> list[str]:
    return [s for s in SPLITS if (store.segments.split == s).any()]


def _durations(store: Store) -> Html:
    table_ = store.recordings
    used = table_.n_segments > 0
    minutes = table_.duration_s / 60
    low, high = float(minutes[used].min()), float(minutes[used].max())
    edges = np.linspace(low, high, 25) if high > low else np.array([0.9, 1.1]) * max(low, 1e-3)
    shares = {}
    for split in _present(store):
        shares[split] = np.histogram(minutes[used & (table_.split == split)], edges)[0]
    return histogram(edges, shares, title="How long recordings are", x="minutes", y="recordings")


def _composers(store: Store) -> Html:
    segments = Counter[str]()
    for composer, n in zip(store.recordings.composer, store.recordings.n_segments, strict=True):
        segments[composer] += int(n)
    ranked = [(name, float(n)) for name, n in segments.most_common() if n]
    shown, rest = ranked[:COMPOSERS], ranked[COMPOSERS:]
    if rest:
        shown.append((f"{len(rest)} others together", sum(n for _, n in rest)))
    return bars(shown, title="Segments of each composer", unit="")


def _years(store: Store) -> Html:
    years = Counter(store.recordings.year[store.recordings.n_segments > 0].tolist())
    ranked = years.most_common()
    shown, rest = sorted(ranked[: COMPOSERS + 1]), ranked[COMPOSERS + 1 :]
    items = [(str(year), float(n)) for year, n in shown]
    if rest:
        items.append((f"{len(rest)} other years", float(sum(n for _, n in rest))))
    return bars(items, title="Recordings of each year", unit="")


def _density(store: Store) -> Html:
    recordings_, segments = store.recordings, store.segments
    rows = np.bincount(segments.recording, segments.note_count, len(recordings_))
    series = []
    for split in _present(store):
        here = (recordings_.split == split) & (recordings_.n_segments > 0)
        mean = rows[here] / recordings_.n_segments[here]
        series.append(Series(name=split, x=recordings_.duration_s[here] / 60, y=mean))
    return scatter(
        series, title="How dense they are", x="minutes", y="notes a segment, mean", zero=True
    )


def _columns(source: pa.Table) -> dict[str, list[Any]]:
    """Plain columns, then those of ``checks``, then the corpus table's own further columns."""
    plain = sorted(source.column_names, key=lambda n: FIRST.index(n) if n in FIRST else len(FIRST))
    out = {name: source[name].to_pylist() for name in plain if name not in HIDDEN}
    checks = [check or {} for check in source["checks"].to_pylist()]
    extras = [json.loads(extra or "{}") for extra in source["extra"].to_pylist()]
    for found, kind in ((checks, "checks"), (extras, "table")):
        for name in dict.fromkeys(name for row in found for name in row):
            key = f"{name} ({kind})" if name in out else name
            out[key] = [row.get(name) for row in found]
    return out


def _may_be_constant(name: str) -> bool:
    return name not in ("recording", "key", "title", "split")


def _is_constant(values: list[Any]) -> bool:
    return len(values) > 1 and all(value == values[0] for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(name: str, value: Any) -> object:
    if value is None or value == "":
        return None
    if name in ("recording", "year"):  # names, not amounts
        return str(value)
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
