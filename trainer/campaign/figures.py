"""A campaign's runs as pictures: learning curves, descriptor by mechanism, cost, what seeds change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from pipeline.base import charts, html
from pipeline.base.html import Html
from trainer.campaign.charts import Cell, Mark, Spot, Strip, heat, spots, strips
from trainer.campaign.comparable import SEEDS
from trainer.campaign.recorded import Recorded, RecordedRow
from trainer.campaign.standing import REFERENCE, Board, Entry, Line

Row = Mapping[str, Any]
GREY = 5
SHADE = 0.15  # difference of S that is drawn in full colour


def curves(entries: Sequence[Entry], rows: Sequence[Row], recorded: Recorded | None) -> Html:
    """S on the validation split, and the training loss, epoch by epoch; a panel an entry."""
    logs = {row["run"]: row["curve"] or [] for row in rows}
    made = {"S": [_curve(e, logs, "S") for e in entries]}
    made["loss"] = [_curve(e, logs, "loss") for e in entries]
    tops = [float(np.max(s.y)) for s in made["S"] if s]
    others = [_recorded_curve(e, recorded, False) for e in entries]
    if not tops:
        return html.note("No epoch of any run was scored yet.")
    top = max([*tops, *(float(np.max(s.y)) for own in others for s in own)])
    panels: dict[str, list[Html]] = {"S": [], "loss": []}
    ticks = {float(e): str(e) for e in range(0, 1001, 1 if _longest(logs) < 9 else 10)}
    for what, own in made.items():
        for entry, series in zip(entries, own, strict=True):
            if series is None:
                continue
            base = next(
                (
                    s
                    for e, s in zip(entries, own, strict=True)
                    if s and e.arm == REFERENCE and e.cohort == entry.cohort and e is not entry
                    and e.runs[0].updates == entry.runs[0].updates
                ),
                None,
            )  # fmt: skip
            shown = [series, *([base] if base else [])]
            if what == "S":
                shown += _recorded_curve(entry, recorded, base is None)
            title, bounds = entry.shown, (0.0, top) if what == "S" else None
            panels[what].append(
                charts.lines(shown, title=title, x="epoch", y=what, ticks=ticks, bounds=bounds)
            )
    rules = " or ".join(sorted({e.runs[0].config["evaluation"]["selection"] for e in entries}))
    names = ["this arm (band: its seeds)", REFERENCE]
    quoted = ["recorded by the paper, on its own data and budget"] if any(others) else []
    return html.join(
        html.note(
            f"S after every scored epoch on the validation split, under the {rules} protocol, which "
            "chooses the best step; unfinished runs included. Losses are comparable between arms "
            "only where these have the same loss terms."
        ),
        charts.legend([*names, *quoted]),
        charts.panels(*panels["S"]),
        html.folded("training loss", charts.legend(names), charts.panels(*panels["loss"])),
    )


def _longest(logs: Mapping[str, Sequence[Row]]) -> int:
    return max((p["epoch"] for log in logs.values() for p in log), default=0)


def _curve(entry: Entry, logs: Mapping[str, Sequence[Row]], what: str) -> charts.Series | None:
    """Mean over the runs that have the epoch, and their range."""
    at: dict[int, list[float]] = {}
    for run in entry.runs:
        for point in logs.get(run.folder, []):
            if point[what] is not None:
                at.setdefault(point["epoch"], []).append(point[what])
    if not at:
        return None
    x = sorted(at)
    several = len(entry.runs) > 1
    return charts.Series(
        name=entry.label,
        x=x,
        y=[fmean(at[e]) for e in x],
        low=[min(at[e]) for e in x] if several else None,
        high=[max(at[e]) for e in x] if several else None,
    )


def _recorded_curve(entry: Entry, recorded: Recorded | None, gap: bool) -> list[charts.Series]:
    """The paper's curve of the arm: of as many epochs if there is one."""
    found: list[tuple[int, RecordedRow]] = []
    for row in recorded.rows if recorded else ():
        epochs = recorded.epochs_of(row) if recorded else None
        if row.curve and entry.is_of(row.arm, row.schedule, epochs):
            found.append((epochs or 0, row))
    if not found:
        return []
    epochs, row = min(found, key=lambda each: each[0] != entry.epochs)
    x, y = zip(*row.curve, strict=True)
    # Colours go by place: without d0 an empty line keeps the third one.
    empty = [charts.Series(name="", x=[x[0]], y=[float("nan")])] if gap else []
    return [*empty, charts.Series(name=f"recorded, {epochs} epochs", x=x, y=y)]


