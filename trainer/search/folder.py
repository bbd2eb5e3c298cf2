"""An index on the disk: a folder that is whole or does not count.

``index.json``
    the commit record, written last and sealed with its own SHA-256: whose vectors these are, of which
    store, every file with size and SHA-256, how high chance scores
``rows-<hash>.parquet``
    recording (number), segment (of the store), start_s, and of both sides the moments of likeness
    (:mod:`trainer.search.placing`): one row per segment with notes
``recordings-<hash>.parquet``
    key, composer, title, composition, split, duration_s, content (SHA-256 of its sound and notes in
    the store), store_recording
``audio-<hash>.npy``, ``midi-<hash>.npy``
    float16 [rows, D], unit vectors
``audio-<hash>.faiss``, ``midi-<hash>.faiss``
    approximate indexes, where asked for
``model-<hash>/``
    the model, as ``xmodal-export`` writes it but for the card: a query needs neither the run nor, for
    its answer, the store

Data files carry their hash in their names: a new state of the index is written beside the old one, and
is there when ``index.json`` is replaced.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline.base.config import digest
from pipeline.base.files import atomic_write, read_json, sha256_file, write_json
from pipeline.descriptors.contract import Side
from pipeline.store.schema import is_sealed, seal
from trainer.retrieval.lags import Comparison
from trainer.run import open_run
from trainer.search.chance import Chance
from trainer.search.contents import SIDES
from trainer.search.embedders import BaselineEmbedder, Embedder, ModelEmbedder
from trainer.search.errors import IndexFolderError
from trainer.search.finding import Haystack
from trainer.search.nearest import Approximate, Exact, spread
from trainer.search.placing import Places

RECORD, PARTS, MODEL = "index.json", ".parts", "model"
OURS = re.compile(r"(audio|midi|rows|recordings|model)-[0-9a-f]{12}(\.npy|\.faiss|\.parquet)?")
SCHEMA, KIND = 1, "xmodal-index"
BACKGROUND = 2048  # rows by which likeness is measured

Half = npt.NDArray[np.float16]


class ByNeed(dict[Any, Any]):
    """Values that are made when they are first asked for: a query needs one side of an index."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Any) -> Any:
        value = self[key] = self._make(key)
        return value


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """An index, open for searching.

    Attributes
    ----------
    path, record : its folder and its commit record
    recordings : the table, one row per recording
    rows : columns of the rows
    stored : by side, unit rows float16 [n, D], on the disk
    vectors : by side, the same in memory as float32 where they are searched exactly
    nearest : by side, what finds rows
    """

    path: Path
    record: dict[str, Any]
    recordings: pa.Table
    rows: pa.Table
    stored: dict[Side, Half]
    vectors: dict[Side, npt.NDArray[Any]]
    nearest: dict[Side, Exact | Approximate]

    def __len__(self) -> int:
        return self.rows.num_rows

    @cached_property
    def haystacks(self) -> dict[Side, Haystack]:
        """Each side as it is searched."""
        return ByNeed(self._haystack)

    @cached_property
    def names(self) -> dict[str, list[Any]]:
        """The table of recordings as lists, by column."""
        return {
            name: self.recordings.column(name).to_pylist() for name in self.recordings.schema.names
        }

    def _haystack(self, side: Side) -> Haystack:
        return Haystack(
            vectors=self.vectors[side],
            places=self.places(),
            background=self.stored[side][spread(len(self), BACKGROUND)].astype(np.float32),
            mean=self.rows.column(f"{side}_mean").to_numpy(),
            sigma=self.rows.column(f"{side}_sigma").to_numpy(),
            nearest=self.nearest[side],
            comparison=comparison_in(self.record),
        )

    def places(self) -> Places:
        """Where the rows lie."""
        recording, start = (self.rows.column(n).to_numpy() for n in ("recording", "start_s"))
        return Places.of(recording, start, self.recordings.num_rows)

    def chance(self, side: Side) -> Chance:
        """Of queries of this side."""
        return Chance.from_plain(self.record["chance"][side])

    def embedder(
        self, other: Embedder | None = None, device: torch.device | str = "cpu"
    ) -> Embedder:
        """Its own embedder, or ``other`` if that is the same one.

        Raises
        ------
        IndexFolderError
            (kind ``other-model``) when it is not.
        """
        name = self.record["embedder"]["name"]
        if other is not None:
            if other.identity != self.record["embedder"]["identity"]:
                raise IndexFolderError(
                    f"{self.path} was made with {name}, not with {other.name}: their vectors cannot "
                    "be compared; make another index, or leave --run and --baseline away",
                    kind="other-model",
                )
            return other
        if self.record["embedder"]["identity"]["kind"] == "baseline":
            found: Embedder = BaselineEmbedder(name)
        else:
            found = ModelEmbedder(open_run(self.path / self.record["model"]), device)
            found.name = name
        if found.identity != self.record["embedder"]["identity"]:
            raise IndexFolderError(
                f"{self.path} was made by another version of {name} than this; make it again: "
                "xmodal-search index",
                kind="other-model",
            )
        return found


