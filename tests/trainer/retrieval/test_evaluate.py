"""One record per evaluation: its keys, its values against brute force, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from pipeline.base.errors import ConfigError
from trainer.retrieval.evaluate import evaluate_embeddings, score_embeddings, score_similarities
from trainer.retrieval.gallery import RetrievalError
from trainer.retrieval.protocols import PROTOCOLS

KEYS = set(
    "protocol split seed queries excluded pool_size pool_hash chance a2m m2a S direction_gap "
    "cosine_gap hard_neg no_copy full hubness breakdown ci95 ci_kind recordings segments run store "
    "seconds".split()
)
SCORES = {"R@1", "R@5", "R@10", "R@20", "MRR", "median_rank", "mean_rank"}


def noisy_pair(n, d=24, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    audio = rng.standard_normal((n, d)).astype(np.float32)
    return audio, audio + noise * rng.standard_normal((n, d)).astype(np.float32)


@pytest.mark.parametrize("protocol", ["paper", "strict"])
def test_the_record_has_its_keys_and_is_plain_json(medium_gallery, protocol):
    audio, midi = noisy_pair(len(medium_gallery))
    record = evaluate_embeddings(
        audio, midi, medium_gallery, protocol, run="a4r-0123", store="demo-4567"
    )
    assert set(record) == KEYS
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    for part in (record["a2m"], record["m2a"], *record["full"].values()):
        assert set(part) == SCORES
        assert all(0 <= part[k] <= 1 for k in SCORES if "rank" not in k)
    assert set(record["chance"]) == {"R@1", "R@5", "R@10", "R@20", "MRR"}
    assert record["S"] == min(record["a2m"]["R@10"], record["m2a"]["R@10"])
    assert record["direction_gap"] == record["a2m"]["R@10"] - record["m2a"]["R@10"]
    assert record["pool_size"] == {"min": 256, "median": 256.0}
    assert record["chance"]["R@10"] == pytest.approx(10 / 256)
    low, high = record["ci95"]["S"]
    assert low <= record["S"] <= high
    assert record["ci_kind"] == "recordings"
    assert set(record["hard_neg"]) == {"one", "all64", "trials", "queries"}
    assert (record["run"], record["store"]) == ("a4r-0123", "demo-4567")


@pytest.mark.parametrize("protocol", ["paper", "strict"])
def test_the_record_equals_brute_force(medium_gallery, protocol):
    gallery, (audio, midi) = medium_gallery, noisy_pair(len(medium_gallery), noise=2.0)
    record = evaluate_embeddings(audio, midi, gallery, protocol)
    pools = PROTOCOLS.get(protocol).pools(gallery, None)
    a = audio.astype(float) / np.linalg.norm(audio.astype(float), axis=1, keepdims=True)
    m = midi.astype(float) / np.linalg.norm(midi.astype(float), axis=1, keepdims=True)
    sims = a @ m.T
    members = np.ones(len(gallery), bool) if protocol == "paper" else gallery.valid
    kept = sims[np.ix_(members, members)]
    for name, matrix, square in (("a2m", sims, kept), ("m2a", sims.T, kept.T)):
        ranks = [
            sum(matrix[q, c] > matrix[q, q] for c in pool)
            for q, pool in zip(pools.queries, pools.candidates, strict=True)
        ]
        assert record[name]["R@10"] == pytest.approx(np.mean(np.array(ranks) < 10))
        assert record[name]["mean_rank"] == pytest.approx(np.mean(ranks), abs=1e-2)
        full = (square > np.diag(square)[:, None]).sum(axis=1)
        assert record["full"][name]["R@10"] == pytest.approx(np.mean(full < 10))
    off = kept[~np.eye(len(kept), dtype=bool)].mean()
    assert record["cosine_gap"] == pytest.approx(np.diag(kept).mean() - off, abs=1e-6)
    wins = []
    for q, pool in zip(pools.queries, pools.candidates, strict=True):
        own = [c for c in pool if gallery.recording[c] == gallery.recording[q] and c != q]
        wins.append(all(sims[q, q] > sims[q, c] for c in own))
    assert record["hard_neg"]["all64"] == pytest.approx(np.mean(wins))
    assert record["hard_neg"]["queries"] == len(wins)  # every recording has some to spare
    trials = PROTOCOLS.get(protocol).hard_trials(gallery, pools)
    beaten = sims[trials.query, trials.query] > sims[trials.query, trials.hard]
    assert record["hard_neg"]["one"] == pytest.approx(np.mean(beaten))
    assert record["hard_neg"]["trials"] == len(trials.query)
    assert record["segments"] == members.sum()
    assert record["recordings"] == 24


def test_random_embeddings_score_chance(make_gallery):
    gallery = make_gallery([75] * 20, list(range(20)), list(range(20)))
    rng = np.random.default_rng(11)
    audio, midi = rng.standard_normal((2, len(gallery), 64)).astype(np.float32)
    for protocol, queries in (("paper", 500), ("strict", 1500)):
        record = evaluate_embeddings(audio, midi, gallery, protocol)
        assert record["queries"] == queries
        chance = 10 / 256
        error = np.sqrt(chance * (1 - chance) / queries)
        for direction in ("a2m", "m2a"):
            assert abs(record[direction]["R@10"] - chance) < 3 * error
        assert abs(record["cosine_gap"]) < 0.02
        assert abs(record["hard_neg"]["one"] - 0.5) < 3 * np.sqrt(0.25 / queries)


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_constant_embeddings_gain_nothing(medium_gallery, constant):
    audio = np.full((len(medium_gallery), 256), constant, np.float32) * 0.3
    audio[:, 0] *= 2
    record = evaluate_embeddings(audio, audio, medium_gallery, "strict")
    for part in (record["a2m"], record["m2a"], *record["full"].values()):
        assert part["R@20"] == 0
    assert record["S"] == 0
    assert (record["hard_neg"]["one"], record["hard_neg"]["all64"]) == (0, 0)
    paper = evaluate_embeddings(audio, audio, medium_gallery, "paper")
    error = np.sqrt(10 / 256 * 246 / 256 / 500)
    assert abs(paper["S"] - 10 / 256) < 3 * error  # the pool's order decides: chance
    assert (paper["hard_neg"]["one"], paper["hard_neg"]["all64"]) == (0, 0)


def test_equal_embeddings_score_one(medium_gallery):
    audio, _ = noisy_pair(len(medium_gallery))
    record = evaluate_embeddings(audio, 3 * audio, medium_gallery, "strict")
    assert record["a2m"]["R@1"] == record["m2a"]["R@1"] == record["S"] == 1
    assert record["a2m"]["median_rank"] == 0
    assert record["ci95"]["S"] == [1.0, 1.0]
    assert (record["hard_neg"]["one"], record["hard_neg"]["all64"]) == (1, 1)


def test_a_swap_of_sides_swaps_the_directions(medium_gallery):
    audio, midi = noisy_pair(len(medium_gallery), noise=2.0)
    one = evaluate_embeddings(audio, midi, medium_gallery, "strict")
    two = evaluate_embeddings(midi, audio, medium_gallery, "strict")
    assert (one["a2m"], one["m2a"]) == (two["m2a"], two["a2m"])
    assert one["direction_gap"] == -two["direction_gap"]
    assert one["pool_hash"] == two["pool_hash"]


def test_float16_scores_like_float32(medium_gallery):
    audio, midi = noisy_pair(len(medium_gallery), noise=2.0)
    one = evaluate_embeddings(audio, midi, medium_gallery, "strict")
    half = evaluate_embeddings(
        audio.astype(np.float16), midi.astype(np.float16), medium_gallery, "strict"
    )
    assert half["S"] == pytest.approx(one["S"], abs=0.01)


def test_without_full_the_rest_is_the_same(medium_gallery):
    audio, midi = noisy_pair(len(medium_gallery))
    one = evaluate_embeddings(audio, midi, medium_gallery, "strict")
    two = evaluate_embeddings(audio, midi, medium_gallery, "strict", full=False)
    assert two["full"] == {"a2m": None, "m2a": None}
    assert two["hubness"] is None
    assert two["breakdown"] is None
    more = ("full", "hubness", "breakdown", "seconds")
    assert {k: v for k, v in one.items() if k not in more} == {
        k: v for k, v in two.items() if k not in more
    }


def test_parts_average_to_the_whole(medium_gallery):
    gallery = dataclasses.replace(
        medium_gallery, notes=(np.arange(len(medium_gallery)) % 23).astype(np.int32)
    )
    audio, midi = noisy_pair(len(gallery), noise=2.5)
    record = evaluate_embeddings(audio, midi, gallery, "strict")
    assert set(record["breakdown"]) == {"composer", "recording", "density"}
    assert len(record["breakdown"]["composer"]) == 5
    assert len(record["breakdown"]["recording"]) == 24
    assert 3 <= len(record["breakdown"]["density"]) <= 4
    for parts in record["breakdown"].values():
        assert sum(p["queries"] for p in parts.values()) == record["queries"]
        for side in ("a2m", "m2a"):
            for k in ("R@1", "R@10"):
                total = sum(p["queries"] * p[side][k] for p in parts.values())
                assert total / record["queries"] == pytest.approx(record[side][k])


def test_a_part_that_is_hard_shows_as_hard(medium_gallery):
    """One composer's embeddings are noise: his part is at chance, the others' are not."""
    audio, midi = noisy_pair(len(medium_gallery), noise=0.1)
    his = medium_gallery.composer == 2
    midi[his] = np.random.default_rng(5).standard_normal(midi[his].shape)
    parts = evaluate_embeddings(audio, midi, medium_gallery, "strict")["breakdown"]["composer"]
    assert parts["composer 2"]["S"] < 0.1
    assert min(p["S"] for name, p in parts.items() if name != "composer 2") > 0.95


def test_first_places_without_copies_are_counted_apart(medium_gallery):
    """Copies have equal embeddings, so their first place is lost; the others' is not."""
    gallery = medium_gallery
    audio, midi = noisy_pair(len(gallery), noise=0.01)
    copied = np.zeros(len(gallery), bool)
    for recording in np.unique(gallery.recording):
        rows = np.flatnonzero(gallery.recording == recording)
        a, b = rows[2], rows[20]
        copied[[a, b]] = True
        audio[b], midi[b] = audio[a], midi[a]
    record = evaluate_embeddings(audio, midi, gallery, "strict", copied=copied)
    queries = PROTOCOLS.get("strict").pools(gallery, None).queries
    assert record["no_copy"]["queries"] == int((~copied[queries]).sum())
    assert record["no_copy"]["a2m"]["R@1"] == 1.0
    assert record["a2m"]["R@1"] < 1.0
    assert evaluate_embeddings(audio, midi, gallery, "strict")["no_copy"] is None
    everything = np.ones(len(gallery), bool)
    none = evaluate_embeddings(audio, midi, gallery, "strict", copied=everything)["no_copy"]
    assert none == {"queries": 0, "a2m": {"R@1": None}, "m2a": {"R@1": None}}


