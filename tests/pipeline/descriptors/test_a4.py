"""A4 against loops in float64, its bands, its normalisation, and its rounding in the store."""

from __future__ import annotations

import itertools

import numpy as np
import oracles
import pytest

from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.a4 import BAND_EDGES, band_levels, octave_dynamics
from pipeline.spectral import Spectrum
from pipeline.store import Store

SIGNALS = oracles.signals()
A4 = DESCRIPTORS.get("A4")


@pytest.mark.parametrize("name", SIGNALS)
def test_a4_is_its_definition(name: str) -> None:
    samples = SIGNALS[name]
    found = A4.extract(Spectrum(samples))
    assert found.dtype == np.float32
    assert found.shape == (188, 8)
    np.testing.assert_allclose(found, oracles.a4(samples), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", SIGNALS)
def test_band_levels_are_means_of_log_magnitudes(name: str) -> None:
    found = band_levels(Spectrum(SIGNALS[name]))
    np.testing.assert_allclose(found.T, oracles.a4_levels(SIGNALS[name]), rtol=0, atol=1e-7)


def test_bands_tile_bins_4_to_1025_in_octaves() -> None:
    covered = [k for lo, hi in itertools.pairwise(BAND_EDGES) for k in range(lo, hi)]
    assert covered == list(range(4, 1025))
    assert [hi / lo for lo, hi in itertools.pairwise(BAND_EDGES[:-1])] == [2.0] * 7
    assert list(itertools.pairwise(BAND_EDGES)) == list(oracles.OCTAVES)


def test_z_score_has_mean_0_and_unbiased_deviation_1() -> None:
    found = A4.extract(Spectrum(SIGNALS["noise"])).astype(np.float64)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=0, ddof=1), 1, atol=1e-6)
    assert np.abs(found.std(axis=0, ddof=0) - 1).min() > 1e-3


def test_the_padded_first_frame_takes_part() -> None:
    levels = np.cumsum(np.ones((8, 188)), axis=1)  # every change is 1 but the first, which is 0
    change = np.r_[0.0, np.ones(187)]
    expected = (change - change.mean()) / change.std(ddof=1)
    np.testing.assert_allclose(octave_dynamics(levels)[:, 0], expected, rtol=1e-6)


def test_silence_gives_zeros() -> None:
    assert not A4.extract(Spectrum(SIGNALS["silence"])).any()


def test_the_store_holds_the_kernels_output_rounded_to_float16(tiny_store: Store) -> None:
    audio, stored = tiny_store.read("audio"), tiny_store.read("A4")
    for row, start in enumerate(tiny_store.segments.audio_start):
        samples = audio[start : start + 96_000].astype(np.float32) / np.float32(32768)
        kernel = A4.extract(Spectrum(samples))
        np.testing.assert_array_equal(stored[row], kernel.astype(np.float16))
        np.testing.assert_allclose(kernel, oracles.a4(samples), rtol=0, atol=2e-6)
