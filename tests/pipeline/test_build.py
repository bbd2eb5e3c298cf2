"""Building, resuming, extending, refusing: the same bytes always, or a clear error."""

from __future__ import annotations

import dataclasses
import json
import shutil
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
    features,
    make_corpus,
    same_store,
)

from pipeline import build as build_module
from pipeline import refresh as refresh_module
from pipeline.base.errors import StoreError
from pipeline.build import BuildConfig, add
from pipeline.descriptors import DESCRIPTORS
from pipeline.quality import QualityLimits
from pipeline.store import Store
from pipeline.verify import verify

# ---- the same bytes


@pytest.mark.parametrize("groups", [1, 3, 100])
def test_the_cut_into_tasks_changes_no_byte(
    groups: int, long_corpus: Path, long_store: Store, tmp_path: Path, monkeypatch
) -> None:
    assert long_store.arrays["audio"].n_shards > 5
    assert long_store.arrays["A4"].n_shards > 1
    for stage in ("INGEST", "DESCRIBE"):
        monkeypatch.setattr(build_module, f"{stage}_TASKS_PER_WORKER", groups)
    found = build_quietly(corpus_of(long_corpus, name="long"), tmp_path)
    assert same_store(found.store.path, long_store.path)


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.full)])
def test_worker_processes_change_no_byte(
    workers: int, long_corpus: Path, long_store: Store, tmp_path: Path
) -> None:
    flags = ("--out", tmp_path, "--workers", workers, "--json")
    found = features("build", "--corpus", long_corpus, *flags)
    assert found.returncode == 0, found.stderr
    assert same_store(Path(json.loads(found.stdout)["store"]), long_store.path)


