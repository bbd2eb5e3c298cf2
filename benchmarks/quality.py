"""What the checks of audio against notes find, and what they cost.

1. Real pairs (MAPS, where there is test data) and the demo corpus: onset correlation, lag, bandwidth.
2. A control: the same audio against notes moved by a third of the recording and round its end.
3. Shifts of 90 ms to either side: how many become failures; how many true pairs do.
4. The pass's share of the stage, CPU time within each of several runs.

    XMODAL_TEST_DATA=DIR python -m benchmarks.quality [--data DIR]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is imported: one core each

import numpy as np

from benchmarks.common import environment, write
from benchmarks.corpora import DEMO, demo_corpus, long_corpus, real_table
from pipeline import build as build_module
from pipeline.audio import decode
from pipeline.base.console import Console
from pipeline.build import BuildConfig, build
from pipeline.cluster import InProcess
from pipeline.corpora.recordings import Recording, load_table
from pipeline.corpora.resolve import Corpus
from pipeline.midi import read_performance
from pipeline.quality import HOP, MAX_LAG, Meter, Quality, QualityLimits, judge
from pipeline.spectral import SAMPLE_RATE
from pipeline.store.schema import Segmentation

SHIFT_S = 0.09
SEGMENTATION = Segmentation()


def main() -> None:
    """Measure and write ``benchmarks/results/quality.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--demo", type=Path, default=DEMO)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hours", type=float, default=1.0)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"environment": environment(), "groups": {}}
    demo = demo_corpus(arguments.demo)
    groups: dict[str, tuple[Corpus, Callable[[Recording], bool]]] = {
        "demo (rendered)": (demo, lambda r: True)
    }
    real = real_table(arguments.data)
    result["source"] = "real recordings (MAPS) and the demo" if real else "the demo alone"
    if real:
        maps = Corpus(name="maps", table=real, root=real.parent, recordings=load_table(real))
        groups = {
            "real piano, close microphones": (maps, lambda r: "ENSTDkCl" in r.key),
            "real piano, microphones in the room": (maps, lambda r: "ENSTDkAm" in r.key),
            "sampled pianos": (maps, lambda r: "ENSTDk" not in r.key),
            **groups,
        }
    for name, (corpus, chosen) in groups.items():
        result["groups"][name] = pairs([r for r in corpus.recordings if chosen(r)], corpus.root)
    with tempfile.TemporaryDirectory(prefix="xmodal-bench-") as scratch:
        corpus, _ = long_corpus(demo.table, Path(scratch), arguments.hours)
        result["cost"] = cost(corpus, Path(scratch), arguments.rounds)
    write("quality", result)


def pairs(recordings: list[Recording], root: Path) -> dict[str, Any]:
    """Measures of true pairs, of moved ones and of shifted ones."""
    true, moved, at_own_lag = [], [], []
    failing = {"true": 0, "shifted": 0}
    for r in recordings:
        length = SEGMENTATION.timeline_samples(SEGMENTATION.count(r.duration_s))
        blocks = list(decode(root / r.audio_path, length))
        notes, seconds = read_performance(root / r.midi_path), length / SAMPLE_RATE

        def measured(
            onset_s: Any, blocks: Any = blocks, n: int = length, notes: Any = notes
        ) -> Quality:
            meter = Meter(n)
            for block in blocks:
                meter.feed(block)
            inside = (onset_s >= 0) & (onset_s < n / SAMPLE_RATE)
            return meter.finish(onset_s[inside], notes.velocity[inside])

        pair = measured(notes.onset_s)
        elsewhere = (notes.onset_s + seconds / 3) % seconds
        moved.append(measured(elsewhere).onset_correlation)
        # At the pair's own lag, which is brought to zero: r there, not the best of 61.
        lag_s = (pair.onset_lag_ms or 0.0) / 1000
        at_own_lag.append(measured(elsewhere + lag_s).onset_correlation_at_zero)
        true.append(pair)
        failing["true"] += judge(pair, QualityLimits()) is not None
        for shift in (-SHIFT_S, SHIFT_S):
            shifted = measured(notes.onset_s + lag_s + shift)
            failing["shifted"] += judge(shifted, QualityLimits()) is not None
    return {
        "recordings": len(recordings),
        "correlation": spread([q.onset_correlation for q in true]),
        "lag_ms": spread([q.onset_lag_ms for q in true]),
        "bandwidth_hz": spread([q.bandwidth_hz for q in true]),
        "control_at_own_lag": spread(at_own_lag),
        "control_best_of_61_lags": spread(moved),
        "true_pairs_failing": failing["true"],
        "shifted_pairs": 2 * len(recordings),
        "shifted_pairs_failing": failing["shifted"],
    }


def spread(values: list[float | None]) -> dict[str, float]:
    """Median and extremes."""
    known = [v for v in values if v is not None]
    return {"median": float(np.median(known)), "low": min(known), "high": max(known)}


def cost(corpus: Corpus, folder: Path, rounds: int) -> dict[str, Any]:
    """CPU seconds of the pass and of the rest of the stage, within each run."""
    quiet = Console(as_json=True)
    quiet.say = lambda text: None  # type: ignore[method-assign]
    whole_pass, spent = build_module._measure, [0.0]

    def timed(*arguments: Any) -> Any:
        began = time.process_time()
        found = whole_pass(*arguments)
        spent[0] += time.process_time() - began
        return found

    shares, passes = [], []
    build_module._measure = timed  # type: ignore[assignment]
    try:
        for number in range(rounds + 1):
            spent[0], began = 0.0, time.process_time()
            build(corpus, folder / f"out{number}", BuildConfig(), quiet, InProcess())
            if number:  # the first run compiles
                rest = time.process_time() - began - spent[0]
                shares.append(spent[0] / rest)
                passes.append(spent[0])
    finally:
        build_module._measure = whole_pass
    seconds = sum(
        SEGMENTATION.timeline_samples(SEGMENTATION.count(r.duration_s)) for r in corpus.recordings
    )
    return {
        "share_of_the_rest": statistics.median(shares),
        "shares": shares,
        "ms_per_second_of_audio": 1e3 * statistics.median(passes) / (seconds / SAMPLE_RATE),
        "ms_per_recording": 1e3 * statistics.median(passes) / len(corpus.recordings),
        "recordings": len(corpus.recordings),
        "lag_step_ms": 1e3 * HOP / SAMPLE_RATE,
        "largest_lag_ms": 1e3 * MAX_LAG * HOP / SAMPLE_RATE,
    }


if __name__ == "__main__":
    main()
