"""What a score is worth: the share of false alarms is what it says, on indexes without any match."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from trainer.retrieval.lags import COSINE, Comparison
from trainer.search.chance import Chance, measure
from trainer.search.finding import Haystack, Stretch, moments, searched
from trainer.search.nearest import Exact
from trainer.search.placing import Places

COMPOSITIONS, ROWS, WIDTH, QUERIES = 16, 42, 24, 32
GUMBEL = Chance(seconds=(4.0, 16.0, 64.0), location=(2.0, 3.0, 4.0), scale=(0.5, 0.75, 1.0),
                stretches=(64, 64, 64), left_out=(0, 0, 0))  # fmt: skip


def share(score: float, location: float, scale: float) -> float:
    """The upper tail of a Gumbel distribution that is a quarter wider."""
    return 1 - math.exp(-math.exp(-(score - location) / (1.25 * scale)))


def test_the_share_falls_with_the_score() -> None:
    shares = [GUMBEL.false_alarms(s, 16.0) for s in np.arange(-2, 40, 0.25)]
    assert shares[0] == pytest.approx(1.0, abs=1e-6)
    assert all(a >= b for a, b in itertools.pairwise(shares))
    assert 0 < shares[-1] < 1e-15  # no cancellation


def test_the_share_rises_with_the_length() -> None:
    shares = [GUMBEL.false_alarms(6.0, s) for s in (4.0, 5.0, 16.0, 30.0, 64.0, 90.0, 4000.0)]
    assert all(a < b for a, b in itertools.pairwise(shares))


@pytest.mark.parametrize(
    ("seconds", "location", "scale"),
    [
        (4.0, 2.0, 0.5), (16.0, 3.0, 0.75), (64.0, 4.0, 1.0),  # what was measured
        (8.0, 2.5, 0.625), (32.0, 3.5, 0.875),  # half-way in the logarithm
        (64.0 * math.e, 5.0, 1.0), (64.0 * math.e**2, 6.0, 1.0),  # more tries
        (1.0, 2.0, 0.5),
    ],
)  # fmt: skip
def test_between_and_beyond_lengths(seconds: float, location: float, scale: float) -> None:
    for score in (1.0, 4.0, 9.0):
        expected = share(score, location, scale)
        assert GUMBEL.false_alarms(score, seconds) == pytest.approx(expected, rel=1e-6)


def test_what_was_measured_lower_of_longer_ones_is_not_believed() -> None:
    falling = Chance(
        seconds=(4.0, 16.0), location=(3.0, 2.0), scale=(1.0, 0.5), stretches=(64, 64),
        left_out=(0, 0),
    )  # fmt: skip
    for seconds in (4.0, 9.0, 16.0):
        assert falling.false_alarms(4.0, seconds) == pytest.approx(share(4.0, 3.0, 1.0))
    single = Chance(seconds=(6.0,), location=(2.0,), scale=(0.5,), stretches=(64,), left_out=(0,))
    for seconds in (4.0, 6.0):
        assert single.false_alarms(4.0, seconds) == pytest.approx(share(4.0, 2.0, 0.5))


def test_an_empty_one_cannot_say() -> None:
    empty = Chance(seconds=(), location=(), scale=(), stretches=(), left_out=())
    assert empty.false_alarms(99.0, 8.0) is None
    for each in (empty, GUMBEL):
        assert Chance.from_plain(each.plain()) == each
        assert all(isinstance(v, list) for v in each.plain().values())


class Heard:
    """Windows every quarter second whose vectors are given; at any tempo they are the same."""

    query = None

    def __init__(self, vectors: np.ndarray, haystack: Haystack) -> None:
        self.vectors, self.haystack, self.embedder = vectors, haystack, self
        self.start_s = np.arange(len(vectors)) / 4

    def of(self, which: np.ndarray) -> Any:
        return self.vectors[which], self.haystack.moments(self.vectors[which])

    def of_query(self, query: None, start_s: np.ndarray, tempo: float) -> np.ndarray:
        return self.vectors[np.round(start_s * 4).astype(int).clip(0, len(self.vectors) - 1)]


class Null:
    """An index in which nothing is like anything: both sides drawn alone, smooth over time."""

    def __init__(
        self, seed: int, compositions: int = COMPOSITIONS, comparison: Comparison = COSINE
    ) -> None:
        rng = np.random.default_rng(seed)
        self.composition = np.repeat(np.arange(compositions), ROWS)
        start = np.tile(np.arange(ROWS), compositions)
        self.rows = np.concatenate([stream(rng, ROWS) for _ in range(compositions)])
        other = np.concatenate([stream(rng, ROWS) for _ in range(compositions)])
        mean, sigma = moments(self.rows, other, comparison)
        self.haystack = Haystack(
            vectors=self.rows, places=Places.of(self.composition, start, compositions),
            background=self.rows, mean=mean.astype(np.float32), sigma=sigma.astype(np.float32),
            nearest=Exact(self.rows, comparison), comparison=comparison,
        )  # fmt: skip
        self.queries = [
            (self.stretch(stream(rng, 40, 4)), i % compositions) for i in range(QUERIES)
        ]

    def stretch(self, vectors: np.ndarray) -> Stretch:
        heard: Any = Heard(vectors, self.haystack)
        return Stretch.whole(heard)

    def measured(self) -> Chance:
        return measure(self.queries, self.haystack, self.composition)

    def own(self, composition: int) -> Stretch:
        """The rows of a composition as a query, a little off; every quarter second the same row."""
        rng = np.random.default_rng(composition)
        rows = self.rows[composition * ROWS :][:ROWS]
        return self.stretch(unit(np.repeat(rows, 4, axis=0)[:160] + off(rng, (160, WIDTH))))


def off(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return 0.05 * rng.standard_normal(shape)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def stream(rng: np.random.Generator, seconds: int, hops: int = 1) -> np.ndarray:
    """Unit vectors every 1 / hops s, each the sum of what is drawn for its four seconds."""
    drawn = rng.standard_normal(((seconds + 4) * hops, WIDTH))
    sums = np.cumsum(np.concatenate([np.zeros((1, WIDTH)), drawn]), axis=0)
    return unit((sums[4 * hops :] - sums[: -4 * hops])[: seconds * hops])


@pytest.fixture(scope="module")
def null() -> Null:
    return Null(0)


@pytest.fixture(scope="module")
def measured(null: Null) -> Chance:
    return null.measured()


@pytest.mark.parametrize("seconds", [4.0, 9.0, 20.0])
def test_of_what_is_not_there_no_more_is_found_than_was_asked_for(
    null: Null, measured: Chance, seconds: float
) -> None:
    rng, shares = np.random.default_rng(100), []
    for _ in range(150):
        vectors = stream(rng, 40, 4)[: round((seconds - 4) * 4) + 1]
        found = searched(null.stretch(vectors), null.haystack)
        alarms = measured.false_alarms(found[0].score if found else 0.0, seconds)
        assert alarms is not None
        shares.append(alarms)
    assert np.mean(np.array(shares) <= 0.05) <= 0.1
    assert np.mean(np.array(shares) <= 0.5) > 0.1  # nor is it so strict that it says nothing


def test_what_is_there_is_no_false_alarm(null: Null, measured: Chance) -> None:
    first, *others = searched(null.own(3), null.haystack)
    assert first.candidate.recording == 3
    assert first.candidate.offset_s == pytest.approx(0.0, abs=1.0)
    alarms = measured.false_alarms(first.score, 40.0)
    assert alarms is not None
    assert alarms < 1e-6
    assert all((measured.false_alarms(o.score, 40.0) or 0) > 1e-3 for o in others)


def test_what_is_measured(null: Null, measured: Chance) -> None:
    assert measured.seconds == (4.0, 6.0, 10.0, 20.0, 40.0)
    assert measured.stretches == (64, 64, 64, 64, 32)  # one of 40 s has room for two of the others
    assert measured.left_out == (0,) * 5
    assert all(s > 0 for s in measured.scale)
    few = Chance(seconds=(), location=(), scale=(), stretches=(), left_out=())
    assert measure(null.queries[:5], null.haystack, null.composition) == few
    some = measure(null.queries[:6], null.haystack, null.composition)
    assert some.seconds == (4.0, 6.0, 10.0, 20.0)  # of 40 s there are only six


def test_the_same_composition_is_no_false_alarm(null: Null, measured: Chance) -> None:
    own = [(null.own(i), i) for i in range(COMPOSITIONS)]
    found = measure(own, null.haystack, null.composition)
    other = measure([(s, i + 1) for s, i in own], null.haystack, null.composition)
    assert max(found.location) < max(measured.location) + 5
    assert other.location[-1] > found.location[-1] + 20


def test_the_same_music_under_another_title_is_left_out(null: Null, measured: Chance) -> None:
    twins = [*null.queries[2:], (null.own(4), 5), (null.own(8), 2)]
    found = measure(twins, null.haystack, null.composition)
    assert found.left_out[-1] == 2
    assert found.stretches == measured.stretches
    np.testing.assert_allclose(found.location, measured.location, atol=1.0)


def test_few_compositions_cannot_say() -> None:
    assert Null(1, 4).measured().seconds == ()
    assert len(Null(1, 5).measured().seconds) == 5


@pytest.mark.parametrize("comparison", [COSINE, Comparison(slots=WIDTH, lags=2, cost=0.01)])
def test_windows_that_hear_everything_late_are_found_at_their_lag(comparison: Comparison) -> None:
    index = Null(3, comparison=comparison)
    places, pairs = [], []
    for composition in range(8):
        first = composition * ROWS
        late = np.zeros((ROWS, WIDTH))
        late[:, 2:] = index.rows[first : first + ROWS, :-2]
        query = index.stretch(unit(np.repeat(late, 4, axis=0)[40:80]))
        found = searched(query, index.haystack)
        best = found[0] if found else None
        places.append(
            best is not None
            and best.candidate.recording == composition
            and abs(best.candidate.offset_s - 10.0) < 1.0
        )
        pairs.append(0 if best is None else best.pairs)
    if comparison == COSINE:
        assert sum(places) < 4
    else:
        assert all(places)
        assert min(pairs) >= 6


@pytest.mark.parametrize(
    ("comparison", "voting"),
    [(COSINE, [500, 200]), (Comparison(slots=WIDTH, lags=2, cost=0.01), [167, 200])],
)
def test_fewer_windows_vote_where_each_costs_more(
    monkeypatch: pytest.MonkeyPatch, comparison: Comparison, voting: list[int]
) -> None:
    index, seen = Null(3, comparison=comparison), []
    top = index.haystack.nearest.top

    def counted(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        seen.append(len(vectors))
        return top(vectors, k)

    monkeypatch.setattr(index.haystack.nearest, "top", counted)
    for windows in (500, 600):
        searched(index.stretch(unit(np.ones((windows, WIDTH)))), index.haystack)
    assert seen == voting
