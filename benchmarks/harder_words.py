"""What docs/results.md lists of harder questions: models beside floors where floors leave room."""

from __future__ import annotations

from benchmarks.cells import difference, known, machine, mean, not_yet, row, spread


def harder() -> str:
    """Question by question, S of the models and of the floors, and S and R@1 against each floor."""
    data = known("harder")
    if data is None:
        return not_yet("harder")
    floors = list(data["questions"][0]["floors"])
    arm, numbers = data["arm"], data["numbers"]
    scores = [
        row("asked", *(f"{m} {name}" for m in ("S", "R@1") for name in (f"`{arm}`", *floors)))
    ]
    scores.append("|---" + "|--:" * (2 + 2 * len(floors)) + "|")
    told = [
        row("asked", "against", "S", "R@1, sound to notes", "notes to sound"),
        "|---|---|---|---|---|",
    ]
    for question in data["questions"]:
        cells = [
            cell
            for m in ("S", "R@1")
            for cell in (
                spread(question["models"][m]),
                *(mean(question["floors"][name][m]) for name in floors),
            )
        ]
        scores.append(row(question["asked"], *cells))
        for name in floors:
            found = question["against"][name]
            of = [difference(found, m, ", none shown") for m in ("S", "a2m R@1", "m2a R@1")]
            told.append(row(question["asked"], f"`{name}`", *of))
    widths = ", ".join(f"`{name}` {numbers[name]:,}" for name in floors)
    return "\n".join(
        [
            *scores,
            "",
            f"`{arm}`, {len(data['runs'])} seeds: mean (lowest–highest); strict protocol, "
            f"{data['pool_size']} candidates unless the row says more; R@1 of the lower direction. "
            f"Numbers kept of a segment: the model {numbers['models']:,}, {widths}. "
            f"Store `{data['store']['name']}`; `python -m benchmarks.harder`, {machine(data)}.",
            "",
            f"<details><summary>`{arm}` against the floors, question by question</summary>",
            "",
            *told,
            "",
            "</details>",
        ]
    )
