"""A planned campaign: its runs, each with its configuration, signature, folder and order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

CAMPAIGNS, PLAN_FILE = "campaigns", "plan.json"
LAUNCHED, SUBMITTED, LOGS = "launched", "submitted", "logs"
"""In the folder of a campaign: copies of the plan that tasks work by, and what tasks said."""
SCHEMA = 1
OWN_SCORES = tuple(f"{p}-{s}" for s in ("validation", "test") for p in ("paper", "strict"))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """One run of a campaign.

    Attributes
    ----------
    index : place in the plan; one that is started from comes before
    group, label : which group, and what people read: arm, what varies, the group where others of this
        name are in another, seed
    arm, seed, settings : what distinguishes it; ``settings`` are dotted
    signature, folder : of the run; the folder's name, below the campaign's ``out``
    after : index of the run that it starts from
    config : resolved, as plain data
    reads, missing : arrays; those that the store does not have yet
    updates, batch_size, evaluations, trainable : what it costs is counted from these
    scores : names of the evaluations that it has when it is done
    leaks : whether its scores are no retrieval scores
    """

    index: int
    group: str
    label: str
    arm: str
    seed: int
    settings: dict[str, Any]
    signature: str
    folder: str
    after: int | None
    config: dict[str, Any]
    reads: tuple[str, ...]
    missing: tuple[str, ...]
    updates: int
    batch_size: int
    evaluations: int
    scores: tuple[str, ...] = OWN_SCORES
    parameters: int
    trainable: int
    leaks: bool

    @property
    def name(self) -> str:
        """The label without the seed: runs of one name and group are seeds of one another."""
        return self.label.removesuffix(f", seed {self.seed}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A combination of a grid that cannot be, and why."""

    what: str
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A planned campaign.

    Attributes
    ----------
    name, title, summary, reference, manifest : the campaign's; ``manifest`` is its file
    key : changes with manifest, store and code
    store, store_name : its folder, and what it is called
    out : folder of run folders
    """

    schema: int = SCHEMA
    key: str
    name: str
    title: str
    summary: str
    reference: str | None
    manifest: str = ""
    store: str
    store_name: str
    out: str
    runs: tuple[PlannedRun, ...]
    skipped: tuple[Skipped, ...]

    @property
    def folder(self) -> Path:
        """Where what belongs to the campaign, and to no run, is kept."""
        return Path(self.out) / CAMPAIGNS / f"{self.name}-{self.store_name}"

    def path(self, run: PlannedRun) -> Path:
        """The folder of one of its runs."""
        return Path(self.out) / run.folder

    @property
    def missing(self) -> list[str]:
        """Arrays that some run reads and the store does not have yet."""
        return sorted({name for run in self.runs for name in run.missing})
