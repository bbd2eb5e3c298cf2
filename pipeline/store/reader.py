"""Opening a store, and reading it only through checks.

``Store.open`` refuses a folder without a commit record, one of another schema, or one whose files
are missing or of another length. Tables are verified against their SHA-256 when first read, array
chunks against their CRC-32C at every read.
"""

from __future__ import annotations

import contextlib
import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.base.config import digest, from_plain
from pipeline.base.errors import StoreError
from pipeline.base.files import read_json, sha256_file
from pipeline.descriptors.contract import Notes
from pipeline.store.schema import (
    ARRAYS,
    RECORD,
    SCHEMA,
    SCHEMAS,
    ArrayInfo,
    Segmentation,
    is_sealed,
)

Strings = npt.NDArray[np.object_]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordingTable:
    """Columns of ``recordings.parquet``; the index is the recording's id."""

    key: Strings
    composer: Strings
    title: Strings
    composition: Strings
    split: Strings
    year: npt.NDArray[np.int32]
    duration_s: npt.NDArray[np.float64]
    n_segments: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.key)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SegmentTable:
    """Columns of ``segments.parquet``; the index is the segment's id."""

    recording: npt.NDArray[np.int32]
    split: Strings
    start_s: npt.NDArray[np.float64]
    audio_start: npt.NDArray[np.int64]
    note_start: npt.NDArray[np.int64]
    note_count: npt.NDArray[np.int32]
    valid: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.recording)

    def of_split(self, split: str) -> npt.NDArray[np.int64]:
        """Ids of the segments of one split, ascending."""
        return np.flatnonzero(self.split == split)


