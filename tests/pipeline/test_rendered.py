"""Audio made from MIDI: what sounds is what the notes and the pedal say, the same whoever asks."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from makers import (
    COLUMNS,
    features,
    make_notes,
    other_soundfont,
    recordings_named,
    same_store,
    write_midi,
)

from pipeline import rendered
from pipeline.audio import PIECE_S
from pipeline.base.console import Console
from pipeline.base.errors import AudioError
from pipeline.base.files import sha256_file
from pipeline.corpora.compositions import overlap
from pipeline.corpora.recordings import load_table
from pipeline.corpora.soundfont import soundfont_path
from pipeline.corpora.takes import PIANOS, Take, choose_takes, read_soundfont
from pipeline.midi import Performance
from pipeline.pairing import folder_table
from pipeline.rendered import TAIL_S, render, rendered_header
from pipeline.sounds import Rendered
from pipeline.spectral import SAMPLE_RATE
from pipeline.store import Store

PLAIN = {
    "hardness": 2.0, "delay_s": 0.0, "bass_db": 0.0, "treble_db": 0.0, "bandwidth_hz": 11_000.0,
    "reverb_s": 0.2, "wet_db": -60.0, "level_db": -20.0, "noise_db": -90.0, "seed": 1,
}  # fmt: skip


def take(**changed: float) -> Take:
    font = read_soundfont(soundfont_path())
    settings = {"program": 0, **PLAIN, **changed}
    return Take(soundfont=str(font.path), sha256=font.sha256, **settings)


def performance(
    notes: list[tuple[float, float, int, int]], pedal: Sequence[tuple[float, int]] = ()
) -> Performance:
    onset, end, pitch, velocity = np.array(notes, float).T
    moves = np.array(pedal, float).reshape(-1, 2)
    return Performance(
        onset_s=onset, end_s=end, pitch=pitch.astype(np.uint8), velocity=velocity.astype(np.uint8),
        pedal_s=moves[:, 0], pedal_value=moves[:, 1].astype(np.uint8),
    )  # fmt: skip


def heard(what: Performance, how: Take, n: int | None = None, start: int = 0) -> np.ndarray:
    n = rendered_header(what).frames if n is None else n
    return np.concatenate(list(render(what, how, n, start))) / 32768.0


def rms(sound: np.ndarray, from_s: float, to_s: float) -> float:
    part = sound[round(from_s * SAMPLE_RATE) : round(to_s * SAMPLE_RATE)]
    return float(np.sqrt(np.square(part).mean()))


# --- what sounds


@pytest.mark.parametrize("pitch", [33, 45, 60, 69, 81, 93, 105])
@pytest.mark.parametrize("program", PIANOS)
def test_a_key_sounds_at_its_pitch(pitch: int, program: int) -> None:
    sound = heard(performance([(0.5, 3.0, pitch, 90)]), take(program=program))
    part = sound[SAMPLE_RATE : 2 * SAMPLE_RATE] * np.hanning(SAMPLE_RATE)
    spectrum = np.abs(np.fft.rfft(part))

    def partials(key: float) -> float:
        """How much of the spectrum lies within 30 cents of a key's partials."""
        hz = 440 * 2 ** ((key - 69) / 12) * np.arange(1, 7)
        bins = np.arange(len(spectrum))
        mask = np.min(np.abs(np.log2((bins[:, None] + 1e-9) / hz)), axis=1) < 30 / 1200
        return float(np.square(spectrum[mask]).sum() / np.square(spectrum).sum())

    assert partials(pitch) > 0.5
    assert max(partials(pitch - 1), partials(pitch + 1)) < partials(pitch) / 2


def test_sound_begins_with_the_note_and_the_delay_of_the_take() -> None:
    for delay in (0.0, 0.04):
        sound = heard(performance([(1.0, 2.0, 60, 90)]), take(delay_s=delay))
        loud = np.flatnonzero(np.abs(sound) > 0.05 * np.abs(sound).max())[0] / SAMPLE_RATE
        assert 1.0 + delay <= loud < 1.012 + delay


@pytest.mark.parametrize(
    ("pedal", "sounds_on"),
    [([], False), ([(0.5, 127), (4.0, 0)], True), ([(0.5, 127), (1.9, 0)], False)],
)
def test_the_pedal_is_respected(pedal: list[tuple[float, int]], sounds_on: bool) -> None:
    sound = heard(performance([(1.0, 2.0, 48, 90)], pedal), take())
    held, after = rms(sound, 1.5, 2.0), rms(sound, 3.0, 3.9)
    assert (after > 0.2 * held) is sounds_on
    assert rms(sound, 5.5, 6.0) < 0.02 * held if len(sound) > 6 * SAMPLE_RATE else True


