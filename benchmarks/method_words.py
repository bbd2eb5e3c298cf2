"""What docs/method.md lists: what each correction is worth, and what choosing adds to a score."""

from __future__ import annotations

from benchmarks.cells import differences, known, machine, not_yet, row, spread

CHOSEN = {
    "epoch": "the best of {} evaluations of one run",
    "model": "the best of {} arms, after the last epoch",
    "both": "the best of all {} scores",
}


def corrections() -> str:
    """One setting of the reference put back at a time."""
    data = known("corrections")
    if data is None:
        return not_yet("corrections")
    head = ("put back", "S", "R@1", "difference of S", "of R@1, sound to notes", "notes to sound")
    lines = [row(*head), "|---|--:|--:|---|---|---|"]
    for found in data["groups"]:
        cells = (found["name"], spread(found["S"]), spread(found["R@1"]))
        lines.append(row(*cells, *differences(found["against"])))
    asked = 3 * sum(found["against"] is not None for found in data["groups"])
    pools = data["pools"]["R@1"]
    return "\n".join(
        [
            *lines,
            "",
            f"Three seeds each: mean (lowest–highest), {data['updates']} updates of "
            f"{data['batch_size']}; differences with 95 % intervals over seeds and recordings, "
            f"each for itself ({asked} are asked at once). The seed of the paper's pools: R@1 of one "
            f"model as it is, scored in the pools of {len(pools)} seeds, from {min(pools):.3f} to "
            f"{max(pools):.3f} (S: {min(data['pools']['S']):.3f} to {max(data['pools']['S']):.3f}). "
            f"`python -m benchmarks.corrections`, {machine(data)}.",
        ]
    )


def selection() -> str:
    """Choosing by some questions, telling what the others say."""
    data = known("selection")
    if data is None:
        return not_yet("selection")
    halved = {"queries at random": data["queries_halved"], "works whole": data["works_halved"]}
    head = ("chosen", "cut in two", "S as told", "S of the other half", "added", "σ between cuts")
    lines = [row(*head), "|---|---|--:|--:|--:|--:|"]
    for key, text in CHOSEN.items():
        for how, found in halved.items():
            f = found[key]
            cells = (f"{f['told']:.3f}", f"{f['other']:.3f}", f"{f['added']:+.3f}")
            lines.append(row(text.format(f["among"]), how, *cells, f"{f['between_cuts']:.3f}"))
    last = [scores[-1] for scores in data["S"].values()]
    cuts = " and ".join(f"{found['cuts']:,} cuts ({how})" for how, found in halved.items())
    return "\n".join(
        [
            *lines,
            "",
            f"{len(last)} arms at size `tiny`, {data['updates']} updates of {data['batch_size']}, one "
            f"seed; S after the last epoch from {min(last):.3f} to {max(last):.3f}. Strict protocol, "
            f"{data['queries']:,} validation queries of {data['recordings']} recordings of "
            f"{data['works']} works; {cuts}. Chosen by {data['queries_per_half']} queries, as the "
            "reference chooses by 500. The other half's S is what it would be if that half were as "
            f"hard for all. `python -m benchmarks.selection`, {machine(data)}.",
        ]
    )