def test_hubness_equals_brute_force_and_finds_a_hub(medium_gallery):
    audio, midi = noisy_pair(len(medium_gallery), noise=2.0)
    midi[7] = 10 * audio.mean(axis=0) + audio.sum(axis=0)  # near everything, on average
    record = evaluate_embeddings(audio, midi, medium_gallery, "paper")["hubness"]
    a = audio / np.linalg.norm(audio, axis=1, keepdims=True)
    m = midi / np.linalg.norm(midi, axis=1, keepdims=True)
    for side, sims in (("a2m", a @ m.T), ("m2a", m @ a.T)):
        np.fill_diagonal(sims, -np.inf)
        nearest = np.argsort(-sims, axis=1)[:, :10]
        counts = np.bincount(nearest.ravel(), minlength=len(sims)).astype(float)
        centred = counts - counts.mean()
        assert record[side] == {
            "k": 10,
            "skewness": pytest.approx((centred**3).mean() / counts.std() ** 3),
            "max": counts.max(),
            "hubs": (counts > counts.mean() + 3 * counts.std()).sum(),
            "orphans": pytest.approx((counts == 0).mean()),
        }


def test_the_ranks_of_every_query_are_kept(medium_gallery):
    audio, midi = noisy_pair(len(medium_gallery), noise=2.0)
    copied = np.arange(len(medium_gallery)) % 3 == 0
    for protocol in ("paper", "strict"):
        scores = score_embeddings(audio, midi, medium_gallery, protocol, copied=copied)
        columns = scores.per_query()
        queries = scores.pools.queries
        assert columns["segment"].tolist() == medium_gallery.segment[queries].tolist()
        assert columns["copied"].tolist() == copied[queries].tolist()
        record = scores.record()
        assert float((columns["a2m"] < 10).mean()) == record["a2m"]["R@10"]
        members = scores.protocol.members(medium_gallery)
        among = np.flatnonzero(members)
        full = dict(zip(among.tolist(), scores.m2a_full.tolist(), strict=True))
        assert columns["m2a_full"].tolist() == [full[q] for q in queries.tolist()]


