"""How high music scores that is not in an index: what a score is worth.

When an index is made, stretches of its own recordings are looked for in it, with all recordings of
their composition taken away: whatever is found then is a false alarm. Of stretches of several lengths,
location and scale of a Gumbel distribution (which maxima of many tries follow) are fitted by moments;
between lengths they are interpolated in the logarithm of the length. The share of false alarms of a
score is the distribution's upper tail.

The vectors of the index begin one second apart, a query's a quarter: it has ``TRIES`` as many chances
to be like something, by which the location is moved: β ln TRIES. An index of fewer than ``LEAST``
compositions cannot say.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.search.finding import Haystack, Moments, alignments
from trainer.search.nearest import spread

LENGTHS = (1, 3, 7, 16, 32, 64)  # windows, one second apart
STRETCHES = 64  # of each length
LEAST = 5  # compositions
ENOUGH = 24  # stretches of a length
TRIES = 4.0
EULER = 0.5772156649015329

FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Chance:
    """The distribution of false alarms' scores by length; empty where the index is too small.

    Attributes
    ----------
    windows : lengths, ascending
    location, scale : of each
    stretches : how many were looked for
    """

    windows: tuple[int, ...]
    location: tuple[float, ...]
    scale: tuple[float, ...]
    stretches: tuple[int, ...]

    def false_alarms(self, score: float, windows: int) -> float | None:
        """Share of queries so long (windows a second apart) that score so high by chance."""
        if not self.windows:
            return None
        at, known = float(np.log(max(1, windows))), np.log(self.windows)
        location, scale = _between(at, known, self.location), _between(at, known, self.scale)
        above = (score - location) / scale - np.log(TRIES)
        return float(-np.expm1(-np.exp(-above)))

    def plain(self) -> dict[str, Any]:
        """For the index's record."""
        return {k: list(v) for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> Chance:
        """What :meth:`plain` gave."""
        return cls(**{f.name: tuple(data[f.name]) for f in dataclasses.fields(cls)})


def measure(
    queries: FloatArray,
    haystack: Haystack,
    composition: npt.NDArray[np.int64],
    own: Moments,
) -> Chance:
    """Look for stretches of ``queries``, row for row the other side of the haystack's vectors.

    Parameters
    ----------
    composition : int64 [n], a number for the composition of every row
    own : moments of the queries' likeness, as :meth:`Haystack.moments` gives them
    """
    scores: dict[int, list[float]] = {}
    if len(np.unique(composition)) >= LEAST:
        starts = haystack.places.start_s
        for length in LENGTHS:
            first = _stretches(haystack, length)
            for row in first[spread(len(first), STRETCHES)].tolist():
                rows = slice(row, row + length)
                found = alignments(
                    starts[rows] - starts[row], queries[rows], haystack,
                    own=(own[0][rows], own[1][rows]), without=composition == composition[row],
                )  # fmt: skip
                scores.setdefault(length, []).append(found[0].score if found else 0.0)
    kept = {length: np.array(s) for length, s in scores.items() if len(s) >= ENOUGH}
    scale = {k: max(float(s.std(ddof=1)) * np.sqrt(6) / np.pi, 0.1) for k, s in kept.items()}
    return Chance(
        windows=tuple(kept),
        location=tuple(round(float(s.mean()) - EULER * scale[k], 4) for k, s in kept.items()),
        scale=tuple(round(scale[k], 4) for k in kept),
        stretches=tuple(len(s) for s in kept.values()),
    )


def _between(at: float, known: npt.NDArray[np.float64], values: tuple[float, ...]) -> float:
    """Linear between the known lengths, and on beyond the longest as between the last two."""
    if at <= known[-1] or len(known) < 2:
        return float(np.interp(at, known, values))
    slope = (values[-1] - values[-2]) / (known[-1] - known[-2])
    return float(values[-1] + max(0.0, slope) * (at - known[-1]))


def _stretches(haystack: Haystack, length: int) -> npt.NDArray[np.int64]:
    """Rows at which a stretch of so many consecutive rows of one recording begins."""
    recording, n = haystack.places.recording, len(haystack.places.recording)
    begin = np.arange(max(0, n - length + 1))
    return begin[recording[begin] == recording[begin + length - 1]]
