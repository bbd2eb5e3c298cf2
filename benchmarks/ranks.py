"""Whether two orders of the same arms agree: Spearman's correlation and its doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

DRAWS = 2_000


def rank_correlation(pairs: Mapping[str, tuple[float, float]], seed: int = 0) -> dict[str, Any]:
    """Spearman's between two scores of the same arms; its doubt by drawing the arms anew.

    Returns
    -------
    ``{"arms", "spearman", "ci95", "p"}``: p is the share of orders at random that agree as well, the
    one that is there counted among them. Of equal scores alone there is no order: all None.

    The doubt is that of the choice of arms; each arm's own score is taken as it is.
    """
    x, y = np.array(list(pairs.values()), float).T
    if len(set(x)) < 2 or len(set(y)) < 2:
        return {"arms": sorted(pairs), "spearman": None, "ci95": None, "p": None}
    rng = np.random.default_rng(seed)
    value = _spearman(x, y)
    drawn = []
    for _ in range(DRAWS):
        rows = rng.integers(len(x), size=len(x))
        if len(set(x[rows])) > 1 and len(set(y[rows])) > 1:
            drawn.append(_spearman(x[rows], y[rows]))
    at_random = [_spearman(x, rng.permutation(y)) for _ in range(DRAWS)]
    return {
        "arms": sorted(pairs),
        "spearman": round(value, 4),
        "ci95": [round(float(q), 4) for q in np.quantile(drawn, [0.025, 0.975])],
        "p": round((1 + sum(r >= value - 1e-12 for r in at_random)) / (1 + DRAWS), 4),
    }


def _spearman(x: Any, y: Any) -> float:
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _ranks(values: Any) -> Any:
    """Ranks from 0; equal values share their mean rank."""
    below = (values[None] < values[:, None]).sum(axis=1)
    equal = (values[None] == values[:, None]).sum(axis=1)
    return below + (equal - 1) / 2
