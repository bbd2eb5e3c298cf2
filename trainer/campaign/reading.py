"""Values out of run folders, each with the type that it must have, or a :class:`Damage` that names it.

JSON keeps no promise: a field may be gone, of another type, not finite, too large for a column. What
is taken from a record is checked here, so that one damaged file is one line told and no table is lost.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json as pj

T = TypeVar("T")
LARGEST = 2**62
POINT = pa.struct(
    [("epoch", pa.int64()), ("step", pa.int64()), ("S", pa.float64()), ("loss", pa.float64())]
)
CURVE = pa.list_(POINT)
_LINE = pa.schema(
    [
        ("step", pa.int64()),
        ("epoch", pa.int64()),
        ("loss", pa.float64()),
        ("validation", pa.struct([("S", pa.float64())])),
    ]
)
_NAMES = {
    dict: "a table",
    list: "a list",
    str: "text",
    int: "a whole number",
    bool: "true or false",
}
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Damage(ValueError):
    """A file of a run that is not what it should be."""


def take(record: Any, kind: type[T], *path: str) -> T:
    """The value at ``path``, of the given type; a float may be written as a whole number.

    Tables are dicts, as JSON gives them: a ledger asks hundreds of thousands of times.
    """
    value, where = record, ".".join(path)
    for key in path:
        if not isinstance(value, dict) or key not in value:
            raise Damage(f"{where} is missing")
        value = value[key]
    if kind is float:
        return number(value, where)  # type: ignore[return-value]
    wrong = isinstance(value, bool) and kind is not bool
    if wrong or not isinstance(value, kind):
        raise Damage(f"{where or 'it'} is not {_NAMES[kind]}")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise Damage(f"{where} is too large")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Damage(f"{where} is no text") from None
    return value


def known(record: Any, kind: type[T], *path: str) -> T | None:
    """As :func:`take`, but None where nothing is said."""
    value = record
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else take(record, kind, *path)


def number(value: Any, where: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Damage(f"{where} is not a number")
    if abs(value) > LARGEST or not math.isfinite(value):
        raise Damage(f"{where} is not finite")
    return float(value)


def natural(record: Any, *path: str) -> int:
    """A whole number, 0 or more."""
    value = take(record, int, *path)
    if value < 0:
        raise Damage(f"{'.'.join(path)} = {value}")
    return value


def fraction(record: Any, *path: str) -> float:
    """A number from 0 to 1."""
    value = take(record, float, *path)
    if not 0 <= value <= 1:
        raise Damage(f"{'.'.join(path)} = {value:.3g} is no fraction")
    return value


def json_file(file: Path) -> dict[str, Any]:
    """The table that a JSON file holds.

    Raises
    ------
    Damage
        when it does not read; what the disk says is an ``OSError``.
    """
    try:
        with file.open("rb") as handle:
            return take(json.loads(handle.read()), dict)
    except RecursionError:
        raise Damage("it does not read (nested too deeply)") from None
    except Damage:
        raise
    except ValueError as error:
        raise Damage(f"it does not read ({error})") from None


def read_curve(file: Path) -> tuple[list[dict[str, Any]] | None, list[str]]:
    """What ``metrics.jsonl`` says of every epoch, and what of it does not read.

    Returns
    -------
    curve, problems
        A :data:`POINT` an epoch: its last step, the validation S after it (null where it was not
        scored), the mean training loss of its steps. None without a file. An unfinished last line,
        of a run that is being written, is no problem.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None, []
    except OSError as error:
        return None, [f"it does not read ({error.strerror})"]
    content = content[: content.rfind(b"\n") + 1]
    if not content:
        return [], []
    problems: list[str] = []
    try:
        columns = _fast(content)
    except (pa.ArrowException, Damage):
        columns, problems = _line_by_line(content)
    return _points(*columns), problems


def _fast(content: bytes) -> tuple[Ints, Ints, Floats, Floats]:
    table = pj.read_json(
        io.BytesIO(content),
        read_options=pj.ReadOptions(use_threads=False, block_size=max(1 << 20, len(content))),
        parse_options=pj.ParseOptions(explicit_schema=_LINE, unexpected_field_behavior="ignore"),
    )
    if table.column("step").null_count or table.column("epoch").null_count:
        raise Damage("lines without step or epoch")
    scores = table.column("validation").combine_chunks().field("S")
    columns = (
        table.column("step").to_numpy(),
        table.column("epoch").to_numpy(),
        table.column("loss").to_numpy(),
        scores.to_numpy(zero_copy_only=False).astype(float),
    )
    # Neither has a loss nor a score that is not finite, unless somebody wrote into the file.
    lost = np.isnan(columns[2]) & np.isnan(columns[3])
    if lost.any() or np.isinf(columns[2]).any() or np.isinf(columns[3]).any():
        raise Damage("lines without numbers")
    return columns


def _line_by_line(content: bytes) -> tuple[tuple[Ints, Ints, Floats, Floats], list[str]]:
    rows, bad = [], []
    for i, line in enumerate(content.splitlines(), 1):
        try:
            row = take(json.loads(line), dict)
            loss, score = known(row, float, "loss"), known(row, float, "validation", "S")
            if loss is None and score is None:
                raise Damage("neither loss nor score")
            rows.append((natural(row, "step"), natural(row, "epoch"), loss, score))
        except (ValueError, RecursionError):
            bad.append(i)
    told = []
    if bad:
        others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        told.append(f"line {bad[0]}{others} of {len(rows) + len(bad)} is damaged and left out")
    step, epoch, losses, scores = zip(*rows, strict=True) if rows else ((),) * 4
    whole = np.array(step, np.int64), np.array(epoch, np.int64)
    return (*whole, np.array(losses, float), np.array(scores, float)), told


def _points(step: Ints, epoch: Ints, loss: Floats, score: Floats) -> list[dict[str, Any]]:
    epochs, place = np.unique(epoch, return_inverse=True)
    last = np.zeros(len(epochs), np.int64)
    np.maximum.at(last, place, step)
    trained, scored = np.isfinite(loss), np.isfinite(score)
    sums = np.bincount(place[trained], loss[trained], len(epochs))
    counts = np.bincount(place[trained], minlength=len(epochs))
    found = {int(p): float(s) for p, s in zip(place[scored], score[scored], strict=True)}
    return [
        {
            "epoch": int(e),
            "step": int(last[i]),
            "S": found.get(i),
            "loss": float(sums[i] / counts[i]) if counts[i] else None,
        }
        for i, e in enumerate(epochs)
    ]
