"""What is gathered from a reproduction's runs, and how the pages tell it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from campaign_fakes import BUDGET, planned, scored, sweep_of, write_run

from trainer.records import read_scored
from trainer.run import open_run

cells = pytest.importorskip("benchmarks.cells")
halves = pytest.importorskip("benchmarks.halves")
method_words = pytest.importorskip("benchmarks.method_words")
reproduced = pytest.importorskip("benchmarks.reproduced")
results_words = pytest.importorskip("benchmarks.results_words")

SEEDS = (42, 123, 456)
METRICS = ("S", "a2m R@1", "m2a R@1")
LONGER = {**BUDGET, "batch_size": 32}


def campaigns(out: Path) -> list[Any]:
    """Two, of which the second has other settings and one arm in two groups."""
    first = [planned(i, "d0", seed) for i, seed in enumerate(SEEDS)]
    first += [planned(3 + i, "a4r", seed) for i, seed in enumerate(SEEDS)]
    second = [
        planned(i, "d0", seed, group="plain", label="d0, plain", budget=LONGER)
        for i, seed in enumerate(SEEDS)
    ]
    second += [
        planned(3 + i, "a4r", seed, group="plain", budget=LONGER) for i, seed in enumerate(SEEDS)
    ]
    second += [planned(6, "d0", group="high", label="d0, high", budget=LONGER, precision="bf16")]
    sweeps = [sweep_of(out, first), dataclasses.replace(sweep_of(out, second), name="paper-tiny")]
    for sweep, qualities in zip(
        sweeps, ({"d0": 3.0, "a4r": 1.0}, {"d0": 0.3, "a4r": 0.3}), strict=True
    ):
        for run in sweep.runs:
            write_run(out, run, quality=qualities[run.arm])
    return sweeps


def test_arms_of_later_campaigns_are_called_by_campaign_and_group(tmp_path: Path) -> None:
    runs = reproduced.arm_runs(campaigns(tmp_path))
    assert {name: len(paths) for name, paths in runs.items()} == {
        "d0": 3,
        "a4r": 3,
        "d0 (paper, plain)": 3,
        "a4r (paper, plain)": 3,
        "d0 (paper, high)": 1,
    }
    assert len({path for paths in runs.values() for path in paths}) == 13


def test_an_order_is_of_one_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm that is in a later group, too, has its place by the first."""
    runs = [
        planned(0, "d0", group="plain", label="d0, plain"),
        planned(1, "a4r", group="plain"),
        planned(2, "d4a4", group="plain"),
        planned(3, "d0", group="high", label="d0, high", budget=LONGER),
    ]
    for run, quality in zip(runs, (0.3, 0.6, 1.0, 3.0), strict=True):
        write_run(tmp_path, run, quality=quality)
    sweep = dataclasses.replace(sweep_of(tmp_path, runs), reference="screening")
    asked: list[dict[str, tuple[float, float]]] = []
    monkeypatch.setattr(reproduced, "rank_correlation", lambda pairs: asked.append(pairs))
    boards = reproduced.boards_of(sweep, ())
    found = reproduced._order(sweep, boards)
    assert set(found["by"]) == {f"{b.protocol}-{b.split}" for b in boards}
    for pairs, board in zip(asked, boards, strict=True):
        S = {line.entry.label: line.S for line in board.lines}
        assert S["d0, high"] > S["d0, plain"]
        assert {arm: here for arm, (here, _) in pairs.items()} == {
            "d0": S["d0, plain"], "a4r": S["a4r"], "d4a4": S["d4a4"],
        }  # fmt: skip
        assert {arm: said for arm, (_, said) in pairs.items()} == {
            arm: found["recorded"][arm] for arm in pairs
        }


def test_an_arm_stands_beside_the_first_of_its_settings_and_the_first_of_all(
    tmp_path: Path,
) -> None:
    runs = reproduced.arm_runs(campaigns(tmp_path))
    arms = {
        name: [
            read_scored(p / "evaluation/strict-test", p.name, open_run(p).config.seed)
            for p in paths
        ]
        for name, paths in runs.items()
        if len(paths) > 2
    }
    floor = arms["d0"][:1]
    found = reproduced._differences(
        arms, {name: open_run(runs[name][0]) for name in arms}, {"flux": floor}
    )
    assert [(d["first"], d["second"]) for d in found] == [
        ("d0", "a4r"),
        ("d0", "d0 (paper, plain)"),
        ("d0 (paper, plain)", "a4r (paper, plain)"),
        ("d0", "a4r (paper, plain)"),
        *(("flux", name) for name in arms),
    ]
    worse, same = found[1]["S"], found[2]["S"]
    assert worse["difference"] < -0.1
    assert worse["stated"]  # the settings are what is asked about
    assert abs(same["difference"]) < 0.15
    assert found[3]["S"]["difference"] == pytest.approx(worse["difference"] + same["difference"])
    assert reproduced._differences({}, {}, {"flux": floor}) == []


