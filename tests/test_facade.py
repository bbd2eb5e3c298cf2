"""``import xmodal`` is enough to open a store, to load a model, and to embed files with it."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import torch
from makers import Spec, build_quietly, corpus_of, make_corpus, off, on, smf, track
from typer.testing import CliRunner

import xmodal
from pipeline.audio import decode, probe
from pipeline.base.errors import AudioError, ConfigError, MidiError, RunError, UsageError
from pipeline.store import Store
from trainer.cli import export_app, train_app
from trainer.embed import embed_split
from trainer.retrieval.gallery import RetrievalError
from trainer.run import open_run, residents
from trainer.scoring import comparison_of
from trainer.search import embedders
from trainer.search.errors import QueryError
from trainer.search.queries import MidiQuery, read_notes

SPECS = (
    Spec("t", seconds=24.0, title="One, BWV 1"),
    Spec("v", rate=48_000, channels=1, seconds=20.5, split="validation", title="Two, BWV 2"),
    Spec("w", rate=24_000, seconds=16.0, split="validation", title="Three, BWV 3"),
)


def test_open_store_opens_what_the_pipeline_wrote(tiny_store: Store) -> None:
    store = xmodal.open_store(str(tiny_store.path))
    assert store.identity == tiny_store.identity
    assert store.read("A4", 0, 2).shape == (2, 188, 8)
    assert np.isfinite(store.read("A4")).all()


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert xmodal.__version__ == version("xmodal")


def test_the_import_imports_nothing_of_weight() -> None:
    code = "import sys, xmodal; print(*{'numpy', 'torch', 'zarr', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), SPECS)


@pytest.fixture(scope="module")
def store(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    descriptors = ("mel", "A4", "D4")
    out = tmp_path_factory.mktemp("stores")
    return build_quietly(corpus_of(corpus), out, descriptors=descriptors).store


@pytest.fixture(scope="module")
def train(store: Store, tmp_path_factory: pytest.TempPathFactory):
    """``train(arm, *flags)``: the folder of a tiny trained run."""
    out, folders = tmp_path_factory.mktemp("runs"), {}

    def go(*named: str) -> Path:
        if named not in folders:
            given = (
                "--size tiny --epochs 1 --batches-per-epoch 2 --batch-size 4 --pool-size 4 --json"
            )
            flags = [*given.split(), "--store", str(store.path), "--out", str(out)]
            done = CliRunner().invoke(train_app, ["--arm", *named, *flags])
            assert done.exit_code == 0, done.output
            folders[named] = Path(json.loads(done.stdout)["run"])
        return folders[named]

    return go


@pytest.fixture(scope="module")
def model(train):
    return xmodal.load_model(train("a4r"))


@pytest.fixture(scope="module")
def files(corpus: Path) -> tuple[Path, Path]:
    """Sound and notes of the second recording."""
    return corpus.parent / SPECS[1].audio, corpus.parent / SPECS[1].midi


def test_likeness_is_what_scores_see(model, train, files) -> None:
    sound, notes = xmodal.embed_audio(model, files[0]), xmodal.embed_midi(model, files[1])
    found = xmodal.likeness(model, sound, notes)
    assert found.shape == (len(sound), len(notes))
    n = min(found.shape)
    similarity = comparison_of(open_run(train("a4r")).config).of(sound[:n], notes[:n])
    np.testing.assert_allclose(found[:n, :n], similarity.rows(np.arange(n)), atol=1e-6)
    assert (found >= sound @ notes.T - 1e-6).all()  # of lags one is none
    assert (found > sound @ notes.T + 1e-4).any()
    plain = xmodal.load_model(train("d0", "--preset", "paper"))
    x = xmodal.embed_midi(plain, files[1])
    np.testing.assert_allclose(xmodal.likeness(plain, x, x), x @ x.T, atol=1e-6)


@pytest.mark.parametrize("arm", ["a4r", "d4r", "d4"])
def test_files_are_embedded_as_the_segments_of_a_store(arm, train, store, corpus) -> None:
    run = open_run(train(arm))
    model = xmodal.load_model(str(run.path))
    assert (model.name, model.width) == (run.path.name, run.config.head.embedding)
    own = run.load_model()
    for number, spec in enumerate(SPECS):
        rows = np.flatnonzero(store.segments.recording == number)
        cpu = torch.device("cpu")
        resident = residents(run.config, own.reads(), store, "", cpu, training=False, rows=rows)
        audio, midi = (x / np.linalg.norm(x, axis=1)[:, None] for x in embed_split(own, resident))
        sound = xmodal.embed_audio(model, corpus.parent / spec.audio)
        assert sound.shape == (len(rows), model.width)
        np.testing.assert_allclose(sound, audio, atol=1e-5)
        notes = xmodal.embed_midi(model, str(corpus.parent / spec.midi))
        held = store.segments.note_count[rows[: len(notes)]] > 0
        assert held.sum() > 10
        np.testing.assert_allclose(notes[held], midi[: len(notes)][held], atol=1e-5)
        assert not notes[~held].any()
        assert (sound @ notes.T).dtype == np.float32
        # What is compared differs from window to window, so a mix-up would show.
        assert np.abs(np.diff(notes[held], axis=0)).max(axis=1).min() > 1e-3


def test_windows_of_notes_are_a_stores_rows(store: Store, corpus: Path) -> None:
    table = store.segments
    for number, spec in enumerate(SPECS):
        query = read_notes(corpus.parent / spec.midi)
        rows = np.flatnonzero(table.recording == number)
        for row, notes in zip(rows, query.windows(table.start_s[rows]), strict=True):
            start = int(table.note_start[row])
            kept = store.notes(start, start + int(table.note_count[row]))
            for name in ("pitch", "velocity", "duration_bucket", "onset_s", "duration_s"):
                mine, its = getattr(notes, name), getattr(kept, name)
                assert mine.dtype == its.dtype
                assert mine.tobytes() == its.tobytes(), (spec.name, row, name)


def test_an_exported_model_embeds_alike(model, train, files, tmp_path) -> None:
    done = CliRunner().invoke(export_app, [str(train("a4r")), str(tmp_path / "mine")])
    assert done.exit_code == 0, done.output
    exported = xmodal.load_model(tmp_path / "mine", device="auto")
    assert exported.name == "mine"
    same = xmodal.embed_midi(exported, files[1])
    np.testing.assert_allclose(same, xmodal.embed_midi(model, files[1]), atol=1e-5)
    weights = tmp_path / "mine/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RunError, match="not the one that was exported"):
        xmodal.load_model(tmp_path / "mine")
    with pytest.raises(ConfigError, match="unknown device"):
        xmodal.load_model(train("a4r"), device="abacus")


def test_samples_are_taken_for_files(model, files) -> None:
    wanted = xmodal.embed_audio(model, files[0], hop_s=2.5)
    assert len(wanted) == 7  # 20.5 s: windows at 0, 2.5 … 15
    pcm = np.concatenate(list(decode(files[0], probe(files[0]).frames_24k)))
    for samples in (pcm, pcm / np.float32(32768), pcm / 32768):
        assert np.array_equal(xmodal.embed_audio(model, samples, hop_s=2.5), wanted)
    third = xmodal.embed_audio(model, pcm[5 * 24_000 : 9 * 24_000])
    np.testing.assert_allclose(third, wanted[2:3], atol=1e-5)


def test_bytes_and_objects_are_taken_for_files(model, files) -> None:
    wanted = xmodal.embed_midi(model, files[1])
    for raw in (files[1].read_bytes(), bytearray(files[1].read_bytes())):
        assert np.array_equal(xmodal.embed_midi(model, raw), wanted)
    score = pretty_midi.PrettyMIDI(str(files[1]))
    drum = pretty_midi.Instrument(0, is_drum=True)
    drum.notes = [pretty_midi.Note(velocity=100, pitch=36, start=0.5, end=30.0)]
    score.instruments.append(drum)
    piano = score.instruments[0]
    piano.notes.append(pretty_midi.Note(velocity=9, pitch=3, start=1.0, end=1.0))
    piano.notes.reverse()
    np.testing.assert_allclose(xmodal.embed_midi(model, score), wanted, atol=1e-5)


def test_memory_does_not_grow_with_what_is_embedded(model, files, monkeypatch) -> None:
    wanted = xmodal.embed_midi(model, files[1], hop_s=0.5)
    asked: list[int] = []
    windows = MidiQuery.windows
    monkeypatch.setattr(embedders, "BATCH", 4)
    monkeypatch.setattr(
        MidiQuery,
        "windows",
        lambda self, starts, tempo: asked.append(len(starts)) or windows(self, starts, tempo),
    )
    found = xmodal.embed_midi(model, files[1], hop_s=0.5)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert max(asked) == 4
    assert sum(asked) == len(wanted) > 30


def score_of(*notes: tuple[float, float, float, float]) -> types.SimpleNamespace:
    """An object like pretty_midi's, of notes (start, end, pitch, velocity)."""
    names = ("start", "end", "pitch", "velocity")
    listed = [types.SimpleNamespace(**dict(zip(names, n, strict=True))) for n in notes]
    return types.SimpleNamespace(instruments=[types.SimpleNamespace(is_drum=False, notes=listed)])


