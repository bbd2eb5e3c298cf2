"""A campaign's runs as pictures: how they learned, descriptor by mechanism, what a score cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from pipeline.base import charts, html
from pipeline.base.html import Html
from trainer.campaign.charts import Cell, Spot, heat, spots
from trainer.campaign.recorded import Recorded, RecordedRow
from trainer.campaign.standing import REFERENCE, Board, Entry

Row = Mapping[str, Any]
SHADE = 0.15  # difference of S that is drawn in full colour


def curves(entries: Sequence[Entry], rows: Sequence[Row], recorded: Recorded | None) -> Html:
    """S on the validation split, and the training loss, epoch by epoch; a panel an entry."""
    logs = {row["run"]: row["curve"] or [] for row in rows}
    known = recorded.lines() if recorded else {}
    made = {"S": [_curve(e, logs, "S") for e in entries]}
    made["loss"] = [_curve(e, logs, "loss") for e in entries]
    tops = [float(np.max(s.y)) for s in made["S"] if s]
    others = [_recorded_curve(e, known, False) for e in entries]
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
                shown += _recorded_curve(entry, known, base is None)
            title, bounds = entry.shown, (0.0, top) if what == "S" else None
            panels[what].append(
                charts.lines(shown, title=title, x="epoch", y=what, ticks=ticks, bounds=bounds)
            )
    rules = " or ".join(sorted({e.runs[0].config["evaluation"]["selection"] for e in entries}))
    names = ["this arm (band: its seeds)", REFERENCE]
    quoted = ["recorded by the paper, on its own data"] if known else []
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


def _recorded_curve(
    entry: Entry, known: Mapping[str, Sequence[RecordedRow]], gap: bool
) -> list[charts.Series]:
    for rows in known.values():
        if entry.is_of(rows[0].arm, rows[0].schedule) and rows[0].curve:
            x, y = zip(*rows[0].curve, strict=True)
            # Colours go by place: without d0 an empty line keeps the third one.
            empty = [charts.Series(name="", x=[x[0]], y=[float("nan")])] if gap else []
            return [*empty, charts.Series(name="recorded", x=x, y=y)]
    return []


def heat_maps(found: Board) -> Html | None:
    """S of arms that are one descriptor by one mechanism; none where there are fewer than three."""
    parts: list[Html] = []
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
        base = next((x for x in found.lines if x.entry.arm == REFERENCE and x.rank), None)
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
        parts.append(heat(names[0], names[1], cells, title=title))
    if not parts:
        return None
    against = f"{REFERENCE} (nothing added)" if base else "the mean of all"
    return html.join(
        html.note(
            f"Blue is above {against}, {html.number(middle)}; orange is below; full colour is "
            f"{SHADE:.2f}. Colour is no statement: see Differences. An asterisk marks what is not "
            "comparable with the rest."
        ),
        *parts,
    )


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
                    colour=1 if line.entry.label == REFERENCE else 0,
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
            f"from is counted. The other work of the machine is in them.{several}"
        ),
        spots(shown, title=found.title, x="minutes of training", y="S") if shown else None,
        html.folded("numbers", html.table(head.split(", "), rows, sortable=True, filterable=True)),
    )


def _bytes(value: int | None) -> Html | None:
    return None if value is None else html.unbroken(html.size(value))
