"""How the arms of a campaign stand: their runs' scores side by side, as far as they may stand so.

An entry is one line: runs of one arm and one setting that differ in the seed. Entries are ranked
within their cohort, the entries of one setting (schedule, loss, front end …), and only those that
:mod:`trainer.campaign.comparable` finds nothing against and that have the same finished seeds;
unfinished runs count for nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import RunError
from trainer.campaign.comparable import SEEDS, Verdict, apart, judge, usual_seeds
from trainer.campaign.state import State
from trainer.campaign.sweep import PlannedRun, Sweep
from trainer.layout import EVALUATION
from trainer.records import common_seed, file_name, read_scored
from trainer.retrieval.compare import LEAST_RECORDINGS, Scored, compare, t975
from trainer.retrieval.gallery import RetrievalError
from trainer.retrieval.intervals import resampled_means, units_of

REFERENCE = "d0"
Say = Callable[[str], None]
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """Runs that are seeds of one another, and where each stands.

    ``is_stage``: others start from it, or it is a stage of a recipe; such are never ranked.
    """

    label: str
    arm: str
    cohort: str
    runs: tuple[PlannedRun, ...]
    states: tuple[State, ...]
    is_stage: bool = False

    @property
    def leaks(self) -> bool:
        """Whether its scores are no retrieval scores."""
        return any(run.leaks for run in self.runs)

    @property
    def shown(self) -> str:
        """The label, and what a reader must know at once."""
        return f"{self.label} (leaks)" if self.leaks else self.label

    @property
    def epochs(self) -> int:
        """Of each of its runs."""
        return int(self.runs[0].config["budget"]["epochs"])

    def is_of(self, arm: str, schedule: str | None, epochs: int | None) -> bool:
        """Whether it may stand beside figures of this arm, schedule and number of epochs, if given.

        No stage may. Epochs need agree only at the size ``base``: of another size nothing has the
        budget of those figures, and both budgets are shown.
        """
        own = self.runs[0].config["schedule"]["name"]
        if self.is_stage or self.arm != arm or schedule not in (None, own):
            return False
        return self.runs[0].config["size"] != "base" or epochs in (None, self.epochs)

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """Descriptors and mechanisms."""
        return list(self.runs[0].config["pairs"])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """One entry on a board.

    Attributes
    ----------
    rows : of the ledger, one for each of its runs that is finished and scored; where the answers of
        some do not read, these are left out, so that scores and doubts are of the same seeds
    scored : the same, query by query; none where none reads
    interval : of the mean S, 95 %; None where nothing can be said
    interval_of : what its doubt is: ``recordings`` or ``10-s blocks`` that were drawn, before it
        ``seeds`` where there are several
    verdict : whether it may stand beside the others of its cohort
    rank : within the cohort; None where it may not be ranked
    against : what it is paired with (``d0``, floors) → :func:`trainer.retrieval.compare.compare`
    alone : why it is not paired with ``d0``
    """

    entry: Entry
    rows: tuple[Row, ...]
    scored: tuple[Scored, ...]
    interval: tuple[float, float] | None
    interval_of: str
    verdict: Verdict
    rank: int | None = None
    against: Mapping[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    alone: str = ""

    @property
    def seeds(self) -> frozenset[int]:
        """Those that are finished and scored."""
        return frozenset(row["seed"] for row in self.rows)

    @property
    def S(self) -> float:
        """Mean over its runs."""
        return self.mean("S") or 0.0

    def mean(self, column: str) -> float | None:
        """Of a column of the ledger over its runs; None unless all have it."""
        values = [row[column] for row in self.rows]
        return None if None in values or not values else float(np.mean(values))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Board:
    """All entries under one protocol on one split, the best first; and the floors."""

    protocol: str
    split: str
    lines: tuple[Line, ...]
    floors: Mapping[str, Scored]

    @property
    def title(self) -> str:
        """For a heading."""
        return f"{self.protocol.capitalize()} protocol, {self.split} split"

    @property
    def by_blocks(self) -> bool:
        """Whether some interval is of 10-s blocks, and tells nothing of other recordings."""
        kinds = [line.interval_of for line in self.lines]
        kinds += [str(floor.record["ci_kind"]) for floor in self.floors.values()]
        return any(kind.endswith("blocks") for kind in kinds)

    @property
    def best_floor(self) -> str | None:
        """The training-free baseline that an arm has to beat."""
        return max(self.floors, key=lambda name: self.floors[name].score("S"), default=None)


def entries_of(sweep: Sweep, states: Sequence[State]) -> list[Entry]:
    """A campaign's runs by group, arm and setting, in the order of the plan."""
    found: dict[tuple[str, str], list[tuple[PlannedRun, State]]] = {}
    for run, state in zip(sweep.runs, states, strict=True):
        found.setdefault((run.group, run.name), []).append((run, state))
    entries = []
    starts = {run.after for run in sweep.runs}
    for (_, label), members in found.items():
        first = members[0][0]
        named = label.partition(", ")[0] == first.arm  # stages of recipes have names of their own
        stage = not named or any(run.index in starts for run, _ in members)
        varied = {k: v for k, v in first.settings.items() if not k.startswith("control.")}
        words = ", ".join(f"{k.removesuffix('.name')} {v}" for k, v in varied.items())
        runs, own = zip(*members, strict=True)
        entries.append(
            Entry(
                label=label, arm=first.arm, cohort=words, runs=runs, states=own, is_stage=stage
            )
        )  # fmt: skip
    return entries


