"""The short-time Fourier transform that all descriptors share (method §2.0).

=================  =============================================================
sample rate        24,000 Hz, mono, samples in [-1, 1)
segment            96,000 samples = 4 s
window             2,048 samples, periodic Hann
hop                512 samples = 21.333 ms
padding            1,024 samples on each side by reflection (edge sample not repeated)
frames             1 + 96,000 / 512 = 188 (the last frame is centred on sample 95,744)
bins               1,025, one-sided, spaced 11.71875 Hz; not normalised
magnitude          M = |STFT|, float32 (no power, no logarithm)
silence            M = 0
=================  =============================================================

One :class:`Spectrum` is made per segment; everything derived from it is computed once.
"""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import MissingExtra
from pipeline.base.jit import kernel

SAMPLE_RATE = 24_000
SEGMENT_S = 4
SEGMENT_SAMPLES = SEGMENT_S * SAMPLE_RATE
N_FFT = 2048
HOP_LENGTH = 512
N_FRAMES = 1 + SEGMENT_SAMPLES // HOP_LENGTH
N_BINS = N_FFT // 2 + 1
BIN_HZ = SAMPLE_RATE / N_FFT
FRAME_S = HOP_LENGTH / SAMPLE_RATE
FRAME_BLOCK = 47  # frames transformed at a time: a quarter of a segment, so that it stays in cache

FloatArray = npt.NDArray[np.float32]


class Workspace:
    """Scratch memory that one worker uses again for every segment.

    Fresh 1.5 MB arrays for every segment cost more in page faults than the transform itself.
    A :class:`Spectrum` made with a workspace is valid until the next one made with it.
    """

    def __init__(self) -> None:
        self.frames = np.empty((FRAME_BLOCK, N_FFT), np.float32)
        # Rows of 1,040, not 1,025: neighbours 4,096 bytes apart would evict each other from L1.
        self.rows = np.empty((FRAME_BLOCK, 1040), np.float32)
        self.magnitude = np.empty((N_BINS, N_FRAMES), np.float32)


class Spectrum:
    """The spectrum of one segment, computed at first use.

    Parameters
    ----------
    samples : float32 [96000]
        24 kHz mono.
    workspace : Workspace, optional
        Memory to use; without it the spectrum owns its own.
    """

    def __init__(self, samples: FloatArray, workspace: Workspace | None = None) -> None:
        if samples.shape != (SEGMENT_SAMPLES,) or samples.dtype != np.float32:
            raise ValueError(
                f"a segment is float32 [{SEGMENT_SAMPLES}], not {samples.dtype} {samples.shape}"
            )
        self.samples = samples
        self._workspace = workspace

    @cached_property
    def magnitude(self) -> FloatArray:
        """float32 [1025, 188]: one row per bin, so that band sums run along contiguous time."""
        try:
            from scipy import fft
        except ImportError:
            raise MissingExtra("scipy", "features") from None
        work = self._workspace or Workspace()
        for t0 in range(0, N_FRAMES, FRAME_BLOCK):
            frames = work.frames[: N_FRAMES - t0]
            _windowed_frames(self.samples, hann(), t0, frames)
            spectrum = fft.rfft(frames, axis=1)
            _magnitude(spectrum.view(np.float32), work.rows[: len(frames)], t0, work.magnitude)
        return work.magnitude


@cache
def hann() -> FloatArray:
    """Periodic Hann window, float32 [2048]."""
    phase = 2.0 * np.pi * np.arange(N_FFT) / N_FFT
    window: FloatArray = (0.5 - 0.5 * np.cos(phase)).astype(np.float32)
    window.flags.writeable = False
    return window


def bin_hz() -> npt.NDArray[np.float64]:
    """Centre frequency of every bin in Hz, float64 [1025]."""
    return np.arange(N_BINS, dtype=np.float64) * BIN_HZ


@kernel
def _windowed_frames(samples, window, t0, out):  # type: ignore[no-untyped-def]
    """Cut, reflect at the edges and window in one pass: frames t0… -> out [block, n_fft]."""
    n = samples.shape[0]
    n_fft = window.shape[0]
    for t in range(out.shape[0]):
        start = (t0 + t) * 512 - n_fft // 2
        if start >= 0 and start + n_fft <= n:
            for i in range(n_fft):
                out[t, i] = samples[start + i] * window[i]
        else:
            for i in range(n_fft):
                j = start + i
                if j < 0:
                    j = -j
                elif j >= n:
                    j = 2 * (n - 1) - j
                out[t, i] = samples[j] * window[i]


@kernel
def _magnitude(pairs, rows, t0, out):  # type: ignore[no-untyped-def]
    """sqrt(re² + im²) of pairs [block, 2K], transposed into out [K, T] from column t0 on."""
    n_frames, n_bins = rows.shape[0], out.shape[0]
    for t in range(n_frames):
        for k in range(n_bins):
            re = pairs[t, 2 * k]
            im = pairs[t, 2 * k + 1]
            rows[t, k] = np.sqrt(re * re + im * im)
    for k0 in range(0, n_bins, 16):
        for k in range(k0, min(k0 + 16, n_bins)):
            for t in range(n_frames):
                out[k, t0 + t] = rows[t, k]
