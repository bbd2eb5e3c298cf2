"""How fast MIDI files are read, against pretty_midi, and how far apart the two ever are.

    XMODAL_TEST_DATA=DIR python -m benchmarks.midi [--data FOLDER]

Every ``.mid`` and ``.midi`` under the folder is compared, note by note; every n-th is timed, each
reader the best of three calls in turn. Without real recordings: the demo's files.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi

from benchmarks.common import environment, ranged, seconds, write
from benchmarks.corpora import DEMO, folders_of, real_data
from pipeline.corpora.demo import make_demo
from pipeline.midi import read_performance

CALLS = 3


def main() -> None:
    """Measure and write ``benchmarks/results/midi.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--every", type=int, default=4, help="every n-th file is timed")
    arguments = parser.parse_args()
    real = real_data(arguments.data)
    folder = real or make_demo(DEMO).parent
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".mid", ".midi"))
    if not files:
        raise SystemExit(f"{folder} has no MIDI file")
    read_performance(files[0])
    whole = [seconds(lambda: [read_performance(f) for f in files]) for _ in range(5)]
    found = [compared(f) for f in files]
    pairs = [timed(f) for f in files[:: arguments.every]]
    write(
        "midi",
        {
            "environment": environment(),
            "source": f"real: {folders_of(files, folder)}" if real else "demo",
            "whole_corpus_s": statistics.median(whole),
            "compared": len(files),
            "notes": sum(f["notes"] for f in found),
            "different_notes": sum(f["different"] for f in found),
            "largest_difference_s": max(f["apart_s"] for f in found),
            "timed": len(pairs),
            "best_of": CALLS,
            "ratio": sum(b for _, b in pairs) / sum(a for a, _ in pairs),
            "ratio_of_files": ranged(b / a for a, b in pairs),
        },
    )


def theirs(path: Path) -> Any:
    """pretty_midi's reading, its warnings unheard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pretty_midi.PrettyMIDI(str(path))


def timed(path: Path) -> tuple[float, float]:
    """Seconds of both readers, in turn: the least of several calls of each."""
    calls = [
        (seconds(lambda: read_performance(path)), seconds(lambda: theirs(path)))
        for _ in range(CALLS)
    ]
    return min(a for a, _ in calls), min(b for _, b in calls)


def compared(path: Path) -> dict[str, Any]:
    """What both readers find in one file, and how it differs."""
    ours = read_performance(path)
    notes = sorted(
        (n.start, n.pitch, n.end, n.velocity)
        for instrument in theirs(path).instruments
        if not instrument.is_drum
        for n in instrument.notes
    )
    table = np.array(notes, float).reshape(-1, 4)
    mine = np.stack([ours.onset_s, ours.pitch, ours.end_s, ours.velocity], axis=1).astype(float)
    if table.shape != mine.shape:
        return {"notes": len(mine), "apart_s": 0.0, "different": abs(len(table) - len(mine))}
    order = np.lexsort(mine.T[[3, 2, 1, 0]])
    mine = mine[order]
    table = table[np.lexsort(table.T[[3, 2, 1, 0]])]
    return {
        "notes": len(mine),
        "different": int((mine[:, [1, 3]] != table[:, [1, 3]]).any(axis=1).sum()),
        "apart_s": float(np.abs(mine[:, [0, 2]] - table[:, [0, 2]]).max()),
    }


if __name__ == "__main__":
    main()