def board(
    sweep: Sweep, entries: Sequence[Entry], rows: Sequence[Row], protocol: str, split: str, *,
    floors: Mapping[str, Scored], say: Say,
) -> Board:  # fmt: skip
    """Every entry that has a score under ``protocol`` on ``split``; what does not read is said."""
    names = {file_name(protocol, split, seed) for seed in (None, common_seed(protocol))}
    # The longer name has the common pools; it is there where a run's own pools are others.
    of_run: dict[str, Row] = {}
    for row in sorted((r for r in rows if r["evaluation"] in names), key=lambda r: r["evaluation"]):
        of_run[row["run"]] = row
    lines = []
    for entry in entries:
        kept = [of_run[r.folder] for r in entry.runs if r.folder in of_run]
        kept = [r for r in kept if r["status"] == "trained" and r["current"] is not False]
        if kept:
            lines.append(_line(sweep, entry, kept, say))
    lines = _ranked(lines)
    paired = [_paired(line, lines, floors, say) for line in lines]
    paired.sort(key=lambda line: (line.entry.cohort, line.rank is None, line.rank, -line.S))
    return Board(protocol=protocol, split=split, lines=tuple(paired), floors=floors)


def interval_of(scored: Sequence[Scored]) -> tuple[tuple[float, float], str] | None:
    """95 % interval of the mean S of models that answered the same queries, and what it is of.

    As :mod:`trainer.retrieval.compare` does for differences: the doubt of seeds and that of
    recordings (of 10-s blocks, where these are few) add up. None of one model (its own record has the
    interval) and where queries differ.
    """
    if len(scored) < 2 or len({s.record["pool_hash"] for s in scored}) > 1:
        return None
    columns = scored[0].columns
    units = np.unique(columns["recording"], return_inverse=True)[1].astype(np.int64)
    kind = "recordings"
    if units.max(initial=-1) + 1 < LEAST_RECORDINGS:
        units, kind = units_of(columns["recording"], columns["start_s"])
    n, of_queries = int(units.max(initial=-1)) + 1, 0.0
    if n > 1:
        drawn = [resampled_means(s.hits("S"), units).min(axis=1) for s in scored]
        of_queries = t975(n - 1) * math.sqrt(n / (n - 1)) * float(np.std(np.mean(drawn, axis=0)))
    scores = np.array([s.score("S") for s in scored])
    of_seeds = t975(len(scores) - 1) * float(scores.std(ddof=1)) / math.sqrt(len(scores))
    half, middle = math.hypot(of_seeds, of_queries), float(scores.mean())
    return (max(0.0, middle - half), min(1.0, middle + half)), f"seeds, {kind}"


