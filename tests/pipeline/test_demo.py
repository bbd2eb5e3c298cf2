"""The demo corpus: its table, its bytes, its alignment, and what survives a kill.

Oracles read WAV with the standard library and MIDI with pretty_midi; none comes from `pipeline`.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import shutil
import wave
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.base.errors import CorpusError, MissingExtra
from pipeline.corpora import demo, soundfont
from pipeline.corpora.demo import make_demo
from pipeline.corpora.demo_table import RECORDINGS, SCORES, Recording, seed_of
from pipeline.corpora.performers import PERFORMERS, perform
from pipeline.corpora.rendering import Performance, clip_restrikes, midi_bytes, sounding_ends
from pipeline.corpora.scores import Excerpt, ScoreNote, lay_out
from pipeline.corpora.soundfont import play
from pipeline.corpora.soundfont_zones import as_synthesised


def shortened(key: str, quarters: float) -> Recording:
    """The recording of that name, its score cut to its first ``quarters``."""
    recording = next(r for r in RECORDINGS if r.key == key)
    score = dataclasses.replace(recording.score, spans=((0.0, quarters),))
    return dataclasses.replace(recording, score=score)


SHORT = (
    shortened("mozart-545-brisk", 24),
    shortened("mozart-545-singing", 24),
    shortened("bach-passion-quiet", 12),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short recordings, made in this process."""
    folder = tmp_path_factory.mktemp("demo")
    make_demo(folder, workers=0, recordings=SHORT)
    return folder


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    """A corpus that a test may damage."""
    return Path(shutil.copytree(corpus, tmp_path / "copy"))


def seconds_meant(r: Recording) -> float:
    """How long the table means it to be: what is added in playing, and the room, not counted."""
    return sum(b - a for a, b in r.score.spans) * 60 / r.score.tempo / r.performer.tempo


def bytes_meant(recordings: tuple[Recording, ...]) -> float:
    """16-bit PCM of these, with 4 s each for rubato, ritardando and room, and the MIDI."""
    audio = (2 * r.studio.sample_rate * r.studio.channels for r in recordings)
    lasting = (seconds_meant(r) + 4 for r in recordings)
    return sum(a * b for a, b in zip(audio, lasting, strict=True)) + 20_000 * len(recordings)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    with wave.open(str(path)) as reader:
        assert reader.getsampwidth() == 2
        samples = np.frombuffer(reader.readframes(reader.getnframes()), dtype="<i2")
        return samples.reshape(-1, reader.getnchannels()) / 32768, reader.getframerate()


def read_midi(path: Path) -> Any:
    pretty_midi = pytest.importorskip("pretty_midi")
    (instrument,) = pretty_midi.PrettyMIDI(str(path)).instruments
    return instrument


# --- the table ---------------------------------------------------------------------------------


def test_the_table_is_large_and_varied_enough() -> None:
    assert len(RECORDINGS) >= 40
    assert len(SCORES) >= 16
    assert len({s.composer for s in SCORES}) >= 5
    assert sum(len(s.performers) >= 2 for s in SCORES) >= len(SCORES) / 2
    assert len({r.performer.name for r in RECORDINGS}) >= 4
    for split in ("validation", "test"):
        scores = [s for s in SCORES if s.split == split]
        assert len(scores) >= 4
        assert len({s.composer for s in scores}) >= 2


def test_names_are_unique_and_no_composition_is_in_two_splits() -> None:
    for names in ([r.key for r in RECORDINGS], [s.key for s in SCORES], [s.path for s in SCORES]):
        assert max(Counter(names).values()) == 1
    splits = defaultdict(set)
    for s in SCORES:
        splits[s.composer, s.title].add(s.split)
        assert len(set(s.performers)) == len(s.performers)
    assert all(len(found) == 1 for found in splits.values())


