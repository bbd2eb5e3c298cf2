"""A store → an index; an index that is there is brought up to date, embedding only what is new.

Recordings are told apart by what the store holds of them, their samples and notes, so that a store
that grew, was built again or lies elsewhere keeps its vectors. Embedding goes on where it stopped:
every block of recordings is a file of its own until the index is committed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.base.config import digest
from pipeline.base.errors import UsageError
from pipeline.base.files import FolderLock, atomic_write, sweep_temporaries
from pipeline.descriptors.contract import Notes, Side
from pipeline.spectral import SEGMENT_SAMPLES
from pipeline.store.reader import Store
from trainer.search import chance, folder
from trainer.search.cutting import cut_queries
from trainer.search.embedders import Embedder
from trainer.search.errors import IndexFolderError
from trainer.search.finding import OTHER, Haystack, Moments, Stretch, Windows, moments
from trainer.search.folder import (
    BACKGROUND,
    PARTS,
    RECORD,
    SIDES,
    commit,
    is_index,
    keep,
    open_index,
    read_record,
)
from trainer.search.nearest import Exact, build_approximate, load_faiss, spread
from trainer.search.placing import Places

BLOCK = 1024  # segments that are embedded, and kept, together
STRETCHES = 32  # of each side that are looked for to see what chance scores
NAMES = ("key", "composer", "title", "composition", "split", "duration_s")

Half = npt.NDArray[np.float16]
FloatArray = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Progress = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What indexing came to.

    Attributes
    ----------
    path : the index
    rows, recordings : what is in it
    embedded, kept : segments that were embedded now, and that it had
    gone : recordings that it had and the store has not
    approximate : recall and seconds of each side's approximate index, or None
    """

    path: Path
    rows: int
    recordings: int
    embedded: int
    kept: int
    gone: int
    approximate: dict[str, dict[str, float]] | None

    def plain(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**dataclasses.asdict(self), "path": str(self.path)}


