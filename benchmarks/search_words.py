"""What README and docs/search.md say of search: what it finds, what it costs."""

from __future__ import annotations

from typing import Any

from benchmarks.cells import load, machine, row, times
from benchmarks.speed import Cells, goal

NAMES = {"flux": "training-free (`flux`)", "d0": "trained (`d0`, tiny, two minutes)"}


def share(value: float) -> str:
    """A share of something, in per cent."""
    return f"{100 * value:.1f} %"


def alarms(found: dict[str, Any]) -> str:
    """A share of false alarms with its interval."""
    low, high = found["ci95"]
    return f"{share(found['false_alarms'])} [{100 * low:.1f}–{100 * high:.1f}]"


def found() -> str:
    """What each way finds of the real recordings, and what it says to find of what is not there."""
    data = load("search-maps")
    ways = [data[name] for name in NAMES]
    lines = [row("real recordings (MAPS)", *NAMES.values()), row("---", *("---" for _ in NAMES))]

    def add(what: str, cell: Any) -> None:
        lines.append(row(what, *(cell(way) for way in ways)))

    for side, what in (("midi", "its own MIDI file"), ("audio", "its own sound")):
        add(
            f"each of {data['recordings']} recordings by {what}: first, or tied with another of the "
            "same piece",
            lambda way, side=side: share(way["whole"][side]["tied"]),
        )
        add(
            f"{ways[0]['excerpts'][side]['queries']} excerpts of 10 s by {what}: put within 1 s of a "
            "place with the same notes (in brackets: of recordings that training did not see)",
            lambda way, side=side: (
                f"{share(way['excerpts'][side]['placed'])} "
                f"({share(way['excerpts'][side]['placed_unseen'])})"
            ),
        )
        add(
            "… of these called found (and what was found is other music)",
            lambda way, side=side: (
                f"{share(way['excerpts'][side]['found'])} ({way['excerpts'][side]['wrong']})"
            ),
        )
    tempi = ", ".join(f"× {tempo}" for tempo in ways[0]["tempi"])
    add(
        f"whole MIDI files at other tempi ({tempi}): first or tied",
        lambda way: ", ".join(share(found["tied"]) for found in way["tempi"].values()),
    )
    lengths = ", ".join(
        f"{f['queries']} {name if name == 'whole' else f'of {name}'}"
        for name, f in ways[0]["absent"].items()
    )
    add(
        "**false alarms**: music that is not there (MAESTRO performances, no work in common: "
        f"{lengths}), called found at `--rate {data['rate']:g}` [95 % interval]",
        lambda way: ", ".join(alarms(f) for f in way["absent"].values()),
    )
    add(
        "… of these, how many are given a share of at most 5 %, 10 %, 50 %",
        lambda way: "; ".join(
            ", ".join(share(f["at"][level]) for level in ("0.05", "0.1", "0.5"))
            for f in way["absent"].values()
        ),
    )
    sound = ways[0]["absent_sound"]["queries"]
    add(
        f"… {sound} recordings of the demo, other pieces, as sound, at `--rate {data['rate']:g}`",
        lambda way: alarms(way["absent_sound"]),
    )
    return "\n".join([*lines, "", f"{machine(data)}; `python -m benchmarks.search_quality`."])


def costs() -> str:
    """What indexing, asking and approximate neighbours cost, beside the goals."""
    data = load("search")
    cells: list[Cells] = []
    for name, what in NAMES.items():
        index = data[f"index_{name}"]
        cells.append(
            (
                f"indexing the demo's {index['rows']:,} segments, {what}",
                f"{index['times_real_time']:.0f} × real time",
                50.0,
            )
        )
    for name, what in NAMES.items():
        for side, of in (("midi", "notes"), ("audio", "sound")):
            found = data[f"query_{name}"][side]
            cells.append(
                (
                    f"a minute of {of} over {found['rows']:,} segments, exactly, {what}",
                    f"{found['seconds']:.2f} s",
                    -1.0,
                )
            )
    near = data["approximate"]
    cells += [
        (
            f"approximate against exact, one query at a time, {near['vectors']:,} vectors of "
            f"{near['width']}, {near['rounds']} queries",
            times(near),
            5.0,
        ),
        ("… of the ten nearest, found", f"{100 * near['recall']:.1f} %", 95.0),
    ]
    return "\n".join(
        [
            "| what | measured | goal | command |",
            "|---|---|---|---|",
            *(goal(*cell, "search") for cell in cells),
            "",
            f"The approximate index took {near['build_seconds']:.0f} s to build and "
            f"{near['bytes'] / 1e9:.2f} GB; the process grew by "
            f"{near['peak_growth_mib'] / 1024:.1f} GB meanwhile. {machine(data)}.",
        ]
    )
