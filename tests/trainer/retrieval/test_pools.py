"""Pools: the paper's bit for bit, the strict ones by what they must and must not hold."""

from __future__ import annotations

import hashlib
import random
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.retrieval import pools as pools_module
from trainer.retrieval.gallery import Gallery, RetrievalError
from trainer.retrieval.hashing import splitmix64
from trainer.retrieval.pools import (
    largest_pool_size,
    paper_hard_trials,
    paper_pools,
    quotas,
    strict_hard_trials,
    strict_pools,
)

MASK = 2**64 - 1


def paper_twin(recording, composer, seed, n_queries=500):
    """Method §7.1 with lists: (query, candidates, positive position) per query."""
    n = len(recording)
    rng = random.Random(seed)
    drawn = []
    for query in rng.sample(range(n), min(n_queries, n)):
        same = [i for i in range(n) if recording[i] == recording[query] and i != query]
        hard = rng.sample(same, min(64, len(same)))
        peers = [
            i
            for i in range(n)
            if recording[i] != recording[query] and composer[i] == composer[query]
        ]
        semi = rng.sample(peers, min(32, len(peers)))
        taken = set(hard) | set(semi)
        rest = [i for i in range(n) if recording[i] != recording[query] and i not in taken]
        rest = rng.sample(rest, min(255 - len(hard) - len(semi), len(rest)))
        pool = hard + semi + rest
        position = rng.randint(0, len(pool))
        pool.insert(position, query)
        drawn.append((query, pool, position))
    return drawn


def hash_of(rows, width):
    """SHA-256 of int32 rows [query, candidates…] padded with -1 to 1 + width."""
    data = b"".join(
        struct.pack(f"<{1 + width}i", query, *pool, *[-1] * (width - len(pool)))
        for query, pool in rows
    )
    return hashlib.sha256(data).hexdigest()


def mix(value):
    """Splitmix64 of one Python integer."""
    z = (value + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def strict_twin(gallery, pool_size):
    """The strict rules with lists and Python integers; a short pool comes back short."""
    n_hard, n_semi = min(64, pool_size // 4), min(32, pool_size // 8)
    rows = [i for i in range(len(gallery)) if gallery.valid[i]]
    made = []
    for q in rows:
        base = mix(mix(0) ^ int(gallery.segment[q]))
        ordered = sorted(rows, key=lambda i, base=base: mix(base ^ int(gallery.segment[i])))
        hard = [
            i
            for i in ordered
            if gallery.recording[i] == gallery.recording[q]
            and abs(gallery.start_s[i] - gallery.start_s[q]) >= 4
        ][:n_hard]
        others = [i for i in ordered if gallery.composition[i] != gallery.composition[q]]
        semi = [i for i in others if gallery.composer[i] == gallery.composer[q]][:n_semi]
        rest = [i for i in others if i not in set(semi)]
        made.append((q, [q, *hard, *semi, *rest][:pool_size]))
    return made


@pytest.mark.parametrize("seed", [42, 0, 2026])
def test_paper_pools_are_bit_exact(medium_gallery, seed):
    pools = paper_pools(medium_gallery, seed)
    twin = paper_twin(medium_gallery.recording.tolist(), medium_gallery.composer.tolist(), seed)
    assert pools.queries.tolist() == [query for query, _, _ in twin]
    assert [row[row >= 0].tolist() for row in pools.candidates] == [pool for _, pool, _ in twin]
    assert pools.positive.tolist() == [position for _, _, position in twin]
    assert pools.hash == hash_of([(q, pool) for q, pool, _ in twin], 256)
    assert set(pools.sizes) == {256}


def test_paper_pools_have_a_golden_hash(medium_gallery):
    assert paper_pools(medium_gallery).hash == GOLDEN_PAPER


def test_strict_pools_have_a_golden_hash(medium_gallery):
    assert strict_pools(medium_gallery).hash == GOLDEN_STRICT


def test_paper_takes_every_segment_valid_or_not(make_gallery):
    gallery = make_gallery([10, 10], [0, 1], [0, 1], valid=np.zeros(20, bool))
    pools = paper_pools(gallery)
    assert sorted(pools.queries) == list(range(20))
    assert all(sorted(row[row >= 0]) == list(range(20)) for row in pools.candidates)


@pytest.mark.parametrize("per", [[1], [5], [3, 2], [1, 1, 1], [70, 2], [300, 5, 5]])
def test_paper_pools_shrink_with_a_small_gallery(make_gallery, per):
    gallery = make_gallery(per, [0] * len(per), list(range(len(per))))
    pools = paper_pools(gallery)
    twin = paper_twin(gallery.recording.tolist(), gallery.composer.tolist(), 42)
    assert len(pools.queries) == min(500, len(gallery))
    assert [row[row >= 0].tolist() for row in pools.candidates] == [pool for _, pool, _ in twin]
    assert pools.sizes.tolist() == [len(pool) for _, pool, _ in twin]


@pytest.mark.parametrize("per", [[12, 9, 30, 11], [10], [12, 3]])
def test_paper_hard_trials_are_bit_exact(make_gallery, per):
    gallery = make_gallery(per, [0] * len(per), list(range(len(per))))
    recording = gallery.recording.tolist()
    rng = random.Random(42)
    pieces = [p for p in range(len(per)) if per[p] >= 10]
    expected = []
    for _ in range(500):
        piece = rng.choice(pieces)
        own = [i for i in range(len(recording)) if recording[i] == piece]
        query = rng.choice(own)
        expected.append((query, rng.choice([i for i in own if i != query])))
        outside = [i for i in range(len(recording)) if recording[i] != piece]
        if outside:
            rng.choice(outside)
    trials = paper_hard_trials(gallery)
    assert list(zip(trials.query.tolist(), trials.hard.tolist(), strict=True)) == expected


def test_no_hard_trials_without_long_recordings(make_gallery):
    assert len(paper_hard_trials(make_gallery([9, 4], [0, 0], [0, 1])).query) == 0


def test_splitmix64_equals_its_published_stream():
    """First outputs of the reference generator seeded with 1234567."""
    step = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * step) & MASK for i in range(3)], np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert splitmix64(states).tolist() == expected


