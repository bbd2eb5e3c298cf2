"""A campaign as one self-contained page: what was measured, how sure it is, and what it is not.

Everything on it comes from the plan, the run folders and the floors beside them; a page can be written
at any time, of a campaign that is half done, too. What is unfinished is shown and ranked with nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base import html
from pipeline.base.errors import ConfigError, MissingExtra, RunError, XmodalError
from pipeline.base.files import atomic_write
from pipeline.base.html import Html, Section
from pipeline.store.reader import Store
from trainer.campaign import figures, sections
from trainer.campaign.ledger import build_ledger
from trainer.campaign.recorded import Recorded, read_recorded
from trainer.campaign.standing import Board, Entry, board, entries_of
from trainer.campaign.state import State, states
from trainer.campaign.sweep import Sweep
from trainer.floors import BASELINE_FOLDER, Floor
from trainer.records import common_seed, file_name, pool_seed, read_scored
from trainer.retrieval.baselines import BASELINES
from trainer.retrieval.compare import LEAST_RECORDINGS, LEAST_SEEDS, Scored
from trainer.retrieval.protocols import PROTOCOLS

REPORT = "report.html"
SPLITS = ("test", "validation")
FIRST = "strict"
EVERY = "all"  # instead of a floor's name
SMALL = 2_000  # segments of both splits; of as many, all floors together take minutes
QUICK = ("chroma", "a4", "register")
"""Floors that take at most three minutes for MAESTRO's 31,000 segments of validation and test, on two
cores. Features take 1–2 ms a segment, those of ``cqt`` 39; ranks are a product of all with all, which
at that size takes ``flux``, ``cqt`` and ``chroma-dtw`` about 20 minutes (from 3,000 segments)."""
Row = Mapping[str, Any]
Say = Callable[[str], None]


def write_report(
    sweep: Sweep,
    target: Path | None = None,
    *,
    floors: Sequence[str] | None = None,
    command: str = "",
    say: Say = lambda text: None,
) -> Path:
    """Write the page; default: ``report.html`` in the campaign's folder. Returns where it is."""
    target = sweep.folder / REPORT if target is None else target
    page = campaign_page(sweep, floors=floors, command=command, say=say)
    with atomic_write(target, "w") as handle:
        handle.write(page)
    return target


def campaign_page(
    sweep: Sweep,
    *,
    floors: Sequence[str] | None = None,
    command: str = "",
    say: Say = lambda text: None,
) -> str:
    """The whole document.

    Parameters
    ----------
    floors : names of training-free baselines, or ``all``; they are computed once for a store, and
        left out where its folder or the packages for that are missing. Default: all where validation
        and test have at most :data:`SMALL` segments; else those scored before, and :data:`QUICK`
    command : that makes this page, for telling how to add what is left out
    say : told what takes time and what does not read; all of the latter is on the page, too
    """
    problems: list[str] = []

    def tell(text: str) -> None:
        if text not in problems:
            problems.append(text)
            say(text)

    found = states(sweep)
    entries = entries_of(sweep, found)
    table, told = build_ledger(Path(sweep.out), {run.folder for run in sweep.runs})
    for text in told:
        tell(text)
    rows = table.to_pylist()
    command = command or f"xmodal-sweep report {sweep.name}"
    boards = _boards(sweep, entries, rows, floors, command, tell, say)
    recorded = _recorded(sweep, tell)
    parts = [
        Section(title="Leaderboard", body=sections.leaderboards(boards)),
        Section(title="Differences", body=sections.differences(boards)),
        Section(title="Learning curves", body=figures.curves(entries, rows, recorded)),
    ]
    main = boards[0] if boards else None
    optional = [
        ("Descriptor × mechanism", main and figures.heat_maps(main)),
        ("Cost against score", main and figures.cost(main)),
        ("Seeds", main and figures.seeds(main)),
        ("Recorded by the paper", recorded and sections.beside(recorded, boards)),
    ]
    parts += [Section(title=title, body=body) for title, body in optional if body]
    parts.append(Section(title="Runs", body=sections.runs(sweep, entries, rows)))
    if sweep.skipped:
        parts.append(Section(title="Left out of the plan", body=sections.skipped(sweep)))
    if problems:
        listed = [html.tag("li", text) for text in problems]
        parts.append(Section(title="What is missing here", body=html.tag("ul", *listed)))
    return html.page(sweep.title, _lead(sweep, entries, found, rows, main), parts)


