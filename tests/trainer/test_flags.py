"""The flags of the trainer's commands, which scripts rely on; help that is quick."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from trainer.cli import evaluate_app, train_app
from trainer.cli_analyses import analyze_app, compare_app
from trainer.cli_search import search_app
from trainer.cli_sweep import sweep_app

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
    "--variant", "--split", "--baseline", "--store", "--out", "--device", "--list", "--json",
}  # fmt: skip
COMPARE_FLAGS = {"--protocol", "--split", "--baseline", "--store", "--out", "--device", "--json"}
HEAVY = {"torch", "numba", "librosa", "pyarrow", "zarr", "sklearn", "matplotlib"}
CAMPAIGN_FLAGS = {"--tiny", "--store", "--out", "--json"}
SWEEP_FLAGS = {
    "list": {"--json"},
    "plan": CAMPAIGN_FLAGS,
    "run": CAMPAIGN_FLAGS | {"--device", "--gpus", "--jobs", "--threads"},
    "preflight": CAMPAIGN_FLAGS | {"--device", "--time", "--full", "--requeues"},
    "submit": CAMPAIGN_FLAGS | {
        "--time", "--gpus", "--cpus", "--memory", "--partition", "--account", "--at-once", "--stage",
        "--setup", "--extra", "--device", "--threads", "--requeues", "--preflight", "--no-preflight",
        "--full",
    },
    "cancel": CAMPAIGN_FLAGS,
    "status": CAMPAIGN_FLAGS,
    "report": CAMPAIGN_FLAGS | {"--page", "--floor"},
    "ledger": {"--out", "--csv", "--json"},
    "task": {"--store", "--device", "--threads", "--memory", "--json"},
    "runs list": {"--out", "--json"},
    "runs prune": {"--out", "--unplanned", "--yes", "--json"},
}  # fmt: skip

SEARCH_FLAGS = {
    "index": {"--run", "--baseline", "--out", "--approximate", "--overwrite", "--device", "--json"},
    "query": {
        "--index", "--run", "--baseline", "--top", "--rate", "--listen", "--store", "--exact",
        "--device", "--json",
    },
}  # fmt: skip


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
    assert _flags(get_command(app)) == flags


def test_the_flags_of_every_command_of_campaigns_are_exactly_these() -> None:
    assert {name: _flags(command) for name, command in _commands(get_command(sweep_app))} == (
        SWEEP_FLAGS
    )


def test_the_flags_of_search_are_exactly_these() -> None:
    assert {n: _flags(c) for n, c in _commands(get_command(search_app))} == SEARCH_FLAGS


def _flags(command: Any) -> set[str]:
    found = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    return {f for f in found if f.startswith("--")} - {"--help"}


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command, by the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


HELP = """
import contextlib, io, sys
from trainer.{module} import main
for words in {words!r}:
    sys.argv = ["{program}", *words.split(), "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main()
    text = said.getvalue()
    assert "Usage: " in text and " ".join(["{program}", *words.split()]) in text, text
    assert "Example:  {program} " in text or "Examples:  {program} " in text, text
    print(words, sorted({heavy!r} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("program", "module", "words"),
    [
        ("xmodal-sweep", "cli_sweep", ["", "runs", *SWEEP_FLAGS]),
        ("xmodal-search", "cli_search", ["", *SEARCH_FLAGS]),
    ],
)
def test_help_of_every_command_shows_an_example_and_is_quick(
    program: str, module: str, words: list[str]
) -> None:
    code = HELP.format(program=program, module=module, words=words, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{each} []" for each in words]


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
    code = (
        f"import sys; sys.argv = ['x', '--help']\nfrom trainer.{module} import {function}\n"
        f"try:\n    {function}()\nexcept SystemExit:\n    pass\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Examples:" in done.stdout
    assert done.stdout.strip().endswith("[]")
