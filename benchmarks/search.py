"""What search costs: making an index, a query of a minute, exact and approximate neighbours.

python -m benchmarks.search [--run RUN]

``index``: the demo's store with a baseline and with a model (tiny), all of ``xmodal-search index`` but
the start of its process and the loading of the model, against the duration of what is indexed.
``query``: a minute of MIDI and of sound over 100,000 segments, exactly, once the index is loaded; from
windows to answer. ``approximate``: 1,000,000 vectors, one query at a time, against all products, in
turn. Vectors beyond the demo's own are its own, disturbed: each is a row plus Gaussian noise of a norm
of 0.5, divided by its norm.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.common import command, environment, of_pairs, seconds, write
from benchmarks.corpora import DEMO
from pipeline.descriptors.contract import Side
from pipeline.store import Store
from trainer.export import pack_model
from trainer.retrieval.lags import Comparison
from trainer.search.asking import ask
from trainer.search.embedders import Embedder, ModelEmbedder, embedder_of, unit
from trainer.search.finding import OTHER, moments
from trainer.search.folder import BACKGROUND, SIDES, Index, comparison_in, open_index
from trainer.search.indexing import make_index
from trainer.search.nearest import Approximate, Exact, build_approximate, recall_of, spread
from trainer.search.queries import MidiQuery, Query, read_query

QUERY_SEGMENTS, QUERY_S = 100_000, 60.0
A_RECORDING = 100  # segments of an invented recording
MANY, K = 1_000_000, 10
NOISE = 0.5
ROUNDS, ASKED = 9, 200

FloatArray = npt.NDArray[np.float32]


def main() -> None:
    """Measure, write ``benchmarks/results/search.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a tiny run on the demo; default: trains d0")
    arguments = parser.parse_args()
    about = environment()
    store = Store.open(command("xmodal-features", "build", "--corpus", "demo")["store"])
    run = arguments.run or Path(
        command(
            "xmodal-train",
            "--arm",
            "d0",
            "--store",
            store.path,
            "--size",
            "tiny",
            "--device",
            "cpu",
        )["run"]
    )
    result: dict[str, Any] = {"environment": about}
    queries = minute_queries(store)
    for name, embedder in (
        ("flux", embedder_of(None, "flux", "cpu")),
        ("d0", embedder_of(run, None, "cpu")),
    ):
        with tempfile.TemporaryDirectory() as folder:
            result[f"index_{name}"] = indexing(store, embedder, Path(folder))
            index = open_index(Path(folder) / "0")
        larger = enlarged(index, QUERY_SEGMENTS)
        result[f"query_{name}"] = {
            side: asking(query, larger, embedder) for side, query in queries.items()
        }
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # whose peak memory is its own
        result["approximate"] = pool.submit(
            approximate, {s: index.vectors[s] for s in SIDES}, comparison_in(index.record)
        ).result()
    write("search", result)


def indexing(store: Store, embedder: Embedder, folder: Path) -> dict[str, float]:
    """How many times faster than the recordings last; the first time compiles."""
    rates = []
    for number in range(4):
        began = time.perf_counter()
        made = make_index(
            store,
            embedder,
            folder / str(number),
            keep_model=partial(pack_model, embedder.run)
            if isinstance(embedder, ModelEmbedder)
            else None,
        )
        # The first window of a recording covers four seconds, each other one a second more.
        rates.append((made.rows + 3 * made.recordings) / (time.perf_counter() - began))
    return {
        "times_real_time": float(np.median(rates[1:])), "lowest": min(rates[1:]), "rows": made.rows
    }  # fmt: skip


def minute_queries(store: Store) -> dict[Side, Query]:
    """The demo's first recording that lasts a minute, as notes and as sound, cut to it."""
    paths = store.table("recordings")
    for midi, sound, lasts in zip(
        *(paths[n].to_pylist() for n in ("midi_path", "audio_path", "duration_s")), strict=True
    ):
        if lasts > QUERY_S + 1:
            notes, heard = read_query(DEMO / midi), read_query(DEMO / sound)
            assert isinstance(notes, MidiQuery)
            notes.seconds = heard.seconds = QUERY_S
            return {"midi": notes, "audio": heard}
    raise SystemExit("the demo has no recording of a minute")