def test_any_similarity_can_be_scored(medium_gallery):
    """Negative distance: a similarity that no embedding gives."""

    class Distance:
        def __init__(self, left, right):
            self.left, self.right = left, right

        def rows(self, queries):
            gap = self.left[queries][:, None] - self.right[None]
            return -np.abs(gap).sum(axis=2, dtype=np.float32)

        def pairs(self, queries, candidates):
            return -np.abs(self.left[queries] - self.right[candidates]).sum(axis=1)

    audio, midi = noisy_pair(len(medium_gallery), d=4, noise=0.01)
    scores = score_similarities(
        Distance(audio, midi), Distance(midi, audio), medium_gallery, "strict", full=False
    )
    record = scores.record()
    assert record["a2m"]["R@1"] > 0.9
    assert record["cosine_gap"] is None


def test_small_corpora_print_their_own_chance(make_gallery):
    gallery = make_gallery([8, 8], [0, 1], [0, 1])
    audio, midi = noisy_pair(16)
    record = evaluate_embeddings(audio, midi, gallery, "paper")
    assert record["queries"] == 16
    assert record["pool_size"] == {"min": 16, "median": 16.0}
    assert record["chance"]["R@10"] == pytest.approx(10 / 16)
    assert record["hard_neg"]["one"] is None  # no recording of ten segments
    assert record["ci_kind"] == "10-s blocks"
    single = evaluate_embeddings(audio[:1], midi[:1], make_gallery([1], [0], [0]), "paper")
    assert (single["cosine_gap"], single["ci95"]["S"], single["S"]) == (None, None, 1.0)
    assert json.dumps(single, allow_nan=False)
    strict = evaluate_embeddings(audio, midi, gallery, "strict", pool_size=8)
    assert strict["pool_size"] == {"min": 8, "median": 8.0}


