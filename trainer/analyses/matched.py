"""Parameter-matched control: the descriptor, or the parameters that came with it.

The same architecture is trained again, with the same seed and budget, its descriptors replaced in
training and evaluation (:mod:`trainer.controls`); what the real descriptor is worth is the
difference. One seed shows one training: give runs of several seeds, and let ``xmodal-compare`` say
what may be said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.base.console import program
from pipeline.base.errors import ConfigError, RunError, StoreError
from pipeline.base.files import read_json
from trainer.analyses import pictures
from trainer.analyses.bench import Bench
from trainer.analyses.contract import (
    Analysis,
    AnalysisError,
    Condition,
    Finding,
    Plain,
    Table,
    Variant,
    register,
)
from trainer.config import Choice
from trainer.layout import RUN_FILE
from trainer.plan import Plan, RunRequest, plan_run
from trainer.run import Run, open_run
from trainer.scoring import own_store, reads_same, selection_score
from trainer.training import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTROLS: Mapping[Variant, Mapping[str, Mapping[str, Any]]] = {
    "paper": {"zero": {}, "random": {"rows": 800}, "shuffled": {"within": "batch"}},
    "sound": {"zero": {}, "random": {"rows": 0}, "shuffled": {"within": "split"}},
}


@register
class Matched(Analysis):
    """See the module."""

    name = "matched"
    title = "Parameter-matched control"
    version = 2  # 2: intervals say their kind
    question = "Is it the descriptor that helps, or the parameters that came with it?"
    variants: ClassVar[Mapping[Variant, str]] = {
        "paper": "Trained with zeros, with noise of the mean and σ of the first 800 segments, and "
        "with values exchanged within each batch. S in the paper's pools of seed 42 (§8.2).",
        "sound": "Trained with zeros, with noise of the whole training split's mean and σ, and with "
        "values of other recordings. S in the strict pools; intervals of the difference on the same "
        "queries.",
    }

    def settings(self, bench: Bench, variant: Variant) -> Plain:
        """The controls' weights: one that was trained again is measured again."""
        return {
            name: read_json(folder / RUN_FILE).get("model_sha256")
            for name, folder in _folders(bench, variant).items()
            if (folder / RUN_FILE).exists()
        }

    def measure(self, bench: Bench, variant: Variant, condition: Condition) -> Plain:
        """The real run, and its controls."""
        if not bench.run.config.pairs:
            raise AnalysisError("an arm without descriptors needs no control", kind="inapplicable")
        if bench.run.config.control.name != "real":
            raise AnalysisError("it is a control itself", kind="inapplicable")
        plans = {
            name: control_plan(bench, Choice(name=name, options=dict(options)))
            for name, options in CONTROLS[variant].items()
        }
        runs = {name: _trained(bench, plan) for name, plan in plans.items()}
        real = condition("real", lambda: bench.effect(bench.embeddings, variant))
        found: Plain = {"real": real["S"]}
        for name, run in runs.items():
            found[name] = condition(name, partial(_beside, bench, run, variant))["S"]
        return found

    def table(self, findings: Sequence[Finding], variant: Variant) -> Table:
        """Runs × controls."""
        rows: list[list[object]] = []
        for finding in findings:
            for name, c in finding.conditions.items():
                low, high = c["ci95"] or (None, None)
                apart: list[object] = [None] * 4
                if name != "real":
                    apart = [c["difference"], low, high, c["ci_kind"]]
                rows.append([finding.label, finding.seed, name, c["S"], c["a2m"]["R@1"], *apart])
        head = "run, seed, descriptor, S, R@1 a→m, control − real, from, to, drawn"
        return Table(head=head.split(", "), rows=rows)

    def draw(self, findings: Sequence[Finding], variant: Variant, figure: Figure) -> None:
        """Bars of S."""
        pictures.grouped_bars(
            figure,
            {
                f"{f.label} (seed {f.seed})": {n: (c["S"], None) for n, c in f.conditions.items()}
                for f in findings
            },
            "S",
        )


def _folders(bench: Bench, variant: Variant) -> dict[str, Path]:
    """Where the controls of a run are, or would be; none where the run can have none."""
    if not bench.run.config.pairs or bench.run.config.control.name != "real":
        return {}
    return {
        name: control_plan(bench, Choice(name=name, options=dict(options))).folder
        for name, options in CONTROLS[variant].items()
    }


def control_plan(bench: Bench, control: Choice) -> Plan:
    """The training of a run's control: everything else is the run's own, its store too.

    Raises
    ------
    AnalysisError
        (kind ``inapplicable``) when that store, or the run that it started from, is not there.
    """
    run = bench.run
    init = run.record.get("init")
    try:
        store = bench.store if reads_same(run, bench.store) else own_store(run)
        request = RunRequest(
            config=dataclasses.replace(run.config, control=control),
            store=store.path,
            out=run.path.parent,
            device=bench.device.type,
            init=None if init is None else Path(init),
        )
        return plan_run(request)
    except (ConfigError, RunError, StoreError) as error:
        raise AnalysisError(f"no control can be planned: {error}", kind="inapplicable") from None


def _trained(bench: Bench, plan: Plan) -> Run:
    """The control's run; trained now if the bench may."""
    if (plan.folder / RUN_FILE).exists():
        run = open_run(plan.folder)
        if run.finished and run.whole:
            return run
    if not bench.trains:
        raise AnalysisError(
            f"the control {plan.arm} of {bench.run.path.name} is not trained; to train it: "
            f"{program('xmodal-analyze')} matched {bench.run.path}",
            kind="inapplicable",
        )
    bench.report(f"training {plan.folder.name} ({plan.config.budget.updates} updates)")

    def report(event: Mapping[str, Any]) -> None:
        if event["event"] == "evaluation":
            bench.report(f"{plan.folder.name}: epoch {event['epoch']}, S {event['S']:.3f}")

    return train(plan, selection_score(plan.store, plan.config), report)


def _beside(bench: Bench, run: Run, variant: Variant) -> Plain:
    """Scores of a control, and how far it is from the real run's on the same queries."""
    control = Bench(run, bench.store, bench.split, bench.device, bench.report)
    found = bench.beside(control.baseline(variant), bench.baseline(variant))
    return {"run": run.path.name, **found}
