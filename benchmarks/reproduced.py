"""What a reproduction found and what it cost, gathered from stores, run folders and analyses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.common import command
from benchmarks.ranks import rank_correlation
from benchmarks.tiers import Tier
from pipeline.base.config import to_plain
from pipeline.base.errors import RunError
from pipeline.corpora.compositions import overlap
from pipeline.info import describe_store
from pipeline.report.contents import build_info
from pipeline.store import Store
from trainer.analyses import ANALYSES
from trainer.analyses.comparison import unlike
from trainer.analyses.contract import Finding
from trainer.campaign.ledger import build_ledger
from trainer.campaign.recorded import read_recorded
from trainer.campaign.report import boards_of
from trainer.campaign.standing import Board, Line, entries_of
from trainer.campaign.state import states
from trainer.campaign.sweep import Sweep
from trainer.floors import BASELINE_FOLDER, Floor
from trainer.records import scores_due
from trainer.retrieval.compare import Scored, compare
from trainer.run import Run, open_run
from trainer.scoring import kept_scores

SIDES = ("a2m", "m2a")
FULL_METRICS = ("S", "a2m R@1", "m2a R@1")
FLOORS_ON_REAL = ("cqt", "flux")  # the two best; cqt is librosa's
AGAINST = ("d0", *FLOORS_ON_REAL)
COSTS = (
    "updates",
    "segments_per_s",
    "train_seconds",
    "peak_host",
    "peak_device",
    "parameters",
    "device",
    "precision",
)


def found(
    sweeps: Sequence[Sweep], store: Path, others: Sequence[Path], looked_at: Sequence[Path],
    tier: Tier, out: Path,
) -> dict[str, Any]:  # fmt: skip
    """Everything but times: equal for equal code, data and machine.

    ``others``: stores that the runs were scored on besides; the first of a real piano where its name
    says so, one of the same recordings in training's timbres.
    """
    real = next((s for s in others if s.name.startswith("real-piano")), None)
    heard = next((s for s in others if s != real), None)
    return {
        "tier": {"title": tier.title, "tiny": tier.tiny, "audio": tier.audio},
        "stores": {"trained_on": _store(store), "real": real and _store(real)},
        "campaigns": [_campaign(sweep, tier.floors) for sweep in sweeps],
        "real": real and _on_real(sweeps, store, real),
        "timbre": heard and {"seen": _seen(sweeps, heard), "store": _store(heard)},
        "analyses": _tables(out / "analyses", tier.analyses),
        "analyses_on_real": _tables(out / "analyses-real", tier.on_real if real else ()),
        "analysed": [path.name for path in looked_at],
    }


def costs(sweeps: Sequence[Sweep], store: Path) -> dict[str, Any]:
    """Seconds and memory, run by run; ``label``: what its scores stand under.

    ``build``: seconds by stage; None where the build was stopped before it noted them.
    """
    rows = {r["run"]: r for sweep in sweeps for r in _ledger(sweep)}
    opened = Store.open(store)
    labels = {path.name: label for label, paths in arm_runs(sweeps).items() for path in paths}
    return {
        "build": build_info(opened).get("seconds"),
        "hours": describe_store(opened)[0]["hours"],
        "runs": {
            name: {
                "arm": r["arm"],
                "seed": r["seed"],
                "label": labels.get(name, r["arm"]),
                **{k: r[k] for k in COSTS},
            }
            for name, r in sorted(rows.items())
        },
    }


def _store(path: Path) -> dict[str, Any]:
    opened = Store.open(path)
    contents, _ = describe_store(opened)
    return {
        "name": opened.name,
        "identity": opened.identity,
        "splits": contents["splits"],
        "hours": contents["hours"],
        "arrays": {name: info.fingerprint for name, info in sorted(opened.arrays.items())},
    }


def _ledger(sweep: Sweep) -> list[dict[str, Any]]:
    table, problems = build_ledger(Path(sweep.out), {run.folder for run in sweep.runs})
    if problems:
        raise SystemExit("; ".join(problems))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _campaign(sweep: Sweep, floors: Sequence[str]) -> dict[str, Any]:
    boards = boards_of(sweep, floors)
    return {
        "name": sweep.name,
        "title": sweep.title,
        "updates": sorted({run.updates for run in sweep.runs}),
        "runs": len(sweep.runs),
        "boards": [_board(board) for board in boards],
        "order": _order(sweep, boards),
    }


def _board(board: Board) -> dict[str, Any]:
    return {
        "protocol": board.protocol,
        "split": board.split,
        "floors": {name: scores_of([floor.record]) for name, floor in board.floors.items()},
        "floor_interval": {
            name: {"ci95": floor.record["ci95"]["S"], "of": floor.record["ci_kind"]}
            for name, floor in board.floors.items()
        },
        "arms": [_line(line) for line in board.lines],
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "arm": line.entry.label,
        "group": line.entry.runs[0].group,
        "seeds": sorted(line.seeds),
        "rank": line.rank,
        "verdict": str(line.verdict),
        "leaks": line.entry.leaks,
        "interval": line.interval and [round(x, 6) for x in line.interval],
        "interval_of": line.interval_of,
        **scores_of([s.record for s in line.scored]),
        "against": {n: difference_of(line.against[n]) for n in AGAINST if n in line.against},
    }


def scores_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every seed's, by metric; of directions the lower one where one number is shown."""
    lower = {
        "R@1": lambda r: min(r[side]["R@1"] for side in SIDES),
        "no_copy_R@1": lambda r: min(r["no_copy"][side]["R@1"] for side in SIDES),
        "full_R@1": lambda r: min(r["full"][side]["R@1"] for side in SIDES),
    }
    first = records[0]
    return {
        "S": [round(r["S"], 6) for r in records],
        **{k: [round(f(r), 6) for r in records] for k, f in lower.items()},
        "queries": first["queries"],
        "without_copy": first["no_copy"]["queries"],
        "pool_hash": first["pool_hash"],
    }


