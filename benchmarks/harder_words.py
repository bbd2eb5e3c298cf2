"""What docs/results.md lists of harder questions: models and floors; models against floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cells import details, differences, known, machine, mean, not_yet, row, spread

SIDES = ("a2m", "m2a")


def harder() -> str:
    """Question by question S, R@1 of both directions, and every model against every floor."""
    data = known("harder")
    if data is None:
        return not_yet("harder")
    asked = data["questions"]
    models, floors = list(data["runs"]), list(asked[0]["floors"])
    head = [f"`{name}`" for name in (*models, *floors)]
    rule = "|---" + "|--:" * len(head) + "|"
    S = [row("S", *head), rule]
    sides = [row("R@1, sound to notes / notes to sound", *head), rule]
    told = [
        row("asked", "", "against", "S", "R@1, sound to notes", "notes to sound"),
        "|---|---|---|---|---|---|",
    ]
    for question in asked:
        everyone = {**question["models"], **question["floors"]}
        S.append(row(question["asked"], *(spread(found["S"]) for found in everyone.values())))
        sides.append(row(question["asked"], *map(_both, everyone.values())))
        for name in models:
            for floor, found in question["against"][name].items():
                cells = (question["asked"], f"`{name}`", f"`{floor}`", *differences(found))
                told.append(row(*cells))
    seeds = ", ".join(f"`{name}` {len(runs)} seeds" for name, runs in data["runs"].items())
    intervals = 3 * (len(told) - 2)
    return "\n".join(
        [
            *S,
            "",
            *sides,
            "",
            f"{seeds}: mean (lowest–highest). Strict protocol, {data['pool_size']} candidates unless "
            f"the row says more. Store `{data['store']['name']}`; `python -m benchmarks.harder`, "
            f"{machine(data)}.",
            "",
            *details(
                f"models against floors: {intervals} intervals, each for itself", "\n".join(told)
            ),
        ]
    )


def _both(found: Mapping[str, Sequence[Any]]) -> str:
    return " / ".join(mean(found[f"{side} R@1"]) for side in SIDES)
