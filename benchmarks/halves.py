"""Choosing by one half of the questions, and asking the other half what was chosen.

The highest of several scores is partly luck: told as it is, it is too high. Questions are cut in two,
again and again; the highest score of one half stands beside what the same model scores on the other.
That one half is harder for everybody is no luck of the chosen one, so the difference of both halves'
means over all scores is taken off.

Shape suffixes: M models, E evaluations of each, D directions, Q questions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

HALVINGS = 2000
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer[Any]]


def optimism(
    hits_MEDQ: Bools, unit_Q: Ints, *, halvings: int = HALVINGS, seed: int = 0
) -> dict[str, Any]:
    """By how much the highest of several scores is told too high.

    Parameters
    ----------
    hits_MEDQ : which question every model answers at every evaluation, in both directions; a score is
        the lower share of the two (S, method §7), a fraction
    unit_Q : what goes into a half whole (works, or every question for itself)
    halvings : how often to cut, at random by ``seed``; where there are fewer ways, each once

    Returns
    -------
    ``cuts``: how many were made; for the best ``epoch`` of one model (mean over models), the best
    ``model`` at the last evaluation, and the best of ``both``: how many were chosen ``among``, what is
    ``told``, what the same scores on the ``other`` half, had it been as hard, their difference
    ``added`` (means over cuts), and its standard deviation ``between_cuts``. All hold for choosing by
    half of the questions; by twice as many, luck is 1/√2 of it.

    Raises
    ------
    ValueError
        with fewer than two units.
    """
    units = np.unique(unit_Q)
    if len(units) < 2:
        raise ValueError("one work or question cannot be cut in two")
    models, evaluations = hits_MEDQ.shape[:2]
    every = np.arange(models)
    rows: dict[str, list[npt.ArrayLike]] = {"epoch": [], "model": [], "both": []}
    for half in _halves(units, halvings, seed):
        first_Q = np.isin(unit_Q, half)
        told_ME = hits_MEDQ[..., first_Q].mean(-1).min(-1)
        other_ME = hits_MEDQ[..., ~first_Q].mean(-1).min(-1)
        other_ME += told_ME.mean() - other_ME.mean()
        epoch_M = told_ME.argmax(1)
        rows["epoch"].append((told_ME[every, epoch_M], other_ME[every, epoch_M]))
        best = told_ME[:, -1].argmax()
        rows["model"].append(([told_ME[best, -1]], [other_ME[best, -1]]))
        at = np.unravel_index(told_ME.argmax(), told_ME.shape)
        rows["both"].append(([told_ME[at]], [other_ME[at]]))
    among = {"epoch": evaluations, "model": models, "both": models * evaluations}
    return {
        "cuts": len(rows["both"]),
        **{name: {"among": among[name], **_summary(found)} for name, found in rows.items()},
    }


def _halves(units: Ints, halvings: int, seed: int) -> Iterator[Ints]:
    """What goes into the first half, cut by cut."""
    count = len(units) // 2
    if math.comb(len(units), count) <= halvings:
        yield from map(np.array, itertools.combinations(units, count))
        return
    random = np.random.default_rng(seed)
    for _ in range(halvings):
        yield random.permutation(units)[:count]


def _summary(found: list[npt.ArrayLike]) -> dict[str, float]:
    """Of cuts × (told, other) × choices."""
    told, other = np.moveaxis(np.array(found), 1, 0)
    added = told - other
    means = {"told": told.mean(), "other": other.mean(), "added": added.mean()}
    return {
        name: round(float(value), 6)
        for name, value in {**means, "between_cuts": added.std(axis=0).mean()}.items()
    }
