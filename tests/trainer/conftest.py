"""Fixtures of the trainer's tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trainer_fakes import FakeStore, run_config


@pytest.fixture(autouse=True)
def drawn_alike_every_time() -> None:
    """Tests that draw tensors draw the same ones in every run and in any order."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def store() -> FakeStore:
    """A store that no test changes."""
    return FakeStore()


@pytest.fixture
def make_config() -> Any:
    """:func:`trainer_fakes.run_config`."""
    return run_config
