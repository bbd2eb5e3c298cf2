"""Golden values: what every descriptor gives for fixed inputs, written from the float64 oracles.

    python tests/golden.py

writes ``tests/golden.npz``. The oracles are computed anew by every test; this file is not, so that an
oracle and its kernel cannot drift together unseen. A changed definition changes it, and nothing else.

Imports nothing from the packages under test.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import oracles
import oracles_attractors
from oracles_by_name import NOTES, SOUND

FILE = Path(__file__).with_suffix(".npz")
FRAMES = (0, 1, 60, 94, 141, 187)  # kept of 188; the impulse is in the 94th


def passages() -> dict[str, SimpleNamespace]:
    """Segments of notes in store order; times are multiples of 1/64 s."""
    i = np.arange(140)
    return {
        "no note": notes(i[:0], i[:0], i[:0], i[:0]),
        "one note": notes([60], [64], [16], [48]),
        "four at once": notes([48, 55, 64, 72], [90, 70, 60, 80], [8] * 4, [32, 64, 48, 20]),
        "140 notes": notes(
            30 + i * i * 7 % 61, 1 + i * 37 % 127, 3 * (i - i % 2) // 2 - 20, 2 + i * 13 % 97
        ),
    }


def notes(pitch: Any, velocity: Any, onset: Any, duration: Any) -> SimpleNamespace:
    """Columns of notes, times in 1/64 s, sorted as the store sorts."""
    rows = sorted(zip(onset, pitch, np.add(onset, duration), velocity, duration, strict=True))
    at, key, _, force, length = np.array(rows, np.float64).reshape(-1, 5).T
    return SimpleNamespace(
        pitch=key.astype(np.uint8),
        velocity=force.astype(np.uint8),
        duration_bucket=np.array([oracles.bucket(d / 64) for d in length], np.uint8),
        onset_s=(at / 64).astype(np.float32),
        duration_s=(length / 64).astype(np.float32),
    )


def inputs() -> dict[str, Any]:
    """All inputs by name: samples, or notes."""
    signals = oracles.signals()
    return {name: signals[name] for name in oracles.GOLDEN} | passages()


def given(name: str) -> list[str]:
    """The inputs of one descriptor."""
    return list(oracles.GOLDEN if name in SOUND else passages())


def digest(source: Any) -> str:
    """Of what an input consists of."""
    columns = vars(source).values() if isinstance(source, SimpleNamespace) else (source,)
    return hashlib.sha256(b"".join(c.tobytes() for c in columns)).hexdigest()[:16]


def kept(value: np.ndarray) -> np.ndarray:
    """A few frames of 188; everything of what has no frames."""
    return value[list(FRAMES)] if value.shape[0] == oracles.FRAMES else value


def expected(name: str, source: Any) -> np.ndarray:
    """The oracle's value as float32, NaN where rounding decides (A7, A9 and their siblings)."""
    value = np.array({**SOUND, **NOTES}[name](source), np.float64)
    if name[:2] in ("A7", "A9"):
        spectra = oracles_attractors.rounded(source)
        if name.endswith("s"):
            undecided = oracles_attractors.undecided_peaks(spectra)
            chosen = oracles_attractors.undecided_peaks(spectra, flat=0.0)
        else:
            undecided = chosen = oracles_attractors.undecided_bins(spectra)
        value[undecided] = np.nan
        if name.startswith("A9") and chosen.any():  # which of them counts weighs on every frame
            value[:] = np.nan
    return kept(value).astype(np.float32)


def main() -> None:
    """Write the file; no date and no version in it, so that the same values are the same bytes."""
    sources = inputs()
    arrays = {"inputs": np.array([f"{name} {digest(s)}" for name, s in sources.items()])}
    for name in (*SOUND, *NOTES):
        for source in given(name):
            arrays[f"{name}/{source}"] = expected(name, sources[source])
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays) - 1} arrays, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