LONG = (0.0, 9.0, 60, 64)
SOUND = np.sin(np.arange(200_000, dtype=np.float32))


@pytest.mark.parametrize(
    ("audio", "error", "kind", "told"),
    [
        (SOUND[:95_999], QueryError, "too-short", r"samples: lasts 3\.99 s; at least 4 s"),
        (np.zeros(200_000, np.int16), QueryError, "silent", "is silent"),
        (SOUND[:0], QueryError, "too-short", r"lasts 0\.00 s"),
        (
            np.where(np.arange(200_000) == 150_000, np.nan, SOUND),
            QueryError,
            "not-finite",
            "finite",
        ),
        (np.full(200_000, -np.inf), QueryError, "not-finite", "finite"),
        (SOUND * 32_767, QueryError, "query", r"up to 32,767\.0; floats are wanted in \[-1, 1\)"),
        (np.stack([SOUND, SOUND]), QueryError, "query", r"float32 \[2, 200000\]; wanted"),
        (np.arange(200_000), QueryError, "query", r"int64 \[200000\]; wanted"),
        ("/nowhere/a.wav", AudioError, "missing", "/nowhere/a.wav: audio file is missing"),
        ("/nowhere/a.mid", AudioError, "missing", "audio file is missing"),
    ],
)
def test_sound_that_cannot_be_embedded(audio, error, kind, told, model) -> None:
    with pytest.raises(error, match=told) as caught:
        xmodal.embed_audio(model, audio)
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("midi", "error", "kind", "told"),
    [
        (score_of((0.0, 3.9, 60, 64)), QueryError, "too-short", r"notes: lasts 3\.90 s"),
        (score_of(), QueryError, "no-notes", "notes: holds no notes"),
        (score_of((1.0, 1.0, 60, 64)), QueryError, "no-notes", "holds no notes"),
        (score_of(LONG, (0.0, 1.0, 128, 64)), QueryError, "query", "a pitch is no whole number"),
        (score_of(LONG, (0.0, 1.0, 60.5, 64)), QueryError, "query", "a pitch is no whole number"),
        (score_of(LONG, (0.0, 1.0, 60, -1)), QueryError, "query", "a velocity is no whole number"),
        (score_of(LONG, (np.nan, 1.0, 60, 64)), QueryError, "query", "a time is no number"),
        (score_of(LONG, (0.0, np.inf, 60, 64)), QueryError, "query", "a time is no number"),
        (score_of(LONG, (-1.0, 1.0, 60, 64)), QueryError, "query", "a time is no number"),
        (score_of(LONG, ("x", 1.0, 60, 64)), QueryError, "query", "has no notes that read"),
        ([60, 64], QueryError, "query", "list: has no notes that read"),
        (b"RIFF", MidiError, "unreadable", "MIDI bytes: is not a MIDI file"),
        (smf(track()), QueryError, "no-notes", "MIDI bytes: holds no notes"),
        (smf(track((0, on(60)), (480, off(60)))), QueryError, "too-short", r"bytes: lasts 0\.50 s"),
        ("/nowhere/a.mid", MidiError, "missing", "/nowhere/a.mid: MIDI file is missing"),
    ],
)
def test_notes_that_cannot_be_embedded(midi, error, kind, told, model) -> None:
    with pytest.raises(error, match=told) as caught:
        xmodal.embed_midi(model, midi)
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