def test_the_lengths_meant_by_the_table() -> None:
    played = {r.key: seconds_meant(r) for r in RECORDINGS}
    assert max(played.values()) <= 95  # a ritardando and rubato add a few seconds: 104 at most
    assert sum(played.values()) >= 45 * 60
    assert bytes_meant(RECORDINGS) <= 300e6
    for split in ("validation", "test"):
        assert sum(played[r.key] - 3 for r in RECORDINGS if r.score.split == split) >= 300


def test_seeds_come_from_names_alone() -> None:
    assert seed_of("chopin", "free") == 0x1EB492FF2AD55D4F200FD39D6C5B2501
    assert len({seed_of("a", "b"), seed_of("ab"), seed_of("b", "a")}) == 3


# --- the files ---------------------------------------------------------------------------------


def test_bytes_do_not_depend_on_folder_or_workers(corpus: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    table = make_demo(
        tmp_path, workers=2, recordings=SHORT, progress=lambda *call: calls.append(call)
    )
    assert table == tmp_path / "demo.csv"
    assert contents(tmp_path) == contents(corpus)
    assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    assert {call[2] for call in calls} == {r.key for r in SHORT}


def test_csv_is_maestros_and_agrees_with_the_files(corpus: Path) -> None:
    with (corpus / "demo.csv").open(encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        rows = list(reader)
    assert sum(map(len, contents(corpus).values())) <= bytes_meant(SHORT)
    assert reader.fieldnames == [
        "canonical_composer", "canonical_title", "split", "year",
        "midi_filename", "audio_filename", "duration",
    ]  # fmt: skip
    assert [row["canonical_composer"] for row in rows] == [r.score.composer for r in SHORT]
    for row, recording in zip(rows, SHORT, strict=True):
        assert row["midi_filename"].startswith(f"{int(row['year'])}/")
        piano = read_midi(corpus / row["midi_filename"])
        samples, rate = read_wav(corpus / row["audio_filename"])
        duration = float(row["duration"])
        assert duration == pytest.approx(max(note.end for note in piano.notes), abs=1e-3)
        assert 1.0 <= len(samples) / rate - duration <= 3.0
        assert (rate, samples.shape[1]) == (recording.studio.sample_rate, recording.studio.channels)
        assert 10 ** (-6.2 / 20) <= np.abs(samples).max() <= 10 ** (-2.9 / 20)


def test_midi_has_pedal_and_no_key_is_struck_while_down(corpus: Path) -> None:
    for recording in SHORT:
        piano = read_midi(corpus / recording.midi_filename)
        pedal = [c for c in piano.control_changes if c.number == 64]
        assert len({c.value for c in pedal}) > 5, "continuous values, not an on/off pedal"
        by_pitch = defaultdict(list)
        for note in sorted(piano.notes, key=lambda n: n.start):
            assert note.end > note.start
            by_pitch[note.pitch].append(note)
        for notes in by_pitch.values():
            assert all(a.end < b.start for a, b in pairwise(notes))


@pytest.mark.parametrize("recording", SHORT[:2], ids=lambda r: r.key)
def test_audio_and_midi_agree_within_10_ms(corpus: Path, recording: Recording) -> None:
    samples, rate = read_wav(corpus / recording.audio_filename)
    mono = samples.mean(axis=1)
    frames = np.round(np.arange(int(len(mono) / rate * 1000)) * rate / 1000).astype(int)  # 1 ms
    energy = np.add.reduceat(mono**2, frames) / np.diff(np.append(frames, len(mono)))
    # The 20 ms after a moment against the 20 ms before: longer than a period of most keys.
    after = np.convolve(energy, np.ones(20))[19:]
    level = np.log(after + 1e-4)
    flux = np.maximum(0, level - np.concatenate([level[:1].repeat(20), level[:-20]]))
    strikes = np.zeros(len(flux))
    for note in read_midi(corpus / recording.midi_filename).notes:
        strikes[round(note.start * 1000)] = 1
    lags = np.arange(-100, 101)
    match = np.array([strikes[100:-100] @ flux[100 + lag : len(flux) - 100 + lag] for lag in lags])
    assert abs(lags[match.argmax()]) <= 10
    assert match.max() > 2 * np.median(match), "a flat correlation would prove nothing"


def test_two_performances_of_one_composition_differ(corpus: Path) -> None:
    first, second = (read_midi(corpus / r.midi_filename).notes for r in SHORT[:2])
    a, b = (np.sort([note.start for note in notes]) for notes in (first, second))
    assert len(a) == len(b)
    assert abs((a[-1] - a[0]) / (b[-1] - b[0]) - 1) > 0.05, "tempo"
    fit = np.polyval(np.polyfit(a, b, 1), a)
    assert np.abs(b - fit).max() > 0.05, "timing beyond one tempo factor"


# --- kills, damage, versions -------------------------------------------------------------------


def test_a_finished_corpus_is_recognised(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_complete", lambda *_: pytest.fail("made again"))
    assert make_demo(copy, recordings=SHORT) == copy / "demo.csv"


def test_only_what_is_missing_or_damaged_is_made_again(corpus: Path, copy: Path) -> None:
    (copy / SHORT[0].midi_filename).unlink()
    damaged = copy / SHORT[2].audio_filename
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    made: list[str] = []
    make_demo(copy, workers=0, recordings=SHORT, progress=lambda _d, _t, key: made.append(key))
    assert sorted(made) == sorted([SHORT[0].key, SHORT[2].key])
    assert contents(copy) == contents(corpus)


def test_an_interrupted_run_has_no_csv_and_continues(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_done: int, _total: int, _key: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path, workers=0, recordings=SHORT, progress=stop)
    assert not (tmp_path / "demo.csv").exists()
    (tmp_path / "2021").mkdir(exist_ok=True)
    (tmp_path / "2021" / ".half.wav.1.1.tmp").write_bytes(b"RIFF")
    made: list[str] = []
    make_demo(tmp_path, workers=0, recordings=SHORT, progress=lambda _d, _t, k: made.append(k))
    assert made == [SHORT[2].key], "the first score was already there"
    assert contents(tmp_path) == contents(corpus)


def test_a_damaged_corpus_loses_its_csv_until_it_is_whole(copy: Path) -> None:
    (copy / SHORT[2].audio_filename).unlink()

    def stop(_done: int, _total: int, _key: str) -> None:
        assert not (copy / "demo.csv").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(copy, workers=0, recordings=SHORT, progress=stop)
    assert not (copy / "demo.csv").exists()


def test_another_version_is_remade(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = json.loads((copy / "demo.json").read_text())
    stale = copy / "2019" / "renamed-since.wav"
    stale.parent.mkdir(exist_ok=True)
    stale.write_bytes(b"old")
    entry = {"path": "2019/renamed-since.wav", "size": 3, "sha256": ""}
    state["recordings"]["renamed-since"] = {"midi": entry, "audio": entry}
    (copy / "demo.json").write_text(json.dumps(state))
    monkeypatch.setattr(demo, "VERSION", demo.VERSION + 1)
    made: list[str] = []
    make_demo(copy, workers=0, recordings=SHORT[2:], progress=lambda _d, _t, k: made.append(k))
    assert made == [SHORT[2].key]
    assert not stale.exists()
    assert json.loads((copy / "demo.json").read_text())["version"] == demo.VERSION


def test_an_edited_row_is_remade(copy: Path) -> None:
    edited = dataclasses.replace(SHORT[2], performer=PERFORMERS["free"])
    made: list[str] = []
    rows = (*SHORT[:2], edited)
    make_demo(copy, workers=0, recordings=rows, progress=lambda _d, _t, key: made.append(key))
    assert made == [edited.key]


def test_a_missing_package_and_a_missing_score_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = dataclasses.replace(SHORT[2].score, path="bach/no-such-work.mxl")
    with pytest.raises(CorpusError, match="no-such-work"):
        make_demo(tmp_path, recordings=(dataclasses.replace(SHORT[2], score=score),))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "symusic" else find_spec(name)
    )
    with pytest.raises(MissingExtra, match=r"symusic.*xmodal\[demo\]"):
        make_demo(tmp_path, recordings=SHORT)
    assert not (tmp_path / "demo.csv").exists()


# --- pedal, restrike, performance, piano ---------------------------------------------------------


def performance(notes: list[tuple[int, int, int]], pedal: list[tuple[int, int]]) -> Performance:
    onset, end, pitch = np.array(notes, dtype=np.int64).T
    time, value = np.array(pedal, dtype=np.int64).reshape(-1, 2).T
    return Performance(
        onset=onset, end=end, pitch=pitch, velocity=np.full(len(onset), 64),
        pedal_time=time, pedal_value=value,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("notes", "pedal", "expected"),
    [
        ([(0, 100, 60)], [], [100]),
        ([(0, 100, 60)], [(50, 127), (300, 0)], [300]),
        ([(0, 100, 60)], [(50, 127), (300, 64), (400, 63)], [400]),  # 64 still holds
        ([(0, 100, 60)], [(50, 63), (300, 0)], [100]),  # half a pedal does not
        ([(0, 100, 60)], [(50, 127), (90, 0)], [100]),  # up before the key
        ([(0, 100, 60)], [(150, 127), (300, 0)], [100]),  # down too late
        ([(0, 100, 60)], [(100, 127), (300, 0)], [300]),  # down just then
        ([(0, 100, 60), (200, 250, 60)], [(50, 127), (300, 0)], [199, 300]),  # restrike
        ([(0, 100, 60), (200, 250, 61)], [(50, 127), (300, 0)], [300, 300]),
        ([(0, 100, 60), (200, 500, 61)], [(50, 127)], [500, 500]),  # never up
    ],
)
def test_the_pedal_lengthens_notes(
    notes: list[tuple[int, int, int]], pedal: list[tuple[int, int]], expected: list[int]
) -> None:
    assert sounding_ends(performance(notes, pedal)).tolist() == expected


def test_sounding_ends_against_a_simulation() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        onset = np.sort(rng.choice(400, size=30, replace=False))
        pitch = rng.integers(60, 64, 30)
        end = clip_restrikes(onset, onset + rng.integers(2, 60, 30), pitch)
        time = np.sort(rng.choice(500, size=12, replace=False))
        value = rng.integers(0, 128, 12)
        notes = list(zip(onset.tolist(), end.tolist(), pitch.tolist(), strict=True))
        pedal = list(zip(time.tolist(), value.tolist(), strict=True))
        final = max(end.max(), time[-1])
        expected = []
        for on, off, key in notes:
            t, state = off, dict(pedal)
            down = (
                any(at <= off for at, _ in pedal) and [v for at, v in pedal if at <= off][-1] > 63
            )
            while down and t < final:
                t += 1
                down = state.get(t, 127) > 63
            strikes = [other - 1 for other, _, k in notes if k == key and other > on]
            expected.append(min([t, *strikes]))
        assert sounding_ends(performance(notes, pedal)).tolist() == expected


def test_a_restrike_ends_the_earlier_note_one_tick_before() -> None:
    onset, end, pitch = np.array([[0, 50, 60, 50], [100, 90, 70, 55], [60, 60, 60, 61]])
    assert clip_restrikes(onset, end, pitch).tolist() == [49, 59, 70, 55]


def test_spans_are_laid_end_to_end_and_unisons_merged() -> None:
    notes = [
        ScoreNote(onset=0, duration=1, pitch=60),
        ScoreNote(onset=0, duration=4, pitch=60),
        ScoreNote(onset=3, duration=9, pitch=62),
        ScoreNote(onset=4, duration=1, pitch=64),
    ]
    excerpt = lay_out(notes, [0.0, 4.0], ((0, 4), (0, 8)))
    found = sorted((n.onset, n.pitch, n.duration) for n in excerpt.notes)
    assert found == [(0, 60, 4), (3, 62, 1), (4, 60, 4), (7, 62, 5), (8, 64, 1)]
    assert (excerpt.bars, excerpt.length) == ((0.0, 4.0, 8.0), 12.0)
    with pytest.raises(CorpusError):
        lay_out(notes, [0.0], ((100, 104),))


@pytest.mark.parametrize("name", sorted(PERFORMERS))
def test_a_performance_is_playable_and_reproducible(name: str) -> None:
    notes = tuple(
        ScoreNote(onset=i / 4, duration=1.0, pitch=pitch, grace=int(i % 16 == 15))
        for i in range(128)
        for pitch in (48 + i % 5, 72 + i % 3)
    )
    excerpt = Excerpt(notes=notes, bars=tuple(range(0, 32, 4)), length=32.0)
    first, again, other = (
        perform(excerpt, PERFORMERS[name], 90.0, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert midi_bytes(first) == midi_bytes(again) != midi_bytes(other)
    assert (first.onset > 0).all()
    assert (first.end > first.onset).all()
    assert (clip_restrikes(first.onset, first.end, first.pitch) == first.end).all()
    assert ((first.velocity >= 1) & (first.velocity <= 127)).all()
    assert ((first.pedal_value >= 0) & (first.pedal_value <= 127)).all()
    assert (np.diff(first.pedal_time) > 0).all()
    assert first.pedal_value[-1] == 0
    top = first.pitch >= 72
    assert first.velocity[top].mean() > first.velocity[~top].mean() + 4, "melody above the rest"


def test_the_piano_hears_velocity_and_decays() -> None:
    def level(velocity: int, at_s: float, end_s: float = 3.0) -> float:
        sound = play(
            np.array([0.1]), np.array([end_s]), np.array([60]), np.array([velocity]),
            program=0, sample_rate=44_100, mix=np.array([[0.5, 0.5]], dtype=np.float32),
        )  # fmt: skip
        start = round(at_s * 44_100)
        return float(20 * np.log10(np.sqrt(np.square(sound[0, start : start + 4410]).mean())))

    assert level(120, 0.1) - level(40, 0.1) > 12
    assert level(90, 0.15) - level(90, 2.0) > 6
    assert level(90, 0.4) - level(90, 0.4, end_s=0.2) > 20, "the damper"


def semitones_off(tone: np.ndarray, key: int, rate: int) -> float:
    """Where the first three partials of a tone are loudest, relative to its key."""
    samples = tone.mean(axis=0)[int(0.1 * rate) :].astype(float)
    magnitude = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 19))
    hz = np.arange(len(magnitude)) * rate / (1 << 19)
    off = np.linspace(-14, 14, 2801)
    partials = [h * 440 * 2 ** ((key - 69 + off) / 12) for h in (1, 2, 3)]
    return float(off[np.sum([np.interp(p, hz, magnitude) for p in partials], axis=0).argmax()])


@pytest.mark.parametrize(("program", "highest"), [(0, 108), (2, 84), (3, 108)])
def test_every_key_sounds_at_its_pitch(program: int, highest: int) -> None:
    """Version 1 of the demo did not: its zones' root keys were not read."""
    with soundfont.synthesizer_of(soundfont.soundfont_path(), 22_050) as synthesizer:
        for key in range(24, highest + 1, 4):
            tone = soundfont._tone(synthesizer, program, key, 22_050, 22_050)
            found = semitones_off(tone, key, 22_050)
            # An octave up is a loud second partial, not another pitch.
            assert min(abs(found), abs(found - 12)) < 0.35, (key, found)


def test_roots_are_written_where_all_zones_of_a_sample_agree() -> None:
    content = soundfont.soundfont_path().read_bytes()
    changed = as_synthesised(content)
    assert len(changed) == len(content)
    places = np.flatnonzero(np.frombuffer(content, np.uint8) != np.frombuffer(changed, np.uint8))
    headers = content.rindex(b"shdr") + 8
    assert len(places)
    assert set((places - headers) % 46) == {40}
    piano = content.index(b"Piano Db3\0", headers)
    assert (content[piano + 40], changed[piano + 40]) == (60, 80)
    assert as_synthesised(changed) == changed
    with pytest.raises(CorpusError, match="not a whole SoundFont"):
        as_synthesised(b"RIFF\x00\x00\x00\x00sfbk")
