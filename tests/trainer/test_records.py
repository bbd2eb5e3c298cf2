"""Scores as people read them: intervals say what they were drawn from, nobody is left out unsaid."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.base.errors import RunError
from pipeline.base.files import read_json, write_json
from trainer.analyses.page import _scores
from trainer.records import read_scored, remarks, table, write_scores
from trainer.retrieval.evaluate import score_embeddings
from trainer.retrieval.gallery import Gallery


def scored(lengths, pool_size=256):
    """Strict scores of random embeddings; recordings of these many segments, each its own work."""
    recording = np.repeat(np.arange(len(lengths)), lengths)
    gallery = Gallery.from_columns(
        split="test",
        segment=np.arange(len(recording)),
        recording=recording,
        composer=recording % 2,
        composition=recording,
        start_s=np.concatenate([np.arange(n, dtype=float) for n in lengths]),
        valid=np.ones(len(recording), bool),
        notes=np.ones(len(recording), int),
    )
    audio, midi = np.random.default_rng(0).normal(size=(2, len(recording), 8))
    return score_embeddings(audio, midi, gallery, "strict", pool_size=pool_size)


@pytest.mark.parametrize(("recordings", "kind"), [(25, "recordings"), (12, "10-s blocks")])
def test_an_interval_says_what_it_was_drawn_from(recordings, kind):
    rows = [("a4r", scored([30] * recordings).record())]
    head, line, *below = table(rows).splitlines()
    assert "drawn" in head
    assert f" {kind} " in line
    assert any("too narrow" in remark for remark in below) == (kind != "recordings")
    on_page = str(_scores(rows))
    assert f">{kind}<" in on_page
    assert ("too narrow" in on_page) == (kind != "recordings")


def test_nothing_is_remarked_where_everybody_takes_part():
    assert remarks([("a4r", scored([30] * 25).record())]) == []


@pytest.mark.parametrize(
    ("lengths", "pool_size", "change", "words"),
    [
        ([30] * 25, 16, {}, "a4r, strict: pools of 16 candidates, not 256."),
        ([30] * 25 + [3], 256, {}, "750 of 753 queries have a negative of their own recording"),
        ([30] * 25, 256, {"excluded": 7}, "7 queries without a full pool left out"),
        (
            [30] * 25,
            256,
            {"pool_size": {"min": 120, "median": 250.0}},
            "pools of 120 candidates or more (median 250)",
        ),
    ],
)
def test_who_is_left_out_is_said_where_scores_are_read(lengths, pool_size, change, words):
    rows = [("a4r", scored(lengths, pool_size).record() | change)]
    assert words in table(rows)
    assert words in str(_scores(rows))


def test_records_of_former_versions_are_read_safely_or_made_again(tmp_path):
    scores = scored([30] * 25)
    extra = {"run": "r", "store": "s", "store_identity": "s", "key": "k"}
    write_scores(tmp_path / "strict-test", scores.record() | extra, scores)
    record = read_json(tmp_path / "strict-test.json")
    assert read_scored(tmp_path / "strict-test", "r", 1).record == record
    former = {**record, "hard_neg": {k: record["hard_neg"][k] for k in ("one", "all64")}}
    write_json(tmp_path / "strict-test.json", former)
    found = read_scored(tmp_path / "strict-test", "r", 1).record
    assert remarks([("r", found)]) == []
    for key in ("excluded", "pool_size", "ci_kind"):
        write_json(tmp_path / "strict-test.json", {k: v for k, v in record.items() if k != key})
        with pytest.raises(RunError, match="no evaluation"):
            read_scored(tmp_path / "strict-test", "r", 1)
