"""What docs/results.md lists: the tiers of the reproduction, each as far as it has been run."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.cells import (
    NOT_YET,
    details,
    difference,
    differences,
    interval,
    known,
    machine,
    mean,
    not_yet,
    row,
    spread,
)  # fmt: skip
from benchmarks.common import RESULTS
from benchmarks.ranks import rank_correlation
from benchmarks.tiers import TIERS

Data = dict[str, Any]
IMAGES = RESULTS.parent.parent / "docs" / "images"
# Hours of one run, and what it ran on (recorded results 3.1 and 10; sources disagree, 14.8 and 14.9).
REFERENCE_HOURS = {
    "d0": "24.4 h (A30)",
    "a4r": "12.3 h (A30)",
    "d4a4": "10.6 h (RTX 3090), 25 h (A30)",
}
REFERENCE_UPDATES = 30_000
MANY_ARMS = 3
NO_MISTAKE = "a model that makes no mistake"
RESTS = ("strong-rest", "strong-last")  # an arm each
TIERS_SHOWN = ("gpu", "cpu", "strong", *RESTS)
SHOWN_ANALYSES = ("ablation", "similarity", "sensitivity", "invariance")


def of_tier(tier: str) -> Data | None:
    """A tier's result, if it was run."""
    return known(f"reproduce-{tier}")


def scratch() -> str:
    """The 13 arms from scratch, at either size."""
    return "\n\n".join(
        f"### {title}\n\n{_tier(tier)}"
        for tier, title in (
            ("gpu", "The paper's size, on a GPU"),
            ("cpu", "Small models, on a CPU"),
        )
    )


def _tier(tier: str) -> str:
    data = of_tier(tier)
    if data is None:
        return not_yet(f"reproduce --tier {tier}")
    parts = [_about(data), *_pictures(tier, "", "-order", "-real")]
    for campaign in data["campaigns"]:
        for board in campaign["boards"]:
            if board["split"] == "test":
                parts.append(_board(board))
        if campaign["order"]:
            parts.append(_order(campaign["order"]))
    if data["real"]:
        parts.append(_real(data, data["real"]))
    return "\n\n".join(parts)


PICTURES = {
    "": "arms and floors with their intervals",
    "-order": "each arm's score over its recorded one",
    "-real": "arms and floors on recordings of a real piano",
    "-ablation": "what S loses when a descriptor is replaced",
    "-invariance": "S of arms and floors over how much the sound or the notes are changed",
}


def _pictures(tier: str, *kinds: str) -> list[str]:
    """Those of a tier that docs/result_figures.py has drawn."""
    files = [(kind, f"results-{tier}{kind}.png") for kind in kinds]
    return [f"![{PICTURES[k]}](images/{name})" for k, name in files if (IMAGES / name).is_file()]


def _about(data: Data) -> str:
    store = data["stores"]["trained_on"]
    splits = store["splits"]
    counts = ", ".join(
        f"{splits[s]['recordings']} {s} ({splits[s]['segments']:,} segments)"
        for s in ("train", "validation", "test")
    )
    made = data["campaigns"][0]["updates"]
    updates = " to ".join(f"{n:,}" for n in dict.fromkeys((min(made), max(made))))
    fonts = ", ".join(f"`{font}`" for font in data["tier"].get("soundfonts", ()))
    by = f" (`--soundfont` {fonts})" if fonts else ""
    return (
        f"Store `{store['name']}`, {store['hours']:.1f} h of {data['tier']['audio']} audio{by}: "
        f"{counts}. "
        f"{updates} updates a run. {machine(data)}."
    )


