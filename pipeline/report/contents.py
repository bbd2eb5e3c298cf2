"""What was computed, from what, by which versions, in what time; and what to do next."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from typing import Any

from pipeline.base.charts import bars, panels
from pipeline.base.console import program
from pipeline.base.html import (
    Html,
    command,
    join,
    note,
    number,
    pairs,
    size,
    table,
    tag,
    text,
    tiles,
    unbroken,
)
from pipeline.descriptors import DESCRIPTORS, Descriptor
from pipeline.info import array_bytes
from pipeline.spectral import SAMPLE_RATE
from pipeline.store.reader import Store
from pipeline.store.schema import BUILD_INFO, SEAL, ArrayInfo


def lead(store: Store) -> Html:
    """One sentence, and the numbers that people ask for first."""
    record, recordings = store.record, store.recordings
    used = recordings.n_segments > 0
    n = int(used.sum())
    works, people = len(set(recordings.composition[used])), len(set(recordings.composer[used]))
    minutes = store.arrays["audio"].shape[0] / SAMPLE_RATE / 60
    long = f"{number(minutes / 60)} hours" if minutes > 90 else f"{number(minutes)} minutes"
    cut = store.segmentation
    complete = record["status"] == "complete"
    sentence = (
        f"{number(n)} recordings of {number(works)} compositions by {number(people)} composers: "
        f"{long} of sound at {SAMPLE_RATE // 1000} kHz, cut into "
        f"{number(record['segments'])} segments of {cut.segment_s} s, one every {_every(cut.hop_s)}. "
    )
    badge = tag("span", record["status"], class_=f"badge {'good' if complete else 'bad'}")
    total = sum(entry["size"] for entry in record["files"].values())
    return join(
        tag("p", sentence, badge, class_="lead"),
        tiles(
            [
                (number(n), "recordings"),
                (number(works), "compositions"),
                (number(record["segments"]), f"segments of {cut.segment_s} s"),
                (number(record["notes"]), "note rows"),
                (number(len(store.arrays)), "arrays"),
                (size(total), f"in {number(len(record['files']))} files"),
            ]
        ),
    )


def computed(store: Store) -> Html:
    """Identity, configuration, software and every array."""
    record, built = store.record, build_info(store)
    cut = store.segmentation
    most = cut.max_per_recording
    versions = " · ".join(f"{k} {v}" for k, v in sorted(built.get("versions", {}).items()) if v)
    facts = [
        ("corpus", record["corpus"]),
        ("licence", record.get("licence") or "not stated by the corpus"),
        ("committed", _moment(record["committed_at"])),
        ("status", f"{record['status']}, {number(record['failures'])} recordings left out"),
        (
            "segments",
            f"{cut.segment_s} s, one every {_every(cut.hop_s)}, "
            + ("all of them" if most is None else f"at most {number(most)} of a recording"),
        ),
        *((k.replace("_", " "), _plain(v)) for k, v in sorted(record.get("config", {}).items())),
        ("software", versions or None),
        ("machine", _machine(built)),
        ("table", built.get("table")),
        ("schema", record["schema"]),
        ("identity", tag("span", store.identity, class_="hash")),
        ("record SHA-256", tag("span", record[SEAL], class_="hash")),
    ]
    head = ["array", "what it is", "shape", "unit", "version", "size", "files", "fingerprint"]
    rows = [_array_row(store, info) for info in store.arrays.values()]
    return join(
        pairs(facts),
        tag("h3", "Arrays"),
        table(head, rows),
        note(
            "Row i of an array belongs to row i of its table: the timeline of samples, segments, "
            "or note rows. A fingerprint covers the store's identity and the array's definition."
        ),
    )


def timings(store: Store) -> Html:
    """Seconds per stage of the build."""
    built = build_info(store)
    seconds = {k: v for k, v in built.get("seconds", {}).items() if isinstance(v, (int, float))}
    if not seconds:
        return note(f"This store has no {BUILD_INFO}: what the build cost is not known.")
    total = sum(seconds.values())
    long = store.arrays["audio"].shape[0] / SAMPLE_RATE
    order = sorted(seconds.items(), key=lambda item: -item[1])
    config = built.get("config") or {}
    how = f"{number(total)} s in all"
    if total > 0 and "ingest" in seconds:  # else the last build only added arrays
        how += f", {number(long / total)} times as fast as the sound plays"
    if "workers" in config:
        how += f"; {config['workers']} workers on {_machine(built)}"
    return join(
        panels(bars(order, title="Seconds of each stage", unit="s")),
        note(how, f". From {BUILD_INFO}: the last build."),
    )


def next_commands(store: Store) -> Html:
    """Commands that can be pasted."""
    path = shlex.quote(str(store.path))
    features, train, evaluate = map(program, ("xmodal-features", "xmodal-train", "xmodal-evaluate"))
    steps = (
        ("Hash every file again", f"{features} verify {path}"),
        ("Copy the store to a node's own disk", f'{features} stage {path} "$TMPDIR"'),
        ("Add descriptors, from the store's own sound and notes",
         f"{features} add {path} --descriptors all"),
        ("Score the floor that learns nothing", f"{evaluate} --baseline flux --store {path}"),
        ("Train", f"{train} --descriptor A4 --mechanism reverse_xattn --store {path}"),
    )  # fmt: skip
    return join(*(join(note(what), command(line)) for what, line in steps))


def build_info(store: Store) -> dict[str, Any]:
    """``build.json``, or nothing: it is informative, and no reader may depend on it."""
    try:
        found = json.loads((store.path / BUILD_INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def meaning(info: ArrayInfo) -> Descriptor | None:
    """The registered descriptor of this very definition, if this program has it."""
    found = dict(DESCRIPTORS.items()).get(info.name)
    return found if found is not None and found.definition() == info.definition else None


def _array_row(store: Store, info: ArrayInfo) -> list[object]:
    descriptor = meaning(info)
    sound = info.axis == "sample"
    summary = f"the timeline at {SAMPLE_RATE:,} Hz, mono" if sound else "another definition"
    return [
        tag("b", info.name),
        descriptor.summary if descriptor else summary,
        unbroken(f"{info.dtype} [{', '.join(f'{n:,}' for n in info.shape)}]"),
        descriptor.units if descriptor else "full scale / 32,768" if sound else None,
        info.definition.get("version"),
        unbroken(size(array_bytes(store, info))),
        info.n_shards,
        tag("span", info.fingerprint[:12], class_="hash"),
    ]


def _machine(built: dict[str, Any]) -> str | None:
    parts = [built.get("host"), built.get("machine")]
    if built.get("cpus"):
        parts.append(f"{built['cpus']} CPUs")
    if built.get("python"):
        parts.append(f"Python {built['python']}")
    return ", ".join(str(p) for p in parts if p) or None


def _moment(iso: str) -> str:
    try:
        return datetime.fromisoformat(iso).strftime("%-d %B %Y, %H:%M:%S %Z")
    except ValueError:
        return iso


def _every(seconds: int) -> str:
    return "second" if seconds == 1 else f"{seconds} s"


def _plain(value: Any) -> Html:
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return text("none" if value is None else value)
