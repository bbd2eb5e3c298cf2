"""Scoring embeddings under a protocol: one call, one JSON record."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.retrieval import intervals, metrics
from trainer.retrieval.breakdown import breakdown
from trainer.retrieval.gallery import Gallery, RetrievalError
from trainer.retrieval.lags import COSINE, Comparison
from trainer.retrieval.metrics import Embeddings, Ranks, Similarity
from trainer.retrieval.pools import POOL_SIZE, Pools
from trainer.retrieval.protocols import PROTOCOLS, Protocol

HIT = 10  # S and the gap are made of R@10


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Everything one evaluation found, per query; ``record`` condenses it to JSON.

    Attributes
    ----------
    protocol, gallery, pools : what was scored, and how
    a2m, m2a : int64 [Q]
        Rank of the positive in its pool, audio query → MIDI candidates and back.
    a2m_full, m2a_full : int64 [members] or None
        Rank among all members of the gallery.
    hard_one : share of ``hard_neg`` draws whose positive wins (audio → MIDI), or None
    hard_trials : how many draws that are
    beats_hard : bool [Q]
        The positive beats every negative of its own recording in its pool (audio → MIDI).
    has_hard : bool [Q]
        There is such a negative.
    occurrences : how often each member is among another's ten nearest, per direction; or None
    copied : bool [n], segments with a copy elsewhere in their recording; or None
    cosine_gap : mean cosine of the pairs minus that of all other combinations, or None
    """

    protocol: Protocol
    gallery: Gallery
    pools: Pools
    a2m: Ranks
    m2a: Ranks
    a2m_full: Ranks | None
    m2a_full: Ranks | None
    hard_one: float | None
    hard_trials: int
    beats_hard: npt.NDArray[np.bool_]
    has_hard: npt.NDArray[np.bool_]
    occurrences: dict[str, Ranks] | None = None
    copied: npt.NDArray[np.bool_] | None = None
    cosine_gap: float | None = None

    def record(self) -> dict[str, Any]:
        """Plain data for ``evaluation/*.json``: fractions 0–1, None where nothing is defined."""
        members = self.protocol.members(self.gallery)
        a2m, m2a = metrics.summary(self.a2m), metrics.summary(self.m2a)
        units, ci_kind = intervals.resampling_units(self.gallery, self.pools.queries)
        hard = self.beats_hard[self.has_hard]
        full = {"a2m": self.a2m_full, "m2a": self.m2a_full}
        sizes = self.pools.sizes
        return {
            "protocol": self.protocol.name,
            "split": self.gallery.split,
            "seed": self.pools.seed,
            "queries": len(self.pools.queries),
            "excluded": self.pools.excluded,
            "pool_size": {"min": int(sizes.min()), "median": float(np.median(sizes))},
            "pool_hash": self.pools.hash,
            "chance": metrics.chance(sizes),
            "a2m": a2m,
            "m2a": m2a,
            "S": min(a2m[f"R@{HIT}"], m2a[f"R@{HIT}"]),
            "direction_gap": a2m[f"R@{HIT}"] - m2a[f"R@{HIT}"],
            "cosine_gap": self.cosine_gap,
            "hard_neg": {
                "one": self.hard_one,
                "all64": float(hard.mean()) if len(hard) else None,
                "trials": self.hard_trials,
                "queries": len(hard),
            },
            "no_copy": self._without_copies(),
            "full": {k: None if v is None else metrics.summary(v) for k, v in full.items()},
            "hubness": None
            if self.occurrences is None
            else {k: metrics.hubness(v) for k, v in self.occurrences.items()},
            "breakdown": None
            if self.a2m_full is None
            else breakdown(self.gallery, self.pools.queries, self.a2m, self.m2a),
            "ci95": {
                "S": self._interval(HIT, units, ("a2m", "m2a")),
                "a2m R@1": self._interval(1, units, ("a2m",)),
                "m2a R@1": self._interval(1, units, ("m2a",)),
            },
            "ci_kind": ci_kind,
            "recordings": len(np.unique(self.gallery.recording[members])),
            "segments": int(members.sum()),
        }

    def per_query(self) -> dict[str, npt.NDArray[Any]]:
        """A column per quantity, a row per query: what scores are compared from.

        ``segment, recording, start_s`` of the query, its ranks ``a2m, m2a`` in its pool and
        ``a2m_full, m2a_full`` in the gallery, ``copied``; what was not asked for is left out.
        """
        gallery, queries = self.gallery, self.pools.queries
        columns: dict[str, npt.NDArray[Any]] = {
            "segment": gallery.segment[queries],
            "recording": gallery.recording[queries],
            "start_s": gallery.start_s[queries],
            "a2m": self.a2m.astype(np.int32),
            "m2a": self.m2a.astype(np.int32),
        }
        place = np.cumsum(self.protocol.members(gallery)) - 1
        for name, ranks in (("a2m_full", self.a2m_full), ("m2a_full", self.m2a_full)):
            if ranks is not None:
                columns[name] = ranks[place[queries]].astype(np.int32)
        if self.copied is not None:
            columns["copied"] = self.copied[queries]
        return columns

    def _interval(
        self, k: int, units: npt.NDArray[np.int64], sides: tuple[str, ...]
    ) -> list[float] | None:
        """95 % interval of the smaller R@k of these directions."""
        hits = np.column_stack([getattr(self, side) < k for side in sides]).astype(np.float64)
        found = intervals.interval_of_least(hits, units)
        return None if found is None else list(found)

    def _without_copies(self) -> dict[str, Any] | None:
        """R@1 over the queries whose music does not come again in their recording."""
        if self.copied is None:
            return None
        alone = ~self.copied[self.pools.queries]
        found: dict[str, Any] = {"queries": int(alone.sum())}
        for name, ranks in (("a2m", self.a2m), ("m2a", self.m2a)):
            found[name] = {"R@1": float(np.mean(ranks[alone] < 1)) if alone.any() else None}
        return found


