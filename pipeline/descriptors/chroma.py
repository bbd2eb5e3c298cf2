"""A8, A8s: chroma of the sound, weighted by onsets (method §2.3, §9.4).

Definition, on the magnitude spectrogram M of one segment (`pipeline.spectral`):

1. Chroma ``c_p(t)``: sum of M over the bins of at least 30 Hz (3 … 1024) whose pitch class
   ``round(12 · log2(f / 32.7)) mod 12`` is p; class 0 is C.
2. Onset gate ``φ(t) = Σ_k max(0, M_k(t) - M_k(t-1))`` over all 1,025 bins, ``φ(0) = 0``, divided by
   its maximum in the segment (at least 1e-8).
3. ``A8``: ``φ(t) c(t)``, each frame divided by its sum (at least 1e-8). The division takes the gate
   out again: A8 is plain chroma except where φ is 0, as in frame 0 (§9.4).
   ``A8s``: ``φ(t)`` times the chroma divided by its sum (at least 1e-8): a frame sums to its gate.

Output float32 [188, 12]; shares of a frame, and in A8s shares of the loudest onset. Silence gives
zeros.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline.base.jit import kernel
from pipeline.descriptors.contract import AudioDescriptor, FloatArray, register
from pipeline.spectral import N_FRAMES, Spectrum, bin_hz

PITCH_CLASSES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
LOWEST_HZ, REFERENCE_HZ, FLOOR = 30.0, 32.7, 1e-8


class _Chroma(AudioDescriptor):
    """What both have in common."""

    axis = "frame"
    width = 12

    def labels(self) -> tuple[str, ...]:
        """The pitch classes."""
        return PITCH_CLASSES


@register
class A8(_Chroma):
    """Onset-weighted chroma as the paper has it."""

    name = "A8"
    version = 1
    cost = 0.79
    units = "share of the frame"
    summary = "chroma times spectral flux, then normalised: the gate cancels but where it is 0"

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 12] from one segment's spectrum."""
        chroma, gate = chroma_and_gate(segment)
        return _shares(chroma * gate[:, None])


@register
class A8s(_Chroma):
    """Onset-weighted chroma whose gate survives."""

    name = "A8s"
    version = 1
    cost = 0.79
    units = "share of the loudest onset"
    summary = "normalised chroma times spectral flux: what sounds when something begins"

    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 [188, 12] from one segment's spectrum."""
        chroma, gate = chroma_and_gate(segment)
        return _shares(chroma) * gate[:, None].astype(np.float32)


def chroma_and_gate(
    segment: Spectrum,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums per pitch class [188, 12], and the onset gate [188] in 0…1, both float64."""
    chroma, flux = np.zeros((12, N_FRAMES)), np.zeros(N_FRAMES)
    _sum_classes(segment.magnitude, _pitch_classes(), chroma, flux)
    return chroma.T, flux / max(flux.max(), FLOOR)


def _shares(values: npt.NDArray[np.float64]) -> FloatArray:
    total = np.maximum(values.sum(axis=1, keepdims=True), FLOOR)
    return (values / total).astype(np.float32)


@cache
def _pitch_classes() -> npt.NDArray[np.int64]:
    """Class of every bin, -1 below 30 Hz: int64 [1025]."""
    hz = bin_hz()
    audible = hz >= LOWEST_HZ
    classes = np.full(len(hz), -1)
    classes[audible] = np.rint(12.0 * np.log2(hz[audible] / REFERENCE_HZ)).astype(np.int64) % 12
    return classes


@kernel
def _sum_classes(magnitude, classes, chroma, flux):  # type: ignore[no-untyped-def]
    """Add bin after bin to its class's row, and its rises to the flux."""
    n_frames = flux.shape[0]
    for k in range(magnitude.shape[0]):
        for t in range(1, n_frames):
            flux[t] += max(np.float32(0.0), magnitude[k, t] - magnitude[k, t - 1])
        if classes[k] >= 0:
            p = classes[k]
            for t in range(n_frames):
                chroma[p, t] += magnitude[k, t]
