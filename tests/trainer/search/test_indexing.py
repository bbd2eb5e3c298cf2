"""Indexes: what is in them, that they grow, and that a stop or a kill leaves a whole one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from index_fakes import SPECS, Counting, data_of
from makers import (
    Spec,
    build_quietly,
    corpus_of,
    make_audio,
    make_notes,
    row_of,
    write_midi,
    write_table,
)

from pipeline.base.errors import StoreError
from pipeline.base.files import FolderLock
from pipeline.store import Store
from trainer.export import pack_model
from trainer.retrieval.lags import COSINE, Comparison
from trainer.run import open_run
from trainer.search import contents, indexing
from trainer.search.embedders import BaselineEmbedder, ModelEmbedder
from trainer.search.errors import IndexFolderError
from trainer.search.folder import open_index
from trainer.search.indexing import make_index
from trainer.search.nearest import Approximate, Exact

pytestmark = pytest.mark.usefixtures("chance_unmeasured")


def assert_nearly_the_same(one: Path, other: Path) -> None:
    """Rows alike; what is embedded beside others may round otherwise, as BLAS multiplies."""
    a, b = open_index(one), open_index(other)
    assert a.recordings.equals(b.recordings)
    for name in ("recording", "segment", "start_s"):
        assert a.rows.column(name).equals(b.rows.column(name))
    for side in ("audio", "midi"):
        np.testing.assert_allclose(a.vectors[side], b.vectors[side], atol=2e-4)
    assert len(data_of(one)) == len(data_of(other))


# ---- what is in it


def test_rows_are_the_segments_with_notes_and_their_vectors(tmp_path: Path, out: Path) -> None:
    spec = Spec("gap", rate=24_000, channels=1, seconds=26.0)
    other = Spec("other", rate=24_000, channels=1, seconds=9.0, title="Two, BWV 2")
    for each, seed, gap in ((spec, 0, (7.0, 15.0)), (other, 1, (99.0, 99.0))):
        notes = make_notes(each.seconds, seed)
        notes = [n for n in notes if n[1] < gap[0] or n[0] > gap[1]]
        write_midi(tmp_path / each.midi, notes)
        sound = make_audio(notes, each.seconds, 24_000, 1, seed)
        soundfile.write(tmp_path / each.audio, sound, 24_000)
    table = write_table(tmp_path / "t.csv", [row_of(spec), row_of(other)])
    store = build_quietly(corpus_of(table), tmp_path / "stores").store
    valid = np.flatnonzero(store.segments.valid)
    assert len(valid) < len(store.segments) - 3
    embedder = Counting()
    made = make_index(store, embedder, out)
    assert (made.rows, made.recordings, made.embedded, made.kept, made.gone) == (
        len(valid), 2, len(valid), 0, 0,
    )  # fmt: skip
    record = json.loads((out / "index.json").read_text())
    rows = pq.read_table(out / record["data"]["rows"]).to_pydict()
    assert rows["segment"] == valid.tolist()
    assert rows["recording"] == store.segments.recording[valid].tolist()
    assert rows["start_s"] == store.segments.start_s[valid].tolist()
    expected = BaselineEmbedder("flux").segments(store, valid)
    stored = {side: np.load(out / record["data"][side]) for side in ("audio", "midi")}
    for side in ("audio", "midi"):
        assert stored[side].dtype == np.float16
        np.testing.assert_array_equal(stored[side], expected[side].astype(np.float16))
        # Moments of likeness: of every row's products with the other side.
        others = stored["midi" if side == "audio" else "audio"].astype(np.float64)
        products = stored[side].astype(np.float64) @ others.T
        np.testing.assert_allclose(rows[f"{side}_mean"], products.mean(axis=1), atol=1e-5)
        np.testing.assert_allclose(rows[f"{side}_sigma"], products.std(axis=1), atol=1e-5)
    names = pq.read_table(out / record["data"]["recordings"]).to_pydict()
    assert names["key"] == ["2008/gap", "2008/other"]
    assert names["title"] == [spec.title, other.title]
    assert names["store_recording"] == [0, 1]
    assert len(set(names["content"])) == 2


def test_a_store_without_notes_has_no_index(store_of: Any, out: Path) -> None:
    store = Store.open(store_of((0,)).path)
    store.segments.valid[:] = False
    with pytest.raises(IndexFolderError, match="no segment with notes") as caught:
        make_index(store, Counting(), out)
    assert caught.value.kind == "empty"


# ---- it grows


def test_a_repeated_call_embeds_nothing_and_changes_no_byte(store_of: Any, out: Path) -> None:
    store = store_of((0, 1, 2))
    first, again = Counting(), Counting()
    make_index(store, first, out)
    before, record = data_of(out), (out / "index.json").read_bytes()
    made = make_index(store, again, out)
    assert first.embedded == made.rows == made.kept
    assert (again.embedded, made.embedded) == (0, 0)
    assert data_of(out) == before
    assert (out / "index.json").read_bytes() == record
    anew = Counting()
    assert make_index(store, anew, out, overwrite=True).kept == 0
    assert anew.embedded == made.rows
    assert data_of(out) == before


def test_a_grown_store_embeds_only_what_is_new(store_of: Any, out: Path, tmp_path: Path) -> None:
    small, large = store_of((0, 1)), store_of((0, 2, 1))
    make_index(small, Counting(), out)
    embedder = Counting()
    made = make_index(large, embedder, out)
    own = np.flatnonzero(large.segments.recording == 1)
    assert embedder.asked == [own.tolist()]
    assert (made.embedded, made.gone) == (len(own), 0)
    assert made.rows == made.kept + made.embedded == len(large.segments)
    make_index(large, Counting(), tmp_path / "whole")
    assert_nearly_the_same(out, tmp_path / "whole")
    assert open_index(out).record["store"]["name"] == large.name


def test_what_a_store_lost_goes(store_of: Any, out: Path, tmp_path: Path) -> None:
    make_index(store_of((0, 2, 1)), Counting(), out)
    embedder = Counting()
    made = make_index(store_of((0, 1)), embedder, out)
    assert (embedder.embedded, made.gone, made.recordings) == (0, 1, 2)
    make_index(store_of((0, 1)), Counting(), tmp_path / "whole")
    assert_nearly_the_same(out, tmp_path / "whole")


def test_a_recording_that_changed_is_embedded_again(
    store_of: Any, corpus: Path, out: Path, tmp_path: Path
) -> None:
    make_index(store_of((0, 1)), Counting(), out)
    shutil.copytree(corpus.parent, tmp_path / "corpus")
    notes = make_notes(SPECS[1].seconds, 1)
    notes[0] = (*notes[0][:2], 30, notes[0][3])  # one note of another pitch
    write_midi(tmp_path / "corpus" / SPECS[1].midi, notes)
    table = corpus_of(tmp_path / "corpus" / "0-1.csv")
    changed = build_quietly(table, tmp_path / "stores").store
    embedder = Counting()
    made = make_index(changed, embedder, out)
    assert embedder.asked == [np.flatnonzero(changed.segments.recording == 1).tolist()]
    assert made.gone == 1


def test_the_same_recording_twice_is_embedded_once(corpus: Path, out: Path) -> None:
    rows = [row_of(SPECS[0]), {**row_of(SPECS[0]), "canonical_title": "Two, BWV 2"}]
    for kind in ("midi", "audio"):
        path = Path(rows[0][f"{kind}_filename"])
        copy = path.with_stem("copy")
        shutil.copyfile(corpus.parent / path, corpus.parent / copy)
        rows[1][f"{kind}_filename"] = str(copy)
    table = write_table(corpus.parent / "twice.csv", rows)
    store = build_quietly(corpus_of(table), out.parent / "stores").store
    embedder = Counting()
    made = make_index(store, embedder, out)
    assert made.recordings == 2
    assert 2 * embedder.embedded == made.rows == len(store.segments)
    vectors = open_index(out).vectors["audio"]
    np.testing.assert_array_equal(*np.split(vectors, 2))


# ---- stopped, killed


@pytest.mark.parametrize("done", [0, 1, 2])
def test_what_was_stopped_goes_on_to_the_same_bytes(
    store_of: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    store = store_of((0, 1, 2))
    monkeypatch.setattr(contents, "BLOCK", 2)  # every recording is a block
    with pytest.raises(KeyboardInterrupt):
        make_index(store, Counting(fail_at=done), out)
    if done:
        with pytest.raises(IndexFolderError, match="is half-made; repeat") as caught:
            open_index(out)
        assert caught.value.kind == "not-an-index"
    embedder = Counting()
    make_index(store, embedder, out)
    assert len(embedder.asked) == 3 - done
    whole = Counting()
    make_index(store, whole, tmp_path / "whole")
    assert whole.asked[done:] == embedder.asked
    assert data_of(out) == data_of(tmp_path / "whole")
    assert not (out / ".parts").exists()


def test_a_block_that_was_written_by_halves_is_embedded_again(
    store_of: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of((0, 1, 2))
    monkeypatch.setattr(contents, "BLOCK", 2)
    with pytest.raises(KeyboardInterrupt):
        make_index(store, Counting(fail_at=2), out)
    first, second = sorted((out / ".parts").glob("*.npy"))
    first.write_bytes(first.read_bytes()[:-9])
    second.write_bytes(b"")
    embedder = Counting()
    make_index(store, embedder, out)
    assert len(embedder.asked) == 3
    make_index(store, Counting(), tmp_path / "whole")
    assert data_of(out) == data_of(tmp_path / "whole")


def test_a_kill_before_the_record_leaves_the_index_that_was_there(
    store_of: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = store_of((0, 1)), store_of((0, 2, 1))
    for folder in (out, tmp_path / "whole"):
        make_index(small, Counting(), folder)
    vectors = np.array(open_index(out).vectors["midi"])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(indexing, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            make_index(large, Counting(), out)
    index = open_index(out)
    assert index.record["store"]["name"] == small.name
    np.testing.assert_array_equal(index.vectors["midi"], vectors)
    embedder = Counting()
    make_index(large, embedder, out)
    assert embedder.embedded == 0  # its block was kept
    make_index(large, Counting(), tmp_path / "whole")
    assert data_of(out) == data_of(tmp_path / "whole")


@pytest.mark.parametrize("leftover", [".lock", ".lock.host.123", ".lock.stale.123"])
def test_a_kill_before_the_first_block_is_no_foreign_folder(
    store_of: Any, out: Path, leftover: str
) -> None:
    out.mkdir()
    (out / leftover).write_text('{"host": "elsewhere", "pid": 1}' if leftover != ".lock" else "{")
    made = make_index(store_of((0,)), Counting(), out)
    assert len(open_index(out)) == made.rows


def test_only_one_writes(store_of: Any, out: Path) -> None:
    for _ in range(2):  # where nothing is, and where an index is
        with FolderLock(out), pytest.raises(StoreError, match="is being written") as caught:
            make_index(store_of((0,)), Counting(), out)
        assert caught.value.kind == "locked"
        make_index(store_of((0,)), Counting(), out)


# ---- approximate


def test_the_approximate_index_is_used_unless_exactness_is_asked_for(
    whole: Path, store_of: Any, tmp_path: Path
) -> None:
    exact, approximate = open_index(whole, exact=True), open_index(whole)
    for side in ("audio", "midi"):
        assert isinstance(exact.nearest[side], Exact)
        found = approximate.haystacks[side].nearest
        assert isinstance(found, Approximate)
        built = approximate.record["approximate"][side]
        assert found.probes == built["probes"]
        assert built["recall"] >= 0.9
        rows = exact.vectors[side]
        assert found.top(rows, 1)[1][:, 0].tolist() == list(range(len(rows)))
    # Brought up to date it stays, made anew without it goes.
    copy = shutil.copytree(whole, tmp_path / "copy")
    made = make_index(store_of((0, 1)), Counting(), copy)
    assert made.approximate is not None
    assert isinstance(open_index(copy).nearest["midi"], Approximate)
    made = make_index(store_of((0, 1)), Counting(), copy, overwrite=True)
    assert made.approximate is None
    assert not list(copy.glob("*.faiss"))
    assert isinstance(open_index(copy).nearest["midi"], Exact)


@pytest.mark.parametrize("approximate", [False, True])
def test_an_index_compares_as_its_embedder_does(
    approximate: bool, store_of: Any, out: Path
) -> None:
    if approximate:
        pytest.importorskip("faiss")
    embedder = Counting()
    embedder.comparison = Comparison(slots=8, lags=2, cost=0.05)
    make_index(store_of((0, 1)), embedder, out, approximate=approximate)
    index = open_index(out)
    for side, other in (("audio", "midi"), ("midi", "audio")):
        haystack = index.haystacks[side]
        nearest: Any = haystack.nearest
        assert isinstance(nearest, Approximate if approximate else Exact)
        assert haystack.comparison == nearest.comparison == embedder.comparison
        sample = index.stored[other].astype(np.float32)  # few rows: the sample is all of them
        wanted = embedder.comparison.likeness(index.stored[side].astype(np.float32), sample)
        np.testing.assert_allclose(haystack.mean, wanted.mean(axis=1), atol=1e-5)
        np.testing.assert_allclose(haystack.sigma, wanted.std(axis=1), atol=1e-5)
    # Compared otherwise it is no longer what it was, though no vector is made again.
    other_way = Counting()
    assert make_index(store_of((0, 1)), other_way, out, approximate=approximate).embedded == 0
    assert not other_way.asked
    assert open_index(out).haystacks["midi"].comparison == COSINE
    make_index(store_of((0, 1)), embedder, out, approximate=approximate)
    assert open_index(out).haystacks["midi"].comparison == embedder.comparison


# ---- models


def test_the_model_is_in_the_index(
    split_store: Store, run_folder: Path, model_folder: Path, out: Path, tmp_path: Path
) -> None:
    own, exported = ModelEmbedder(open_run(run_folder)), ModelEmbedder(open_run(model_folder))
    assert own.identity == exported.identity
    for embedder, folder in ((own, out), (exported, tmp_path / "other")):

        def keep(to: Path, embedder: ModelEmbedder = embedder) -> None:
            pack_model(embedder.run, to)

        make_index(split_store, embedder, folder, keep_model=keep)
    names = [f"{side}-*.npy" for side in ("audio", "midi")]
    for name in names:
        (a,), (b,) = out.glob(name), (tmp_path / "other").glob(name)
        assert a.name == b.name
        assert a.read_bytes() == b.read_bytes()
    index = open_index(out)
    inside = index.embedder()
    assert inside.name == run_folder.name
    np.testing.assert_array_equal(
        inside.segments(split_store, np.arange(9))["audio"],
        own.segments(split_store, np.arange(9))["audio"],
    )
    assert index.embedder(exported) is exported
    with pytest.raises(IndexFolderError, match="was made with"):
        index.embedder(BaselineEmbedder("flux"))


def test_a_kill_leaves_the_model_that_was_there(
    split_store: Store,
    run_folder: Path,
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = ModelEmbedder(open_run(run_folder))
    make_index(split_store, own, out, keep_model=lambda to: pack_model(own.run, to))

    def other(to: Path) -> None:
        for name in ("model.safetensors", "config.json"):
            (to / name).write_bytes(b"another")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(indexing, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        make_index(split_store, Counting(), out, overwrite=True, keep_model=other)
    assert open_index(out).embedder().identity == own.identity


def test_what_is_not_of_the_index_stays(
    store_of: Callable[[tuple[int, ...]], Store], flux: BaselineEmbedder, out: Path
) -> None:
    make_index(store_of((0, 1)), flux, out)
    mine = [out / "mynotes.parquet", out / "model-mine/weights", out / "audio-1.npy"]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    make_index(store_of((0, 1, 2)), flux, out)
    assert [file.read_text() for file in mine] == ["mine"] * 3
    assert len(list(out.glob("audio-*.npy"))) == 2  # the index's own of before has gone
