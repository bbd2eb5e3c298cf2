"""The flux floor: what its features are, and that it retrieves what numpy made."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.base.errors import ConfigError
from pipeline.descriptors.contract import Notes
from trainer.retrieval import baselines
from trainer.retrieval.baselines import BASELINES, embed_baseline, semitone_bands
from trainer.retrieval.evaluate import evaluate_embeddings
from trainer.retrieval.gallery import Gallery, RetrievalError

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


def test_silence_is_zero():
    assert not BASELINES.get("flux").audio_features(np.zeros(96_000, np.float32)).any()


@pytest.mark.parametrize("pitch", [33, 48, 60, 77, 96])
def test_the_flux_of_a_tone_peaks_at_its_pitch_and_onset(pitch):
    sound = tone(pitch, onset=1.5).astype(np.float32)
    flux = BASELINES.get("flux").audio_features(sound).reshape(88, 188)
    assert (flux >= 0).all()
    assert not flux[:, 0].any()
    band = flux[pitch - 21]
    peak = np.argmax(band) * FRAME_S
    assert peak == pytest.approx(1.5, abs=2.5 * FRAME_S)  # an attack without a room: no delay
    assert abs(int(np.argmax(flux.sum(axis=1))) + 21 - pitch) <= (2 if pitch < 40 else 1)


def test_flux_retrieves_synthetic_music(fake_store):
    audio, midi = embed_baseline("flux", fake_store, "test")
    gallery = Gallery.from_store(fake_store, "test")
    assert audio.shape == midi.shape == (len(gallery), 88 * 188)
    assert audio.dtype == midi.dtype == np.float16
    record = evaluate_embeddings(audio, midi, gallery, "strict", pool_size=32)
    assert record["a2m"]["R@1"] > 0.95
    assert record["m2a"]["R@1"] > 0.95
    wrong = evaluate_embeddings(audio, midi[::-1], gallery, "strict", pool_size=32)
    assert wrong["a2m"]["R@1"] < 0.2


def test_rows_are_those_of_the_gallery(fake_store, monkeypatch):
    """Any block size reads the same rows; each row is its own segment, scaled to peak 1."""
    audio, midi = embed_baseline("flux", fake_store, "test")
    monkeypatch.setattr(baselines, "READ_BLOCK", 5)
    calls = []
    again = embed_baseline("flux", fake_store, "test", lambda done, total: calls.append(done))
    assert np.array_equal(audio, again[0])
    assert np.array_equal(midi, again[1])
    assert calls[-1] == len(audio)
    flux, segments = BASELINES.get("flux"), fake_store.segments
    for row, segment in list(enumerate(np.flatnonzero(segments.split == "test")))[::7]:
        start = segments.audio_start[segment]
        samples = fake_store.timeline[start : start + 96_000].astype(np.float32) / 32768
        features = flux.audio_features(samples)
        np.testing.assert_allclose(audio[row], features / features.max(), atol=1e-3)
        first = segments.note_start[segment]
        notes = fake_store.notes(first, first + segments.note_count[segment])
        features = flux.midi_features(notes)
        peak = features.max() or 1.0
        np.testing.assert_allclose(midi[row], features / peak, atol=1e-3)


def test_wrong_names_are_refused(fake_store):
    with pytest.raises(ConfigError, match="unknown baseline 'fluxx': did you mean 'flux'"):
        embed_baseline("fluxx", fake_store, "test")
    with pytest.raises(RetrievalError, match="no segments"):
        embed_baseline("flux", fake_store, "validation")
