"""The corpus table: MAESTRO's seven columns, from CSV or from its column-oriented JSON.

A recording's id is its row number in the metadata file; nothing re-sorts it. Columns beyond the
seven are kept as they are. Everything that can be wrong with a table is found here, before any
recording is opened, and named with its row.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.base.errors import CorpusError
from pipeline.corpora.compositions import composition_key
from pipeline.corpora.exceptions import find_exception

SPLITS = ("train", "validation", "test")
COLUMNS = (
    "canonical_composer",
    "canonical_title",
    "split",
    "year",
    "midi_filename",
    "audio_filename",
    "duration",
)
MAX_DURATION_S = 24 * 3600.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One row of a corpus table.

    Attributes
    ----------
    recording : row number in the metadata file
    key : unique name, the audio path without its extension
    composition : the work, under any spelling of its title: the column of that name where it is
        filled, else a listed exception, else what the title says
    duration_s : seconds, as the metadata say (in MAESTRO: the end of the last note)
    audio_path, midi_path : relative to the corpus root, with forward slashes
    extra : further columns, by name
    """

    recording: int
    key: str
    composer: str
    title: str
    composition: str
    split: str
    year: int
    duration_s: float
    audio_path: str
    midi_path: str
    extra: dict[str, str]


def load_table(path: Path) -> list[Recording]:
    """Read and validate a corpus table (``.csv`` or ``.json``).

    Raises
    ------
    CorpusError
        naming file, row and remedy: unreadable file, encoding, missing column, unknown split, bad
        number, unsafe path, the same file twice, no rows.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"cannot read the corpus table {path}: {error.strerror}") from None
    text = _decode(raw, path)
    rows = _json_rows(text, path) if path.suffix.lower() == ".json" else _csv_rows(text, path)
    recordings = [_recording(i, row, path) for i, row in enumerate(rows)]
    if not recordings:
        raise CorpusError(f"{path} has no rows")
    _refuse_twice(recordings, path)
    return recordings


def _decode(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise CorpusError(
            f"{path} is not UTF-8 (line {line}); convert it, for example with: "
            f"iconv -f latin1 -t utf-8 '{path}'",
            kind="encoding",
        ) from None


def _csv_rows(text: str, path: Path) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _require_columns(list(reader.fieldnames or []), path)
        rows = list(reader)
    except csv.Error as error:
        raise CorpusError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None
    for i, row in enumerate(rows):
        if None in row or None in row.values():
            raise CorpusError(f"{path}, row {i}: has another number of fields than the header")
    return rows


def _json_rows(text: str, path: Path) -> list[dict[str, str]]:
    """MAESTRO's JSON is column-oriented: {column: {"0": value, "1": value, …}}."""
    try:
        columns = json.loads(text)
    except ValueError as error:
        raise CorpusError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(columns, dict) or not all(isinstance(c, dict) for c in columns.values()):
        raise CorpusError(f"{path} is not column-oriented JSON as MAESTRO publishes it")
    _require_columns(list(columns), path)
    index = list(columns[COLUMNS[0]])
    for name, column in columns.items():
        if list(column) != index:
            raise CorpusError(f"{path}: column {name} has other rows than {COLUMNS[0]}")
    try:
        index.sort(key=int)
    except ValueError:
        raise CorpusError(f"{path}: rows are not numbered") from None
    return [{name: _text(column[i]) for name, column in columns.items()} for i in index]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _require_columns(found: list[str], path: Path) -> None:
    missing = [c for c in COLUMNS if c not in found]
    if missing:
        raise CorpusError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"MAESTRO's seven are needed: {', '.join(COLUMNS)}",
            kind="columns",
        )
    twice = sorted({c for c in found if found.count(c) > 1})
    if twice:
        raise CorpusError(f"{path} has the column {', '.join(twice)} twice", kind="columns")


def _recording(i: int, row: dict[str, str], path: Path) -> Recording:
    where = f"{path}, row {i}"
    if row["split"] not in SPLITS:
        raise CorpusError(
            f"{where}: unknown split '{row['split']}'; must be one of {', '.join(SPLITS)}",
            kind="split",
        )
    for column in ("canonical_composer", "canonical_title"):
        if not row[column].strip():
            raise CorpusError(f"{where}: {column} is empty")
    duration = _number(row["duration"], f"{where}: duration")
    if not 0.0 < duration <= MAX_DURATION_S:
        raise CorpusError(f"{where}: duration {row['duration']} s is not within (0, 24 h]")
    audio = _relative(row["audio_filename"], f"{where}: audio_filename")
    composer, title = row["canonical_composer"], row["canonical_title"]
    extra = {k: v for k, v in row.items() if k not in COLUMNS}
    key = str(PurePosixPath(audio).with_suffix(""))
    return Recording(
        recording=i,
        key=key,
        composer=composer,
        title=title,
        composition=extra.get("composition", "").strip() or _composition(key, composer, title),
        split=row["split"],
        year=_year(row["year"], f"{where}: year"),
        duration_s=duration,
        audio_path=audio,
        midi_path=_relative(row["midi_filename"], f"{where}: midi_filename"),
        extra=extra,
    )


def _composition(key: str, composer: str, title: str) -> str:
    exception = find_exception(key, title)
    return exception.composition if exception else composition_key(composer, title)


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise CorpusError(f"{where} '{text}' is not a number") from None
    if not math.isfinite(value):
        raise CorpusError(f"{where} '{text}' is not finite")
    return value


def _year(text: str, where: str) -> int:
    """A whole number of at most four digits; spreadsheets like to write 2008.0."""
    value = _number(text, where)
    if value != int(value) or not 0 <= value <= 9999:
        raise CorpusError(f"{where} '{text}' is not a year")
    return int(value)


def _relative(text: str, where: str) -> str:
    path = PurePosixPath(text.replace("\\", "/"))
    inside = path.name and not path.is_absolute() and ".." not in path.parts
    if not text.strip() or not inside or "\0" in text:
        raise CorpusError(f"{where} '{text}' must be a path inside the corpus folder")
    return str(path)


def _refuse_twice(recordings: list[Recording], path: Path) -> None:
    for attribute in ("key", "midi_path"):
        first: dict[str, int] = {}
        for r in recordings:
            value = getattr(r, attribute)
            if value in first:
                raise CorpusError(
                    f"{path}, row {r.recording}: the same file as row {first[value]} ({value})",
                    kind="duplicate",
                )
            first[value] = r.recording
