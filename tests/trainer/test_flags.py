"""The flags of the trainer's commands, which scripts rely on; help that is quick."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from typer.main import get_command

from trainer.cli import evaluate_app, train_app
from trainer.cli_analyses import analyze_app, compare_app

TRAIN_FLAGS = {
    "--store", "--out", "--descriptor", "--mechanism", "--arm", "--preset", "--size", "--schedule",
    "--epochs", "--batches-per-epoch", "--batch-size", "--seed", "--init", "--device", "--precision",
    "--compile", "--no-compile", "--evaluate-every", "--pool-size", "--overwrite", "--resume",
    "--deterministic", "--no-deterministic", "--dry-run", "--no-dry-run", "--config", "--list",
    "--json", "--frontend", "--loss", "--freeze", "--set", "--recipe", "--tensorboard",
}  # fmt: skip
EVALUATE_FLAGS = {
    "--baseline", "--protocol", "--split", "--store", "--seed", "--pool-size", "--save-embeddings",
    "--by", "--out", "--device", "--json",
}  # fmt: skip
ANALYZE_FLAGS = {
    "--variant",
    "--split",
    "--store",
    "--out",
    "--device",
    "--list",
    "--json",
}
COMPARE_FLAGS = {"--protocol", "--split", "--baseline", "--store", "--out", "--device", "--json"}


@pytest.mark.parametrize(
    ("app", "flags"),
    [
        (train_app, TRAIN_FLAGS),
        (evaluate_app, EVALUATE_FLAGS),
        (analyze_app, ANALYZE_FLAGS),
        (compare_app, COMPARE_FLAGS),
    ],
)
def test_the_flags_are_exactly_these(app: Any, flags: set[str]) -> None:
    found = {o for p in get_command(app).params for o in (*p.opts, *p.secondary_opts)}
    assert {f for f in found if f.startswith("--")} - {"--help"} == flags


@pytest.mark.parametrize(
    "main",
    [
        "cli.train_main",
        "cli.evaluate_main",
        "cli_analyses.analyze_main",
        "cli_analyses.compare_main",
    ],
)
def test_help_shows_examples_and_imports_nothing_heavy(main: str) -> None:
    module, function = main.split(".")
    heavy = {"torch", "numba", "librosa", "pyarrow", "zarr", "sklearn", "matplotlib"}
    code = (
        f"import sys; sys.argv = ['x', '--help']\nfrom trainer.{module} import {function}\n"
        f"try:\n    {function}()\nexcept SystemExit:\n    pass\n"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Examples:" in done.stdout
    assert done.stdout.strip().endswith("[]")
