"""The log-mel front end against loops in float64 and against librosa's filters."""

from __future__ import annotations

import librosa
import numpy as np
import oracles
import pytest

from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.mel import MelConfig, filter_bank, hz_to_mel, mel_to_hz
from pipeline.spectral import Spectrum

SIGNALS = oracles.signals()


@pytest.mark.parametrize("name", SIGNALS)
def test_mel_is_its_definition(name: str) -> None:
    found = DESCRIPTORS.get("mel").extract(Spectrum(SIGNALS[name]))
    assert found.dtype == np.float32
    assert found.shape == (188, 96)
    np.testing.assert_allclose(found, oracles.mel(SIGNALS[name]), rtol=0, atol=1e-5)


def test_filters_are_slaneys() -> None:
    np.testing.assert_allclose(filter_bank(MelConfig()), oracles.slaney_filters(), atol=1e-12)


def test_filters_are_librosas() -> None:
    expected = librosa.filters.mel(sr=24_000, n_fft=2048, n_mels=96, fmin=30, fmax=8000)
    np.testing.assert_allclose(filter_bank(MelConfig()), expected, atol=1e-8)


def test_every_filter_has_weight_and_none_above_8_khz() -> None:
    bank = filter_bank(MelConfig())
    assert (bank.sum(axis=1) > 0).all()
    assert not bank[:, np.arange(1025) * 11.71875 >= 8000].any()


def test_the_scale_and_its_inverse_agree() -> None:
    hz = np.geomspace(1, 12_000, 200)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, rtol=1e-12)
    np.testing.assert_allclose(hz_to_mel([200.0, 1000.0, 6400.0]), [3.0, 15.0, 42.0])
