"""A10a–A10e, A10cs, A10c_level: ratios between a frame's periods, and how it recurs (method §2.8).

Frames are those of the STFT (:mod:`pipeline.spectral`: reflected by 1,024 samples, 2,048 long, hop
512, periodic Hann). A frame *sounds* where the mean square of its windowed samples exceeds 1e-10.

**A10a** [188, 12], **A10d** [188, 32]: periods by autocorrelation.

1. Autocorrelation (by FFT, zero-padded to 4,096), divided by lag 0 (at least 1e-10).
2. The 8 highest strict local maxima at lags 6 … 480 samples (4,000 … 50 Hz) that exceed 0.
3. Nearness of their ratios (longer by shorter, octaves modulo 1) to the 12 simple ratios (A10a) or to
   32 even steps of an octave (A10d), σ = 0.02 octaves, weighted by ``sqrt(h_i h_j + 1e-8)``
   (:mod:`pipeline.descriptors.ratios`); frames that do not sound give 0; each frame divided by its
   sum (at least 1e-8).

**A10b** [188, 12], **A10e** [188, 32]: periods by recurrence.

1. Every 16th sample of the frame: 128 points; vectors of 3 neighbours: 126.
2. A pair of vectors recurs where its Euclidean distance is at most the 1,587th smallest of all 126²
   (the main diagonal's zeros among them): the 10th percentile.
3. Recurrence rate of each diagonal, offset 0 … 125: share of its points that recur. Its strict local
   maxima, the 8 highest; their offset times 16 is a lag. Then as A10a and A10d from step 3.

**A10c** [188, 6]: six measures of the plot of step 2, frame by frame, then z-scored over the segment.

======== =============================================================
REC      share of all 126² points that recur
DET      ``Σ R R' / Σ R``, R' the plot moved by one along the diagonal and padded back
LAM      the same with R' moved along the columns
Lmean    mean length of the diagonal lines
ENTR     Shannon entropy (nats) of the distribution of their lengths
TT       trapping time: mean length of the vertical lines
======== =============================================================

The padding undoes the move, so DET and LAM compare the plot with itself but for its first row and
column, and both are near 1 whatever sounds (§9.33). REC is near 0.1 by construction: it varies by ties
alone, and between frames that sound and frames that do not.

**A10cs** [188, 6] is A10c with what was meant: DET = share of the recurrent points above the main
diagonal that lie on diagonal lines, LAM = share of all recurrent points that lie on vertical lines.
**A10c_level** [6]: means of A10cs' measures over the frames that sound, before the z-score (whose time
mean is 0 by construction); it stands for both where one vector a segment is wanted.

What the source leaves open, and is chosen here:

* Ties: autocorrelations are rounded to multiples of 2^-30, windowed samples of recurrence plots to
  2^-24, so that what is equal but for rounding is equal, and no maximum. Of equal heights the shorter
  lag comes first.
* A maximum needs a neighbour on either side, inside the search range or not (lags 5 and 481, offsets
  0 and 126: the last does not exist, so offset 125 is never one; nor is 1, for offset 0 has rate 1).
* Lines are of 2 points or more. Diagonal lines are looked for at all offsets 1 … 125 (ENTR is cut at
  none), not on the main diagonal; vertical lines in the whole plot. Without lines Lmean = ENTR = 0.
* The energy gate looks at windowed samples. A move of the plot drops its first row (and column), and
  the padding puts zeros there.
* z-score: unbiased deviation (n - 1), at least 1e-8, as in A4. Frames that do not sound take part with
  six zeros, and are 0 again afterwards. Silence gives zeros.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.descriptors import lines, plots
from pipeline.descriptors.autocorrelation import Buffers, autocorrelations, energies
from pipeline.descriptors.contract import AudioDescriptor, FloatArray, register
from pipeline.descriptors.ratios import EVEN, SIMPLE, Peaks, activations, highest, shares
from pipeline.spectral import N_FRAMES, SAMPLE_RATE, Spectrum
from pipeline.stft import N_FFT

DoubleArray = npt.NDArray[np.float64]

SHORTEST_LAG, LONGEST_LAG = SAMPLE_RATE // 4000, SAMPLE_RATE // 50
GATE, STD_FLOOR = 1e-10, 1e-8
GRID = 2.0**30
MEASURES = ("REC", "DET", "LAM", "Lmean", "ENTR", "TT")


def frame_energies(segment: Spectrum) -> DoubleArray:
    """Sum of the windowed samples' squares: float64 [188]."""
    return energies(segment.hops, N_FRAMES)


def sounding(segment: Spectrum) -> npt.NDArray[np.bool_]:
    """Frames that pass the energy gate: bool [188]."""
    return segment.once(frame_energies) / N_FFT > GATE


def autocorrelation_peaks(segment: Spectrum) -> Peaks:
    """The highest peaks of the autocorrelation."""
    energy, buffers = segment.once(frame_energies), segment.scratch(Buffers)
    curves = autocorrelations(segment.hops, energy, LONGEST_LAG + 2, GRID, buffers)
    return highest(curves, SHORTEST_LAG, LONGEST_LAG)


