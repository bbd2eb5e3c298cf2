"""The ledger is made of run folders alone and tells what does not read; what may be compared."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from campaign_fakes import planned, record_of, write_log, write_run

from pipeline.base.errors import RunError
from pipeline.base.files import read_json, write_json
from trainer.cache import ON_DEVICE
from trainer.campaign import ledger
from trainer.campaign.comparable import apart, judge, usual_seeds
from trainer.campaign.ledger import build_ledger, to_csv, write_ledger
from trainer.config import PairConfig, RunConfig


def rows_of(out: Path) -> list[dict[str, Any]]:
    return build_ledger(out)[0].to_pylist()


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """d0 finished, a4r finished from d0, a4 stopped in its second epoch."""
    out = tmp_path_factory.mktemp("runs")
    first = planned(0, "d0")
    start = write_run(out, first, quality=0.3)
    write_run(out, planned(1, "a4r", after=0), quality=0.6, start=start)
    write_run(out, planned(2, "a4", seed=7), status="interrupted", done=0.5)
    (out / "campaigns").mkdir()
    return out


@pytest.fixture
def out(fakes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fakes, tmp_path / "runs"))


def folder_of(out: Path, arm: str) -> Path:
    (found,) = out.glob(f"{arm}-*")
    return found


def test_a_row_is_one_evaluation_of_one_run(out: Path) -> None:
    table, problems = build_ledger(out)
    rows = table.to_pylist()
    assert problems == []
    names = [(r["arm"], r["evaluation"]) for r in rows]
    scored = [f"{p}-{s}" for p in ("paper", "strict") for s in ("test", "validation")]
    assert names == [("a4", None), *[(a, e) for a in ("a4r", "d0") for e in scored]]
    a4r = next(r for r in rows if (r["arm"], r["evaluation"]) == ("a4r", "strict-test"))
    folder = folder_of(out, "a4r")
    record = read_json(folder / "evaluation" / "strict-test.json")
    config = read_json(folder / "run.json")["config"]
    expected = {
        "run": folder.name, "signature": folder.name[-12:], "pairs": "A4 reverse_xattn",
        "preset": "paper", "size": "tiny", "seed": 42, "control": "real",
        "frontend": config["audio"]["frontend"]["name"], "loss": config["loss"]["name"],
        "schedule": config["schedule"]["name"], "freeze": config["freeze"],
        "init": folder_of(out, "d0").name[-12:], "epochs": 3, "updates": 30, "batch_size": 16,
        "evaluations": 3, "evaluated": "1 2 3", "status": "trained", "step": 30, "attempts": 1,
        "train_seconds": 30 * 16 / 60, "peak_host": 900_000_000, "peak_device": None,
        "protocol": "strict", "split": "test", "S": record["S"], "queries": record["queries"],
        "ci_low": record["ci95"]["S"][0], "ci_high": record["ci95"]["S"][1],
        "ci_kind": "10-s blocks",
        "a2m_R1": record["a2m"]["R@1"], "m2a_MRR": record["m2a"]["MRR"], "pool_seed": 0,
        "chance_R10": record["chance"]["R@10"], "hard_neg": record["hard_neg"]["one"],
        "pool_hash": record["pool_hash"], "no_copy_R1": None, "current": True, "leaks": False,
    }  # fmt: skip
    assert {key: a4r[key] for key in expected} == expected
    unfinished = rows[0]
    assert (unfinished["status"], unfinished["S"], unfinished["train_seconds"]) == (
        "interrupted", None, None,
    )  # fmt: skip


def test_curves_hold_losses_and_scores_by_epoch(out: Path) -> None:
    for arm, epochs in (("d0", 3), ("a4", 2)):
        folder = folder_of(out, arm)
        lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        row = next(r for r in rows_of(out) if r["arm"] == arm)
        assert [p["epoch"] for p in row["curve"]] == list(range(1, epochs + 1))
        for point in row["curve"]:
            own = [x for x in lines if x["epoch"] == point["epoch"]]
            losses = [x["loss"] for x in own if "loss" in x]
            assert point["loss"] == pytest.approx(sum(losses) / len(losses))
            scores = [x["validation"]["S"] for x in own if "validation" in x]
            assert point["S"] == (scores[0] if scores else None)
            assert point["step"] == max(x["step"] for x in own)
    assert row["curve"][-1]["S"] is None  # stopped within its second epoch


def test_nothing_lives_in_the_kept_table_alone(out: Path) -> None:
    file, _, problems = write_ledger(out)
    kept = pq.read_table(file)
    assert (file, problems) == (out / "ledger.parquet", [])
    file.unlink()
    assert pq.read_table(write_ledger(out)[0]).equals(kept)
    assert kept.equals(build_ledger(out)[0])
    target = to_csv(kept, out / "ledger.csv")
    with target.open(encoding="utf-8", newline="") as handle:
        read = list(csv.DictReader(handle))
    assert len(read) == kept.num_rows
    assert [float(r["S"]) for r in read if r["S"]] == [
        r["S"] for r in kept.to_pylist() if r["S"] is not None
    ]


def test_only_some_runs(out: Path) -> None:
    name = folder_of(out, "d0").name
    table, _ = build_ledger(out, {name, "never-there"})
    assert set(table.column("run").to_pylist()) == {name}


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    assert build_ledger(tmp_path)[0].num_rows == 0
    with pytest.raises(RunError, match="nowhere"):
        build_ledger(tmp_path / "nowhere")


def broken(out: Path, arm: str, change: Any) -> None:
    file = folder_of(out, arm) / "run.json"
    record = read_json(file)
    change(record)
    file.write_text(json.dumps(record), encoding="utf-8")


DAMAGES = {
    "config is missing": lambda r: r.pop("config"),
    "config is not a table": lambda r: r.update(config=[1]),
    "reads.A4 is not text": lambda r: r["reads"].update(A4=3),
    "seed is not a whole number": lambda r: r["config"].update(seed="x"),
    "batch_size = -1": lambda r: r["config"]["budget"].update(batch_size=-1),
    "budget.epochs = ": lambda r: r["config"]["budget"].update(epochs=10**12),
    "performance.segments_per_s is not finite": lambda r: r["performance"].update(
        segments_per_s=float("inf")
    ),
    "pairs": lambda r: r["config"].update(pairs=[7]),
    "arm is no text": lambda r: r.update(arm="\ud800"),
    "seed is too large": lambda r: r["config"].update(seed=10**400),
    "not JSON compliant": lambda r: r["config"].update(divergence_factor=float("nan")),
    "leaks is not true or false": lambda r: r.update(leaks="no"),
}


@pytest.mark.parametrize("told", DAMAGES)
def test_a_damaged_record_is_told_and_stops_no_other(out: Path, told: str) -> None:
    broken(out, "a4r", DAMAGES[told])
    table, problems = build_ledger(out)
    (line,) = problems
    assert line.startswith(f"{folder_of(out, 'a4r').name}/run.json is left out: ")
    assert told in line or (told == "pairs" and "descriptor" in line)
    assert set(table.column("arm").to_pylist()) == {"a4", "d0"}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"null", b"[]"])
@pytest.mark.parametrize("name", ["run.json", "evaluation/strict-test.json"])
def test_files_that_are_no_records(out: Path, name: str, content: bytes) -> None:
    folder = folder_of(out, "a4r")
    (folder / name).write_bytes(content)
    table, problems = build_ledger(out)
    (line,) = problems
    assert f"{folder.name}/{name} is left out: " in line
    left = [r["evaluation"] for r in table.to_pylist() if r["arm"] == "a4r"]
    assert left == (
        [] if name == "run.json" else ["paper-test", "paper-validation", "strict-validation"]
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("S", 1.5), ("S", None), ("S", float("nan")), ("a2m", {}), ("queries", -3),
        ("ci95", {"S": ["x", 1]}),
    ],
)  # fmt: skip
def test_evaluations_with_impossible_values_are_left_out(out: Path, key: str, value: Any) -> None:
    file = folder_of(out, "a4r") / "evaluation" / "paper-test.json"
    file.write_text(json.dumps(read_json(file) | {key: value}), encoding="utf-8")
    table, problems = build_ledger(out)
    assert len(problems) == 1
    assert "paper-test.json is left out: " in problems[0]
    assert table.num_rows == 8


def test_damaged_lines_of_a_log_are_told_and_the_rest_is_kept(out: Path) -> None:
    file = folder_of(out, "d0") / "metrics.jsonl"
    whole = next(r for r in rows_of(out) if r["arm"] == "d0")["curve"]
    lines = file.read_bytes().splitlines(keepends=True)
    noise = [
        b'{"step": 3, "ep\n',
        b"\x00\xff\n",
        b'{"step": 1}\n',
        b'{"step":1,"epoch":1,"loss":NaN}\n',
    ]
    file.write_bytes(b"".join(lines[:4] + noise + lines[4:]) + b'{"step": 31, "epo')
    table, problems = build_ledger(out)
    assert problems == [
        f"{file.parent.name}/metrics.jsonl: line 5 and 3 more of 37 is damaged and left out"
    ]
    found = next(r for r in table.to_pylist() if r["arm"] == "d0")["curve"]
    assert [p["S"] for p in found] == [p["S"] for p in whole]
    assert [p["loss"] for p in found] == pytest.approx([p["loss"] for p in whole])
    file.unlink()
    assert next(r for r in rows_of(out) if r["arm"] == "d0")["curve"] is None


def test_a_copied_folder_is_no_other_training(out: Path) -> None:
    folder = folder_of(out, "d0")
    shutil.copytree(folder, out / "z-copy")
    assert build_ledger(out)[1] == [
        f"z-copy is {folder.name} once more: a copy, not another training"
    ]


def test_scores_of_former_weights_are_not_current(out: Path) -> None:
    broken(out, "a4r", lambda r: r.update(model_sha256="0" * 64))
    current = {r["arm"]: r["current"] for r in rows_of(out) if r["S"] is not None}
    assert current == {"a4r": False, "d0": True}
    broken(out, "d0", lambda r: r["reads"].update(audio=r["reads"]["audio"] + ON_DEVICE))
    # The store has got the array since: the evaluation's key is that of the stored one.
    assert {r["current"] for r in rows_of(out) if r["arm"] == "d0"} == {True}


def test_evaluations_on_another_store_say_so(out: Path) -> None:
    folder = folder_of(out, "d0") / "evaluation"
    (folder / "maestro-1").mkdir()
    record = read_json(folder / "strict-test.json") | {
        "store": "maestro-1",
        "store_identity": "o g",
    }
    write_json(folder / "maestro-1" / "strict-test.json", record)
    (row,) = [r for r in rows_of(out) if r["scored_on"] == "maestro-1"]
    assert (row["evaluation"], row["current"]) == ("maestro-1/strict-test", None)
    assert row["store_identity"] == "o g"


def test_names_agree_with_those_of_the_trainer() -> None:
    assert ledger.ON_DEVICE == ON_DEVICE
    fields = set(RunConfig.__dataclass_fields__) | set(PairConfig.__dataclass_fields__)
    assert {"seed", "pairs", "control", "budget", "loss", "descriptor", "mechanism"} <= fields


def test_no_torch_is_loaded() -> None:
    code = (
        "import sys, trainer.campaign.ledger, trainer.campaign.comparable\n"
        "print(sorted({'torch', 'polars', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_comparable_rows(out: Path) -> None:
    write_run(out, planned(3, "d4a4", after=0), quality=0.5, start=folder_of(out, "d0"))
    other = planned(4, "a4r", budget={"epochs": 5}, after=0)
    long = write_run(out, other, quality=0.5, start=folder_of(out, "d0"))
    rows = [r for r in rows_of(out) if r["evaluation"] in ("strict-test", None)]
    told = {r["run"]: str(v) for r, v in zip(rows, judge(rows), strict=True)}
    assert told[long.name] == "caveats: updates, number of evaluations, evaluated epochs"
    assert told[folder_of(out, "d4a4").name] == "comparable"
    assert told[folder_of(out, "d0").name] == "caveats: beginning"
    stopped = "set apart: training is interrupted, not scored"
    assert told[folder_of(out, "a4").name].startswith(stopped)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"seed": 3, "arm": "x"}, "comparable"),
        ({"pool_hash": "x"}, "set apart: pools"),
        ({"split": "validation"}, "set apart: split"),
        ({"store_identity": "x"}, "set apart: segments"),
        ({"reads": [{"array": "A4", "fingerprint": "other"}]}, "set apart: array A4"),
        ({"reads": [{"array": "D1", "fingerprint": "other"}]}, "comparable"),
        ({"evaluated": "1 3"}, "caveats: evaluated epochs"),
        ({"batch_size": 8, "init": "z"}, "caveats: batch size, beginning"),
        ({"setting": "x"}, "caveats: other settings"),
        ({"current": False}, "set apart: scored with former weights"),
        ({"leaks": True}, "set apart: leaks"),
    ],
)
def test_what_stands_between_two_rows(fakes: Path, change: dict[str, Any], verdict: str) -> None:
    row = next(r for r in rows_of(fakes) if (r["arm"], r["evaluation"]) == ("a4r", "strict-test"))
    assert str(apart(row, row)) == "comparable"
    assert str(apart(row, row | change)) == verdict
    assert str(judge([row, row, row | change])[2]) == verdict


def test_stages_decide_nothing_and_seeds_are_those_of_most(fakes: Path) -> None:
    row = next(r for r in rows_of(fakes) if (r["arm"], r["evaluation"]) == ("a4r", "strict-test"))
    stages = [row | {"run": f"s{i}", "updates": 9} for i in range(3)]
    told = [str(v) for v in judge([*stages, row], {"s0", "s1", "s2"})]
    assert told == ["caveats: a stage others start from, updates"] * 3 + ["comparable"]
    assert str(judge([*stages, row])[3]) == "caveats: updates"
    # Where there are only stages, they are seen beside each other, and none is comparable.
    assert {str(v) for v in judge(stages, {"s0", "s1", "s2"})} == {
        "caveats: a stage others start from"
    }
    one, all_of = frozenset({42}), frozenset({42, 123, 456})
    assert usual_seeds([one, all_of]) == usual_seeds([all_of, one]) == all_of
    assert usual_seeds([one, all_of, one]) == one
    assert usual_seeds([]) == frozenset()


@pytest.mark.full
def test_a_thousand_runs_are_one_table(tmp_path: Path) -> None:
    run = planned(0, "a4r", budget={"epochs": 5, "batches_per_epoch": 400})
    first = write_run(tmp_path, run, quality=0.5)
    for i in range(1, 1000):
        folder = tmp_path / f"a4r-{i:012x}"
        (folder / "evaluation").mkdir(parents=True)
        for file in (first / "evaluation").glob("*.json"):
            (folder / "evaluation" / file.name).symlink_to(file)
        (folder / "metrics.jsonl").symlink_to(first / "metrics.jsonl")
        write_json(folder / "run.json", record_of(run) | {"signature": f"{i:012x}"})
    table, problems = build_ledger(tmp_path)
    assert (table.num_rows, problems) == (4000, [])
    assert len(set(table["run"].to_pylist())) == 1000


def test_a_log_that_is_begun_has_no_epochs(tmp_path: Path) -> None:
    run = planned(0, "d0")
    folder = write_run(tmp_path, run, status="running", done=0.0)
    assert rows_of(tmp_path)[0]["curve"] == []
    write_log(folder / "metrics.jsonl", run, done=0.1)
    assert [p["epoch"] for p in rows_of(tmp_path)[0]["curve"]] == [1]
