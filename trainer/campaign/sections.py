"""The parts of a campaign's page: tables and pictures of what ``standing`` found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from pipeline.base import charts, html
from pipeline.base.html import Html
from trainer.campaign.charts import Mark, Strip, strips
from trainer.campaign.plan import Sweep
from trainer.campaign.recorded import Recorded
from trainer.campaign.standing import REFERENCE, Board, Entry, Line

Row = Mapping[str, Any]
GREY = 5
NOTHING = "No run of this campaign is finished and scored yet."


def leaderboards(boards: Sequence[Board]) -> Html:
    """A picture and a table for each protocol and split; the first one is open."""
    if not boards:
        return html.note(NOTHING)
    parts: list[Html] = [
        html.note(
            "Fractions. S: the smaller R@10 of both directions, mean of the seeds; its 95 % interval "
            "is of these queries for one seed, and of other seeds and recordings for several. "
            "“Without copies”: queries whose music does not come again in their recording. Rank: "
            "among entries of one setting that differ in nothing but the arm; the others say what "
            "stands between. Floors need no training."
        )
    ]
    for i, found in enumerate(boards):
        head = html.join(html.tag("b", found.title), _summary(found))
        parts.append(html.folded(head, _picture(found), _table(found), opened=i == 0))
    return html.join(*parts)


def _summary(found: Board) -> Html:
    row = found.lines[0].rows[0]
    return html.tag(
        "span",
        f" {row['queries']:,} queries, {row['recordings']} recordings, chance of R@10 "
        f"{html.number(row['chance_R10'])}",
    )


def _picture(found: Board) -> Html:
    rows = [
        Strip(
            name=_name(line),
            marks=tuple(Mark(x=r["S"], tip=f"seed {r['seed']}: {r['S']:.3f}") for r in line.rows),
            span=line.interval,
            faint=line.verdict.kind != "yes",
        )
        for line in found.lines
    ]
    for name, floor in found.floors.items():
        span = floor.record["ci95"]["S"]
        rows.append(
            Strip(
                name=f"floor: {name}",
                marks=(Mark(x=floor.score("S"), colour=GREY),),
                span=None if span is None else (span[0], span[1]),
                colour=GREY,
            )
        )
    best = found.best_floor
    line = {} if best is None else {found.floors[best].score("S"): f"the best floor, {best}"}
    return strips(
        rows, title="S of every seed, with the interval of their mean", label="S", lines=line
    )


def _name(line: Line) -> str:
    return f"{line.entry.shown}{'' if line.verdict.kind == 'yes' else ' *'}"


def _table(found: Board) -> Html:
    settings = len({line.entry.cohort for line in found.lines}) > 1
    best = found.best_floor
    head = ["rank", "arm", *(["setting"] if settings else []), "seeds", "S", "from", "to"]
    head += [f"– {REFERENCE}", "from", "to", f"against {REFERENCE}"]
    if best is not None:
        head += [f"– {best}", "from", "to"]
    head += ["R@1 a→m", "m→a", "R@1 without copies", "MRR a→m", "m→a", "beats one", "comparable"]
    rows: list[list[object]] = []
    for line in found.lines:
        entry = line.entry
        paired = line.against.get(REFERENCE)
        row: list[object] = [line.rank, html.unbroken(entry.shown)]
        row += [entry.cohort or None] if settings else []
        row += [f"{len(line.rows)} of {len(entry.runs)}", line.S, *(line.interval or (None, None))]
        row += [*_difference(paired), html.unbroken(_words(paired, line.alone))]
        if best is not None:
            row += _difference(line.against.get(best))
        row += [line.mean(c) for c in ("a2m_R1", "m2a_R1", "no_copy_R1", "a2m_MRR", "m2a_MRR")]
        row += [line.mean("hard_neg"), html.unbroken(str(line.verdict))]
        rows.append(row)
    for name, floor in found.floors.items():
        r = floor.record
        span = r["ci95"]["S"] or (None, None)
        alone = [(r["no_copy"] or {}).get(side, {}).get("R@1") for side in ("a2m", "m2a")]
        row = [None, html.unbroken(f"floor: {name}"), *([None] if settings else []), None]
        row += [r["S"], *span, None, None, None, None, *([None] * 3 if best is not None else [])]
        row += [r["a2m"]["R@1"], r["m2a"]["R@1"], None if None in alone else min(alone)]
        row += [r["a2m"]["MRR"], r["m2a"]["MRR"], r["hard_neg"]["one"], None]
        rows.append(row)
    return html.table(head, rows, sortable=True, filterable=True, decimals=3)


def _difference(found: Mapping[str, Any] | None) -> list[float | None]:
    if found is None:
        return [None, None, None]
    return [found["S"]["difference"], *found["S"]["ci95"]]


def _words(found: Mapping[str, Any] | None, alone: str) -> str:
    from trainer.analyses.comparison import verdict

    return (alone or html.DASH) if found is None else verdict(found["S"], found)


def differences(boards: Sequence[Board]) -> Html:
    """Arms beside d0 and beside every floor, paired on the same queries."""
    from trainer.analyses.comparison import Comparison, comparison_table

    parts: list[Html] = [
        html.note(
            "Paired on the same queries. The interval holds the doubt of other seeds and of other "
            "recordings (“drawn” says how many there are). Drawn faintly: nothing may be stated."
        )
    ]
    for i, found in enumerate(boards):
        drawn, told = [], []
        for line in found.lines:
            for name, each in line.against.items():
                first = name if name == REFERENCE else f"floor {name}"
                told.append(Comparison(first=first, second=line.entry.label, found=each))
            paired = line.against.get(REFERENCE)
            if paired is not None:
                m = paired["S"]
                drawn.append(
                    Strip(
                        name=line.entry.label,
                        marks=(Mark(x=m["difference"], colour=0 if m["stated"] else GREY),),
                        span=(m["ci95"][0], m["ci95"][1]),
                        colour=0 if m["stated"] else GREY,
                        faint=not m["stated"],
                    )
                )
        if not told:
            continue
        title = f"Difference of S to {REFERENCE}, 95 % interval"
        picture = strips(drawn, title=title, label="difference of S", lines={0.0: REFERENCE})
        table = comparison_table(told)
        lines = [[html.unbroken(c) if isinstance(c, str) else c for c in r] for r in table.rows]
        shown = html.table(table.head, lines, sortable=True, filterable=True)
        head = html.join(html.tag("b", found.title), html.tag("span", f" {len(told)} pairs"))
        body = html.join(picture if drawn else None, html.folded("numbers", shown))
        parts.append(html.folded(head, body, opened=i == 0))
    if len(parts) == 1:
        parts.append(html.note("There is nothing to compare yet."))
    return html.join(*parts)


def seeds(found: Board, recorded: Recorded | None) -> Html:
    """What another seed changes; every training on its own."""
    several = [line for line in found.lines if len(line.rows) > 1]
    if not several:
        return html.note(
            "Every arm has one finished seed: nothing is known about what another would change, and "
            "ranks among close scores mean nothing."
        )
    numbers = sorted({row["seed"] for line in several for row in line.rows})
    drawn, rows = [], []
    for line in several:
        own = {row["seed"]: row["S"] for row in line.rows}
        drawn.append(
            Strip(
                name=line.entry.shown,
                marks=tuple(
                    Mark(x=S, tip=f"{line.entry.label}, seed {s}: {S:.3f}", colour=numbers.index(s))
                    for s, S in own.items()
                ),
                span=(min(own.values()), max(own.values())),
                colour=GREY,
            )
        )
        spread = max(own.values()) - min(own.values())
        rows.append([html.unbroken(line.entry.shown), *map(own.get, numbers), line.S, spread])
    head = ["arm", *(f"seed {n}" for n in numbers), "mean", "range"]
    return html.join(
        html.note(f"{found.title}; a dot is one training, a line their range."),
        charts.legend(f"seed {n}" for n in numbers),
        strips(drawn, title="S by seed", label="S"),
        html.table(head, rows, sortable=True, decimals=3),
    )


def beside(recorded: Recorded, entries: Sequence[Entry], boards: Sequence[Board]) -> Html:
    """The paper's figures beside those of here, under its protocol, on the split that it reports."""
    same = [b for b in boards if (b.protocol, b.split) == (recorded.protocol, recorded.split)]
    lines = same[0].lines if same else ()
    rows: list[list[object]] = []
    drawn: list[Strip] = []
    known = recorded.lines()
    order = sorted(known, key=lambda label: -fmean(r.S for r in known[label]))
    for label in order:
        theirs = known[label]
        mine: list[Line | None] = [
            x for x in lines if x.entry.is_of(theirs[0].arm, theirs[0].schedule)
        ]
        for line in mine or [None]:
            rows.append(
                [
                    html.unbroken(label),
                    order.index(label) + 1,
                    fmean(r.S for r in theirs),
                    _spread([r.S for r in theirs]),
                    theirs[0].a2m if len(theirs) == 1 else None,
                    theirs[0].m2a if len(theirs) == 1 else None,
                    theirs[0].epoch if len(theirs) == 1 else None,
                    line and line.rank,
                    line and line.S,
                    line and _spread([r["S"] for r in line.rows]),
                    line and line.mean("a2m_R10"),
                    line and line.mean("m2a_R10"),
                    line and html.unbroken(line.entry.shown),
                    "; ".join(r.note for r in theirs if r.note) or None,
                ]
            )
            marks = [Mark(x=r.S, tip=f"recorded: {r.S:.3f}", colour=1, hollow=True) for r in theirs]
            own = line.rows if line else ()
            marks += [Mark(x=r["S"], tip=f"here: {r['S']:.3f}") for r in own]
            drawn.append(Strip(name=label, marks=tuple(marks)))
    head = (
        "recorded, rank, S, range, a→m, m→a, epoch, rank here, S here, range here, a→m here, "
        "m→a here, arm here, remark"
    )
    return html.join(
        html.tag("p", f"{recorded.title}. {recorded.corpus}, protocol {recorded.protocol}."),
        html.note(recorded.note.strip()),
        html.note(f"Source: {recorded.source}"),
        strips(drawn, title="Recorded (rings) and measured here (dots)", label="S"),
        html.table(head.split(", "), rows, sortable=True, filterable=True, decimals=3),
        html.note(
            "Other data and another size give other scores: what can be compared is at most the "
            "order of the arms, and that only where differences are larger than their doubt."
        ),
    )


