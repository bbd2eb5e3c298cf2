"""Stretches of a match: where they begin and end, whose notes they have, how they sound."""

from __future__ import annotations

import numpy as np
import pytest
from browser import parse, section, words
from listening_fakes import LONG_S, RATE, SHIFT_S, answer, audio_query, make_store, match, sounding

from pipeline.base.tracks import Roll
from pipeline.store import Store
from trainer.search.answers import Match
from trainer.search.listening import listening_page
from trainer.search.semitones import semitones
from trainer.search.stretches import played, stored_notes, stretches


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("listening"))


def test_what_is_shown_ends_where_either_side_does(store: Store) -> None:
    query = audio_query(store)
    whole = match(query_s=(0.0, 99.0), recording_s=(SHIFT_S, 99.0))

    def spans(changed: Match, most: float = 30.0) -> list[tuple[float, float]]:
        both = stretches(query, changed, store, most)
        assert both is not None
        assert both[1] is not None
        return [pytest.approx((s.start_s, s.seconds)) for s in (both[0], both[1])]

    assert spans(whole) == [(0, LONG_S), (SHIFT_S, LONG_S)]
    assert spans(whole, 2.0) == [(0, 2), (SHIFT_S, 2)]
    slow = match(query_s=(0.0, LONG_S), tempo=1.1)
    assert spans(slow, 5.5) == [(0, 5), (SHIFT_S, 5.5)]
    late = match(query_s=(0.0, LONG_S), recording_s=(10.0, 19.0))
    assert spans(late) == [(0, 4), (10, 4)]  # the store has 14 s of it
    early = match(query_s=(0.0, LONG_S), recording_s=(-1.5, 7.5))
    assert spans(early) == [(1.5, 7.5), (0, 7.5)]
    for nothing in (match(query_s=(2.0, 2.0)), match(recording_s=(14.0, 20.0))):
        assert stretches(query, nothing, store, 30.0) is None
        page = parse(listening_page(query, answer(query, nothing), store))
        assert "nothing to hear" in words(section(page, "Side by side"))
        assert not list(page.iter("audio"))


def test_every_note_of_the_store_once(store: Store) -> None:
    for start, seconds in ((0.0, 14.0), (4.3, 5.1), (9.9, 0.4)):
        notes = stored_notes(store, 0, start, seconds)
        expected = np.array(sorted((p, o, d) for o, d, p in sounding(start, start + seconds)))
        found = np.column_stack([notes.pitch, notes.onset_s, notes.duration_s])
        assert len(found) == len(expected)
        np.testing.assert_allclose(
            found[np.lexsort((found[:, 1], found[:, 0]))], expected, atol=2e-3
        )
        assert (np.diff(notes.onset_s) >= 0).all()


def test_notes_are_played_when_and_where_they_are_written() -> None:
    pytest.importorskip("symusic")
    notes = Roll(
        pitch=np.array([69, 57]),
        velocity=np.array([90, 90]),
        onset_s=np.array([1.0, -0.5]),
        duration_s=np.array([5.0, 0.6]),
    )
    heard = played(notes, 2.0).astype(float)
    assert len(heard) == 2 * RATE
    assert np.abs(heard[: RATE // 20]).max() > 1000  # it sounds already
    assert np.abs(heard[round(0.8 * RATE) : round(0.99 * RATE)]).max() < 1000
    spectrum = np.abs(np.fft.rfft(heard[RATE:] * np.hanning(RATE)))
    assert spectrum[430:450].argmax() + 430 == pytest.approx(440, abs=2)
    assert np.abs(heard).max() == pytest.approx(0.7 * 32767, abs=1)
    silent = Roll(
        **{name: np.zeros(0, int) for name in ("pitch", "velocity", "onset_s", "duration_s")}
    )
    assert not played(silent, 1.0).any()


def test_semitones_of_a_tone() -> None:
    seconds = np.arange(2 * RATE) / RATE
    for pitch in (40, 57, 60, 76, 95):
        tone = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * seconds) * (seconds > 1)
        strength = semitones((20_000 * tone).astype(np.int16), RATE, (36, 96), 40)
        assert strength.shape == (60, 40)
        assert (strength[:, 30].argmax(), strength[:, 30].max()) == (
            95 - pitch,
            pytest.approx(1, abs=0.05),
        )
        assert strength[:, :15].max() < 0.1
    assert not semitones(np.zeros(RATE, np.int16), RATE, (36, 96), 20).any()
