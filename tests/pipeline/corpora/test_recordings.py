"""The corpus table: what is read, and every way in which it can be wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import oracles
import pytest
from makers import COLUMNS, SPECS, row_of, write_table

from pipeline.base.errors import CorpusError
from pipeline.corpora.recordings import load_table
from pipeline.plan import count_segments
from pipeline.store.schema import Segmentation

ROWS = [row_of(s) for s in SPECS]


def table(path: Path, **changes: Any) -> Path:
    """A table whose second row is changed."""
    return write_table(path / "t.csv", [ROWS[0], {**ROWS[1], **changes}, *ROWS[2:]])


def refusal(path: Path) -> CorpusError:
    with pytest.raises(CorpusError) as caught:
        load_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_rows_keep_their_order_and_their_numbers(tmp_path: Path) -> None:
    found = load_table(table(tmp_path))
    assert [r.recording for r in found] == [0, 1, 2, 3]
    assert [r.audio_path for r in found] == [s.audio for s in SPECS]
    assert [r.midi_path for r in found] == [s.midi for s in SPECS]
    assert [r.duration_s for r in found] == [s.seconds for s in SPECS]
    assert found[2].composer == "Frédéric Chopin"
    assert found[0].key == "2008/cd-stereo"


def test_column_oriented_json_gives_the_same(tmp_path: Path) -> None:
    columns: dict[str, dict[str, Any]] = {c: {} for c in COLUMNS}
    for i in (3, 1, 0, 2):  # the order inside the file means nothing, the numbers do
        for c in COLUMNS:
            value = ROWS[i][c]
            columns[c][str(i)] = float(value) if c == "duration" else value
    (tmp_path / "t.json").write_text(json.dumps(columns), encoding="utf-8")
    assert load_table(tmp_path / "t.json") == load_table(table(tmp_path))


def test_more_columns_are_kept_and_column_order_is_free(tmp_path: Path) -> None:
    columns = ["pianist", *reversed(COLUMNS), "room"]
    rows = [{**r, "pianist": f"P{i}", "room": "hall, small"} for i, r in enumerate(ROWS)]
    found = load_table(write_table(tmp_path / "t.csv", rows, columns))
    assert found[1].extra == {"pianist": "P1", "room": "hall, small"}
    assert [r.title for r in found] == [r["canonical_title"] for r in ROWS]


def test_a_composition_column_is_believed(tmp_path: Path) -> None:
    rows = [{**r, "composition": w} for r, w in zip(ROWS, ["w1", "w1", "", "w2"], strict=True)]
    found = load_table(write_table(tmp_path / "t.csv", rows, [*COLUMNS, "composition"]))
    assert [r.composition for r in found] == ["w1", "w1", "chopin-op25-3", "w2"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_do_not_matter(newline: str, tmp_path: Path) -> None:
    expected = load_table(table(tmp_path))
    text = (tmp_path / "t.csv").read_bytes().decode().replace("\r\n", newline)
    (tmp_path / "u.csv").write_bytes(text.encode())
    assert load_table(tmp_path / "u.csv") == expected


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    expected = load_table(table(tmp_path))
    (tmp_path / "u.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "t.csv").read_bytes())
    assert load_table(tmp_path / "u.csv") == expected


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_another_encoding_is_named(encoding: str, tmp_path: Path) -> None:
    path = table(tmp_path)
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    assert refusal(path).kind == "encoding"


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(column: str, tmp_path: Path) -> None:
    kept = [c for c in COLUMNS if c != column]
    rows = [{c: r[c] for c in kept} for r in ROWS]
    error = refusal(write_table(tmp_path / "t.csv", rows, kept))
    assert error.kind == "columns"
    assert column in str(error)


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    with table(tmp_path).open(newline="") as handle:
        lines = [[*row, row[2]] for row in csv.reader(handle)]
    with (tmp_path / "t.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(lines)
    assert "split twice" in str(refusal(tmp_path / "t.csv"))


WRONG = {
    "unknown split": ({"split": "dev"}, "split", "unknown split 'dev'"),
    "empty split": ({"split": ""}, "split", "unknown split"),
    "split in capitals": ({"split": "Train"}, "split", "unknown split 'Train'"),
    "year in words": ({"year": "MMVIII"}, "corpus", "year 'MMVIII'"),
    "no year": ({"year": ""}, "corpus", "year ''"),
    "half a year": ({"year": "2008.5"}, "corpus", "year '2008.5'"),
    "far future": ({"year": "20080"}, "corpus", "year '20080'"),
    "endless year": ({"year": "inf"}, "corpus", "year 'inf'"),
    "duration in words": ({"duration": "long"}, "corpus", "duration 'long'"),
    "decimal comma": ({"duration": "12,5"}, "corpus", "duration '12,5'"),
    "duration nan": ({"duration": "nan"}, "corpus", "not finite"),
    "duration 0": ({"duration": "0"}, "corpus", "duration 0"),
    "negative duration": ({"duration": "-3"}, "corpus", "duration -3"),
    "a week": ({"duration": "604800"}, "corpus", "24 h"),
    "no composer": ({"canonical_composer": " "}, "corpus", "canonical_composer"),
    "no title": ({"canonical_title": ""}, "corpus", "canonical_title"),
    "climbing out": ({"audio_filename": "../x.wav"}, "corpus", "inside the corpus"),
    "climbing inside": ({"midi_filename": "a/../../x.midi"}, "corpus", "inside the corpus"),
    "backslashes out": ({"audio_filename": "..\\x.wav"}, "corpus", "inside the corpus"),
    "absolute": ({"audio_filename": "/etc/passwd"}, "corpus", "inside the corpus"),
    "no audio": ({"audio_filename": ""}, "corpus", "inside the corpus"),
    "the folder itself": ({"audio_filename": "."}, "corpus", "inside the corpus"),
    "a zero byte": ({"midi_filename": "a\0.midi"}, "corpus", "inside the corpus"),
    "audio twice": ({"audio_filename": SPECS[0].audio}, "duplicate", "row 0"),
    "audio twice, other spelling": ({"audio_filename": f"./{SPECS[0].audio}"}, "duplicate", "row"),
    "midi twice": ({"midi_filename": SPECS[0].midi}, "duplicate", "row 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_named_with_its_row(name: str, tmp_path: Path) -> None:
    changes, kind, message = WRONG[name]
    error = refusal(table(tmp_path, **changes))
    assert error.kind == kind
    assert message in str(error)
    assert "row 1" in str(error)


@pytest.mark.parametrize("text", ["2008", " 2008", "2008.0"])
def test_spreadsheet_years_are_years(text: str, tmp_path: Path) -> None:
    assert load_table(table(tmp_path, year=text))[1].year == 2008


HEADER = ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", ""),
        ("t.csv", "\n\n"),
        ("t.csv", HEADER),
        ("t.csv", HEADER + "\na,b,train\n"),
        ("t.csv", HEADER + "\na,b,train,2008,m,a,9,more,and more\n"),
        ("t.csv", HEADER + '\n"a,b,train,2008,m,a,9\n'),
        ("t.csv", '"' + HEADER),
        ("t.csv", HEADER.replace(",", ";")),
        ("t.json", ""),
        ("t.json", "[]"),
        ("t.json", '{"split": ["train"]}'),
        ("t.json", json.dumps({c: {} for c in COLUMNS})),
        ("t.json", json.dumps({c: {"a": "1"} for c in COLUMNS})),
        ("t.json", json.dumps({c: {str(i): "1"} for i, c in enumerate(COLUMNS)})),
        ("t.json", json.dumps({c: {"0": None} for c in COLUMNS})),
    ],
)
def test_broken_tables_are_one_line(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    refusal(tmp_path / name)


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    refusal(tmp_path / "none.csv")
    refusal(tmp_path)


@pytest.mark.full
def test_maestros_segments_are_counted_from_its_table_alone(real_data: Path) -> None:
    recordings = load_table(real_data / "maestro-v3.0.0.csv")
    assert len(recordings) == 1276
    capped = count_segments(recordings, Segmentation())
    assert capped == {"train": 95_906, "validation": 13_532, "test": 17_654}
    whole = count_segments(recordings, Segmentation(max_per_recording=None))
    assert whole == {"train": 569_909, "validation": 69_468, "test": 71_308}
    assert sum(oracles.count_segments(r.duration_s, 100) for r in recordings) == 127_092
