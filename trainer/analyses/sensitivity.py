"""Sensitivity: how far an embedding moves when one dimension of a descriptor moves.

For every array that a side's mechanisms read when they embed. Nothing is trained again; the arrays are
changed in the batch, in front of the mechanism, and that the model read them is verified.

``paper`` (method §8.7)
    ``s_k = mean ‖z(d + 0.1 e_k) - z(d)‖₂`` of embeddings that are not normalised, the constant added
    at all frames or notes, padding included. The reference adds it to concatenated descriptors after
    they were brought to the tokens' rate; linear interpolation of a constant is that constant, so it
    is the same. Beside it the Pearson correlation of a segment's time mean with every coordinate of
    its embedding. 0.1 is much of one descriptor and little of another, and no A4 that a model was
    trained on has a time mean other than 0 (§9.27).
``sound``
    ``(‖ẑ(d + σ_k p e_k) - ẑ(d)‖₂ + ‖ẑ(d - σ_k p e_k) - ẑ(d)‖₂) / 2`` of embeddings of length 1,
    ``σ_k`` the dimension's own standard deviation over the valid segments of the split. The pattern
    ``p`` over time is 1 where segments differ in their means. Where every segment's mean is 0
    by construction (less than 0.01 σ_k; found from the data), it stays so: ``p`` is then what the
    dimension does in a segment of another recording, with mean 0 and variance 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.descriptors import DESCRIPTORS
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
from trainer.analyses.shifts import (
    Floats,
    Ints,
    Patterns,
    Reading,
    embedded,
    readings,
    spread,
    with_added,
)
from trainer.analyses.subject import normalised
from trainer.batch import Batch
from trainer.embed import EMBEDDINGS, over_batches
from trainer.mechanisms.align import mean_over_time
from trainer.retrieval.intervals import bootstrap, units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER_STEP = 0.1
PAPER_BATCHES, PAPER_CORRELATED = 20, 30
SEGMENTS, LEAST_SEGMENTS = 512, 16
BATCH_SIZE = 64  # of every run in the sound variant
ALL = "all at once"
PATTERNS = {False: "constant", True: "zero-mean"}
LABELLED = 40  # dimensions that a picture has room to name


@register
class Sensitivity(Analysis):
    """See the module."""

    name = "sensitivity"
    title = "Sensitivity to descriptor dimensions"
    version = 2  # 2: intervals say their kind
    question = "How far does an embedding move when one dimension of a descriptor moves?"
    variants: ClassVar[Mapping[Variant, str]] = {
        "paper": "0.1 added to one dimension everywhere, one-sided, whatever its scale; Euclidean "
        "distance of embeddings that are not normalised; first 20 batches of the run's training "
        "batch size (§8.7). Scales of descriptors and of embeddings differ, so neither descriptors "
        "nor runs can be compared (§9.27). Mean and largest |r|: Pearson correlation of time means "
        "with embedding coordinates on 30 batches; the time mean of A4 is 0 by construction, so its "
        "correlations are those of rounding noise.",
        "sound": "One dimension moved by + and by - one standard deviation; mean distance between "
        "embeddings of length 1; valid segments that do not overlap, the same for all runs. A "
        "dimension whose time mean is 0 by construction keeps it: it is moved as it moves in another "
        "recording. Share: of the sum over the descriptor's dimensions.",
    }

    def settings(self, bench: Bench, variant: Variant) -> Plain:
        """Which segments, and in what batches."""
        if variant == "paper":
            size = bench.run.config.budget.batch_size
            return {
                "step": PAPER_STEP,
                "batches": [PAPER_BATCHES, PAPER_CORRELATED],
                "batch_size": size,
            }
        return {"segments": SEGMENTS, "batch_size": BATCH_SIZE}

    def measure(self, bench: Bench, variant: Variant, condition: Condition) -> Plain:
        """One condition per dimension of what each side's mechanisms read."""
        conditions = _paper if variant == "paper" else _sound
        summary: Plain = {}
        for reading in readings(bench):
            effects: dict[str, float] = {}
            for label, compute in conditions(bench, reading):
                effects[label] = condition(f"{reading.name}: {label}", compute)["effect"]
            together = effects.pop(ALL, None)
            total = sum(effects.values())
            summary[reading.name] = {
                "effect": effects,
                "share": {k: e / total if total else None for k, e in effects.items()},
                "sum": total,
                **({} if together is None else {ALL: together}),
            }
        return summary

    def table(self, findings: Sequence[Finding], variant: Variant) -> Table:
        """One row a run and dimension."""
        head = ["run", "descriptor", "dimension", "effect", "share"]
        more = (
            ["mean |r|", "max |r|"]
            if variant == "paper"
            else ["from", "to", "drawn", "plus", "minus", "σ"]
        )
        rows: list[list[object]] = []
        for f in findings:
            for c in f.conditions.values():
                share = f.summary[c["reading"]]["share"].get(c["dimension"])
                row = [f.label, c["reading"], c["dimension"], c["effect"], share]
                if variant == "paper":
                    row += [c["r_mean"], c["r_max"]]
                else:
                    row += [*(c["ci95"] or (None, None)), c["ci_kind"]]
                    row += [c["plus"], c["minus"], c["sigma"]]
                rows.append(row)
        return Table(head=[*head, *more], rows=rows)

    def draw(self, findings: Sequence[Finding], variant: Variant, figure: Figure) -> None:
        """Bars per dimension, runs side by side, a panel for every descriptor."""
        arrays: dict[str, list[tuple[int, str, str]]] = {}
        for i, f in enumerate(findings):
            for c in f.conditions.values():
                entry = (i, f.label, c["reading"])
                if entry not in arrays.setdefault(c["array"], []):
                    arrays[c["array"]].append(entry)
        figure.set_layout_engine("constrained")
        figure.set_size_inches(8.4, 0.3 + 3.0 * len(arrays), forward=False)
        panels = figure.subplots(len(arrays), 1, squeeze=False)[:, 0]
        for axes, (array, entries) in zip(panels, arrays.items(), strict=True):
            _draw_bars(axes, findings, entries)
            what = "‖z(d + 0.1) - z(d)‖" if variant == "paper" else "distance moved by ±σ"
            axes.set_ylabel(f"{array}: {what}", fontsize=8)