def heat_maps(found: Board) -> Html | None:
    """S of arms that are one descriptor by one mechanism; none where there are fewer than three."""
    parts: list[Html] = []
    full = f"full colour is {SHADE:.2f}. Colour is no statement: see Differences."
    for cohort in dict.fromkeys(line.entry.cohort for line in found.lines):
        lines = [
            line
            for line in found.lines
            if line.entry.cohort == cohort
            and len(line.entry.pairs) == 1
            and line.entry.runs[0].config["control"]["name"] == "real"
        ]
        if len(lines) < 3:
            continue
        base = next((x for x in found.lines if _is_base(x, cohort)), None)
        middle = base.S if base else fmean(line.S for line in lines)
        cells: dict[tuple[str, str], Cell] = {}
        for line in sorted(lines, key=lambda line: line.S):  # of several variants the best stays
            (pair,) = line.entry.pairs
            shade = (line.S - middle) / SHADE
            tip = f"{line.entry.shown}: {line.S:.3f}, {line.S - middle:+.3f}"
            mark = " *" if line.verdict.kind != "yes" else ""
            place = pair["descriptor"], pair["mechanism"]
            cells[place] = Cell(shown=f"{line.S:.3f}{mark}", shade=shade, tip=tip)
        title = f"S, {found.title.lower()}{f', {cohort}' if cohort else ''}"
        names = [list(dict.fromkeys(key[i] for key in sorted(cells))) for i in (0, 1)]
        against = f"{REFERENCE} (nothing added)" if base else "the mean of all"
        text = f"Blue is above {against}, {html.number(middle)}; orange is below; {full}"
        stars = " An asterisk marks what is not comparable with the rest."
        parts.append(html.note(text, stars if any("*" in c.shown for c in cells.values()) else ""))
        parts.append(heat(names[0], names[1], cells, title=title))
    return html.join(*parts) if parts else None


def _is_base(line: Line, cohort: str) -> bool:
    """Whether it is this cohort's ``d0``; other seeds than most have do not matter to a colour."""
    own = line.entry.arm == REFERENCE and line.entry.cohort == cohort
    return own and line.verdict.kind != "no" and set(line.verdict.fields) <= {SEEDS}


def cost(found: Board) -> Html:
    """What a score cost to train."""
    shown, rows = [], []
    for line in found.lines:
        seconds = line.mean("train_seconds")
        first = line.rows[0]
        if seconds is not None and not line.entry.leaks:
            shown.append(
                Spot(
                    name=line.entry.label, x=seconds / 60, y=line.S,
                    colour=1 if line.entry.arm == REFERENCE else 0,
                )
            )  # fmt: skip
        rows.append(
            [
                html.unbroken(line.entry.shown),
                line.S,
                first["trainable"],
                first["parameters"],
                first["updates"],
                first["batch_size"],
                None if seconds is None else seconds / 60,
                line.mean("segments_per_s"),
                *(_bytes(first[f"peak_{side}"]) for side in ("host", "device")),
                f"{first['device']}, {first['threads']} threads, {first['precision']}",
            ]
        )
    head = (
        "arm, S, trained parameters, parameters, updates, batch size, minutes, segments/s, memory, "
        "of the GPU, machine"
    )
    devices = {row["device"] for line in found.lines for row in line.rows}
    several = f" There were {len(devices)} kinds of device: times do not compare." * (
        len(devices) > 1
    )
    return html.join(
        html.note(
            "Minutes of training alone, of one run: neither scoring nor the run that it started "
            f"from is counted. The other work of the machine is in them.{several} A point without "
            "room for its name tells it when the pointer rests on it; all are in the numbers below."
        ),
        spots(shown, title=found.title, x="minutes of training", y="S") if shown else None,
        html.folded("numbers", html.table(head.split(", "), rows, sortable=True, filterable=True)),
    )


def seeds(found: Board) -> Html:
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


def _bytes(value: int | None) -> Html | None:
    return None if value is None else html.unbroken(html.size(value))
