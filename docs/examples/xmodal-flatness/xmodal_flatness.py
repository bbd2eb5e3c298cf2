"""flatness: how much like noise each frame sounds.

Definition, on the magnitude spectrogram M of one segment (`pipeline.spectral`): geometric by
arithmetic mean of ``M² + 1e-10`` over the 1,025 bins, frame by frame. About 0.56 in white noise, near
0 in a tone; frames without sound (no bin above 1e-4) give 0. Output float32 [188, 1].
"""

import numpy as np

from pipeline.descriptors import AudioDescriptor, register
from pipeline.spectral import Spectrum


@register
class Flatness(AudioDescriptor):
    """Spectral flatness."""

    name = "flatness"
    version = 1
    axis = "frame"
    width = 1
    units = "ratio"
    summary = "spectral flatness: 0 in a tone, 0.56 in white noise"

    def extract(self, segment: Spectrum) -> np.ndarray:
        """float32 [188, 1] from one segment's spectrum."""
        power = segment.magnitude.astype(np.float64) ** 2 + 1e-10
        flatness = np.exp(np.log(power).mean(axis=0)) / power.mean(axis=0)
        flatness[segment.magnitude.max(axis=0) <= 1e-4] = 0.0
        return flatness.astype(np.float32)[:, None]
