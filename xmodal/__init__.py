"""The façade: what a user of trained models and stores needs, under one name.

>>> import xmodal
>>> store = xmodal.open_store("data/features/demo-0123456789ab")  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path

from pipeline.store import Store

__all__ = ["__version__", "open_store"]

__version__ = "0.1.0"


def open_store(path: str | Path) -> Store:
    """Open a committed store for reading; see :class:`pipeline.store.Store`."""
    return Store.open(path)
