"""The rows of an index that are most like a vector: exactly, or nearly and faster (FAISS).

exact
    All products, at every lag at which vectors are compared, a block of rows at a time.
approximate
    An inverted file (``IndexIVFScalarQuantizer``, float16; Jégou, Douze and Schmid 2011): rows are
    grouped around 4 √n centres, and a query looks into the groups of the centres nearest to it. Into
    how many is measured when it is built: the fewest by which vectors *of the other side*, which is
    what queries are, find 97 % of their ten nearest rows. Of every lag the query is moved, and asked
    again.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import MissingExtra
from trainer.retrieval.hashing import splitmix64
from trainer.retrieval.lags import COSINE, Comparison
from trainer.retrieval.metrics import top_columns

BLOCK = 1 << 24  # products at a time: 64 MiB of float32
CENTRES = 4.0  # times the root of the number of rows
TRAINED_ON = 40  # rows a centre
WANTED = 0.97
TRIED = 256  # queries by which the number of groups is chosen
K = 10

FloatArray = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Exact:
    """All products of a query with unit rows ``vectors`` [n, D]."""

    def __init__(self, vectors: FloatArray, comparison: Comparison = COSINE) -> None:
        self.vectors, self.comparison = vectors, comparison

    def top(self, vectors: FloatArray, k: int) -> tuple[FloatArray, Ints]:
        """Similarities and rows [W, k] of the k most similar, in no order."""
        n, k = len(self.vectors), min(k, len(self.vectors))
        step = max(k, BLOCK // max(1, len(vectors) * self.comparison.products))
        found, rows = [], []
        for at in range(0, n, step):
            products = self.comparison.likeness(vectors, self.vectors[at : at + step])
            columns = top_columns(products, min(k, products.shape[1]))
            found.append(np.take_along_axis(products, columns, axis=1))
            rows.append(columns + at)
        similarity, row = np.concatenate(found, axis=1), np.concatenate(rows, axis=1)
        if len(found) > 1:
            best = np.argpartition(similarity, similarity.shape[1] - k, axis=1)[:, -k:]
            similarity = np.take_along_axis(similarity, best, axis=1)
            row = np.take_along_axis(row, best, axis=1)
        return similarity, row


class Approximate:
    """An inverted file that was built by :func:`build_approximate`."""

    def __init__(self, index: Any, probes: int, comparison: Comparison = COSINE) -> None:
        self.index, self.probes, self.comparison = index, probes, comparison

    @classmethod
    def open(cls, path: Path, probes: int, comparison: Comparison = COSINE) -> Approximate:
        """From its file."""
        return cls(load_faiss().read_index(str(path)), probes, comparison)

    def as_bytes(self) -> bytes:
        """Its file."""
        return bytes(load_faiss().serialize_index(self.index))

    def top(self, vectors: FloatArray, k: int) -> tuple[FloatArray, Ints]:
        """Similarities and rows [W, k]; -1 where fewer than k were looked at."""
        self.index.nprobe = self.probes
        found = []
        for moved, lost in self.comparison.moved(vectors):
            similarity, rows = self.index.search(np.ascontiguousarray(moved), k)
            similarity[rows < 0] = 0.0  # not the lowest float32: likenesses of that run over
            found.append((similarity - lost, rows.astype(np.int64)))
        return found[0] if len(found) == 1 else _best_of(found, k)


def _best_of(found: list[tuple[FloatArray, Ints]], k: int) -> tuple[FloatArray, Ints]:
    """The k most similar rows [W, k] of several searches, each row once; -1 where there are fewer."""
    similarity = np.concatenate([s for s, _ in found], axis=1)
    rows = np.concatenate([r for _, r in found], axis=1)
    order = np.lexsort((-similarity, rows), axis=1)
    similarity, rows = (np.take_along_axis(x, order, axis=1) for x in (similarity, rows))
    rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = -1  # the same row again, less similar
    best = np.argsort(np.where(rows < 0, np.inf, -similarity), axis=1, kind="stable")[:, :k]
    similarity, rows = (np.take_along_axis(x, best, axis=1) for x in (similarity, rows))
    similarity[rows < 0] = 0.0
    return similarity, rows


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """What building an approximate index came to.

    Attributes
    ----------
    nearest : the index
    recall : share of the ten nearest rows that the trial queries found
    seconds : that it took
    """

    nearest: Approximate
    recall: float
    seconds: float


def build_approximate(
    vectors: FloatArray, queries: FloatArray, comparison: Comparison = COSINE
) -> Built:
    """Index unit rows [n, D]; choose how far to look by trial ``queries`` [q, D] of the other side."""
    faiss, began = load_faiss(), time.perf_counter()
    n, width = vectors.shape
    centres = max(1, min(int(CENTRES * np.sqrt(n)), n // TRAINED_ON))
    index = faiss.index_factory(width, f"IVF{centres},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.train(np.ascontiguousarray(vectors[spread(n, centres * TRAINED_ON)]))
    index.add(np.ascontiguousarray(vectors))
    tried = queries[spread(len(queries), TRIED)]
    tried = tried[np.any(tried != 0, axis=1)]
    k = min(K, n)
    _, wanted = Exact(vectors, comparison).top(tried, k)
    probes, recall = 1, 0.0
    while True:
        _, rows = Approximate(index, probes, comparison).top(tried, k)
        recall = recall_of(rows, wanted)
        if recall >= WANTED or probes >= centres:
            break
        probes = min(centres, max(probes + 1, round(probes * 1.25)))
    return Built(
        nearest=Approximate(index, probes, comparison),
        recall=recall,
        seconds=time.perf_counter() - began,
    )


def recall_of(rows: Ints, wanted: Ints) -> float:
    """Share of the ``wanted`` rows [W, k] that are among ``rows`` [W, k]; 1 of no queries."""
    hits = [len(np.intersect1d(a, b)) for a, b in zip(rows, wanted, strict=True)]
    return float(np.sum(hits) / wanted.size) if wanted.size else 1.0


def spread(n: int, most: int) -> Ints:
    """At most so many of the numbers 0 … n - 1, the same ones every time, ascending."""
    order = np.argsort(splitmix64(np.arange(n, dtype=np.uint64)), kind="stable")
    return np.sort(order[:most]).astype(np.int64)


def has_faiss() -> bool:
    """Whether approximate indexes can be read here."""
    return importlib.util.find_spec("faiss") is not None


def load_faiss() -> Any:
    """The module faiss, or the error that says how to get it."""
    try:
        import faiss
    except ImportError:
        raise MissingExtra("faiss-cpu", "search") from None
    return faiss
