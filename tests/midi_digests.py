"""What pretty_midi reads in real performances, as one digest a file.

pretty_midi takes half a second a file, so its notes are written down once, by
``XMODAL_TEST_DATA=DIR python tests/midi_digests.py``, and tests compare every file with them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from oracles import midi_notes

FILE = Path(__file__).parent / "golden" / "midi-notes.json"
Note = tuple[float, float, int, int]


def key_of(path: Path) -> str:
    """Of the file's bytes, not of its name."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def digest_of(notes: Iterable[Note]) -> str:
    """Of (onset, end, pitch, velocity) in order; times to the microsecond's tenth."""
    rows = np.array([(n[0], n[1], n[2], n[3]) for n in notes], np.float64).reshape(-1, 4)
    rows[:, :2] = np.round(rows[:, :2], 7)
    return hashlib.sha256(rows.tobytes()).hexdigest()[:16]


def _entry(path: Path) -> tuple[str, str]:
    return key_of(path), digest_of(midi_notes(path))


def main() -> None:
    """Write the digests of every file below the folder of real recordings."""
    paths = sorted(Path(os.environ["XMODAL_TEST_DATA"]).rglob("*.midi"))
    with ProcessPoolExecutor(2) as pool:
        entries = dict(sorted(pool.map(_entry, paths)))
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(entries, indent=0) + "\n")


if __name__ == "__main__":
    main()