def evaluate_embeddings(
    audio: Embeddings,
    midi: Embeddings,
    gallery: Gallery,
    protocol: str,
    *,
    seed: int | None = None,
    pool_size: int = POOL_SIZE,
    pools: Pools | None = None,
    full: bool = True,
    copied: npt.NDArray[np.bool_] | None = None,
    segments: npt.NDArray[np.integer[Any]] | None = None,
    comparison: Comparison = COSINE,
    run: str | None = None,
    store: str | None = None,
) -> dict[str, Any]:
    """Score paired embeddings: the record of ``evaluation/<protocol>-<split>.json``.

    Parameters
    ----------
    audio, midi : float [n, d]
        Row i of both belongs to row i of ``gallery``; need not be normalised; computed with in
        float32, block by block, whatever their dtype.
    protocol : name in ``PROTOCOLS``
    seed : seed of the paper protocol's pools (42 unless given)
    pools : pools of this gallery and protocol made before, instead of ``seed`` and ``pool_size``
    full : also rank in the whole gallery, and see how evenly it is found and how parts of the queries
        score (costs a product of all with all in each direction)
    copied : bool [n], which segments have a copy elsewhere in their recording
        (:func:`trainer.retrieval.repeats.has_copy`)
    segments : int [n], which segments of their store the embeddings are of, where that is known
    comparison : how two embeddings are compared
    run, store : names to record

    Raises
    ------
    RetrievalError
        embeddings of another length than the gallery or of other segments, not finite, or too few
        candidates.
    """
    started = time.perf_counter()
    scores = score_embeddings(
        audio, midi, gallery, protocol, seed=seed, pool_size=pool_size, pools=pools, full=full,
        copied=copied, segments=segments, comparison=comparison,
    )  # fmt: skip
    record = scores.record()
    record |= {"run": run, "store": store, "seconds": time.perf_counter() - started}
    return record


def score_embeddings(
    audio: Embeddings,
    midi: Embeddings,
    gallery: Gallery,
    protocol: str,
    *,
    seed: int | None = None,
    pool_size: int = POOL_SIZE,
    pools: Pools | None = None,
    full: bool = True,
    copied: npt.NDArray[np.bool_] | None = None,
    segments: npt.NDArray[np.integer[Any]] | None = None,
    comparison: Comparison = COSINE,
) -> Scores:
    """As :func:`evaluate_embeddings`, keeping the ranks of every query."""
    for side, embeddings in (("audio", audio), ("MIDI", midi)):
        if embeddings.ndim != 2 or len(embeddings) != len(gallery):
            raise RetrievalError(
                f"{side} embeddings {list(embeddings.shape)} do not fit the {len(gallery)} "
                f"segments of the split '{gallery.split}': they belong to another store or split",
                kind="shape",
            )
    if segments is not None and not np.array_equal(segments, gallery.segment):
        raise RetrievalError(
            f"the embeddings are of other segments than those of the split '{gallery.split}': they "
            "belong to another store or split",
            kind="shape",
        )
    forth = comparison.of(audio, midi)
    scores = score_similarities(
        forth,
        comparison.of(midi, audio),
        gallery,
        protocol,
        seed=seed,
        pool_size=pool_size,
        pools=pools,
        full=full,
        copied=copied,
    )
    return dataclasses.replace(scores, cosine_gap=forth.gap(scores.protocol.members(gallery)))


def score_similarities(
    a2m: Similarity,
    m2a: Similarity,
    gallery: Gallery,
    protocol: str,
    *,
    seed: int | None = None,
    pool_size: int = POOL_SIZE,
    pools: Pools | None = None,
    full: bool = True,
    copied: npt.NDArray[np.bool_] | None = None,
) -> Scores:
    """As :func:`score_embeddings`, for similarities of any kind; the cosine gap stays undefined."""
    rules = PROTOCOLS.get(protocol)
    if pools is None:
        pools = rules.pools(gallery, seed, pool_size)
    if pools.protocol != rules.name or pools.candidates.max() >= len(gallery):
        raise RetrievalError(
            f"pools of the protocol '{pools.protocol}' do not fit the protocol '{rules.name}' on "
            f"the split '{gallery.split}'",
            kind="gallery",
        )
    own = gallery.recording[pools.candidates] == gallery.recording[pools.queries][:, None]
    hard = own & (pools.candidates >= 0) & (pools.candidates != pools.queries[:, None])
    trials = rules.hard_trials(gallery, pools)
    members = rules.members(gallery) if full else None
    forth = metrics.sweep(a2m, pools, rules.ties, hard=hard, members=members)
    back = metrics.sweep(m2a, pools, rules.ties, hard=hard, members=members)
    return Scores(
        protocol=rules,
        gallery=gallery,
        pools=pools,
        a2m=forth.ranks,
        m2a=back.ranks,
        a2m_full=forth.full,
        m2a_full=back.full,
        hard_one=metrics.beats_one(a2m, trials),
        hard_trials=len(trials.query),
        beats_hard=forth.beats_hard,
        has_hard=hard.any(axis=1),
        occurrences={"a2m": forth.occurrences, "m2a": back.occurrences}
        if forth.occurrences is not None and back.occurrences is not None
        else None,
        copied=copied,
    )
