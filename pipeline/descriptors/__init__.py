"""Descriptors: one file each, one line here each. Knows neither Dask nor Zarr."""

from pipeline.descriptors.contract import (
    DESCRIPTORS,
    AudioDescriptor,
    Descriptor,
    MidiDescriptor,
    Notes,
    register,
)

# One line per file; the order is the order of every listing.
from pipeline.descriptors import mel  # noqa: F401  isort: skip
from pipeline.descriptors import a4  # noqa: F401  isort: skip
from pipeline.descriptors import attractors  # noqa: F401  isort: skip
from pipeline.descriptors import chroma  # noqa: F401  isort: skip
from pipeline.descriptors import recurrence  # noqa: F401  isort: skip
from pipeline.descriptors import histograms  # noqa: F401  isort: skip
from pipeline.descriptors import d4  # noqa: F401  isort: skip
from pipeline.descriptors import contour  # noqa: F401  isort: skip

__all__ = ["DESCRIPTORS", "AudioDescriptor", "Descriptor", "MidiDescriptor", "Notes", "register"]
