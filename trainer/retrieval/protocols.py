"""The rules that a score is obtained by: who competes, from which draw, and how ties count."""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import ConfigError
from pipeline.base.registry import Registry
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.metrics import Ties
from trainer.retrieval.pools import (
    PAPER_SEED,
    POOL_SIZE,
    STRICT_SEED,
    HardTrials,
    Pools,
    paper_hard_trials,
    paper_pools,
    strict_hard_trials,
    strict_pools,
)


class Protocol(abc.ABC):
    """One set of rules.

    Attributes
    ----------
    name, summary : for people and the command line
    seed : the pools' seed unless another is given
    seeded : whether another may be given
    ties : what becomes of candidates as similar as the positive (see ``metrics``)
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    seed: ClassVar[int]
    seeded: ClassVar[bool]
    ties: ClassVar[Ties]

    @abc.abstractmethod
    def members(self, gallery: Gallery) -> npt.NDArray[np.bool_]:
        """Which segments take part: bool [n]."""

    @abc.abstractmethod
    def pools(self, gallery: Gallery, seed: int | None, pool_size: int = POOL_SIZE) -> Pools:
        """The queries and their candidates; ``seed=None`` takes the protocol's own."""

    @abc.abstractmethod
    def hard_trials(self, gallery: Gallery, pools: Pools) -> HardTrials:
        """The pairs of ``hard_neg`` against one negative of the same recording."""


PROTOCOLS: Registry[Protocol] = Registry("protocol")


def register(kind: type[Protocol]) -> type[Protocol]:
    """Class decorator: one instance joins the registry."""
    PROTOCOLS.add(kind.name, kind())
    return kind


@register
class Paper(Protocol):
    """The published procedure, its flaws included (method §7, §9.16–23)."""

    name = "paper"
    summary = "the published procedure: 500 queries, neighbours and other performances compete"
    seed = PAPER_SEED
    seeded = True
    ties = "order"

    def members(self, gallery: Gallery) -> npt.NDArray[np.bool_]:
        """Every segment, valid or not."""
        return np.ones(len(gallery), bool)

    def pools(self, gallery: Gallery, seed: int | None, pool_size: int = POOL_SIZE) -> Pools:
        """500 queries and pools from CPython's ``random.Random(seed)``, seed 42 unless given."""
        return paper_pools(gallery, self.seed if seed is None else seed, pool_size=pool_size)

    def hard_trials(self, gallery: Gallery, pools: Pools) -> HardTrials:
        """500 draws from a fresh generator with the pools' seed."""
        return paper_hard_trials(gallery, pools.seed)


@register
class Strict(Protocol):
    """All valid segments; no overlapping window, no other performance; ties lose."""

    name = "strict"
    summary = "every valid segment; no overlapping window nor other performance competes; ties lose"
    seed = STRICT_SEED
    seeded = False
    ties = "against"

    def members(self, gallery: Gallery) -> npt.NDArray[np.bool_]:
        """The valid segments."""
        return gallery.valid

    def pools(self, gallery: Gallery, seed: int | None, pool_size: int = POOL_SIZE) -> Pools:
        """Pools that follow from the store alone; any seed but 0 is a :class:`ConfigError`."""
        if seed not in (None, self.seed):
            raise ConfigError(
                f"--seed {seed}: the strict protocol has one fixed set of pools "
                f"(seed {self.seed}); leave --seed out"
            )
        return strict_pools(gallery, pool_size)

    def hard_trials(self, gallery: Gallery, pools: Pools) -> HardTrials:
        """One draw per query, the first negative of its own recording in its pool."""
        return strict_hard_trials(gallery, pools)
