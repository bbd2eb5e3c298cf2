"""Galleries and a store to score, made of numbers only."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.descriptors.contract import Notes
from trainer.retrieval.gallery import Gallery


def build_gallery(per_recording, composers, compositions, *, valid=None, first_segment=0):
    """A gallery at 1-s hop: one entry of each list per recording."""
    recording = np.repeat(np.arange(len(per_recording)), per_recording)
    start = np.concatenate([np.arange(n, dtype=float) for n in per_recording])
    n = len(recording)
    return Gallery.from_columns(
        split="validation",
        segment=np.arange(n) + first_segment,
        recording=recording,
        composer=[f"composer {composers[r]}" for r in recording],
        composition=[f"work {compositions[r]}" for r in recording],
        start_s=start,
        valid=np.ones(n, bool) if valid is None else valid,
    )


@pytest.fixture
def make_gallery():
    return build_gallery


@pytest.fixture
def medium_gallery():
    """24 recordings of 30–76 segments, 5 composers, 16 compositions; every 17th segment invalid."""
    per = [30 + 2 * r for r in range(24)]
    n = sum(per)
    valid = np.arange(n) % 17 != 3
    return build_gallery(
        per, [r % 5 for r in range(24)], [r % 16 for r in range(24)], valid=valid, first_segment=900
    )


class FakeStore:
    """What the trainer asks of an open store, held in memory."""

    name = "fake-0123456789ab"

    def __init__(self, timeline, segments, recordings, notes):
        self.timeline, self.segments, self.recordings = timeline, segments, recordings
        self._notes = notes
        self.reads = []

    def read(self, name, start=0, stop=None):
        assert name == "audio"
        self.reads.append((start, stop))
        return self.timeline[start:stop]

    def notes(self, start=0, stop=None):
        return self._notes.rows(start, stop)


def synthetic_store(n_recordings=6, seconds=24, seed=5):
    """Decaying sines at random piano keys, rendered by numpy, with the notes that made them.

    Even recordings are ``test``, odd ones ``train``; the last segment of recording 0 has no notes.
    """
    rng = np.random.default_rng(seed)
    rate, timeline, tables, notes = 24_000, [], [], []
    count = seconds - 3
    for recording in range(n_recordings):
        sound = np.zeros(seconds * rate)
        onset = np.sort(rng.uniform(0.1, seconds - (4.5 if recording == 0 else 0.5), 6 * seconds))
        pitch = rng.integers(40, 90, len(onset))
        velocity = rng.integers(30, 120, len(onset))
        for t, p, v in zip(onset, pitch, velocity, strict=True):
            at = int(t * rate)
            length = min(int(0.4 * rate), len(sound) - at)
            clock = np.arange(length) / rate
            tone = np.sin(2 * np.pi * 440 * 2 ** ((p - 69) / 12) * clock) * np.exp(-8 * clock)
            sound[at : at + length] += v / 127 * tone * np.minimum(1, clock / 0.003)
        timeline.append(np.round(sound / np.abs(sound).max() * 20_000).astype(np.int16))
        for start in range(count):
            inside = (onset < start + 4) & (onset + 0.4 > start)
            if recording == 0 and start == count - 1:
                inside[:] = False
            rows = [(p, v, t - start) for p, v, t in zip(pitch, velocity, onset, strict=True)]
            rows = [row for row, keep in zip(rows, inside, strict=True) if keep]
            tables.append((recording, start, len(notes), len(rows)))
            notes += rows
    recording, start, note_start, note_count = np.array(tables).T
    split = np.array(["train" if r % 2 else "test" for r in recording], object)
    segments = SimpleNamespace(
        recording=recording.astype(np.int32),
        split=split,
        start_s=start.astype(float),
        audio_start=(recording * seconds + start) * rate,
        note_start=note_start,
        note_count=note_count,
        valid=note_count > 0,
    )
    recordings = SimpleNamespace(
        composer=np.array([f"composer {r % 2}" for r in range(n_recordings)], object),
        composition=np.array([f"work {r}" for r in range(n_recordings)], object),
        key=np.array([f"recording {r}" for r in range(n_recordings)], object),
    )
    pitch, velocity, onset = np.array(notes).T
    table = Notes(
        pitch=pitch.astype(np.uint8),
        velocity=velocity.astype(np.uint8),
        duration_bucket=np.zeros(len(pitch), np.uint8),
        onset_s=onset.astype(np.float32),
        duration_s=np.full(len(pitch), 0.4, np.float32),
    )
    return FakeStore(np.concatenate(timeline), segments, recordings, table)


@pytest.fixture(scope="session")
def fake_store():
    return synthetic_store()
