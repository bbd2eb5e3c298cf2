"""The reproduction, at the size of a test: in pieces, twice, the same bytes; what it takes."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from makers import COLUMNS, make_notes, write_midi
from scipy.stats import spearmanr

pytest.importorskip("benchmarks.reproduce")

from benchmarks.budget import PEAK
from benchmarks.ranks import rank_correlation
from benchmarks.reproduce import Later, Steps, as_rendered, has_recordings
from benchmarks.tiers import TIERS, Tier, write_table
from pipeline.base.errors import CorpusError
from pipeline.corpora.recordings import load_table
from trainer.campaign.manifest import read_campaign
from trainer.config import Precision

ROOT = Path(__file__).parent.parent


def performances(folder: Path, per_split: int, seconds: float) -> Path:
    """A table and MIDI files as the data set's own are laid out."""
    rows = []
    for split in ("train", "validation", "test"):
        for i in range(per_split):
            name = f"2018/{split}-{i}.midi"
            notes = make_notes(seconds, len(rows))
            write_midi(folder / "maestro" / name, notes)
            work = f"Prelude No. {i // 2}, BWV {100 * len(split) + i // 2}"  # two play each
            end = max(n[1] for n in notes)
            rows.append(("J. S. Bach", work, split, 2018, name, f"{name[:-5]}.wav", end))
    with (folder / "maestro-subset.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([COLUMNS, *rows])
    return folder


def reproduce(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.reproduce", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1200)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_in_pieces_and_at_once_it_gives_the_same_bytes(tmp_path: Path) -> None:
    data = performances(tmp_path / "data", 6, 75.0)
    common = ("--tier", "smoke", "--data", data)
    whole = reproduce(*common, "--out", tmp_path / "a", "--results", tmp_path / "ra")
    assert whole.returncode == 0, whole.stderr
    scores = sorted((tmp_path / "a").rglob("evaluation/*-test.json"))
    assert len(scores) == 3 * 2
    made = [file.stat().st_mtime_ns for file in scores]
    for record in (tmp_path / "a").rglob("build.json"):  # as if it was stopped before it wrote that
        record.unlink()
    repeated = reproduce(*common, "--out", tmp_path / "a", "--results", tmp_path / "ra")
    assert repeated.returncode == 0, repeated.stderr
    assert [file.stat().st_mtime_ns for file in scores] == made  # nothing is scored twice
    codes = []
    for n in range(40):  # longer and longer: on a busy machine a single step takes a minute
        minutes = 0.15 * 1.3**n
        piece = reproduce(
            *common, "--out", tmp_path / "b", "--results", tmp_path / "rb", "--minutes", minutes
        )
        codes.append(piece.returncode)
        assert piece.returncode in (0, 75), piece.stderr
        if piece.returncode == 0:
            break
    assert codes[-1] == 0
    assert len(codes) > 2, "it was never stopped"
    found, again = (tmp_path / r / "reproduce-smoke.json" for r in ("ra", "rb"))
    assert found.read_bytes() == again.read_bytes()
    _check_result(json.loads(found.read_text(encoding="utf-8")))
    cost = json.loads((tmp_path / "ra/reproduce-smoke-cost.json").read_text(encoding="utf-8"))
    assert set(cost["steps"]) == {"build", "train", "analyse", "report"}  # runs are scored already
    assert cost["build"] is None  # its record was taken away
    assert len(cost["runs"]) == 3
    dry = reproduce(*common, "--out", tmp_path / "a", "--results", tmp_path / "ra", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    told = json.loads((tmp_path / "ra/reproduce-smoke-budget.json").read_text(encoding="utf-8"))
    (campaign,) = told["campaigns"]
    assert (campaign["runs"], campaign["updates"]) == (
        3,
        sum(r["updates"] for r in cost["runs"].values()),
    )
    assert campaign["operations"] > 1e9
    assert campaign["said"] in dry.stdout


def _check_result(result: dict[str, Any]) -> None:
    (campaign,) = result["campaigns"]
    boards = {(b["protocol"], b["split"]): b for b in campaign["boards"]}
    assert set(boards) == {(p, s) for p in ("strict", "paper") for s in ("test", "validation")}
    strict = boards["strict", "test"]
    assert {a["arm"] for a in strict["arms"]} == {"d0", "a4r", "d4"}
    assert set(strict["floors"]) == {"flux", "register"}
    assert not any(d["S"]["stated"] for a in strict["arms"] for d in a["against"].values())
    assert {t["analysis"] for t in result["analyses"]} == {"ablation", "sensitivity"}
    assert {t["variant"] for t in result["analyses"]} == {"paper", "sound"}
    assert result["real"] is None
    order = campaign["order"]["by"]["strict-test"]
    assert order["arms"] == ["a4r", "d0", "d4"]


def test_a_tier_takes_many_works_before_many_performances(tmp_path: Path) -> None:
    data = performances(tmp_path, 4, 8.0)
    source, midi = data / "maestro-subset.csv", data / "maestro"
    two = Tier(title="", campaigns=(), per_split={"train": 2, "validation": 1, "test": 3})
    rows = load_table(write_table(source, midi, two, tmp_path / "x" / "maestro.csv"))
    by_split = {s: [r for r in rows if r.split == s] for s in ("train", "validation", "test")}
    assert [len(by_split[s]) for s in by_split] == [2, 1, 3]
    assert len({r.composition for r in by_split["train"]}) == 2
    assert len({r.composition for r in by_split["test"]}) == 2
    more = Tier(title="", campaigns=(), per_split={"train": 1, "validation": 1, "test": 9})
    with pytest.raises(CorpusError, match=r"4 test recordings .* fewer than 9"):
        write_table(source, midi, more, tmp_path / "y.csv")
    assert not has_recordings(tmp_path)
    (midi / "2018/test-1.wav").touch()
    assert has_recordings(tmp_path)
    (midi / "2018/test-0.midi").unlink()
    all_of = Tier(title="", campaigns=())
    assert len(load_table(write_table(source, midi, all_of, tmp_path / "z.csv"))) == 11
    with pytest.raises(CorpusError, match="holds no MIDI file"):
        write_table(source, tmp_path / "elsewhere", all_of, tmp_path / "w.csv")


def test_every_tier_names_campaigns_that_read() -> None:
    for name, tier in TIERS.items():
        for campaign in tier.campaigns:
            read = read_campaign(campaign, tiny=tier.tiny)
            assert read.size == ("tiny" if tier.tiny else "base"), name
            arms = {arm for group in read.groups for arm in group.arms}
            if campaign == tier.campaigns[0]:
                assert set(tier.analysed) <= arms
    scratch = read_campaign(TIERS["gpu"].campaigns[0])
    assert sum(len(g.arms) * len(g.seeds or scratch.seeds) for g in scratch.groups) == 13 + 6
    grouped = [arm for g in scratch.groups for arm in g.arms]
    assert len(grouped) == len(set(grouped)) == 13  # all seeds of an arm stand in one group
    budget = scratch.settings["budget"]
    assert budget["epochs"] * budget["batches_per_epoch"] == 1500
    assert scratch.settings["evaluation"]["first"] == budget["epochs"]  # one evaluation
    # In float32 without TF32 it would be hours of a GPU; on a CPU it stays the paper's.
    assert scratch.settings["precision"] == "bf16"
    assert read_campaign(TIERS["cpu"].campaigns[0], tiny=True).settings["precision"] == "fp32"


def test_rank_correlation_knows_order_and_its_doubt() -> None:
    same = rank_correlation({str(i): (i, 10.0 * i) for i in range(10)})
    assert same["spearman"] == 1
    assert same["ci95"] == [1.0, 1.0]
    assert same["p"] < 0.01
    reverse = rank_correlation({str(i): (i, -float(i)) for i in range(10)})
    assert reverse["spearman"] == -1
    rng = np.random.default_rng(0)
    values = [
        rank_correlation({str(i): tuple(rng.random(2)) for i in range(13)}) for _ in range(20)
    ]
    assert abs(np.mean([v["spearman"] for v in values])) < 0.2
    assert np.mean([v["ci95"][0] < 0 < v["ci95"][1] for v in values]) > 0.8
    tied = rank_correlation({"a": (1, 1), "b": (1, 2), "c": (2, 3), "d": (3, 3)})
    assert tied["p"] > 1 / 24
    level = rank_correlation({"a": (1, 1), "b": (1, 2), "c": (1, 3)})
    assert level["spearman"] is None
    assert tied["spearman"] == pytest.approx(spearmanr([1, 1, 2, 3], [1, 2, 3, 3])[0], abs=1e-4)


def test_a_stop_leaves_no_command_behind(tmp_path: Path) -> None:
    mark, begun = tmp_path / "mark", tmp_path / "begun"
    wait = (
        f"open({str(begun)!r}, 'w').close(); import time; time.sleep(3); open({str(mark)!r}, 'w')"
    )
    over = Steps(0.0)
    with pytest.raises(Later):
        over.run("train", "python", "-c", wait)
    short = Steps(0.02)
    with pytest.raises(Later):
        short.run("train", "python", "-c", wait)
    assert 1 < short.took["train"] < 2.9
    assert begun.is_file()
    time.sleep(3)
    assert not mark.exists()


def test_several_commands_go_side_by_side_and_none_begins_after_a_failure(tmp_path: Path) -> None:
    touch = "import sys; open(sys.argv[1], 'w').close()"
    every: list[list[object]] = [["-c", touch, tmp_path / f"{i}"] for i in range(4)]
    steps = Steps(None)
    steps.run_all("score", "python", every, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1", "2", "3"]
    after: list[list[object]] = [["-c", touch, tmp_path / f"after-{i}"] for i in range(40)]
    with pytest.raises(SystemExit) as left:
        steps.run_all("score", "python", [["-c", "raise SystemExit(3)"], *after], 1)
    assert left.value.code == 3
    assert len(list(tmp_path.glob("after-*"))) < 5
    with pytest.raises(Later):
        Steps(0.0).run_all("score", "python", every, 2)
    steps.run_all("score", "python", [], 2)


def test_without_recordings_the_campaigns_are_for_rendered_sound(tmp_path: Path) -> None:
    own, copied = TIERS["full"], as_rendered(TIERS["full"], tmp_path)
    assert copied.audio == "rendered"
    for name, copy in zip(own.campaigns, copied.campaigns, strict=True):
        one, other = read_campaign(name), read_campaign(copy)
        assert (one.corpus, other.corpus) == ("maestro", "maestro-rendered")
        assert dataclasses.replace(other, corpus=one.corpus, file=one.file) == one


def test_a_budget_knows_the_rate_of_every_precision() -> None:
    assert set(PEAK) == set(get_args(Precision))
    assert PEAK["bf16"] > PEAK["tf32"] > PEAK["fp32"]


def test_without_data_it_says_so(tmp_path: Path) -> None:
    done = reproduce("--tier", "smoke", "--data", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "maestro-subset.csv" in done.stderr
    assert "Traceback" not in done.stderr
