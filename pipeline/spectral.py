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

One :class:`Spectrum` is made per segment; everything derived from it is computed once: the padded
frames, the magnitudes, and what a family of descriptors shares (:meth:`Spectrum.once`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline import stft
from pipeline.stft import HOP_LENGTH, N_FFT

SAMPLE_RATE = 24_000
SEGMENT_S = 4
SEGMENT_SAMPLES = SEGMENT_S * SAMPLE_RATE
N_FRAMES = 1 + SEGMENT_SAMPLES // HOP_LENGTH
N_BINS = N_FFT // 2 + 1
BIN_HZ = SAMPLE_RATE / N_FFT
FRAME_S = HOP_LENGTH / SAMPLE_RATE

FloatArray = npt.NDArray[np.float32]
T = TypeVar("T")


class Workspace:
    """Scratch memory that one worker uses again for every segment.

    Fresh arrays for every segment cost more in page faults than the transform itself.
    A :class:`Spectrum` made with a workspace is valid until the next one made with it.
    """

    def __init__(self) -> None:
        self.buffers = stft.Buffers(SEGMENT_SAMPLES)
        self.magnitude = np.empty((N_BINS, N_FRAMES), np.float32)
        self._scratch: dict[Callable[[], Any], Any] = {}

    def scratch(self, make: Callable[[], T]) -> T:
        """``make()``, at first use: what a family of descriptors needs beyond the transform."""
        if make not in self._scratch:
            self._scratch[make] = make()
        result: T = self._scratch[make]
        return result


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
        self._workspace = workspace or Workspace()
        self._made: dict[Callable[[Spectrum], Any], Any] = {}

    @property
    def hops(self) -> FloatArray:
        """The padded frames, not windowed: sample ``512 q + r`` of frame t is ``hops[r, t + q]``."""
        return self.once(_hops)

    @property
    def magnitude(self) -> FloatArray:
        """float32 [1025, 188]: one row per bin, so that band sums run along contiguous time."""
        return self.once(_magnitude)

    def scratch(self, make: Callable[[], T]) -> T:
        """The workspace's memory of this kind: overwritten when another segment's is computed."""
        return self._workspace.scratch(make)

    def once(self, make: Callable[[Spectrum], T]) -> T:
        """``make(self)``, computed at first use: for what several descriptors of a family share.

        Not ``functools.cached_property``: before Python 3.12 that lets one thread compute at a time.
        """
        if make not in self._made:
            self._made[make] = make(self)
        result: T = self._made[make]
        return result


def _hops(segment: Spectrum) -> FloatArray:
    return stft.turn_hops(segment.samples, segment._workspace.buffers)


def _magnitude(segment: Spectrum) -> FloatArray:
    work = segment._workspace
    stft.magnitudes(segment.hops, work.magnitude, work.buffers)
    return work.magnitude


def bin_hz() -> npt.NDArray[np.float64]:
    """Centre frequency of every bin in Hz, float64 [1025]."""
    return np.arange(N_BINS, dtype=np.float64) * BIN_HZ
