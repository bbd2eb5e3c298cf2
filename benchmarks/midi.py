"""How fast MIDI files are read, against pretty_midi, and how far apart the two ever are.

    python -m benchmarks.midi [--data FOLDER]

Reads the demo's files, or every ``.mid`` and ``.midi`` under a folder.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi

from benchmarks.common import environment, seconds, write
from pipeline.corpora.demo import make_demo
from pipeline.midi import read_performance


def main() -> None:
    """Measure and write ``benchmarks/results/midi.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--every", type=int, default=4, help="pretty_midi reads every n-th file")
    arguments = parser.parse_args()
    folder = arguments.data or make_demo(Path("data/corpora/demo")).parent
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".mid", ".midi"))
    read_performance(files[0])
    whole = [seconds(lambda: [read_performance(f) for f in files]) for _ in range(5)]
    pairs = [compared(f) for f in files[:: arguments.every]]
    ours, theirs = (sum(p[k] for p in pairs) for k in ("ours_s", "theirs_s"))
    write(
        "midi",
        {
            "environment": environment(),
            "files": len(files),
            "whole_corpus_s": statistics.median(whole),
            "compared": len(pairs),
            "notes": sum(p["notes"] for p in pairs),
            "ratio": theirs / ours,
            "ratio_of_files": sorted(p["theirs_s"] / p["ours_s"] for p in pairs)[len(pairs) // 2],
            "different_notes": sum(p["different"] for p in pairs),
            "largest_difference_s": max(p["apart_s"] for p in pairs),
        },
    )


def compared(path: Path) -> dict[str, Any]:
    """Both readers on one file: seconds, and what differs."""
    found: list[Any] = []
    ours_s = min(seconds(lambda: found.append(read_performance(path))) for _ in range(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs_s = seconds(lambda: found.append(pretty_midi.PrettyMIDI(str(path))))
    notes = sorted(
        (n.start, n.pitch, n.end, n.velocity)
        for instrument in found[-1].instruments
        if not instrument.is_drum
        for n in instrument.notes
    )
    ours = found[0]
    table = np.array(notes, float).reshape(-1, 4)
    mine = np.stack([ours.onset_s, ours.pitch, ours.end_s, ours.velocity], axis=1).astype(float)
    if table.shape != mine.shape:
        return {"ours_s": ours_s, "theirs_s": theirs_s, "notes": len(mine), "apart_s": 0.0} | {
            "different": abs(len(table) - len(mine))
        }
    order = np.lexsort(mine.T[[3, 2, 1, 0]])
    mine = mine[order]
    table = table[np.lexsort(table.T[[3, 2, 1, 0]])]
    return {
        "ours_s": ours_s,
        "theirs_s": theirs_s,
        "notes": len(mine),
        "different": int((mine[:, [1, 3]] != table[:, [1, 3]]).any(axis=1).sum()),
        "apart_s": float(np.abs(mine[:, [0, 2]] - table[:, [0, 2]]).max()),
    }


if __name__ == "__main__":
    main()