def test_harder_is_louder_and_brighter() -> None:
    what = performance([(0.5, 1.0, 60, 30), (2.5, 3.0, 60, 110)])
    sound = heard(what, take(hardness=1.5))
    assert rms(sound, 2.5, 3.0) > 3 * rms(sound, 0.5, 1.0)

    def high(from_s: float) -> float:
        part = sound[round(from_s * SAMPLE_RATE) :][: SAMPLE_RATE // 2]
        power = np.square(np.abs(np.fft.rfft(part)))
        return float(power[750:].sum() / power.sum())  # above 1.5 kHz

    assert high(2.5) > 1.5 * high(0.5)


def test_level_and_noise_are_those_of_the_take() -> None:
    notes = [(0.25 * i, 0.25 * i + 0.3, 50 + i % 30, 80) for i in range(80)]
    for level in (-30.0, -18.0):
        sound = heard(performance(notes), take(level_db=level, noise_db=-80))
        assert -12 < 20 * np.log10(rms(sound, 2, 18)) - level < 4
    quiet = heard(performance(notes), take(level_db=-20, noise_db=-30))
    end = len(quiet) / SAMPLE_RATE
    assert 20 * np.log10(rms(quiet, end - 1, end)) == pytest.approx(-50, abs=1)


def test_nothing_is_cut_off_at_full_scale() -> None:
    chords = [(0.5 * i, 0.5 * i + 2, p, 127) for i in range(6) for p in range(30, 100, 3)]
    sound = heard(performance(chords), take(level_db=-14))
    assert np.abs(sound).max() < 1
    assert (np.abs(sound) > 0.999).sum() == 0


def test_keys_that_no_piano_has_sound_in_the_nearest_octave() -> None:
    for pitch, meant in ((9, 21), (20, 32), (109, 97), (127, 103)):
        odd = heard(performance([(0.5, 1.5, pitch, 90)]), take())
        assert np.array_equal(odd, heard(performance([(0.5, 1.5, meant, 90)]), take())), pitch


# --- the same whoever asks


@pytest.fixture(scope="module")
def long_piece() -> Performance:
    """Two pieces and a bit: notes across both borders."""
    notes = make_notes(2 * PIECE_S + 10.0, 3)
    return performance([*notes, (PIECE_S - 2.0, PIECE_S + 3.0, 36, 100)])


def test_any_start_gives_the_same_samples(long_piece: Performance) -> None:
    how = take(reverb_s=0.8, wet_db=-6.0, noise_db=-40.0)
    n = (2 * PIECE_S + 8) * SAMPLE_RATE
    whole = heard(long_piece, how, n)
    assert len(whole) == n
    for start in (1, 12_345, PIECE_S * SAMPLE_RATE - 1, PIECE_S * SAMPLE_RATE, n - 7):
        assert np.array_equal(heard(long_piece, how, n, start), whole[start:]), start


def test_pieces_join_without_a_seam(
    long_piece: Performance, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = take(reverb_s=0.8, wet_db=-6.0, noise_db=-120.0)
    n = (2 * PIECE_S + 8) * SAMPLE_RATE
    pieces = heard(long_piece, how, n)
    monkeypatch.setattr(rendered, "PIECE_S", 10 * PIECE_S)
    assert np.abs(heard(long_piece, how, n) - pieces).max() <= 2 / 32768


def test_more_than_there_is_is_an_error() -> None:
    what = performance([(0.5, 1.5, 60, 90)])
    end = rendered_header(what).frames
    assert end == round((1.5 + TAIL_S) * SAMPLE_RATE)
    with pytest.raises(AudioError, match=r"ends at 4\.50 s"):
        heard(what, take(), end + 1)


def test_a_soundfont_or_midi_file_that_changed_is_said(tmp_path: Path) -> None:
    font = other_soundfont(tmp_path)
    (how,) = choose_takes(recordings_named("a"), [str(font)])
    midi = tmp_path / "a.mid"
    write_midi(midi, make_notes(9.0, 0))
    sound, found = Rendered(path=str(midi), take=how).fingerprinted("sampled")
    assert len(found["audio"]) == 64
    font.write_bytes(font.read_bytes() + b"\0")
    with pytest.raises(AudioError, match="changed while it was used"):
        list(sound.samples(SAMPLE_RATE))
    write_midi(midi, make_notes(9.0, 1))
    with pytest.raises(AudioError, match="changed while the store was being built"):
        list(sound.samples(SAMPLE_RATE))


# --- a store of it


@pytest.fixture(scope="module")
def midi_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six performances in MAESTRO's layout, no table, no audio."""
    folder = tmp_path_factory.mktemp("midi")
    for i in range(6):
        write_midi(folder / f"20{i:02}" / f"Bach - Invention No. {i + 1}.midi", make_notes(9.0, i))
    return folder


def built(*flags: object) -> Path:
    done = features("build", "--audio", "rendered", *flags, "--json")
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["store"])


@pytest.fixture(scope="module")
def rendered_store(midi_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    return built("--corpus", midi_folder, "--out", out / "features", "--workers", 0)


def test_a_folder_of_midi_files_becomes_a_store(midi_folder: Path, rendered_store: Path) -> None:
    store = Store.open(rendered_store)
    recordings = store.table("recordings").to_pylist()
    assert len(recordings) == 6
    assert {r["composer"] for r in recordings} == {"Bach"}
    assert {r["split"] for r in recordings} == {"train", "validation", "test"}
    assert set(store.arrays) == {"audio", "mel", "A4", "D4"}
    assert store.record["config"]["audio"] == "rendered"
    assert not [p for p in midi_folder.rglob("*") if p.suffix not in ("", ".midi")]
    audio = np.asarray(store.read("audio", 0, store.arrays["audio"].shape[0]))
    assert np.abs(audio.reshape(-1, SAMPLE_RATE)).max(axis=1).min() > 50


def test_workers_and_folders_change_no_byte(
    midi_folder: Path, rendered_store: Path, tmp_path: Path
) -> None:
    elsewhere = shutil.copytree(midi_folder, tmp_path / midi_folder.name)
    table = next((rendered_store.parent.parent / "corpora").glob("*.csv"))
    shutil.copy(table, tmp_path / table.name)
    found = built(
        "--corpus", tmp_path / table.name, "--root", elsewhere, "--out", tmp_path / "features",
        "--workers", 2,
    )  # fmt: skip
    assert found.name == rendered_store.name
    assert same_store(found, rendered_store)


def test_another_soundfont_is_another_store(
    midi_folder: Path, rendered_store: Path, tmp_path: Path
) -> None:
    found = built(
        "--corpus", midi_folder, "--out", rendered_store.parent, "--workers", 0,
        "--soundfont", f"test={other_soundfont(tmp_path)}",
    )  # fmt: skip
    assert found.name.rpartition("-")[0] == rendered_store.name.rpartition("-")[0]
    assert found != rendered_store
    used = json.loads((found / "build.json").read_text())["soundfonts"]
    assert used == {
        sha256_file(path): str(path) for path in (soundfont_path(), tmp_path / "other.sf2")
    }


def test_the_table_of_a_folder_is_kept_and_can_be_corrected(
    midi_folder: Path, rendered_store: Path
) -> None:
    (table,) = (rendered_store.parent.parent / "corpora").glob("*.csv")
    before = table.read_bytes()
    assert built("--corpus", midi_folder, "--out", rendered_store.parent) == rendered_store
    assert table.read_bytes() == before
    rows = csv.DictReader(before.decode().splitlines())
    assert next(rows)["canonical_composer"] == "Bach"


def test_midi_files_that_came_later_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_midi(tmp_path / "midi" / "a.mid", make_notes(9.0, 0))
    table = proposed(tmp_path)
    before = table.read_bytes()
    assert proposed(tmp_path) == table
    assert "not in it" not in capsys.readouterr().err
    write_midi(tmp_path / "midi" / "new.mid", make_notes(9.0, 1))
    assert proposed(tmp_path) == table
    assert "not in it: 1 MIDI files (new.mid, …)" in capsys.readouterr().err
    assert table.read_bytes() == before


def proposed(folder: Path) -> Path:
    return folder_table(folder / "midi", folder / "corpora", Console())


def test_every_midi_file_of_a_folder_is_a_recording_under_its_own_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("a.mid", "a.midi", "a.MID", "c\N{NO-BREAK SPACE}d\N{IDEOGRAPHIC SPACE}e.mid")
    for i, name in enumerate(names):
        write_midi(tmp_path / "midi" / name, make_notes(9.0, i))
    write_midi(tmp_path / "midi" / "empty.mid", [])
    (tmp_path / "midi" / "Icon\r").touch()  # no recording, whatever it is called
    found = {r.midi_path: r for r in load_table(proposed(tmp_path))}
    assert set(found) == set(names)
    assert {found[name].title for name in names[:3]} == {"a"}
    assert [found[name].key for name in names[:2]] == ["a.mid", "a.midi"]
    assert found[names[3]].key == Path(names[3]).stem
    assert "left out: empty.mid [no-notes]" in capsys.readouterr().err


def test_what_is_no_table_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "midi"
    write_midi(folder / "a.mid", make_notes(9.0, 0))
    (folder / "folder.csv").mkdir()
    (folder / "gone.csv").symlink_to(tmp_path / "nowhere")
    (folder / "line.csv").write_text("x" * 200_000)
    (folder / "other.csv").write_text("a,b\n1,2\n")
    os.mkfifo(folder / "pipe.csv")
    assert proposed(tmp_path).parent == tmp_path / "corpora"
    (folder / "OWN.CSV").write_text(",".join(COLUMNS))
    assert proposed(tmp_path) == folder / "OWN.CSV"


def test_a_corpus_is_meant_by_its_name_and_a_folder_by_its_path(
    midi_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "maestro").symlink_to(midi_folder)
    monkeypatch.chdir(tmp_path)
    done = features("build", "--corpus", "maestro", "--audio", "rendered", "--out", "out/features")
    assert "the maestro corpus needs its folder" in done.stderr
    done = features("build", "--corpus", "./maestro", "--out", "out/features")
    assert done.returncode == 2
    assert "./maestro is a folder: name its table (make-csv proposes one), or build" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_table_uses_it(midi_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(midi_folder, tmp_path / "own")
    rows = [
        ("Bach", "Invention No. 1", "test", 2000, "2000/Bach - Invention No. 1.midi", "a.wav", 8)
    ]
    with (folder / "mine.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([COLUMNS, *rows])
    found = built("--corpus", folder, "--out", tmp_path / "out", "--workers", 0)
    assert found.name.startswith("mine-rendered-")
    assert Store.open(found).table("recordings").to_pylist()[0]["split"] == "test"
    shutil.copy(folder / "mine.csv", folder / "second.csv")
    done = features("build", "--corpus", folder, "--audio", "rendered", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "mine.csv, second.csv" in done.stderr


def test_a_midi_file_without_notes_is_a_failure_with_its_name(
    midi_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(midi_folder, tmp_path / "own")
    write_midi(folder / "2000" / "Bach - Invention No. 1.midi", [])
    rows = [
        (
            "Bach",
            f"Invention No. {i + 1}",
            "train",
            2000,
            p.relative_to(folder).as_posix(),
            f"{i}.wav",
            8,
        )
        for i, p in enumerate(sorted(folder.rglob("*.midi")))
    ]
    with (folder / "mine.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([COLUMNS, *rows])
    flags = ("--corpus", folder, "--audio", "rendered", "--out", tmp_path / "out", "--workers", 0)
    done = features("build", *flags)
    assert done.returncode == 3
    assert "2000/Bach - Invention No. 1.midi: holds no notes" in done.stderr
    done = features("build", *flags, "--max-failures", 1)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--audio", "rendered", "--soundfont", "none.sf2"), "there is no SoundFont none.sf2"),
        (("--audio", "rendered", "--soundfont", "dev=x.sf2"), "train, validation, test"),
        (("--soundfont", "x.sf2"), "add --audio rendered"),
    ],
)
def test_wrong_requests_are_one_line(
    flags: tuple[str, ...], said: str, tiny_corpus: Path, tmp_path: Path
) -> None:
    done = features("build", "--corpus", tiny_corpus, "--out", tmp_path / "out", *flags)
    assert done.returncode in (2, 3)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


ABSENT = ("polars", "dask", "distributed", "librosa", "soundfile", "soxr", "pretty_midi", "music21")
BLOCKER = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def test_no_audio_library_is_needed(
    midi_folder: Path, rendered_store: Path, tmp_path: Path
) -> None:
    """Neither a decoder, nor dask, nor polars: what a GPU machine with few packages has."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    (table,) = (rendered_store.parent.parent / "corpora").glob("*.csv")
    shutil.copy(table, tmp_path / table.name)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from pipeline.cli import main; main()", "build",
         "--corpus", tmp_path / table.name, "--root", midi_folder, "--audio", "rendered",
         "--soundfont", soundfont_path(), "--out", tmp_path / "out", "--workers", "0", "--json"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert same_store(Path(json.loads(done.stdout)["store"]), rendered_store)


def test_the_real_performances_and_the_real_recordings_share_no_work(real_data: Path) -> None:
    """Trained on the one, tested on the other."""
    performances = load_table(real_data / "maestro-subset.csv")
    real = [r for r in load_table(real_data / "maps-metadata.csv") if "ENSTDk" in r.audio_path]
    assert (len(performances), len(real)) == (205, 30)
    of_train = {r.composition for r in performances}
    shared = {(a.composition, b) for a in real for b in of_train if overlap(a.composition, b)}
    assert not shared
