"""One build by several processes that know nothing of each other but the folder."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from makers import Quiet, build_quietly, contents, corpus_of, differing, start_features

from pipeline import job, parts, sounds
from pipeline.base.errors import AudioError, ConfigError, CorpusError, StoreError, UsageError
from pipeline.base.files import FolderLock
from pipeline.build import BuildConfig
from pipeline.parts import Presence, SharedTasks, parse_part
from pipeline.store import Store
from pipeline.verify import verify

DEADLINE_S = 100.0


def start(corpus: Path, out: Path, *flags: object) -> subprocess.Popen[str]:
    return start_features("build", "--corpus", corpus, "--out", out, *flags)


def finish(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err


def same(store: Path, other: Path) -> None:
    assert differing(contents(store), contents(other)) == {}
    assert Store.open(store).record["files"] == Store.open(other).record["files"]
    verify(store, Quiet())


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_part_is_i_of_n(text: str) -> None:
    with pytest.raises(UsageError, match="give i/n"):
        parse_part(text)
    with pytest.raises(UsageError):
        BuildConfig(part=text)


def test_a_part_has_no_workers_of_its_own() -> None:
    with pytest.raises(ConfigError, match="neither workers nor a cluster"):
        BuildConfig(part="1/2", workers=2)
    with pytest.raises(ConfigError):
        BuildConfig(part="1/2", cluster="tcp://127.0.0.1:8786")


def test_parts_at_the_same_time_give_the_same_store(
    long_corpus: Path, long_store: Store, tmp_path: Path
) -> None:
    finish([start(long_corpus, tmp_path, "--part", f"{i}/3") for i in (1, 2, 3)])
    same(tmp_path / long_store.path.name, long_store.path)


def test_one_part_alone_does_all_and_a_late_one_finds_it_done(
    tiny_corpus: Path, tiny_store: Store, tmp_path: Path
) -> None:
    """A queue may start parts hours apart, or one after the other."""
    corpus = corpus_of(tiny_corpus)
    assert build_quietly(corpus, tmp_path, part="2/4").built
    same(tmp_path / tiny_store.path.name, tiny_store.path)
    assert not build_quietly(corpus, tmp_path, part="1/4").built
    same(tmp_path / tiny_store.path.name, tiny_store.path)


@pytest.mark.full
def test_parts_extend_a_store(own_store: Path, tmp_path: Path) -> None:
    before = contents(own_store)
    flags = ("add", own_store, "--descriptors", "A8,D1", "--part")
    finish([start_features(*flags, f"{i}/2") for i in (1, 2)])
    assert {"A8", "D1"} <= set(Store.open(own_store).arrays)
    after = contents(own_store)
    assert differing({name: after[name] for name in before}, before) == {}
    verify(own_store, Quiet())


def test_a_part_and_a_whole_build_keep_out_of_each_others_way(
    own_corpus: Path, tiny_store: Store, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(parts, "PATIENCE_S", 0.2)
    out, corpus = tmp_path / "out", corpus_of(own_corpus)
    folder = out / tiny_store.path.name
    with Presence(folder), pytest.raises(StoreError, match="parts of a shared build") as caught:
        build_quietly(corpus, out)
    assert caught.value.kind == "locked"
    with FolderLock(folder), pytest.raises(StoreError) as caught:
        build_quietly(corpus, out, part="1/2")
    assert caught.value.kind == "locked"
    build_quietly(corpus, out)
    same(folder, tiny_store.path)


@pytest.mark.full
def test_a_recording_that_breaks_while_it_is_decoded_breaks_for_all_parts(
    own_corpus: Path, tmp_path: Path
) -> None:
    """Each part leaves the same recording out, under the same identity as a build by one process."""
    flac = next(own_corpus.parent.rglob("*.flac"))
    data = bytearray(flac.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    flac.write_bytes(bytes(data))
    corpus = corpus_of(own_corpus)
    with pytest.raises(CorpusError, match=r"\.flac"):
        build_quietly(corpus, tmp_path / "refused", part="1/2")
    alone = build_quietly(corpus, tmp_path / "alone", max_failures=1)
    out = tmp_path / "shared"
    flags = ("--max-failures", 1, "--part")
    finish([start(own_corpus, out, *flags, f"{i}/2") for i in (1, 2)])
    assert [p.name for p in out.iterdir()] == [alone.store.path.name]
    same(out / alone.store.path.name, alone.store.path)
    assert Store.open(out / alone.store.path.name).record["status"] == "partial"


@pytest.mark.parametrize("parts_of", ["1/1", None])
def test_a_recording_that_fails_once_is_tried_again(
    parts_of: str | None, own_corpus: Path, tiny_store: Store, tmp_path: Path, monkeypatch
) -> None:
    """Of a network disk's bad moment nothing remains."""
    corpus, original, calls = corpus_of(own_corpus), sounds.decode, []

    def once(*args):
        calls.append(args)
        if len(calls) == 1:
            raise AudioError("the disk is away", kind="unreadable")
        return original(*args)

    monkeypatch.setattr(sounds, "decode", once)
    out = tmp_path / "out"
    with pytest.raises(CorpusError, match="the disk is away") as caught:
        build_quietly(corpus, out, part=parts_of)
    assert str(out / tiny_store.path.name) in str(caught.value)
    build_quietly(corpus, out, part=parts_of)
    assert [p.name for p in out.iterdir()] == [tiny_store.path.name]
    same(out / tiny_store.path.name, tiny_store.path)