def test_the_page_marks_what_leaks_by_whatever_name() -> None:
    record = scored("test", "strict", 1.0, 1).record()
    told = reproduced.scores_of(
        [record | {"no_copy": {"queries": 9, **_sides()}, "full": _sides()}]
    )
    board = {"arms": [{"arm": "d4a4cm, plain", "leaks": True}, {"arm": "d0", "leaks": False}]}
    arms = ("d0", "d4a4cm (paper, plain)")
    real = {
        "arms": {name: {"strict": told, "paper": told} for name in arms},
        "floors": {},
        "differences": [],
        "works_shared": [],
    }
    data = {
        "campaigns": [{"boards": [board]}],
        "stores": {"real": {"splits": {"test": {"recordings": 8}}}},
    }
    rows = [line for line in results_words._real(data, real).splitlines() if line.startswith("| `")]
    assert [row.split("|")[1].strip() for row in rows] == [
        "`d0`",
        "`d4a4cm (paper, plain)` (leaks)",
    ]
    assert "against" not in results_words._real(data, real)  # no head without rows


def test_many_arms_beside_floors_are_folded_and_few_are_not() -> None:
    one = {m: {"difference": 0.1, "ci95": [0.0, 0.2], "stated": True} for m in METRICS}
    record = scored("test", "strict", 1.0, 1).record()
    told = reproduced.scores_of(
        [record | {"no_copy": {"queries": 9, **_sides()}, "full": _sides()}]
    )
    names = ["d0", "d0 (robust, loud)", *(f"a{n} (paper, plain)" for n in range(4))]
    real = {
        "arms": {name: {"strict": told, "paper": told} for name in names},
        "floors": {"flux": {"strict": told, "paper": told}},
        "differences": [
            {"first": first, "second": name, **one}
            for name in names[1:]
            for first in ("d0", "flux")
        ],
    }
    data = {"campaigns": [], "stores": {"real": {"splits": {"test": {"recordings": 8}}}}}
    shown, _, folded = results_words._real(data, real).partition("<details>")
    assert "against floors: 4 rows" in folded
    for name in names[1:]:
        assert f"| `{name}` | `d0` | +0.100" in shown
        assert (f"| `{name}` | `flux` | +0.100" in folded) == ("paper" in name)
        assert (f"| `{name}` | `flux` | +0.100" in shown) == ("robust" in name)


def _sides() -> dict[str, Any]:
    return {"a2m": {"R@1": 0.5}, "m2a": {"R@1": 0.25}}


def test_what_choosing_adds_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = np.random.default_rng(0).random((3, 2, 2, 40)) < 0.4
    data = {
        "environment": {"cores": 2, "cpu": "a CPU", "commit": "0" * 40},
        "updates": 300, "batch_size": 32, "queries": 40, "queries_per_half": 20,
        "recordings": 8, "works": 4, "S": {"d0": [0.1, 0.2], "a4": [0.1, 0.3]},
        "queries_halved": halves.optimism(hits, np.arange(40), halvings=30),
        "works_halved": halves.optimism(hits, np.arange(40) // 10),
    }  # fmt: skip
    monkeypatch.setattr(cells, "RESULTS", tmp_path)
    assert "Not yet measured" in method_words.selection()
    (tmp_path / "selection.json").write_text(json.dumps(data))
    told = method_words.selection()
    for words in (
        "the best of 2 evaluations of one run", "the best of 3 arms", "the best of all 6 scores",
        "from 0.200 to 0.300", "30 cuts (queries at random) and 6 cuts (works whole)",
    ):  # fmt: skip
        assert words in told
    added = data["queries_halved"]["both"]["added"]  # type: ignore[index]
    assert f"{added:+.3f}" in told


def _campaign(**scores: float) -> dict[str, Any]:
    """One whose strict test board has these arms; ``a4_high``: the arm a4 of the group high."""
    lines = []
    for name, S in scores.items():
        arm, _, group = name.partition("_")
        label = f"{arm}, {group}" if group == "high" else arm
        line = {"arm": label, "S": [S], "queries": 64, "group": group or "as recorded"}
        lines.append({**line, "R@1": [S], "no_copy_R@1": [S], "seeds": [1], "leaks": False})
    for line in lines:
        line |= {"interval": None, "interval_of": None, "against": {}}
    board = {"protocol": "strict", "split": "test", "arms": lines, "floors": {}}
    return {"title": "Some", "boards": [board]}


def test_the_order_of_arms_in_two_tiers_is_of_one_setting_and_the_same_questions() -> None:
    order = {"source": "there", "recorded": {"d0": 0.1, "a4": 0.2, "a8": 0.3, "a7x": 0.4}}
    strong = {
        "campaigns": [{"order": None}, {**_campaign(d0=0.3, a4=0.5, a4_high=0.9), "order": order}]
    }
    rest = _campaign(d0=0.9, a7x=0.7, a8_high=0.1)
    told = results_words._order_of_all(strong, [rest])
    assert "Spearman +1.00" in told  # d0 of the first, a8 not at all
    assert "over 3 arms" in told
    rest["boards"][0]["arms"][0]["queries"] = 32
    assert results_words._order_of_all(strong, [rest]) == ""


def test_a_board_of_several_groups_names_each_arms() -> None:
    (board,) = _campaign(d0=0.3, a8_high=0.1)["boards"]
    told = results_words._board(board)
    assert "| `d0, as recorded` |" in told
    assert "| `a8, high` |" in told
    (board,) = _campaign(d0=0.3, a8=0.1)["boards"]
    assert "| `a8` |" in results_words._board(board)
