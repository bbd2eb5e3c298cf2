"""The command lines of the trainer: flags, answers, exit codes, one real run end to end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from makers import build_quietly, corpus_of
from safetensors.torch import load_file
from typer.testing import CliRunner

from pipeline.base.config import from_plain
from pipeline.base.console import Console
from pipeline.store import Store
from trainer.cli import train_app
from trainer.commands import reporter
from trainer.config import BudgetConfig, RunConfig
from trainer.model import build_model
from trainer.retrieval.baselines import BASELINES


def program(
    name: str, *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run an installed command of this environment."""
    path = Path(sys.executable).parent / name
    return subprocess.run(
        [str(path), *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )


def answer(name: str, *arguments: object) -> Any:
    """The JSON answer of a command that must succeed."""
    done = program(name, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def store(split_store: Store) -> Store:
    """The store of every test here."""
    return split_store


SMALL = (
    "--epochs",
    2,
    "--batches-per-epoch",
    3,
    "--batch-size",
    4,
    "--pool-size",
    8,
    "--size",
    "tiny",
)


@pytest.fixture(scope="module")
def trained(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One small run, trained through the command line: its folder and the answer."""
    out = tmp_path_factory.mktemp("runs")
    pairs = ("--descriptor", "A4", "--mechanism", "reverse_xattn")
    told = answer("xmodal-train", *pairs, "--store", store.path, "--out", out, *SMALL)
    return Path(told["run"]), told


@pytest.mark.parametrize(("what", "one"), [("descriptors", "A4"), ("mechanisms", "concat")])
def test_listings_come_as_json_alone(what: str, one: str) -> None:
    assert one in {row["name"] for row in answer("xmodal-train", "--list", what)}


def test_the_listed_arms_have_the_published_sizes() -> None:
    arms = {
        row["name"]: (row["parameters"], row["trainable"])
        for row in answer("xmodal-train", "--list", "arms")
    }
    assert arms["d0"] == (74_194_432, 64_891_904)
    assert arms["d4-a4r"] == (78_874_624, 69_572_096)


def test_a_run_leaves_the_documented_files_and_scores(
    trained: tuple[Path, dict[str, Any]], store: Store
) -> None:
    folder, told = trained
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "trained"
    assert folder.name == f"a4r-{record['signature']}"
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if "loss" in s] == [1, 2, 3, 4, 5, 6]
    assert (folder / "model.safetensors").exists()
    assert record["performance"]["segments_per_s"] > 0
    assert list(told["floors"]) == BASELINES.names()
    for i, (protocol, score) in enumerate(zip(("paper", "strict"), told["scores"], strict=True)):
        written = json.loads((folder / f"evaluation/{protocol}-validation.json").read_text())
        assert written == score
        assert score["protocol"] == protocol
        ranks = pq.read_table(folder / f"evaluation/{protocol}-validation.parquet")
        assert len(ranks) == score["queries"]
        hits = [float((ranks.column(side).to_numpy() < 10).mean()) for side in ("a2m", "m2a")]
        assert min(hits) == score["S"]
        assert int((~ranks.column("copied").to_numpy()).sum()) == score["no_copy"]["queries"]
        for floor in told["floors"].values():
            assert floor[i]["protocol"] == protocol
            assert floor[i]["pool_hash"] == score["pool_hash"]
        assert 0 <= score["ci95"]["S"][0] <= score["ci95"]["S"][1] <= 1
        assert score["store"] == store.name
    # The test split is never scored by training.
    assert not list((folder / "evaluation").glob("*-test.*"))


def test_floors_stand_beside_every_arm(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, told = trained
    done = program("xmodal-evaluate", folder, "--protocol", "strict")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    score = told["scores"][1]["S"]
    assert f"{score:.3f}" in lines[1]
    for line, (name, records) in zip(lines[2:], told["floors"].items(), strict=False):
        assert line.split()[:2] == ["floor:", name]
        assert f"{records[1]['S']:.3f}" in line
    parts = program("xmodal-evaluate", folder, "--protocol", "strict", "--by", "recording").stdout
    assert parts.startswith(done.stdout.rstrip())
    shown = parts.rstrip().splitlines()[-len(told["scores"][1]["breakdown"]["recording"]) :]
    names = {line.split()[0] for line in shown}
    assert names == set(told["scores"][1]["breakdown"]["recording"])
    above = [name for name, records in told["floors"].items() if records[1]["S"] > score]
    assert lines[-1] == f"strict: below the training-free {', '.join(above)}" or not above


def test_speed_time_left_and_best_score_are_told() -> None:
    notes: list[str] = []
    budget = BudgetConfig(epochs=2, batches_per_epoch=50, batch_size=16)
    report = reporter(Console(), lambda done, note: notes.append(note), budget)
    report({"event": "step", "step": 1, "loss": 2.5, "segments_per_s": 12.4})
    report({"event": "evaluation", "epoch": 1, "S": 0.5, "best_S": 0.75})
    report({"event": "step", "step": 100, "loss": 2.5, "segments_per_s": 12.4})
    assert notes == [
        "loss 2.500, 12 segments/s, 2 min left",
        "loss 2.500, best S 0.750, 12 segments/s, 0 s left",
    ]


def test_a_finished_run_is_recognised(trained: tuple[Path, dict[str, Any]], store: Store) -> None:
    folder, told = trained
    before = (folder / "model.safetensors").stat().st_mtime_ns
    pairs = ("--descriptor", "A4", "--mechanism", "reverse_xattn")
    again = answer("xmodal-train", *pairs, "--store", store.path, "--out", folder.parent, *SMALL)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert [s["S"] for s in again["scores"]] == [s["S"] for s in told["scores"]]


def test_evaluate_scores_the_test_split_and_saves_embeddings(
    trained: tuple[Path, dict[str, Any]], store: Store, tmp_path: Path
) -> None:
    folder, _ = trained
    arguments = ("--split", "test", "--protocol", "strict", "--save-embeddings", tmp_path / "e")
    (score,) = answer("xmodal-evaluate", folder, *arguments)["scores"]
    rows = store.segments.of_split("test")
    table = pq.read_table(tmp_path / "e/segments.parquet")
    assert table.column("segment").to_pylist() == rows.tolist()
    assert {"composer", "title", "composition"} <= set(table.column_names)
    for side in ("audio", "midi"):
        values = np.load(tmp_path / f"e/{side}.npy")
        assert values.shape == (len(rows), 512)
        assert values.dtype == np.float32
    assert score["queries"] + score["excluded"] == int(store.segments.valid[rows].sum())


def test_a_baseline_is_scored_without_a_run(store: Store, tmp_path: Path) -> None:
    arguments = ("--store", store.path, "--split", "test", "--out", tmp_path, "--pool-size", 8)
    scores = answer("xmodal-evaluate", "--baseline", "flux", *arguments)["scores"]
    assert [s["protocol"] for s in scores] == ["paper", "strict"]
    assert all(s["run"] == "flux" for s in scores)


def copy_of(trained: tuple[Path, dict[str, Any]], folder: Path) -> Path:
    return Path(shutil.copytree(trained[0], folder / "my rün" / trained[0].name))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit(path: Path, **change: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def again(store: Store, folder: Path) -> subprocess.CompletedProcess[str]:
    """Repeat the training of the run ``folder``."""
    pairs = ("--descriptor", "A4", "--mechanism", "reverse_xattn")
    return program("xmodal-train", *pairs, "--store", store.path, "--out", folder.parent, *SMALL)


@pytest.mark.full
def test_a_changed_model_is_refused_and_restored_by_repeating_the_training(
    trained: tuple[Path, dict[str, Any]], store: Store, tmp_path: Path
) -> None:
    folder = copy_of(trained, tmp_path)
    flip(folder / "model.safetensors")
    done = program("xmodal-evaluate", folder)
    assert done.returncode == 3
    assert "model.safetensors was changed" in done.stderr
    assert again(store, folder).returncode == 0
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (trained[0] / name).read_bytes()


@pytest.mark.full
def test_what_a_kill_inside_a_save_left_behind_is_swept(
    trained: tuple[Path, dict[str, Any]], store: Store, tmp_path: Path
) -> None:
    folder = copy_of(trained, tmp_path)
    staged = folder / "checkpoints/.step-00000006.1.tmp"
    staged.mkdir()
    (staged / ".model.safetensors.1.tmp").touch()
    edit(folder / "run.json", status="running")
    stale = folder / "evaluation/strict-test.json"
    stale.touch()
    done = again(store, folder)
    assert done.returncode == 0, done.stderr
    assert not staged.exists()
    assert not stale.exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"config": {}}'])
def test_a_run_record_that_does_not_read_is_one_line(
    content: str, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = copy_of(trained, tmp_path)
    (folder / "run.json").write_text(content)
    done = program("xmodal-evaluate", folder)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "run.json" in done.stderr


@pytest.mark.full
def test_a_store_built_again_or_moved_is_refused_unless_it_is_named(
    trained: tuple[Path, dict[str, Any]], store: Store, tmp_path: Path
) -> None:
    folder = copy_of(trained, tmp_path)
    reads = json.loads((folder / "run.json").read_text())["reads"]
    edit(folder / "run.json", reads=reads | {"A4": "0" * 12})
    done = program("xmodal-evaluate", folder)
    assert done.returncode == 3
    assert "is not the store" in done.stderr
    assert program("xmodal-evaluate", folder, "--store", store.path).returncode == 0
    assert (folder / "evaluation" / store.name / "strict-validation.json").exists()
    edit(folder / "run.json", store={"path": "/nowhere", "name": "nowhere"})
    done = program("xmodal-evaluate", folder)
    assert done.returncode == 3
    assert "--store DIR" in done.stderr


def test_a_baseline_score_that_does_not_read_is_made_again(store: Store, tmp_path: Path) -> None:
    arguments = ("--baseline", "flux", "--store", store.path, "--out", tmp_path, "--pool-size", 8)
    scores = answer("xmodal-evaluate", *arguments)["scores"]
    for file, content in zip(sorted(tmp_path.rglob("*.json")), ("{", "[]"), strict=True):
        file.write_text(content)
    found = answer("xmodal-evaluate", *arguments)["scores"]
    assert [s["S"] for s in found] == [s["S"] for s in scores]


@pytest.mark.full
def test_an_unfinished_run_is_flagged_and_not_started_from(
    trained: tuple[Path, dict[str, Any]], store: Store, tmp_path: Path
) -> None:
    folder = copy_of(trained, tmp_path)
    edit(folder / "run.json", status="interrupted")
    assert "is not finished" in program("xmodal-evaluate", folder).stderr
    given = ("--arm", "d0", "--init", folder, "--store", store.path, "--out", tmp_path, *SMALL)
    done = program("xmodal-train", *given)
    assert done.returncode == 3
    assert "--init" in done.stderr


def test_the_test_split_of_an_unfinished_run_is_not_scored(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = copy_of(trained, tmp_path)
    shutil.rmtree(folder / "evaluation")
    edit(folder / "run.json", status="interrupted")
    done = program("xmodal-evaluate", folder, "--split", "test")
    assert done.returncode == 3
    assert "scored once, when nothing is chosen any more" in done.stderr
    assert not list((folder / "evaluation").glob("*-test.*"))


def test_a_control_is_named_as_one(store: Store, tmp_path: Path) -> None:
    given = ("--arm", "a4r", "--set", "control.name=zero", "--store", store.path, "--dry-run")
    found = answer("xmodal-train", *given, *SMALL)
    assert found["arm"] == "a4r-zero"
    assert Path(found["folder"]).name.startswith("a4r-zero-")


def planned(store: Store, tmp_path: Path, text: str, *flags: object) -> Any:
    """The dry run's configuration under a ``--config`` file."""
    (tmp_path / "c.toml").write_text(text)
    given = ("--config", tmp_path / "c.toml", "--store", store.path, "--dry-run")
    return answer("xmodal-train", *given, *flags)["config"]


def test_a_config_file_chooses_its_preset_and_flags_win(store: Store, tmp_path: Path) -> None:
    text = 'preset = "paper"\nsize = "tiny"\nseed = 5\n'
    paper = answer(
        "xmodal-train", "--preset", "paper", "--size", "tiny", "--seed", 5, "--store", store.path,
        "--dry-run",
    )["config"]  # fmt: skip
    assert planned(store, tmp_path, text) == paper
    flagged = planned(store, tmp_path, text, "--seed", 7, "--preset", "sound")
    assert (flagged["seed"], flagged["preset"], flagged["loss"]["name"]) == (7, "sound", "infonce")


BAD_TOML = {
    "seed = -1": "seed", 'preset = "x"': "preset", "pairs = 3": "pairs",
    "divergence_factor = nan": "finite", "audio.transformer.heads = 0": "heads",
    "audio.transformer.dropout = 2.0": "dropout", "evaluation.pool_size = 0": "pool_size",
    "optimizer.betas = [0.9]": "unpack", "foo = 1": "foo",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD_TOML)
def test_a_config_file_that_cannot_be_is_a_usage_error(
    text: str, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text(text)
    given = ("--config", tmp_path / "c.toml", "--store", store.path, "--size", "tiny", "--dry-run")
    done = CliRunner().invoke(train_app, list(map(str, given)))
    assert done.exit_code == 2, done.output
    assert BAD_TOML[text] in done.output


WRONG = {
    "unknown descriptor": (["--descriptor", "A5", "--mechanism", "concat"], 2, "A4"),
    "unknown mechanism": (["--descriptor", "A4", "--mechanism", "concta"], 2, "concat"),
    "unknown arm": (["--arm", "d5"], 2, "d4a4"),
    "a pair left open": (["--descriptor", "A4"], 2, "pairs"),
    "arm and pairs": (["--arm", "d0", "--descriptor", "A4", "--mechanism", "concat"], 2, "--arm"),
    "a front end as descriptor": (["--descriptor", "mel", "--mechanism", "concat"], 2, "mel"),
    "the same slot twice": (
        ["--descriptor", "A4", "--mechanism", "concat"] * 2, 2, "slot",
    ),
    "no GPU": (["--device", "cuda"], 2, "GPU"),
    "no such device": (["--device", "meta"], 2, "cpu or cuda"),
    "no such store": (["--store", "nowhere"], 3, "nowhere"),
    "pools too large": (["--pool-size", "5000"], 3, "pool-size"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_users_error_is_one_line_and_the_documented_exit_code(
    case: str, store: Store, tmp_path: Path
) -> None:
    arguments, code, word = WRONG[case]
    given = arguments if "--store" in arguments else [*arguments, "--store", store.path]
    done = program("xmodal-train", *given, "--out", tmp_path, "--size", "tiny")
    assert done.returncode == code, done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*/run.json"))


def test_a_store_without_the_needed_array_names_the_command_that_adds_it(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    bare = build_quietly(corpus_of(tiny_corpus), tmp_path / "s", descriptors=("mel",)).store.path
    pairs = ("--descriptor", "A4", "--mechanism", "concat")
    done = program("xmodal-train", *pairs, "--store", bare, "--out", tmp_path, "--size", "tiny")
    assert done.returncode == 3
    assert f"xmodal-features add {bare} --descriptors A4" in done.stderr


def test_a_seed_is_for_the_paper_protocol_alone(
    trained: tuple[Path, dict[str, Any]], store: Store, tmp_path: Path
) -> None:
    folder = copy_of(trained, tmp_path)
    (score,) = answer("xmodal-evaluate", folder, "--store", store.path, "--seed", 5)["scores"]
    assert (score["protocol"], score["seed"]) == ("paper", 5)
    done = program("xmodal-evaluate", folder, "--seed", 5, "--protocol", "strict")
    assert done.returncode == 2
    assert "one fixed set" in done.stderr
    done = program("xmodal-evaluate", folder, "--protocol", "papper")
    assert done.returncode == 2
    assert "papper" in done.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = program("xmodal-evaluate", tmp_path)
    assert done.returncode == 3
    assert "run.json" in done.stderr


def test_evaluate_wants_a_run_or_a_baseline() -> None:
    assert program("xmodal-evaluate").returncode == 2
    assert program("xmodal-evaluate", "--baseline", "flux").returncode == 2


@pytest.mark.full
def test_a_leaking_arm_is_flagged_wherever_its_scores_stand(store: Store, tmp_path: Path) -> None:
    given = ("--arm", "d4a4cm", "--preset", "paper", "--store", store.path, "--out", tmp_path)
    told = answer("xmodal-train", *given, *SMALL)
    assert all(score["leaks"] for score in told["scores"])
    record = json.loads((Path(told["run"]) / "run.json").read_text())
    assert record["leaks"]
    done = program("xmodal-evaluate", told["run"])
    assert "no retrieval scores" in done.stdout
    plain = answer("xmodal-evaluate", told["run"], "--split", "test")
    assert all(score["leaks"] for score in plain["scores"])
    exported = program("xmodal-export", told["run"], tmp_path / "model")
    assert exported.returncode == 0, exported.stderr
    assert "no retrieval" in (tmp_path / "model/README.md").read_text()


@pytest.mark.full
def test_the_foundation_is_two_runs_and_others_start_from_it(store: Store, tmp_path: Path) -> None:
    """The recipe of method §6.3 at tiny size; repeated, it finds both; --init takes one."""
    given = ("--preset", "paper", "--store", store.path, "--out", tmp_path, *SMALL)
    planned = answer("xmodal-train", "--recipe", "foundation", *given, "--dry-run")
    told = answer("xmodal-train", "--recipe", "foundation", *given)
    assert [p["folder"] for p in planned][1] == told["run"]
    second = json.loads((Path(told["run"]) / "run.json").read_text())
    first = json.loads((Path(second["init"]) / "run.json").read_text())
    assert (first["config"]["freeze"], second["config"]["freeze"]) == ("gate-2", "run-d")
    assert first["init"] is None
    frozen = [
        {
            k: v
            for k, v in load_file(Path(p) / "model.safetensors").items()
            if k.startswith("audio.")
        }
        for p in (second["init"], told["run"])
    ]
    untouched = build_model(from_plain(RunConfig, first["config"])).state_dict()
    assert all(torch.equal(v, untouched[k]) for k, v in frozen[0].items())
    moved = [k for k, v in frozen[1].items() if not torch.equal(v, untouched[k])]
    assert moved
    assert all(k.startswith("audio.transformer.") for k in moved)
    times = [(p, p.stat().st_mtime_ns) for p in tmp_path.glob("*/model.safetensors")]
    answer("xmodal-train", "--recipe", "foundation", *given)
    assert [(p, p.stat().st_mtime_ns) for p in tmp_path.glob("*/model.safetensors")] == times
    pairs = ("--descriptor", "A4", "--mechanism", "film")
    arm = answer("xmodal-train", *pairs, "--init", told["run"], *given)
    assert json.loads((Path(arm["run"]) / "run.json").read_text())["init"] == told["run"]