def test_what_a_killed_part_left_half_written_goes(
    own_corpus: Path, tiny_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / tiny_store.path.name
    (folder / ".build").mkdir(parents=True)
    (folder / ".failures.parquet.123.456.tmp").write_bytes(b"PAR1")
    build_quietly(corpus_of(own_corpus), tmp_path, part="1/1")
    same(folder, tiny_store.path)


@pytest.mark.parametrize("left", [".build", "store.json"])
def test_a_folder_that_is_being_filled_or_emptied_is_not_foreign(
    left: str, tmp_path: Path, monkeypatch
) -> None:
    """What a part sees of the other's folder may be a moment between two files."""
    folder = tmp_path / "tiny-0"
    (folder / "arrays").mkdir(parents=True)

    def meanwhile(_: float) -> None:
        (folder / left).mkdir()

    with monkeypatch.context() as patch:
        patch.setattr(job.time, "sleep", meanwhile)
        job.refuse_foreign(folder)
    (folder / left).rmdir()
    monkeypatch.setattr(job.time, "sleep", lambda _: None)
    with pytest.raises(StoreError, match="not a store"):
        job.refuse_foreign(folder)
    (folder / ".build").mkdir()
    parts.empty(folder)
    assert not any(folder.iterdir())


def test_a_folder_is_emptied_with_its_journal_last(tmp_path: Path, monkeypatch) -> None:
    gone: list[str] = []
    for name in (".build", "arrays", "zzz"):
        (tmp_path / name).mkdir()
    remove = parts.shutil.rmtree
    monkeypatch.setattr(parts.shutil, "rmtree", lambda p: (gone.append(p.name), remove(p)))
    parts.empty(tmp_path)
    assert gone[-1] == ".build"
    assert len(gone) == 3


def test_tasks_are_done_once_and_everybody_has_every_result(tmp_path: Path) -> None:
    done: list[int] = []

    def task(number: int) -> dict[str, int]:
        done.append(number)
        time.sleep(0.01)
        return {"square": number * number}

    found: dict[int, list[int]] = {}

    def part(index: int) -> None:
        results = SharedTasks(tmp_path, index, 3).run(task, list(range(20)))
        found[index] = sorted(r["square"] for r in results)

    threads = [threading.Thread(target=part, args=(i,)) for i in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(20))
    assert all(found[i] == [n * n for n in range(20)] for i in (1, 2, 3))


@pytest.mark.full
@pytest.mark.parametrize("seed", range(4))
def test_parts_killed_at_any_moment_are_made_up_for(
    seed: int, long_corpus: Path, long_store: Store, tmp_path: Path
) -> None:
    """Two of three parts are killed at random; the third, or a new one, ends with the same bytes."""
    rng = np.random.default_rng(seed)
    processes = [start(long_corpus, tmp_path, "--part", f"{i}/3") for i in (1, 2, 3)]
    for victim in processes[:2]:
        time.sleep(float(rng.uniform(0.3, 2.5)))
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
    finish(processes[2:])
    finish([start(long_corpus, tmp_path, "--part", "1/3")])
    same(tmp_path / long_store.path.name, long_store.path)
    assert not (tmp_path / long_store.path.name / parts.FOLDER).exists()
