"""How strong every semitone is over time: sound on the axis of a piano roll, to be looked at.

Windows (periodic Hann) are as long as a semitone needs to be told from the next: 8,192 samples up to
B3, 4,096 up to B4, 2,048 above, at 24 kHz; below C2 neighbours run into each other. The strength of a
semitone is the largest magnitude within a quarter tone of its pitch at A4 = 440 Hz, in dB below the
loudest that is shown; ``RANGE_DB`` and less is 0, the loudest is 1. A semitone that has a louder
neighbour is mostly that neighbour's skirt, and fainter by ``SKIRT``. Overtones are in it too, 12, 19,
24 … semitones above.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WINDOWS = ((0, 8192), (60, 4096), (72, 2048))  # lowest pitch and samples, at 24 kHz
RANGE_DB = 36.0
SKIRT = 0.35
WITHIN = np.linspace(-0.5, 0.5, 5)  # semitones around a pitch that are looked at

Samples = npt.NDArray[np.int16]
FloatArray = npt.NDArray[np.float32]


def semitones(samples: Samples, rate: int, octaves: tuple[int, int], frames: int) -> FloatArray:
    """float32 [high - low, frames] in 0 … 1, the highest pitch first.

    Parameters
    ----------
    samples : int16 [n]
    octaves : lowest pitch, and the one above the highest
    frames : of equal length, which together are the whole of ``samples``
    """
    low, high = octaves
    pitches = np.arange(low, high)
    magnitude = np.zeros((len(pitches), frames))
    bounds = [lowest for lowest, _ in WINDOWS[1:]] + [128]
    for (lowest, window), above in zip(WINDOWS, bounds, strict=True):
        rows = np.flatnonzero((pitches >= lowest) & (pitches < above))
        if len(rows):
            magnitude[rows] = _magnitudes(samples, rate, pitches[rows], frames, window)
    peak = magnitude.max(initial=0.0)
    if peak < 1e-9:
        return np.zeros((len(pitches), frames), np.float32)
    strength = np.clip(1 + 20 * np.log10(np.maximum(magnitude / peak, 1e-9)) / RANGE_DB, 0, 1)
    around = np.pad(magnitude, ((1, 1), (0, 0)))
    strength[magnitude < np.maximum(around[:-2], around[2:])] *= SKIRT
    return strength[::-1].astype(np.float32)


def _magnitudes(
    samples: Samples, rate: int, pitches: npt.NDArray[np.integer], frames: int, window: int
) -> npt.NDArray[np.float64]:
    """Largest magnitude near every pitch [P, frames]."""
    centre = ((np.arange(frames) + 0.5) * len(samples) / frames).astype(np.int64)
    padded = np.pad(samples.astype(np.float32) / 32768, window // 2)
    shape = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(padded, window)[centre]
    spectrum = np.abs(np.fft.rfft(views * shape, axis=1)) / shape.sum()
    hz = 440.0 * 2.0 ** ((pitches[:, None] + WITHIN[None] - 69) / 12)
    at = np.minimum(hz * window / rate, window / 2 - 1)
    below = at.astype(np.int64)
    share = at - below
    found = (1 - share) * spectrum[:, below] + share * spectrum[:, below + 1]
    return np.asarray(found.max(axis=2).T, np.float64)
