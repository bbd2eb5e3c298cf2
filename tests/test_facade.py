"""``import xmodal`` is enough to open a store."""

from __future__ import annotations

import numpy as np

import xmodal
from pipeline.store import Store


def test_open_store_opens_what_the_pipeline_wrote(tiny_store: Store) -> None:
    store = xmodal.open_store(str(tiny_store.path))
    assert store.identity == tiny_store.identity
    assert store.read("A4", 0, 2).shape == (2, 188, 8)
    assert np.isfinite(store.read("A4")).all()


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert xmodal.__version__ == version("xmodal")