def enlarged(index: Index, rows: int) -> Index:
    """An index of so many rows: the index itself, then recordings whose vectors are disturbed ones."""
    vectors = {side: disturbed(index.vectors[side], rows, keep=True) for side in SIDES}
    comparison = comparison_in(index.record)
    recording, start = (index.rows.column(n).to_numpy() for n in ("recording", "start_s"))
    more = np.arange(rows - len(recording))
    first = index.recordings.num_rows
    columns: dict[str, Any] = {
        "recording": np.concatenate([recording, first + more // A_RECORDING]).astype(np.int32),
        "start_s": np.concatenate([start, (more % A_RECORDING).astype(np.float64)]),
    }
    sample = spread(rows, BACKGROUND)
    for side in SIDES:
        mean, sigma = moments(vectors[side], vectors[OTHER[side]][sample], comparison)
        columns[f"{side}_mean"] = mean.astype(np.float32)
        columns[f"{side}_sigma"] = sigma.astype(np.float32)
    recordings = 1 + int(columns["recording"].max())
    names = {
        name: pa.array((index.recordings[name].to_pylist() * recordings)[:recordings])
        for name in index.recordings.column_names
    }
    return Index(
        path=index.path,
        record=index.record,
        recordings=pa.table(names),
        rows=pa.table(columns),
        stored={side: v.astype(np.float16) for side, v in vectors.items()},
        vectors=dict(vectors),
        nearest={side: Exact(vectors[side], comparison) for side in SIDES},
    )


def disturbed(own: FloatArray, rows: int, *, keep: bool = False, seed: int = 0) -> FloatArray:
    """Rows of ``own`` again and again, each with noise of its own; ``keep``: the first as they are."""
    rng = np.random.default_rng(seed)
    width = own.shape[1]
    out = np.empty((rows, width), np.float32)
    for at in range(0, rows, len(own)):
        part = own[: min(len(own), rows - at)]
        noise = rng.standard_normal(part.shape, np.float32) * np.float32(NOISE / np.sqrt(width))
        out[at : at + len(part)] = part if keep and at == 0 else unit(part + noise)
    return out


def asking(query: Query, index: Index, embedder: Embedder) -> dict[str, Any]:
    """Seconds from the query's windows to its answer."""
    ask(query, index, embedder)
    taken = [seconds(lambda: ask(query, index, embedder)) for _ in range(ROUNDS)]
    return {
        "seconds": float(np.median(taken)), "highest": max(taken), "rows": len(index),
        "rounds": ROUNDS,
    }  # fmt: skip


def approximate(own: dict[Side, FloatArray], comparison: Comparison) -> dict[str, Any]:
    """One query at a time over a million vectors, both ways in turn; the last embedder's."""
    vectors = disturbed(own["audio"], MANY)
    queries = disturbed(own["midi"], 2 * len(own["midi"]), seed=1)
    half = len(queries) // 2  # the trial queries are not those that are measured
    before = peak_kib()
    built = build_approximate(vectors, queries[:half], comparison)
    after = peak_kib()
    exact = Exact(vectors, comparison)
    asked = queries[half:][spread(half, ASKED)]
    nearest: Approximate = built.nearest
    pairs, rows, wanted = [], [], []
    for query in asked:
        one = query[None]
        pairs.append((seconds(partial(nearest.top, one, K)), seconds(partial(exact.top, one, K))))
        rows.append(nearest.top(one, K)[1])
        wanted.append(exact.top(one, K)[1])
    return {
        **of_pairs(pairs),
        "vectors": MANY,
        "width": vectors.shape[1],
        "recall": recall_of(np.concatenate(rows), np.concatenate(wanted)),
        "recall_of_trial": built.recall,
        "probes": nearest.probes,
        "build_seconds": built.seconds,
        "bytes": len(nearest.as_bytes()),
        "peak_growth_mib": (after - before) / 1024,
    }


def peak_kib() -> int:
    """The most memory that this process had so far; what its parent had does not count (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise SystemExit("the peak memory of a process is not known on this system")


if __name__ == "__main__":
    main()