def _paper(bench: Bench, reading: Reading) -> Iterator[tuple[str, Callable[[], Plain]]]:
    """Dimension and how it is measured, the published way."""
    size = bench.run.config.budget.batch_size
    positions = np.arange(min(PAPER_BATCHES * size, len(bench.resident)))
    before = cache(partial(embedded, bench, reading, positions, size))
    correlated = cache(partial(_correlated, bench, reading, size))

    def measured(k: int, label: str) -> Plain:
        def change(batch: Batch) -> Batch:
            step = torch.zeros(reading.width)
            step[k] = PAPER_STEP
            return with_added(batch, reading.array, step)

        after = embedded(bench, reading, positions, size, change)
        return {
            **_about(reading, label),
            "effect": float(np.linalg.norm(after - before(), axis=1).mean()),
            "segments": len(positions),
            **correlated()[k],
        }

    for k, label in enumerate(reading.labels()):
        yield label, partial(measured, k, label)


def _correlated(bench: Bench, reading: Reading, batch_size: int) -> list[Plain]:
    """Per dimension mean and largest |r| of time means with embedding coordinates.

    ``means``: the standard deviation of the time means in units of the dimension's own; where it is
    tiny, the correlations are those of rounding noise.
    """
    axis = DESCRIPTORS.get(reading.array).axis
    model = bench.model
    encode = model.embed_audio if reading.side == "audio" else model.embed_midi

    def both(batch: Batch) -> tuple[Tensor, Tensor]:
        values = batch.arrays[reading.array]
        return mean_over_time(values, axis, batch.padding_BN), encode(batch)

    positions = np.arange(min(PAPER_CORRELATED * batch_size, len(bench.resident)))
    names = [f"time means of {reading.array}", EMBEDDINGS[reading.side]]
    found = over_batches(model, bench.resident, both, names, batch_size, positions)
    means, embeddings = ((x - x.mean(axis=0)).astype(np.float64) for x in found)
    lengths = np.outer(np.linalg.norm(means, axis=0), np.linalg.norm(embeddings, axis=0))
    r = np.abs(means.T @ embeddings) / np.where(lengths > 0, lengths, np.inf)
    relative = spread(bench, reading.array).means_K
    return [
        {"r_mean": float(row.mean()), "r_max": float(row.max()), "means": float(m)}
        for row, m in zip(r, relative, strict=True)
    ]