def open_index(path: Path, *, exact: bool = False) -> Index:
    """Open an index; every file is compared with its recorded SHA-256.

    What is open stays as it is when the index is brought up to date meanwhile; an approximate index
    that was not asked yet says that it has gone.

    Parameters
    ----------
    exact : search exactly even where there is an approximate index

    Raises
    ------
    IndexFolderError
        kinds ``missing``, ``not-an-index``, ``schema``, ``damaged``.
    """
    record = read_record(path)
    try:
        return _opened(path, record, exact)
    except (IndexFolderError, FileNotFoundError):
        if read_record(path) == record:
            raise
    return _opened(path, read_record(path), exact)  # it was brought up to date in between


def _opened(path: Path, record: dict[str, Any], exact: bool) -> Index:
    for name, entry in record["files"].items():
        file = path / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise damaged(path, RECORD, "names a file elsewhere")
        if not file.is_file():
            raise damaged(path, name, "is missing")
        size = file.stat().st_size
        if size != entry["size"]:
            raise damaged(path, name, f"has {size} bytes, not {entry['size']}")
        if sha256_file(file) != entry["sha256"]:
            raise damaged(path, name, "does not match its SHA-256")
    shape = (record["rows"], record["embedder"]["width"])
    comparison = comparison_in(record)
    stored: dict[Side, Half] = {}
    for side in SIDES:
        stored[side] = np.load(path / record["data"][side], mmap_mode="r", allow_pickle=False)
        if stored[side].dtype != np.float16 or stored[side].shape != shape:
            raise damaged(path, record["data"][side], "is not of the index's shape")

    def approximate(side: Side) -> dict[str, Any] | None:
        return record["approximate"][side] if record["approximate"] and not exact else None

    def in_memory(side: Side) -> npt.NDArray[Any]:
        return stored[side] if approximate(side) else stored[side].astype(np.float32)

    def finder(side: Side) -> Exact | Approximate:
        made = approximate(side)
        if made is None:
            return Exact(vectors[side], comparison)
        try:
            found = Approximate.open(path / made["file"], made["probes"], comparison)
        except RuntimeError:  # FAISS's word for a file that is not there
            raise IndexFolderError(
                f"{path} was brought up to date meanwhile; repeat the query", kind="changed"
            ) from None
        if (found.index.ntotal, found.index.d) != shape:
            raise damaged(path, made["file"], "is not of the index's shape")
        return found

    vectors: dict[Side, npt.NDArray[Any]] = ByNeed(in_memory)
    nearest: dict[Side, Exact | Approximate] = ByNeed(finder)
    return Index(
        path=path,
        record=record,
        recordings=pq.read_table(path / record["data"]["recordings"]),
        rows=pq.read_table(path / record["data"]["rows"]),
        stored=stored,
        vectors=vectors,
        nearest=nearest,
    )


