"""Recordings whose title does not say, or says wrongly, what is played.

``data_manifests/compositions.csv`` holds them, one row each with its reason: the audio file's name
without extension (``*`` and ``[…]`` as in a shell), the title as the table has it (another title
means that somebody corrected the table), and the composition. Facts about published metadata; no
recording is needed to apply them.
"""

from __future__ import annotations

import csv
import dataclasses
import fnmatch
import functools
import io
from pathlib import Path, PurePosixPath

from pipeline.corpora.spelling import spaced

# Beside the package, in a checkout as in an installation.
TABLE = Path(__file__).parents[2] / "data_manifests" / "compositions.csv"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExceptionRow:
    """One row of the table."""

    file: str
    title: str
    composition: str
    reason: str


def find_exception(key: str, title: str) -> ExceptionRow | None:
    """The exception for the recording ``key`` (its audio path without extension), if there is one."""
    rows = _by_title().get(spaced(title), ())
    name = PurePosixPath(key).name
    return next((r for r in rows if fnmatch.fnmatchcase(name, r.file)), None)


@functools.cache
def all_exceptions() -> tuple[ExceptionRow, ...]:
    """The whole table."""
    _, _, table = TABLE.read_text(encoding="utf-8").partition("\n")  # the first line is a comment
    rows = csv.DictReader(io.StringIO(table, newline=""))
    return tuple(ExceptionRow(**row) for row in rows)


@functools.cache
def _by_title() -> dict[str, list[ExceptionRow]]:
    found: dict[str, list[ExceptionRow]] = {}
    for row in all_exceptions():
        found.setdefault(spaced(row.title), []).append(row)
    return found