def make_index(
    store: Store,
    embedder: Embedder,
    out: Path,
    *,
    keep_model: Callable[[Path], None] | None = None,
    approximate: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, note: None,
    say: Callable[[str], None] = lambda text: None,
) -> Made:
    """Index every segment of a store that has notes; bring an index that is there up to date.

    Parameters
    ----------
    keep_model : writes the embedder's model into the folder that it is given
    progress, say : called with segments done, and with what else takes long

    Raises
    ------
    IndexFolderError
        (kind ``other-model``) when ``out`` is an index of another model; (``damaged``, ``schema``)
        when it does not read; (``empty``) when the store has no segment with notes.
    UsageError
        when ``out`` is something else.
    """
    if out.exists() and not is_index(out) and any(not is_lock(p) for p in out.iterdir()):
        raise UsageError(f"{out} is no index, and not empty: name another folder")
    if approximate:
        load_faiss()  # or hours of embedding would end with the word that it is missing
    with FolderLock(out):
        sweep_temporaries(out)
        known = {} if overwrite else _known(out, embedder)
        listed = list(recordings_of(store))
        if not listed:
            raise IndexFolderError(f"{store.path} has no segment with notes", kind="empty")
        had = sum(len(r.rows) for r in listed if r.content in known)
        vectors = _vectors(listed, known, store, embedder, out / PARTS, progress)
        gone = len(set(known) - {r.content for r in listed})
        places = _places(listed, store)
        exact: dict[Side, FloatArray] = {s: v.astype(np.float32) for s, v in vectors.items()}
        sample = spread(len(places.recording), BACKGROUND)
        likeness = {side: moments(exact[side], exact[OTHER[side]][sample]) for side in SIDES}
        data: dict[str, str] = {}
        for side in SIDES:
            data[side] = keep(out, side, ".npy", partial(_save, vectors[side]))
        data["rows"] = keep(
            out, "rows", ".parquet",
            lambda f: pq.write_table(_row_table(listed, places, likeness), f),
        )  # fmt: skip
        names = _name_table(listed, store)
        data["recordings"] = keep(out, "recordings", ".parquet", lambda f: pq.write_table(names, f))
        if approximate:
            say("building the approximate indexes")
        built = _approximate(out, exact) if approximate else None
        model = None if keep_model is None else folder.keep_model(out, keep_model)
        say("measuring what chance scores")
        record = {
            "embedder": {
                "name": embedder.name, "identity": embedder.identity, "width": embedder.width,
            },
            "store": {
                "name": store.name, "path": str(store.path.resolve()), "identity": store.identity,
                "licence": store.record.get("licence"),
            },
            "rows": len(places.recording),
            "recordings": len(listed),
            "data": data,
            "model": model,
            "approximate": built,
            "chance": _chance(store, embedder, exact, likeness, places, listed),
        }  # fmt: skip
        files = [*data.values(), *(b["file"] for b in (built or {}).values())]
        files += [f"{p.relative_to(out)}" for p in out.glob(f"{model}/*")] if model else []
        commit(out, record, files)
    return Made(
        path=out, rows=len(places.recording), recordings=len(listed),
        embedded=len(places.recording) - had, kept=had, gone=gone,
        approximate=None if built is None else {
            side: {k: b[k] for k in ("probes", "recall", "seconds")} for side, b in built.items()
        },
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One recording of the store: its number there, its valid segments, what they hold."""

    number: int
    rows: Ints
    content: str


def recordings_of(store: Store) -> Iterator[Recording]:
    """The recordings of a store that have segments with notes, in order."""
    table = store.segments
    starts = table.audio_start.astype(np.int64)
    first = np.searchsorted(table.recording, np.arange(len(store.recordings) + 1))
    for number in range(len(store.recordings)):
        all_rows = np.arange(first[number], first[number + 1])
        rows = all_rows[table.valid[all_rows]]
        if not len(rows):
            continue
        content = hashlib.sha256()
        samples = store.read("audio", int(starts[rows[0]]), int(starts[rows[-1]]) + SEGMENT_SAMPLES)
        content.update(np.ascontiguousarray(samples, "<i2").tobytes())
        last = rows[-1]
        notes = store.notes(
            int(table.note_start[rows[0]]), int(table.note_start[last] + table.note_count[last])
        )
        for field in dataclasses.fields(Notes):
            content.update(np.ascontiguousarray(getattr(notes, field.name)).tobytes())
        content.update(np.ascontiguousarray(table.start_s[rows], "<f8").tobytes())
        content.update(np.ascontiguousarray(table.note_count[rows], "<i4").tobytes())
        yield Recording(number=number, rows=rows, content=content.hexdigest())


def is_lock(path: Path) -> bool:
    """Whether a file is a lock's: a writer's that has just begun, or was killed then."""
    return path.name.startswith(".lock")


def _known(out: Path, embedder: Embedder) -> dict[str, dict[Side, Half]]:
    """Vectors that the index has, by the content of their recordings."""
    if not (out / RECORD).exists():
        return {}
    record = read_record(out)
    if record["embedder"]["identity"] != embedder.identity:
        raise IndexFolderError(
            f"{out} was made with {record['embedder']['name']}, not with {embedder.name}; name "
            "another folder, or replace it with --overwrite",
            kind="other-model",
        )
    index = open_index(out, exact=True)
    places = index.places()
    return {
        content: {side: index.vectors[side][places.rows(i)].astype(np.float16) for side in SIDES}
        for i, content in enumerate(index.recordings.column("content").to_pylist())
    }


def _vectors(
    listed: list[Recording],
    known: dict[str, dict[Side, Half]],
    store: Store,
    embedder: Embedder,
    parts: Path,
    progress: Progress,
) -> dict[Side, Half]:
    """Vectors of all rows in order, embedded where they are not known."""
    found = {r.content: known[r.content] for r in listed if r.content in known}
    done = sum(len(r.rows) for r in listed if r.content in found)
    progress(done, "")
    for block in _blocks([r for r in listed if r.content not in found]):
        file = parts / f"{digest([embedder.identity, [r.content for r in block]])}.npy"
        rows = np.concatenate([r.rows for r in block])
        with contextlib.suppress(OSError, ValueError, EOFError):
            both = np.load(file, allow_pickle=False)
            if both.shape == (2, len(rows), embedder.width):
                found |= _shared_out(block, both)
                done += len(rows)
                progress(done, "")
                continue
        vectors = embedder.segments(store, rows)
        both = np.stack([vectors[side] for side in SIDES]).astype(np.float16)
        if not np.isfinite(both).all():
            raise IndexFolderError(
                f"{embedder.name} makes vectors that are not finite: it diverged", kind="not-finite"
            )
        with atomic_write(file) as handle:
            np.save(handle, both, allow_pickle=False)
        found |= _shared_out(block, both)
        done += len(rows)
        progress(done, "")
    return {side: np.concatenate([found[r.content][side] for r in listed]) for side in SIDES}


def _blocks(listed: list[Recording]) -> Iterator[list[Recording]]:
    """Recordings of about a block's segments together."""
    block: list[Recording] = []
    seen: set[str] = set()
    for recording in listed:
        if recording.content in seen:  # the same recording twice is embedded once
            continue
        seen.add(recording.content)
        block.append(recording)
        if sum(len(r.rows) for r in block) >= BLOCK:
            yield block
            block = []
    if block:
        yield block


def _shared_out(block: list[Recording], both: Half) -> dict[str, dict[Side, Half]]:
    found: dict[str, dict[Side, Half]] = {}
    at = 0
    for recording in block:
        own = both[:, at : at + len(recording.rows)]
        found[recording.content] = {side: own[i] for i, side in enumerate(SIDES)}
        at += len(recording.rows)
    return found


def _places(listed: list[Recording], store: Store) -> Places:
    rows = np.concatenate([r.rows for r in listed])
    number = np.repeat(np.arange(len(listed)), [len(r.rows) for r in listed])
    return Places.of(number, store.segments.start_s[rows], len(listed))


def _row_table(listed: list[Recording], places: Places, likeness: dict[Side, Moments]) -> pa.Table:
    columns: dict[str, Any] = {
        "recording": places.recording.astype(np.int32),
        "segment": np.concatenate([r.rows for r in listed]).astype(np.int32),
        "start_s": places.start_s,
    }
    for side, (mean, sigma) in likeness.items():
        columns[f"{side}_mean"] = mean.astype(np.float32)
        columns[f"{side}_sigma"] = sigma.astype(np.float32)
    return pa.table(columns)


def _name_table(listed: list[Recording], store: Store) -> pa.Table:
    number = np.array([r.number for r in listed])
    columns: dict[str, Any] = {n: getattr(store.recordings, n)[number] for n in NAMES}
    columns["content"] = [r.content for r in listed]
    columns["store_recording"] = number.astype(np.int32)
    return pa.table(columns)


def _save(vectors: Half, file: IO[Any]) -> None:
    np.save(file, vectors, allow_pickle=False)


def _write(content: bytes, file: IO[Any]) -> None:
    file.write(content)


def _approximate(out: Path, vectors: dict[Side, FloatArray]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for side in SIDES:
        built = build_approximate(vectors[side], vectors[OTHER[side]])
        name = keep(out, side, ".faiss", partial(_write, built.nearest.as_bytes()))
        found[side] = {
            "file": name, "probes": built.nearest.probes, "recall": round(built.recall, 4),
            "seconds": round(built.seconds, 2),
        }  # fmt: skip
    return found


def _chance(
    store: Store,
    embedder: Embedder,
    vectors: dict[Side, FloatArray],
    likeness: dict[Side, Moments],
    places: Places,
    listed: list[Recording],
) -> dict[str, Any]:
    """What false alarms score, of queries of either side."""
    numbers = np.array([r.number for r in listed])
    names = store.recordings.composition[numbers].astype(str)
    composition = np.unique(names, return_inverse=True)[1].reshape(-1).astype(np.int64)
    found: dict[str, Any] = {}
    for asked in SIDES:
        side = OTHER[asked]
        own, (mean, sigma) = vectors[side], likeness[side]
        haystack = Haystack(
            vectors=own,
            places=places,
            background=own[spread(len(own), BACKGROUND)],
            mean=mean.astype(np.float32),
            sigma=sigma.astype(np.float32),
            nearest=Exact(own),
        )
        cut = cut_queries(store, places, numbers, asked, max(chance.LENGTHS_S), STRETCHES)
        queries = (
            (Stretch.whole(Windows(query, embedder, haystack)), int(composition[recording]))
            for recording, query in cut
        )
        found[asked] = chance.measure(queries, haystack, composition[places.recording]).plain()
    return found
