"""Maps: where the embeddings of both sides lie, in two dimensions and in numbers (method §8.9).

A map shows neighbourhoods, not distances, and the eye finds clusters in anything: what a map seems to
say counts as far as the numbers beside it, which are taken in all 256 dimensions.

``other side``
    Share of the 10 nearest neighbours that are of the other modality: 0.5 where both sides are mixed,
    0 where each keeps to itself. Neighbours are of either side; a point's own pair is not counted, it
    is what retrieval measures.
``same recording``, ``same composer``
    Share of the same neighbours, beside what neighbours drawn at random would give.
``gap``
    Distance between the two sides' centroids, divided by the mean distance of a segment's two
    embeddings: 1 where the sides differ by one shift alone, 0 where no shift is common.

``paper`` also drew UMAP (15 neighbours, minimal distance 0.1). It is left out: it needs a package of
its own and says no more than t-SNE here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

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
from trainer.analyses.projections import (
    ITERATIONS,
    NEIGHBOURS,
    PERPLEXITY,
    SEED,
    Floats,
    Ints,
    gap,
    neighbours,
    principal,
    t_sne,
)
from trainer.analyses.subject import normalised

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEGMENTS, LEAST_SEGMENTS = 2000, 20
NAMED = 10  # recordings, or composers, that have a colour of their own
PALETTE = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
    "#8c564b", "#e377c2", "#bcbd22", "#17becf", "#1b2733",
)  # fmt: skip
SIDES: Mapping[Side, tuple[str, str]] = {
    "audio": ("o", pictures.COLOURS[0]),
    "midi": ("x", pictures.COLOURS[1]),
}
LAYERS = 8  # of points, so that neither side lies on top
LABEL_WIDTH = 46


@register
class Maps(Analysis):
    """See the module."""

    name = "maps"
    title = "Maps of the embeddings"
    question = "Where do segments lie, and who are their neighbours?"
    variants: ClassVar[Mapping[Variant, str]] = {
        "paper": "2,000 random segments, which overlap; both sides stacked, not normalised, though "
        "retrieval compares directions; t-SNE (perplexity 30, 1,000 iterations), coloured by modality "
        "and by the 10 most frequent recordings. Without the published UMAP (§8.9).",
        "sound": "Up to 2,000 valid segments that do not overlap, the same for all runs; embeddings "
        "of length 1; PCA and t-SNE, coloured by modality, composer and recording; what the pictures "
        "suggest as numbers, each beside its chance.",
    }

    def settings(self, bench: Bench, variant: Variant) -> Plain:
        """Which segments, and how they are laid out."""
        tsne = {"perplexity": PERPLEXITY, "iterations": ITERATIONS}
        return {"seed": SEED, "segments": SEGMENTS, "neighbours": NEIGHBOURS, **tsne}

    def measure(self, bench: Bench, variant: Variant, condition: Condition) -> Plain:
        """The segments, their places by every method and, in ``sound``, what can be counted."""
        rows = mapped_rows(bench, variant)
        segments = condition("segments", partial(described, bench, rows))

        def points() -> Floats:
            stacked = np.concatenate([bench.embeddings[side][rows] for side in SIDES])
            return (stacked if variant == "paper" else normalised(stacked)).astype(np.float64)

        tsne = condition("t-SNE", lambda: t_sne(points()))
        found = {"segments": len(rows), "recordings": len(segments["recordings"])}
        if variant == "paper":
            return {**found, "divergence": tsne["divergence"]}
        pca = condition("PCA", lambda: principal(points()))
        numbers = condition(
            "neighbours",
            lambda: neighbours(
                points(), np.array(segments["recording"]), np.array(segments["composer"])
            ),
        )
        distances = condition("gap", lambda: gap(points()))
        return {**found, "variance": pca["variance"], **numbers, "gap": distances["gap"]}

    def table(self, findings: Sequence[Finding], variant: Variant) -> Table:
        """One row a run."""
        head = "run, segments, recordings"
        names = ["segments", "recordings"]
        if variant == "paper":
            head += ", KL divergence"
            names += ["divergence"]
        else:
            head += ", variance in 2 components, other side, chance, same recording, chance"
            head += ", same composer, chance, gap"
        rows: list[list[object]] = []
        for f in findings:
            row: list[object] = [f.label, *(f.summary[name] for name in names)]
            if variant == "sound":
                row.append(f.summary["variance"])
                for name in ("other_side", "same_recording", "same_composer"):
                    row += [f.summary[name]["share"], f.summary[name]["chance"]]
                row.append(f.summary["gap"])
            rows.append(row)
        return Table(head=head.split(", "), rows=rows)

    def draw(self, findings: Sequence[Finding], variant: Variant, figure: Figure) -> None:
        """A row for every run and method, a column for every colouring, legends below."""
        methods = ("t-SNE",) if variant == "paper" else ("PCA", "t-SNE")
        colourings = (
            ("side", "recording") if variant == "paper" else ("side", "composer", "recording")
        )
        rows = [(f, method) for f in findings for method in methods]
        heights = [*[3.3] * len(rows), 0.4 + 0.16 * _longest_legend(findings[0], colourings)]
        figure.set_size_inches(3.5 * len(colourings), sum(heights), forward=False)
        panels = figure.subplots(
            len(heights), len(colourings), squeeze=False, height_ratios=heights
        )
        for line, (finding, method) in zip(panels[:-1], rows, strict=True):
            for axes, colouring in zip(line, colourings, strict=True):
                _scatter(axes, finding, method, colouring)
                axes.set_title(
                    _heading(finding, method, colouring, variant), fontsize=8, loc="left"
                )
        for axes, colouring in zip(panels[-1], colourings, strict=True):
            _legend(axes, findings[0].conditions["segments"], colouring)


def mapped_rows(bench: Bench, variant: Variant) -> Ints:
    """Rows of the gallery that are on the map, ascending.

    Raises
    ------
    AnalysisError
        (kind ``too-few``) below 20 of them.
    """
    if variant == "sound":
        return bench.apart(LEAST_SEGMENTS, SEGMENTS, "a map")
    n = len(bench.gallery)
    if n < LEAST_SEGMENTS:
        raise AnalysisError(
            f"a map needs at least {LEAST_SEGMENTS} segments; the split '{bench.split}' of "
            f"{bench.store.name} has {n}",
            kind="too-few",
        )
    chosen = np.random.RandomState(SEED).choice(n, min(SEGMENTS, n), replace=False)
    return np.sort(chosen).astype(np.int64)


def described(bench: Bench, rows: Ints) -> Plain:
    """What the points are: their segments, and codes and names of recordings and composers."""
    gallery = bench.gallery
    recordings, recording = np.unique(gallery.recording[rows], return_inverse=True)
    composers, composer = np.unique(gallery.composer[rows], return_inverse=True)
    return {
        "segment": gallery.segment[rows].tolist(),
        "recording": recording.tolist(),
        "composer": composer.tolist(),
        "recordings": [gallery.recordings[int(r)] for r in recordings],
        "composers": [gallery.composers[int(c)] for c in composers],
    }


def _scatter(axes: Axes, finding: Finding, method: str, colouring: str) -> None:
    """The points of one run; what has no colour of its own lies below, and no side above the other."""
    places, segments = finding.conditions[method], finding.conditions["segments"]
    colours = _colours(segments, colouring)
    n = len(segments["segment"])
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(n)
    if colours is not None:
        order = order[np.argsort(colours[order] != pictures.FAINT, kind="stable")]
    for part in np.array_split(order, LAYERS):
        for side, (marker, colour) in SIDES.items():
            x, y = np.array(places[side])[part].T
            axes.scatter(
                x, y, s=float(np.clip(4000 / n, 3, 14)), marker=marker, alpha=0.8,
                c=colour if colours is None else list(colours[part]),
                linewidths=0 if marker == "o" else 0.9,
            )  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(pictures.FAINT)


def _heading(finding: Finding, method: str, colouring: str, variant: Variant) -> str:
    """What a panel shows; beside t-SNE the number that belongs to the colouring."""
    found = finding.summary
    if colouring == "side":
        heading = f"{finding.label}: {method}"
        if method == "PCA":
            return f"{heading}, {found['variance']:.0%} of the variance"
        if variant == "paper":
            return heading
        return f"{heading}\nneighbours of the other side: {_beside_chance(found['other_side'])}"
    if variant == "paper" or method == "PCA":
        return f"by {colouring}"
    return f"neighbours of the same {colouring}: {_beside_chance(found[f'same_{colouring}'])}"


def _beside_chance(found: Mapping[str, float]) -> str:
    return f"{found['share']:.2f} (chance {found['chance']:.2f})"


def _longest_legend(finding: Finding, colourings: Sequence[str]) -> int:
    """Lines, the title included."""
    segments = finding.conditions["segments"]
    lengths = [len(segments[f"{c}s"]) for c in colourings if c != "side"]
    return 1 + min(NAMED + 1, max(lengths))


def _legend(axes: Axes, segments: Mapping[str, Any], colouring: str) -> None:
    """Names and colours, on axes of their own."""
    axes.axis("off")
    entries: list[tuple[str, str, str]] = []
    if colouring == "side":
        title = "modality (marks: everywhere)"
        for side, (marker, colour) in SIDES.items():
            entries.append(("MIDI" if side == "midi" else side, marker, colour))
    else:
        title = colouring
        names, named = segments[f"{colouring}s"], _named(segments, colouring)
        entries += [(_shortened(names[code]), "o", colour) for code, colour in named.items()]
        if len(names) > len(named):
            entries.append((f"{len(names) - len(named)} others", "o", pictures.FAINT))
    for name, marker, colour in entries:
        axes.scatter([], [], s=22, c=colour, marker=marker, label=name)
    axes.legend(
        loc="upper left", fontsize=7.5, frameon=False, borderaxespad=0, handletextpad=0.3,
        title=title,
        title_fontsize=7.5, alignment="left",
    )  # fmt: skip


def _colours(segments: Mapping[str, Any], colouring: str) -> npt.NDArray[np.object_] | None:
    """The colour of every segment, or None where the side decides."""
    if colouring == "side":
        return None
    named = _named(segments, colouring)
    return np.array([named.get(code, pictures.FAINT) for code in segments[colouring]], object)


def _named(segments: Mapping[str, Any], colouring: str) -> dict[int, str]:
    """The most frequent codes, most frequent first, and their colours."""
    counts = np.bincount(segments[colouring])
    order = np.argsort(-counts, kind="stable")[:NAMED]
    return {int(code): colour for code, colour in zip(order, PALETTE, strict=False)}


def _shortened(name: str) -> str:
    """A name that fits into its column; recordings of one year differ at the end of their names."""
    if len(name) <= LABEL_WIDTH:
        return name
    head = LABEL_WIDTH // 3
    return f"{name[:head]}…{name[head + 1 - LABEL_WIDTH :]}"