class Store:
    """A committed store, open for reading.

    Attributes
    ----------
    path : its folder
    record : the commit record, as written
    identity : hash of corpus table, input fingerprints, segmentation and sample rate
    arrays : what it holds, by name
    """

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self.record = record
        self.identity: str = record["identity"]
        self.segmentation = from_plain(Segmentation, record["segmentation"], "segmentation")
        self.arrays = {
            name: from_plain(ArrayInfo, info, f"arrays.{name}")
            for name, info in record["arrays"].items()
        }
        self._notes_verified = False

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open the store in ``path``.

        Raises
        ------
        StoreError
            kinds ``missing`` (no folder), ``not-a-store``, ``incomplete`` (no commit record yet),
            ``schema``, ``damaged`` (files missing or of another length).
        """
        path = Path(path)
        record = read_record(path)
        store = cls(path, record)
        for name, entry in record["files"].items():
            try:
                size = (path / name).stat().st_size
            except OSError:
                raise damaged(path, name, "is missing") from None
            if size != entry["size"]:
                raise damaged(path, name, f"has {size} bytes, not {entry['size']}")
        for info in store.arrays.values():
            store._verify(info.metadata_path())
        return store

    @property
    def name(self) -> str:
        """The folder's name, ``<corpus>-<hash12>``."""
        return self.path.resolve().name

    def require(self, names: list[str] | tuple[str, ...]) -> None:
        """Raise :class:`StoreError` (kind ``no-array``) unless the store has all these arrays."""
        absent = [name for name in names if name not in self.arrays]
        if absent:
            raise StoreError(
                f"{self.path} has no array {', '.join(absent)}; add it with: "
                f"xmodal-features add {self.path} --descriptors {','.join(absent)}",
                kind="no-array",
            )

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Rows ``[start, stop)`` of an array, read through its checksums."""
        self.require([name])
        info = self.arrays[name]
        stop = info.shape[0] if stop is None else min(stop, info.shape[0])
        for shard in range(start // info.shard_rows, -(-stop // info.shard_rows)):
            # Zarr would take a file that went missing since the store was opened for fill values.
            if not (self.path / info.shard_path(shard)).is_file():
                raise damaged(self.path, info.shard_path(shard), "is missing")
        try:
            return np.asarray(self._open_array(name)[start:stop])
        except (ValueError, OSError, RuntimeError) as error:
            raise damaged(self.path, f"{ARRAYS}/{name}", f"does not verify ({error})") from error

    @cached_property
    def recordings(self) -> RecordingTable:
        """The recordings, one row per row of the corpus table."""
        table = self.table("recordings")
        return RecordingTable(
            **{f.name: _column(table, f.name) for f in dataclasses.fields(RecordingTable)}
        )

    @cached_property
    def grouping(self) -> str:
        """Hash of which recordings share a composition, whatever the compositions are called."""
        first: dict[str, int] = {}
        codes = [first.setdefault(name, len(first)) for name in self.recordings.composition]
        return digest(codes)

    @cached_property
    def segments(self) -> SegmentTable:
        """The segments, in (recording, start) order."""
        table = self.table("segments")
        return SegmentTable(
            **{f.name: _column(table, f.name) for f in dataclasses.fields(SegmentTable)}
        )

    def notes(self, start: int = 0, stop: int | None = None) -> Notes:
        """Note rows ``[start, stop)``; only the row groups that hold them are read."""
        names = [f.name for f in dataclasses.fields(Notes)]
        if start == 0 and stop is None:
            table = self.table("notes")
        else:
            if not self._notes_verified:  # page checksums do not cover the file's footer
                self._verify("notes.parquet")
                self._notes_verified = True
            table = read_note_rows(self.path, start, stop)
        return Notes(**{name: _column(table, name) for name in names})

    def table(self, name: str) -> pa.Table:
        """One whole table, verified against its recorded SHA-256."""
        self._verify(f"{name}.parquet")
        table = pq.read_table(self.path / f"{name}.parquet")
        if not table.schema.equals(SCHEMAS[name]):
            raise damaged(self.path, f"{name}.parquet", "has other columns than schema 1")
        return table

    def _verify(self, name: str) -> None:
        entry = self.record["files"].get(name)
        try:
            found = sha256_file(self.path / name)
        except FileNotFoundError:
            raise damaged(self.path, name, "is missing") from None
        if entry is None or found != entry["sha256"]:
            if read_record(self.path) != self.record:
                raise StoreError(
                    f"the store {self.path} was built on since it was opened; start again",
                    kind="changed",
                )
            raise damaged(self.path, name, "does not match its SHA-256")

    def _open_array(self, name: str) -> Any:
        if name not in self._open_arrays:
            import zarr  # slow to load, and who only asks what a store is needs no array

            self._open_arrays[name] = zarr.open_array(self.path / ARRAYS / name, mode="r")
        return self._open_arrays[name]

    @cached_property
    def _open_arrays(self) -> dict[str, Any]:
        return {}


def read_record(path: Path) -> dict[str, Any]:
    """The commit record of a store, checked for schema; see :meth:`Store.open` for the errors."""
    if not path.is_dir():
        raise StoreError(
            f"there is no store at {path}; make one with: make features", kind="missing"
        )
    file = path / RECORD
    if not file.exists():
        if (path / ".build").is_dir():
            raise StoreError(
                f"the store {path} is half-built; repeat the xmodal-features build command that "
                "made it, which continues where it stopped",
                kind="incomplete",
            )
        raise StoreError(f"{path} is not a store: it has no {RECORD}", kind="not-a-store")
    try:
        record = read_json(file)
    except ValueError as error:
        raise damaged(path, RECORD, f"is not valid JSON ({error})") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise StoreError(
            f"{path} has schema {found}, this version reads {SCHEMA}; build it again", kind="schema"
        )
    if not is_sealed(record):
        raise damaged(path, RECORD, "does not match its own SHA-256")
    return record


def read_note_rows(path: Path, start: int, stop: int | None) -> pa.Table:
    """Rows ``[start, stop)`` of ``notes.parquet``; page checksums are verified."""
    try:
        with pq.ParquetFile(path / "notes.parquet", page_checksum_verification=True) as file:
            total = file.metadata.num_rows
            stop = total if stop is None else min(stop, total)
            wanted: list[int] = []
            first = at = 0
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if at < stop and at + rows > start:
                    if not wanted:
                        first = at
                    wanted.append(group)
                at += rows
            if not wanted:
                return NO_NOTES
            return file.read_row_groups(wanted).slice(start - first, stop - start)
    except (OSError, ValueError) as error:  # pyarrow's own errors are among them
        raise damaged(path, "notes.parquet", f"does not verify ({error})") from error


def find_newest(folder: Path, corpus: str | None = None) -> Path:
    """The store under ``folder`` that was committed last, by the time in its commit record.

    ``corpus``: of this corpus alone, which is what stores' folders are called by: ``<corpus>-<hash>``.
    """
    records = sorted(folder.glob(f"*/{RECORD}"))
    if corpus is not None:  # a name may begin like another one: maestro, maestro-v3
        records = [r for r in records if r.parent.name.rpartition("-")[0] == corpus]
    found: dict[Path, str] = {}
    for file in records:
        with contextlib.suppress(StoreError):  # a damaged one is nobody's default
            found[file.parent] = str(read_record(file.parent)["committed_at"])
    if not found:
        what, how = "store", "make features"
        if corpus is not None:
            what = f"store of the corpus '{corpus}'"
            how = (
                f"xmodal-features build --corpus {corpus} --out {folder}, or name one with --store"
            )
        raise StoreError(f"there is no {what} under {folder}; make one with: {how}", kind="missing")
    return max(found, key=lambda path: found[path])


def damaged(path: Path, name: str, how: str) -> StoreError:
    """The error for a file of a store that is not what was committed."""
    return StoreError(
        f"the store {path} is damaged: {name} {how}; delete the folder and build it again",
        kind="damaged",
        details=[{"file": name, "how": how}],
    )


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    return table.column(name).to_numpy(zero_copy_only=False)


NO_NOTES = SCHEMAS["notes"].empty_table()