def test_strict_equals_an_independent_twin(medium_gallery):
    pools = strict_pools(medium_gallery)
    twin = strict_twin(medium_gallery, 256)
    assert pools.queries.tolist() == [q for q, _ in twin]
    assert pools.candidates.tolist() == [pool for _, pool in twin]
    assert pools.hash == hash_of(twin, 256)


@st.composite
def galleries(draw):
    per = draw(st.lists(st.integers(1, 25), min_size=2, max_size=9))
    n = sum(per)
    composers = draw(st.lists(st.integers(0, 2), min_size=len(per), max_size=len(per)))
    works = draw(st.lists(st.integers(0, 4), min_size=len(per), max_size=len(per)))
    valid = draw(st.lists(st.sampled_from([True, True, True, False]), min_size=n, max_size=n))
    recording = np.repeat(np.arange(len(per)), per)
    hop = draw(st.sampled_from([0.5, 1.0, 3.0]))
    return Gallery.from_columns(
        split="test",
        segment=np.arange(n) + draw(st.integers(0, 10**6)),
        recording=recording,
        composer=[composers[r] for r in recording],
        composition=[works[r] for r in recording],
        start_s=np.concatenate([np.arange(k) * hop for k in per]),
        valid=valid,
    )


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(gallery=galleries(), pool_size=st.integers(2, 40))
def test_strict_holds_what_it_says_and_nothing_else(gallery, pool_size):
    n_valid = int(gallery.valid.sum())
    twin = strict_twin(gallery, pool_size)
    full = [(q, pool) for q, pool in twin if len(pool) == pool_size]
    short = n_valid - len(full)
    if n_valid == 0 or short > 0.1 * n_valid:
        with pytest.raises(RetrievalError) as caught:
            strict_pools(gallery, pool_size)
        assert caught.value.exit_code == 3
        return
    pools = strict_pools(gallery, pool_size)
    assert pools.excluded == short
    assert pools.queries.tolist() == [q for q, _ in full]
    assert pools.candidates.tolist() == [pool for _, pool in full]
    for query, row, positive in zip(pools.queries, pools.candidates, pools.positive, strict=True):
        assert row[positive] == query
        assert len(set(row.tolist())) == pool_size
        assert gallery.valid[row].all()
        negatives = np.delete(row, positive)
        own = gallery.recording[negatives] == gallery.recording[query]
        assert own.sum() <= quotas(pool_size)[0]
        assert (np.abs(gallery.start_s[negatives[own]] - gallery.start_s[query]) >= 4).all()
        work = gallery.composition[negatives[~own]]
        assert (work != gallery.composition[query]).all()