def difference_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is published of a comparison."""
    kept = ("difference", "ci95", "p_seeds", "smallest_p", "p_queries", "stated")
    metrics = {m: {k: found[m][k] for k in kept} for m in FULL_METRICS}
    return {**metrics, "seeds": found["seeds"], "unit": found["unit"]}


def _order(sweep: Sweep, boards: Sequence[Board]) -> dict[str, Any] | None:
    """The arms' order here against the recorded one, by each protocol."""
    if sweep.reference is None:
        return None
    recorded = read_recorded(sweep.reference)
    rows: dict[str, list[float]] = {}
    for row in recorded.rows:
        if not row.leaks and not row.unranked:
            rows.setdefault(row.arm, []).append(row.S)
    said = {arm: round(fmean(scores), 6) for arm, scores in rows.items()}
    result = {}
    for board in boards:
        here: dict[str, float] = {}
        # Of an arm in several groups the first group's: one order is of one setting.
        for line in sorted(board.lines, key=lambda line: line.entry.runs[0].index):
            if not line.entry.is_stage and not line.entry.leaks and line.entry.arm in said:
                here.setdefault(line.entry.arm, line.S)
        if len(here) > 2:
            pairs = {arm: (S, said[arm]) for arm, S in here.items()}
            result[f"{board.protocol}-{board.split}"] = rank_correlation(pairs)
    return {
        "recorded": {arm: said[arm] for arm in sorted(said)},
        "source": recorded.source,
        "by": result,
    }


def _on_real(sweeps: Sequence[Sweep], store: Path, real: Path) -> dict[str, Any]:
    """The recordings of a real piano: every run, the floors, differences of arms with seeds."""
    runs = arm_runs(sweeps)
    scores = {
        arm: {p: scores_of(_records(paths, real, p)) for p in ("strict", "paper")}
        for arm, paths in runs.items()
    }
    first = next(iter(runs.values()))[0]
    floors = command("xmodal-evaluate", first, "--split", "test", "--store", real)["floors"]
    opened, cache = Store.open(real), first.parent / BASELINE_FOLDER
    size = open_run(first).config.evaluation.pool_size
    asked = {
        name: Floor(name, opened, "test", cache=cache, pool_size=size) for name in sorted(floors)
    }
    several = {
        arm: [_scored(path, real, "strict") for path in paths]
        for arm, paths in runs.items()
        if len(paths) > 2
    }
    return {
        "works_shared": _shared(store, real),
        "arms": scores,
        "floors": {
            name: {s["protocol"]: {**scores_of([s]), "ci95": s["ci95"]["S"]} for s in found}
            for name, found in sorted(floors.items())
        },
        "differences": _differences(
            several,
            {arm: open_run(runs[arm][0]) for arm in several},
            {n: [asked[n].scored("strict")] for n in FLOORS_ON_REAL if n in asked},
        ),
        "left_to_gain": {name: _left_to_gain(floor) for name, floor in asked.items()},
    }


