"""``metrics.jsonl``: one JSON object a line, each step once, however often the run was resumed.

Only what the run computes is in it (no clock), so that two equal runs write equal bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from pipeline.base.errors import MissingExtra


class Log(Protocol):
    """Whatever takes the rows of a training: ``step``, and what was computed there."""

    def write(self, row: dict[str, Any]) -> None:
        """One row; numbers may lie in a nested table."""

    def close(self) -> None:
        """No more rows."""


class TensorBoardLog:
    """The same rows as curves (extra ``tensorboard``).

    Parameters
    ----------
    folder : where event files go
    step : the run goes on after it; what an earlier attempt wrote beyond is hidden

    Raises
    ------
    MissingExtra
        when TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        writer = require_tensorboard()
        self._writer = writer(str(folder), purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Every number of the row as a point."""
        for name, value in _numbers(row, ""):
            if name not in ("step", "epoch"):
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def require_tensorboard() -> Any:
    """The class that writes event files; a :class:`MissingExtra` where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtra("tensorboard", "tensorboard") from None
    return SummaryWriter


def _numbers(row: dict[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            yield prefix + key, float(value)


class MetricsLog:
    """A line-buffered log that can be cut back to where a checkpoint was taken.

    Parameters
    ----------
    path : the file; made when missing
    keep_bytes : length that it had when the checkpoint was taken; what follows is dropped

    Attributes
    ----------
    missing_bytes : how much shorter than that the file was (somebody cut or removed it)
    """

    def __init__(self, path: Path, keep_bytes: int = 0) -> None:
        path.touch()
        size = path.stat().st_size
        self.missing_bytes = max(0, keep_bytes - size)
        os.truncate(path, min(keep_bytes, size))
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._file.write(json.dumps(row, allow_nan=False) + "\n")

    def commit(self) -> int:
        """Make everything durable; returns the file's length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows; an unfinished last line (of a run that is being written) is left out."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
