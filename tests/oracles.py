"""What the kernels must give, written again from the definitions: plain float64 NumPy and loops.

Imports nothing from the packages under test.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi

RATE, SEGMENT, N_FFT, HOP, FRAMES, BINS = 24_000, 96_000, 2048, 512, 188, 1025
OCTAVES = ((4, 8), (8, 16), (16, 32), (32, 64), (64, 128), (128, 256), (256, 512), (512, 1025))


def magnitude(samples: np.ndarray) -> np.ndarray:
    """|STFT| in float64, [188, 1025]: reflect padding, periodic Hann, hop 512."""
    padded = np.pad(np.asarray(samples, np.float64), N_FFT // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    frames = np.stack([padded[t * HOP : t * HOP + N_FFT] * window for t in range(FRAMES)])
    return np.abs(np.fft.rfft(frames, axis=1))


def a4(samples: np.ndarray) -> np.ndarray:
    """Octave-band energy dynamics, [188, 8] float64."""
    log_magnitude = np.log(1.0 + magnitude(samples))
    out = np.zeros((FRAMES, len(OCTAVES)))
    for k, (low, high) in enumerate(OCTAVES):
        level = [math.fsum(row[low:high]) / (high - low) for row in log_magnitude]
        change = [0.0] + [level[t] - level[t - 1] for t in range(1, FRAMES)]
        mean = math.fsum(change) / FRAMES
        variance = math.fsum((c - mean) ** 2 for c in change) / (FRAMES - 1)
        deviation = max(math.sqrt(variance), 1e-8)
        out[:, k] = [(c - mean) / deviation for c in change]
    return out


def a4_levels(samples: np.ndarray) -> np.ndarray:
    """Band levels before the difference, [188, 8] float64."""
    log_magnitude = np.log1p(magnitude(samples))
    return np.stack([log_magnitude[:, lo:hi].mean(axis=1) for lo, hi in OCTAVES], axis=1)


def a4_deviation(samples: np.ndarray) -> np.ndarray:
    """What the z-score divides by, [8] float64."""
    levels = a4_levels(samples)
    return np.maximum(np.diff(levels, axis=0, prepend=levels[:1]).std(axis=0, ddof=1), 1e-8)


JUST = (1, 16 / 15, 9 / 8, 6 / 5, 5 / 4, 4 / 3, 7 / 5, 3 / 2, 8 / 5, 5 / 3, 7 / 4, 15 / 8)


def shares(values: np.ndarray) -> np.ndarray:
    """Each row divided by its sum (at least 1e-8)."""
    return values / np.maximum(values.sum(axis=-1, keepdims=True), 1e-8)


def chroma_and_gate(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chroma [188, 12] and onset gate [188], float64."""
    m = magnitude(samples)
    chroma = np.zeros((FRAMES, 12))
    for k in range(3, BINS):
        chroma[:, round(12 * math.log2(k * RATE / N_FFT / 32.7)) % 12] += m[:, k]
    flux = np.array([0.0] + [np.maximum(m[t] - m[t - 1], 0).sum() for t in range(1, FRAMES)])
    return chroma, flux / max(flux.max(), 1e-8)


def pair_histograms(notes: Any) -> np.ndarray:
    """Ratio histograms weighted by velocity, by duration and not at all, [128, 3] float64."""
    centres = np.linspace(0.5, 2, 128)
    out = np.zeros((128, 3))
    rows = list(
        zip(notes.pitch.tolist(), notes.velocity.tolist(), notes.duration_bucket.tolist(),
            strict=True)
    )[:128]  # fmt: skip
    for (p1, v1, b1), (p2, v2, b2) in itertools.product(rows, repeat=2):
        ratio = 2 ** ((p1 - p2) / 12)
        if abs(p1 - p2) <= 12:
            kernel = np.exp(-0.5 * ((ratio - centres) / (1.5 / 128)) ** 2)
            out[:, 0] += math.sqrt(v1 * v2 / 127**2 + 1e-8) * kernel
            out[:, 1] += math.sqrt((b1 + 1) / 32 * (b2 + 1) / 32 + 1e-8) * kernel
            out[:, 2] += kernel
    return out / (out.sum(axis=0) + 1e-8)


