"""The command lines of the trainer: flags, answers, exit codes, one real run end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from makers import Spec, build_quietly, corpus_of, make_corpus
from typer.main import get_command

from pipeline.store import Store
from trainer.cli import evaluate_app, train_app

TRAIN_FLAGS = {
    "--store", "--out", "--descriptor", "--mechanism", "--arm", "--preset", "--size", "--schedule",
    "--epochs", "--batches-per-epoch", "--batch-size", "--seed", "--init", "--device", "--precision",
    "--compile", "--no-compile", "--evaluate-every", "--pool-size", "--overwrite", "--resume",
    "--deterministic", "--no-deterministic", "--dry-run", "--no-dry-run", "--config", "--list",
    "--json",
}  # fmt: skip
EVALUATE_FLAGS = {
    "--baseline", "--protocol", "--split", "--store", "--seed", "--pool-size", "--save-embeddings",
    "--out", "--device", "--json",
}  # fmt: skip


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
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six recordings of half a minute, two a split."""
    folder = tmp_path_factory.mktemp("corpus")
    specs = tuple(
        Spec(f"{split}-{i}", seconds=24.0, split=split, title=f"{split}, BWV {n}{i}")
        for n, split in enumerate(("train", "validation", "test"), 1)
        for i in range(2)
    )
    return build_quietly(
        corpus_of(make_corpus(folder, specs)), tmp_path_factory.mktemp("out")
    ).store


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


@pytest.mark.parametrize(
    ("app", "flags"), [(train_app, TRAIN_FLAGS), (evaluate_app, EVALUATE_FLAGS)]
)
def test_the_flags_are_exactly_these(app: Any, flags: set[str]) -> None:
    found = {o for p in get_command(app).params for o in (*p.opts, *p.secondary_opts)}
    assert {f for f in found if f.startswith("--")} - {"--help"} == flags


@pytest.mark.parametrize("function", ["train_main", "evaluate_main"])
def test_help_shows_examples_and_imports_neither_torch_nor_numba(function: str) -> None:
    code = (
        f"import sys; sys.argv = ['x', '--help']\nfrom trainer.cli import {function}\n"
        f"try:\n    {function}()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'numba', 'librosa', 'pyarrow', 'zarr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Examples:" in done.stdout
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize("what", ["descriptors", "mechanisms", "arms"])
def test_listings_come_as_json_alone(what: str) -> None:
    listed = answer("xmodal-train", "--list", what)
    assert {"A4", "concat", "a4r"} & {row["name"] for row in listed}


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
    for protocol, score, floor in zip(
        ("paper", "strict"), told["scores"], told["floor"], strict=True
    ):
        written = json.loads((folder / f"evaluation/{protocol}-validation.json").read_text())
        assert written == score
        assert score["protocol"] == floor["protocol"] == protocol
        assert score["pool_hash"] == floor["pool_hash"]
        assert 0 <= score["ci95"]["S"][0] <= score["ci95"]["S"][1] <= 1
        assert score["store"] == store.name
    # The test split is never scored by training.
    assert not list((folder / "evaluation").glob("*-test.json"))


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
        assert values.shape == (len(rows), 256)
        assert values.dtype == np.float32
    assert score["queries"] + score["excluded"] == int(store.segments.valid[rows].sum())


def test_a_baseline_is_scored_without_a_run(store: Store, tmp_path: Path) -> None:
    arguments = ("--store", store.path, "--split", "test", "--out", tmp_path, "--pool-size", 8)
    scores = answer("xmodal-evaluate", "--baseline", "flux", *arguments)["scores"]
    assert [s["protocol"] for s in scores] == ["paper", "strict"]
    assert all(s["run"] == "flux" for s in scores)


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


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = program("xmodal-evaluate", tmp_path)
    assert done.returncode == 3
    assert "run.json" in done.stderr


def test_evaluate_wants_a_run_or_a_baseline() -> None:
    assert program("xmodal-evaluate").returncode == 2
    assert program("xmodal-evaluate", "--baseline", "flux").returncode == 2
