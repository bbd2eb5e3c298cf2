"""Causal ablation: what a trained model loses when a descriptor is replaced at its input.

Nothing is trained again. Every condition replaces the arrays of one descriptor (or of all descriptors
of a side, where there are several), embeds that side again, and is verified: the model read the
replaced arrays, every one of them changed somewhere, and nothing else did. In the sound variant what
stands in their place is what the condition says, segment by segment: zeros; noise wherever there are
notes; another recording's values, read from the store once more. A published version of this test
silently replaced nothing in some arms (method §9.24).

A control (:mod:`trainer.controls`) is not asked: its descriptors are replaced already.

``swap`` asks more than how much is lost. Two segments of different recordings exchange their
descriptors; ``follows`` is the share of queries whose embedding is then nearer to the partner's pair
than to its own. A model that hears the descriptor alone follows it always; one that does not use it,
never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.descriptors.contract import Side
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
from trainer.analyses.replacements import KINDS, Kind, partners, replacement
from trainer.analyses.subject import FloatArray
from trainer.analyses.verification import Verified
from trainer.scoring import comparison_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@register
class Ablation(Analysis):
    """See the module."""

    name = "ablation"
    title = "Causal ablation"
    version = 2  # 2: what replaces nothing is an error; intervals say their kind
    question = "What does a trained model lose when a descriptor is replaced at its input?"
    variants: ClassVar[Mapping[Variant, str]] = {
        "paper": "Zeros; white noise of one mean and σ for all dimensions; values exchanged "
        "within 16 neighbouring segments, most of them of the same recording. S in the paper's pools "
        "of seed 42 (§8.1).",
        "sound": "Zeros; noise that is like the descriptor, dimension by dimension and in its "
        "smoothness; values of another recording; values exchanged between two recordings. S in the "
        "strict pools; intervals of the difference to the unchanged model on the same queries.",
    }

    def measure(self, bench: Bench, variant: Variant, condition: Condition) -> Plain:
        """One condition per descriptor and kind of replacement."""
        control = bench.run.config.control.name
        if control != "real":
            raise AnalysisError(
                f"it is a control: its descriptors are replaced already ({control})",
                kind="inapplicable",
            )
        targets = ablation_targets(bench)
        if not targets:
            raise AnalysisError(
                f"the arm {bench.run.record['arm']} reads no descriptor when it embeds",
                kind="inapplicable",
            )
        baseline = condition("unchanged", lambda: bench.effect(bench.embeddings, variant))
        found: dict[str, Any] = {"S": baseline["S"]}
        for label, (side, arrays) in targets.items():
            for kind in KINDS[variant]:
                name = f"{label} {kind}"
                compute = partial(ablated, bench, side, arrays, kind, variant)
                found[name] = condition(name, compute)["S"]
        return found

    def table(self, findings: Sequence[Finding], variant: Variant) -> Table:
        """Runs × conditions: S, and the interval of its difference."""
        rows: list[list[object]] = []
        for finding in findings:
            for name, c in finding.conditions.items():
                low, high = c["ci95"] or (None, None)
                changed = name != "unchanged"
                rows.append(
                    [
                        finding.label,
                        name,
                        c["S"],
                        c["a2m"]["R@1"],
                        c["m2a"]["R@1"],
                        c["difference"] if changed else None,
                        low if changed else None,
                        high if changed else None,
                        c["ci_kind"] if changed else None,
                        c["verified"]["replaced"] if changed else None,
                        c.get("follows"),
                        max(c["moved"].values()) if changed else None,
                    ]
                )
        head = (
            "run, condition, S, R@1 a→m, R@1 m→a, ΔS, from, to, drawn, replaced, follows, "
            "embedding moved"
        )
        return Table(head=head.split(", "), rows=rows)

    def draw(self, findings: Sequence[Finding], variant: Variant, figure: Figure) -> None:
        """Bars of S, one group per run."""
        pictures.grouped_bars(
            figure,
            {
                f.label: {name: (c["S"], _around(c)) for name, c in f.conditions.items()}
                for f in findings
            },
            pictures.with_doubt("S", findings),
        )


def _around(c: Mapping[str, Any]) -> tuple[float, float] | None:
    """The interval of S that follows from that of the difference."""
    if c["ci95"] is None:
        return None
    before = c["S"] - c["difference"]
    return before + c["ci95"][0], before + c["ci95"][1]


def ablation_targets(bench: Bench) -> dict[str, tuple[Side, tuple[str, ...]]]:
    """What can be replaced: label → side and arrays.

    All arrays by which a descriptor reaches a side are replaced together, however many mechanisms take
    it; a side's descriptors also together, where there are several.
    """
    arrays: dict[tuple[str, Side], dict[str, None]] = {}
    by_side: dict[Side, dict[str, None]] = {"audio": {}, "midi": {}}
    for mechanism in bench.model.every_mechanism():
        if mechanism.embeds:
            place = (mechanism.descriptor.name, mechanism.host.side)
            read = dict.fromkeys(mechanism.reads())
            arrays[place] = arrays.get(place, {}) | read
            by_side[place[1]] |= read
    names = [name for name, _ in arrays]
    found: dict[str, tuple[Side, tuple[str, ...]]] = {}
    for (name, side), own in arrays.items():
        label = name if names.count(name) == 1 else f"{name} on {side}"
        found[label] = (side, tuple(own))
    for side, every in by_side.items():
        if sum(own == side for _, own in arrays) > 1:
            found[f"all of {side}"] = (side, tuple(every))
    return found


def ablated(bench: Bench, side: Side, arrays: Sequence[str], kind: Kind, variant: Variant) -> Plain:
    """Scores with some arrays replaced, and what was verified."""
    change = Verified(bench, replacement(bench, arrays, kind, variant), arrays, kind, variant)
    embeddings = bench.changed(side, change)
    found = bench.effect(embeddings, variant)
    found["verified"] = change.summary()
    if kind == "swap":
        found["follows"] = follows(bench, side, embeddings)
    return found


def follows(bench: Bench, side: Side, embeddings: Mapping[Side, FloatArray]) -> float:
    """Share of valid segments whose changed embedding is nearer to their partner's pair."""
    other: Side = "midi" if side == "audio" else "audio"
    partner = partners(bench)
    valid = (
        bench.gallery.valid & bench.gallery.valid[partner] & (partner != np.arange(len(partner)))
    )
    likeness = comparison_of(bench.run.config).of(embeddings[side], bench.embeddings[other])
    each = np.arange(len(partner))
    own, theirs = likeness.pairs(each, each), likeness.pairs(each, partner)
    return float(np.mean((theirs > own)[valid]))
