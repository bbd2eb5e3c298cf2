"""One flux index of six recordings, their files, one tiny trained model: for all tests of search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from makers import make_audio, make_notes, write_midi
from typer.testing import CliRunner

from pipeline.store import Store
from trainer.cli import export_app, train_app
from trainer.search import chance
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
