"""How far every descriptor is from its float64 definition on real recordings.

The definitions are the tests' (``tests/oracles*.py``, which import nothing from the packages); every
n-th segment of the recordings is compared. The float32 values of the kernels are judged, not float16.
Without real recordings: the demo's.

    XMODAL_TEST_DATA=DIR python -m benchmarks.agreement [--data DIR]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import environment, write
from benchmarks.corpora import DEMO, real_table
from pipeline.base.console import Console
from pipeline.build import BuildConfig, build
from pipeline.corpora.demo import make_demo
from pipeline.corpora.resolve import CorpusRequest, resolve_corpus
from pipeline.descriptors import DESCRIPTORS
from pipeline.spectral import SEGMENT_SAMPLES, Spectrum

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from oracles_by_name import NOTES, SOUND  # type: ignore[import-not-found]  # of tests/


def main() -> None:
    """Measure and write ``benchmarks/results/agreement.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--every", type=int, default=60)
    arguments = parser.parse_args()
    real = real_table(arguments.data)
    table = real or make_demo(DEMO)
    with tempfile.TemporaryDirectory() as folder:
        request = CorpusRequest(root=table.parent, cache=Path(folder), workers=0)
        corpus = resolve_corpus(str(table), request)
        config = BuildConfig(descriptors=())
        store = build(corpus, Path(folder), config, Console(as_json=True)).store
        found: dict[str, list[tuple[Any, Any]]] = {name: [] for name in (*SOUND, *NOTES)}
        segments = range(0, len(store.segments), arguments.every)
        for i in segments:
            at, first = int(store.segments.audio_start[i]), int(store.segments.note_start[i])
            pcm = store.read("audio", at, at + SEGMENT_SAMPLES)
            samples = pcm.astype(np.float32) / np.float32(32768)
            spectrum = Spectrum(samples)
            notes = store.notes(first, first + int(store.segments.note_count[i]))
            for oracles, source, given in ((SOUND, spectrum, samples), (NOTES, notes, notes)):
                for name, expected in oracles.items():
                    mine = DESCRIPTORS.get(name).extract(source).astype(float)
                    found[name].append((mine.ravel(), np.asarray(expected(given), float).ravel()))
        result = {
            "environment": environment(),
            "source": "real recordings (MAPS)" if real else "the demo's recordings",
            "recordings": len(corpus.recordings),
            "segments": len(segments),
            "descriptors": {name: compared(pairs) for name, pairs in found.items()},
        }
    write("agreement", result)


def compared(pairs: list[tuple[Any, Any]]) -> dict[str, float]:
    """Largest difference and correlation over all values."""
    mine, wanted = (np.concatenate(values) for values in zip(*pairs, strict=True))
    return {
        "largest_difference": float(np.abs(mine - wanted).max()),
        "correlation": float(np.corrcoef(mine, wanted)[0, 1]),
    }


if __name__ == "__main__":
    main()