def test_strict_depends_on_the_store_alone(medium_gallery, monkeypatch):
    before = strict_pools(medium_gallery).hash
    np.random.seed(99)  # noqa: NPY002 - the point is that the global generators do not matter
    random.seed(99)
    monkeypatch.setattr(pools_module, "QUERY_BLOCK", 7)
    assert strict_pools(medium_gallery).hash == before


def test_a_query_without_a_full_pool_is_counted(make_gallery):
    """The 2 segments of recording 1 have 40 candidates and no neighbour 4 s away."""
    gallery = make_gallery([40, 2, 40], [0, 0, 0], [0, 0, 1])
    pools = strict_pools(gallery, 50)
    assert pools.excluded == 2
    assert pools.queries.tolist() == [*range(40), *range(42, 82)]


def test_too_many_short_pools_name_the_size_that_works(make_gallery):
    gallery = make_gallery([30, 30, 20, 20], [0] * 4, [0, 1, 2, 2])
    with pytest.raises(RetrievalError, match=r"use --pool-size \d+") as caught:
        strict_pools(gallery)
    assert (caught.value.kind, caught.value.exit_code) == ("pool-size", 3)
    size = int(str(caught.value).rsplit(" ", 1)[1])
    assert size == largest_pool_size(gallery)
    assert strict_pools(gallery, size).excluded <= 0.1 * len(gallery)
    with pytest.raises(RetrievalError):
        strict_pools(gallery, size + 1)


def test_no_pool_at_all_says_so(make_gallery):
    with pytest.raises(RetrievalError, match="more compositions"):
        strict_pools(make_gallery([3, 3], [0, 0], [0, 0]))
    with pytest.raises(RetrievalError, match="no valid segments"):
        strict_pools(make_gallery([3], [0], [0], valid=[False] * 3))
    with pytest.raises(RetrievalError, match="at least 2"):
        strict_pools(make_gallery([3], [0], [0]), 1)


def test_strict_hard_trials_stay_in_the_recording(medium_gallery):
    pools = strict_pools(medium_gallery)
    trials = strict_hard_trials(medium_gallery, pools)
    gallery = medium_gallery
    assert len(trials.query) == len(pools.queries)
    assert (gallery.recording[trials.query] == gallery.recording[trials.hard]).all()
    assert (np.abs(gallery.start_s[trials.query] - gallery.start_s[trials.hard]) >= 4).all()


def test_gallery_from_store(fake_store):
    gallery = Gallery.from_store(fake_store, "test")
    rows = np.flatnonzero(fake_store.segments.split == "test")
    assert gallery.segment.tolist() == rows.tolist()
    assert set(gallery.recording) == {0, 2, 4}
    assert len(set(gallery.composition)) == 3
    assert len(set(gallery.composer)) == 1
    assert (~gallery.valid).sum() == 1
    with pytest.raises(RetrievalError, match=r"no segments in the split 'validation'.*test, train"):
        Gallery.from_store(fake_store, "validation")


GOLDEN_PAPER = "34ad6aaeb004edc6f5fe767534097914ecd306f65a30858d62b2e8b0e422765a"
GOLDEN_STRICT = "1a58de61d65ba9a6c13e9c42b4959dc5aeac3d5b18bdfaf8a8e3e3fe9fa1797e"
