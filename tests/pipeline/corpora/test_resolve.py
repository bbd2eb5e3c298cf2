"""``--corpus`` to a named table and a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError, CorpusError
from pipeline.corpora.resolve import CORPORA, CorpusRequest, resolve_corpus


def request(tmp_path: Path, root: Path | None = None) -> CorpusRequest:
    return CorpusRequest(root=root, cache=tmp_path / "cache", workers=0)


def test_a_table_is_its_own_corpus(tiny_corpus: Path, tmp_path: Path) -> None:
    found = resolve_corpus(str(tiny_corpus), request(tmp_path))
    assert (found.name, found.root) == ("tiny", tiny_corpus.parent)
    assert found.descriptors == ("mel", "A4", "D4")
    assert len(found.recordings) == 4


def test_a_root_elsewhere(tiny_corpus: Path, tmp_path: Path) -> None:
    table = shutil.copy(tiny_corpus, tmp_path / "Größer, Ä-2.csv")
    found = resolve_corpus(str(table), request(tmp_path, tiny_corpus.parent))
    assert found.root == tiny_corpus.parent
    assert found.name == "gr-er-2"


@pytest.mark.parametrize("suffix", [".csv"])
def test_maestro_needs_its_folder(suffix: str, tiny_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="--root"):
        resolve_corpus("maestro", request(tmp_path))
    with pytest.raises(CorpusError, match="holds neither"):
        resolve_corpus("maestro", request(tmp_path, tmp_path))
    shutil.copy(tiny_corpus, tmp_path / f"maestro-v3.0.0{suffix}")
    found = resolve_corpus("maestro", request(tmp_path, tmp_path))
    assert (found.name, len(found.recordings)) == ("maestro", 4)
    assert found.descriptors == ("A4", "D4")


def test_unknown_names_and_missing_tables(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'maestro'"):
        resolve_corpus("maestr0", request(tmp_path))
    with pytest.raises(CorpusError, match="no corpus table"):
        resolve_corpus(str(tmp_path / "x.csv"), request(tmp_path))
    assert CORPORA.names() == ["demo", "maestro"]
