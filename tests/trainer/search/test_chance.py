"""What a score is worth: the share of false alarms is what it says, on indexes without any match."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from trainer.search import chance
from trainer.search.chance import Chance, measure
from trainer.search.finding import Haystack, alignments, moments
from trainer.search.nearest import Exact
from trainer.search.placing import Places

COMPOSITIONS, ROWS, WIDTH = 12, 40, 24
GUMBEL = Chance(windows=(1, 4, 16), location=(2.0, 3.0, 4.0), scale=(0.5, 0.75, 1.0),
                stretches=(64, 64, 64))  # fmt: skip


def share(score: float, location: float, scale: float) -> float:
    """A Gumbel distribution's upper tail, of four tries."""
    return 1 - math.exp(-math.exp(-((score - location) / scale - math.log(4))))


def test_the_share_falls_with_the_score() -> None:
    shares = [GUMBEL.false_alarms(s, 4) for s in np.arange(0, 40, 0.25)]
    assert shares[0] == pytest.approx(1.0, abs=1e-6)
    assert all(a >= b for a, b in itertools.pairwise(shares))
    assert 0 < shares[-1] < 1e-15  # no cancellation


def test_the_share_rises_with_the_length() -> None:
    shares = [GUMBEL.false_alarms(6.0, n) for n in (1, 2, 4, 9, 16, 40, 1000)]
    assert all(a < b for a, b in itertools.pairwise(shares))


@pytest.mark.parametrize(
    ("windows", "location", "scale"),
    [
        (1, 2.0, 0.5), (4, 3.0, 0.75), (16, 4.0, 1.0),  # what was measured
        (2, 2.5, 0.625), (8, 3.5, 0.875),  # half-way in the logarithm
        (64, 5.0, 1.25), (256, 6.0, 1.5),  # on as between the last two
        (0, 2.0, 0.5),
    ],
)  # fmt: skip
def test_between_and_beyond_lengths(windows: int, location: float, scale: float) -> None:
    for score in (1.0, 4.0, 9.0):
        expected = share(score, location, scale)
        assert GUMBEL.false_alarms(score, windows) == pytest.approx(expected, rel=1e-6)


def test_what_falls_with_length_is_kept_beyond() -> None:
    falling = Chance(windows=(1, 4), location=(3.0, 2.0), scale=(1.0, 0.5), stretches=(64, 64))
    assert falling.false_alarms(4.0, 400) == pytest.approx(share(4.0, 2.0, 0.5))
    single = Chance(windows=(3,), location=(2.0,), scale=(0.5,), stretches=(64,))
    for windows in (1, 3, 99):
        assert single.false_alarms(4.0, windows) == pytest.approx(share(4.0, 2.0, 0.5))


def test_an_empty_one_cannot_say() -> None:
    empty = Chance(windows=(), location=(), scale=(), stretches=())
    assert empty.false_alarms(99.0, 3) is None
    for each in (empty, GUMBEL):
        assert Chance.from_plain(each.plain()) == each
        assert all(isinstance(v, list) for v in each.plain().values())


class Null:
    """An index in which nothing is like anything: both sides drawn alone, smooth over time."""

    def __init__(self, seed: int, compositions: int = COMPOSITIONS) -> None:
        rng = np.random.default_rng(seed)
        self.composition = np.repeat(np.arange(compositions), ROWS)
        self.places = Places.of(
            self.composition, np.tile(np.arange(ROWS), compositions), compositions
        )
        self.rows, self.queries = (
            np.concatenate([stream(rng, ROWS) for _ in range(compositions)]) for _ in range(2)
        )
        mean, sigma = moments(self.rows, self.queries)
        self.haystack = Haystack(
            vectors=self.rows, places=self.places, background=self.rows,
            mean=mean.astype(np.float32), sigma=sigma.astype(np.float32), nearest=Exact(self.rows),
        )  # fmt: skip

    def measured(self) -> Chance:
        return measure(
            self.queries, self.haystack, self.composition, moments(self.queries, self.rows)
        )


def stream(rng: np.random.Generator, seconds: int, hops: int = 1) -> np.ndarray:
    """Unit vectors every 1 / hops s, each the mean of what is drawn for its four seconds."""
    drawn = rng.standard_normal(((seconds + 3) * hops + 1, WIDTH))
    sums = np.cumsum(np.concatenate([np.zeros((1, WIDTH)), drawn]), axis=0)
    windows = sums[4 * hops :] - sums[: -4 * hops]
    windows = windows[: seconds * hops]
    return (windows / np.linalg.norm(windows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def null() -> Null:
    return Null(0)


@pytest.fixture(scope="module")
def measured(null: Null) -> Chance:
    return null.measured()


@pytest.mark.parametrize("seconds", [1, 5, 16])
def test_of_what_is_not_there_no_more_is_found_than_was_asked_for(
    null: Null, measured: Chance, seconds: int
) -> None:
    rng, shares = np.random.default_rng(100 + seconds), []
    for _ in range(200):
        vectors = stream(rng, seconds, 4)
        starts = np.arange(len(vectors)) / 4
        found = alignments(starts, vectors, null.haystack)
        alarms = measured.false_alarms(found[0].score if found else 0.0, seconds)
        assert alarms is not None
        shares.append(alarms)
    assert np.mean(np.array(shares) <= 0.05) <= 0.1
    assert np.mean(np.array(shares) <= 0.5) > 0.1  # nor is it so strict that it says nothing


def test_what_is_there_is_no_false_alarm(null: Null, measured: Chance) -> None:
    rng = np.random.default_rng(7)
    rows = null.rows[3 * ROWS + 10 : 3 * ROWS + 22]
    vectors = rows + 0.15 * rng.standard_normal(rows.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, *others = alignments(np.arange(12.0), vectors, null.haystack)
    assert first.candidate.recording == 3
    assert first.recording_s[0] == pytest.approx(10, abs=1.0)
    alarms = measured.false_alarms(first.score, 12)
    assert alarms is not None
    assert alarms < 1e-6
    assert all((measured.false_alarms(o.score, 12) or 1) > 1e-3 for o in others)


def test_what_is_measured(measured: Chance, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured.windows == (1, 3, 7, 16, 32)  # no recording has 64
    assert measured.stretches == (64,) * 5
    assert all(s >= 0.1 for s in measured.scale)
    monkeypatch.setattr(chance, "STRETCHES", 30)
    assert Null(0).measured().stretches == (30,) * 5
    monkeypatch.setattr(chance, "STRETCHES", 23)  # too few to say anything by
    assert Null(0).measured().windows == ()


def test_the_same_composition_is_no_false_alarm(null: Null, measured: Chance) -> None:
    # Were it there, everything would be found by itself.
    twin = Null(0)
    own = moments(null.rows, null.rows)
    found = measure(null.rows, twin.haystack, null.composition, own)
    assert max(found.location) < 3 * max(measured.location) + 5
    apart = np.arange(len(null.rows))  # each row a composition of its own
    other = measure(null.rows, twin.haystack, apart, own)
    assert other.location[-1] > found.location[-1] + 20


def test_few_compositions_cannot_say() -> None:
    assert Null(1, 4).measured().windows == ()
    assert Null(1, 5).measured().windows == (1, 3, 7, 16, 32)