def test_pool_seeds(medium_gallery):
    audio, midi = noisy_pair(len(medium_gallery))
    seen = {
        seed: evaluate_embeddings(audio, midi, medium_gallery, "paper", seed=seed, full=False)
        for seed in (None, 42, 7)
    }
    assert seen[None]["pool_hash"] == seen[42]["pool_hash"] != seen[7]["pool_hash"]
    assert (seen[None]["seed"], seen[7]["seed"]) == (42, 7)
    assert evaluate_embeddings(audio, midi, medium_gallery, "strict", full=False)["seed"] == 0
    with pytest.raises(ConfigError, match="--seed 7"):
        evaluate_embeddings(audio, midi, medium_gallery, "strict", seed=7)


def test_pools_made_before_can_be_used_again(medium_gallery, make_gallery):
    audio, midi = noisy_pair(len(medium_gallery))
    pools = PROTOCOLS.get("strict").pools(medium_gallery, None, 64)
    one = evaluate_embeddings(audio, midi, medium_gallery, "strict", pool_size=64)
    two = evaluate_embeddings(audio, midi, medium_gallery, "strict", pools=pools)
    assert (one["a2m"], one["pool_hash"]) == (two["a2m"], two["pool_hash"])
    with pytest.raises(RetrievalError, match="do not fit the protocol 'paper'"):
        evaluate_embeddings(audio, midi, medium_gallery, "paper", pools=pools)
    small = make_gallery([9, 9], [0, 1], [0, 1])
    with pytest.raises(RetrievalError, match="do not fit"):
        evaluate_embeddings(audio[:18], midi[:18], small, "strict", pools=pools)


