"""One self-contained page about runs: scores beside the floors, differences, every analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base import html
from pipeline.base.html import Html, Section
from trainer.analyses.bench import Bench
from trainer.analyses.contract import Table
from trainer.analyses.driver import Outcome, labels
from trainer.records import remarks
from trainer.retrieval.intervals import BLOCKS, TOO_NARROW

TITLES = {"paper": "As published", "sound": "Sound variant"}


def page(
    benches: Sequence[Bench],
    scores: Sequence[tuple[str, Mapping[str, Any]]],
    compared: Sequence[tuple[str, Table, Path | None]],
    outcomes: Sequence[tuple[Outcome, Path | None]],
    missing: Sequence[str] = (),
) -> str:
    """The whole document.

    Parameters
    ----------
    scores : rows of the first table, label and record; runs before baselines
    compared : per protocol its comparisons and their picture
    outcomes : with their pictures
    missing : what has no scores, and why
    """
    first = benches[0]
    lead = html.join(
        html.note(
            "What these runs retrieve, and what they do it with. Every analysis stands here as it was "
            "published and in a variant that measures what it says; where both disagree, the "
            "published one has the defect that its description names."
        ),
        html.pairs(
            [
                ("store", first.store.name),
                ("split", first.split),
                ("segments", f"{len(first.gallery):,}"),
                ("recordings", str(len(first.gallery.recordings))),
                ("composers", str(len(first.gallery.composers))),
            ]
        ),
    )
    if any(bench.run.leaks for bench in benches):
        lead = html.join(
            lead,
            html.note(
                "Arms marked (leaks) are given the item that they are asked to find: what stands here "
                "of them are no retrieval scores, and no difference is stated."
            ),
        )
    sections = [
        Section(title="Runs", body=_runs(benches)),
        Section(title="Scores", body=html.join(_scores(scores), *map(html.note, missing))),
        Section(title="Where scores come from", body=_parts(scores)),
    ]
    if compared:
        sections.append(Section(title="Differences", body=_compared(compared)))
    for name in dict.fromkeys(outcome.analysis.name for outcome, _ in outcomes):
        own = [(o, p) for o, p in outcomes if o.analysis.name == name]
        sections.append(Section(title=own[0][0].analysis.title, body=_analysis(own)))
    return html.page("Analyses of runs", lead, sections)


def _runs(benches: Sequence[Bench]) -> Html:
    rows = []
    for bench, label in zip(benches, labels(benches), strict=True):
        config = bench.run.config
        pairs = " + ".join(f"{p.descriptor} {p.mechanism}" for p in config.pairs)
        rows.append(
            [
                html.unbroken(label),
                pairs or "no descriptor",
                config.control.name,
                f"{config.preset}, {config.size}",
                config.seed,
                config.budget.updates,
                bench.run.record["parameters"]["total"],
                str(bench.run.record.get("commit") or "")[:10],
                bench.run.path.name,
            ]
        )
    head = "run, arm, control, preset, seed, updates, parameters, commit, folder"
    return html.table(head.split(", "), rows)


def _scores(scores: Sequence[tuple[str, Mapping[str, Any]]]) -> Html:
    head = (
        "scored, protocol, S, from, to, drawn, R@1 a→m, R@1 m→a, R@1 without copies a→m, m→a, "
        "MRR a→m, full R@1 a→m, full R@10 a→m, beats one, beats all, hub skewness, queries"
    )
    rows = []
    for label, r in scores:
        low, high = r["ci95"]["S"] or (None, None)
        alone, full, hubs = r["no_copy"] or {}, r["full"]["a2m"] or {}, r["hubness"]
        rows.append(
            [
                html.unbroken(label),
                r["protocol"],
                r["S"],
                low,
                high,
                None if low is None else r["ci_kind"],
                r["a2m"]["R@1"],
                r["m2a"]["R@1"],
                (alone.get("a2m") or {}).get("R@1"),
                (alone.get("m2a") or {}).get("R@1"),
                r["a2m"]["MRR"],
                full.get("R@1"),
                full.get("R@10"),
                r["hard_neg"]["one"],
                r["hard_neg"]["all64"],
                hubs["a2m"]["skewness"] if hubs else None,
                r["queries"],
            ]
        )
    return html.join(
        html.table(head.split(", "), rows, sortable=True),
        html.note(
            "Fractions. S: the smaller R@10 of both directions. “Without copies”: queries whose music "
            "does not come again in their recording. “Full”: all segments of the split compete. "
            "“Beats one / all”: the pair against one, or all, of the pool's segments of its own "
            "recording (chance 0.5, and about 1/65). Hub skewness: of how often a segment "
            "is among the ten nearest; 0 is even."
        ),
        *(html.note(remark) for remark in remarks(scores)),
    )


def _parts(scores: Sequence[tuple[str, Mapping[str, Any]]]) -> Html:
    parts = []
    for kind in ("composer", "recording", "density"):
        rows = [
            [label, r["protocol"], name, p["queries"], p["S"], p["a2m"]["R@1"], p["m2a"]["R@1"]]
            for label, r in scores
            if r["breakdown"]
            for name, p in r["breakdown"][kind].items()
        ]
        head = ["scored", "protocol", kind, "queries", "S", "R@1 a→m", "R@1 m→a"]
        parts.append(html.folded(f"by {kind}", html.table(head, rows, sortable=True)))
    return html.join(*parts)


def _compared(compared: Sequence[tuple[str, Table, Path | None]]) -> Html:
    parts: list[Html] = [
        html.note(
            "Paired on the same queries. The interval holds the doubt of other seeds and of other "
            "recordings (“drawn” says how many there are); a difference is stated with at least three "
            "seeds, five recordings and an interval without 0."
        )
    ]
    for protocol, table, picture in compared:
        parts.append(html.tag("h3", f"Protocol {protocol}"))
        if picture is not None:
            parts.append(_image(picture, f"Differences under protocol {protocol}"))
        parts.append(html.table(table.head, table.rows))
    return html.join(*parts)


def _analysis(own: Sequence[tuple[Outcome, Path | None]]) -> Html:
    parts: list[Html] = [html.tag("p", own[0][0].analysis.question)]
    for outcome, picture in own:
        title = TITLES[outcome.variant]
        parts += [
            html.tag("h3", title),
            html.note(outcome.analysis.variants[outcome.variant]),
        ]
        if picture is not None:
            parts.append(_image(picture, f"{outcome.analysis.title}: {title.lower()}"))
        if outcome.findings:
            table = outcome.analysis.table(outcome.findings, outcome.variant)
            parts.append(html.folded("numbers", html.table(table.head, table.rows)))
        conditions = [c for f in outcome.findings for c in f.conditions.values()]
        kinds = {c.get("ci_kind", c.get("resampled")) for c in conditions if c.get("ci95")}
        if BLOCKS in kinds:
            parts.append(html.note(TOO_NARROW))
        for label, why in outcome.refused.items():
            parts.append(html.note(f"{label}: {why}"))
    return html.join(*parts)


def _image(path: Path, what: str) -> Html:
    return html.tag(
        "figure",
        html.tag(
            "img", src=html.data_uri(path.read_bytes(), "image/png"), alt=what, class_="picture"
        ),
    )
