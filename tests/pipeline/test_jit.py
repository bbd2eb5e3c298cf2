"""Kernels give the same with and without compilation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import golden
import numpy as np
import oracles
from makers import off, on, smf, tempo, track

ROOT = Path(__file__).parents[2]
# Relative and absolute; reassociation and fused multiply-adds may move the last bit, nothing more.
EXACT = dict.fromkeys(("int16", "half", "finite", "midi notes"), (0, 0))
LIMITS = {
    "magnitude": (1e-5, 1e-6),
    "A4": (0, 2e-5),
    "strength": (1e-5, 1e-5),
    "quality": (0, 2e-3),
}
PROBLEMS = ("inside an event", "more than four bytes", "without a status", "above 127",
            "unknown kind", "not three bytes")  # fmt: skip


def sound() -> np.ndarray:
    """A chord, then a clipped tone, then nothing."""
    chord, clipped = (oracles.signals()[name] for name in ("chord", "clipped"))
    return np.concatenate([chord[:4096], clipped[:2048], np.zeros(2048, np.float32)])


def files() -> list[bytes]:
    """A MIDI file with something of everything, and what comes of it byte by byte."""
    events = [
        (0, tempo(400_000)), (0, b"\xff\x03\x04name"), (0, on(60)), (10, on(64, 80)),
        (0, b"\x43\x50"), (20, b"\x43\x00"), (0, on(60)), (5, off(60)), (5, on(40, channel=9)),
        (0, b"\xc0\x05"), (200, b"\xf0\x03\x01\x02\xf7"), (0, on(72, 1)), (0, off(72)),
        (3, on(72)), (3, tempo(600_000)), (9, off(72)), (0, off(64)), (0, off(60)),
    ]  # fmt: skip
    whole = smf(track(*events))
    body = whole[22:]
    out = [whole, smf(track(*events), track((7, on(50)), (70, off(50))))]
    out.append(smf(track((1 << 28, on(60)))))
    for at in range(len(body)):
        out.append(smf(b"MTrk" + at.to_bytes(4, "big") + body[:at]))
        for byte in (0x00, 0x51, 0x7F, 0x80, 0xF4, 0xFF):
            out.append(whole[: 22 + at] + bytes([byte]) + whole[23 + at :])
    return out


def test_kernels_without_compilation_give_the_same(tmp_path: Path) -> None:
    midi = files()
    pcm = np.rint(sound() * 32768).clip(-32768, 32767).astype(np.int16)
    pcm = np.concatenate([pcm, np.full(40, 32767, np.int16), pcm])[:14_400]
    bits = np.arange(0, 1 << 32, 0x00080FFF, np.uint32)  # every exponent
    onsets = np.sort(np.arange(12) * 0.37 % 0.5)
    np.savez(
        tmp_path / "in.npz",
        **vars(golden.passages()["140 notes"]),
        **{"quality onsets": onsets, "quality velocities": np.arange(12.0) + 1},
        **{"samples": sound(), "pcm": pcm, "floats": bits.view(np.float32)},
        **{"midi": np.frombuffer(b"".join(midi), np.uint8), "midi ends": np.cumsum([*map(len, midi)])},
    )  # fmt: skip
    compiled, plain = (computed(tmp_path, disabled) for disabled in ("0", "1"))
    compiled.pop("forgotten")
    assert not plain.pop("forgotten").tolist(), "kernels that tests/kernels.py does not call"
    assert set(compiled) == set(plain)
    said = plain.pop("midi said").tolist()
    assert said == compiled.pop("midi said").tolist()
    assert all(any(problem in line for line in said) for problem in PROBLEMS)
    for name, wanted in compiled.items():
        rtol, atol = {**LIMITS, **EXACT}.get(name, (0, 1e-5))
        np.testing.assert_allclose(plain[name], wanted, rtol, atol, err_msg=name)
    assert plain["finite"].tolist() == [True, False]


def computed(folder: Path, disabled: str) -> dict[str, np.ndarray]:
    command = [sys.executable, str(ROOT / "tests/kernels.py"), str(folder / "in.npz"),
               str(folder / f"{disabled}.npz")]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": disabled}
    subprocess.run(command, check=True, timeout=240, env=env)
    with np.load(folder / f"{disabled}.npz") as file:
        return dict(file)
