"""What a paper-scale store costs: whole builds at three sizes, a line through them, its residual.

MAESTRO has 1,276 recordings; 100 segments of each at most are 127,092. The recordings here are the
demo's (44.1 and 48 kHz WAV), listed as often as a size takes, with audio + A4 + D4 as MAESTRO's
default; then descriptors are added, each to the store as it is by then: a typical cheap one, and the
dearest by ``benchmarks/results/descriptors.json``. What each of the others would take lies on the line
through these two, by its cost there. Builds are by two workers, warm; a worker's reading of files that
are no longer in memory is not in it. Everything at paper scale is extrapolated, about fifteenfold.

    python -m benchmarks.scale [--hours 0.8 1.6 2.5]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import load
from benchmarks.common import environment, seconds, write
from benchmarks.corpora import DEMO, long_corpus, medium, scratch_folder, touch_memory
from pipeline.base.console import Console
from pipeline.build import BuildConfig, add, build
from pipeline.cluster import open_executor
from pipeline.corpora.demo import make_demo
from pipeline.descriptors import DESCRIPTORS
from pipeline.store import Store
from pipeline.store.schema import audio_layout, descriptor_layout

RECORDINGS, SEGMENTS = 1_276, 127_092  # of MAESTRO v3, from its table with the cap of 100
DESCRIPTORS_BUILT = ("A4", "D4")
CHEAP = "A8"
ALLOWED_S = 180.0  # for adding one


def main() -> None:
    """Measure and write ``benchmarks/results/scale.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, nargs=3, default=[0.8, 1.6, 2.5])
    parser.add_argument("--demo", type=Path, default=DEMO)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=scratch_folder())
    arguments = parser.parse_args()
    costs = {name: d["cost_ms"] for name, d in load("descriptors")["descriptors"].items()}
    added = (CHEAP, max(costs, key=lambda name: costs[name]))
    result: dict[str, Any] = {"environment": environment(), "workers": 2}
    table = make_demo(arguments.demo)
    with tempfile.TemporaryDirectory(prefix="xmodal-scale-", dir=arguments.scratch) as scratch:
        result["stores_in"] = medium(Path(scratch))
        folders = [Path(scratch) / str(number) for number in range(len(arguments.hours))]
        for folder in folders:
            folder.mkdir()
        sizes = [long_corpus(table, f, h) for f, h in zip(folders, arguments.hours, strict=True)]
        runs: list[dict[str, float]] = []
        with open_executor(2) as executor:
            measure(sizes[0][0], folders[0], executor, added)  # compiles, and opens files once
            for _ in range(arguments.rounds):
                for (corpus, _), folder in zip(sizes, folders, strict=True):
                    runs.append(measure(corpus, folder, executor, added))
    largest = max(runs, key=lambda r: r["segments"])
    result["runs"] = runs
    result["largest_segments"] = largest["segments"]
    result["paper_segments"] = SEGMENTS
    result["extrapolated"] = SEGMENTS / largest["segments"]
    result["build"] = line(runs, "build_s")
    result["added"] = {
        name: {**line(runs, f"add_{name}_s"), "cost_ms": costs[name]} for name in added
    }
    result["every_descriptor"] = every_descriptor(result["added"], costs)
    result["store"] = {
        **line(runs, "bytes"),
        "files": paper_files(round(SEGMENTS * largest["note_rows"] / largest["segments"])),
    }
    write("scale", result)


def measure(corpus: Any, folder: Path, executor: Any, added: tuple[str, ...]) -> dict[str, float]:
    """Build a store, add descriptors to it one by one; seconds, segments, bytes before they came."""
    out = folder / "stores"
    touch_memory(folder, len(corpus.recordings) * 8_000_000)
    stores: list[Store] = []

    def whole() -> None:
        config = BuildConfig(descriptors=DESCRIPTORS_BUILT)
        stores.append(build(corpus, out, config, quiet(), executor).store)

    def more(name: str) -> None:
        add(stores[0].path, BuildConfig(descriptors=(name,)), quiet(), executor)

    found = {"build_s": seconds(whole)}
    record, files = stores[0].record, [f for f in stores[0].path.rglob("*") if f.is_file()]
    found["segments"] = record["segments"]
    found["note_rows"] = record["notes"]
    found["bytes"] = sum(f.stat().st_size for f in files)
    found["files"] = len(files)
    for name in added:
        found[f"add_{name}_s"] = seconds(lambda n=name: more(n))  # type: ignore[misc]
    shutil.rmtree(out)
    return found


def line(runs: list[dict[str, float]], what: str) -> dict[str, float]:
    """``what`` = fixed + per segment, least squares; the residual is the largest, in per cent."""
    x = np.array([r["segments"] for r in runs], float)
    y = np.array([r[what] for r in runs])
    slope, fixed = np.polyfit(x, y, 1)
    if slope <= 0:
        raise SystemExit(
            f"{what} does not grow with the segments: the machine was busy; again, please"
        )
    predicted = fixed + slope * x
    return {
        "fixed": float(fixed),
        "per_segment": float(slope),
        "largest_residual_percent": float(100 * np.abs(y / predicted - 1).max()),
        "paper_scale": float(fixed + slope * SEGMENTS),
    }


def every_descriptor(added: dict[str, dict[str, float]], costs: dict[str, float]) -> dict[str, Any]:
    """Seconds of adding each at paper scale, on the line through those measured; how many may."""
    cheap, dear = added.values()
    rise = (dear["paper_scale"] - cheap["paper_scale"]) / (dear["cost_ms"] - cheap["cost_ms"])
    projected = {
        name: max(0.0, cheap["paper_scale"] + rise * (cost - cheap["cost_ms"]))
        for name, cost in costs.items()
    }
    within = sorted(name for name, lasts in projected.items() if lasts <= ALLOWED_S)
    return {"seconds": projected, "allowed_s": ALLOWED_S, "within": within}


def paper_files(notes: int) -> int:
    """Files of the store at paper scale, from the layout alone."""
    samples = (SEGMENTS + 3 * RECORDINGS) * 24_000  # (n - 1) + 4 seconds of each recording
    infos = [
        audio_layout(samples, "0" * 64),
        *(
            descriptor_layout(
                DESCRIPTORS.get(name), n_segments=SEGMENTS, n_notes=notes, identity="0" * 64
            )
            for name in DESCRIPTORS_BUILT
        ),
    ]
    tables_and_records = 4 + 2 + 1
    return sum(i.n_shards + 1 for i in infos) + tables_and_records


def quiet() -> Console:
    """A console that says nothing."""
    console = Console(as_json=True)
    console.say = lambda text: None  # type: ignore[method-assign]
    return console


if __name__ == "__main__":
    main()