def _line(sweep: Sweep, entry: Entry, rows: Sequence[Row], say: Say) -> Line:
    scored, read = [], []
    for row in rows:
        file = Path(sweep.out) / row["run"] / EVALUATION / row["evaluation"]
        try:
            scored.append(read_scored(file, row["run"], row["seed"]))
            read.append(row)
        except RunError as error:
            say(f"{error}; it is left out of means, intervals and differences")
    rows = read or rows
    interval, kind = interval_of(scored) or (None, "")
    if len(rows) == 1 and rows[0]["ci_low"] is not None:
        interval, kind = (rows[0]["ci_low"], rows[0]["ci_high"]), rows[0]["ci_kind"] or ""
    return Line(
        entry=entry,
        rows=tuple(rows),
        scored=tuple(scored),
        interval=interval,
        interval_of=kind,
        verdict=Verdict("yes"),
    )


def _ranked(lines: Sequence[Line]) -> list[Line]:
    """With verdicts and ranks, cohort by cohort; ranks are among entries of the same seeds."""
    found = []
    for cohort in dict.fromkeys(line.entry.cohort for line in lines):
        own = [line for line in lines if line.entry.cohort == cohort]
        stages = {r["run"] for line in own if line.entry.is_stage for r in line.rows}
        told = iter(judge([row for line in own for row in line.rows], stages))
        worst = [max((next(told) for _ in line.rows), key=_badness) for line in own]
        pairs = list(zip(own, worst, strict=True))
        usual = usual_seeds([line.seeds for line, verdict in pairs if verdict.kind == "yes"])
        worst = [
            verdict.also(SEEDS) if verdict.kind == "yes" and line.seeds != usual else verdict
            for line, verdict in pairs
        ]
        fair = [line.S for line, verdict in zip(own, worst, strict=True) if verdict.kind == "yes"]
        for line, verdict in zip(own, worst, strict=True):
            rank = 1 + sum(S > line.S for S in fair) if verdict.kind == "yes" else None
            found.append(dataclasses.replace(line, verdict=verdict, rank=rank))
    return found


def _badness(verdict: Verdict) -> int:
    return ("yes", "caveats", "no").index(verdict.kind)


def _paired(line: Line, lines: Sequence[Line], floors: Mapping[str, Scored], say: Say) -> Line:
    if line.entry.leaks or not line.scored:
        return dataclasses.replace(line, alone="leaks" if line.entry.leaks else "does not read")
    against: dict[str, dict[str, Any]] = {}
    pairs: list[tuple[str, Sequence[Scored]]] = []
    reference, why = _reference(line, lines)
    if reference is not None:
        pairs.append((REFERENCE, reference.scored))
    pairs += [(name, [floor]) for name, floor in floors.items()]
    for name, first in pairs:
        try:
            against[name] = compare(first, line.scored)
        except RetrievalError as error:
            why = str(error) if name == REFERENCE else why
            say(f"{line.entry.label} is not compared with {name}: {error}")
    return dataclasses.replace(line, against=against, alone=why)


def _reference(line: Line, lines: Sequence[Line]) -> tuple[Line | None, str]:
    """The line of ``d0`` that differs in nothing but arm and seed; else what stands between."""
    if line.entry.arm == REFERENCE:
        return None, ""
    why = f"no finished {REFERENCE}"
    for other in sorted(lines, key=lambda other: other.entry.cohort != line.entry.cohort):
        if other.entry.arm != REFERENCE or not other.scored:
            continue
        verdict = max(
            (apart(a, b) for a in other.rows for b in line.rows if a["seed"] == b["seed"]),
            key=_badness,
            default=apart(other.rows[0], line.rows[0]),
        )
        if verdict.kind == "yes":
            return other, ""
        why = f"{REFERENCE} differs in more: {str(verdict).partition(': ')[2]}"
    return None, why
