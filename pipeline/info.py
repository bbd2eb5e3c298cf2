"""What a store holds, and which descriptors there are: as data and as text."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from pipeline.checks import summarise
from pipeline.corpora.recordings import SPLITS
from pipeline.descriptors import DESCRIPTORS
from pipeline.spectral import N_FRAMES, SAMPLE_RATE
from pipeline.store.reader import Store
from pipeline.store.schema import ArrayInfo

MEAN_NOTES_PER_SEGMENT = 40  # for the listing's byte column: MAESTRO has about 10 notes a second


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SplitCounts:
    """What one split holds; recordings that give no segment do not count.

    Attributes
    ----------
    valid : segments with at least one note
    notes : note rows; a note has one for each segment that it sounds in
    hours : of audio in the store, each recording once
    """

    recordings: int
    compositions: int
    segments: int
    valid: int
    notes: int
    hours: float


def count_splits(store: Store) -> dict[str, SplitCounts]:
    """Counts of every split, from the tables of recordings and segments."""
    recordings, segments = store.recordings, store.segments
    used = recordings.n_segments > 0
    counts = {}
    for split in SPLITS:
        here, rows = used & (recordings.split == split), segments.of_split(split)
        samples = sum(
            map(store.segmentation.timeline_samples, recordings.n_segments[here].tolist())
        )
        counts[split] = SplitCounts(
            recordings=int(here.sum()),
            compositions=len(set(recordings.composition[here])),
            segments=len(rows),
            valid=int(segments.valid[rows].sum()),
            notes=int(segments.note_count[rows].sum()),
            hours=round(samples / SAMPLE_RATE / 3600, 4),
        )
    return counts


def shared_compositions(store: Store) -> list[str]:
    """Compositions that give segments in more than one split, sorted: a leak, if there are any."""
    recordings = store.recordings
    used = recordings.n_segments > 0
    found = set(zip(recordings.composition[used], recordings.split[used], strict=True))
    return sorted(name for name, n in Counter(name for name, _ in found).items() if n > 1)


def array_bytes(store: Store, info: ArrayInfo) -> int:
    """Bytes of an array's files."""
    prefix = info.metadata_path().removesuffix("zarr.json")
    files = store.record["files"].items()
    return sum(entry["size"] for name, entry in files if name.startswith(prefix))


def describe_store(store: Store) -> tuple[dict[str, Any], str]:
    """A store's contents, as data and as text."""
    record = store.record
    splits = {name: dataclasses.asdict(counts) for name, counts in count_splits(store).items()}
    shared = shared_compositions(store)
    failures = store.table("failures")
    data = {
        "store": str(store.path),
        **{k: record[k] for k in ("corpus", "identity", "status", "committed_at", "failures")},
        "licence": record.get("licence"),
        "segmentation": record["segmentation"],
        "splits": splits,
        "shared_compositions": shared,
        "notes": record["notes"],
        "hours": round(store.arrays["audio"].shape[0] / SAMPLE_RATE / 3600, 3),
        "arrays": {
            n: {
                "shape": list(a.shape),
                "dtype": a.dtype,
                "bytes": array_bytes(store, a),
                "fingerprint": a.fingerprint[:12],
            }
            for n, a in store.arrays.items()
        },
        "bytes": sum(entry["size"] for entry in record["files"].values()),
        "quality": summarise(store),
    }
    lines = [
        f"{store.path} ({record['status']}, committed {record['committed_at']})",
        f"  {data['hours']:.2f} h of audio, {record['notes']} note rows, {data['bytes'] / 1e6:.0f} MB",
        *(
            f"  {s:<11} {v['recordings']:>5} recordings {v['compositions']:>5} compositions "
            f"{v['segments']:>7} segments {v['hours']:>7.2f} h"
            for s, v in splits.items()
        ),
        *(
            f"  {n:<9} {a['dtype']:<8} {a['bytes'] / 1e6:>7.1f} MB  {a['shape']}"
            for n, a in data["arrays"].items()
        ),
    ]
    lines += _quality_lines(data["quality"])
    if shared:
        lines.append(f"  in more than one split: {', '.join(shared)}")
    lines += [f"  left out: row {f['recording']} [{f['kind']}]" for f in failures.to_pylist()]
    return data, "\n".join(lines)


def _quality_lines(found: dict[str, Any]) -> list[str]:
    """The measures that a reader wants to see, and who has a warning."""
    lines = []
    for name, label in (
        ("onset_correlation", "onset correlation"),
        ("onset_lag_ms", "onset lag, ms"),
        ("bandwidth_hz", "bandwidth, Hz"),
    ):
        if spread := found["measures"].get(name):
            low, median, high = (f"{spread[k]:g}" for k in ("low", "median", "high"))
            lines.append(f"  {label:<18} {median} ({low} to {high})")
    for name, keys in found["warnings"].items():
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        lines.append(f"  warning: {name} in {', '.join(keys[:3])}{more}")
    return lines


def describe_registry() -> tuple[list[dict[str, Any]], str]:
    """All descriptors, as data and as text."""
    rows: dict[str, int] = {"frame": N_FRAMES, "segment": 1, "note": MEAN_NOTES_PER_SEGMENT}
    data = [
        {
            "name": name,
            "version": d.version,
            "side": d.side,
            "axis": d.axis,
            "shape": d.shape(),
            "bytes_per_segment": 2 * d.width * rows[d.axis],
            "cost_ms": d.cost,
            "units": d.units,
            "role": d.role,
            "summary": d.summary,
        }
        for name, d in DESCRIPTORS.items()
    ]
    text = "\n".join(
        f"{d['name']:<10} {d['side']:<6} {d['shape']:<12} {d['bytes_per_segment']:>7} B "
        f"{'-' if d['cost_ms'] is None else format(d['cost_ms'], 'g'):>6} ms  {d['summary']}; "
        f"{d['units']}"
        for d in data
    )
    return data, text
