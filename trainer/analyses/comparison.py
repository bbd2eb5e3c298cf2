"""Which arm is better: runs grouped by everything but their seed, compared on the same queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.config import digest, to_plain
from pipeline.store.reader import Store
from trainer.analyses import pictures
from trainer.analyses.contract import Plain, Table
from trainer.floors import Floor
from trainer.records import common_seed
from trainer.retrieval.compare import LEAST_SEEDS, METRICS, Scored, compare
from trainer.run import Run
from trainer.scoring import scored_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        reads = run.record["reads"]
        groups.setdefault(digest({"config": plain, "reads": reads}), []).append(run)
    names: dict[str, list[Run]] = {}
    for key, members in groups.items():
        arm = str(members[0].record["arm"])
        names[arm if arm not in names else f"{arm} {key[:4]}"] = members
    return names


def compare_runs(
    runs: Sequence[Run],
    store: Store,
    split: str,
    protocol: str,
    *,
    baselines: Sequence[str],
    cache: Path,
    device: str = "auto",
) -> list[Comparison]:
    """The first group beside every other one, then every group beside every baseline.

    Evaluations that are not there yet are made. The paper's pools are those of seed 42 for all, so
    that runs of different seeds answer the same queries (method §9.17).
    """
    seed = common_seed(protocol)
    scored = {
        name: [scored_run(r, store, split, protocol, device=device, seed=seed) for r in members]
        for name, members in grouped(runs).items()
    }
    size = runs[0].config.evaluation.pool_size
    floors = {
        name: [Floor(name, store, split, cache=cache, pool_size=size).scored(protocol, seed)]
        for name in baselines
    }
    reference, *others = scored
    pairs: list[tuple[str, Sequence[Scored], str, Sequence[Scored]]] = [
        (reference, scored[reference], name, scored[name]) for name in others
    ]
    pairs += [(b, f, name, s) for name, s in scored.items() for b, f in floors.items()]
    return [Comparison(first=a, second=b, found=compare(x, y)) for a, x, b, y in pairs]


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """One row per pair and metric."""
    rows: list[list[object]] = []
    for c in comparisons:
        for metric in METRICS:
            m = c.found[metric]
            low, high = m["ci95"]
            rows.append(
                [
                    f"{c.second} against {c.first}",
                    " : ".join(map(str, reversed(c.found["seeds"]))),
                    metric,
                    m["second"],
                    m["first"],
                    m["difference"],
                    low,
                    high,
                    m["p_seeds"],
                    m["smallest_p"],
                    m["p_queries"],
                    verdict(m, c.found["seeds"]),
                ]
            )
    head = (
        "arms, seeds, metric, arm, against, difference, from, to, p (seeds), least p possible, "
        "p (queries), verdict"
    )
    return Table(head=head.split(", "), rows=rows)


def verdict(m: Mapping[str, object], seeds: Sequence[int]) -> str:
    """What may be said."""
    if m["stated"]:
        return "higher" if float(str(m["difference"])) > 0 else "lower"
    if m["p_seeds"] is not None and min(seeds) < LEAST_SEEDS:
        return f"fewer than {LEAST_SEEDS} seeds: nothing is stated"
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
    axes.set_yticks(range(len(comparisons)), [f"{c.second} against {c.first}" for c in comparisons])
    axes.invert_yaxis()
    axes.set_xlabel("difference of S, 95 % interval (grey: nothing may be stated)", fontsize=8)
    pictures.quiet(axes, grid="x")
