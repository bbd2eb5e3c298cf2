"""How two embeddings are compared: by their cosine, or by the best of their cosines at small lags.

An embedding may be made of equal parts of the segment's time (:class:`trainer.config.HeadConfig`). Its
cosine then compares like times with like times, and finds nothing where a file of notes is a tenth of
a second off: at ± 0.17 s, as :mod:`trainer.analyses.invariance` moves it, next to nothing is left.
Files that are called aligned often are that far off. So the parts are compared as they are, and with
the sound up to ``lags`` parts earlier or later than the notes, which costs ``cost`` of cosine a part:

``max over l, |l| ≤ lags, of Σ_t a[t + l] · m[t] - cost · |l|``,  a and m of length 1.

Parts that have no counterpart at a lag count nothing. It is symmetrical: from sound to notes and from
notes to sound the same pairs have the same likeness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trainer.retrieval.gallery import RetrievalError
from trainer.retrieval.metrics import Cosine, Embeddings, FloatArray, blocks

FEW = 32  # queries


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """``slots`` parts of an embedding, ``lags`` parts either way, ``cost`` of a part of lag."""

    slots: int = 1
    lags: int = 0
    cost: float = 0.0

    @property
    def products(self) -> int:
        """How many a pair of embeddings takes: one for every lag."""
        return 2 * self.lags + 1

    def of(self, queries: Embeddings, candidates: Embeddings) -> Cosine:
        """The similarity of two sets of embeddings, both [n, d]."""
        if self.lags == 0:
            return Cosine(queries, candidates)
        return BestLag(queries, candidates, self)

    def likeness(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """Of unit rows [W, d] and [n, d]: float32 [W, n]."""
        if self.lags == 0:
            return left @ right.T
        if len(left) <= FEW:  # one larger product is faster than several small ones
            moved, lost_L = zip(*self.moved(left), strict=True)
            found_LWN = (np.concatenate(moved) @ right.T).reshape(len(moved), len(left), -1)
            found_LWN -= np.array(lost_L)[:, None, None]
            best: FloatArray = found_LWN.max(axis=0)
            return best
        out = np.full((len(left), len(right)), -np.inf, np.float32)
        for mine, other, lost in self.steps(left.shape[1]):
            found = left[:, mine] @ right[:, other].T
            found -= lost
            np.maximum(out, found, out=out)
        return out

    def moved(self, rows: FloatArray) -> Iterator[tuple[FloatArray, np.float32]]:
        """Rows [W, d] as they lie at every lag: dot products with them, less what the lag costs."""
        if self.lags == 0:
            yield rows, np.float32(0)
            return
        for mine, other, lost in self.steps(rows.shape[1]):
            found = np.zeros_like(rows)
            found[:, other] = rows[:, mine]
            yield found, lost

    def steps(self, width: int) -> Iterator[tuple[slice, slice, np.float32]]:
        """At every lag: which numbers of one stand beside which of the other, and what it costs.

        Raises
        ------
        RetrievalError
            (kind ``shape``) when so many numbers are no whole parts, or there are no more parts than
            lags.
        """
        if width % self.slots or self.slots <= self.lags:
            raise RetrievalError(
                f"embeddings of {width} numbers cannot be compared in {self.slots} parts at up to "
                f"{self.lags} parts' lag",
                kind="shape",
            )
        part = width // self.slots
        for lag in range(-self.lags, self.lags + 1):
            apart = abs(lag) * part
            early, late = slice(0, width - apart), slice(apart, width)
            lost = np.float32(self.cost * abs(lag))
            yield (late, early, lost) if lag > 0 else (early, late, lost)


COSINE = Comparison()


class BestLag(Cosine):
    """See the module; ``gap`` stays that of cosines. Errors as those of both."""

    def __init__(self, queries: Embeddings, candidates: Embeddings, comparison: Comparison) -> None:
        super().__init__(queries, candidates)
        list(comparison.steps(queries.shape[1]))  # the error comes now
        self._comparison = comparison

    def rows(self, queries: npt.NDArray[np.integer]) -> FloatArray:
        """float32 [len(queries), n]: these queries against all candidates."""
        left = self._left(queries)
        out = np.empty((len(queries), len(self._candidates)), np.float32)
        for part in blocks(len(self._candidates), max(left.shape)):
            out[:, part] = self._comparison.likeness(left, self._right(part))
        return out

    def pairs(
        self, queries: npt.NDArray[np.integer], candidates: npt.NDArray[np.integer]
    ) -> FloatArray:
        """float32 [T]: query t against candidate t."""
        out = np.full(len(queries), -np.inf, np.float32)
        width = self._queries.shape[1]
        for part in blocks(len(queries), width):
            left, right = self._left(queries[part]), self._right(candidates[part])
            for mine, other, lost in self._comparison.steps(width):
                found = np.einsum("td,td->t", left[:, mine], right[:, other]) - lost
                np.maximum(out[part], found, out=out[part])
        return out
