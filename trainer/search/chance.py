"""How high music scores that is not in an index: what a score is worth.

When an index is made, stretches of its own recordings are cut from the store as queries are, looked
for as queries are, and all recordings of their composition are taken not to be there: whatever is
found then is a false alarm. Of several lengths, location and scale of a Gumbel distribution (which
maxima of many tries follow) are fitted by moments, without stretches that score beyond all reason:
those are the same music under another title. Neither falls with the length; between lengths both are
interpolated in its logarithm, and beyond the longest the location grows by a scale with every factor
of e, as maxima of so many more tries do. The share of false alarms of a score is the distribution's
upper tail; its scale is widened by ``CARE``, because what people look for is not always like what
they have.

An index of fewer than ``LEAST`` compositions, or with fewer than ``ENOUGH`` stretches, cannot say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.search.finding import HOP_S, Haystack, Stretch, searched

LENGTHS_S = (4.0, 6.0, 10.0, 20.0, 40.0)
EACH = 2  # stretches of a length that are cut from one query
LEAST = 5  # compositions
ENOUGH = 12  # stretches of a length
UNREASONABLE = 10.0  # scales above the median
CARE = 1.25
EULER = 0.5772156649015329
LEAST_SCALE = 0.25

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Chance:
    """The distribution of false alarms' scores by length; empty where the index is too small.

    Attributes
    ----------
    seconds : lengths, ascending
    location, scale : of each
    stretches : how many were looked for
    left_out : how many of them scored beyond all reason
    """

    seconds: tuple[float, ...]
    location: tuple[float, ...]
    scale: tuple[float, ...]
    stretches: tuple[int, ...]
    left_out: tuple[int, ...]

    def false_alarms(self, score: float, seconds: float) -> float | None:
        """Share of queries so long that score so high by chance."""
        if not self.seconds:
            return None
        at, known = float(np.log(max(seconds, self.seconds[0]))), np.log(self.seconds)
        location = float(np.interp(at, known, np.maximum.accumulate(self.location)))
        scale = float(np.interp(at, known, np.maximum.accumulate(self.scale)))
        location += scale * max(0.0, at - float(known[-1]))
        return float(-np.expm1(-np.exp(-(score - location) / (CARE * scale))))

    def plain(self) -> dict[str, Any]:
        """For the index's record."""
        return {k: list(v) for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> Chance:
        """What :meth:`plain` gave."""
        return cls(**{f.name: tuple(data[f.name]) for f in dataclasses.fields(cls)})


def measure(
    queries: Iterable[tuple[Stretch, int]],
    haystack: Haystack,
    composition: npt.NDArray[np.int64],
) -> Chance:
    """Look for stretches of ``queries``, each with the number of its composition.

    Parameters
    ----------
    composition : int64 [n], the number of the composition of every row of the haystack
    """
    scores: dict[float, list[float]] = {}
    if len(np.unique(composition)) >= LEAST:
        for query, own in queries:
            without = composition == own
            for seconds, part in _parts(query):
                found = searched(part, haystack, without=without)
                scores.setdefault(seconds, []).append(found[0].score if found else 0.0)
    fitted = {
        seconds: _fitted(np.array(scores[seconds]))
        for seconds in LENGTHS_S
        if len(scores.get(seconds, ())) >= ENOUGH
    }
    return Chance(
        seconds=tuple(fitted),
        location=tuple(round(f[0], 4) for f in fitted.values()),
        scale=tuple(round(f[1], 4) for f in fitted.values()),
        stretches=tuple(len(scores[s]) for s in fitted),
        left_out=tuple(f[2] for f in fitted.values()),
    )


def _parts(query: Stretch) -> Iterable[tuple[float, Stretch]]:
    """Stretches of every length that a query has room for, side by side from its start."""
    for seconds in LENGTHS_S:
        count = 1 + round((seconds - LENGTHS_S[0]) / HOP_S)
        step = round(seconds / HOP_S)
        for number in range(EACH):
            if number * step + count <= query.count:
                first = query.first + number * step
                yield seconds, dataclasses.replace(query, first=first, count=count)


def _fitted(scores: Floats) -> tuple[float, float, int]:
    """Location and scale of a Gumbel distribution by moments, and how many scores were left out."""
    low, middle, high = np.quantile(scores, [0.25, 0.5, 0.75])
    scale = max((high - low) / 1.5725, LEAST_SCALE)  # of quartiles: not moved by a few
    kept = scores[scores <= middle + UNREASONABLE * scale]
    scale = max(float(kept.std(ddof=1)) * np.sqrt(6) / np.pi, LEAST_SCALE)
    return float(kept.mean()) - EULER * scale, scale, len(scores) - len(kept)
