"""The flux floor: what its features are."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.descriptors.contract import Notes
from pipeline.spectral import Spectrum
from trainer.retrieval.baselines import BASELINES
from trainer.retrieval.baselines.flux import semitone_bands

FRAME_S = 512 / 24_000


def make_notes(*rows):
    pitch, velocity, onset = np.array(rows or np.empty((0, 3)), float).reshape(-1, 3).T
    return Notes(
        pitch=pitch.astype(np.uint8),
        velocity=velocity.astype(np.uint8),
        duration_bucket=np.zeros(len(pitch), np.uint8),
        onset_s=onset.astype(np.float32),
        duration_s=np.ones(len(pitch), np.float32),
    )


def roll_of(*rows):
    return BASELINES.get("flux").midi_features(make_notes(*rows)).reshape(88, 188)


def tone(pitch, onset, length=96_000):
    clock = np.arange(length) / 24_000 - onset
    envelope = np.where(clock >= 0, np.exp(-6 * np.maximum(clock, 0)), 0)
    return 0.5 * envelope * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * clock)


def test_bands_interpolate_the_spectrum():
    """A spectrum that grows linearly with frequency reads the pitch's own frequency."""
    hz = np.arange(1025) * 24_000 / 2048
    for pitch, (first, weights) in zip(range(21, 109), semitone_bands(), strict=True):
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        assert weights.sum() == pytest.approx(1, abs=1e-6)
        assert weights.min() > 0
        read = weights @ hz[first : first + len(weights)]
        assert read == pytest.approx(frequency, rel=0.02)
    assert len(semitone_bands()[0][1]) == 2  # A0 lies between two bins


def test_a_note_is_a_triangle_behind_its_onset():
    roll = roll_of((60, 127, 50 * FRAME_S))
    expected = np.zeros((88, 188))
    expected[60 - 21, 49:54] = [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]
    np.testing.assert_allclose(roll, expected, atol=1e-4)


def test_notes_add_and_weigh_by_velocity():
    one, two = (64, 100, 1.0), (64, 50, 1.03)
    np.testing.assert_allclose(roll_of(one, two), roll_of(one) + roll_of(two), atol=1e-6)
    np.testing.assert_allclose(roll_of((64, 50, 1.0)), roll_of(one) / 2, atol=1e-6)
    assert roll_of(one).sum() == pytest.approx(3 * 100 / 127, rel=1e-3)


def test_what_lies_outside_leaves_nothing():
    assert roll_of((20, 90, 1.0), (109, 90, 1.0), (60, 90, -1.0), (60, 90, 4.2)).sum() == 0
    assert roll_of().sum() == 0
    assert 0 < roll_of((60, 127, -0.02)).sum() < 3  # an attack that reaches into the window
    assert 0 < roll_of((108, 127, 3.99)).sum() < 3


@pytest.mark.parametrize("pitch", [33, 48, 60, 77, 96])
def test_the_flux_of_a_tone_peaks_at_its_pitch_and_onset(pitch):
    sound = tone(pitch, onset=1.5).astype(np.float32)
    flux = BASELINES.get("flux").audio_features(Spectrum(sound)).reshape(88, 188)
    assert (flux >= 0).all()
    assert not flux[:, 0].any()
    band = flux[pitch - 21]
    peak = np.argmax(band) * FRAME_S
    assert peak == pytest.approx(1.5, abs=2.5 * FRAME_S)  # an attack without a room: no delay
    assert abs(int(np.argmax(flux.sum(axis=1))) + 21 - pitch) <= (2 if pitch < 40 else 1)
