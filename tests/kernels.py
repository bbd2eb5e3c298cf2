"""What every Numba kernel of the package gives for small inputs, as one file of arrays.

    [NUMBA_DISABLE_JIT=1] python tests/kernels.py IN.npz OUT.npz

Without compilation a kernel is a thousand times slower: segments are of 17 frames here.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import audio, half, midi, quality, rendered, spectral
from pipeline.base.errors import MidiError
from pipeline.base.jit import _Kernel

FRAMES = 17  # not a multiple of the 16 and the 8 that are transformed at a time
spectral.N_FRAMES, spectral.SEGMENT_SAMPLES = FRAMES, (FRAMES - 1) * 512  # before they are read

from pipeline.descriptors import DESCRIPTORS, Notes  # noqa: E402

COLUMNS = [field.name for field in dataclasses.fields(Notes)]


def descriptors(given: dict[str, np.ndarray]) -> dict[str, Any]:
    segment = spectral.Spectrum(given["samples"])
    notes = Notes(**{name: given[name] for name in COLUMNS})
    found: dict[str, Any] = {"magnitude": segment.magnitude}
    for name, descriptor in DESCRIPTORS.items():
        if type(descriptor).__module__.startswith("pipeline."):
            found[name] = descriptor.extract(segment if descriptor.side == "audio" else notes)
    return found


def decoding(given: dict[str, np.ndarray]) -> dict[str, Any]:
    whole, fractions = given["pcm"], given["pcm"].astype(np.float32) / np.float32(30000)
    return {
        "mono of int16": [audio._to_mono(whole.reshape(-1, c)) for c in (1, 2, 6)],
        "mono of float32": [audio._to_mono(fractions.reshape(-1, c)) for c in (1, 2, 6)],
        "int16": audio.to_int16(fractions),
    }


def measures(given: dict[str, np.ndarray]) -> dict[str, Any]:
    pcm, onset_s, velocity = given["pcm"], given["quality onsets"], given["quality velocities"]
    meter = quality.Meter(len(pcm))
    for block in np.array_split(pcm, 5):
        meter.feed(block)
    found = dataclasses.astuple(meter.finish(onset_s, velocity))
    power: list[Any] = []
    strength = quality.onset_strength(pcm, power)
    score = quality.onset_score(onset_s * 200, velocity, len(strength))
    return {
        "quality": np.array(found, np.float64),
        "strength": strength,
        "score": score,
        "correlation": quality.correlate([strength], [score]),
    }


def rounding(given: dict[str, np.ndarray]) -> dict[str, Any]:
    values = given["floats"]
    out = np.empty(len(values), np.float16)
    with np.errstate(all="ignore"):  # integers are meant to wrap
        finite = [half.round_to_half(values[:n], out[:n]) for n in (100, len(values))]
    return {"half": out.view(np.uint16), "finite": finite}


def strikes(given: dict[str, np.ndarray]) -> dict[str, Any]:
    """Three keys, a damper that is lifted before the piece begins, one that falls after it ends."""
    tones, bright, dull = given["samples"].astype(np.float32), *np.zeros((2, 400), np.float32)
    start = np.array([0, 300, 700, 900], np.int64)
    dampers = np.linspace(1, 0, 60, dtype=np.float32) ** np.array([[1], [2], [3]], np.float32)
    onset, damped = np.array([[-100, 5, 20, 380], [-80, 200, 1000, 390]], np.int64) + 1000
    gain = np.array([0.5, 0.2, 0.9, 1.0], np.float32)
    key = np.array([0, 1, 2, 0], np.int64)
    rendered._strike(onset, damped, key, gain, 1 - gain, tones, start, dampers, 1000, bright, dull)
    return {"struck": np.stack([bright, dull])}


def scans(given: dict[str, np.ndarray]) -> dict[str, Any]:
    said, notes = [], []
    for raw in np.split(given["midi"], given["midi ends"][:-1]):
        try:
            found = midi.parse_performance(raw.tobytes())
        except MidiError as error:
            said.append(str(error))
            continue
        said.append(f"{len(found)} notes")
        notes += [found.onset_s, found.end_s, found.pitch, found.velocity]
    return {"midi said": said, "midi notes": notes}


def forgotten() -> list[str]:
    """Kernels that were never called; of compiled ones those that others call are among them."""
    root, out = Path(spectral.__file__).parent, []
    for path in sorted(root.rglob("*.py")):
        if re.search(r"^@(small_)?kernel$", path.read_text(encoding="utf-8"), re.MULTILINE):
            parts = path.relative_to(root.parent).with_suffix("").parts
            module = importlib.import_module(".".join(parts))
            out += [
                f"{module.__name__}.{name}"
                for name, value in vars(module).items()
                if isinstance(value, _Kernel) and "compiled" not in vars(value)
            ]
    return out


def main(source: str, target: str) -> None:
    with np.load(source) as file:
        given = dict(file)
    found: dict[str, Any] = {}
    for part in (descriptors, decoding, measures, rounding, scans, strikes):
        found |= part(given)
    found["forgotten"] = forgotten()
    flat = {k: np.concatenate(v) if k.startswith(("mono", "midi notes")) else v
            for k, v in found.items()}  # fmt: skip
    np.savez(target, **flat)


if __name__ == "__main__":
    main(*sys.argv[1:])
