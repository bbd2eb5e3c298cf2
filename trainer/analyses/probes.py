"""Probes: what can be read from the frozen embeddings (method §8.8).

A probe (:mod:`trainer.analyses.regression`) is trained to predict a target
(:mod:`trainer.analyses.targets`) from embeddings, and judged on other segments by
``R² = 1 - ΣΣ(y-ŷ)² / ΣΣ(y-ȳ)²``, pooled over the target's standardised dimensions.

``paper``
    The tested fifth is drawn from segments that overlap by up to three of their four seconds, so that
    a probe has heard nearly all that it is tested on; ȳ is the mean of the tested segments. The probe
    was called linear (§9.28).
``sound``
    Every segment is tested once, by a probe that heard no performance of its composition; ȳ is the
    mean of the segments that this probe was trained on. 0 is thus what one would say without any
    embedding, and a probe whose knowledge does not carry over to other music falls below. Shuffled
    embeddings tell how far below that a probe of their number falls by learning noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

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
from trainer.analyses.regression import (
    BATCH_SIZE,
    EPOCHS,
    FLOOR,
    FOLDS,
    HIDDEN,
    LEARNING_RATE,
    PENALTIES,
    PREDICT,
    SEED,
    cross_predicted,
    r_squared,
    squares,
)
from trainer.analyses.targets import Floats, Ints, read_targets
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.intervals import bootstrap, units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAIRS: Sequence[tuple[Side, str]] = (
    ("audio", "pitch"),
    ("audio", "interval"),
    ("midi", "chroma"),
    ("midi", "centroid"),
    ("audio", "chroma"),
    ("midi", "pitch"),
)
NUMBERED = 4  # runs; the bars of more are too narrow for numbers
LOWEST = -1.0  # of the picture; how bad a useless probe is does not matter
SHUFFLED, SHUFFLED_COLOUR = "shuffled embeddings", "#d0342c"
PAPER_SEGMENTS, TEST_SHARE, LEAST_SEGMENTS = 5000, 0.2, 10


@register
class Probes(Analysis):
    """See the module."""

    name = "probes"
    title = "Probes"
    question = "What of the notes and of the sound can be read from an embedding?"
    variants: ClassVar[Mapping[Variant, str]] = {
        "paper": "First 5,000 segments in order, a random fifth of them tested, so that nearly every "
        "tested segment overlaps training segments; an MLP (called linear); chroma at a sampling rate "
        "of 16 kHz instead of 24 (§8.8, §9.28).",
        "sound": "Valid segments, every one tested once, in five folds that divide no composition "
        "(below five of them: no recording); ridge regression and the MLP; chroma in its place. "
        "Interval: recordings drawn with replacement (below 20 of them: 10-s blocks, which is too "
        "narrow). Shuffled: the same probe of embeddings in random order.",
    }

    def settings(self, bench: Bench, variant: Variant) -> Plain:
        """How probes are trained and split."""
        mlp = {"hidden": HIDDEN, "epochs": EPOCHS, "batch": BATCH_SIZE, "rate": LEARNING_RATE}
        if variant == "paper":
            return {"seed": SEED, "segments": PAPER_SEGMENTS, "test": TEST_SHARE, **mlp}
        return {"seed": SEED, "folds": FOLDS, "penalties": PENALTIES, **mlp}

    def measure(self, bench: Bench, variant: Variant, condition: Condition) -> Plain:
        """One condition per embedding, target and kind of probe."""
        rows = probed_rows(bench, variant)
        targets = cache(lambda: read_targets(bench.store, bench.gallery.segment[rows], variant))
        measured: Callable[[Bench, Ints, Side, Floats, str], Plain]
        measured = random_split if variant == "paper" else grouped_split

        def compute(side: Side, target: str, kind: str) -> Plain:
            return measured(bench, rows, side, targets()[target], kind)

        return {
            name: condition(name, partial(compute, *what))["R2"]
            for name, what in conditions(variant).items()
        }

    def table(self, findings: Sequence[Finding], variant: Variant) -> Table:
        """Runs × pairs, one row for each."""
        head = ["run", "from → to", "probe", "R²"]
        if variant == "paper":
            head += ["segments", "tested"]
        else:
            head += ["from", "to", "shuffled", "segments", "recordings", "divided by", "drawn"]
        rows: list[list[object]] = []
        for f in findings:
            for name, (side, target, kind) in conditions(variant).items():
                c = f.conditions[name]
                row = [f.label, pair_name(side, target), kind, c["R2"]]
                if variant == "paper":
                    row += [c["segments"], c["tested"]]
                else:
                    row += [*(c["ci95"] or (None, None)), c["shuffled"]]
                    row += [c[k] for k in ("segments", "recordings", "divided_by", "resampled")]
                rows.append(row)
        return Table(head=head, rows=rows)

    def draw(self, findings: Sequence[Finding], variant: Variant, figure: Figure) -> None:
        """Bars: a panel for every kind of probe, a group for every pair, a colour for every run."""
        kinds = list(dict.fromkeys(kind for _, _, kind in conditions(variant).values()))
        bar = 0.28 if len(findings) <= NUMBERED else 0.16
        width = max(6.4, 1.0 + len(PAIRS) * (0.4 + bar * len(findings)))
        figure.set_size_inches(width, 0.5 + 2.6 * len(kinds), forward=False)
        panels = figure.subplots(len(kinds), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        for axes, kind in zip(panels, kinds, strict=True):
            _bars(axes, findings, kind)
        panels[0].set_ylim(max(LOWEST, min(panels[0].get_ylim()[0], -0.02)), 1.08)
        named = dict(zip(*panels[0].get_legend_handles_labels()[::-1], strict=True))
        order = sorted(named, key=lambda name: name == SHUFFLED)  # runs first
        figure.legend(
            [named[name] for name in order], order, loc="outside upper center", ncols=4,
            fontsize=8, frameon=False,
        )  # fmt: skip


def pair_name(side: Side, target: str) -> str:
    """``MIDI → chroma``."""
    return f"{'MIDI' if side == 'midi' else side} → {target}"


def conditions(variant: Variant) -> dict[str, tuple[Side, str, str]]:
    """Name → embedding, target, kind of probe."""
    kinds = ("mlp",) if variant == "paper" else ("linear", "mlp")
    return {f"{pair_name(*pair)}, {kind}": (*pair, kind) for kind in kinds for pair in PAIRS}


def probed_rows(bench: Bench, variant: Variant) -> Ints:
    """Rows of the gallery that take part.

    Raises
    ------
    AnalysisError
        (kind ``too-few``) below five recordings or, in ``paper``, ten segments.
    """
    gallery, where = bench.gallery, f"the split '{bench.split}' of {bench.store.name}"
    if variant == "paper":
        if len(gallery) < LEAST_SEGMENTS:
            raise AnalysisError(
                f"a probe needs at least {LEAST_SEGMENTS} segments; {where} has {len(gallery)}",
                kind="too-few",
            )
        return np.arange(min(PAPER_SEGMENTS, len(gallery)))
    rows = np.flatnonzero(gallery.valid)
    recordings = len(np.unique(gallery.recording[rows]))
    if recordings < FOLDS:
        raise AnalysisError(
            f"probes need at least {FOLDS} recordings, to be trained on some and tested on others; "
            f"{where} has {recordings} with valid segments",
            kind="too-few",
        )
    return rows


def random_split(bench: Bench, rows: Ints, side: Side, y: Floats, kind: str) -> Plain:
    """R² as published: a random fifth of the segments tested (§8.8).

    Standardised by training segments, with 1e-8 for the deviation of what is constant there: a
    dimension that only tested segments know (``unseen`` counts them) then outweighs all others.
    """
    x = bench.embeddings[side][rows].astype(np.float64)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED)).numpy()
    tested = max(1, int(TEST_SHARE * len(x)))
    train, test = order[: len(x) - tested], order[len(x) - tested :]
    z = (y - y[train].mean(axis=0)) / np.maximum(y[train].std(axis=0, ddof=1), FLOOR)
    predicted = PREDICT[kind](x[train], z[train], x[test], np.arange(len(train)))
    unseen = (np.ptp(y[train], axis=0) == 0) & (np.ptp(y[test], axis=0) > 0)
    return {
        "R2": float(r_squared(squares(z[test], predicted, z[test].mean(axis=0)).sum(axis=0))),
        "segments": len(x),
        "tested": tested,
        "unseen": int(unseen.sum()),
    }


def grouped_split(bench: Bench, rows: Ints, side: Side, y: Floats, kind: str) -> Plain:
    """R² of predictions that know nothing of the tested composition, its interval, and chance."""
    gallery, x = bench.gallery, bench.embeddings[side][rows].astype(np.float64)
    groups, divided_by = grouping(gallery, rows)
    deviation = y.std(axis=0)
    # What never changes cannot be read; one scale for all folds weighs their errors alike.
    z = (y / np.maximum(deviation, FLOOR))[:, deviation > FLOOR]
    if z.shape[1] == 0:
        raise AnalysisError("a target is the same for all segments", kind="inapplicable")
    squared = squares(z, *cross_predicted(x, z, groups, PREDICT[kind]))
    units, resampled = units_of(gallery.recording[rows], gallery.start_s[rows])
    interval = bootstrap(squared, units, r_squared)
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(len(x))
    shuffled = squares(z, *cross_predicted(x[order], z, groups, PREDICT[kind]))
    return {
        "R2": float(r_squared(squared.sum(axis=0))),
        "ci95": None if interval is None else list(interval),
        "shuffled": float(r_squared(shuffled.sum(axis=0))),
        "segments": len(x),
        "recordings": len(np.unique(gallery.recording[rows])),
        "dimensions": z.shape[1],
        "divided_by": divided_by,
        "resampled": resampled,
    }


def grouping(gallery: Gallery, rows: Ints) -> tuple[Ints, str]:
    """What no fold divides, of every row, and what it is: compositions; below five, recordings."""
    by_composition = gallery.composition[rows].astype(np.int64)
    if len(np.unique(by_composition)) >= FOLDS:
        return by_composition, "compositions"
    return gallery.recording[rows].astype(np.int64), "recordings"


def _bars(axes: Axes, findings: Sequence[Finding], kind: str) -> None:
    width = 0.84 / len(findings)
    for i, finding in enumerate(findings):
        found = [finding.conditions[f"{pair_name(*pair)}, {kind}"] for pair in PAIRS]
        at = np.arange(len(PAIRS)) + (i - (len(findings) - 1) / 2) * width
        colour = pictures.COLOURS[i % len(pictures.COLOURS)]
        axes.bar(
            at, [c["R2"] for c in found], 0.88 * width, color=colour, label=finding.label,
            hatch="//" * (i // len(pictures.COLOURS)), edgecolor="white", linewidth=0,
        )  # fmt: skip
        for x, c in zip(at, found, strict=True):
            reach = c.get("ci95") or [c["R2"]]
            axes.plot([x] * len(reach), reach, color=pictures.INK, linewidth=1.1)
            if len(findings) <= NUMBERED:
                top = min(max(0.0, c["R2"], *reach), 1.0) + 0.02
                number = f"{c['R2']:.2f}".replace("-0.00", "0.00").replace("-", "−")
                axes.text(x, top, number, ha="center", fontsize=7, color=pictures.INK)
        if "shuffled" in found[0]:
            axes.hlines(
                [c["shuffled"] for c in found], at - 0.44 * width, at + 0.44 * width,
                color=SHUFFLED_COLOUR, linewidth=1.6, zorder=3,
                label=SHUFFLED if finding is findings[-1] else "_",
            )  # fmt: skip
    axes.axhline(0, color=pictures.INK, linewidth=0.6)
    axes.set_xticks(range(len(PAIRS)), [pair_name(*pair) for pair in PAIRS], fontsize=8)
    axes.set_ylabel("R²", fontsize=8)
    axes.set_title({"mlp": "MLP", "linear": "linear (ridge)"}[kind], fontsize=9, loc="left")
    pictures.quiet(axes)
