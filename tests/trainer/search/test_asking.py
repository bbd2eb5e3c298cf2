"""Answers: which recording, where, at which tempo; and that what is not there is not found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from makers import make_audio, make_notes, write_midi

from pipeline.store import Store
from trainer.export import pack_model
from trainer.run import open_run
from trainer.search import indexing
from trainer.search.answers import Answer
from trainer.search.asking import ask
from trainer.search.embedders import BaselineEmbedder, ModelEmbedder
from trainer.search.folder import Index, open_index
from trainer.search.indexing import make_index
from trainer.search.queries import read_query

SECONDS = 24.0
SIDES = pytest.mark.parametrize("side", ["mid", "wav"])
Note = tuple[float, float, int, int]
Ask = Callable[..., Answer]


def part(notes: list[Note], start: float, stop: float, tempo: float = 1.0) -> list[Note]:
    """What sounds in [start, stop), cut, played so that ``tempo`` seconds pass in one."""
    return [
        (max(0.0, o - start) / tempo, (min(e, stop) - start) / tempo, p, v)
        for o, e, p, v in notes
        if o < stop and e > start
    ]


@pytest.fixture
def asked(flux_index: Index, flux: BaselineEmbedder, tmp_path: Path) -> Ask:
    """``asked(notes, seconds, side)``: the answer to a file with these notes."""

    def go(
        notes: list[Note], seconds: float, side: str, lead: float = 0.0, **more: float
    ) -> Answer:
        later = [(o + lead, e + lead, p, v) for o, e, p, v in notes]
        file = tmp_path / f"query.{side}"
        if side == "mid":
            write_midi(file, later)
        else:
            sound = make_audio(later, seconds + lead, 24_000, 1, 99)
            sound[: round(lead * 24_000)] = 0
            soundfile.write(file, sound, 24_000)
        return inside(ask(read_query(file), flux_index, flux, **more))

    return go


def inside(answer: Answer) -> Answer:
    """What every answer must be."""
    assert [m.rank for m in answer.matches] == list(range(1, len(answer.matches) + 1))
    assert len({m.recording for m in answer.matches}) == len(answer.matches)
    scores = [m.score for m in answer.matches]
    assert scores == sorted(scores, reverse=True)
    for match in answer.matches:
        for (start, stop), seconds in (
            (match.query_s, answer.seconds), (match.recording_s, SECONDS),
        ):  # fmt: skip
            assert 0 <= start < stop <= round(seconds, 2)
        assert 0.9 <= match.tempo <= 1.1
        assert match.found == (match.false_alarms is not None and match.false_alarms <= answer.rate)
    return answer


@SIDES
@pytest.mark.parametrize("number", range(6))
def test_every_recording_is_found_by_its_own_notes_and_sound(
    flux_index: Index,
    flux: BaselineEmbedder,
    files: Path,
    split_store: Store,
    side: str,
    number: int,
) -> None:
    answer = inside(ask(read_query(files / f"{number}.{side}"), flux_index, flux))
    best = answer.matches[0]
    assert best.recording == number
    assert (best.key, best.title) == (
        split_store.recordings.key[number], split_store.recordings.title[number],
    )  # fmt: skip
    assert answer.found
    assert best.found
    assert best.false_alarms is not None
    assert best.false_alarms < 1e-4
    assert best.tempo == pytest.approx(1.0, abs=0.005)
    for span, end in ((best.query_s, answer.seconds), (best.recording_s, SECONDS)):
        assert span[0] == pytest.approx(0.0, abs=0.3)
        assert span[1] == pytest.approx(end, abs=1.2)
    assert not any(m.found for m in answer.matches[1:])
    assert answer.side == {"mid": "midi", "wav": "audio"}[side]
    assert answer.embedder == "flux"


@SIDES
@pytest.mark.parametrize(("number", "start"), [(0, 3.4), (2, 0.0), (4, 12.9), (5, 7.77)])
def test_ten_seconds_are_placed(asked: Ask, side: str, number: int, start: float) -> None:
    answer = asked(part(make_notes(SECONDS, number), start, start + 10), 10.0, side)
    best = answer.matches[0]
    assert (best.recording, best.found) == (number, True)
    begin = best.recording_s[0] - best.tempo * best.query_s[0]
    assert begin == pytest.approx(start, abs=0.5)
    assert best.query_s[1] - best.query_s[0] > 7


@SIDES
@pytest.mark.parametrize("tempo", [0.92, 1.08])
def test_another_tempo_is_told(asked: Ask, side: str, tempo: float) -> None:
    for number in (1, 3):
        notes = part(make_notes(SECONDS, number), 0, SECONDS, tempo)
        best = asked(notes, SECONDS / tempo, side).matches[0]
        assert (best.recording, best.found) == (number, True)
        assert best.tempo == pytest.approx(tempo, abs=0.02)
        lasts = [stop - start for start, stop in (best.query_s, best.recording_s)]
        assert lasts[1] / lasts[0] == pytest.approx(best.tempo, abs=0.02)
        assert lasts[1] > 15
        # At its own tempo what is the same is as good as ever.
        same = asked(make_notes(SECONDS, number), SECONDS, side).matches[0]
        assert best.score > 0.88 * same.score


@SIDES
def test_what_is_not_there_is_not_found(asked: Ask, side: str) -> None:
    found = []
    for seed in range(100, 108):
        answer = asked(make_notes(SECONDS, seed), SECONDS, side)
        found.append(answer.found)
        assert answer.matches[0].false_alarms > 1e-4
    assert sum(found) <= 1
    assert asked(make_notes(SECONDS, 100), SECONDS, side, rate=1.0).found  # as asked for


@SIDES
def test_a_query_of_four_seconds(asked: Ask, side: str) -> None:
    notes = part(make_notes(SECONDS, 3), 8.0, 12.0)
    assert max(n[1] for n in notes) == 4.0
    answer = asked(notes, 4.0, side)
    assert answer.seconds == 4.0
    best = answer.matches[0]
    assert best.recording == 3
    assert best.query_s == (0.0, 4.0)
    assert best.recording_s[0] == pytest.approx(8.0, abs=0.5)


@SIDES
def test_silence_before_the_music_shifts_the_place(asked: Ask, side: str) -> None:
    notes = part(make_notes(SECONDS, 2), 5.0, 17.0)
    plain, late = asked(notes, 12.0, side), asked(notes, 12.0, side, lead=3.0)
    begins = []
    for answer in (plain, late):
        best = answer.matches[0]
        assert (best.recording, best.found) == (2, True)
        begins.append(best.recording_s[0] - best.tempo * best.query_s[0])
    assert begins[0] == pytest.approx(5.0, abs=0.5)
    assert begins[1] == pytest.approx(2.0, abs=0.5)


def test_a_query_much_longer_than_the_recording(asked: Ask) -> None:
    other = make_notes(60.0, 200)
    middle = [(o + 20, e + 20, p, v) for o, e, p, v in make_notes(SECONDS, 4)]
    notes = [n for n in other if n[1] < 20 or n[0] > 44] + middle
    best = asked(notes, 60.0, "mid").matches[0]
    assert (best.recording, best.found) == (4, True)
    assert best.query_s[0] == pytest.approx(20.0, abs=1.1)
    assert best.query_s[1] == pytest.approx(44.0, abs=1.1)


def test_only_so_many_are_told(asked: Ask) -> None:
    notes = make_notes(SECONDS, 0)
    assert len(asked(notes, SECONDS, "mid", most=2).matches) == 2
    first = asked(notes, SECONDS, "mid").plain()
    assert next(iter(first)) == "matches"
    assert json.loads(json.dumps(first))["matches"][0]["recording"] == 0


def test_what_people_read(asked: Ask) -> None:
    said = asked(make_notes(SECONDS, 5), SECONDS, "mid").text()
    head, first, place, *_ = said.splitlines()
    assert head.endswith("query.mid (midi, 23.9 s): found") or "s): found" in head
    assert first.startswith("*  1.")
    assert "test, BWV 31" in first
    assert "of the query is 0:00" in place
    assert "tempo" not in place
    lost = asked(make_notes(SECONDS, 103), SECONDS, "mid", rate=1e-9).text()
    assert "not found: nothing agrees more than chance does" in lost.splitlines()[0]
    assert "*" not in lost


@pytest.fixture(scope="module")
def model_index(
    split_store: Store, run_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Index:
    own, out = ModelEmbedder(open_run(run_folder)), tmp_path_factory.mktemp("index") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexing, "STRETCHES", 0)  # what chance scores is not the point
        make_index(split_store, own, out, keep_model=lambda to: pack_model(own.run, to))
    return open_index(out)


@SIDES
def test_a_trained_model_searches(
    model_index: Index, model_folder: Path, tmp_path: Path, side: str
) -> None:
    notes = [n for n in make_notes(SECONDS, 1) if n[0] < 12.5]
    file = tmp_path / f"query.{side}"
    if side == "mid":
        write_midi(file, notes)
    else:
        sound = make_audio(make_notes(SECONDS, 1), SECONDS, 44_100, 2, 1)[: 44_100 * 13]
        soundfile.write(file, sound, 44_100)
    query = read_query(file)
    inside_it, exported = model_index.embedder(), ModelEmbedder(open_run(model_folder))
    own = inside_it.of_query(query, [0.0, 3.0, 8.25])
    np.testing.assert_array_equal(own, exported.of_query(query, [0.0, 3.0, 8.25]))
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1.0, atol=1e-5)
    # A window that lies where a segment does is the segment (the file is a part of the recording).
    segments = model_index.vectors[query.side][21:42]
    np.testing.assert_allclose(own[:2], segments[[0, 3]], atol=2e-3)
    answers = [inside(ask(query, model_index, e)) for e in (inside_it, exported)]
    assert answers[0].matches == answers[1].matches
    # After two updates not every recording need have a window that is alike at all.
    assert 1 <= len(answers[0].matches) <= 6
    assert answers[0].embedder.startswith("a4-")
