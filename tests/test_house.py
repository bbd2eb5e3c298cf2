"""The import contracts cover every room."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SEEN_BY_THE_TRAINER = {"base", "store", "spectral", "stft", "descriptors"}


def test_no_room_of_the_pipeline_is_forgotten_in_the_trainers_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    found = next(c for c in contracts["contracts"] if c["name"].startswith("the trainer sees"))
    forbidden = {name.removeprefix("pipeline.") for name in found["forbidden_modules"]}
    rooms = {
        path.stem
        for path in (ROOT / "pipeline").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem != "__init__"
    }
    assert forbidden == rooms - SEEN_BY_THE_TRAINER
