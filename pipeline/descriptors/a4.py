"""A4, A4_level: octave-band energy dynamics, and their level (method §2.1).

Definition, on the magnitude spectrogram M of one segment (`pipeline.spectral`: 24 kHz, 2,048-sample
periodic Hann, hop 512, reflect padding, 188 frames):

1. ``L = ln(1 + M)``.
2. Eight octave bands by bin index, half-open: [4,8) [8,16) [16,32) [32,64) [64,128) [128,256)
   [256,512) [512,1025), that is 46.9–93.8, –187.5, –375, –750, –1500, –3000, –6000, –12000 Hz.
   Band level ``b_k(t)`` = arithmetic mean of L over the band's bins.
3. ``d_k(t) = b_k(t) - b_k(t-1)``, ``d_k(0) = 0``.
4. Per segment and band: subtract the mean over the 188 frames, divide by the unbiased standard
   deviation (ddof 1) clamped below at 1e-8. The padded first frame takes part.

Output float32 [188, 8], in standard deviations. Silence gives zeros. The time mean of every band is
0 by construction (§9.3): mechanisms that want one vector a segment use the companion named in
``pooled`` instead: ``A4_level``, float32 [8], the time mean of ``b_k`` in nepers.

The mean of ``ln(1+M)`` over a band is the logarithm of a product. Up to 64 factors are multiplied in
float64 before one logarithm is taken: |M| <= 2048 for samples in [-1, 1], so 64 factors stay below
1e212.
"""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.jit import kernel
from pipeline.descriptors.contract import AudioDescriptor, FloatArray, register
from pipeline.spectral import BIN_HZ, N_FRAMES, Spectrum

BAND_EDGES = (4, 8, 16, 32, 64, 128, 256, 512, 1025)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class A4Config:
    """Parameters of A4; the defaults are the paper's.

    Attributes
    ----------
    band_edges : bin indices; band k is [edges[k], edges[k+1])
    std_floor : lower clamp of the standard deviation (log-magnitude units per frame)
    """

    band_edges: tuple[int, ...] = BAND_EDGES
    std_floor: float = 1e-8


@register
class A4(AudioDescriptor):
    """Octave-band energy dynamics."""

    name = "A4"
    version = 1
    cost = 0.73
    axis = "frame"
    width = 8
    units = "standard deviations"
    summary = "octave-band energy dynamics: z-scored frame differences of 8 log-magnitude bands"
    pooled = "A4_level"
    config = A4Config()

    def labels(self) -> tuple[str, ...]:
        """The bands in Hz."""
        return band_names(self.config.band_edges)

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 8] from one segment's spectrum."""
        levels = band_levels(segment, self.config.band_edges)
        return octave_dynamics(levels, self.config.std_floor)


@register
class A4Level(AudioDescriptor):
    """Octave-band energy: what A4 leaves out."""

    name = "A4_level"
    version = 1
    cost = 0.96
    axis = "segment"
    width = 8
    units = "ln(1 + M)"
    summary = "mean level of the 8 octave bands: stands for A4 where one vector a segment is wanted"
    config = A4Config()

    def labels(self) -> tuple[str, ...]:
        """The bands in Hz."""
        return band_names(self.config.band_edges)

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [8] from one segment's spectrum."""
        return band_levels(segment, self.config.band_edges).mean(axis=1).astype(np.float32)


def band_names(edges: tuple[int, ...]) -> tuple[str, ...]:
    """The bands as people write them: ``47–94 Hz``, ``1.5–3 kHz``."""
    hz = [edge * BIN_HZ for edge in edges]
    return tuple(
        f"{low:.0f}–{high:.0f} Hz" if low < 1000 else f"{low / 1000:.2g}–{high / 1000:.2g} kHz"
        for low, high in itertools.pairwise(hz)
    )


def band_levels(spectrum: Spectrum, edges: tuple[int, ...] = BAND_EDGES) -> npt.NDArray[np.float64]:
    """Mean of ``ln(1 + M)`` in every band: float64 [len(edges) - 1, 188]."""
    starts, bands, sizes = _product_plan(edges)
    products = np.empty((len(starts) - 1, N_FRAMES), np.float64)
    _products(spectrum.magnitude, starts, products)
    levels = np.empty((len(sizes), N_FRAMES), np.float64)
    _sum_runs(np.log(products, out=products), bands, sizes, levels)
    return levels


def octave_dynamics(levels: npt.NDArray[np.float64], std_floor: float = 1e-8) -> FloatArray:
    """Difference in time, then z-score per band: float64 [K, T] -> float32 [T, K]."""
    out = np.empty(levels.shape[::-1], np.float32)
    _standard_changes(levels, std_floor, out)
    return out


@cache
def _product_plan(edges: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Edges of runs of at most 64 bins, edges of the bands' runs, the bands' sizes in bins."""
    starts: list[int] = []
    bands: list[int] = []
    for lo, hi in itertools.pairwise(edges):
        bands.append(len(starts))
        starts.extend(range(lo, hi, 64))
    bands.append(len(starts))
    starts.append(edges[-1])
    return np.array(starts, np.int64), np.array(bands, np.int64), np.diff(edges)


@kernel
def _products(magnitude, edges, out):  # type: ignore[no-untyped-def]
    """out[r, t] = product over edges[r] <= bin < edges[r+1] of 1 + magnitude[bin, t]."""
    for r in range(out.shape[0]):
        for t in range(out.shape[1]):
            out[r, t] = 1.0
        for k in range(edges[r], edges[r + 1]):
            for t in range(out.shape[1]):
                out[r, t] *= 1.0 + np.float64(magnitude[k, t])


@kernel
def _sum_runs(logs, bands, sizes, out):  # type: ignore[no-untyped-def]
    """out[k, t] = sum of band k's runs of ``logs`` [r, t], by its number of bins."""
    for k in range(out.shape[0]):
        for t in range(out.shape[1]):
            out[k, t] = logs[bands[k], t]
        for r in range(bands[k] + 1, bands[k + 1]):
            for t in range(out.shape[1]):
                out[k, t] += logs[r, t]
        for t in range(out.shape[1]):
            out[k, t] /= sizes[k]


@kernel
def _standard_changes(levels, std_floor, out):  # type: ignore[no-untyped-def]
    """out[t, k] = (d - mean d) / max(std d, floor) of d = levels[k, t] - levels[k, t-1]."""
    n_bands, n_frames = levels.shape
    for k in range(n_bands):
        # The mean of the differences telescopes; so it is 0 exactly where a band comes back.
        mean = (levels[k, n_frames - 1] - levels[k, 0]) / n_frames
        squares = mean * mean  # of the first frame, whose difference is 0
        for t in range(1, n_frames):
            change = levels[k, t] - levels[k, t - 1] - mean
            squares += change * change
        scale = 1.0 / max(np.sqrt(squares / (n_frames - 1)), std_floor)
        out[0, k] = -mean * scale
        for t in range(1, n_frames):
            out[t, k] = (levels[k, t] - levels[k, t - 1] - mean) * scale
