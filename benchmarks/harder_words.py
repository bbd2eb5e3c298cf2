"""What docs/results.md lists of harder questions: models beside floors where floors leave room."""

from __future__ import annotations

from benchmarks.cells import difference, known, machine, mean, not_yet, row, spread

METRICS = ("S", "R@1")


def harder() -> str:
    """Question by question, models and floors; then every model against every floor."""
    data = known("harder")
    if data is None:
        return not_yet("harder")
    models, floors = list(data["runs"]), list(data["questions"][0]["floors"])
    names = [f"`{name}`" for name in (*models, *floors)]
    scores = [
        row("asked", *(f"{metric} {name}" for metric in METRICS for name in names)),
        "|---" + "|--:" * len(METRICS) * len(names) + "|",
    ]
    told = [
        row("asked", "", "against", "S", "R@1, sound to notes", "notes to sound"),
        "|---|---|---|---|---|---|",
    ]
    for question in data["questions"]:
        cells = []
        for metric in METRICS:
            cells += [spread(question["models"][name][metric]) for name in models]
            cells += [mean(question["floors"][name][metric]) for name in floors]
        scores.append(row(question["asked"], *cells))
        for name in models:
            for floor, found in question["against"][name].items():
                of = [difference(found, m, ", none shown") for m in ("S", "a2m R@1", "m2a R@1")]
                told.append(row(question["asked"], f"`{name}`", f"`{floor}`", *of))
    numbers = data["numbers"]
    seeds = ", ".join(f"`{name}` {len(runs)} seeds" for name, runs in data["runs"].items())
    widths = ", ".join(f"`{name}` {numbers[name]:,}" for name in floors)
    return "\n".join(
        [
            *scores,
            "",
            f"{seeds}: mean (lowest–highest). Strict protocol, {data['pool_size']} candidates unless "
            "the row says more; R@1 of the lower direction. Numbers kept of a segment: models "
            f"{numbers['models']:,}, {widths}. Store `{data['store']['name']}`; "
            f"`python -m benchmarks.harder`, {machine(data)}.",
            "",
            f"<details><summary>models against floors: {len(told) - 2} rows</summary>",
            "",
            *told,
            "",
            "</details>",
        ]
    )
