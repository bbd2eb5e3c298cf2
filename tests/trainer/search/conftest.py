"""For all tests of search: a flux index of six recordings, their files, a tiny model, small stores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from index_fakes import SPECS, Counting
from makers import (
    build_quietly,
    corpus_of,
    make_audio,
    make_corpus,
    make_notes,
    row_of,
    write_midi,
    write_table,
)
from typer.testing import CliRunner

from pipeline.store import Store
from trainer.cli import export_app, train_app
from trainer.search import chance, indexing
from trainer.search.embedders import BaselineEmbedder
from trainer.search.folder import Index, open_index
from trainer.search.indexing import make_index

SECONDS = 24.0  # of every recording of split_store


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``0.mid``, ``0.wav`` … ``5.wav``: what the recordings of split_store were made of."""
    folder = tmp_path_factory.mktemp("files")
    for i in range(6):
        notes = make_notes(SECONDS, i)
        write_midi(folder / f"{i}.mid", notes)
        soundfile.write(folder / f"{i}.wav", make_audio(notes, SECONDS, 44_100, 2, i), 44_100)
    return folder


@pytest.fixture(scope="session")
def flux() -> BaselineEmbedder:
    return BaselineEmbedder("flux")


@pytest.fixture(scope="session")
def flux_folder(
    split_store: Store, flux: BaselineEmbedder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An index of split_store (read-only) that says what chance scores, small as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chance, "ENOUGH", 6)
        return make_index(split_store, flux, tmp_path_factory.mktemp("indexes") / "flux").path


@pytest.fixture(scope="session")
def flux_index(flux_folder: Path) -> Index:
    return open_index(flux_folder)


@pytest.fixture(scope="session")
def run_folder(split_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of split_store: tiny, two batches."""
    return quick_run(split_store, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def model_folder(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a folder of files."""
    out = tmp_path_factory.mktemp("models") / "mine"
    done = CliRunner().invoke(export_app, [str(run_folder), str(out)])
    assert done.exit_code == 0, done.output
    return out


def quick_run(store: Store, out: Path, *flags: str) -> Path:
    small = "--arm a4 --size tiny --epochs 1 --batches-per-epoch 2 --batch-size 4 --pool-size 4"
    given = [*small.split(), "--store", str(store.path), "--out", str(out), "--json", *flags]
    done = CliRunner().invoke(train_app, given)
    assert done.exit_code == 0, done.output
    return Path(json.loads(done.stdout)["run"])


@pytest.fixture
def chance_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """How high chance scores is not the point here."""
    monkeypatch.setattr(indexing, "STRETCHES", 0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), SPECS)


@pytest.fixture(scope="module")
def store_of(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[tuple[int, ...]], Store]:
    """``store_of((0, 2))``: the store of these recordings."""
    made: dict[tuple[int, ...], Store] = {}

    def go(chosen: tuple[int, ...]) -> Store:
        if chosen not in made:
            name = f"{'-'.join(map(str, chosen))}.csv"
            table = write_table(corpus.parent / name, [row_of(SPECS[i]) for i in chosen])
            out = tmp_path_factory.mktemp("stores")
            made[chosen] = build_quietly(corpus_of(table), out).store
        return made[chosen]

    return go


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture(scope="module")
def whole(store_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with all kinds of files (read-only)."""
    pytest.importorskip("faiss")

    def model(folder: Path) -> None:
        (folder / "config.json").write_text("{}")

    out = tmp_path_factory.mktemp("whole") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexing, "STRETCHES", 0)
        make_index(store_of((0, 1, 2)), Counting(), out, approximate=True, keep_model=model)
    return out