def recurrence_peaks(segment: Spectrum) -> Peaks:
    """The highest peaks of the recurrence rate by offset."""
    rates = lines.recurrence_rates(segment.once(_plots))
    return highest(rates, 1, plots.N_VECTORS - 2)


def sound_measures(segment: Spectrum) -> DoubleArray:
    """REC, DET, LAM, Lmean, ENTR, TT of A10cs, 0 in frames that do not sound: float64 [188, 6]."""
    found, _ = segment.once(_measures)
    return np.where(segment.once(sounding)[:, None], found, 0.0)


def paper_measures(segment: Spectrum) -> DoubleArray:
    """The same with DET and LAM of A10c: float64 [188, 6]."""
    found = segment.once(sound_measures).copy()
    _, repeated = segment.once(_measures)
    found[:, 1:3] = np.where(segment.once(sounding)[:, None], repeated, 0.0)
    return found


def _plots(segment: Spectrum) -> plots.Words:
    points = plots.frame_points(segment.hops, N_FRAMES)
    return plots.recurrences(points, segment.once(sounding))[1]


def _measures(segment: Spectrum) -> tuple[DoubleArray, DoubleArray]:
    return lines.measures(segment.once(_plots))


class _Periods(AudioDescriptor):
    """Ratios between periods: whence the periods, and to which centres."""

    axis = "frame"
    units = "share of the frame"
    peaks: ClassVar[staticmethod[[Spectrum], Peaks]]
    centres: ClassVar[DoubleArray]

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 12 or 32] from one segment's frames."""
        peaks = segment.once(self.peaks)
        raw = activations(peaks.octaves, peaks.octaves, peaks.heights, self.centres)
        raw[~segment.once(sounding)] = 0.0
        return shares(raw).astype(np.float32)


class _Measures(AudioDescriptor):
    """Measures of the recurrence plot."""

    axis = "frame"
    width = 6
    units = "standard deviations"
    pooled = "A10c_level"

    measures: ClassVar[staticmethod[[Spectrum], DoubleArray]]

    def labels(self) -> tuple[str, ...]:
        """The measures."""
        return MEASURES

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 6] from one segment's frames."""
        values = segment.once(self.measures)
        moved = values - values[0]  # a column that never changes gives exact zeros
        moved -= moved.mean(axis=0)
        scored = moved / np.maximum(moved.std(axis=0, ddof=1), STD_FLOOR)
        scored[~segment.once(sounding)] = 0.0
        return scored.astype(np.float32)


@register
class A10a(_Periods):
    """Simple ratios between periods of the autocorrelation."""

    name = "A10a"
    version = 1
    cost = 2
    width = 12
    summary = "ratios of the 8 highest autocorrelation peaks, by nearness to 12 simple ratios"
    peaks = staticmethod(autocorrelation_peaks)
    centres = SIMPLE


@register
class A10b(_Periods):
    """Simple ratios between periods of the recurrence plot."""

    name = "A10b"
    version = 1
    cost = 2
    width = 12
    summary = "ratios of the 8 highest recurrence-rate peaks, by nearness to 12 simple ratios"
    peaks = staticmethod(recurrence_peaks)
    centres = SIMPLE


@register
class A10c(_Measures):
    """Recurrence quantification as the paper has it."""

    name = "A10c"
    version = 1
    cost = 2
    summary = "six measures of the recurrence plot, z-scored; DET and LAM near 1 by a mistake"
    measures = staticmethod(paper_measures)


@register
class A10d(_Periods):
    """Ratios between periods of the autocorrelation, anywhere in the octave."""

    name = "A10d"
    version = 1
    cost = 2.2
    width = 32
    summary = "ratios of the 8 highest autocorrelation peaks, in 32 even steps of an octave"
    peaks = staticmethod(autocorrelation_peaks)
    centres = EVEN


@register
class A10e(_Periods):
    """Ratios between periods of the recurrence plot, anywhere in the octave."""

    name = "A10e"
    version = 1
    cost = 2.1
    width = 32
    summary = "ratios of the 8 highest recurrence-rate peaks, in 32 even steps of an octave"
    peaks = staticmethod(recurrence_peaks)
    centres = EVEN


@register
class A10cs(_Measures):
    """Recurrence quantification with determinism and laminarity that work."""

    name = "A10cs"
    version = 1
    cost = 1.9
    summary = "A10c with DET and LAM as shares of points on diagonal and on vertical lines"
    measures = staticmethod(sound_measures)


@register
class A10cLevel(AudioDescriptor):
    """Recurrence quantification: what the z-score leaves out."""

    name = "A10c_level"
    version = 1
    cost = 1.9
    axis = "segment"
    width = 6
    units = "shares, points, nats, points"
    summary = (
        "means of A10cs' measures: stands for A10c, A10cs where one vector a segment is wanted"
    )

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [6] from one segment's frames."""
        total = segment.once(sound_measures).sum(axis=0)
        return (total / max(1, int(segment.once(sounding).sum()))).astype(np.float32)