def _sound(bench: Bench, reading: Reading) -> Iterator[tuple[str, Callable[[], Plain]]]:
    """Dimension and how it is measured on one scale; then all dimensions together."""
    positions = bench.apart(LEAST_SEGMENTS, SEGMENTS, "sensitivity")
    before = cache(lambda: normalised(embedded(bench, reading, positions, BATCH_SIZE)))
    patterns = cache(partial(Patterns, bench, reading.array, positions))

    def measured(dimensions: slice, label: str) -> Plain:
        moved = []
        for sign in (1.0, -1.0):
            change = patterns().step(dimensions, sign)
            after = normalised(embedded(bench, reading, positions, BATCH_SIZE, change))
            moved.append(np.linalg.norm(after - before(), axis=1).astype(np.float64))
        effect: Floats = np.mean(moved, axis=0)
        own = patterns().spread
        zero_mean = set(own.zero_mean_K[dimensions].tolist())
        return {
            **_about(reading, label),
            "effect": float(effect.mean()),
            **_interval(bench, positions, effect),
            "plus": float(moved[0].mean()),
            "minus": float(moved[1].mean()),
            "sigma": float(own.sigma_K[dimensions][0]) if label != ALL else None,
            "pattern": " and ".join(PATTERNS[kind] for kind in sorted(zero_mean)),
            "segments": len(positions),
        }

    for k, label in enumerate(reading.labels()):
        yield label, partial(measured, slice(k, k + 1), label)
    yield ALL, partial(measured, slice(None), ALL)


def _about(reading: Reading, label: str) -> Plain:
    return {"reading": reading.name, "array": reading.array, "dimension": label}


def _interval(bench: Bench, positions: Ints, effect: Floats) -> Plain:
    gallery = bench.gallery
    units, kind = units_of(gallery.recording[positions], gallery.start_s[positions])
    found = bootstrap(effect[:, None], units, lambda means: means[:, 0])
    return {"ci95": None if found is None else list(found), "ci_kind": kind}


def _draw_bars(
    axes: Axes, findings: Sequence[Finding], entries: Sequence[tuple[int, str, str]]
) -> None:
    """``entries``: place of the run, its label, what it reads."""
    width = min(0.8 / len(entries), 0.35)
    names: list[str] = []
    runs = [i for i, _, _ in entries]
    for turn, (i, label, reading) in enumerate(entries):
        own = [c for c in findings[i].conditions.values() if c["reading"] == reading]
        names = [c["dimension"] for c in own]
        # What all dimensions do together stands a little apart.
        place = np.array([k + 0.4 * (name == ALL) for k, name in enumerate(names)])
        at = place + (turn - (len(entries) - 1) / 2) * width
        axes.bar(
            at,
            [c["effect"] for c in own],
            0.9 * width,
            color=pictures.COLOURS[i % len(pictures.COLOURS)],
            # One run may read a descriptor on both sides.
            hatch="//" if i in runs[:turn] else None,
            edgecolor="white",
            linewidth=0,
            label=f"{label} ({reading.partition('-')[2]})",
        )
        for x, c in zip(at, own, strict=True):
            if c.get("ci95"):
                axes.plot([x, x], c["ci95"], color=pictures.INK, linewidth=1)
    if len(names) <= LABELLED:
        slanted = max(map(len, names)) * len(names) > 90
        axes.set_xticks(
            place,
            names,
            fontsize=8,
            rotation=30 if slanted else 0,
            ha="right" if slanted else "center",
        )
    axes.set_ylim(bottom=0)
    axes.legend(
        fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0.1,
        ncols=min(4, len(entries)),
    )  # fmt: skip
    pictures.quiet(axes)
