"""Fixtures for every test: a tiny corpus made here, a store built from it, the real recordings."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from makers import Spec, build_quietly, corpus_of, make_corpus

from pipeline.corpora.recordings import Recording, load_table
from pipeline.store import Store


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of a corpus of four recordings (read-only: copy it to change it)."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def tiny_store(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of :func:`tiny_corpus` (read-only)."""
    return build_quietly(corpus_of(tiny_corpus), tmp_path_factory.mktemp("stores")).store


@pytest.fixture(scope="session")
def split_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of six recordings of half a minute, two a split (read-only)."""
    specs = tuple(
        Spec(f"{split}-{i}", seconds=24.0, split=split, title=f"{split}, BWV {n}{i}")
        for n, split in enumerate(("train", "validation", "test"), 1)
        for i in range(2)
    )
    corpus = corpus_of(make_corpus(tmp_path_factory.mktemp("corpus"), specs))
    return build_quietly(corpus, tmp_path_factory.mktemp("out")).store


@pytest.fixture
def own_corpus(tiny_corpus: Path, tmp_path: Path) -> Path:
    """The table of a private copy of the tiny corpus."""
    shutil.copytree(tiny_corpus.parent, tmp_path / "corpus")
    return tmp_path / "corpus" / tiny_corpus.name


@pytest.fixture
def own_store(tiny_store: Store, tmp_path: Path) -> Path:
    """The folder of a private copy of the tiny store."""
    target = tmp_path / "features" / tiny_store.path.name
    shutil.copytree(tiny_store.path, target)
    return target


@pytest.fixture(scope="session")
def recordings(tiny_corpus: Path) -> list[Recording]:
    return load_table(tiny_corpus)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings, where there is one."""
    folder = Path(os.environ.get("XMODAL_TEST_DATA") or "/nonexistent")
    if not (folder / "maps-metadata.csv").is_file():
        pytest.skip("no test data")
    return folder


@pytest.fixture(scope="session")
def long_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of six minutes in six recordings: several shards of every array."""
    specs = tuple(
        Spec(f"r{i}", rate=24_000, channels=1, suffix=suffix, seconds=61.0 + i)
        for i, suffix in enumerate((".wav", ".flac", ".wav", ".wav", ".flac", ".wav"))
    )
    return make_corpus(tmp_path_factory.mktemp("long"), specs, "long.csv")


@pytest.fixture(scope="session")
def long_store(long_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of :func:`long_corpus` (read-only)."""
    corpus = corpus_of(long_corpus, name="long")
    return build_quietly(corpus, tmp_path_factory.mktemp("long-stores")).store
