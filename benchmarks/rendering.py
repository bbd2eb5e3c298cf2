"""How fast performances become a store when their audio is rendered, on one core; and in what memory.

    XMODAL_TEST_DATA=DIR python -m benchmarks.rendering [--recordings 40]

``rendering``: audio seconds over seconds, piece by piece as a build asks for them, the SoundFont read.
``stage``: audio seconds over the whole build's seconds in this one process (plan, rendering, checks,
mel, A4, D4, commit), kernels compiled before. Without real performances: the demo's MIDI files.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import environment, ranged, seconds, write
from benchmarks.corpora import DEMO, real_data, scratch_folder
from pipeline.base.console import Console
from pipeline.build import BuildConfig, build
from pipeline.corpora.demo import make_demo
from pipeline.corpora.recordings import load_table
from pipeline.corpora.resolve import Corpus
from pipeline.corpora.takes import choose_takes
from pipeline.sounds import Rendered
from pipeline.spectral import SAMPLE_RATE
from pipeline.store.schema import Segmentation

ROUNDS = 3


def main() -> None:
    """Measure and write ``benchmarks/results/rendering.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=40)
    count = parser.parse_args().recordings
    real = real_data()
    table = real / "maestro-subset.csv" if real else make_demo(DEMO)
    root = real / "maestro" if real else table.parent
    recordings = load_table(table)[:count]
    takes = choose_takes(recordings, [])
    corpus = Corpus(name="rendered", table=table, root=root, recordings=recordings, takes=takes)
    cut = Segmentation()
    lengths = [cut.timeline_samples(cut.count(r.duration_s)) for r in recordings]
    hours = sum(lengths) / SAMPLE_RATE / 3600

    def rendered(i: int) -> float:
        """Seconds of sound for every second of work."""
        sound = Rendered(path=str(root / recordings[i].midi_path), take=takes[i])
        took = seconds(lambda: [None for _ in sound.samples(lengths[i])])
        return lengths[i] / SAMPLE_RATE / took

    for i in range(len(recordings)):  # compiled, and the tones of every instrument there
        rendered(i)
    speeds = [rendered(i) for i in range(len(recordings))]
    stages = [_stage(corpus) for _ in range(ROUNDS + 1)][1:]
    result: dict[str, Any] = {
        "environment": environment(),
        "source": "real performances (MAESTRO)" if real else "demo",
        "recordings": len(recordings),
        "hours": hours,
        "rendering": ranged(speeds),
        "stage": ranged(3600 * hours / took for took in stages),
        "stage_seconds": statistics.median(stages),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    write("rendering", result)


def _stage(corpus: Corpus) -> float:
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as folder:
        config = BuildConfig(workers=0)
        return seconds(lambda: build(corpus, Path(folder), config, Console(as_json=True)))


if __name__ == "__main__":
    main()
