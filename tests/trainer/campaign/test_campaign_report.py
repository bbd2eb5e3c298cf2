"""The page of a campaign: its figures are those of the records, and it says what it does not know."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from browser import by_arm, heads, open_page, parse, rows, section, words
from campaign_fakes import (
    QUALITY,
    SEEDS,
    planned,
    screening_of,
    sweep_of,
    write_run,
)

from pipeline.base.files import read_json
from trainer.campaign.report import campaign_page, write_report
from trainer.campaign.standing import interval_of
from trainer.campaign.sweep import PlannedRun, Sweep
from trainer.records import read_scored
from trainer.retrieval.compare import compare


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return screening_of(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(sweep: Sweep) -> ET.Element:
    return parse(campaign_page(sweep))


def records(sweep: Sweep, arm: str, name: str = "strict-test") -> list[dict[str, Any]]:
    return [
        read_json(sweep.path(r) / "evaluation" / f"{name}.json")
        for r in sweep.runs
        if r.arm == arm and r.group == "arms"
    ]


def test_the_leaderboard_has_the_scores_of_the_records(sweep: Sweep, page: ET.Element) -> None:
    part = section(page, "Leaderboard")
    titles = [words(s.find("b")) for s in part.iter("summary")]  # type: ignore[arg-type]
    assert titles == [
        "Strict protocol, test split", "Paper protocol, test split",
        "Strict protocol, validation split", "Paper protocol, validation split",
    ]  # fmt: skip
    for nth, name in enumerate(
        ("strict-test", "paper-test", "strict-validation", "paper-validation")
    ):
        table = by_arm(part, nth)
        for arm in ("d0", "a4r", "a4"):
            mean = fmean(r["S"] for r in records(sweep, arm, name))
            assert float(table[arm]["S"]) == pytest.approx(mean, abs=6e-4)
    assert table["a4r"]["seeds"] == "3 of 3"
    one = records(sweep, "a4")[0]
    row = by_arm(part)["a4"]
    shown = float(row["from"]), float(row["to"])
    assert shown == pytest.approx(tuple(one["ci95"]["S"]), abs=6e-4)
    assert float(row["R@1 a→m"]) == pytest.approx(one["a2m"]["R@1"], abs=6e-4)


def test_every_interval_says_what_it_is_of(sweep: Sweep, page: ET.Element) -> None:
    part = section(page, "Leaderboard")
    kinds = {arm: row["of"] for arm, row in by_arm(part).items()}
    assert records(sweep, "a4")[0]["ci_kind"] == "10-s blocks"  # of eight recordings
    assert {kinds[arm] for arm in ("a4", "d4r", "first stage")} == {"10-s blocks"}
    assert {kinds[arm] for arm in ("d0", "a4r", "d4a4")} == {"seeds, recordings"}
    for summary in part.iter("summary"):
        assert "there are intervals by 10-s blocks" in words(summary)
    assert "one seed omits the doubt of training" in words(part)


def test_boards_whose_intervals_are_all_of_recordings_say_nothing_of_blocks(tmp_path: Path) -> None:
    run = planned(0, "d0")
    write_run(tmp_path, run, recordings=24)
    part = section(parse(campaign_page(sweep_of(tmp_path, [run]))), "Leaderboard")
    assert by_arm(part)["d0"]["of"] == "recordings"
    assert not [s for s in part.iter("summary") if "blocks" in words(s)]


def test_runs_of_several_commits_are_told(tmp_path: Path) -> None:
    runs = [planned(i, arm) for i, arm in enumerate(("d0", "a4r", "a4"))]
    for run in runs:
        write_run(tmp_path, run)
    plan = sweep_of(tmp_path, runs)
    assert "commits" not in words(section(parse(campaign_page(plan)), "Leaderboard"))
    file = plan.path(runs[1]) / "run.json"
    file.write_text(json.dumps(read_json(file) | {"commit": "c0ffee" * 6}))
    text = words(section(parse(campaign_page(plan)), "Leaderboard"))
    assert "trained by 2 commits of the code: 0000000000 (2 runs), c0ffeec0ff (1 runs)" in text


def test_only_what_is_comparable_and_finished_is_ranked(sweep: Sweep, page: ET.Element) -> None:
    table = by_arm(section(page, "Leaderboard"))
    ranks = {arm: row["rank"] for arm, row in table.items()}
    assert set(ranks) == {"first stage", "d0", "a4", "a4r", "d4a4", "d4r", "d4a4cm (leaks)"}
    assert ranks["first stage"] == ranks["d4a4cm (leaks)"] == "–"
    S = {a: fmean(r["S"] for r in records(sweep, a)) for a in ("d0", "a4r", "d4a4")}
    for arm, score in S.items():
        assert ranks[arm] == str(1 + sum(other > score for other in S.values()))
        assert table[arm]["comparable"] == "comparable"
    assert ranks["a4"] == ranks["d4r"] == "–"  # of one seed, where three have three
    assert table["d4a4cm (leaks)"]["comparable"] == "set apart: leaks"
    assert table["first stage"]["comparable"].startswith(
        "caveats: a stage others start from, updates"
    )
    assert table["a4"]["comparable"] == "caveats: seeds"


@pytest.mark.parametrize("later", [0, 1])
def test_a_half_done_entry_is_not_ranked_beside_whole_ones(tmp_path: Path, later: int) -> None:
    runs = [planned(i, "d0", seed) for i, seed in enumerate(SEEDS)]
    runs += [planned(3 + i, "a4r", seed) for i, seed in enumerate(SEEDS)]
    for run in runs[: 4 + later]:
        write_run(tmp_path, run, quality=3.0 if run.arm == "a4r" else 0.3)
    table = by_arm(section(parse(campaign_page(sweep_of(tmp_path, runs))), "Leaderboard"))
    assert float(table["a4r"]["S"]) > float(table["d0"]["S"])
    assert (table["d0"]["rank"], table["d0"]["comparable"]) == ("1", "comparable")
    assert (table["a4r"]["rank"], table["a4r"]["comparable"]) == ("–", "caveats: seeds")
    assert table["a4r"]["seeds"] == f"{1 + later} of 3"


def test_stages_are_never_ranked_and_decide_nothing(tmp_path: Path) -> None:
    runs = [
        planned(0, "d0", group="foundation", label="stage 1", budget={"epochs": 5}),
        planned(1, "d0", group="foundation", label="stage 2", budget={"epochs": 5}, after=0),
        planned(2, "a4r", after=1),
    ]
    write_run(tmp_path, runs[0], quality=0.3)
    plan = sweep_of(tmp_path, runs)
    table = by_arm(section(parse(campaign_page(plan)), "Leaderboard"))
    assert table["stage 1"]["rank"] == "–"
    assert table["stage 1"]["comparable"] == "caveats: a stage others start from"
    start = write_run(tmp_path, runs[1], quality=0.3, start=tmp_path / runs[0].folder)
    write_run(tmp_path, runs[2], quality=0.2, start=start)
    table = by_arm(section(parse(campaign_page(plan)), "Leaderboard"))
    assert (table["a4r"]["rank"], table["a4r"]["comparable"]) == ("1", "comparable")
    assert {table[f"stage {n}"]["rank"] for n in (1, 2)} == {"–"}


def test_differences_are_paired_and_stated_only_from_three_seeds(
    sweep: Sweep, page: ET.Element
) -> None:
    def group(arm: str) -> list[Any]:
        return [
            read_scored(sweep.path(r) / "evaluation" / "strict-test", r.folder, r.seed)
            for r in sweep.runs
            if r.arm == arm and r.group == "arms"
        ]

    table = by_arm(section(page, "Leaderboard"))
    for arm in ("a4r", "d4a4", "a4", "d4r"):
        found = compare(group("d0"), group(arm))["S"]
        assert float(table[arm]["– d0"].replace("−", "-")) == pytest.approx(
            found["difference"], abs=6e-4
        )
    assert table["a4r"]["against d0"] == "higher"
    assert table["a4"]["against d0"] == "fewer than 3 seeds: nothing is stated"
    assert table["d4a4cm (leaks)"]["against d0"] == "leaks"
    assert table["d4a4cm (leaks)"]["– d0"] == table["d0"]["– d0"] == "–"
    told = rows(section(page, "Differences"))
    assert {row[0] for row in told} == {f"{a} – d0" for a in ("a4r", "d4a4", "a4", "d4r")}
    note = words(section(page, "Differences"))
    assert "Drawn faintly" in note
    # On each of four boards a4r, d4a4, a4 and d4r stand beside d0; two of them have three seeds.
    assert "There are 48 comparisons on this page, 3 scores of each pair; 24 of them" in note
    assert "about 1.2 of them would be stated by chance alone" in note


def test_what_is_not_finished_is_shown_as_such(sweep: Sweep, page: ET.Element) -> None:
    table = by_arm(section(page, "Runs"), name="run")
    assert len(table) == len(sweep.runs)
    assert table["a7, seed 42"]["status"] == "stopped"
    assert (table["a7, seed 42"]["step"], table["a7, seed 42"]["of"]) == ("21", "30")
    assert table["a8, seed 42"]["status"] == "missing"
    assert table["d0, seed 42"]["starts from"] == "first stage, seed 42"
    tiles = words(next(e for e in page.iter("div") if e.get("class") == "tiles"))
    assert tiles.startswith("13 of 15 runs are done; 1 stopped, 1 missing")
    assert "a7" in words(section(page, "Learning curves"))  # its log is worth seeing


def test_the_page_says_what_its_figures_are_not(page: ET.Element) -> None:
    header = words(next(page.iter("header")))
    assert "corpus “demo”, with models of size tiny" in header
    assert "8 recordings (160 queries) of its test split" in header
    assert "confirms or refutes nothing of the paper's" in header
    assert "none is stated from one seed" in header
    assert "Here 6 of 9 entries have fewer than 3 finished seeds" in header
    assert "(leaks)" in header


def test_pictures_have_the_data(sweep: Sweep, page: ET.Element) -> None:
    marks = [t.text or "" for t in section(page, "Leaderboard").iter("title")]
    for record, run in zip(records(sweep, "a4r"), SEEDS, strict=True):
        assert f"seed {run}: {record['S']:.3f}" in marks
    (heat,) = section(page, "Descriptor × mechanism").iter("svg")
    cells = {t.text or "" for t in heat.iter("title")}
    S = fmean(r["S"] for r in records(sweep, "a4r"))
    base = fmean(r["S"] for r in records(sweep, "d0"))
    assert f"a4r: {S:.3f}, {S - base:+.3f}" in cells
    names = [t.text for t in heat.iter("text")]
    assert {"A4", "D4", "concat", "reverse_xattn"} <= set(names)
    shades = {r.get("class"): r.get("fill-opacity") for r in heat.iter("rect")}
    assert {"cell up", "cell down", "cell flat"} == set(shades)
    spots = {
        (t.text or "").partition(":")[0] for t in section(page, "Cost against score").iter("title")
    }
    assert {"d0", "a4", "a4r", "d4a4"} <= spots
    assert "d4a4cm" not in spots
    curves = section(page, "Learning curves")
    assert len(list(curves.iter("figure"))) == 2 * 8  # all but the one that was not begun
    seeds = by_arm(section(page, "Seeds"))
    assert set(seeds) == {"d0", "a4r", "d4a4"}
    for seed, record in zip(SEEDS, records(sweep, "d4a4"), strict=True):
        assert float(seeds["d4a4"][f"seed {seed}"]) == pytest.approx(record["S"], abs=6e-4)


def test_the_papers_figures_stand_beside_those_of_here(sweep: Sweep, page: ET.Element) -> None:
    part = section(page, "Recorded by the paper")
    table = by_arm(part, name="recorded")
    ranks = {arm: row["rank"] for arm, row in table.items()}
    assert ranks.pop("d4a4cm (leaks)") == "–"
    assert list(ranks.values()) == "1 2 3 4 4 6 7 8 9 10 10 12".split()
    S = [table[arm]["S"] for arm in ("d4a4", "d0", "d4a4cm (leaks)")]
    assert S == ["0.698", "0.602", "0.524"]
    shown = [table["a4r"][name] for name in ("epochs", "updates", "epochs here", "updates here")]
    assert shown == ["5", "5,000", "3", "30"]
    mine = fmean(r["S"] for r in records(sweep, "a4r", "paper-validation"))
    assert float(table["a4r"]["S here"]) == pytest.approx(mine, abs=6e-4)
    assert table["a7"]["S here"] == "–"
    assert table["d0"]["arm here"] == "d0"  # not the stage that all start from
    assert "Source: Phideus" in words(part)


def test_what_is_left_out_is_told_with_its_reason(page: ET.Element) -> None:
    assert rows(section(page, "Left out of the plan")) == [
        ["D1 concat", "D1 is one vector a segment; concat wants one a frame"]
    ]
    assert "without training-free floors" in words(section(page, "What is missing here"))


def sweep_without(sweep: Sweep, label: str) -> Sweep:
    return dataclasses.replace(sweep, runs=tuple(r for r in sweep.runs if r.label != label))


def test_damage_is_told_on_the_page_and_leaves_the_rest(tmp_path: Path) -> None:
    whole = screening_of(tmp_path)
    folders = {r.label: whole.path(r) for r in whole.runs}
    (folders["a4r, seed 42"] / "run.json").write_text("{")
    (folders["a4r, seed 123"] / "evaluation" / "strict-test.parquet").write_bytes(b"PAR1")
    (folders["d4r, seed 42"] / "evaluation" / "strict-test.json").write_text("[]")
    with (folders["d0, seed 42"] / "metrics.jsonl").open("ab") as handle:
        handle.write(b"\x00\n")
    said: list[str] = []
    page = parse(campaign_page(whole, say=said.append))
    told = words(section(page, "What is missing here"))
    for what in (
        "run.json is left out",
        "strict-test.json is left out",
        "line 34 of 34 is damaged",
    ):
        assert what in told
        assert any(what in line for line in said)
    assert "no evaluation strict-test, or it does not read" in told
    board = section(page, "Leaderboard")
    # Of a4r one record and one file of answers do not read: score and interval are of the third.
    third = records(sweep_without(whole, "a4r, seed 42"), "a4r")[1]
    row = by_arm(board)["a4r"]
    assert row["seeds"] == "1 of 3"
    shown = [float(row[name]) for name in ("S", "from", "to")]
    assert shown == pytest.approx([third["S"], *third["ci95"]["S"]], abs=6e-4)
    assert "d4r" not in by_arm(board)
    assert "d4r" in by_arm(board, 1)


def test_a_campaign_that_has_not_begun(tmp_path: Path) -> None:
    page = parse(campaign_page(sweep_of(tmp_path, [planned(0, "d0"), planned(1, "a4r")])))
    assert "No run of this campaign is finished" in words(section(page, "Leaderboard"))
    assert [row[3] for row in rows(section(page, "Runs"))] == ["missing", "missing"]


def test_without_a_test_score_of_every_run_validation_stands_first(tmp_path: Path) -> None:
    runs = [planned(0, "d0"), planned(1, "a4r")]
    write_run(tmp_path, runs[0], quality=0.3)
    write_run(tmp_path, runs[1], quality=0.3, splits=["validation"])
    part = section(parse(campaign_page(sweep_of(tmp_path, runs))), "Leaderboard")
    (first, *_) = part.iter("summary")
    assert words(first).startswith("Strict protocol, validation split")
    assert set(by_arm(part, 2)) == {"d0"}


def test_hostile_words_are_words(tmp_path: Path) -> None:
    odd = "<script>alert(1)</script> & more"
    runs = [planned(0, "d0"), planned(1, "a4r", label=odd)]
    for run in runs:
        write_run(tmp_path, run, quality=0.3)
    plan = dataclasses.replace(sweep_of(tmp_path, runs), title=odd, summary=odd)
    page = parse(campaign_page(plan))
    assert len(list(page.iter("script"))) == 1
    assert odd in by_arm(section(page, "Leaderboard"))


def test_settings_are_ranked_apart_and_have_their_own_reference(tmp_path: Path) -> None:
    runs: list[PlannedRun] = []
    for epochs in (2, 3):
        for arm in ("d0", "a4r"):
            over = {"budget": {"epochs": epochs}}
            runs.append(planned(len(runs), arm, settings={"budget.epochs": epochs}, **over))
            write_run(tmp_path, runs[-1], quality=QUALITY[arm] + epochs / 10)
    part = section(parse(campaign_page(sweep_of(tmp_path, runs))), "Leaderboard")
    table = by_arm(part)
    assert {(r["setting"], r["rank"]) for r in table.values()} == {
        (f"budget.epochs {n}", str(rank)) for n in (2, 3) for rank in (1, 2)
    }
    for epochs in (2, 3):
        S = {a: float(table[f"{a}, budget.epochs {epochs}"]["S"]) for a in ("d0", "a4r")}
        shown = table[f"a4r, budget.epochs {epochs}"]["– d0"]
        assert float(shown) == pytest.approx(S["a4r"] - S["d0"], abs=2e-3)


def test_a_reference_of_another_budget_is_none(tmp_path: Path) -> None:
    runs = [planned(0, "d0", budget={"epochs": 2}), planned(1, "a4r"), planned(2, "a4")]
    for run in runs:
        write_run(tmp_path, run, quality=QUALITY[run.arm])
    table = by_arm(section(parse(campaign_page(sweep_of(tmp_path, runs))), "Leaderboard"))
    assert table["a4r"]["– d0"] == "–"
    assert table["a4r"]["against d0"].startswith("d0 differs in more: updates")


def test_the_interval_of_several_seeds_holds_both_doubts(sweep: Sweep) -> None:
    runs = [r for r in sweep.runs if r.arm == "a4r"]
    group = [
        read_scored(sweep.path(r) / "evaluation" / "strict-test", r.folder, r.seed) for r in runs
    ]
    (low, high), kind = interval_of(group) or ((0.0, 0.0), "")
    assert kind == "seeds, recordings"
    mean = fmean(s.score("S") for s in group)
    assert low < mean < high
    spread = float(np.std([s.score("S") for s in group], ddof=1)) / np.sqrt(3) * 4.303
    assert high - mean >= spread * 0.999 or high == 1.0
    # Queries of 8 recordings, all answered alike by the seeds, leave the doubt of recordings.
    same = [dataclasses.replace(group[0], seed=s, name=str(s)) for s in SEEDS]
    of_queries, _ = interval_of(same) or ((0.0, 0.0), "")
    assert of_queries[0] < of_queries[1]
    assert interval_of(group[:1]) is None
    few = [dataclasses.replace(s, columns={**s.columns, "recording": s.columns["recording"] % 3})
           for s in group]  # fmt: skip
    assert (interval_of(few) or ("", ""))[1] == "seeds, 10-s blocks"
    other = dataclasses.replace(group[1], record={**group[1].record, "pool_hash": "x"})
    assert interval_of([group[0], other]) is None


STEPS = """
const said = {};
const button = (table, nth) => table.querySelectorAll("th button")[nth].click();
const rows = (table) => Array.from(table.tBodies[0].rows);
const texts = (table, nth) => rows(table).map((row) => row.cells[nth].textContent);
function keep(table, word) {
  const box = table.closest(".filterable").querySelector("input");
  box.value = word;
  box.dispatchEvent(new Event("input"));
  const shown = rows(table).filter((row) => !row.hidden);
  return [shown.map((row) => row.cells[ARM].textContent), box.nextElementSibling.value];
}
const table = document.querySelector("table.sortable");
said.words = keep(table, "a4 COMPARABLE");
said.state = keep(table, "comparable")[0];
for (const [name, column] of Object.entries({S: S, rank: RANK, arm: ARM, against: AGAINST})) {
  button(table, column);
  said[name + " up"] = texts(table, column);
  button(table, column);
  said[name + " down"] = texts(table, column);
}
const pairs = document.querySelectorAll("section")[1].querySelector("table.sortable");
button(pairs, DIFFERENCE);
said.differences = texts(pairs, DIFFERENCE);
const box = pairs.closest(".filterable").querySelector("input");
box.value = "d4a4";
box.dispatchEvent(new Event("input"));
said.pairs = rows(pairs).filter((r) => !r.hidden).map((r) => r.cells[0].textContent);
document.body.dataset.said = JSON.stringify(said);
"""


@pytest.mark.full
def test_sorting_and_filtering_work_in_a_browser(sweep: Sweep, tmp_path: Path) -> None:
    file = write_report(sweep, tmp_path / "report.html")
    seen = open_page(file, tmp_path / "a")
    assert (seen.console, seen.requests) == ([], [])
    assert 'data-ready="yes"' in seen.dom  # our script ran, so its hash is the policy's
    page = parse(file.read_text(encoding="utf-8"))
    head = heads(section(page, "Leaderboard"))
    steps = STEPS
    for word, name in {"AGAINST": "against d0", "RANK": "rank", "ARM": "arm", "S": "S"}.items():
        steps = re.sub(rf"\b{word}\b(?!:)", str(head.index(name)), steps)
    column = heads(section(page, "Differences")).index("difference")
    steps = steps.replace("DIFFERENCE", str(column))
    # The page's own policy forbids other scripts: without it, ours is driven as a reader would.
    driven = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*/>', "", file.read_text())
    driven = driven.replace("</body>", f"<script>{steps}</script></body>")
    (tmp_path / "driven.html").write_text(driven)
    seen = open_page(tmp_path / "driven.html", tmp_path / "b")
    assert seen.console == []
    (text,) = re.findall('data-said="([^"]*)"', seen.dom)
    said = json.loads(html.unescape(text))

    names, count = said["words"]
    # What leaks is set apart, and is not among those that are comparable.
    assert (set(names), count) == ({"a4r", "d4a4"}, "2 of 7")
    assert set(said["state"]) == {"d0", "a4r", "d4a4"}
    for name in ("S", "rank"):
        for way in ("up", "down"):
            values = [v for v in said[f"{name} {way}"] if v != "–"]
            numbers = [float(v) for v in values]
            assert numbers == sorted(numbers, reverse=way == "down")
            assert said[f"{name} {way}"] == values + ["–"] * (7 - len(values))  # blanks last
    assert len([v for v in said["rank up"] if v == "–"]) == 4
    assert said["arm up"] == sorted(said["arm up"])
    assert said["arm down"] == said["arm up"][::-1]
    for way in ("up", "down"):  # words, with blanks among them
        values = [v for v in said[f"against {way}"] if v != "–"]
        assert len(values) == 5
        assert values == sorted(values, reverse=way == "down")
        assert said[f"against {way}"][5:] == ["–", "–"]  # d0's own, and the stage's
    differences = [float(v.replace("−", "-")) for v in said["differences"]]
    assert differences == sorted(differences)
    assert len(differences) == 4 * 3
    assert set(said["pairs"]) == {"d4a4 – d0"}
