"""What the page shows of the paper, and its pictures."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from browser import by_arm, parse, section, words
from campaign_fakes import (
    planned,
    sweep_of,
    write_run,
)

from pipeline.base.config import from_plain
from pipeline.base.errors import ConfigError
from trainer.arms import ARMS, arm_name, arm_pairs, pair
from trainer.campaign import figures, standing
from trainer.campaign.charts import Spot, spots
from trainer.campaign.recorded import Recorded, known_recorded, read_recorded
from trainer.campaign.report import campaign_page
from trainer.campaign.sweep import PlannedRun
from trainer.mechanisms import MECHANISMS

QUALITY = {"d0": 0.3, "a4r": 0.6}


def test_recorded_ranks_are_of_one_budget() -> None:
    ranks = read_recorded("schedules").ranks()
    assert ranks["d4a4, cosine, 30 epochs"] == ranks["d4a4, cosine, 60 epochs"] == 1
    assert ranks["a4r, cosine, 30 epochs"] == 2
    assert ranks["d4-a4r, cosine, 30 epochs"] == ranks["t3-wt, cosine, 30 epochs"] == 3
    assert ranks["d0, cosine, 30 epochs"] == 6
    assert ranks["t3-wt, trapezoidal, 50 epochs"] is None
    matched = read_recorded("matched").ranks()
    assert (matched["d4a4, 30 epochs"], matched["d0, 60 epochs"]) == (1, None)
    assert read_recorded("families").ranks()["d0"] is None  # five chances to be best, others two
    assert set(read_recorded("seeds").ranks().values()) == {1, 2, 3, 4}


def of_size(run: PlannedRun, size: str) -> PlannedRun:
    return dataclasses.replace(run, config={**run.config, "size": size})


@pytest.mark.parametrize("size", ["base", "tiny"])
def test_at_base_size_only_equal_epochs_stand_beside_each_other(tmp_path: Path, size: str) -> None:
    settings = {"schedule.name": "cosine"}
    over = {"budget": {"epochs": 60}, "schedule": {"name": "cosine"}}
    runs = [planned(i, arm, settings=settings, **over) for i, arm in enumerate(("d0", "a4r"))]
    runs = [of_size(run, size) for run in runs]
    for run in runs:
        write_run(tmp_path, run, quality=QUALITY[run.arm])
    plan = sweep_of(tmp_path, runs, reference="schedules")
    part = section(parse(campaign_page(plan)), "Recorded by the paper")
    table = by_arm(part, name="recorded")
    for arm in ("d0", "a4r"):
        same, other = (table[f"{arm}, cosine, {n} epochs"] for n in (60, 30))
        assert (same["epochs"], same["epochs here"], same["updates here"]) == ("60", "60", "600")
        assert other["epochs"] == "30"
        assert other["S here"] == ("–" if size == "base" else same["S here"])
        assert other["epochs here"] == ("–" if size == "base" else "60")
    for entry in standing.entries_of(plan, [None] * 2):  # type: ignore[list-item]
        (curve,) = figures._recorded_curve(entry, read_recorded("schedules"), False)
        assert curve.name == "recorded, 60 epochs"


def test_what_has_no_recorded_counterpart_is_told(tmp_path: Path) -> None:
    run = of_size(planned(0, "d0", budget={"epochs": 30}), "base")
    write_run(tmp_path, run)
    plan = sweep_of(tmp_path, [run], reference="matched")
    part = section(parse(campaign_page(plan)), "Recorded by the paper")
    assert by_arm(part, name="recorded")["d0, 60 epochs"]["S here"] == "–"
    assert "schedule and number of epochs of: d0 (30 epochs)." in words(part)
    assert figures._recorded_curve(
        standing.entries_of(plan, [None])[0],  # type: ignore[list-item]
        read_recorded("screening"), False,
    ) == []  # fmt: skip


@pytest.mark.parametrize("name", known_recorded())
def test_recorded_figures_are_whole(name: str) -> None:
    found = read_recorded(name)
    assert found.rows
    assert found.source
    assert found.note.strip()
    for row in found.rows:
        base, _, control = row.arm.rpartition("-")
        assert row.arm in ARMS or (base in ARMS and control in ("zero", "random", "shuffled"))
        assert 0 < row.S < 1
        pairs = arm_pairs(row.arm if row.arm in ARMS else base)
        assert row.leaks == any(MECHANISMS.get(p.mechanism).leaks for p in pairs)
        if row.a2m is not None and row.m2a is not None and not row.note:
            assert min(row.a2m, row.m2a) == row.S
        assert all(0 < S < 1 and epoch >= 1 for epoch, S in row.curve)
        if row.curve and not row.note:
            at = dict(row.curve)
            assert at.get(row.epoch or 0, row.S) == row.S
    assert len({(r.label, r.seed) for r in found.rows}) == len(found.rows)


def test_recorded_means_are_those_that_were_printed() -> None:
    lines = read_recorded("seeds").lines()
    means = {label: round(100 * fmean(r.S for r in rows), 1) for label, rows in lines.items()}
    assert means == {"d0": 75.2, "a4r": 80.7, "d4-a4r": 81.2, "d4a4": 84.0}
    assert [len(rows) for rows in lines.values()] == [5] * 4
    assert len(read_recorded("screening").rows) == 13
    with pytest.raises(ConfigError, match="no recorded results 'x'"):
        read_recorded("x")
    with pytest.raises(ConfigError, match="unknown"):
        from_plain(Recorded, {"heading": "x"})


def test_an_unknown_reference_is_told(tmp_path: Path) -> None:
    plan = sweep_of(tmp_path, [planned(0, "d0")], reference="nobody")
    told = section(parse(campaign_page(plan)), "What is missing here")
    assert "without the paper's figures: there are no recorded results 'nobody'" in words(told)


def test_arms_without_a_name_have_a_heat_map_too(tmp_path: Path) -> None:
    pairs = [(pair(d, "film"),) for d in ("A7", "A8", "A9")]
    runs = [planned(i, p) for i, p in enumerate(pairs)]
    for i, run in enumerate(runs):
        assert run.arm == arm_name(pairs[i]) == f"A{7 + i}-film"
        write_run(tmp_path, run, quality=0.2 + 0.1 * i)
    part = section(parse(campaign_page(sweep_of(tmp_path, runs))), "Descriptor × mechanism")
    assert "the mean of all" in words(part)
    (svg,) = part.iter("svg")
    assert len([r for r in svg.iter("rect") if r.get("class") != "cell flat"]) == 3


def test_every_heat_map_has_the_reference_of_its_own_setting(tmp_path: Path) -> None:
    runs: list[PlannedRun] = []
    for epochs in (2, 3, 4):
        over: dict[str, Any] = {"budget": {"epochs": epochs}}
        arms: list[Any] = [(pair(d, "film"),) for d in ("A7", "A8", "A9")]
        for i, arm in enumerate(["d0", *arms] if epochs > 2 else arms):
            runs.append(planned(len(runs), arm, settings={"budget.epochs": epochs}, **over))
            write_run(tmp_path, runs[-1], quality=0.1 + 0.1 * i + epochs / 8)
    part = section(parse(campaign_page(sweep_of(tmp_path, runs))), "Descriptor × mechanism")
    notes = re.findall(r"Blue is above (.+?), (0\.\d+); orange", words(part))
    board = by_arm(section(parse(campaign_page(sweep_of(tmp_path, runs))), "Leaderboard"))
    S = {n: board[f"d0, budget.epochs {n}"]["S"] for n in (3, 4)}
    assert S[3] != S[4]
    names = [what for what, _ in notes]
    assert names == ["the mean of all", *["d0 (nothing added)"] * 2]
    shown = [float(value) for _, value in notes[1:]]
    assert shown == pytest.approx([float(S[3]), float(S[4])], abs=6e-4)
    for epochs, svg in zip((2, 3, 4), part.iter("svg"), strict=True):
        own = [float(board[f"A{n}-film, budget.epochs {epochs}"]["S"]) for n in (7, 8, 9)]
        middle = fmean(own) if epochs == 2 else float(S[epochs])
        apart = [float((t.text or "").rpartition(", ")[2]) for t in svg.iter("title")]
        assert sorted(apart) == pytest.approx([s - middle for s in sorted(own)], abs=2e-3)


def test_every_point_has_a_name_and_names_do_not_cover_each_other() -> None:
    near = [Spot(name=f"arm-{i}", x=5 + i / 50, y=0.5 + i / 5000) for i in range(4)]
    far = [Spot(name="d-02", x=1.0, y=0.1), Spot(name="a-long-name-at-the-edge", x=9.0, y=0.9)]
    svg = ET.fromstring(str(spots([*near, *far], title="t", x="minutes", y="S"))).find("svg")
    assert svg is not None
    tips = [(t.text or "").partition(":")[0] for t in svg.iter("title")]
    names = [point.name for point in (*near, *far)]
    assert sorted(tips) == sorted(names)
    texts = [t for t in svg.iter("text") if t.text in names]
    assert {t.text for t in texts} == set(names)  # there is room for all: beside, above and below
    boxes = []
    for text in texts:
        x, y, long = float(text.get("x", 0)), float(text.get("y", 0)), 7.2 * len(text.text or "")
        kind = (text.get("class") or "").partition(" ")[2]
        start = x - {"": 0.0, "middle": long / 2, "end": long}[kind]
        assert start > 58
        assert start + long < 860
        boxes.append((start, start + long, y))
    for i, (start, end, y) in enumerate(boxes):
        assert all(abs(y - b) > 10 or start >= e or s >= end for s, e, b in boxes[:i])
    crowd = [Spot(name=f"arm-{i:02d}", x=5.0, y=0.5) for i in range(40)]
    crowded = ET.fromstring(str(spots([*crowd, *far], title="t", x="minutes", y="S")))
    assert len(list(crowded.iter("title"))) == 42  # named, whether there is room or not
