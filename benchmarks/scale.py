"""What a paper-scale store costs: whole builds at three sizes, a line through them, its residual.

MAESTRO has 1,276 recordings; 100 segments of each at most are 127,092. The recordings here are the
demo's (44.1 and 48 kHz WAV), listed as often as a size takes, with audio + A4 + D4 as MAESTRO's
default; then one descriptor is added. Builds are by two workers, warm; a worker's reading of files
that are no longer in memory is not in it.

    python -m benchmarks.scale [--hours 0.5 1 2]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import environment, seconds, write
from benchmarks.features import long_corpus, touch_memory
from pipeline.base.console import Console
from pipeline.build import BuildConfig, add, build
from pipeline.cluster import open_executor
from pipeline.corpora.demo import make_demo
from pipeline.descriptors import DESCRIPTORS
from pipeline.store import Store
from pipeline.store.schema import audio_layout, descriptor_layout

RECORDINGS, SEGMENTS = 1_276, 127_092  # of MAESTRO v3, from its table with the cap of 100
NOTES_PER_SEGMENT = 33  # of the MAESTRO performances at hand; the demo has about as many
DESCRIPTORS_BUILT = ("A4", "D4")
ADDED = "A8"


def main() -> None:
    """Measure and write ``benchmarks/results/scale.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, nargs=3, default=[0.5, 1.0, 2.0])
    parser.add_argument("--demo", type=Path, default=Path("data/corpora/demo"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"))
    arguments = parser.parse_args()
    result: dict[str, Any] = {"environment": environment(), "workers": 2, "added": ADDED}
    table = make_demo(arguments.demo)
    with tempfile.TemporaryDirectory(prefix="xmodal-scale-", dir=arguments.scratch) as scratch:
        folders = [Path(scratch) / f"{hours}" for hours in arguments.hours]
        for folder in folders:
            folder.mkdir()
        sizes = [long_corpus(table, f, h) for f, h in zip(folders, arguments.hours, strict=True)]
        runs: list[dict[str, float]] = []
        with open_executor(2) as executor:
            measure(sizes[0][0], folders[0], executor)  # compiles, and opens files once
            for _ in range(arguments.rounds):
                for (corpus, _), folder in zip(sizes, folders, strict=True):
                    runs.append(measure(corpus, folder, executor))
    result["runs"] = runs
    result["build"] = line(runs, "build_s")
    result["add"] = line(runs, "add_s")
    result["store"] = paper_store()
    write("scale", result)


def measure(corpus: Any, folder: Path, executor: Any) -> dict[str, float]:
    """Build a store, add a descriptor to it; returns seconds, segments, bytes and files."""
    out = folder / "stores"
    touch_memory(folder, len(corpus.recordings) * 8_000_000)
    stores: list[Store] = []

    def whole() -> None:
        config = BuildConfig(descriptors=DESCRIPTORS_BUILT)
        stores.append(build(corpus, out, config, quiet(), executor).store)

    def more() -> None:
        config = BuildConfig(descriptors=(ADDED,))
        stores.append(add(stores[0].path, config, quiet(), executor).store)

    found = {"build_s": seconds(whole), "add_s": seconds(more)}
    record = stores[0].record
    found["segments"] = record["segments"]
    found["note_rows"] = record["notes"]
    found["bytes"] = sum(entry["size"] for entry in record["files"].values())
    shutil.rmtree(out)
    return found


def line(runs: list[dict[str, float]], what: str) -> dict[str, float]:
    """Seconds = fixed + per segment, least squares; the residual is the largest, in per cent."""
    x = np.array([r["segments"] for r in runs], float)
    y = np.array([r[what] for r in runs])
    slope, fixed = np.polyfit(x, y, 1)
    predicted = fixed + slope * x
    return {
        "fixed_s": float(fixed),
        "ms_per_segment": float(1e3 * slope),
        "largest_residual_percent": float(100 * np.abs(y / predicted - 1).max()),
        "paper_scale_s": float(fixed + slope * SEGMENTS),
    }


def paper_store() -> dict[str, float]:
    """Files and bytes of the store at paper scale, from the layout alone."""
    samples = (SEGMENTS + 3 * RECORDINGS) * 24_000  # (n - 1) + 4 seconds of each recording
    notes = SEGMENTS * NOTES_PER_SEGMENT
    infos = [
        audio_layout(samples, "0" * 64),
        *(
            descriptor_layout(
                DESCRIPTORS.get(name), n_segments=SEGMENTS, n_notes=notes, identity="0" * 64
            )
            for name in DESCRIPTORS_BUILT
        ),
    ]
    rows = [int(np.prod(i.shape)) * 2 for i in infos]
    tables_and_records = 4 + 2 + 1
    return {
        "files": sum(i.n_shards + 1 for i in infos) + tables_and_records,
        "bytes_of_arrays": sum(rows),
    }


def quiet() -> Console:
    """A console that says nothing."""
    console = Console(as_json=True)
    console.say = lambda text: None  # type: ignore[method-assign]
    return console


if __name__ == "__main__":
    main()
