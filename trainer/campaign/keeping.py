"""What ``xmodal-sweep runs`` and ``ledger`` say and do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.base.console import Console
from pipeline.base.errors import RunError
from pipeline.base.html import size
from trainer.campaign.housekeeping import Prunable, prunable, prune, run_sizes


def tell_sizes(out: Path, console: Console) -> None:
    """Every run folder, the heaviest first."""
    runs = sorted(run_sizes(out), key=lambda run: (-run.total, run.run))
    width = max((len(run.run) for run in runs), default=0)
    lines = [
        f"{run.run:<{width}}  {run.status:<8}  {size(run.total):>9}  of which checkpoints "
        f"{size(run.checkpoints):>9}  {', '.join(run.campaigns)}".rstrip()
        for run in runs
    ]
    total, saved = sum(r.total for r in runs), sum(r.checkpoints for r in runs)
    lines.append(f"{len(runs)} runs, {size(total)}, of which checkpoints {size(saved)}")
    console.result([dataclasses.asdict(run) for run in runs], "\n".join(lines))


def prune_runs(out: Path, unplanned: bool, yes: bool, console: Console) -> None:
    """Show what may go; with ``yes``, remove it.

    Raises
    ------
    RunError
        (kind ``kept``) when something that was to go is still there.
    """
    items = prunable(out, unplanned=unplanned)
    gone, kept = prune(items) if yes else (items, [])
    lines = [f"{size(i.size):>9}  {i.kind:<11}  {i.path.relative_to(out)}  ({i.why})" for i in gone]
    word = "removed" if yes else "may go"
    lines.append(f"{size(sum(i.size for i in gone))} {word}")
    if items and not yes:
        lines.append("nothing was removed; add --yes to do it")
    data = {"removed" if yes else "prunable": [_plain(i) for i in gone], "kept": kept}
    if not (kept and console.as_json):  # one document: there the error carries it
        console.result(data, "\n".join(lines))
    if kept:
        raise RunError("; ".join(kept), kind="kept", details=data)


def tell_ledger(out: Path, csv: Path | None, console: Console) -> None:
    """Make the ledger, and the CSV file if one is wanted."""
    from trainer.campaign.ledger import to_csv, write_ledger

    file, table, problems = write_ledger(out)
    for problem in problems:
        console.say(problem)
    written = [file, *([to_csv(table, csv)] if csv else [])]
    runs = len(set(table["run"].to_pylist()))
    data = {"files": [str(f) for f in written], "rows": table.num_rows, "runs": runs}
    text = f"{', '.join(map(str, written))}: {runs} runs, {table.num_rows} rows"
    console.result({**data, "problems": problems}, text)


def _plain(item: Prunable) -> dict[str, object]:
    return {**dataclasses.asdict(item), "path": str(item.path)}
