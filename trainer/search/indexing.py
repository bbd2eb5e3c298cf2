"""A store → an index; an index that is there is brought up to date, embedding only what is new."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.base.errors import MissingExtra, UsageError
from pipeline.base.files import LOCK, FolderLock, sweep_temporaries
from pipeline.descriptors.contract import Side
from pipeline.store.reader import Store
from trainer.retrieval.lags import Comparison
from trainer.search import chance, folder
from trainer.search.contents import (
    SIDES,
    FloatArray,
    Half,
    Progress,
    Recording,
    name_table,
    places_of,
    recordings_of,
    row_table,
    vectors_of,
)
from trainer.search.cutting import cut_queries
from trainer.search.embedders import Embedder
from trainer.search.errors import IndexFolderError
from trainer.search.finding import OTHER, Haystack, Moments, Stretch, Windows, moments
from trainer.search.folder import (
    BACKGROUND,
    PARTS,
    RECORD,
    Index,
    commit,
    comparison_in,
    is_index,
    keep,
    open_index,
    read_record,
)
from trainer.search.nearest import Exact, build_approximate, load_faiss, spread
from trainer.search.placing import Places

STRETCHES = 32  # of each side that are looked for to see what chance scores


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
    approximate : make approximate indexes, too; an index that has them gets them anew without it
    overwrite : as if nothing were there
    progress, say : called with segments done, and with what else takes long

    Raises
    ------
    IndexFolderError
        (kind ``other-model``) when ``out`` is an index of another model; (``damaged``, ``schema``)
        when it does not read; (``empty``) when the store has no segment with notes.
    UsageError
        when ``out`` is something else.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, not a folder")
    if out.exists() and not is_index(out) and any(not is_lock(p) for p in out.iterdir()):
        raise UsageError(f"{out} is no index, and not empty: name another folder")
    with FolderLock(out):
        sweep_temporaries(out)
        before = None if overwrite else _before(out, embedder)
        approximate = approximate or (
            before is not None and before.record["approximate"] is not None
        )
        if approximate:
            load_faiss()  # or hours of embedding would end with the word that it is missing
        listed = list(recordings_of(store))
        if not listed:
            raise IndexFolderError(f"{store.path} has no segment with notes", kind="empty")
        names = name_table(listed, store)
        about = {
            "name": store.name, "path": str(store.path.resolve()), "identity": store.identity,
            "licence": store.record.get("licence"),
        }  # fmt: skip
        known = {} if before is None else _vectors_in(before)
        had = sum(len(r.rows) for r in listed if r.content in known)
        gone = len(set(known) - {r.content for r in listed})
        if (
            before is not None
            and before.recordings.equals(names)
            and before.record["store"] == about
            and bool(before.record["approximate"]) == approximate
            and comparison_in(before.record) == embedder.comparison
            and all(before.record["chance"][side]["seconds"] for side in SIDES)
        ):
            progress(had, "")
            return _made(out, before.record, embedded=0, kept=had, gone=0)
        vectors = vectors_of(listed, known, store, embedder, out / PARTS, progress)
        places = places_of(listed, store)
        exact: dict[Side, FloatArray] = {s: v.astype(np.float32) for s, v in vectors.items()}
        sample = spread(len(places.recording), BACKGROUND)
        comparison = embedder.comparison
        likeness = {
            side: moments(exact[side], exact[OTHER[side]][sample], comparison) for side in SIDES
        }
        data: dict[str, str] = {}
        for side in SIDES:
            data[side] = keep(out, side, ".npy", partial(_save, vectors[side]))
        for stem, table in (("rows", row_table(listed, places, likeness)), ("recordings", names)):
            data[stem] = keep(out, stem, ".parquet", partial(pq.write_table, table))
        if approximate:
            say("building the approximate indexes")
        built = _approximate(out, exact, comparison) if approximate else None
        model = None if keep_model is None else folder.keep_model(out, keep_model)
        say("measuring what chance scores")
        record = {
            "embedder": {
                "name": embedder.name, "identity": embedder.identity, "width": embedder.width,
                "comparison": dataclasses.asdict(comparison),
            },
            "store": about,
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
    return _made(out, record, embedded=len(places.recording) - had, kept=had, gone=gone)


def _made(out: Path, record: dict[str, Any], *, embedded: int, kept: int, gone: int) -> Made:
    built = record["approximate"]
    return Made(
        path=out, rows=record["rows"], recordings=record["recordings"],
        embedded=embedded, kept=kept, gone=gone,
        approximate=None if built is None else {
            side: {k: b[k] for k in ("probes", "recall", "seconds")} for side, b in built.items()
        },
    )  # fmt: skip


def is_lock(path: Path) -> bool:
    """Whether a file is a lock's: a writer's that has just begun, or was killed then."""
    return path.name.startswith(LOCK)


def _before(out: Path, embedder: Embedder) -> Index | None:
    """The index that is there."""
    if not (out / RECORD).exists():
        return None
    record = read_record(out)
    if record["embedder"]["identity"] != embedder.identity:
        raise IndexFolderError(
            f"{out} was made with {record['embedder']['name']}, not with {embedder.name} as it is "
            "now; name another folder, or replace it with --overwrite",
            kind="other-model",
        )
    return open_index(out, exact=True)


def _vectors_in(index: Index) -> dict[str, dict[Side, Half]]:
    """Vectors that an index has, by the content of their recordings."""
    places = index.places()
    return {
        content: {side: np.asarray(index.stored[side][places.rows(i)]) for side in SIDES}
        for i, content in enumerate(index.recordings.column("content").to_pylist())
    }


def _save(vectors: Half, file: IO[Any]) -> None:
    np.save(file, vectors, allow_pickle=False)


def _write(content: bytes, file: IO[Any]) -> None:
    file.write(content)


def _approximate(
    out: Path, vectors: dict[Side, FloatArray], comparison: Comparison
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for side in SIDES:
        built = build_approximate(vectors[side], vectors[OTHER[side]], comparison)
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
            nearest=Exact(own, embedder.comparison),
            comparison=embedder.comparison,
        )
        cut = cut_queries(store, places, numbers, asked, max(chance.LENGTHS_S), STRETCHES)
        queries = (
            (Stretch.whole(Windows(query, embedder, haystack)), int(composition[recording]))
            for recording, query in cut
        )
        of_rows = composition[places.recording]
        try:
            measured = chance.measure(queries, haystack, of_rows)
        except MissingExtra:  # without what reads sound nobody asks by sound, and notes need it not
            measured = chance.measure((), haystack, of_rows)
        found[asked] = measured.plain()
    return found
