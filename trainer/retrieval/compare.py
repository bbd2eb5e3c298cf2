"""Is one arm better than another? Differences over seeds and over queries, each with its own doubt.

Two doubts remain when arms are compared: other trainings (seeds) would have given other models, and
other recordings other scores. A model answers the same queries as the one that it is compared with,
so both are drawn in pairs.

difference
    Mean over the seeds of the second arm minus that of the first.
interval
    95 %: ``± √(t² s²/k + u² σ²)``; s is the standard deviation of the differences seed by seed
    (where the arms have the same k seeds; otherwise Welch's sum of both variances), t the quantile of
    Student's distribution, σ the standard deviation of the difference when recordings are drawn
    anew (``intervals``), u Student's quantile for their number. With fewer than five recordings 10-s
    blocks of them are drawn, which says nothing about other recordings, and nothing is stated. What
    needs no training has no seeds and adds nothing to s; of one seed nobody knows s, so the interval
    is then of these very models only, and nothing is stated.
p_seeds
    Permutation test of "the arm does not matter": which seeds' scores belong to which arm is shuffled
    in every possible way; the share of ways whose difference is at least as large. With three seeds
    an arm the smallest possible p is 0.1: it says so beside it.
p_queries
    Permutation test of "these very models do not differ": recording by recording the two arms' mean
    answers are exchanged or not. Small p here does not tell that another training would agree.
stated
    Whether a difference may be stated: at least three seeds of every trained arm, at least five
    recordings, no arm that is given the answer, nothing but the arm that differs, and an interval that
    excludes 0.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.retrieval.gallery import RetrievalError
from trainer.retrieval.hashing import pair_keys
from trainer.retrieval.intervals import Floats, Units, resampled_means, unit_sums, units_of

LEAST_SEEDS = 3
LEAST_RECORDINGS = 5
EXCHANGES = 9999
MOST_LABELLINGS = 20_000
MUST_AGREE = ("protocol", "split", "store_identity", "pool_hash")
# 97.5 % quantiles of t with 1 … 30 degrees of freedom; beyond, an expansion around the normal ones.
T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
Z975 = 1.959964

METRICS: dict[str, tuple[tuple[str, int], ...]] = {
    "S": (("a2m", 10), ("m2a", 10)),
    "a2m R@1": (("a2m", 1),),
    "m2a R@1": (("m2a", 1),),
}
"""Each is the least of these directions' R@k."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """One model's evaluation.

    Attributes
    ----------
    name : of the run or baseline
    seed : of the training; None for what needs none
    record : its ``evaluation/*.json``
    columns : its answers, query by query (:meth:`trainer.retrieval.evaluate.Scores.per_query`)
    """

    name: str
    seed: int | None
    record: Mapping[str, Any]
    columns: Mapping[str, npt.NDArray[Any]]

    def hits(self, metric: str) -> Floats:
        """Float64 [Q, directions]: whether the positive was found."""
        return np.column_stack([self.columns[side] < k for side, k in METRICS[metric]]).astype(
            float
        )

    def score(self, metric: str) -> float:
        """The metric itself."""
        return float(self.hits(metric).mean(axis=0).min())


def compare(
    first: Sequence[Scored], second: Sequence[Scored], unlike: Sequence[str] = ()
) -> dict[str, Any]:
    """How much the second group is above the first, and how sure that is.

    Parameters
    ----------
    first, second : models of one arm each, any number of seeds
    unlike : settings besides the arm in which they differ; nothing is stated where there are any

    Returns
    -------
    ``{"seeds": [k1, k2], "paired": …, "unit": …, "unlike": […], metric: {"first", "second",
    "difference", "ci95", "p_seeds", "smallest_p", "p_queries", "stated"}}``

    Raises
    ------
    RetrievalError
        (kind ``incomparable``) when they were not scored on the same queries and candidates, or when
        an arm has two runs of one seed.
    """
    everyone = [*first, *second]
    check_comparable(everyone)
    for group in (first, second):
        _check_seeds(group)
    columns = everyone[0].columns
    units, kind = _units(columns)
    seeds = [sorted(s.seed for s in group if s.seed is not None) for group in (first, second)]
    paired = seeds[0] == seeds[1] and len(seeds[0]) == len(first) == len(second)
    if paired:
        first, second = (sorted(g, key=lambda s: s.seed or 0) for g in (first, second))
    found: dict[str, Any] = {
        "seeds": [len(first), len(second)],
        "trained": [g[0].seed is not None for g in (first, second)],
        "paired": paired,
        "unit": kind,
        "units": int(units.max(initial=-1)) + 1,
        "unlike": list(unlike),
    }
    leaks = any(s.record.get("leaks") for s in everyone)
    honest = kind == "recordings" and not leaks and not unlike
    for metric in METRICS:
        found[metric] = _difference(first, second, metric, units, paired, honest)
    return found


def _units(columns: Mapping[str, npt.NDArray[Any]]) -> tuple[Units, str]:
    """What is drawn anew: recordings, also where they are few (the interval knows it)."""
    recording = np.unique(columns["recording"], return_inverse=True)[1].astype(np.int64)
    if recording.max(initial=-1) + 1 >= LEAST_RECORDINGS:
        return recording, "recordings"
    return units_of(columns["recording"], columns["start_s"])


def _check_seeds(group: Sequence[Scored]) -> None:
    """Two runs of one seed are one training twice, not two."""
    by_seed: dict[int, str] = {}
    for scored in group:
        if scored.seed is not None and by_seed.setdefault(scored.seed, scored.name) != scored.name:
            raise RetrievalError(
                f"{by_seed[scored.seed]} and {scored.name} have the same seed {scored.seed}: that is "
                "one training, not two",
                kind="incomparable",
            )
    names = [scored.name for scored in group]
    for name in names:
        if names.count(name) > 1:
            raise RetrievalError(f"{name} is given twice", kind="incomparable")


def check_comparable(everyone: Sequence[Scored]) -> None:
    """Refuse models that answered different questions."""
    one = everyone[0]
    for other in everyone[1:]:
        for key in MUST_AGREE:
            if other.record[key] != one.record[key]:
                advice = ""
                sizes = [s.record.get("pool_size") for s in (one, other)]
                if key == "pool_hash" and sizes[0] != sizes[1]:
                    advice = "; their pools are of different size: train both with one --pool-size"
                elif key == "pool_hash" and one.record["protocol"] == "paper":
                    advice = "; score both with the same pools: xmodal-evaluate RUN --seed 42"
                raise RetrievalError(
                    f"{one.name} and {other.name} cannot be compared: their {key} differ "
                    f"({str(one.record[key])[:24]}, {str(other.record[key])[:24]}){advice}",
                    kind="incomparable",
                )
        if not np.array_equal(one.columns["segment"], other.columns["segment"]):
            raise RetrievalError(
                f"{one.name} and {other.name} cannot be compared: their queries differ",
                kind="incomparable",
            )


def _difference(
    first: Sequence[Scored],
    second: Sequence[Scored],
    metric: str,
    units: Units,
    paired: bool,
    honest: bool,
) -> dict[str, Any]:
    scores = [np.array([s.score(metric) for s in group]) for group in (first, second)]
    difference = float(scores[1].mean() - scores[0].mean())
    trained = [g[0].seed is not None for g in (first, second)]
    of_queries, n_units = 0.0, int(units.max(initial=-1)) + 1
    if n_units > 1:
        drawn = [
            np.mean([resampled_means(s.hits(metric), units).min(axis=1) for s in g], axis=0)
            for g in (first, second)
        ]
        # Means of few recordings, drawn from these few, vary too little, and not normally.
        few = t975(n_units - 1) * math.sqrt(n_units / (n_units - 1))
        of_queries = few * float(np.std(drawn[1] - drawn[0], ddof=1))
    seeds, t = _spread(scores, trained, paired)
    half = math.hypot(t * seeds, of_queries)
    enough = all(
        len(s) >= LEAST_SEEDS or not needs for s, needs in zip(scores, trained, strict=True)
    )
    p_seeds, smallest = _relabelled(scores) if all(trained) else (None, None)
    return {
        "first": float(scores[0].mean()),
        "second": float(scores[1].mean()),
        "difference": difference,
        "ci95": [difference - half, difference + half],
        "p_seeds": p_seeds,
        "smallest_p": smallest,
        "p_queries": _exchanged(first, second, metric, units),
        "stated": bool(honest and enough and abs(difference) > half),
    }


def _spread(scores: list[Floats], trained: list[bool], paired: bool) -> tuple[float, float]:
    """Standard error of the difference that comes from the seeds, and its quantile of t."""
    if paired and len(scores[0]) > 1:
        apart = scores[1] - scores[0]
        return float(apart.std(ddof=1) / math.sqrt(len(apart))), t975(len(apart) - 1)
    several = [s for s, needs in zip(scores, trained, strict=True) if needs and len(s) > 1]
    if not several:
        return 0.0, 0.0
    error = math.sqrt(sum(float(s.var(ddof=1)) / len(s) for s in several))
    return error, t975(min(map(len, several)) - 1)


def t975(freedom: int) -> float:
    """97.5 % quantile of Student's t with ``freedom`` ≥ 1 degrees of freedom."""
    if freedom <= len(T975):
        return T975[freedom - 1]
    second = (5 * Z975**5 + 16 * Z975**3 + 3 * Z975) / 96
    return Z975 + (Z975**3 + Z975) / (4 * freedom) + second / freedom**2


def _relabelled(scores: list[Floats]) -> tuple[float, float]:
    """P of all assignments of the scores to two arms, and the least that p can be."""
    k, pooled = len(scores[0]), np.concatenate(scores)
    n, total = len(pooled), float(pooled.sum())
    observed = abs(float(scores[1].mean() - scores[0].mean()))
    ways = math.comb(n, k)
    if ways <= MOST_LABELLINGS:
        chosen = np.array(list(itertools.combinations(range(n), k)))
    else:
        order = np.argsort(pair_keys(np.arange(MOST_LABELLINGS), np.arange(n), 1), axis=1)
        chosen = np.concatenate([np.arange(k)[None], order[:, :k]])
        ways = len(chosen)
    sums = pooled[chosen].sum(axis=1)
    apart = np.abs((total - sums) / (n - k) - sums / k)
    # An assignment and its mirror image are equally far apart where the arms are of equal size.
    mirrored = 2 if 2 * k == n else 1
    return float(np.mean(apart >= observed - 1e-12)), mirrored / ways


def _exchanged(
    first: Sequence[Scored], second: Sequence[Scored], metric: str, units: Units
) -> float | None:
    """P of exchanging the two arms' mean answers unit by unit."""
    if units.max(initial=-1) < 1:
        return None
    sums = [
        unit_sums(np.mean([s.hits(metric) for s in g], axis=0), units)[0] for g in (first, second)
    ]
    n_units, n_queries = len(sums[0]), len(units)
    swap = (pair_keys(np.arange(EXCHANGES), np.arange(n_units), 2) & np.uint64(1)).astype(float)
    moved = swap @ (sums[1] - sums[0])
    totals = [s.sum(axis=0) for s in sums]
    apart = ((totals[1] - moved).min(axis=1) - (totals[0] + moved).min(axis=1)) / n_queries
    observed = abs(float(totals[1].min() - totals[0].min())) / n_queries
    return float((1 + np.sum(np.abs(apart) >= observed - 1e-12)) / (1 + EXCHANGES))