def d3(notes: Any) -> np.ndarray:
    """Rhythm, duration and step histograms, [153] float64."""
    rows = [
        (float(o), float(d), int(p))
        for o, d, p in zip(notes.onset_s, notes.duration_s, notes.pitch, strict=True)
        if o >= 0
    ]

    def soft(values: list[float], shortest: float) -> np.ndarray:
        out = np.zeros(64)
        for a, b in itertools.pairwise(values):
            if a > shortest and b > shortest:
                ratio = min(max(a / (b + 1e-8), 0.25), 4.0)
                out += np.exp(-0.5 * ((ratio - np.linspace(0.25, 4, 64)) / (3.75 / 64)) ** 2)
        return out / (out.sum() + 1e-8)

    steps = np.zeros(25)
    for (_, _, p1), (_, _, p2) in itertools.pairwise(rows):
        steps[min(max(p2 - p1, -12), 12) + 12] += 1
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(rows)]
    lengths = [d for _, d, _ in rows]
    return np.concatenate([soft(gaps, 0.01), soft(lengths, 0.05), steps / (steps.sum() + 1e-8)])


def d5(notes: Any) -> np.ndarray:
    """Melodic contour, [188, 3] float64, frame by frame."""
    top: list[int | None] = []
    for t in range(FRAMES):
        at = t * HOP / RATE
        sounding = [
            int(p)
            for p, o, d in zip(notes.pitch, notes.onset_s, notes.duration_s, strict=True)
            if float(o) <= at < float(o) + float(d)
        ]
        top.append(max(sounding, default=None))
    voiced = [p for p in top if p is not None]
    out = np.zeros((FRAMES, 3))
    for t, p in enumerate(top):
        if p is None:
            continue
        out[t, 0], out[t, 1] = (p - np.median(voiced)) / 12, 1
        if 0 < t < FRAMES - 1 and top[t - 1] is not None and top[t + 1] is not None:
            out[t, 2] = (top[t + 1] - top[t - 1]) / 12 / (2 * HOP / RATE)  # type: ignore[operator]
    return out


def slaney_filters(n_mels: int = 96, low: float = 30.0, high: float = 8000.0) -> np.ndarray:
    """Triangles of equal area on Slaney's scale, one loop per filter and bin."""

    def to_mel(f: float) -> float:
        return f * 3 / 200 if f < 1000 else 15 + 27 * math.log(f / 1000, 6.4)

    def to_hz(m: float) -> float:
        return m * 200 / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)

    step = (to_mel(high) - to_mel(low)) / (n_mels + 1)
    corners = [to_hz(to_mel(low) + step * i) for i in range(n_mels + 2)]
    bank = np.zeros((n_mels, BINS))
    for m in range(n_mels):
        left, centre, right = corners[m : m + 3]
        for k in range(BINS):
            f = k * RATE / N_FFT
            if left < f <= centre:
                bank[m, k] = (f - left) / (centre - left)
            elif centre < f < right:
                bank[m, k] = (right - f) / (right - centre)
        bank[m] *= 2 / (right - left)
    return bank


def mel(samples: np.ndarray) -> np.ndarray:
    """ln(1 + 10 W M), [188, 96] float64."""
    return np.log(1 + 10 * magnitude(samples) @ slaney_filters().T)


def d4(pitches: list[int]) -> np.ndarray:
    """Local melodic intervals, [N, 4] float64, note by note."""
    rows = []
    for i, pitch in enumerate(pitches):
        before = pitch - pitches[i - 1] if i > 0 else 0
        after = pitches[i + 1] - pitch if i + 1 < len(pitches) else 0
        rows.append(
            [
                before / 24,
                after / 24,
                max(-2.0, min(2.0, before / 12)) / 2,
                max(-2.0, min(2.0, after / 12)) / 2,
            ]
        )
    return np.array(rows, np.float64).reshape(-1, 4)


