"""Candidate pools: against which segments the positive of a query has to win.

Both protocols rank the positive in a pool of 256: up to 64 segments of the query's own recording,
up to 32 by the same composer, the rest from other recordings (method §7.1).

paper
    Drawn with CPython's ``random.Random``, bit for bit as published: 500 queries; the recording's
    neighbours may overlap the positive, and other performances of its composition may count
    against it (method §9.20–21).
strict
    Every valid segment is a query. Never in a pool: another recording of the same composition, an
    invalid segment, a segment of the same recording less than 4 s away. Candidates of a class are
    ordered by an integer hash of (seed 0, query segment, candidate segment) and the first ones
    taken, so that the pools follow from the store alone and from no library's generator.

Pools hold gallery rows. Both directions (audio → MIDI, MIDI → audio) use the same pools.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random

import numpy as np
import numpy.typing as npt

from trainer.retrieval.gallery import Gallery, IntArray, RetrievalError
from trainer.retrieval.hashing import Keys, pair_keys

POOL_SIZE = 256
PAPER_SEED = 42
PAPER_QUERIES = 500
STRICT_SEED = 0
CLEAR_S = 4.0  # windows that start this far apart share no sample
MAX_EXCLUDED = 0.10
HARD_TRIAL_MIN_SEGMENTS = 10
QUERY_BLOCK = 256

_LAST = np.uint64(2**64 - 1)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pools:
    """Queries and their candidates, as gallery rows.

    Attributes
    ----------
    protocol, seed : where they come from
    queries : int32 [Q]
    candidates : int32 [Q, P]
        The positive (the query's own row) among its negatives; padded on the right with -1.
    positive : int32 [Q]
        Column of the positive.
    excluded : int
        Queries left out because no full pool could be made for them.
    """

    protocol: str
    seed: int
    queries: IntArray
    candidates: IntArray
    positive: IntArray
    excluded: int = 0

    @property
    def sizes(self) -> IntArray:
        """int32 [Q]: candidates per query, the positive included."""
        sizes: IntArray = np.count_nonzero(self.candidates >= 0, axis=1).astype(np.int32)
        return sizes

    @property
    def hash(self) -> str:
        """SHA-256 of the int32 (little endian) array ``[queries, candidates]`` [Q, 1 + P]."""
        table = np.column_stack([self.queries, self.candidates]).astype("<i4")
        return hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HardTrials:
    """Pairs for ``hard_neg``: the positive of a query against one negative of its recording.

    Attributes
    ----------
    query, hard : int32 [T]
        Gallery rows of the query and of the negative.
    """

    query: IntArray
    hard: IntArray


def quotas(pool_size: int) -> tuple[int, int]:
    """How many (same recording, same composer) a pool takes: 64 and 32, less in a small pool."""
    return min(64, pool_size // 4), min(32, pool_size // 8)


def paper_pools(
    gallery: Gallery,
    seed: int = PAPER_SEED,
    n_queries: int = PAPER_QUERIES,
    pool_size: int = POOL_SIZE,
) -> Pools:
    """Pools of the paper protocol, bit-exact (method §7.1).

    In a small gallery there are ``min(n_queries, n)`` queries, a class gives what it has, and a
    pool that cannot be filled from other recordings stays smaller.
    """
    _check_size(pool_size)
    rng, n = random.Random(seed), len(gallery)
    n_hard, n_semi = quotas(pool_size)
    queries = np.array(rng.sample(range(n), min(n_queries, n)), np.int32)
    candidates = np.full((len(queries), pool_size), -1, np.int32)
    positive = np.empty(len(queries), np.int32)
    for i, query in enumerate(queries):
        same = gallery.recording == gallery.recording[query]
        own = np.flatnonzero(same)
        composer = np.flatnonzero(~same & (gallery.composer == gallery.composer[query]))
        hard = _draw(rng, own[own != query], n_hard)
        semi = _draw(rng, composer, n_semi)
        free = ~same
        free[semi] = False
        rest = _draw(rng, np.flatnonzero(free), pool_size - 1 - len(hard) - len(semi))
        pool = [*hard, *semi, *rest]
        positive[i] = rng.randint(0, len(pool))
        pool.insert(positive[i], query)
        candidates[i, : len(pool)] = pool
    return Pools(
        protocol="paper", seed=seed, queries=queries, candidates=candidates, positive=positive
    )


def paper_hard_trials(
    gallery: Gallery, seed: int = PAPER_SEED, n_trials: int = PAPER_QUERIES
) -> HardTrials:
    """``hard_neg`` draws of the paper protocol, bit-exact (method §7.2).

    Recordings of fewer than 10 segments take no part; without any other there are no trials. Each
    trial also draws a segment of another recording, which only the generator's state needs.
    """
    rng = random.Random(seed)
    ids, counts = np.unique(gallery.recording, return_counts=True)
    ids = ids[counts >= HARD_TRIAL_MIN_SEGMENTS]
    rows = [np.flatnonzero(gallery.recording == recording) for recording in ids]
    trials = np.empty((n_trials if rows else 0, 2), np.int32)
    for trial in trials:
        own = rng.choice(rows)
        query = rng.choice(own)
        trial[:] = query, rng.choice(own[own != query])
        if len(own) < len(gallery):
            rng.choice(range(len(gallery) - len(own)))
    return HardTrials(query=trials[:, 0], hard=trials[:, 1])


def strict_pools(gallery: Gallery, pool_size: int = POOL_SIZE) -> Pools:
    """Pools of the strict protocol: a function of the store and the pool size alone.

    The positive is in column 0; negatives follow by class (same recording, same composer, others),
    each in the order of its hash. Others are any valid segments of other compositions; they also
    fill what the first two classes lack.

    Raises
    ------
    RetrievalError
        (kind ``pool-size``) when more than 10 % of the queries cannot get ``pool_size`` candidates;
        the message names the largest pool that works.
    """
    _check_size(pool_size)
    n_valid = int(gallery.valid.sum())
    if n_valid == 0:
        raise RetrievalError(f"the split '{gallery.split}' has no valid segments", kind="gallery")
    queries = np.empty(n_valid, np.int32)
    candidates = np.empty((n_valid, pool_size), np.int32)
    at = 0
    for recording in np.unique(gallery.recording[gallery.valid]):
        own = np.flatnonzero((gallery.recording == recording) & gallery.valid)
        others = np.flatnonzero(
            gallery.valid
            & (gallery.recording != recording)
            & (gallery.composition != gallery.composition[own[0]])
        )
        for block in np.array_split(own, -(-len(own) // QUERY_BLOCK)):
            queries[at : at + len(block)] = block
            candidates[at : at + len(block)] = _strict_block(gallery, block, own, others, pool_size)
            at += len(block)
    full = candidates[:, -1] >= 0
    excluded = int((~full).sum())
    if excluded > MAX_EXCLUDED * n_valid:
        raise _too_few(gallery, pool_size, excluded, n_valid)
    order = np.flatnonzero(full)[np.argsort(queries[full], kind="stable")]
    return Pools(
        protocol="strict",
        seed=STRICT_SEED,
        queries=queries[order],
        candidates=candidates[order],
        positive=np.zeros(len(order), np.int32),
        excluded=excluded,
    )


def strict_hard_trials(gallery: Gallery, pools: Pools) -> HardTrials:
    """One trial per query: the first segment of its own recording in its strict pool.

    That segment has the smallest hash of its class, so it is a uniform draw; queries without one
    are left out.
    """
    if pools.candidates.shape[1] < 2:
        return HardTrials(query=pools.queries[:0], hard=pools.queries[:0])
    first = pools.candidates[:, 1]
    own = (first >= 0) & (gallery.recording[first] == gallery.recording[pools.queries])
    return HardTrials(query=pools.queries[own], hard=first[own])


def _draw(rng: random.Random, rows: npt.NDArray[np.int64], wanted: int) -> list[int]:
    """``rng.sample`` of a list; drawing positions consumes the same numbers without making one."""
    picks = rng.sample(range(len(rows)), min(wanted, len(rows)))
    return [int(rows[i]) for i in picks]


def _strict_block(
    gallery: Gallery,
    block: npt.NDArray[np.int64],
    own: npt.NDArray[np.int64],
    others: npt.NDArray[np.int64],
    pool_size: int,
) -> IntArray:
    """Strict pools [len(block), pool_size] of queries of one recording; -1 where none is left."""
    n_hard, n_semi = quotas(pool_size)
    query_ids = gallery.segment[block]
    apart = np.abs(gallery.start_s[block, None] - gallery.start_s[None, own]) >= CLEAR_S - 1e-9
    own_keys = pair_keys(query_ids, gallery.segment[own], STRICT_SEED)
    hard = _smallest(np.where(apart, own_keys, _LAST), n_hard)

    keys = pair_keys(query_ids, gallery.segment[others], STRICT_SEED)
    composer = np.flatnonzero(gallery.composer[others] == gallery.composer[block[0]])
    semi = _look_up(composer, _smallest(keys[:, composer], n_semi))
    row, column = np.nonzero(semi >= 0)
    keys[row, semi[row, column]] = _LAST  # chosen already
    rest = _smallest(keys, pool_size - 1)

    classes = [block[:, None], _look_up(own, hard), _look_up(others, semi), _look_up(others, rest)]
    pool = np.concatenate(classes, axis=1)
    gaps_last = np.argsort(pool < 0, axis=1, kind="stable")[:, :pool_size]
    filled: IntArray = np.full((len(block), pool_size), -1, np.int32)
    filled[:, : gaps_last.shape[1]] = np.take_along_axis(pool, gaps_last, axis=1)
    return filled


def _smallest(keys: Keys, count: int) -> npt.NDArray[np.int64]:
    """Columns of the ``count`` smallest keys of a row, ascending; -1 where a key is ``_LAST``."""
    count = min(count, keys.shape[1])
    if count == 0:
        return np.empty((len(keys), 0), np.int64)
    columns = np.argpartition(keys, count - 1, axis=1)[:, :count]
    chosen = np.take_along_axis(keys, columns, axis=1)
    order = np.argsort(chosen, axis=1)
    columns = np.take_along_axis(columns, order, axis=1)
    columns[np.take_along_axis(chosen, order, axis=1) == _LAST] = -1
    return columns


def _look_up(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``rows[columns]``, -1 staying -1."""
    return np.where(columns >= 0, np.append(rows, -1)[columns], -1)


def _check_size(pool_size: int) -> None:
    if pool_size < 2:
        raise RetrievalError(f"--pool-size {pool_size}: must be at least 2", kind="pool-size")


def _too_few(gallery: Gallery, pool_size: int, excluded: int, n_valid: int) -> RetrievalError:
    largest = largest_pool_size(gallery, pool_size)
    advice = f"use --pool-size {largest}" if largest else "use a split with more compositions"
    return RetrievalError(
        f"{excluded} of the {n_valid} valid segments of the split '{gallery.split}' cannot fill a "
        f"strict pool of {pool_size} (it holds at most {quotas(pool_size)[0]} segments of the same "
        f"recording and none of another recording of the same composition); {advice}",
        kind="pool-size",
    )


def largest_pool_size(gallery: Gallery, below: int = POOL_SIZE) -> int:
    """Largest strict pool size under ``below`` that 90 % of the queries can fill; 0 if none can."""
    rows = np.flatnonzero(gallery.valid)
    recording, composition = gallery.recording[rows], gallery.composition[rows]
    total = np.bincount(composition)
    clear, others = np.empty(len(rows), int), len(rows) - total[composition]
    for one in np.unique(recording):
        own = np.flatnonzero(recording == one)
        start = np.sort(gallery.start_s[rows[own]])
        at = gallery.start_s[rows[own]]
        before = np.searchsorted(start, at - CLEAR_S + 1e-9, side="right")
        clear[own] = before + len(own) - np.searchsorted(start, at + CLEAR_S - 1e-9, side="left")
    for size in range(below - 1, 1, -1):
        possible = 1 + np.minimum(clear, quotas(size)[0]) + others
        if (possible < size).sum() <= MAX_EXCLUDED * len(rows):
            return size
    return 0
