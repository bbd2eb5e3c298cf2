"""What the paper and its repository recorded, as data: ``data_manifests/recorded/*.toml``.

These figures are quoted, not measured here: each file says where they stand, under which conditions
they were obtained, and where sources disagree. Fractions 0–1, as everywhere.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from statistics import fmean

from pipeline.base.config import from_plain, load_toml
from pipeline.base.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[2] / "data_manifests" / "recorded"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordedRow:
    """One figure, or one run's.

    Attributes
    ----------
    arm : as this project calls it, controls included (``d4a4-zero``)
    S, a2m, m2a : recall@10, the smaller of both directions and each
    epoch : at which S was best
    seed, schedule, epochs : what distinguishes the row, where it matters
    curve : (epoch, S) pairs
    note : where sources disagree
    leaks : whether it is no retrieval score
    unranked : why it is ranked with nothing, besides
    """

    arm: str
    S: float
    a2m: float | None = None
    m2a: float | None = None
    hard_neg: float | None = None
    epoch: int | None = None
    seed: int | None = None
    schedule: str | None = None
    epochs: int | None = None
    curve: tuple[tuple[float, ...], ...] = ()
    note: str = ""
    leaks: bool = False
    unranked: str = ""

    @property
    def shown(self) -> str:
        """The label, and what a reader must know at once."""
        return f"{self.label} (leaks)" if self.leaks else self.label

    @property
    def remark(self) -> str | None:
        """Where sources disagree, and why it has no rank."""
        return "; ".join(text for text in (self.note, self.unranked) if text) or None

    @property
    def label(self) -> str:
        """The arm, and what distinguishes the row from others of it."""
        over = f"{self.epochs} epochs" if self.epochs else None
        return ", ".join(str(x) for x in (self.arm, self.schedule, over) if x)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """One table of the paper or its repository.

    ``epochs``, ``seeds``: of all rows, where they are the same; ``batches_per_epoch``: where known.
    """

    title: str
    source: str
    protocol: str
    split: str
    corpus: str
    note: str
    rows: tuple[RecordedRow, ...]
    epochs: int | None = None
    seeds: tuple[int, ...] = ()
    batches_per_epoch: int | None = None

    def epochs_of(self, row: RecordedRow) -> int | None:
        """How many a row was trained for."""
        return row.epochs or self.epochs

    def updates_of(self, row: RecordedRow) -> int | None:
        """How many updates that is."""
        epochs, each = self.epochs_of(row), self.batches_per_epoch
        return None if epochs is None or each is None else epochs * each

    def ranks(self) -> dict[str, int | None]:
        """By label: rank of the mean S among lines of one schedule, number of epochs and set of seeds.

        Equal scores have equal ranks. None for what leaks, what has nothing of its own budget beside
        it, and what its row says why it is not ranked.
        """
        lines = self.lines()
        alike: dict[tuple[object, ...], dict[str, float]] = {}
        for label, rows in lines.items():
            if not any(row.leaks or row.unranked for row in rows):
                seeds = frozenset(row.seed for row in rows)
                budget = (rows[0].schedule, self.epochs_of(rows[0]), seeds)
                alike.setdefault(budget, {})[label] = round(fmean(row.S for row in rows), 6)
        found: dict[str, int | None] = dict.fromkeys(lines)
        for scores in alike.values():
            for label, S in scores.items() if len(scores) > 1 else ():
                found[label] = 1 + sum(other > S for other in scores.values())
        return found

    def lines(self) -> dict[str, tuple[RecordedRow, ...]]:
        """Rows that differ only in their seed, by label."""
        found: dict[str, tuple[RecordedRow, ...]] = {}
        for row in self.rows:
            found[row.label] = (*found.get(row.label, ()), row)
        return found


def known_recorded() -> dict[str, Path]:
    """Name → file."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.toml"))}


def read_recorded(name: str) -> Recorded:
    """Recorded results by name, which is what a campaign's ``reference`` gives.

    Raises
    ------
    ConfigError
        when there are none, or the file says what cannot be.
    """
    known = known_recorded()
    if name not in known:
        raise ConfigError(
            f"there are no recorded results '{name}': give one of {', '.join(known) or 'none'}"
        )
    return from_plain(Recorded, load_toml(known[name]), str(known[name]))