def test_files_of_the_other_kind_are_refused(model, files, tmp_path) -> None:
    with pytest.raises(QueryError, match="is a MIDI file, no sound"):
        xmodal.embed_audio(model, files[1])
    with pytest.raises(MidiError, match="is not a MIDI file"):
        xmodal.embed_midi(model, files[0])
    (tmp_path / "empty.mid").write_bytes(smf(track()))
    with pytest.raises(QueryError, match=r"empty\.mid: holds no notes"):
        xmodal.embed_midi(model, tmp_path / "empty.mid")


@pytest.mark.parametrize("hop_s", [0.0, -1.0, float("nan"), float("inf")])
def test_windows_are_some_way_apart(hop_s, model) -> None:
    with pytest.raises(UsageError, match="above 0"):
        xmodal.embed_midi(model, score_of(LONG), hop_s=hop_s)


def test_a_diverged_model_embeds_nothing(train) -> None:
    model = xmodal.load_model(train("a4r"))
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.fill_(np.nan)
    with pytest.raises(RetrievalError, match="hold NaN or infinity"):
        xmodal.embed_midi(model, score_of(LONG))


def test_models_that_cannot_embed_a_file_are_refused(train) -> None:
    with pytest.raises(UsageError, match="is given the item"):
        xmodal.load_model(train("d4a4cm", "--preset", "paper", "--frontend", "mel"))
    with pytest.raises(UsageError, match=r"a control \(zero\) stands for"):
        xmodal.load_model(train("a4r", "--set", "control.name=zero"))
    with pytest.raises(RunError, match="is not a run"):
        xmodal.load_model("/nowhere")