def bucket(duration: float) -> int:
    """Duration bucket 0–31."""
    clipped = min(max(duration, 0.05), 4.0)
    return min(31, math.floor(math.log(clipped / 0.05) / math.log(80) * 31))


def segment_notes(
    notes: list[tuple[float, float, int, int]], n_segments: int
) -> list[tuple[int, float, int, float, int, float]]:
    """(segment, onset, pitch, end, velocity, duration) of every overlap, by exhaustive search."""
    out = []
    for s in range(n_segments):
        members = [n for n in notes if n[0] < s + 4 and n[1] > s]
        for onset, end, pitch, velocity in sorted(members, key=lambda n: (n[0], n[2], n[1], n[3])):
            out.append((s, onset - s, pitch, end - s, velocity, end - onset))
    return out


def midi_notes(source: bytes | Path) -> list[tuple[float, float, int, int]]:
    """(onset, end, pitch, velocity) of all non-drum notes as pretty_midi reads them, sorted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file: Any = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        score = pretty_midi.PrettyMIDI(file)
    notes = [
        (n.start, n.end, n.pitch, n.velocity)
        for i in score.instruments
        if not i.is_drum
        for n in i.notes
        if n.end > n.start
    ]
    return sorted(notes, key=lambda n: (n[0], n[2], n[1], n[3]))


def count_segments(duration: float, cap: int | None) -> int:
    """Starts 0, 1, 2, … while the window ends within the recording and the cap allows."""
    starts = itertools.takewhile(lambda t: t + 4.0 <= duration, itertools.count())
    return sum(1 for _ in itertools.islice(starts, cap))


def chord() -> np.ndarray:
    """A struck fifth with eight partials each, over soft noise."""
    t = np.arange(SEGMENT) / RATE
    # Raw bits: NumPy promises these, and no distribution, the same in every version.
    noise = np.random.PCG64(5).random_raw(SEGMENT) / 2**64 - 0.5
    sound = 0.007 * noise
    for f0, n in itertools.product((220.0, 330.0), range(1, 9)):
        sound += 0.15 / n * np.exp(-(t % 1.0) * 2 * n) * np.sin(2 * np.pi * f0 * n * t)
    return sound


def signals() -> dict[str, np.ndarray]:
    """Inputs of one segment each, as the store holds them: int16 / 32768 in float32."""
    t = np.arange(SEGMENT) / RATE
    rng = np.random.default_rng(20260410)
    envelope = np.exp(-((t % 0.5) * 6))
    out = {
        "silence": np.zeros(SEGMENT),
        "impulse": np.eye(1, SEGMENT, SEGMENT // 2).ravel() * 0.9,
        "impulse at the edge": np.eye(1, SEGMENT, 3).ravel() * 0.9,
        "chirp": 0.5 * np.sin(2 * np.pi * (40 * t + (11_000 - 40) / 8 * t**2)),
        "noise": 0.2 * rng.standard_normal(SEGMENT),
        "noise at one bit": rng.integers(-1, 2, SEGMENT) / 32768,
        "clipped": np.clip(4 * np.sin(2 * np.pi * 220 * t) * envelope, -1, 1),
        "full-scale square": np.sign(np.sin(2 * np.pi * 93.75 * t + 0.1)),
        "chord": chord(),
    }
    for low, high in OCTAVES:
        f = math.sqrt(low * (high - 1)) * RATE / N_FFT
        out[f"sine {f:.0f} Hz"] = 0.7 * np.sin(2 * np.pi * f * t)
        out[f"struck {f:.0f} Hz"] = 0.7 * envelope * np.sin(2 * np.pi * f * t)
    return {
        name: (np.clip(np.rint(x * 32768), -32768, 32767) / 32768).astype(np.float32)
        for name, x in out.items()
    }


GOLDEN = ("silence", "impulse", "chirp", "noise", "clipped", "chord")
GOLDEN += tuple(name for name in signals() if name.startswith("sine"))
