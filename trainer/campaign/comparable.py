"""May two numbers stand in one row? What rows of the ledger must share before they do.

=========  =========================================================================================
verdict    means
=========  =========================================================================================
yes        same questions, same data, same budget, same chances to be best: only the arm differs
caveats    same questions and data, but another budget, beginning, size, schedule …: the fields are
           named. A difference between such rows is not one of arms alone, and none is computed.
no         other questions (protocol, split, segments, pools), other data under the same name, or no
           score to compare: unfinished, of former weights, or leaking
=========  =========================================================================================

A stage that others start from is no arm: it is left out of ranks, and of what most rows have in
common. The reference's tables break these rules in both directions: arms that were scored at five
epochs stand beside arms that were scored at two, and checkpoints of 5, 30 and 60 epochs beside each
other.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from trainer.layout import FINISHED

Row = Mapping[str, Any]
Kind = Literal["yes", "caveats", "no"]

QUESTIONS = ("protocol", "split", "store_identity", "pool_hash")
BUDGET = (
    "updates", "batch_size", "evaluations", "evaluated", "init", "size", "preset", "precision",
    "frontend", "loss", "schedule", "freeze",
)  # fmt: skip
STAGE, SEEDS = "stage", "seeds"  # what stands between entries, each of several rows
REST = "setting"  # everything but descriptors and seed, as one hash
WORDS = {
    "store_identity": "segments",
    "pool_hash": "pools",
    "evaluations": "number of evaluations",
    "evaluated": "evaluated epochs",
    "init": "beginning",
    "frontend": "front end",
    "batch_size": "batch size",
    "setting": "other settings",
    STAGE: "a stage others start from",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Of one row against others; ``fields``: what it differs in, or what is wrong with it."""

    kind: Kind
    fields: tuple[str, ...] = ()

    def also(self, field: str) -> Verdict:
        """The same with one caveat more, which is named first."""
        kind: Kind = "caveats" if self.kind == "yes" else self.kind
        return Verdict(kind, (field, *self.fields))

    def __str__(self) -> str:
        if self.kind == "yes":
            return "comparable"  # a word that no other verdict has: tables are filtered by words
        named = ", ".join(WORDS.get(f, f) for f in self.fields)
        return f"caveats: {named}" if self.kind == "caveats" else f"set apart: {named}"


def judge(rows: Sequence[Row], stages: Collection[str] = ()) -> list[Verdict]:
    """Of every row of the ledger, against what most of them have in common (of equals, the first).

    ``stages``: folders of runs that others start from; they decide only where there is nothing else.
    """
    fair = [row for row in rows if not _faults(row)]
    fair = [row for row in fair if row["run"] not in stages] or fair
    usual = {
        field: _commonest([row[field] for row in fair]) for field in (*QUESTIONS, *BUDGET, REST)
    }
    arrays: dict[str, list[str]] = {}
    for row in fair:
        for name, fingerprint in _arrays(row).items():
            arrays.setdefault(name, []).append(fingerprint)
    common = {name: _commonest(found) for name, found in arrays.items()}
    told = [_against(row, usual, common) for row in rows]
    return [v.also(STAGE) if row["run"] in stages else v for row, v in zip(rows, told, strict=True)]


def usual_seeds(found: Sequence[frozenset[int]]) -> frozenset[int]:
    """The seeds that most entries have; of equals, the most seeds, and then the first."""
    counted = Counter(found)
    return max(counted, key=lambda seeds: (counted[seeds], len(seeds)), default=frozenset())


def apart(first: Row, second: Row) -> Verdict:
    """Of two rows of the ledger: what stands between them besides arm, control and seed."""
    faults = _faults(first) or _faults(second)
    return Verdict("no", faults) if faults else _against(second, first, _arrays(first))


def _against(row: Row, usual: Row, arrays: Mapping[str, str]) -> Verdict:
    wrong = [*_faults(row), *(f for f in QUESTIONS if row[f] != usual[f])]
    # Arrays of its own are what makes an arm; one that others have, too, must be the same array.
    wrong += [f"array {n}" for n, v in _arrays(row).items() if arrays.get(n, v) != v]
    if wrong:
        return Verdict("no", tuple(wrong))
    other = tuple(f for f in BUDGET if row[f] != usual[f])
    if not other and row[REST] != usual[REST]:
        other = (REST,)
    return Verdict("caveats", other) if other else Verdict("yes")


def _faults(row: Row) -> tuple[str, ...]:
    found = []
    if row["status"] != FINISHED:
        found.append(f"training is {row['status']}")
    if row["S"] is None:
        found.append("not scored")
    if row["current"] is False:
        found.append("scored with former weights")
    if row["leaks"]:
        found.append("leaks")
    return tuple(found)


def _arrays(row: Row) -> dict[str, str]:
    return {read["array"]: read["fingerprint"] for read in row["reads"]}


def _commonest(values: Sequence[Any]) -> Any:
    return Counter(values).most_common(1)[0][0] if values else None
