"""The STFT against an independent float64 one."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

from pipeline import spectral
from pipeline.spectral import Spectrum, Workspace

SIGNALS = oracles.signals()


@pytest.mark.parametrize("name", SIGNALS)
def test_magnitude_is_the_float64_transform(name: str) -> None:
    samples = SIGNALS[name]
    found = Spectrum(samples).magnitude
    expected = oracles.magnitude(samples)
    assert found.dtype == np.float32
    assert found.shape == (1025, 188)
    # float32 rounding of a transform: relative to its largest value
    assert np.abs(found.T - expected).max() <= 3e-7 * max(1e-3, expected.max())


def test_edges_are_reflected_without_repeating_the_edge_sample() -> None:
    samples = np.random.default_rng(0).standard_normal(96_000).astype(np.float32)
    padded = np.pad(samples, 1024, mode="reflect")
    for t in (0, 1, 2, 185, 186, 187):
        frame = padded[t * 512 : t * 512 + 2048].astype(np.float64)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
        expected = np.abs(np.fft.rfft(frame * window))
        np.testing.assert_allclose(Spectrum(samples).magnitude[:, t], expected, atol=2e-5)


def test_hops_hold_every_sample_of_every_frame() -> None:
    samples = SIGNALS["noise"]
    padded = np.pad(samples, 1024, mode="reflect")
    hops = Spectrum(samples).hops
    for t in (0, 1, 100, 187):
        frame = np.concatenate([hops[:, t + q] for q in range(4)])
        np.testing.assert_array_equal(frame, padded[t * 512 : t * 512 + 2048])


def test_what_is_shared_is_made_once_a_segment() -> None:
    made: list[Spectrum] = []
    segment, other = Spectrum(SIGNALS["noise"]), Spectrum(SIGNALS["noise"])

    def share(spectrum: Spectrum) -> int:
        made.append(spectrum)
        return len(made)

    assert [segment.once(share), segment.once(share), other.once(share)] == [1, 1, 2]
    assert made == [segment, other]


def test_there_are_188_frames_of_1025_bins() -> None:
    assert (spectral.N_FRAMES, spectral.N_BINS) == (188, 1025)
    assert spectral.BIN_HZ == 11.71875
    np.testing.assert_array_equal(spectral.bin_hz()[[0, 1, 1024]], [0.0, 11.71875, 12_000.0])


def test_a_workspace_changes_no_bit() -> None:
    work = Workspace()
    for samples in list(SIGNALS.values())[:5]:
        alone = Spectrum(samples).magnitude
        np.testing.assert_array_equal(Spectrum(samples, work).magnitude, alone)


@pytest.mark.parametrize(
    "wrong", [np.zeros(95_999, np.float32), np.zeros(96_000), np.zeros((2, 48_000), np.float32)]
)
def test_a_segment_of_another_shape_or_type_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a segment is float32"):
        Spectrum(wrong)
