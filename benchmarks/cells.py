"""What the tables of the documents are made of: rows, ratios, means, differences, machines."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.common import RESULTS

NOT_YET = "Not yet measured."


def load(name: str) -> dict[str, Any]:
    """One committed result."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def known(name: str) -> dict[str, Any] | None:
    """A result, if it was measured."""
    return load(name) if (RESULTS / f"{name}.json").is_file() else None


def not_yet(command: str) -> str:
    """What stands where a result would: ``command`` makes it."""
    return f"{NOT_YET} `python -m benchmarks.{command}` does it."


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


def mean(values: Sequence[float]) -> str:
    """Of seeds, to three digits."""
    return f"{statistics.mean(values):.3f}"


def spread(values: Sequence[float]) -> str:
    """The mean of seeds, and from where to where they are."""
    if len(values) == 1:
        return mean(values)
    return f"{mean(values)} ({min(values):.3f}–{max(values):.3f})"


def interval(found: Sequence[float] | None) -> str:
    """From, to."""
    return "–" if found is None else f"[{found[0]:.3f}, {found[1]:.3f}]"


def difference(
    found: dict[str, Any] | None, metric: str = "S", unstated: str = ", no difference shown"
) -> str:
    """A difference with its interval; ``unstated``: what is said where none was shown."""
    if found is None:
        return "–"
    m = found[metric]
    low, high = m["ci95"]
    stated = "" if m["stated"] else unstated
    return f"{m['difference']:+.3f} [{low:+.3f}, {high:+.3f}]{stated}"


def differences(found: dict[str, Any] | None) -> list[str]:
    """Of S, and of R@1 by direction."""
    return [difference(found, metric, ", none shown") for metric in ("S", "a2m R@1", "m2a R@1")]


def details(summary: str, body: str) -> list[str]:
    """Lines that are there to be opened."""
    return [f"<details><summary>{summary}</summary>", "", body, "", "</details>"]