def _differences(
    arms: Mapping[str, list[Scored]],
    settings: Mapping[str, Run],
    floors: Mapping[str, list[Scored]],
) -> list[dict[str, Any]]:
    """Every arm beside the first of its settings and the first of all, and beside the floors.

    ``settings``: a run of every arm. Beside the first of all, the settings are asked about, too.
    """
    firsts: list[str] = []
    pairs = []
    for name in arms:
        like = [first for first in firsts if not unlike(settings[first], settings[name])]
        if not like:
            firsts.append(name)
        beside = dict.fromkeys([*like, firsts[0]])
        pairs += [(first, arms[first], name) for first in beside if first != name]
    pairs += [(floor, its, name) for name in arms for floor, its in floors.items()]
    return [
        {"first": name, "second": second, **difference_of(compare(its, arms[second]))}
        for name, its, second in pairs
    ]


def _left_to_gain(floor: Floor) -> dict[str, Any]:
    """How far above a floor, strict protocol, a model would be that makes no mistake."""
    scored = floor.scored("strict")
    nothing = {side: np.zeros_like(scored.columns[side]) for side in SIDES}
    perfect = dataclasses.replace(
        scored, name="a perfect model", columns={**scored.columns, **nothing}
    )
    return difference_of(compare([scored], [perfect]))


def arm_runs(sweeps: Sequence[Sweep]) -> dict[str, list[Path]]:
    """Runs that are seeds of one another, by arm and setting; no stages that others start from.

    Those of later campaigns are called by campaign and group, too.
    """
    runs: dict[str, list[Path]] = {}
    for sweep in sweeps:
        for entry in entries_of(sweep, states(sweep)):
            if entry.is_stage:
                continue
            label = entry.label
            if sweep is not sweeps[0]:
                group = entry.runs[0].group
                own = label.removesuffix(f", {group}")
                label = f"{own} ({sweep.name.removesuffix('-tiny')}, {group})"
            runs[label] = [sweep.path(run) for run in entry.runs]
    return runs


def _shared(trained_on: Path, real: Path) -> list[str]:
    """Works of the test recordings that training heard, too, whole or in part."""
    one, other = (Store.open(path).recordings for path in (trained_on, real))
    heard = {str(work) for work in one.composition[one.split == "train"]}
    return sorted(
        work
        for work in {str(w) for w in other.composition[other.split == "test"]}
        if work in heard or any(overlap(work, known) for known in heard)
    )


def _seen(sweeps: Sequence[Sweep], store: Path) -> dict[str, Any]:
    """The test split in timbres that training heard, strict protocol."""
    runs = arm_runs(sweeps)
    return {arm: scores_of(_records(paths, store, "strict")) for arm, paths in runs.items()}


def unscored(path: Path, store: Path) -> list[tuple[str, ...]]:
    """Flags of the evaluations that a run lacks on the test split of a store.

    An evaluation that is there was made by these weights, of these arrays: it is not made again.
    """
    flags: list[tuple[str, ...]] = []
    run, opened = open_run(path), Store.open(store)
    for protocol, seed in _due(path):
        if kept_scores(run, opened, "test", protocol, seed=seed) is None:
            flags.append(() if seed is None else ("--protocol", protocol, "--seed", str(seed)))
    return list(dict.fromkeys(flags))  # without flags both protocols are scored


def _due(path: Path) -> list[tuple[str, int | None]]:
    """Protocols, and the seed of pools that are not the run's own."""
    due = scores_due(open_run(path).config.pool_seed)
    return [(protocol, seed) for protocol, split, seed in due if split == "test"]


def _records(paths: Sequence[Path], store: Path, protocol: str) -> list[Mapping[str, Any]]:
    """Of every run, on pools that all of them share."""
    return [_scored(path, store, protocol).record for path in paths]


def _scored(path: Path, store: Path, protocol: str) -> Scored:
    seed = [seed for name, seed in _due(path) if name == protocol][-1]
    found = kept_scores(open_run(path), Store.open(store), "test", protocol, seed=seed)
    if found is None:
        raise RunError(f"{path} has no {protocol} scores on {store}", kind="no-evaluation")
    return found


def _tables(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """What the analyses of these names found, as the tables that people see."""
    tables = []
    for file in sorted(folder.glob("*-*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        if data.get("analysis") not in names or not data["findings"]:
            continue
        analysis, variant = ANALYSES.get(data["analysis"]), data["variant"]
        table = analysis.table([Finding(**f) for f in data["findings"]], variant)
        tables.append(
            {
                "analysis": analysis.name,
                "variant": variant,
                "head": list(table.head),
                "rows": [list(map(to_plain, r)) for r in table.rows],
            }
        )
    return tables