def boards_of(
    sweep: Sweep, floors: Sequence[str] | None = None, say: Say = lambda text: None
) -> list[Board]:
    """What the page's leaderboards show, as values; arguments as for :func:`campaign_page`."""
    table, told = build_ledger(Path(sweep.out), {run.folder for run in sweep.runs})
    for text in told:
        say(text)
    entries = entries_of(sweep, states(sweep))
    return _boards(sweep, entries, table.to_pylist(), floors, "", say, say)


def _boards(
    sweep: Sweep, entries: Sequence[Entry], rows: Sequence[Row], floors: Sequence[str] | None,
    command: str, tell: Say, say: Say,
) -> list[Board]:  # fmt: skip
    """Every split under every protocol that any run was scored by; what is reported first, first."""
    finished = {row["run"] for row in rows if row["status"] == "trained"}
    tested = {row["run"] for row in rows if row["split"] == "test"}
    found = []
    for split in SPLITS if finished <= tested else SPLITS[::-1]:
        scored = {row["protocol"] for row in rows if row["split"] == split}
        order = sorted((n for n, _ in PROTOCOLS.items() if n in scored), key=lambda n: n != FIRST)
        if not order:
            continue
        beside = floors_of(sweep, split, order, floors, command, tell, say)
        for protocol in order:
            say(f"{protocol} protocol, {split} split")
            made = board(sweep, entries, rows, protocol, split, floors=beside[protocol], say=tell)
            if made.lines:
                found.append(made)
    return found


def floors_of(
    sweep: Sweep, split: str, protocols: Sequence[str], names: Sequence[str] | None, command: str,
    tell: Say, say: Say,
) -> dict[str, dict[str, Scored]]:  # fmt: skip
    """Training-free baselines on the campaign's store, by protocol; none where it is not there.

    ``tell`` takes what is missing, ``say`` how far those are that are computed now.
    """
    found: dict[str, dict[str, Scored]] = {protocol: {} for protocol in protocols}
    try:
        store = Store.open(Path(sweep.store))
    except XmodalError as error:
        tell(f"without training-free floors: {error}")
        return found
    sizes = {run.config["evaluation"]["pool_size"] for run in sweep.runs}
    if len(sizes) != 1:
        tell(f"without training-free floors: the runs have pools of {sorted(sizes)} candidates")
        return found
    cache = Path(sweep.out) / BASELINE_FOLDER
    every = [name for name, _ in BASELINES.items()]
    segments = sum(str(s) in SPLITS for s in store.segments.split)
    made = (every if segments <= SMALL else QUICK) if names is None else names
    left: list[str] = []
    for name in every if names is None or EVERY in names else dict.fromkeys(names):
        floor = Floor(
            name, store, split, cache=cache, pool_size=min(sizes), progress=_telling(name, say)
        )
        try:
            for protocol in protocols:  # its features are computed once
                if name in made or EVERY in made or _is_kept(floor, protocol):
                    found[protocol][name] = floor.scored(protocol, common_seed(protocol))
                elif name not in left:
                    left.append(name)
        except MissingExtra as error:
            tell(f"without the floor {name}: {error}")
        except XmodalError as error:
            tell(f"without training-free floors on the {split} split: {error}")
            break
    if left:
        tell(
            f"without the floor{'s' * (len(left) > 1)} {', '.join(left)}, which would take long: "
            f"validation and test have {segments:,} segments. They are computed once, and stand on "
            f"every later page, after: {command} --floor {EVERY}"
        )
    return found


def _is_kept(floor: Floor, protocol: str) -> bool:
    """Whether its scores were made before."""
    seed = pool_seed(protocol, common_seed(protocol), PROTOCOLS.get(protocol).seed)
    try:
        read_scored(floor.folder / file_name(protocol, floor.split, seed), floor.name, None)
    except RunError:
        return False
    return True


