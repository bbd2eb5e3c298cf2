"""Similarity of the two encoders' layers: linear CKA and RSA of every audio with every MIDI layer.

What a layer says of a segment is the mean of its output over tokens. The published numbers (method
§8.6) are confounded (§9.25): padding is averaged in, and how much of it there is depends on the batch
size, which differed between arms; the segments overlap and come from few recordings; and biased CKA of
500 items in 1024 dimensions is high whatever the representations are. The sound variant takes all of
that away and says what chance would give:

``permuted``
    rows of the MIDI side in random order: no segment stands beside its pair.
``permuted within recordings``
    the order is random inside every recording: what remains is which piece it is, not which moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trainer.analyses import pictures
from trainer.analyses.bench import Bench
from trainer.analyses.contract import (
    Analysis,
    Condition,
    Finding,
    Plain,
    Table,
    Variant,
    register,
)
from trainer.analyses.geometry import (
    Floats,
    Ints,
    Measure,
    biased_kernel,
    debiased_kernel,
    jackknife,
    likeness,
    permutation,
    ranked_dissimilarity,
)
from trainer.analyses.layers import Layers, layer_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER_SEGMENTS = 500
SEGMENTS, LEAST_SEGMENTS = 512, 32
BATCH_SIZE = 64  # of every run in the sound variant
PERMUTATIONS = 200
COLUMNS = 4  # of a picture
MEASURES: Mapping[Variant, Mapping[str, Measure]] = {
    "paper": {"CKA": biased_kernel, "RSA": ranked_dissimilarity},
    "sound": {"CKA": debiased_kernel, "RSA": ranked_dissimilarity},
}
ANYWHERE, WITHIN = "permuted", "permuted within recordings"
BASELINES = {ANYWHERE: pictures.COLOURS[5], WITHIN: pictures.COLOURS[1]}


@register
class Similarity(Analysis):
    """See the module."""

    name = "similarity"
    title = "Similarity of layers (CKA, RSA)"
    question = "How alike do the layers of the two encoders see the same segments?"
    variants: ClassVar[Mapping[Variant, str]] = {
        "paper": "First 500 segments in order, batches of the run's training batch size, means over "
        "all positions, padding included; biased linear CKA; RSA on 1 - cosine (§8.6). Padding "
        "depends on the batch size, and biased CKA is high for any 500 items in many dimensions "
        "(§9.25): compare runs of one batch size only.",
        "sound": "Valid segments that do not overlap, the same for all runs, means over tokens that "
        "are not padding; debiased linear CKA (may be negative); RSA; both beside what is left when "
        "the pairs are permuted, over everything or within recordings. Interval of the mean over all "
        "layer pairs: jackknife over recordings, wide rather than narrow where they are few.",
    }

    def settings(self, bench: Bench, variant: Variant) -> Plain:
        """Which segments, in what batches."""
        if variant == "paper":
            size = bench.run.config.budget.batch_size
            return {"segments": PAPER_SEGMENTS, "batch_size": size}
        return {"segments": SEGMENTS, "batch_size": BATCH_SIZE, "permutations": PERMUTATIONS}

    def measure(self, bench: Bench, variant: Variant, condition: Condition) -> Plain:
        """Per measure: a matrix audio × MIDI layers and, in ``sound``, its two baselines."""
        layers = cache(partial(_layers, bench, variant))

        def of_layers(function: Callable[..., Plain], *given: Any) -> Callable[[], Plain]:
            return lambda: function(layers(), *given)

        summary: Plain = {}
        for name, measure in MEASURES[variant].items():
            found = condition(name, of_layers(compared, measure, variant))
            summary[name] = {k: found[k] for k in ("mean", "last", "ci95") if k in found}
            if variant == "sound":
                for baseline in BASELINES:
                    summary[name][baseline] = condition(
                        f"{name} {baseline}", of_layers(permuted, measure, baseline)
                    )
        return summary

    def table(self, findings: Sequence[Finding], variant: Variant) -> Table:
        """One row a run and measure."""
        head = ["run", "measure", "mean of all pairs", "last with last"]
        if variant == "paper":
            head += ["padding"]
        else:
            head += ["from", "to"]
            head += [f"{baseline}{what}" for baseline in BASELINES for what in ("", ", 97.5 %")]
        rows: list[list[object]] = []
        for f in findings:
            for name in MEASURES[variant]:
                c = f.conditions[name]
                row = [f.label, name, c["mean"], c["last"]]
                if variant == "paper":
                    row += [c["padding"]]
                else:
                    row += c["ci95"] or [None, None]
                    for baseline in BASELINES:
                        row += [f.conditions[f"{name} {baseline}"][k] for k in ("mean", "q975")]
                rows.append(row)
        return Table(head=head, rows=rows)

    def draw(self, findings: Sequence[Finding], variant: Variant, figure: Figure) -> None:
        """Heat maps, a column for every run; below them the means, in ``sound`` beside chance."""
        names = list(MEASURES[variant])
        columns = min(COLUMNS, len(findings))
        rows = len(names) * math.ceil(len(findings) / columns)
        deep = max(len(f.conditions[names[0]]["matrix"]) for f in findings)
        heights = [rows * (1.0 + 0.36 * deep), 2.8]
        figure.set_layout_engine("constrained")
        figure.set_size_inches(max(6.4, 1.2 + 2.3 * columns), sum(heights), forward=False)
        parts: Any = figure.subfigures(2, 1, height_ratios=heights)
        maps, means = parts
        grid = maps.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)
        for i, finding in enumerate(findings):
            below, right = divmod(i, columns)
            for j, name in enumerate(names):
                _draw_map(grid[len(names) * below + j, right], finding, name, variant)
        for axes, name in zip(means.subplots(1, len(names)), names, strict=True):
            _draw_means(axes, findings, name, variant)
        handles = means.axes[0].get_legend_handles_labels()
        means.legend(*handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def compared(layers: Layers, measure: Measure, variant: Variant) -> Plain:
    """The matrix audio × MIDI layers, its mean, its last cell, and what it was measured on."""
    audio, midi = _matrices(layers, measure)
    matrix = likeness(audio, midi)
    found: Plain = {
        "matrix": matrix.tolist(),
        "mean": float(matrix.mean()),
        "last": float(matrix[-1, -1]),
        "segments": len(layers.recording),
        "recordings": len(np.unique(layers.recording)),
        "padding": layers.padding,
    }
    if variant == "sound":
        found["ci95"] = jackknife(
            lambda keep: _mean(*_matrices(layers, measure, keep)), layers.recording
        )["ci95"]
    return found


def permuted(layers: Layers, measure: Measure, baseline: str) -> Plain:
    """Mean and 97.5 % quantile, over permutations, of the mean over all layer pairs."""
    audio, midi = (np.mean(side, axis=0) for side in _matrices(layers, measure))
    groups = layers.recording if baseline == WITHIN else None
    drawn = []
    for draw in range(PERMUTATIONS):
        order = permutation(len(midi), draw, groups)
        drawn.append(float((audio * midi[np.ix_(order, order)]).sum()))
    return {"mean": float(np.mean(drawn)), "q975": float(np.quantile(drawn, 0.975))}


def _layers(bench: Bench, variant: Variant) -> Layers:
    if variant == "paper":
        first = np.arange(min(PAPER_SEGMENTS, len(bench.resident)))
        return layer_means(bench, first, bench.run.config.budget.batch_size, padding=True)
    positions = bench.apart(LEAST_SEGMENTS, SEGMENTS, "CKA")
    return layer_means(bench, positions, BATCH_SIZE, padding=False)


def _matrices(
    layers: Layers, measure: Measure, keep: Ints | slice = slice(None)
) -> tuple[list[Floats], list[Floats]]:
    return [measure(x[keep]) for x in layers.audio], [measure(x[keep]) for x in layers.midi]


def _mean(audio: list[Floats], midi: list[Floats]) -> float:
    """The mean over all pairs: that of sums of products is the sum of products of means."""
    return float((np.mean(audio, axis=0) * np.mean(midi, axis=0)).sum())


def _draw_map(axes: Axes, finding: Finding, name: str, variant: Variant) -> None:
    found = finding.conditions[name]
    axes.set_visible(True)
    matrix = np.array(found["matrix"])
    rows, columns = ([str(i + 1) for i in range(n)] for n in matrix.shape)
    pictures.matrix(axes, matrix, rows, columns)
    axes.set_xlabel("MIDI layer", fontsize=8)
    axes.set_ylabel("audio layer", fontsize=8)
    what = f"{found['padding']:.0%} padding" if variant == "paper" else f"mean {found['mean']:.2f}"
    axes.set_title(f"{finding.label}\n{name}, {what}", fontsize=8, loc="left")


def _draw_means(axes: Axes, findings: Sequence[Finding], name: str, variant: Variant) -> None:
    bars = {"mean of all layer pairs": pictures.COLOURS[0]}
    if variant == "sound":
        bars |= BASELINES
    width = 0.8 / len(bars)
    for i, (label, colour) in enumerate(bars.items()):
        at = np.arange(len(findings)) + (i - (len(bars) - 1) / 2) * width
        drawn = [_bar(f, name, label) for f in findings]
        axes.bar(at, [value for value, _ in drawn], 0.9 * width, color=colour, label=label)
        for x, (value, reach) in zip(at, drawn, strict=True):
            axes.plot([x] * len(reach), reach, color=pictures.INK, linewidth=1.2)
            if len(findings) <= COLUMNS:
                top = max(0.0, value, *reach) + 0.015
                axes.text(x, top, f"{value:z.2f}", ha="center", fontsize=7, color=pictures.INK)
    axes.axhline(0, color=pictures.INK, linewidth=0.6)
    axes.set_xticks(range(len(findings)), [f.label for f in findings], fontsize=8)
    if sum(len(f.label) for f in findings) > 30:
        axes.tick_params(axis="x", rotation=30)
    axes.set_ylim(top=1.08)
    axes.set_ylabel(name, fontsize=8)
    pictures.quiet(axes)


def _bar(finding: Finding, name: str, label: str) -> tuple[float, list[float]]:
    """A bar's height, and its whisker: the interval or, for chance, up to the 97.5 % quantile."""
    if label in BASELINES:
        found = finding.conditions[f"{name} {label}"]
        return found["mean"], [found["mean"], found["q975"]]
    found = finding.conditions[name]
    return found["mean"], list(found.get("ci95") or [])
