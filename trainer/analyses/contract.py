"""What an analysis is: a question to a trained model, asked the published way and a sound way.

An analysis measures one run at a time and compares afterwards: :meth:`Analysis.measure` returns plain
data for one run, :meth:`Analysis.table` and :meth:`Analysis.draw` lay the findings of several runs
side by side. Measurements are made of *conditions* (one perturbation, one layer, one probe), each
written as soon as it is known, so that a stopped analysis goes on with the next one.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.base.registry import Registry
from trainer.analyses.bench import Bench
from trainer.analyses.errors import AnalysisError, Plain, Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Condition = Callable[[str, Callable[[], Plain]], Plain]

__all__ = [
    "ANALYSES", "Analysis", "AnalysisError", "Condition", "Finding", "Plain", "Table", "Variant",
    "register",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one analysis found of one run.

    Attributes
    ----------
    label : of the run, for tables and pictures
    arm, seed : of the run; a floor has no seed
    conditions : by name, in the order in which they were measured
    summary : what the conditions come to together
    """

    label: str
    arm: str
    seed: int | None
    conditions: Mapping[str, Any]
    summary: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Columns and rows; numbers stay numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]


class Analysis(abc.ABC):
    """Base of all analyses.

    Attributes
    ----------
    name, title : for the command line, and for people
    question : one sentence
    variants : what each variant does, in a sentence or two; the order in which they are shown
    version : of the definitions; what was measured by another one is measured again
    of_floors : whether a training-free floor can be asked, too: ``measure`` and ``settings`` then
        take a :class:`trainer.analyses.floor_bench.FloorBench` as they take a run's
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    variants: ClassVar[Mapping[Variant, str]]
    version: ClassVar[int] = 1
    of_floors: ClassVar[bool] = False

    def settings(self, bench: Bench, variant: Variant) -> Plain:
        """What else the numbers depend on, besides the model, the store, the split and the version."""
        return {}

    @abc.abstractmethod
    def measure(self, bench: Bench, variant: Variant, condition: Condition) -> Plain:
        """The summary of one run.

        Parameters
        ----------
        bench : the run's model, data, embeddings and scores
        condition : ``condition(name, compute)`` returns what ``compute()`` returns, or what it
            returned before; the result is on the disk when the call returns

        Raises
        ------
        AnalysisError
            when the run cannot be asked.
        """

    @abc.abstractmethod
    def table(self, findings: Sequence[Finding], variant: Variant) -> Table:
        """The findings of several runs side by side."""

    @abc.abstractmethod
    def draw(self, findings: Sequence[Finding], variant: Variant, figure: Figure) -> None:
        """The same as a picture, on an empty figure."""


ANALYSES: Registry[Analysis] = Registry("analysis", entry_point="xmodal.analyses")


def register(kind: type[Analysis]) -> type[Analysis]:
    """Class decorator: one instance joins the registry."""
    ANALYSES.add(kind.name, kind())
    return kind
