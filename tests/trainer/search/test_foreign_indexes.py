"""Indexes that are damaged, of another version or model, or none: named, never built upon."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from index_fakes import Counting, data_of, everything

from pipeline.base.errors import UsageError
from trainer.search.embedders import BaselineEmbedder
from trainer.search.errors import IndexFolderError
from trainer.search.folder import open_index
from trainer.search.indexing import make_index

pytestmark = pytest.mark.usefixtures("chance_unmeasured")


# ---- damage


KINDS = {"audio": ".npy", "midi": ".npy", "rows": ".parquet", "recordings": ".parquet"}


@pytest.mark.parametrize("how", ["truncated", "changed", "missing"])
def test_every_damaged_file_is_named(whole: Path, tmp_path: Path, how: str) -> None:
    named = json.loads((whole / "index.json").read_text())["files"]
    stems = sorted((name.partition("-")[0], Path(name).suffix) for name in named)
    assert stems[-1] == ("rows", ".parquet")
    assert len(stems) == 7
    for name in named:
        copy = shutil.copytree(whole, tmp_path / name.replace("/", "-"))
        data = bytearray((copy / name).read_bytes())
        if how == "missing":
            (copy / name).unlink()
        elif how == "truncated":
            (copy / name).write_bytes(data[:-1])
        else:
            data[len(data) // 2] ^= 1
            (copy / name).write_bytes(data)
        with pytest.raises(IndexFolderError, match="is damaged: ") as caught:
            open_index(copy)
        assert caught.value.kind == "damaged"
        assert f"damaged: {name} " in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.details[0]["file"] == name


def test_an_edited_record_is_damage(whole: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    record = json.loads((copy / "index.json").read_text())
    record["chance"]["audio"]["windows"] = [1]
    (copy / "index.json").write_text(json.dumps(record))
    with pytest.raises(IndexFolderError, match=r"index\.json does not match its own") as caught:
        open_index(copy)
    assert caught.value.kind == "damaged"


@pytest.mark.parametrize("content", [b"", b'{"kind": "xmodal-index", "sch', b"\xff\xfe\x00"])
def test_a_record_that_does_not_read_is_damage_and_is_made_again(
    store_of: Any, out: Path, content: bytes
) -> None:
    make_index(store_of((0,)), Counting(), out)
    before = data_of(out)
    (out / "index.json").write_bytes(content)
    with pytest.raises(IndexFolderError, match=r"index\.json does not read") as caught:
        open_index(out)
    assert caught.value.kind == "damaged"
    with pytest.raises(IndexFolderError, match="--overwrite"):
        make_index(store_of((0,)), Counting(), out)
    make_index(store_of((0,)), Counting(), out, overwrite=True)  # as the message says
    assert data_of(out) == before
    assert len(open_index(out))


def test_what_is_damaged_is_not_built_upon(store_of: Any, out: Path) -> None:
    make_index(store_of((0, 1)), Counting(), out)
    (victim,) = out.glob("audio-*.npy")
    victim.write_bytes(victim.read_bytes()[:-2])
    with pytest.raises(IndexFolderError, match=f"{victim.name} has"):
        make_index(store_of((0, 2, 1)), Counting(), out)
    embedder = Counting()
    make_index(store_of((0, 2, 1)), embedder, out, overwrite=True)
    assert embedder.embedded == len(open_index(out))


def test_a_record_of_another_version_is_said(store_of: Any, out: Path) -> None:
    make_index(store_of((0,)), Counting(), out)
    record = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps({**record, "schema": 99}))
    with pytest.raises(IndexFolderError, match="make it again") as caught:
        open_index(out)
    assert caught.value.kind == "schema"


# ---- whose it is


def test_an_index_of_another_model_is_refused(store_of: Any, out: Path) -> None:
    store, chroma = store_of((0,)), BaselineEmbedder("chroma")
    make_index(store, Counting(), out)
    before = everything(out)
    with pytest.raises(IndexFolderError, match="made with flux, not with chroma") as caught:
        make_index(store, chroma, out)
    assert caught.value.kind == "other-model"
    with pytest.raises(IndexFolderError, match="made with flux, not with chroma") as caught:
        open_index(out).embedder(chroma)
    assert caught.value.kind == "other-model"
    assert everything(out) == before
    make_index(store, chroma, out, overwrite=True)
    assert open_index(out).embedder().identity == chroma.identity
    assert len(list(out.glob("*.npy"))) == 2


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "content", [{"precious.txt": "x"}, {"index.json": '{"kind": "other"}'}, {"index.json": "{"}]
)
def test_a_foreign_folder_is_refused_and_untouched(
    store_of: Any, out: Path, content: dict[str, str], overwrite: bool
) -> None:
    out.mkdir()
    for name, text in content.items():
        (out / name).write_text(text)
    before = everything(out)
    with pytest.raises(UsageError, match="is no index, and not empty"):
        make_index(store_of((0,)), Counting(), out, overwrite=overwrite)
    assert everything(out) == before
    assert sorted(p.name for p in out.iterdir()) == sorted(content)


def test_what_is_no_index_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match="there is no index at") as caught:
        open_index(tmp_path / "none")
    assert caught.value.kind == "missing"
    with pytest.raises(IndexFolderError, match="is not an index") as caught:
        open_index(tmp_path)
    assert caught.value.kind == "not-an-index"
