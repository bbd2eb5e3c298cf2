"""The analyses of docs/evaluation.md: the runs of the README's scores, asked everything there is.

Needs the runs of ``python -m benchmarks.scores --name demo`` (trained again where they are gone). The
parameter-matched controls are trained for every seed in the sound variant, for the first seed in the
published one.

    python -m benchmarks.analyses [--out runs]
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import command, environment, write
from benchmarks.scores import built, score
from pipeline.store import Store
from trainer.analyses import ANALYSES
from trainer.analyses.contract import Finding

ARMS, SEEDS = ("d0", "a4r"), (42, 43, 44)
IMAGES = Path(__file__).parent.parent / "docs/images"
SHOWN = (
    "ablation-sound", "invariance-sound", "similarity-sound", "sensitivity-sound", "maps-sound",
    "cost-sound",
)  # fmt: skip


def main() -> None:
    """Train what is missing, analyse, write ``benchmarks/results/analyses-demo.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs"))
    out = parser.parse_args().out
    store = built("demo")
    runs = {arm: [out / score(arm, seed, store, out)["run"] for seed in SEEDS] for arm in ARMS}
    first = [found[0] for found in runs.values()]
    controls = _controls(runs["a4r"])
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        command("xmodal-analyze", "all", *first, "--out", target)
        tables = [_table(file, target) for file in sorted(target.glob("*-*.json"))]
        for name in SHOWN:
            shutil.copy(target / f"{name}.png", IMAGES / f"{name}.png")
    record = json.loads((first[0] / "run.json").read_text(encoding="utf-8"))
    opened = Store.open(store)
    rows = opened.segments.of_split("validation")
    write(
        "analyses-demo",
        {
            "environment": environment(),
            "identity": opened.identity,
            "split": "validation",
            "segments": len(rows),
            "recordings": len(set(opened.segments.recording[rows].tolist())),
            "size": record["config"]["size"],
            "updates": record["step"],
            "runs": {arm: [r.name for r in found] for arm, found in runs.items()},
            "tables": [t for t in tables if t is not None],
            "controls": controls,
        },
    )


def _controls(runs: list[Path]) -> dict[str, Any]:
    """The arm against each of its controls, over the seeds."""
    with tempfile.TemporaryDirectory() as folder:
        matched = ("xmodal-analyze", "matched")
        command(*matched, runs[0], "--variant", "paper", "--out", folder)
        told = command(*matched, *runs, "--variant", "sound", "--out", folder)
    found: dict[str, Any] = {}
    findings = told["analyses"][0]["findings"]
    for control in ("zero", "random", "shuffled"):
        own = [runs[0].parent / f["conditions"][control]["run"] for f in findings]
        pair = command("xmodal-compare", *own, *runs, "--split", "test", "--protocol", "strict")
        found[control] = {"runs": [p.name for p in own], "difference": pair["strict"][0]["found"]}
    return found


def _table(file: Path, folder: Path) -> dict[str, Any] | None:
    """What an analysis found, as the table that people see."""
    data = json.loads(file.read_text(encoding="utf-8"))
    if "analysis" not in data or not data["findings"]:
        return None
    analysis, variant = ANALYSES.get(data["analysis"]), data["variant"]
    table = analysis.table([Finding(**f) for f in data["findings"]], variant)
    name = f"{analysis.name}-{variant}"
    return {
        "analysis": analysis.name,
        "variant": variant,
        "head": list(table.head),
        "rows": [list(r) for r in table.rows],
        "picture": f"{name}.png" if name in SHOWN and (folder / f"{name}.png").exists() else None,
    }


if __name__ == "__main__":
    main()