def _board(board: Data, of: str = "") -> str:
    """One board; ``of``: of which campaign, where the floors stand beside another one already."""
    lines = [
        row(*"arm,S,95 % interval,drawn,R@1,without copies,seeds,against `d0`".split(",")),
        "|---|--:|---|---|--:|--:|--:|---|",
    ]  # fmt: skip
    groups = {arm.get("group") for arm in board["arms"]}
    for arm in board["arms"]:
        group = arm.get("group") if len(groups) > 1 else None  # not all labels say it
        label = f"{arm['arm'].partition(', ')[0]}, {group}" if group else arm["arm"]
        name = f"`{label}`" + (" (leaks)" if arm["leaks"] else "")
        lines.append(
            row(
                name, mean(arm["S"]), interval(arm["interval"]), arm["interval_of"] or "–",
                mean(arm["R@1"]), mean(arm["no_copy_R@1"]), str(len(arm["seeds"])),
                difference(arm["against"].get("d0")),
            )
        )  # fmt: skip
    for name, floor in board["floors"].items() if not of else ():
        found = board["floor_interval"][name]
        lines.append(
            row(
                f"floor: `{name}`", mean(floor["S"]), interval(found["ci95"]), found["of"],
                mean(floor["R@1"]), mean(floor["no_copy_R@1"]), "–", "–",
            )
        )  # fmt: skip
    queries = board["arms"][0]["queries"]
    title = f"**{board['protocol'].capitalize()} protocol**, test split, {queries:,} queries{of}"
    return "\n".join([title, "", *lines])


def _order(order: Data, of: str = "the arms") -> str:
    lines = [f"Order of {of} against the recorded one ({order['source']}):", ""]
    for name, found in order["by"].items():
        if found["spearman"] is None:
            lines.append(f"* {name.replace('-', ', ')}: all arms score the same.")
            continue
        low, high = found["ci95"]
        lines.append(
            f"* {name.replace('-', ', ')}: Spearman {found['spearman']:+.2f} "
            f"[{low:+.2f}, {high:+.2f}] over {len(found['arms'])} arms (arms drawn "
            f"anew); {found['p']:.1%} of random orders agree as well."
        )
    return "\n".join(lines)


def analyses() -> str:
    """Ablation, similarity and sensitivity of the arms from scratch, both variants."""
    data = of_tier("gpu") or of_tier("cpu")
    if data is None:
        return NOT_YET
    tier = "gpu" if of_tier("gpu") else "cpu"
    parts = [f"Of the tier `{tier}`, first seed, validation split: {', '.join(data['analysed'])}."]
    return "\n\n".join([*parts, *_pictures(tier, "-ablation"), *_tables(data)])


def _tables(data: Data, of: str = "analyses", where: str = "") -> list[str]:
    parts = []
    for table in data[of]:
        if table["analysis"] not in SHOWN_ANALYSES:
            continue
        lines = [row(*table["head"]), "|---" * len(table["head"]) + "|"]
        lines += [row(*map(_cell, r)) for r in table["rows"]]
        summary = f"{table['analysis']}, `{table['variant']}`{where}: {len(table['rows'])} rows"
        parts.append("\n".join(details(summary, "\n".join(lines))))
    return parts


def strong() -> str:
    """The corrected preset and the paper's, on all performances, scored on a real piano, too."""
    data = of_tier("strong")
    if data is None:
        return not_yet("reproduce --tier strong")
    parts = [_about(data), *_pictures("strong", "-real")]
    real = data["real"]
    if real:
        parts += [_real(data, real), _left_to_gain(real)]
    for campaign in data["campaigns"]:
        parts.append(_strict_test(campaign, data["campaigns"][0]))
        if campaign["order"]:
            parts.append(_order(campaign["order"]))
    if data.get("timbre"):
        parts.append(_timbre(data))
    parts += [*_pictures("strong", "-ablation"), *_tables(data)]
    on_real = _tables(data, "analyses_on_real", ", a real piano")
    return "\n\n".join([*parts, *_pictures("strong", "-invariance"), *on_real])


