"""The parts of a campaign's page: tables and pictures of what ``standing`` found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from pipeline.base import html
from pipeline.base.html import Html
from trainer.campaign.charts import Mark, Strip, strips
from trainer.campaign.recorded import Recorded
from trainer.campaign.standing import REFERENCE, Board, Entry, Line
from trainer.campaign.sweep import Sweep
from trainer.retrieval.compare import LEAST_SEEDS, METRICS

Row = Mapping[str, Any]
GREY = 5
DOUBT = 0.05  # of a 95 % interval
BLOCKS = "; there are intervals by 10-s blocks, which tell nothing of other recordings"
NOTHING = "No run of this campaign is finished and scored yet."


def leaderboards(boards: Sequence[Board]) -> Html:
    """A picture and a table for each protocol and split; the first one is open."""
    if not boards:
        return html.note(NOTHING)
    parts: list[Html] = [
        html.note(
            "Fractions. S: the smaller R@10 of both directions, mean of the seeds. What its 95 % "
            "interval is of stands beside it: recordings drawn anew, or 10-s blocks of them where "
            "they are few; of several seeds these, too. That of one seed omits the doubt of training, "
            "and is too narrow to set arms apart. "
            "“Without copies”: queries whose music does not come again in their recording. Rank: "
            "among entries of one setting that have the same finished seeds and differ in nothing "
            "but the arm; the others say what stands between. Floors need no training."
        ),
        *_commits(boards),
    ]
    for i, found in enumerate(boards):
        head = html.join(html.tag("b", found.title), _summary(found))
        parts.append(html.folded(head, _picture(found), _table(found), opened=i == 0))
    return html.join(*parts)


def _commits(boards: Sequence[Board]) -> list[Html]:
    """A word where the runs are not of one commit: no signature holds the code."""
    rows = [row for found in boards for line in found.lines for row in line.rows]
    of_run = {row["run"]: str(row["commit"] or "unknown")[:10] for row in rows}
    counted = Counter(of_run.values()).most_common()
    if len(counted) < 2:
        return []
    told = ", ".join(f"{commit} ({n} runs)" for commit, n in counted)
    text = (
        f"These runs were trained by {len(counted)} commits of the code: {told}. Equal settings and "
        "data are seen to; what was changed in the code between them may be in the differences."
    )
    return [html.note(text)]


def _summary(found: Board) -> Html:
    row = found.lines[0].rows[0]
    return html.tag(
        "span",
        f" {row['queries']:,} queries, {row['recordings']} recordings, chance of R@10 "
        f"{html.number(row['chance_R10'])}{BLOCKS if found.by_blocks else ''}",
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
    head = ["rank", "arm", *(["setting"] if settings else []), "seeds", "S", "from", "to", "of"]
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
        row += [html.unbroken(line.interval_of or html.DASH)]
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
        row += [r["S"], *span, html.unbroken(r["ci_kind"] if r["ci95"]["S"] else html.DASH)]
        row += [None, None, None, None, *([None] * 3 if best is not None else [])]
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
            f"recordings (“drawn” says how many there are). Drawn faintly: nothing may be stated. "
            f"{_by_chance(boards)}"
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


def _by_chance(boards: Sequence[Board]) -> str:
    """How many comparisons there are, and how many would be stated if nothing mattered."""
    found = [each for b in boards for line in b.lines for each in line.against.values()]
    able = sum(_may_be_stated(each) for each in found) * len(METRICS)
    text = (
        f"There are {len(found) * len(METRICS):,} comparisons on this page, {len(METRICS)} scores of "
        f"each pair; {able:,} of them have seeds and recordings enough to be stated."
    )
    if able:
        text += (
            " They are not corrected for their number: if no arm differed from what it is paired "
            f"with, about {DOUBT * able:.1f} of them would be stated by chance alone (5 % of each)."
        )
    return text


def _may_be_stated(found: Mapping[str, Any]) -> bool:
    enough = zip(found["seeds"], found["trained"], strict=True)
    return found["unit"] == "recordings" and all(k >= LEAST_SEEDS or not t for k, t in enough)


def beside(recorded: Recorded, boards: Sequence[Board]) -> Html:
    """The paper's figures beside those of here, under its protocol, on the split that it reports."""
    same = [b for b in boards if (b.protocol, b.split) == (recorded.protocol, recorded.split)]
    lines = same[0].lines if same else ()
    rows: list[list[object]] = []
    drawn: list[Strip] = []
    shown: set[int] = set()
    known, ranks = recorded.lines(), recorded.ranks()
    for label in sorted(known, key=lambda label: -fmean(r.S for r in known[label])):
        theirs, one = known[label], known[label][0]
        epochs = recorded.epochs_of(one)
        mine: list[Line | None] = [x for x in lines if x.entry.is_of(one.arm, one.schedule, epochs)]
        for line in mine or [None]:
            own = _figures(line)
            shown.add(id(line))
            rows.append(
                [
                    html.unbroken(one.shown),
                    ranks[label],
                    fmean(r.S for r in theirs),
                    epochs,
                    recorded.updates_of(one),
                    *own[:5],
                    _spread([r.S for r in theirs]),
                    *((one.a2m, one.m2a, one.epoch) if len(theirs) == 1 else [None] * 3),
                    *own[5:],
                    html.unbroken("; ".join(r.remark for r in theirs if r.remark) or html.DASH),
                ]
            )
            marks = [Mark(x=r.S, tip=f"recorded: {r.S:.3f}", colour=1, hollow=True) for r in theirs]
            marks += [
                Mark(x=r["S"], tip=f"here: {r['S']:.3f}") for r in (line.rows if line else ())
            ]
            drawn.append(Strip(name=one.shown, marks=tuple(marks)))
    head = (
        "recorded, rank, S, epochs, updates, arm here, rank here, S here, epochs here, updates here, "
        "range, a→m, m→a, best epoch, range here, a→m here, m→a here, remark"
    )
    arms = {row.arm for row in recorded.rows}
    left = [
        f"{x.entry.shown} ({x.entry.epochs} epochs)"
        for x in lines
        if id(x) not in shown and x.entry.arm in arms and not x.entry.is_stage
    ]
    alone = f"Nothing recorded has the schedule and number of epochs of: {', '.join(left)}."
    return html.join(
        html.tag("p", f"{recorded.title}. {recorded.corpus}, protocol {recorded.protocol}."),
        html.note(recorded.note.strip()),
        html.note(f"Source: {recorded.source}"),
        strips(drawn, title="Recorded (rings) and measured here (dots)", label="S"),
        html.table(head.split(", "), rows, sortable=True, filterable=True, decimals=3),
        html.note(
            "Rank: among recorded figures of one schedule and number of epochs; equal scores have "
            "equal ranks, and what leaks has none. "
            "Other data, another size and other budgets (epochs, updates) give other scores: what "
            "can be compared is at most the order of the arms, and that only where differences are "
            "larger than their doubt."
        ),
        html.note(alone) if left else None,
    )


def _figures(line: Line | None) -> list[object]:
    """What was measured here, and by how much training."""
    if line is None:
        return [None] * 8
    entry = line.entry
    return [
        html.unbroken(entry.shown),
        line.rank,
        line.S,
        entry.epochs,
        entry.runs[0].updates,
        _spread([row["S"] for row in line.rows]),
        line.mean("a2m_R10"),
        line.mean("m2a_R10"),
    ]


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
