"""The real recordings at hand, end to end."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import oracles
import pytest
import soundfile
from makers import features

from pipeline.corpora.recordings import load_table
from pipeline.descriptors import DESCRIPTORS
from pipeline.midi import read_performance
from pipeline.plan import fingerprint_inputs
from pipeline.spectral import Spectrum
from pipeline.store import Store
from pipeline.store.schema import Segmentation

pytestmark = pytest.mark.full


def test_maps_builds_and_holds_what_it_should(real_data: Path, tmp_path: Path) -> None:
    table = real_data / "maps-metadata.csv"
    found = features("build", "--corpus", table, "--out", tmp_path, "--workers", 2, "--json")
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout)
    assert (answer["recordings"], answer["segments"], answer["status"]) == (48, 2164, "complete")
    store = Store.open(answer["store"])
    assert features("verify", store.path).returncode == 0
    assert not list(store.path.rglob("*.partial"))
    segments_are_their_definition(store)
    note_rows_are_found_by_exhaustive_search(store, real_data)


def segments_are_their_definition(store: Store) -> None:
    audio, a4, d4 = (store.read(n) for n in ("audio", "A4", "D4"))
    segments, notes = store.segments, store.notes()
    for row in np.random.default_rng(0).choice(len(segments), 12, replace=False):
        start = segments.audio_start[row]
        samples = audio[start : start + 96_000].astype(np.float32) / np.float32(32768)
        kernel = DESCRIPTORS.get("A4").extract(Spectrum(samples))
        # Recordings of 16 kHz have next to nothing in the top band: the z-score magnifies rounding.
        tolerance = np.maximum(1e-5, 4e-6 / oracles.a4_deviation(samples))
        assert (np.abs(kernel - oracles.a4(samples)).max(axis=0) <= tolerance).all()
        np.testing.assert_array_equal(a4[row], kernel.astype(np.float16))
        low, high = segments.note_start[row], segments.note_start[row] + segments.note_count[row]
        expected = oracles.d4(notes.pitch[low:high].tolist())
        np.testing.assert_array_equal(d4[low:high], expected.astype(np.float32).astype(np.float16))


def note_rows_are_found_by_exhaustive_search(store: Store, real_data: Path) -> None:
    notes, segments = store.notes(), store.segments
    for recording, row in enumerate(load_table(real_data / "maps-metadata.csv")[:10]):
        mine = segments.recording == recording
        expected = oracles.segment_notes(
            oracles.midi_notes(real_data / row.midi_path), int(mine.sum())
        )
        low = int(segments.note_start[mine][0])
        high = low + len(expected)
        assert int(segments.note_count[mine].sum()) == len(expected)
        np.testing.assert_array_equal(notes.pitch[low:high], [n[2] for n in expected])
        np.testing.assert_allclose(notes.onset_s[low:high], [n[1] for n in expected], atol=2e-6)


def test_maestro_files_parse_with_their_counts(real_data: Path) -> None:
    with (real_data / "maestro-subset.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 205
    column = next(c for c in rows[0] if "note" in c.lower())
    for row in rows:
        path = real_data / "maestro" / Path(row["midi_filename"])
        found = read_performance(path)
        assert len(found) == int(row[column]), path
        # MAESTRO's duration is nearly the last note's end (0.97 s off in one file)
        assert abs(found.end_s.max() - float(row["duration"])) < 1.0


def test_missing_maestro_audio_is_said_for_every_row(real_data: Path) -> None:
    recordings = load_table(real_data / "maestro-subset.csv")
    inputs = fingerprint_inputs(recordings, real_data / "maestro", segmentation=Segmentation())
    assert {i.failure.kind for i in inputs if i.failure} == {"missing"}
    assert sum(i.failure is not None for i in inputs) == 205


def test_a_real_maestro_wav_is_48_khz_stereo(real_data: Path) -> None:
    from pipeline.audio import decode, probe

    (path,) = (real_data / "maestro-audio-2s").rglob("*.wav")
    header = probe(path)
    assert (header.sample_rate, header.channels) == (48_000, 2)
    found = np.concatenate(list(decode(path, header.frames_24k)))
    assert len(found) == soundfile.info(path).frames // 2
    assert found.any()