def _telling(name: str, say: Say) -> Callable[[int, int], None]:
    """Progress as a line at the start and every thousand segments."""
    told: set[int] = set()

    def progress(done: int, total: int) -> None:
        if done // 1000 not in told:
            told.add(done // 1000)
            say(f"floor {name}, made once for this store: {done:,} of {total:,} segments")

    return progress


def _recorded(sweep: Sweep, tell: Say) -> Recorded | None:
    if sweep.reference is None:
        return None
    try:
        return read_recorded(sweep.reference)
    except ConfigError as error:
        tell(f"without the paper's figures: {error}")
        return None


def _lead(
    sweep: Sweep,
    entries: Sequence[Entry],
    found: Sequence[State],
    rows: Sequence[Row],
    main: Board | None,
) -> Html:
    done = sum(state.status == "done" for state in found)
    counted = Counter(state.status for state in found)
    rest = ", ".join(f"{n} {status}" for status, n in counted.items() if status != "done")
    seeds = len({run.seed for run in sweep.runs})
    updates = sorted({run.updates for run in sweep.runs})
    span = f"{updates[0]:,}" if len(updates) == 1 else f"{updates[0]:,} – {updates[-1]:,}"
    return html.join(
        html.tag("p", sweep.summary, class_="lead") if sweep.summary else None,
        html.tiles(
            [
                (f"{done} of {len(sweep.runs)}", f"runs are done{f'; {rest}' if rest else ''}"),
                (str(len({entry.arm for entry in entries})), "arms"),
                (str(seeds), "seeds" if seeds != 1 else "seed"),
                (span if updates else "0", "updates a run"),
                *_amounts(sweep, main),
            ]
        ),
        html.tag("p", _honest(sweep, rows, main)),
        html.note(*_doubts(entries)),
    )


def _amounts(sweep: Sweep, main: Board | None) -> list[tuple[object, str]]:
    """How much data there is, by split where the store is still there."""
    try:
        segments = Store.open(Path(sweep.store)).segments
        counts = Counter(str(split) for split in segments.split)
        shown = [f"{counts[s]:,}" for s in ("train", "validation", "test") if counts[s]]
        total = len(set(map(int, segments.recording)))
        return [(f"{total:,}", "recordings"), (" / ".join(shown), "segments of 4 s, by split")]
    except (XmodalError, OSError):
        if main is None:
            return []
        row = main.lines[0].rows[0]
        what = f"segments, {row['recordings']} recordings scored ({main.split})"
        return [(f"{row['segments']:,}", what)]


def _honest(sweep: Sweep, rows: Sequence[Row], main: Board | None) -> str:
    """What data these figures are of, and what they are not."""
    sizes = sorted({run.config["size"] for run in sweep.runs})
    corpus = sweep.store_name.rpartition("-")[0]
    text = [f"All of this is the corpus “{corpus}”, with models of size {' and '.join(sizes)}."]
    if main is not None:
        scored = main.lines[0].rows[0]
        text.append(
            f"What stands first below is scored on {scored['recordings']} recordings "
            f"({scored['queries']:,} queries) of its {main.split} split."
        )
    if corpus != "maestro" or sizes != ["base"]:
        text.append(
            "The paper's figures are of MAESTRO (962 recordings to train on) and a model of the "
            "size base, trained for far longer: what stands here says how the arms behave at this "
            "size on this data, and confirms or refutes nothing of the paper's."
        )
    text.append("The best step was chosen on the validation split; the test split chose nothing.")
    return " ".join(text)


def _doubts(entries: Sequence[Entry]) -> list[object]:
    few = [e for e in entries if sum(s.status == "done" for s in e.states) < LEAST_SEEDS]
    text = (
        f"A difference is stated with at least {LEAST_SEEDS} seeds of each trained arm, at least "
        f"{LEAST_RECORDINGS} recordings and a 95 % interval without 0; none is stated from one seed."
    )
    if few:
        all_of = "all" if len(few) == len(entries) else f"{len(few)} of {len(entries)}"
        text += f" Here {all_of} entries have fewer than {LEAST_SEEDS} finished seeds."
    if any(entry.leaks for entry in entries):
        text += (
            " Arms marked (leaks) are given the item that they are asked to find: their scores are "
            "no retrieval scores, and are ranked with nothing."
        )
    return [text]
