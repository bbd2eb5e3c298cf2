"""What is asked, on one split of a store: a trained run, or a training-free floor."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.descriptors.contract import Side
from pipeline.store.reader import Store
from trainer.analyses.errors import Plain, Variant
from trainer.retrieval.evaluate import Scores
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.intervals import resampled_means, resampling_units
from trainer.retrieval.pools import PAPER_SEED, Pools
from trainer.retrieval.protocols import PROTOCOLS

FloatArray = npt.NDArray[np.float32]
PROTOCOL_OF: Mapping[Variant, str] = {"paper": "paper", "sound": "strict"}
BLOCK = 1024  # rows


class Subject(abc.ABC):
    """Both sides of every segment as vectors, and what is lost when one side is changed.

    Attributes
    ----------
    store, split : what is asked about
    folder : what is found goes there
    report : is told what is being done
    """

    def __init__(
        self,
        store: Store,
        split: str,
        folder: Path,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.store, self.split, self.folder, self.report = store, split, folder, report

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """Changes with all that its numbers depend on."""

    @property
    @abc.abstractmethod
    def embeddings(self) -> Mapping[Side, npt.NDArray[Any]]:
        """Both sides of every segment, nothing changed: float [n, width] each."""

    @property
    @abc.abstractmethod
    def pool_size(self) -> int:
        """Candidates in a pool."""

    @abc.abstractmethod
    def about(self) -> Plain:
        """``run, arm, seed, leaks``: whose findings they are."""

    @abc.abstractmethod
    def scores(
        self, embeddings: Mapping[Side, Any], variant: Variant, pools: Pools | None = None
    ) -> Scores:
        """Scores of embeddings: the paper's pools of seed 42, or the strict ones, or those given."""

    @abc.abstractmethod
    def release(self) -> None:
        """Let go of what takes memory; it comes back when it is asked for."""

    @cached_property
    def gallery(self) -> Gallery:
        """What retrieval knows of the split."""
        return Gallery.from_store(self.store, self.split)

    def pools(self, variant: Variant) -> Pools:
        """The protocol's pools of this split, made once."""
        if variant not in self._pools:
            protocol = PROTOCOLS.get(PROTOCOL_OF[variant])
            seed = PAPER_SEED if protocol.seeded else None
            self._pools[variant] = protocol.pools(self.gallery, seed, self.pool_size)
        return self._pools[variant]

    @cached_property
    def _pools(self) -> dict[Variant, Pools]:
        return {}

    def baseline(self, variant: Variant) -> Scores:
        """Scores of the unchanged embeddings."""
        if variant not in self._baselines:
            self._baselines[variant] = self.scores(self.embeddings, variant)
        return self._baselines[variant]

    @cached_property
    def _baselines(self) -> dict[Variant, Scores]:
        return {}

    def effect(self, embeddings: Mapping[Side, npt.NDArray[Any]], variant: Variant) -> Plain:
        """Scores under a condition, and how far they are from the unchanged ones.

        Returns
        -------
        What :meth:`beside` returns, and ``moved``: per side the mean change of the normalised
        embeddings.
        """
        scores = self.scores(embeddings, variant)
        found = self.beside(scores, self.baseline(variant))
        moved = {side: self._moved(side, values) for side, values in embeddings.items()}
        return {**found, "moved": moved}

    def beside(self, scores: Scores, before: Scores) -> Plain:
        """Scores of a condition, and their difference to others of the same queries.

        Returns
        -------
        ``S, a2m{R@1, R@10}, m2a{…}, difference`` of S and its ``ci95``, the same recordings drawn for
        both (``ci_kind``: or 10-s blocks of them); None where there is nothing to draw from.
        """
        units, kind = resampling_units(self.gallery, scores.pools.queries)
        hits = [np.column_stack([s.a2m < 10, s.m2a < 10]).astype(float) for s in (before, scores)]
        interval = None
        if units.max() >= 1:
            drawn = [resampled_means(h, units).min(axis=1) for h in hits]
            low, high = np.quantile(drawn[1] - drawn[0], [0.025, 0.975])
            interval = [float(low), float(high)]
        s = [float(h.mean(axis=0).min()) for h in hits]
        return {
            "S": s[1],
            **{
                name: {f"R@{k}": float(np.mean(ranks < k)) for k in (1, 10)}
                for name, ranks in (("a2m", scores.a2m), ("m2a", scores.m2a))
            },
            "difference": s[1] - s[0],
            "ci95": interval,
            "ci_kind": kind,
        }

    def _moved(self, side: Side, values: npt.NDArray[Any]) -> float:
        before = self.embeddings[side]
        if values is before:
            return 0.0
        moved = [
            np.linalg.norm(normalised(values[at]) - normalised(before[at]), axis=1)
            for at in (slice(i, i + BLOCK) for i in range(0, len(values), BLOCK))
        ]
        return float(np.concatenate(moved).mean())


def normalised(embeddings: npt.NDArray[Any]) -> FloatArray:
    """Rows of length 1, float32; zero rows stay zero."""
    rows = embeddings.astype(np.float32, copy=False)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    found: FloatArray = rows / np.maximum(length, 1e-12)
    return found