def rest() -> str:
    """The arms of the paper's that the tier ``strong`` leaves out."""
    parts: list[str] = []
    rests: list[Data] = []
    for tier in RESTS:
        data = of_tier(tier)
        if data is None:
            parts.append(not_yet(f"reproduce --tier {tier}"))
            continue
        first, rest = data["campaigns"]
        arms = ", ".join(f"`{arm['arm']}`" for arm in _strict_test_board(rest)["arms"])
        parts += [f"#### {arms}", _about(data)]
        if data["real"]:
            parts.append(_real(data, data["real"]))
        if not rests:  # the first campaign is the same in every tier
            parts.append(_strict_test(first, first))
        parts.append(_strict_test(rest, first))
        rests.append(rest)
    if (known_arms := of_tier("strong")) is not None and rests:
        parts.append(_order_of_all(known_arms, rests))
    return "\n\n".join(filter(None, parts))


def _strict_test(campaign: Data, first: Data) -> str:
    of = "" if campaign is first else f": {campaign['title'].lower()}"
    return _board(_strict_test_board(campaign), of)


def _strict_test_board(campaign: Data) -> Data:
    boards = {(b["protocol"], b["split"]): b for b in campaign["boards"]}
    found: Data = boards["strict", "test"]
    return found


def _order_of_all(strong: Data, rests: Sequence[Data]) -> str:
    """Arms of the reference's settings in these tiers, on one test split; the first tier's first."""
    paper = next(c for c in strong["campaigns"] if c["order"])
    recorded = paper["order"]["recorded"]
    boards = [_strict_test_board(campaign) for campaign in (paper, *rests)]
    if len({board["arms"][0]["queries"] for board in boards}) > 1:
        return ""  # other questions
    here: dict[str, float] = {}
    for board in boards:
        for line in board["arms"]:
            arm, _, group = line["arm"].partition(", ")
            if line.get("group", group) in ("", "as recorded") and arm in recorded:
                here.setdefault(arm, statistics.fmean(line["S"]))
    found = rank_correlation({arm: (S, recorded[arm]) for arm, S in here.items()})
    order = {"source": paper["order"]["source"], "by": {"strict-test": found}}
    return _order(order, "the arms of these tiers")


def _timbre(data: Data) -> str:
    """The same test recordings from the SoundFont that training heard."""
    seen = data["timbre"]["seen"]
    lines = [row("", "S, training's own SoundFont"), "|---|--:|"]
    lines += [row(f"`{arm}`", spread(found["S"])) for arm, found in seen.items()]
    return "\n".join(
        [
            "The test split above has a SoundFont that training never heard. By training's own:",
            "",
            *details(f"strict protocol, S: {len(seen)} arms", "\n".join(lines)),
        ]
    )


def _real(data: Data, real: Data) -> str:
    store = data["stores"]["real"]["splits"]["test"]
    boards = [board for campaign in data["campaigns"] for board in campaign["boards"]]
    # By the arm's own name: those of later campaigns are called by campaign and group, too.
    leaking = {line["arm"].partition(",")[0] for b in boards for line in b["arms"] if line["leaks"]}
    lines = [
        row("", "S", "R@1", "without copies", "first of all segments", "S, paper"),
        "|---|--:|--:|--:|--:|--:|",
    ]
    for arm, found in real["arms"].items():
        s = found["strict"]
        lines.append(
            row(f"`{arm}`" + (" (leaks)" if arm.partition(" (")[0] in leaking else ""),
                spread(s["S"]), spread(s["R@1"]), spread(s["no_copy_R@1"]),
                spread(s["full_R@1"]), spread(found["paper"]["S"]))
        )  # fmt: skip
    for name, found in real["floors"].items():
        s = found["strict"]
        cells = [mean(s[k]) for k in ("S", "R@1", "no_copy_R@1", "full_R@1")]
        lines.append(row(f"floor: `{name}`", *cells, mean(found["paper"]["S"])))
    queries = next(iter(real["arms"].values()))["strict"]
    shared = real.get("works_shared")  # None: it was not asked
    works = "" if shared is None else f"; works that training heard, too: {len(shared) or 'none'}"
    title = (
        f"**Recordings of a real piano** ({store['recordings']} recordings, {queries['queries']:,} "
        f"queries, {queries['without_copy']:,} without a copy{works}), strict protocol; of directions "
        "the lower one; of seeds mean (lowest–highest):"
    )
    told = [(f"`{d['second']}`", f"`{d['first']}`", d) for d in real["differences"]]
    # Where a later campaign has many arms, they are of interest beside each other, not beside floors.
    of = Counter(name for arm in real["arms"] if (name := _campaign_of(arm)))
    many = {arm for arm in real["arms"] if of[_campaign_of(arm)] > MANY_ARMS}
    folded = [t for t in told if t[2]["second"] in many and t[2]["first"] in real["floors"]]
    shown = [t for t in told if t not in folded]
    summary = f"arms of the other campaigns against floors: {len(folded)} rows"
    more = ["", *details(summary, _differences(folded))] if folded else []
    return "\n".join([title, "", *lines, "", _differences(shown), *more])


