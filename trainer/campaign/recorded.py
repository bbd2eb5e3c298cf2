"""What the paper and its repository recorded, as data: ``data_manifests/recorded/*.toml``.

These figures are quoted, not measured here: each file says where they stand, under which conditions
they were obtained, and where sources disagree. Fractions 0–1, as everywhere.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

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

    @property
    def label(self) -> str:
        """The arm, and what distinguishes the row from others of it."""
        over = f"{self.epochs} epochs" if self.epochs else None
        return ", ".join(str(x) for x in (self.arm, self.schedule, over) if x)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """One table of the paper or its repository.

    ``epochs``, ``seeds``: of all rows, where they are the same.
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
