"""Recordings, folders and settings that a build refuses; writers that meet; disks that fill."""

from __future__ import annotations

import csv
import errno
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from makers import (
    SPECS,
    Quiet,
    Spec,
    build_quietly,
    corpus_of,
    make_audio,
    make_corpus,
    make_notes,
    row_of,
    same_store,
    write_midi,
    write_table,
)

from pipeline import build as build_module
from pipeline.base.errors import AudioError, ConfigError, CorpusError, StoreError
from pipeline.build import BuildConfig
from pipeline.ingest import _within
from pipeline.plan import fingerprint_inputs, make_plan
from pipeline.store import Store
from pipeline.store import writer as writer_module
from pipeline.store.schema import Segmentation
from pipeline.verify import verify

# ---- recordings that cannot be used


def break_audio(path: Path) -> None:
    path.unlink()


def break_text(path: Path) -> None:
    path.write_text("no audio here")


def break_late(path: Path) -> None:
    """A FLAC with a good header that breaks in the middle."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    path.write_bytes(raw)


def break_notes(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def empty_notes(path: Path) -> None:
    write_midi(path, [])


FAILURES = {
    "missing audio": (SPECS[2].audio, break_audio, "missing"),
    "missing MIDI": (SPECS[2].midi, break_audio, "missing"),
    "text for audio": (SPECS[2].audio, break_text, "unreadable"),
    "text for MIDI": (SPECS[2].midi, break_text, "unreadable"),
    "MIDI cut short": (SPECS[2].midi, break_notes, "unreadable"),
    "no notes": (SPECS[2].midi, empty_notes, "no-notes"),
    "FLAC breaks in the middle": (SPECS[2].audio, break_late, "unreadable"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_recording_that_cannot_be_used(name: str, own_corpus: Path, tmp_path: Path) -> None:
    file, damage, kind = FAILURES[name]
    out, path = tmp_path / "out", own_corpus.parent / file
    whole = path.read_bytes()
    damage(path)
    corpus = corpus_of(own_corpus)

    # refused: nothing is committed, the file and the remedy are named
    with pytest.raises(CorpusError) as caught:
        build_quietly(corpus, out)
    assert caught.value.exit_code == 3
    assert file in str(caught.value)
    assert f"/{kind}]" in str(caught.value)
    assert "--max-failures 1" in str(caught.value)
    assert not list(out.glob("*/store.json"))

    # allowed: partial, the row is kept without segments, nothing stands in for the recording
    partial = build_quietly(corpus, out, max_failures=1)
    store = partial.store
    assert store.record["status"] == "partial"
    assert [(f["recording"], f["kind"]) for f in store.table("failures").to_pylist()] == [(2, kind)]
    np.testing.assert_array_equal(store.recordings.n_segments, [9, 6, 0, 3])
    assert 2 not in store.segments.recording
    assert len(store.segments) == 18
    verify(store.path, Quiet())

    # recognised
    again = build_quietly(corpus, out, max_failures=1)
    assert again.built == []
    assert again.store.path == store.path
    assert [f.recording for f in again.failures] == [2]

    # repaired: a new, complete store
    path.write_bytes(whole)
    complete = build_quietly(corpus, out)
    assert complete.store.record["status"] == "complete"
    assert complete.store.path != store.path
    assert len(complete.store.segments) == 22


def test_a_duration_that_disagrees_with_the_audio(own_corpus: Path, tmp_path: Path) -> None:
    rows = [row_of(s) for s in SPECS]
    write_table(own_corpus, [{**rows[0], "duration": "14.5"}, *rows[1:]])
    with pytest.raises(CorpusError, match=r"lasts 12.25 s, but the metadata say 14.50 s"):
        build_quietly(corpus_of(own_corpus), tmp_path / "out")


def test_every_failure_is_named_at_once(own_corpus: Path, tmp_path: Path) -> None:
    for spec in SPECS[:3]:
        (own_corpus.parent / spec.midi).unlink()
    with pytest.raises(CorpusError) as caught:
        build_quietly(corpus_of(own_corpus), tmp_path / "out", max_failures=2)
    assert all(spec.midi in str(caught.value) for spec in SPECS[:3])
    assert "--max-failures 3" in str(caught.value)


def test_nothing_left_is_an_error(own_corpus: Path, tmp_path: Path) -> None:
    for spec in SPECS:
        (own_corpus.parent / spec.audio).unlink()
    with pytest.raises(CorpusError, match="no recording gives a segment"):
        build_quietly(corpus_of(own_corpus), tmp_path / "out", max_failures=4)


def test_notes_outside_all_segments_give_invalid_segments(own_corpus: Path, tmp_path: Path) -> None:
    write_table(own_corpus, [row_of(SPECS[0])])
    write_midi(own_corpus.parent / SPECS[0].midi, [(100.0, 101.0, 60, 60)])
    store = build_quietly(corpus_of(own_corpus), tmp_path / "out").store
    assert (len(store.segments), len(store.notes())) == (9, 0)
    assert not store.segments.valid.any()
    assert store.read("D4").shape == (0, 4)
    verify(store.path, Quiet())


@pytest.mark.parametrize("name", ["with space", "Ünï-cödé 音楽", "new\nline", "quote'\"", "-dash"])
def test_odd_names_are_names(name: str, tmp_path: Path) -> None:
    spec = Spec(name, rate=24_000, channels=1, seconds=5.0)
    store = build_quietly(corpus_of(make_corpus(tmp_path / name, (spec,))), tmp_path / "out").store
    assert store.recordings.key.tolist() == [f"2008/{name}"]
    assert len(store.segments) == 2


def test_linked_recordings_are_followed(
    own_corpus: Path, tmp_path: Path, tiny_store: Store
) -> None:
    hall = tmp_path / "hall"
    (own_corpus.parent / "2008").rename(hall)
    (own_corpus.parent / "2008").symlink_to(hall)
    assert (
        build_quietly(corpus_of(own_corpus), tmp_path / "out").store.identity == tiny_store.identity
    )


# ---- folders and writers


def test_a_foreign_folder_is_left_alone(
    own_corpus: Path, tiny_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / tiny_store.path.name
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="is not a store") as caught:
        build_quietly(corpus_of(own_corpus), tmp_path / "out")
    assert caught.value.kind == "not-a-store"
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]


def lock(folder: Path, **owner: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".lock").write_text(json.dumps({"locked_at": 0, **owner}))
    return folder / ".lock"


def started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def test_a_second_builder_is_refused(own_corpus: Path, tiny_store: Store, tmp_path: Path) -> None:
    folder, pid = tmp_path / "out" / tiny_store.path.name, os.getppid()
    file = lock(folder, host=socket.gethostname(), pid=pid, process_started=started(pid))
    with pytest.raises(StoreError, match=f"process {pid} on") as caught:
        build_quietly(corpus_of(own_corpus), tmp_path / "out")
    assert caught.value.kind == "locked"
    assert [p.name for p in folder.iterdir()] == [".lock"]
    file.unlink()
    build_quietly(corpus_of(own_corpus), tmp_path / "out")


def test_a_lock_dies_with_its_owner(own_corpus: Path, tiny_store: Store, tmp_path: Path) -> None:
    here, me = socket.gethostname(), os.getpid()
    for number, owner in enumerate(
        (
            {"host": here, "pid": 2**22 + 5, "process_started": "1"},  # no such process
            {"host": here, "pid": me, "process_started": "1"},  # the number is used again
            {"host": "elsewhere", "pid": me, "process_started": "1"},  # no heartbeat any more
        )
    ):
        folder = tmp_path / str(number) / tiny_store.path.name
        file = lock(folder, **owner)
        os.utime(file, (time.time() - 700, time.time() - 700))
        assert build_quietly(corpus_of(own_corpus), folder.parent).store.path == folder
        assert not file.exists()


def test_a_lock_of_another_host_with_a_heartbeat_holds(
    own_corpus: Path, tiny_store: Store, tmp_path: Path
) -> None:
    lock(tmp_path / "out" / tiny_store.path.name, host="elsewhere", pid=1, process_started="1")
    with pytest.raises(StoreError, match="on elsewhere"):
        build_quietly(corpus_of(own_corpus), tmp_path / "out")


def test_a_broken_lock_file_is_no_lock(own_corpus: Path, tiny_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "out" / tiny_store.path.name
    folder.mkdir(parents=True)
    (folder / ".lock").write_text("{")
    build_quietly(corpus_of(own_corpus), tmp_path / "out")


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_loses_nothing(
    after: int, own_corpus: Path, tiny_store: Store, tmp_path: Path, monkeypatch
) -> None:
    written = []

    def full(*args: Any) -> Any:
        if len(written) == after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full")
        written.append(args)
        return original(*args)

    original = writer_module.write_shard_file
    monkeypatch.setattr(writer_module, "write_shard_file", full)
    with pytest.raises(OSError, match="No space left"):
        build_quietly(corpus_of(own_corpus), tmp_path / "out")
    monkeypatch.undo()
    folder = tmp_path / "out" / tiny_store.path.name
    with pytest.raises(StoreError, match="half-built"):
        Store.open(folder)
    assert same_store(
        build_quietly(corpus_of(own_corpus), tmp_path / "out").store.path, tiny_store.path
    )


def test_leftovers_and_garbage_of_a_killed_build_are_replaced(
    own_corpus: Path, tiny_store: Store, tmp_path: Path, monkeypatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    monkeypatch.setattr(build_module, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        build_quietly(corpus_of(own_corpus), out)
    monkeypatch.undo()
    folder = out / tiny_store.path.name
    info = tiny_store.arrays["A4"]
    (folder / ".build" / "A4.0.json").unlink()
    (folder / info.shard_path(0)).write_bytes(b"garbage of a power cut")
    audio = folder / tiny_store.arrays["audio"].shard_path(0)
    raw = bytearray(audio.read_bytes())
    raw[77] ^= 1  # journalled, but not what the journal says
    audio.write_bytes(raw)
    (folder / ".notes.parquet.1.2.tmp").write_bytes(b"x")
    (audio.parent / "0.0123456789abcdef.partial").write_bytes(b"x")
    assert same_store(build_quietly(corpus_of(own_corpus), out).store.path, tiny_store.path)


def test_a_damaged_store_is_not_called_complete(own_corpus: Path, tmp_path: Path) -> None:
    store = build_quietly(corpus_of(own_corpus), tmp_path / "out").store
    (store.path / store.arrays["A4"].shard_path(0)).unlink()
    with pytest.raises(StoreError, match="delete the folder and build it again"):
        build_quietly(corpus_of(own_corpus), tmp_path / "out")


def test_max_failures_must_not_be_negative() -> None:
    for name in ("max_failures", "workers"):
        with pytest.raises(ConfigError, match=name):
            BuildConfig(**{name: -1})


def test_a_descriptor_named_twice_is_refused(own_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="twice"):
        build_quietly(corpus_of(own_corpus), tmp_path / "out", descriptors=("A4", "A4"))


def test_a_corpus_made_by_other_means_is_equal(tmp_path: Path) -> None:
    """Stereo with equal channels and its mono file give the same timeline."""
    stores = []
    for channels in (1, 2):
        spec = Spec("x", rate=44_100, channels=channels, seconds=6.0)
        table = make_corpus(tmp_path / str(channels), (spec,))
        notes = make_notes(6.0, 0)
        mono = make_audio(notes, 6.0, 44_100, 1, 0)
        soundfile.write(table.parent / spec.audio, np.repeat(mono, channels, axis=1), 44_100)
        stores.append(build_quietly(corpus_of(table), tmp_path / f"o{channels}").store)
    np.testing.assert_array_equal(stores[0].read("audio"), stores[1].read("audio"))
    np.testing.assert_array_equal(stores[0].read("A4"), stores[1].read("A4"))


def test_a_recording_shorter_than_a_segment_keeps_its_row_and_gives_no_segments(
    own_corpus: Path, tmp_path: Path
) -> None:
    with own_corpus.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    rows[0]["duration"] = "3.9"
    write_table(own_corpus, rows, list(rows[0]))
    store = build_quietly(corpus_of(own_corpus), tmp_path / "out").store
    assert store.record["status"] == "complete"
    assert store.recordings.n_segments[0] == 0
    assert len(store.recordings) == len(rows)
    assert 0 not in store.segments.recording


def test_an_audio_file_that_changes_during_the_build_is_a_failure(own_corpus: Path) -> None:
    corpus = corpus_of(own_corpus)
    inputs = fingerprint_inputs(corpus.recordings, corpus.root, segmentation=Segmentation())
    plan = make_plan("x", corpus.recordings, inputs, Segmentation())
    source = plan.sources[0]
    with Path(source.sound.path).open("ab") as handle:
        handle.write(b"\0\0")
    with pytest.raises(AudioError, match="changed while"):
        list(_within(source, 0, source.length))
