"""Choosing by one half of the questions, and asking the other half what was chosen.

What a score of many is told to be, when it was chosen as the highest of them, holds the luck that it
was chosen for. Questions are cut in two at random, again and again; the highest score of one half is
compared with what the same model scores on the other. That one half is harder for everybody is no
luck of the chosen one, so the means of all scores, half by half, are taken off.

Shape suffixes: M models, E evaluations of each, D directions, Q questions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

HALVINGS = 2000
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def optimism(
    hits_MEDQ: Bools,
    unit_Q: npt.NDArray[np.integer[Any]],
    *,
    halvings: int = HALVINGS,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """By how much the highest of several scores is told too high.

    Parameters
    ----------
    hits_MEDQ : which question every model answers at every evaluation, in both directions; a score is
        the lower share of the two (S, method §7)
    unit_Q : what goes into a half whole (recordings, or every question for itself)

    Returns
    -------
    for the best ``epoch`` of one model, the best ``model`` at the last evaluation, and the best of
    ``both``: how many were chosen ``among``, the means of what is ``told`` and of what the same scores
    on the ``other`` half, their difference ``added``, and its standard deviation over halvings ``sd``.

    Raises
    ------
    ValueError
        with fewer than two units.
    """
    names = np.unique(unit_Q)
    if len(names) < 2:
        raise ValueError("one recording or question cannot be cut in two")
    models, evaluations = hits_MEDQ.shape[:2]
    rows: dict[str, list[tuple[float, float]]] = {"epoch": [], "model": [], "both": []}
    random = np.random.default_rng(seed)
    for _ in range(halvings):
        first = np.isin(unit_Q, random.permutation(names)[: len(names) // 2])
        told_ME = hits_MEDQ[..., first].mean(-1).min(-1)
        other_ME = hits_MEDQ[..., ~first].mean(-1).min(-1)
        other_ME += told_ME.mean() - other_ME.mean()  # one half is harder for everybody
        best_M = told_ME.argmax(1)
        every = np.arange(models)
        rows["epoch"].append((told_ME.max(1).mean(), other_ME[every, best_M].mean()))
        best = told_ME[:, -1].argmax()
        rows["model"].append((told_ME[best, -1], other_ME[best, -1]))
        at = np.unravel_index(told_ME.argmax(), told_ME.shape)
        rows["both"].append((told_ME[at], other_ME[at]))
    among = {"epoch": evaluations, "model": models, "both": models * evaluations}
    return {
        name: {"among": among[name], **_summary(np.array(found))} for name, found in rows.items()
    }


def _summary(found: Floats) -> dict[str, float]:
    told, other = found.T
    added = told - other
    means = {"told": told.mean(), "other": other.mean(), "added": added.mean(), "sd": added.std()}
    return {name: round(float(value), 6) for name, value in means.items()}
