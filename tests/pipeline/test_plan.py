"""Identity, fingerprints and offsets: what changes them and what does not."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import SPECS, make_corpus, row_of, write_midi, write_table

from pipeline import plan, sounds
from pipeline.corpora.recordings import load_table
from pipeline.plan import fingerprint_inputs, identity_of, make_plan
from pipeline.sounds import audio_fingerprint
from pipeline.store.schema import Segmentation


def identity(table: Path, *, checksum: Any = "sampled", cap: int | None = 100) -> str:
    segmentation = Segmentation(max_per_recording=cap)
    recordings = load_table(table)
    inputs = fingerprint_inputs(
        recordings, table.parent, checksum=checksum, segmentation=segmentation
    )
    return identity_of(recordings, inputs, segmentation)


def test_root_times_and_table_name_do_not_matter(own_corpus: Path, tmp_path: Path) -> None:
    before = identity(own_corpus)
    elsewhere = tmp_path / "else where"
    shutil.copytree(own_corpus.parent, elsewhere)
    for path in elsewhere.rglob("*"):
        os.utime(path, (1, 1))
    assert identity((elsewhere / own_corpus.name).rename(elsewhere / "other.csv")) == before


def test_every_input_byte_matters(own_corpus: Path) -> None:
    seen = {identity(own_corpus), identity(own_corpus, cap=2), identity(own_corpus, cap=None)}
    seen.add(identity(own_corpus, checksum="full"))
    assert len(seen) == 4
    for spec in SPECS:
        for name, at in ((spec.midi, -6), (spec.audio, 5000), (spec.audio, -3)):
            path = own_corpus.parent / name
            raw = bytearray(path.read_bytes())
            raw[at] ^= 1
            whole, _ = path.read_bytes(), path.write_bytes(raw)
            found = identity(own_corpus)
            assert found not in seen, (name, at)
            seen.add(found)
            path.write_bytes(whole)
    assert identity(own_corpus) in seen


@pytest.mark.parametrize(
    "change", [{"canonical_title": "Other"}, {"year": 2009}, {"split": "test"}, {"duration": "8.0"}]
)
def test_every_cell_of_the_table_matters(change: dict[str, Any], own_corpus: Path) -> None:
    before = identity(own_corpus)
    rows = [row_of(s) for s in SPECS]
    write_table(own_corpus, [{**rows[0], **change}, *rows[1:]])
    assert identity(own_corpus) != before


def test_sampled_fingerprints_cover_edges_and_sixteen_blocks(tmp_path: Path) -> None:
    path = tmp_path / "big"
    raw = bytearray(np.random.default_rng(0).bytes(6 << 20))
    path.write_bytes(raw)
    sampled, full = audio_fingerprint(path, "sampled"), audio_fingerprint(path, "full")
    inner = len(raw) - 2 * sounds.EDGE_BYTES - sounds.PROBE_BYTES
    probes = [sounds.EDGE_BYTES + inner * i // 15 for i in range(16)]
    covered = {0, sounds.EDGE_BYTES - 1, len(raw) - 1, len(raw) - sounds.EDGE_BYTES, *probes}
    covered |= {p + sounds.PROBE_BYTES - 1 for p in probes}
    for at in covered:
        changed = raw.copy()
        changed[at] ^= 1
        path.write_bytes(changed)
        assert audio_fingerprint(path, "sampled") != sampled
    gap = probes[0] + sounds.PROBE_BYTES + 10
    assert gap < probes[1]
    changed = raw.copy()
    changed[gap] ^= 1
    path.write_bytes(changed)
    assert audio_fingerprint(path, "sampled") == sampled
    assert audio_fingerprint(path, "full") != full


def test_a_small_file_is_fingerprinted_whole(tmp_path: Path) -> None:
    path = tmp_path / "small"
    raw = bytearray(100_000)
    path.write_bytes(raw)
    before = audio_fingerprint(path, "sampled")
    raw[54_321] = 1
    path.write_bytes(raw)
    assert audio_fingerprint(path, "sampled") != before


def test_a_window_beyond_the_audio_is_not_valid(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPECS[0], seconds=8.8)
    table = make_corpus(tmp_path, (spec,))
    write_table(table, [{**row_of(spec), "duration": "9.0"}])  # 0.2 s less than promised
    recordings = load_table(table)
    inputs = fingerprint_inputs(recordings, tmp_path, segmentation=Segmentation())
    found = make_plan("x", recordings, inputs, Segmentation())
    assert found.tables["segments"]["valid"].to_pylist() == [True] * 5 + [False]
    checks = found.tables["recordings"]["checks"].to_pylist()[0]
    assert checks["padded_samples"] == 4800
    assert checks["failed"] is False


def test_a_segment_without_notes_is_not_valid_and_keeps_its_row(tmp_path: Path) -> None:
    table = make_corpus(tmp_path, (SPECS[0],))
    write_midi(tmp_path / SPECS[0].midi, [(0.5, 1.5, 60, 60), (11.0, 11.5, 62, 60)])
    recordings = load_table(table)
    inputs = fingerprint_inputs(recordings, tmp_path, segmentation=Segmentation())
    found = make_plan("x", recordings, inputs, Segmentation()).tables["segments"]
    counts = [1, 1, 0, 0, 0, 0, 0, 0, 1]
    assert found["note_count"].to_pylist() == counts
    assert found["valid"].to_pylist() == [c > 0 for c in counts]


@pytest.mark.parametrize("shown", ["audio", "midi"])
def test_the_stage_of_a_failure_is_where_it_lies(shown: str, own_corpus: Path) -> None:
    (own_corpus.parent / getattr(SPECS[0], shown)).unlink()
    inputs = fingerprint_inputs(
        load_table(own_corpus), own_corpus.parent, segmentation=Segmentation()
    )
    assert [i.failure.stage for i in inputs if i.failure] == [shown]


def test_notes_that_would_fill_the_memory_are_a_failure(own_corpus: Path, monkeypatch) -> None:
    monkeypatch.setattr(plan, "MAX_NOTE_ROWS", 100)
    inputs = fingerprint_inputs(
        load_table(own_corpus), own_corpus.parent, segmentation=Segmentation()
    )
    assert {i.failure.kind for i in inputs if i.failure} == {"too-large"}


def test_which_titles_are_one_composition_does_not_matter(own_corpus: Path) -> None:
    """Rules that improve must not cost another reading of the corpus; a column of the table does."""
    recordings = load_table(own_corpus)
    seg = Segmentation()
    inputs = fingerprint_inputs(recordings, own_corpus.parent, segmentation=seg)
    other = [dataclasses.replace(r, composition="renamed") for r in recordings]
    assert identity_of(other, inputs, seg) == identity_of(recordings, inputs, seg)
    said = [dataclasses.replace(r, extra={"composition": "renamed"}) for r in recordings]
    assert identity_of(said, inputs, seg) != identity_of(recordings, inputs, seg)