def test_protocols_say_whether_they_take_a_seed():
    assert {name: rules.seeded for name, rules in PROTOCOLS.items()} == {
        "paper": True,
        "strict": False,
    }


def test_what_cannot_be_scored_is_refused(medium_gallery):
    audio, midi = noisy_pair(len(medium_gallery))
    with pytest.raises(RetrievalError, match="another store or split") as caught:
        evaluate_embeddings(audio[1:], midi, medium_gallery, "strict")
    assert caught.value.exit_code == 3
    broken = midi.copy()
    broken[5] = np.nan
    with pytest.raises(RetrievalError, match="NaN or infinity"):
        evaluate_embeddings(audio, broken, medium_gallery, "paper")
    with pytest.raises(ConfigError, match="did you mean 'strict'"):
        evaluate_embeddings(audio, midi, medium_gallery, "strikt")


def test_scores_keep_every_query(medium_gallery):
    audio, midi = noisy_pair(len(medium_gallery))
    scores = score_embeddings(audio, midi, medium_gallery, "strict")
    assert scores.a2m.shape == scores.m2a.shape == scores.pools.queries.shape
    assert scores.a2m_full.shape == (medium_gallery.valid.sum(),)
    assert scores.record()["S"] == min((scores.a2m < 10).mean(), (scores.m2a < 10).mean())


@pytest.mark.parametrize("side", ["a2m", "m2a"])
def test_the_interval_is_that_of_the_smaller_direction(medium_gallery, side):
    audio, midi = noisy_pair(len(medium_gallery))
    scores = score_embeddings(audio, midi, medium_gallery, "strict", full=False)
    lost = dataclasses.replace(scores, **{side: np.full_like(scores.a2m, 255)}).record()
    assert lost["S"] == 0
    assert lost["ci95"]["S"] == [0.0, 0.0]


def test_hard_negatives_say_how_many_queries_they_are_of(make_gallery):
    """Twenty recordings of two segments have nothing that is four seconds away; twenty of 40 have."""
    gallery = make_gallery([2] * 20 + [40] * 20, list(range(40)), list(range(40)))
    audio, midi = noisy_pair(len(gallery))
    record = evaluate_embeddings(audio, midi, gallery, "strict")
    assert record["queries"] == 840
    assert record["hard_neg"]["queries"] == record["hard_neg"]["trials"] == 800
    paper = evaluate_embeddings(audio, midi, gallery, "paper")
    assert paper["hard_neg"]["queries"] == 500  # neighbours count, too
    assert paper["hard_neg"]["trials"] == 500


def test_embeddings_that_say_whose_they_are_are_held_to_it(medium_gallery):
    """Another store may have a split of equal length."""
    audio, midi = noisy_pair(len(medium_gallery))
    own = medium_gallery.segment
    one = evaluate_embeddings(audio, midi, medium_gallery, "strict", segments=own, full=False)
    assert one["queries"] == int(medium_gallery.valid.sum())
    for other in (own + 1, own[1:]):
        with pytest.raises(RetrievalError, match="of other segments") as caught:
            evaluate_embeddings(audio, midi, medium_gallery, "strict", segments=other)
        assert caught.value.kind == "shape"
