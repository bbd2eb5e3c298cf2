"""Every descriptor on real recordings, as the store keeps it, against float64 loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import build_quietly, corpus_of
from oracles_by_name import NOTES, SOUND

from pipeline.descriptors import DESCRIPTORS
from pipeline.spectral import Spectrum
from pipeline.store import Store

EVERY = 120  # segments of the store that are compared


def test_none_is_forgotten() -> None:
    known = {n for n, d in DESCRIPTORS.items() if type(d).__module__.startswith("pipeline.")}
    assert set(SOUND) | set(NOTES) == known


@pytest.fixture(scope="module")
def store(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    corpus = corpus_of(real_data / "maps-metadata.csv", name="maps")
    names = (*SOUND, *NOTES)
    return build_quietly(corpus, tmp_path_factory.mktemp("real"), descriptors=names).store


@pytest.mark.full
def test_real_recordings_agree_with_float64(store: Store) -> None:
    found: dict[str, list[np.ndarray]] = {n: [] for n in (*SOUND, *NOTES)}
    wanted: dict[str, list[np.ndarray]] = {n: [] for n in found}
    for segment in range(0, len(store.segments), EVERY):
        for name, kernel, expected in compared(store, segment):
            rounded = kernel.astype(np.float16)
            np.testing.assert_array_equal(stored(store, name, segment), rounded, err_msg=name)
            found[name].append(kernel.ravel().astype(float))
            wanted[name].append(np.asarray(expected, float).ravel())
    assert len(found["A4"]) >= 15
    for name, values in found.items():
        mine, theirs = np.concatenate(values), np.concatenate(wanted[name])
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-5, err_msg=name)
        assert np.corrcoef(mine, theirs)[0, 1] > 0.9999, name


def compared(store: Store, segment: int) -> list[tuple[str, np.ndarray, Any]]:
    at = int(store.segments.audio_start[segment])
    samples = store.read("audio", at, at + 96_000).astype(np.float32) / np.float32(32768)
    spectrum = Spectrum(samples)
    first = int(store.segments.note_start[segment])
    notes = store.notes(first, first + int(store.segments.note_count[segment]))
    heard = [(n, DESCRIPTORS.get(n).extract(spectrum), f(samples)) for n, f in SOUND.items()]
    return heard + [(n, DESCRIPTORS.get(n).extract(notes), f(notes)) for n, f in NOTES.items()]


def stored(store: Store, name: str, segment: int) -> np.ndarray:
    if DESCRIPTORS.get(name).axis != "note":
        return store.read(name, segment, segment + 1)[0]
    first = int(store.segments.note_start[segment])
    return store.read(name, first, first + int(store.segments.note_count[segment]))
