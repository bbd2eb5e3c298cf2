"""Which arm is better: runs grouped by everything but their seed, compared on the same queries.

Groups that differ in more than their arm (:data:`trainer.config.ARM`) stand beside each other, but
nothing is stated of them: updates, batches or chances to be best may have made the difference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.config import digest, to_plain
from trainer.analyses import pictures
from trainer.analyses.bench import Bench
from trainer.analyses.contract import Plain, Table
from trainer.cache import ON_DEVICE
from trainer.config import common_settings, differing
from trainer.floors import Floor
from trainer.records import common_seed
from trainer.retrieval.compare import LEAST_RECORDINGS, LEAST_SEEDS, METRICS, compare
from trainer.run import Run, beginning

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NAMED = 4  # settings that a verdict lists


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One group of runs beside the reference.

    Attributes
    ----------
    first, second : names of the reference and of the group
    found : what :func:`trainer.retrieval.compare.compare` says
    """

    first: str
    second: str
    found: Plain


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of one configuration but for the seed, in the order of their first: label → runs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        plain = to_plain(run.config)
        plain.pop("seed")
        reads, init = run.record["reads"], beginning(run)
        groups.setdefault(digest({"config": plain, "reads": reads, "init": init}), []).append(run)
    names: dict[str, list[Run]] = {}
    for key, members in groups.items():
        arm = str(members[0].record["arm"])
        names[arm if arm not in names else f"{arm} {key[:4]}"] = members
    return names


def unlike(first: Run, second: Run) -> list[str]:
    """Settings in which two runs differ besides their arm and their seed, by their dotted names.

    What they started from and the data that both read count, too.
    """
    runs = (first, second)
    one, other = (common_settings(to_plain(run.config)) for run in runs)
    found = differing(one, other)
    if beginning(first) != beginning(second):
        found.append("the beginning (--init)")
    reads = [
        {name: value.removesuffix(ON_DEVICE) for name, value in run.record["reads"].items()}
        for run in runs
    ]
    # An array that only one of them reads is part of its arm.
    both = [name for name in reads[0] if name in reads[1]]
    return found + [f"the data ({name})" for name in both if reads[0][name] != reads[1][name]]


def compare_runs(
    benches: Sequence[Bench],
    protocol: str,
    *,
    baselines: Sequence[str],
    cache: Path,
) -> list[Comparison]:
    """The first group beside every other one, then every group beside every baseline.

    Evaluations that are not there yet are made. The paper's pools are those of seed 42 for all, so
    that runs of different seeds answer the same queries (method §9.17).
    """
    seed = common_seed(protocol)
    of_run = {bench.run.path: bench for bench in benches}
    groups = grouped([bench.run for bench in benches])
    scored = {
        name: [of_run[run.path].scored(protocol, seed) for run in members]
        for name, members in groups.items()
    }
    first = benches[0]
    store, split, size = first.store, first.split, first.run.config.evaluation.pool_size
    floors = {
        name: [Floor(name, store, split, cache=cache, pool_size=size).scored(protocol, seed)]
        for name in baselines
    }
    reference, *others = scored
    found = [
        Comparison(
            first=reference,
            second=name,
            found=compare(
                scored[reference], scored[name], unlike(groups[reference][0], groups[name][0])
            ),
        )
        for name in others
    ]
    for name, answers in scored.items():
        for floor, its in floors.items():
            found.append(Comparison(first=floor, second=name, found=compare(its, answers)))
    return found


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """One row per pair and metric."""
    rows: list[list[object]] = []
    for c in comparisons:
        for metric in METRICS:
            m = c.found[metric]
            low, high = m["ci95"]
            rows.append(
                [
                    f"{c.second} – {c.first}",
                    " : ".join(map(str, reversed(c.found["seeds"]))),
                    f"{c.found['units']} {c.found['unit']}",
                    metric,
                    m["second"],
                    m["first"],
                    m["difference"],
                    low,
                    high,
                    m["p_seeds"],
                    m["smallest_p"],
                    m["p_queries"],
                    verdict(m, c.found),
                ]
            )
    head = (
        "arms, seeds, drawn, metric, arm, against, difference, from, to, p (seeds), least p possible, "
        "p (queries), verdict"
    )
    return Table(head=head.split(", "), rows=rows)


def verdict(m: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What may be said of one metric."""
    if m["stated"]:
        return "higher" if m["difference"] > 0 else "lower"
    if apart := found.get("unlike"):
        more = f" and {len(apart) - NAMED} more" if len(apart) > NAMED else ""
        return f"differ in {', '.join(apart[:NAMED])}{more}: nothing is stated"
    few = (k < LEAST_SEEDS for k, t in zip(found["seeds"], found["trained"], strict=True) if t)
    if any(few):
        return f"fewer than {LEAST_SEEDS} seeds: nothing is stated"
    if found["unit"] != "recordings":
        return f"fewer than {LEAST_RECORDINGS} recordings: nothing is stated"
    return "no difference shown"


def draw_comparison(comparisons: Sequence[Comparison], figure: Figure) -> None:
    """Differences of S with their intervals."""
    axes = figure.subplots()
    figure.set_size_inches(6.4, 0.9 + 0.32 * len(comparisons), forward=False)
    for i, c in enumerate(comparisons):
        m = c.found["S"]
        colour = pictures.COLOURS[0] if m["stated"] else pictures.COLOURS[5]
        axes.plot(m["ci95"], [i, i], color=colour, lw=2)
        axes.plot(m["difference"], i, "o", color=colour, ms=5)
    axes.axvline(0, color=pictures.INK, lw=0.8)
    axes.set_yticks(range(len(comparisons)), [f"{c.second} – {c.first}" for c in comparisons])
    axes.invert_yaxis()
    axes.set_xlabel("difference of S, 95 % interval (grey: nothing may be stated)", fontsize=8)
    pictures.quiet(axes, grid="x")