@pytest.mark.full
def test_neither_tasks_nor_workers_change_a_byte_of_any_descriptor(
    long_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, every = corpus_of(long_corpus, name="long"), tuple(DESCRIPTORS.names())
    alone = build_quietly(corpus, tmp_path / "alone", descriptors=every).store
    assert set(alone.arrays) == {"audio", *every}
    assert alone.arrays["A10e"].n_shards > 1
    command = ("build", "--corpus", long_corpus, "--descriptors", "all", "--json")
    found = features(*command, "--out", tmp_path / "two", "--workers", 2)
    assert found.returncode == 0, found.stderr
    assert same_store(Path(json.loads(found.stdout)["store"]), alone.path)
    # … nor does the cut into tasks, nor with which others one is built
    monkeypatch.setattr(build_module, "DESCRIBE_TASKS_PER_WORKER", 100)
    few = build_quietly(corpus, tmp_path / "few", descriptors=("A10e", "A7s")).store
    add(few.path, BuildConfig(descriptors=every), Quiet())
    assert same_store(few.path, alone.path)


def test_the_audio_of_a_store_is_its_recordings_decoded_alone(
    tiny_store: Store, tiny_corpus: Path
) -> None:
    from pipeline.audio import decode

    timeline, at = tiny_store.read("audio"), 0
    for spec, n in zip(SPECS, tiny_store.recordings.n_segments, strict=True):
        length = (int(n) - 1) * 24_000 + 96_000
        alone = np.concatenate(list(decode(tiny_corpus.parent / spec.audio, length)))
        np.testing.assert_array_equal(timeline[at : at + length], alone)
        at += length
    assert at == len(timeline)


def test_silence_is_stored_as_files(tmp_path: Path) -> None:
    spec = Spec("silent", rate=24_000, channels=1, seconds=60.0)
    table = make_corpus(tmp_path / "c", (spec,))
    soundfile.write(tmp_path / "c" / spec.audio, np.zeros(60 * 24_000, np.int16), 24_000)
    limits = QualityLimits(max_silent_share=1.1)
    store = build_quietly(corpus_of(table), tmp_path / "out", quality=limits).store
    verify(store.path, Quiet())
    assert not store.read("audio").any()
    assert not store.read("A4").any()
    (store.path / store.arrays["audio"].shard_path(0)).unlink()
    with pytest.raises(StoreError, match="is missing"):
        store.read("audio")


def test_a_second_build_recognises_the_store(own_corpus: Path, tmp_path: Path) -> None:
    first = build_quietly(corpus_of(own_corpus), tmp_path / "out")
    stamps = {p: p.stat().st_mtime_ns for p in first.store.path.rglob("*")}
    again = build_quietly(corpus_of(own_corpus), tmp_path / "out")
    assert again.built == []
    assert again.store.path == first.store.path
    assert {p: p.stat().st_mtime_ns for p in first.store.path.rglob("*") if p.is_file()} == {
        p: t for p, t in stamps.items() if p.is_file()
    }


def test_a_moved_corpus_is_the_same_store(
    tiny_store: Store, own_corpus: Path, tmp_path: Path
) -> None:
    corpus = dataclasses.replace(corpus_of(own_corpus), name="tiny")
    found = build_quietly(corpus, tmp_path / "out").store
    assert found.identity == tiny_store.identity
    assert same_store(found.path, tiny_store.path)


# ---- compositions: rules that improve


def regrouped(table: Path) -> Any:
    """The corpus as later rules would group it."""
    corpus = corpus_of(table)
    names = [f"{r.composition}-anew" for r in corpus.recordings]
    found = [
        dataclasses.replace(r, composition=name)
        for r, name in zip(corpus.recordings, [names[1], *names[1:]], strict=True)
    ]
    return dataclasses.replace(corpus, recordings=found)


def test_new_rules_change_the_column_and_nothing_else(own_corpus: Path, tmp_path: Path) -> None:
    first = build_quietly(corpus_of(own_corpus), tmp_path / "out").store
    before, grouping, corpus = footprint(first.path), first.grouping, regrouped(own_corpus)
    second = build_quietly(corpus, tmp_path / "out")
    assert second.store.path == first.path
    assert second.built == []
    changed = {k for k, v in footprint(first.path).items() if v != before[k]}
    assert changed == {"recordings.parquet"}
    assert list(second.store.recordings.composition) == [r.composition for r in corpus.recordings]
    assert second.store.grouping != grouping
    late = Store(first.path, first.record)
    with pytest.raises(StoreError, match="since it was opened"):
        late.table("recordings")
    assert same_store(second.store.path, build_quietly(corpus, tmp_path / "anew").store.path)
    verify(second.store.path, Quiet())


def test_names_alone_do_not_change_the_grouping(own_corpus: Path, tmp_path: Path) -> None:
    corpus = corpus_of(own_corpus)
    first = build_quietly(corpus, tmp_path / "out").store
    names, grouping = list(first.recordings.composition), first.grouping
    renamed = [dataclasses.replace(r, composition=f"{r.composition}-x") for r in corpus.recordings]
    second = build_quietly(dataclasses.replace(corpus, recordings=renamed), tmp_path / "out").store
    assert list(second.recordings.composition) == [f"{name}-x" for name in names]
    assert second.grouping == grouping


@pytest.mark.parametrize("step", ["write_table", "commit"])
def test_a_kill_between_table_and_record_is_made_good(
    step: str, own_corpus: Path, tmp_path: Path, monkeypatch
) -> None:
    store = build_quietly(corpus_of(own_corpus), tmp_path / "out").store
    whole = getattr(refresh_module, step)

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(refresh_module, step, killed)
    with pytest.raises(KeyboardInterrupt):
        build_quietly(regrouped(own_corpus), tmp_path / "out")
    with pytest.raises(StoreError, match="repeat the xmodal-features build"):
        Store.open(store.path)
    monkeypatch.setattr(refresh_module, step, whole)
    arrays = {p: p.stat().st_ino for p in store.path.rglob("c/*")}
    found = build_quietly(regrouped(own_corpus), tmp_path / "out").store
    assert {p: p.stat().st_ino for p in store.path.rglob("c/*")} == arrays
    fresh = build_quietly(regrouped(own_corpus), tmp_path / "anew").store
    assert same_store(found.path, fresh.path)


# ---- more arrays


def footprint(store: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(p.relative_to(store)): (p.stat().st_mtime_ns, p.stat().st_ino, p.read_bytes())
        for p in store.rglob("*")
        if p.is_file() and p.name not in ("store.json", "build.json")
    }


def test_adding_a_descriptor_reads_no_recording_and_touches_no_other_file(
    own_corpus: Path, tiny_store: Store, tmp_path: Path
) -> None:
    first = build_quietly(corpus_of(own_corpus), tmp_path / "out", descriptors=("D4",)).store
    assert list(first.arrays) == ["D4", "audio"]
    before = footprint(first.path)
    shutil.rmtree(own_corpus.parent)
    added = add(first.path, BuildConfig(descriptors=("A4", "mel")), Quiet())
    assert added.built == ["A4", "mel"]
    after = footprint(first.path)
    assert {name: after[name] for name in before} == before
    assert same_store(first.path, tiny_store.path)
    fingerprints = {n: i.fingerprint for n, i in tiny_store.arrays.items()}
    assert {n: i.fingerprint for n, i in added.store.arrays.items()} == fingerprints
    verify(first.path, Quiet())


def test_building_again_with_more_descriptors_adds_them(own_corpus: Path, tmp_path: Path) -> None:
    corpus = corpus_of(own_corpus)
    assert build_quietly(corpus, tmp_path / "out", descriptors=()).built == ["audio"]
    assert build_quietly(corpus, tmp_path / "out", descriptors=("A4",)).built == ["A4"]
    assert build_quietly(corpus, tmp_path / "out", descriptors=("A4",)).built == []
    assert build_quietly(corpus, tmp_path / "out").built == ["mel", "D4"]


def test_a_new_version_replaces_its_own_array_only(
    own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = footprint(own_store)
    old = Store.open(own_store).arrays["A4"].fingerprint
    monkeypatch.setattr(type(DESCRIPTORS.get("A4")), "version", 2)
    assert add(own_store, BuildConfig(descriptors=("A4",)), Quiet()).built == ["A4"]
    after = footprint(own_store)
    assert Store.open(own_store).arrays["A4"].fingerprint != old
    untouched = [name for name in before if "/A4/" not in name]
    assert {n: after[n] for n in untouched} == {n: before[n] for n in untouched}
    verify(own_store, Quiet())


def test_a_new_array_is_not_computed_from_damaged_audio(own_corpus: Path, tmp_path: Path) -> None:
    store = build_quietly(corpus_of(own_corpus), tmp_path / "out", descriptors=()).store
    shard = store.path / store.arrays["audio"].shard_path(0)
    raw = bytearray(shard.read_bytes())
    raw[1000] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(StoreError, match="does not verify"):
        add(store.path, BuildConfig(descriptors=("A4",)), Quiet())
    assert list(Store.open(store.path).arrays) == ["audio"]


def test_a_descriptor_that_gives_no_number_is_stopped(
    own_corpus: Path, tmp_path: Path, monkeypatch
) -> None:
    kind = type(DESCRIPTORS.get("A4"))
    original = kind.extract
    monkeypatch.setattr(kind, "extract", lambda self, s: original(self, s) * np.float32(1e6))
    with pytest.raises(StoreError, match="A4 has values that are not finite in float16"):
        build_quietly(corpus_of(own_corpus), tmp_path / "out")


def test_a_finished_store_is_recognised_where_nothing_can_be_written(
    tiny_corpus: Path, own_store: Path, tmp_path: Path, monkeypatch
) -> None:
    """Root may write anywhere, so the lock is what fails here, as on a read-only disk."""

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    out = own_store.parent
    monkeypatch.setattr("pipeline.base.files.FolderLock.__enter__", read_only)
    result = build_quietly(corpus_of(tiny_corpus), out)
    assert not result.built
    assert result.store.path == own_store
    with pytest.raises(OSError, match="Read-only"):
        build_quietly(corpus_of(tiny_corpus), out, descriptors=("A4", "D4", "mel", "A8"))