def _spread(values: Sequence[float]) -> Html | None:
    if len(values) < 2:
        return None
    return html.unbroken(f"{min(values):.3f} – {max(values):.3f}")


def runs(sweep: Sweep, entries: Sequence[Entry], rows: Sequence[Row]) -> Html:
    """Every planned run and where it stands."""
    of_run = {row["run"]: row for row in rows}
    listed = []
    for entry in entries:
        for run, state in zip(entry.runs, entry.states, strict=True):
            row = of_run.get(run.folder)
            start = None if run.after is None else sweep.runs[run.after].label
            told = html.tag("span", state.status, class_="good" if state.status == "done" else None)
            listed.append(
                [
                    run.index,
                    html.unbroken(run.label),
                    run.group,
                    told,
                    state.step,
                    run.updates,
                    state.S,
                    row and row["best_step"],
                    row and row["attempts"],
                    start and html.unbroken(start),
                    html.tag("span", run.folder, class_="hash unbroken"),
                    str((row and row["commit"]) or "")[:10] or None,
                    state.note or None,
                ]
            )
    head = (
        "n, run, group, status, step, of, best S (validation), at step, starts, starts from, folder, "
        "commit, remark"
    )
    return html.table(head.split(", "), listed, sortable=True, filterable=True, decimals=3)


def skipped(sweep: Sweep) -> Html:
    """Combinations that cannot be, and why."""
    listed = [[html.unbroken(s.what), s.why] for s in sweep.skipped]
    return html.table(["combination", "why"], listed, filterable=len(listed) > 9)
