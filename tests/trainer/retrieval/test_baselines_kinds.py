"""What each baseline's features are, on sounds and notes whose features are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Notes
from pipeline.spectral import Spectrum
from trainer.retrieval.baselines import BASELINES
from trainer.retrieval.baselines.notes import sounding_levels

FRAME_S = 512 / 24_000


def make_notes(*rows):
    """Notes of (pitch, velocity, onset, duration)."""
    pitch, velocity, onset, duration = np.array(rows, float).T
    return Notes(
        pitch=pitch.astype(np.uint8),
        velocity=velocity.astype(np.uint8),
        duration_bucket=np.zeros(len(pitch), np.uint8),
        onset_s=onset.astype(np.float32),
        duration_s=duration.astype(np.float32),
    )


def hz(pitch):
    return 440 * 2 ** ((pitch - 69) / 12)


def tone(pitch, onset=0.0, decay=3.0):
    clock = np.arange(96_000) / 24_000 - onset
    envelope = np.where(clock >= 0, np.exp(-decay * np.maximum(clock, 0)), 0)
    return (0.5 * envelope * np.sin(2 * np.pi * hz(pitch) * clock)).astype(np.float32)


def audio(name, samples):
    return BASELINES.get(name).audio_features(Spectrum(samples))


def midi(name, *rows):
    return BASELINES.get(name).midi_features(make_notes(*rows))


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_levels_decay_and_fall_after_the_release():
    rows = [(60, 127, 0.5, 1.0), (64, 40, -0.7, 2.0), (20, 90, 3.9, 0.1)]
    found = sounding_levels(make_notes(*rows))
    for level, (_, velocity, onset, duration) in zip(found, rows, strict=True):
        for frame in range(188):
            age = frame * FRAME_S - onset
            expected = velocity / 127 * np.exp(-age / 0.5 - max(0, age - duration) / 0.1)
            heard = age >= 0 and expected >= 1e-3
            assert level[frame] == pytest.approx(expected if heard else 0, abs=1e-5)


@pytest.mark.parametrize("pitch", [21, 33, 60, 84, 108])
def test_constant_q_of_a_tone_is_largest_at_its_key(pitch):
    found = audio("cqt", tone(pitch, decay=0.0)).reshape(88, 188)
    assert np.argmax(found.mean(axis=1)) == pitch - 21
    assert found.min() >= 0


@pytest.mark.parametrize("frame", [40, 94, 150])
def test_constant_q_frames_are_centred_as_the_transforms_are(frame):
    """A click on sample 512 t is symmetric about frame t at every key."""
    click = np.zeros(96_000, np.float32)
    click[512 * frame] = 1
    energy = np.expm1(audio("cqt", click).reshape(88, 188).astype(float)) ** 2
    centre = (energy * np.arange(188)).sum(axis=1) / energy.sum(axis=1)
    np.testing.assert_allclose(centre, frame, atol=0.15)


def test_sounding_notes_have_harmonics_within_the_piano():
    roll = midi("cqt", (60, 127, 1.0, 1.0)).reshape(88, 188)
    level = sounding_levels(make_notes((60, 127, 1.0, 1.0)))[0]
    for above, share in ((0, 1), (12, 0.6), (19, 0.36), (24, 0.216)):
        np.testing.assert_allclose(roll[60 - 21 + above], share * level, atol=1e-6)
    assert np.flatnonzero(roll.any(axis=1)).tolist() == [39, 51, 58, 63]
    high = midi("cqt", (108, 127, 1.0, 1.0), (20, 127, 1.0, 1.0)).reshape(88, 188)
    assert np.flatnonzero(high.any(axis=1)).tolist() == [11, 18, 23, 87]


@pytest.mark.parametrize("pitch", [48, 60, 69, 83])
def test_chroma_of_a_tone_is_its_pitch_class(pitch):
    found = audio("chroma", tone(pitch, onset=1.0, decay=1.0)).reshape(188, 12)
    heard = found[50:]
    assert (heard.argmax(axis=1) == pitch % 12).all()
    norms = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(norms[50:], 1, atol=1e-5)
    assert not norms[:44].any()  # digital silence, but for the window that reaches the attack


def test_chroma_of_notes_knows_no_octave_and_no_loudness():
    low = midi("chroma", (40, 100, 0.5, 1.0), (47, 50, 0.7, 1.0))
    np.testing.assert_allclose(low, midi("chroma", (52, 100, 0.5, 1.0), (83, 50, 0.7, 1.0)))
    frames = low.reshape(188, 12)
    soft = midi("chroma", (40, 50, 0.5, 1.0), (47, 25, 0.7, 1.0)).reshape(188, 12)
    np.testing.assert_allclose(frames[:80], soft[:80], atol=1e-5)  # till the end is inaudible
    assert frames[30].argmax() == 40 % 12
    assert np.flatnonzero(frames.any(axis=0)).tolist() == [4, 11]
    assert set(np.round(np.linalg.norm(frames, axis=1), 5)) == {0, 1}


def test_warped_chroma_is_the_mean_of_four_frames():
    sound, notes = tone(57, onset=0.8), [(57, 90, 0.8, 2.0), (61, 90, 1.5, 0.3)]
    for fine, coarse in (
        (audio("chroma", sound), audio("chroma-dtw", sound)),
        (midi("chroma", *notes), midi("chroma-dtw", *notes)),
    ):
        expected = [fine.reshape(188, 12)[4 * t : 4 * t + 4].mean(axis=0) for t in range(47)]
        np.testing.assert_allclose(coarse.reshape(47, 12), expected, atol=1e-6)


def test_energy_changes_are_a4_without_its_bands():
    sound = tone(62, onset=2.0)
    found = audio("a4", sound)
    expected = DESCRIPTORS.get("A4").extract(Spectrum(sound)).mean(axis=1)
    np.testing.assert_allclose(found, expected - expected.mean(), atol=1e-6)
    assert np.argmax(found) * FRAME_S == pytest.approx(2.0, abs=2.5 * FRAME_S)


def test_a_curve_of_onsets_knows_no_pitch():
    curve = midi("a4", (60, 127, 50 * FRAME_S, 1.0), (30, 64, 2.0, 0.2))
    np.testing.assert_array_equal(curve, midi("a4", (1, 127, 50 * FRAME_S, 3.0), (99, 64, 2.0, 1)))
    assert curve.mean() == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(
        curve[45:56] - curve[0], np.maximum(0, 1 - np.abs(np.arange(-5, 6)) / 4), atol=1e-4
    )


def test_register_knows_no_time():
    early = [(60, 100, 0.5, 1.0), (64, 80, 0.9, 1.0), (43, 60, 1.4, 0.5)]
    late = [(p, v, t + 1.7, d) for p, v, t, d in early]
    np.testing.assert_allclose(midi("register", *early), midi("register", *late), atol=1e-6)
    sounds = [sum(tone(p, t, 6.0) for p, _, t, _ in notes) / 3 for notes in (early, late)]
    one, two = (audio("register", s.astype(np.float32)) for s in sounds)
    assert cosine(one, two) > 0.95
    higher = [(p + 6, v, t, d) for p, v, t, d in early]
    assert cosine(one, midi("register", *early)) > cosine(one, midi("register", *higher)) + 0.3


def test_register_counts_attacks_as_ratios():
    def density(n, chord=1):
        at = np.linspace(0.1, 3.9, n)
        vector = midi("register", *[(50 + k, 90, t, 0.1) for t in at for k in range(chord)])
        return vector[88:]

    assert np.linalg.norm(density(8)) == pytest.approx(0.5, abs=1e-5)
    assert cosine(density(8), density(8, chord=3)) == pytest.approx(1, abs=1e-5)
    assert cosine(density(8), density(16)) == pytest.approx(0.13, abs=0.01)
    assert cosine(density(20), density(22)) == pytest.approx(0.96, abs=0.01)
    assert np.linalg.norm(midi("register", (60, 99, -0.5, 2.0))) == 0  # nothing begins
    found = np.argmax(midi("register", (60, 99, 1.0, 1.0))[:88])
    assert found == 60 - 21


def test_register_of_equal_strength_everywhere_is_nothing():
    """What all pitches have alike is the floor that is taken away."""
    notes = make_notes(*[(p, 64, 0.04 * (p - 21), 0.1) for p in range(21, 109)])
    vector = BASELINES.get("register").midi_features(notes)
    assert not vector[:88].any()
    quiet = dataclasses.replace(notes, velocity=np.full(88, 1, np.uint8))
    np.testing.assert_array_equal(BASELINES.get("register").midi_features(quiet), vector)