def comparison_in(record: dict[str, Any]) -> Comparison:
    """How an index compares; one from before there was a choice does so by cosine."""
    return Comparison(**record["embedder"].get("comparison", {}))


def read_record(path: Path) -> dict[str, Any]:
    """The commit record of an index; see :func:`open_index` for the errors."""
    if not path.is_dir():
        raise IndexFolderError(
            f"there is no index at {path}; make one with: xmodal-search index STORE --baseline flux "
            f"--out {path}",
            kind="missing",
        )
    if not (path / RECORD).exists():
        what = (
            "is half-made; repeat its xmodal-search index command, which goes on where it stopped"
        )
        if not (path / PARTS).is_dir():
            what = f"is not an index: it has no {RECORD}"
        raise IndexFolderError(f"{path} {what}", kind="not-an-index")
    try:
        record = read_json(path / RECORD)
    except (ValueError, RecursionError) as error:
        raise damaged(path, RECORD, f"does not read ({error})") from None
    if not isinstance(record, dict) or record.get("kind") != KIND or record.get("schema") != SCHEMA:
        raise IndexFolderError(
            f"{path}/{RECORD} is not an index that this version reads; make it again", kind="schema"
        )
    if not is_sealed(record):
        raise damaged(path, RECORD, "does not match its own SHA-256")
    return record


def damaged(path: Path, name: str, how: str) -> IndexFolderError:
    """The error for a file of an index that is not what was committed."""
    return IndexFolderError(
        f"the index {path} is damaged: {name} {how}; repeat its xmodal-search index command with "
        "--overwrite",
        kind="damaged",
        details=[{"file": name, "how": how}],
    )


# ---- writing


def keep(path: Path, stem: str, suffix: str, write: Callable[[IO[Any]], None]) -> str:
    """Write a data file under a name that says what is in it; returns the name."""
    staged = path / PARTS / f"{stem}{suffix}"
    with atomic_write(staged) as handle:
        write(handle)
    name = f"{stem}-{sha256_file(staged)[:12]}{suffix}"
    staged.replace(path / name)
    return name


def keep_model(path: Path, write: Callable[[Path], None]) -> str:
    """Write a folder with a model under a name that says what is in it; returns the name."""
    staged = path / PARTS / MODEL
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    write(staged)
    files = sorted(staged.iterdir())
    name = f"{MODEL}-{digest([[file.name, sha256_file(file)] for file in files])}"
    if (path / name).is_dir():  # of an index that is there, whole or damaged
        for file in files:
            file.replace(path / name / file.name)
    else:
        staged.replace(path / name)
    return name


def commit(path: Path, record: dict[str, Any], files: list[str]) -> None:
    """Write the record; from now on the index is what it says, and older data files go."""
    listed = {
        name: {"size": (path / name).stat().st_size, "sha256": sha256_file(path / name)}
        for name in sorted(files)
    }
    write_json(path / RECORD, seal({**record, "schema": SCHEMA, "kind": KIND, "files": listed}))
    kept = {*listed, record["model"]}
    for found in [p for p in path.iterdir() if OURS.fullmatch(p.name) and p.name not in kept]:
        if found.is_dir():
            shutil.rmtree(found, ignore_errors=True)
        else:
            found.unlink()
    shutil.rmtree(path / PARTS, ignore_errors=True)


def is_index(path: Path) -> bool:
    """Whether a folder holds an index, damaged or not, whole or half-made."""
    if (path / PARTS).is_dir():
        return True
    try:
        return bool(read_json(path / RECORD)["kind"] == KIND)
    except (OSError, KeyError, TypeError):
        return False
    except ValueError:  # a damaged record: an index's, where its data lies beside it
        return any(path.glob("rows-*.parquet"))