def _campaign_of(arm: str) -> str:
    """Of an arm that is called by campaign and group; empty for those of the first campaign."""
    return arm.partition(" (")[2].partition(",")[0]


def _left_to_gain(real: Data) -> str:
    """How much every floor leaves; where that is next to nothing, no model could be shown better."""
    told = [(NO_MISTAKE, f"`{name}`", found) for name, found in real["left_to_gain"].items()]
    return _differences(told)


def costs() -> str:
    """Time a run takes here, beside the reference's, whose time holds its evaluations."""
    lines = [row("tier", "step", "here", "the reference, one run"), "|---|---|--:|---|"]
    for tier in TIERS_SHOWN:
        data = known(f"reproduce-{tier}-cost")
        if data is None:
            lines.append(row(f"`{tier}`", "everything", NOT_YET.lower().rstrip("."), "–"))
            continue
        lines.append(
            row(
                f"`{tier}`",
                f"store, {data['hours']:.1f} h",
                _minutes(sum(data["build"].values())) if data["build"] else "–",
                "read in every epoch of every run",
            )
        )
        by_label: dict[str, list[Data]] = {}
        for run in data["runs"].values():
            if run["train_seconds"] is not None:
                by_label.setdefault(run.get("label", run["arm"]), []).append(run)
        for label, runs in by_label.items():
            if hours := REFERENCE_HOURS.get(runs[0]["arm"]):
                took = _minutes(statistics.median(r["train_seconds"] for r in runs))
                made = runs[0].get("updates")
                budget = "" if made is None else f", {made:,} updates"
                theirs = f"{hours}, {REFERENCE_UPDATES:,} updates and evaluations"
                lines.append(row(f"`{tier}`", f"training `{label}`{budget}", took, theirs))
        steps = sum(data["steps"].values())
        lines.append(
            row(f"`{tier}`", f"everything, {len(data['runs'])} runs", _minutes(steps), "–")
        )
    return "\n".join(lines)


def not_run() -> str:
    """Tiers without a result."""
    names = [tier for tier in (*TIERS_SHOWN, "full") if of_tier(tier) is None]
    lines = []
    for name in names:
        lines.append(f"* `{name}`: {TIERS[name].title}.")
        if (budget := known(f"reproduce-{name}-budget")) is not None:
            lines += [f"  * {found['said']}" for found in budget["campaigns"]]
    return "\n".join(lines) or "Every tier was run."


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def _differences(told: Sequence[tuple[str, str, Data]]) -> str:
    """Of every pair, S and R@1 of both directions; ``told``: who, against whom, what was found."""
    if not told:
        return ""
    lines = [
        row("", "against", "S", "R@1, sound to notes", "notes to sound"),
        "|---|---|---|---|---|",
    ]
    for who, other, found in told:
        lines.append(row(who, other, *differences(found)))
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
