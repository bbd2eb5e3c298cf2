"""``metrics.jsonl``: one JSON object a line, each step once, however often the run was resumed.

Only what the run computes is in it (no clock), so that two equal runs write equal bytes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


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
