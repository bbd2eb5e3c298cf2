"""What the tables of the documents are made of: results, rows, ratios, machines."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.common import RESULTS


def load(name: str) -> dict[str, Any]:
    """One committed result."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def row(*cells: str) -> str:
    """A table row."""
    return f"| {' | '.join(cells)} |"


def times(pair: dict[str, float], digits: int = 1) -> str:
    """A ratio with its 10–90 % range."""
    ratio, low, high = (f"{pair[k]:.{digits}f}" for k in ("ratio", "ratio_low", "ratio_high"))
    return f"{ratio} × ({low}–{high})"


def machine(data: dict[str, Any]) -> str:
    """Where and from which commit."""
    e = data["environment"]
    return f"{e['cores']} cores of {e['cpu']} (commit {e['commit'][:10]})"
