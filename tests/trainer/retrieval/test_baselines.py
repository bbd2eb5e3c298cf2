"""Baselines together: what a split's features are, and that each retrieves what numpy made."""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.base.errors import ConfigError, MissingExtra
from pipeline.descriptors.contract import Notes
from pipeline.spectral import Spectrum
from trainer.retrieval.baselines import (
    BASELINES,
    chroma,
    embed_baseline,
    embed_baselines,
    embedding,
    reading,
)
from trainer.retrieval.evaluate import evaluate_embeddings, score_similarities
from trainer.retrieval.gallery import Gallery, RetrievalError

NAMES = ("flux", "cqt", "chroma", "chroma-dtw", "a4", "register")
# Chance is 1/16.
LEAST = {"flux": 0.95, "cqt": 0.95, "chroma": 0.95, "chroma-dtw": 0.9, "a4": 0.7, "register": 0.75}

NO_NOTES = Notes(
    pitch=np.zeros(0, np.uint8),
    velocity=np.zeros(0, np.uint8),
    duration_bucket=np.zeros(0, np.uint8),
    onset_s=np.zeros(0, np.float32),
    duration_s=np.zeros(0, np.float32),
)


def with_split(store, name, rows):
    """The same store, where these segments are of another split."""
    changed = copy.copy(store)
    split = store.segments.split.copy()
    split[rows] = name
    changed.segments = SimpleNamespace(**{**vars(store.segments), "split": split})
    return changed


@pytest.fixture(scope="module")
def half(fake_store):
    """A split ``half``: every other segment of the test split, 32 in all."""
    return with_split(fake_store, "half", np.flatnonzero(fake_store.segments.split == "test")[::2])


@pytest.fixture(scope="module")
def features(half):
    """All baselines' features of ``half``, by name."""
    return embed_baselines(NAMES, half, "half")


@pytest.fixture
def few(fake_store):
    """A split ``few`` of six segments of two recordings."""
    return with_split(fake_store, "few", [3, 4, 5, 20, 42, 43])


def test_the_registry_lists_them_in_this_order():
    assert tuple(BASELINES.names()) == NAMES
    for name, baseline in BASELINES.items():
        assert baseline.name == name
        assert baseline.summary
        assert baseline.version >= 1


@pytest.mark.parametrize("name", NAMES)
def test_each_retrieves_synthetic_music(half, features, name):
    audio, midi = features[name]
    gallery = Gallery.from_store(half, "half")
    assert audio.shape == midi.shape == (len(gallery), BASELINES.get(name).width)
    assert audio.dtype == midi.dtype == np.float16
    assert np.isfinite(audio).all()
    assert np.isfinite(midi).all()
    similarities = BASELINES.get(name).similarities(audio, midi)
    record = score_similarities(*similarities, gallery, "strict", pool_size=16).record()
    assert record["a2m"]["R@1"] > LEAST[name]
    assert record["m2a"]["R@1"] > LEAST[name]
    wrong = BASELINES.get(name).similarities(audio, midi[::-1])
    record = score_similarities(*wrong, gallery, "strict", pool_size=16).record()
    assert record["a2m"]["R@1"] < 0.2


@pytest.mark.parametrize("name", NAMES)
def test_silence_and_no_notes_are_zero_and_like_nothing(features, name):
    baseline = BASELINES.get(name)
    quiet = baseline.audio_features(Spectrum(np.zeros(96_000, np.float32)))
    empty = baseline.midi_features(NO_NOTES)
    for vector in (quiet, empty):
        assert vector.shape == (baseline.width,)
        assert vector.dtype == np.float32
        assert not vector.any()
    audio, midi = (side[:3].copy() for side in features[name])
    audio[1], midi[1] = quiet, empty
    for similarity in baseline.similarities(audio, midi):
        found = similarity.rows(np.arange(3))
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found[1], 0, atol=1e-6)
        np.testing.assert_allclose(found[:, 1], 0, atol=1e-6)
        assert (np.diag(found)[[0, 2]] > 0.05).all()


def test_one_pass_is_every_baseline_alone(few):
    together = embed_baselines(NAMES, few, "few")
    for name in NAMES:
        alone = embed_baseline(name, few, "few")
        for mine, shared in zip(alone, together[name], strict=True):
            assert mine.tobytes() == shared.tobytes()


def test_rows_are_those_of_the_gallery(fake_store, monkeypatch):
    """Any block size reads the same rows; each row is its own segment, scaled to a peak of 1."""
    names = ("flux", "a4")
    found = embed_baselines(names, fake_store, "test")
    monkeypatch.setattr(reading, "READ_BLOCK", 5)
    monkeypatch.setattr(embedding, "REPORT_EVERY", 10)
    calls = []
    again = embed_baselines(names, fake_store, "test", lambda *done: calls.append(done))
    for name in names:
        for side in (0, 1):
            assert np.array_equal(found[name][side], again[name][side])
    n = len(found["flux"][0])
    assert calls == [(done, n) for done in [*range(10, n, 10), n]]
    segments = fake_store.segments
    for row, segment in list(enumerate(np.flatnonzero(segments.split == "test")))[::7]:
        start = segments.audio_start[segment]
        samples = fake_store.timeline[start : start + 96_000].astype(np.float32) / 32768
        first = segments.note_start[segment]
        notes = fake_store.notes(first, first + segments.note_count[segment])
        for name in names:
            baseline = BASELINES.get(name)
            sides = baseline.audio_features(Spectrum(samples)), baseline.midi_features(notes)
            for mine, vector in zip(found[name], sides, strict=True):
                peak = np.abs(vector).max() or 1.0
                np.testing.assert_allclose(mine[row], vector / peak, atol=1e-3)
                assert np.abs(mine[row]).max() in (0, 1)


def test_the_cosine_of_the_default_is_that_of_embeddings(half, features):
    """A baseline without an own measure scores as its features do."""
    gallery = Gallery.from_store(half, "half")
    for name in ("flux", "register"):
        audio, midi = features[name]
        expected = evaluate_embeddings(audio, midi, gallery, "strict", pool_size=16)
        pair = BASELINES.get(name).similarities(audio, midi)
        record = score_similarities(*pair, gallery, "strict", pool_size=16).record()
        assert record["a2m"] == expected["a2m"]
        assert record["m2a"] == expected["m2a"]


def test_wrong_names_are_refused(fake_store):
    with pytest.raises(ConfigError, match="unknown baseline 'fluxx': did you mean 'flux'"):
        embed_baseline("fluxx", fake_store, "test")
    with pytest.raises(ConfigError, match="unknown baseline 'chrome'"):
        embed_baselines(["flux", "chrome"], fake_store, "test")
    with pytest.raises(RetrievalError, match="no segments"):
        embed_baseline("flux", fake_store, "validation")


@pytest.mark.parametrize("name", ["cqt", "chroma", "chroma-dtw"])
def test_without_librosa_the_extra_is_named(few, monkeypatch, name):
    chroma._filter_bank.cache_clear()
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(MissingExtra, match=r"librosa.*xmodal\[features\]"):
        embed_baseline(name, few, "few")
    embed_baseline("flux", few, "few")
