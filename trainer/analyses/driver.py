"""From runs to findings: measured condition by condition, kept beside the run, drawn side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.base.config import digest
from pipeline.base.errors import MissingExtra
from pipeline.base.files import FolderLock, atomic_write, read_json, write_json
from trainer.analyses.bench import Bench
from trainer.analyses.contract import (
    Analysis,
    AnalysisError,
    Finding,
    Plain,
    Variant,
)
from trainer.analyses.subject import Subject
from trainer.retrieval.gallery import RetrievalError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One analysis in one variant over several runs.

    Attributes
    ----------
    findings : of the runs that could be asked
    refused : run label → why not, for the others
    """

    analysis: Analysis
    variant: Variant
    findings: list[Finding]
    refused: dict[str, str]

    @property
    def name(self) -> str:
        """Of its files: ``ablation-sound``."""
        return f"{self.analysis.name}-{self.variant}"

    def plain(self) -> Plain:
        """For JSON."""
        return {
            "analysis": self.analysis.name,
            "variant": self.variant,
            "findings": [dataclasses.asdict(f) for f in self.findings],
            "refused": self.refused,
        }


def analyze(
    analyses: Sequence[Analysis],
    subjects: Sequence[Subject],
    variants: Sequence[Variant],
    report: Report = lambda text: None,
    update: Callable[[float, str], None] = lambda done, note: None,
) -> list[Outcome]:
    """Measure every run in every variant; conditions that were measured before are read.

    A run that cannot be asked does not keep others from being asked. Run by run, so that one model and
    one split's data are in memory at a time. Floors are asked what can be asked of them, by those
    analyses that can, if what they need is installed.

    Parameters
    ----------
    update : told how many analyses of runs are done
    """
    outcomes = {
        (analysis.name, variant): Outcome(
            analysis=analysis, variant=variant, findings=[], refused={}
        )
        for analysis in analyses
        for variant in variants
        if variant in analysis.variants
    }
    done = 0
    for subject, label in zip(subjects, labels(subjects), strict=True):
        is_floor = not isinstance(subject, Bench)
        refusals: tuple[type[Exception], ...] = (AnalysisError, RetrievalError)
        if is_floor:  # without which the runs are asked all the same
            refusals += (MissingExtra,)
        for analysis in analyses:
            update(done, f"{label}: {analysis.name}")
            for variant in variants:
                if (analysis.name, variant) not in outcomes:
                    continue
                if is_floor and not analysis.of_floors:
                    continue
                outcome = outcomes[analysis.name, variant]
                try:
                    finding = _measure(analysis, subject, variant, label, report)
                    outcome.findings.append(finding)
                except refusals as error:
                    outcome.refused[label] = str(error)
                    report(f"{label}: {error}")
            done += 1
        subject.release()
    update(done, "")
    return list(outcomes.values())


def _measure(
    analysis: Analysis, subject: Subject, variant: Variant, label: str, report: Report
) -> Finding:
    bench = cast(Bench, subject)  # or a floor, where the analysis is of floors, too
    file = bench.folder / f"{analysis.name}-{variant}.json"
    settings = {
        "bench": bench.key,
        "analysis": analysis.name,
        "version": analysis.version,
        "variant": variant,
        "settings": analysis.settings(bench, variant),
    }
    record: Plain = {
        "key": digest(settings),
        "analysis": analysis.name,
        "variant": variant,
        **bench.about(),
        "split": bench.split,
        "store": bench.store.name,
        "complete": False,
        "conditions": {},
    }
    # A floor is everybody's: what somebody else is measuring of it is waited for, and read.
    patience_s = 0.0 if isinstance(subject, Bench) else math.inf
    with FolderLock(bench.folder, patience_s=patience_s):
        kept = _kept(file, record["key"])
        measured: dict[str, Any] = record["conditions"]

        def condition(name: str, compute: Callable[[], Plain]) -> Plain:
            if name in kept:
                measured[name] = kept[name]
            else:
                report(f"{label}: {analysis.name} ({variant}), {name}")
                measured[name] = compute()
                # Those that a stopped run had measured beyond this one are not forgotten.
                write_json(file, {**record, "conditions": {**kept, **measured}})
            return dict(measured[name])

        summary = analysis.measure(bench, variant, condition)
        write_json(file, {**record, "summary": summary, "complete": True})
    return Finding(
        label=label,
        arm=record["arm"],
        seed=record["seed"],
        conditions=measured,
        summary=summary,
    )


def _kept(file: Path, key: str) -> dict[str, Any]:
    """Conditions that were measured before, under the same key."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = read_json(file)
        if record["key"] == key:
            found = dict(record["conditions"])
            return {name: c for name, c in found.items() if isinstance(c, dict)}
    return {}


def labels(subjects: Sequence[Subject]) -> list[str]:
    """Short names: the arm, the seed where arms repeat, the signature where those do too.

    An arm whose embeddings know the item that they are asked to find says so.
    """
    about = [subject.about() for subject in subjects]
    short = [str(a["arm"]) + (" (leaks)" if a["leaks"] else "") for a in about]
    signatures = [s.run.signature if isinstance(s, Bench) else "" for s in subjects]
    for details in (
        [f" seed {a['seed']}" for a in about],
        [f" {signature[:4]}" for signature in signatures],
    ):
        twice = {name for name in short if short.count(name) > 1}
        short = [
            name + detail if name in twice else name
            for name, detail in zip(short, details, strict=True)
        ]
    return short


def draw(outcome: Outcome, folder: Path) -> Path | None:
    """The picture of an outcome, ``<analysis>-<variant>.png``; None where nothing was found."""
    if not outcome.findings:
        return None
    path = folder / f"{outcome.name}.png"
    save_figure(partial(outcome.analysis.draw, outcome.findings, outcome.variant), path)
    return path


def require_pictures() -> None:
    """Refuse, before anything is measured, to go on without Matplotlib.

    Raises
    ------
    MissingExtra
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtra("matplotlib", "analysis") from None


def save_figure(paint: Callable[[Figure], None], path: Path) -> None:
    """A picture of what ``paint`` draws on an empty figure."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9, "axes.titlesize": 9, "axes.titlelocation": "left"}):
        figure = Figure(layout="constrained")
        paint(figure)
        with atomic_write(path) as handle:
            # No version in the file: the same numbers give the same bytes.
            figure.savefig(handle, dpi=150, format="png", metadata={"Software": None})
