"""A take is drawn from a recording's name alone, from the SoundFonts of its split."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from makers import other_soundfont, recordings_named

from pipeline.base.config import digest
from pipeline.base.errors import CorpusError, UsageError
from pipeline.corpora.soundfont import soundfont_path
from pipeline.corpora.takes import PIANOS, Take, choose_takes


def test_a_take_depends_on_the_recording_alone() -> None:
    a, b = choose_takes(recordings_named("a", "b"), [])
    assert choose_takes(recordings_named("x", "b", "a"), [])[1:] == (b, a)
    for field in dataclasses.fields(Take):
        if field.name not in ("soundfont", "sha256", "program"):
            assert getattr(a, field.name) != getattr(b, field.name), field.name
    many = choose_takes(recordings_named(*map(str, range(60))), [])
    assert {t.program for t in many} == set(PIANOS)
    assert a.identity == {**a.identity, "soundfont": None}  # wherever it lies


def test_a_take_is_the_same_on_every_machine() -> None:
    """A store's name holds it: no last bit of a logarithm may be in it."""
    (take,) = choose_takes(recordings_named("a"), [])
    assert digest({**take.identity, "sha256": None}) == "a6683be6325d"


def test_a_split_may_have_a_soundfont_of_its_own(tmp_path: Path) -> None:
    other = other_soundfont(tmp_path)
    rows = [*recordings_named("a", "b"), *recordings_named("c", split="test")]
    takes = choose_takes(rows, [f"test={other}"])
    assert [Path(t.soundfont).name for t in takes] == ["TimGM6mb.sf2"] * 2 + ["other.sf2"]
    assert takes[2].sha256 != takes[0].sha256
    both = choose_takes(recordings_named(*map(str, range(40))), [str(other), str(soundfont_path())])
    assert {Path(t.soundfont).name for t in both} == {"other.sf2", "TimGM6mb.sf2"}


def test_an_equals_sign_may_be_part_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    other = other_soundfont(tmp_path / "a=b")
    for text in (str(other), f"train={other}"):
        (how,) = choose_takes(recordings_named("a"), [text])
        assert how.soundfont == str(other)


def test_an_unknown_split_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="train, validation, test"):
        choose_takes(recordings_named("a"), ["dev=x.sf2"])


def test_a_soundfont_that_is_missing_is_said_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="there is no SoundFont"):
        choose_takes(recordings_named("a"), [str(tmp_path / "none.sf2")])
