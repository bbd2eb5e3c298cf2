"""Parsing against pretty_midi; malformed files are typed errors or a declared result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import midi_digests
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import off, on, smf, tempo, track, varlen

from pipeline import midi
from pipeline.base.errors import MidiError
from pipeline.midi import Performance, parse_performance, read_performance

NOTE = ((0, on(60)), (480, off(60)))


def rows(performance: Performance) -> list[tuple[float, float, int, int]]:
    columns = (performance.onset_s, performance.end_s, performance.pitch, performance.velocity)
    return list(zip(*(c.tolist() for c in columns), strict=True))


def assert_same(found: Performance, expected: list[tuple[float, float, int, int]]) -> None:
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found.pitch, [n[2] for n in expected])
    np.testing.assert_array_equal(found.velocity, [n[3] for n in expected])
    np.testing.assert_allclose(found.onset_s, [n[0] for n in expected], rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.end_s, [n[1] for n in expected], rtol=0, atol=1e-7)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Several tracks and channels (drums among them), tempo changes, chords, keys struck again while
    they are down, notes without length, notes without an end, ends without a note.
    """
    division = draw(st.sampled_from([24, 96, 384, 480, 960]))
    tempi = draw(
        st.lists(st.tuples(st.integers(0, 3000), st.integers(1000, 2_000_000)), max_size=4)
    )
    conductor = [(at, tempo(us)) for at, us in sorted(dict(tempi).items())]
    tracks = [delta(conductor)]
    for _ in range(draw(st.integers(1, 3))):
        channel = draw(st.sampled_from([0, 1, 9, 15]))
        events: list[tuple[int, bytes]] = []
        for pitch in draw(st.sets(st.integers(0, 127), max_size=5)):
            strokes = st.tuples(st.integers(0, 40), st.integers(0, 127))
            for at, velocity in draw(st.lists(strokes, max_size=12)):
                events.append((50 * at, on(pitch, velocity, channel)))  # velocity 0 ends
            for at in draw(st.lists(st.integers(0, 40), max_size=8)):
                events.append((50 * at, off(pitch, channel)))
        order = draw(st.randoms(use_true_random=False))
        order.shuffle(events)  # what happens at one tick happens in any order
        events.sort(key=lambda e: e[0])
        tracks.append(delta(events))
    return smf(*tracks, division=division)


def delta(events: list[tuple[int, bytes]]) -> bytes:
    times = [0, *(at for at, _ in events)]
    return track(*((b - a, m) for a, b, (_, m) in zip(times, times[1:], events, strict=False)))


@given(files())
@settings(max_examples=150, deadline=None)
def test_parity_with_pretty_midi(raw: bytes) -> None:
    expected = oracles.midi_notes(raw)
    if not expected:
        with pytest.raises(MidiError, match="no notes"):
            parse_performance(raw)
        return
    assert_same(parse_performance(raw), expected)


def test_rows_are_sorted_by_onset_pitch_end_velocity() -> None:
    raw = smf(
        track((0, on(64)), (0, on(60)), (480, off(60)), (0, off(64)), *NOTE),
        track((0, on(60, 30, 1)), (240, off(60, 1))),
        track((0, on(60, 20, 2)), (240, off(60, 2))),
    )
    found = rows(parse_performance(raw))
    assert found == sorted(found, key=lambda n: (n[0], n[2], n[1], n[3]))
    assert [n[3] for n in found[:3]] == [20, 30, 64]


DECLARED = {
    # name: (file, notes as (onset, end, pitch, velocity))
    "the pedal is ignored": (
        smf(track((0, b"\xb0\x40\x7f"), *NOTE, (480, b"\xb0\x40\x00"))),
        [(0.0, 0.5, 60, 64)],
    ),
    "velocity 0 ends a note": (smf(track((0, on(60)), (480, on(60, 0)))), [(0.0, 0.5, 60, 64)]),
    "running status": (
        smf(track((0, on(60)), (480, bytes([60, 0])), (0, bytes([62, 9])), (480, bytes([62, 0])))),
        [(0.0, 0.5, 60, 64), (0.5, 1.0, 62, 9)],
    ),
    "drums are left out": (
        smf(track((0, on(36, 64, 9)), (480, off(36, 9)), *NOTE)),
        [(0.5, 1.0, 60, 64)],
    ),
    "a note without an end is left out": (
        smf(track((0, on(50)), *NOTE)),
        [(0.0, 0.5, 60, 64)],
    ),
    "a note of no length is left out": (
        smf(track((0, on(50)), (0, off(50)), *NOTE)),
        [(0.0, 0.5, 60, 64)],
    ),
    "one note-off ends a key however often it was struck": (
        smf(track((0, on(60, 1)), (240, on(60, 2)), (240, off(60)), (240, off(60)))),
        [(0.0, 0.5, 60, 1), (0.25, 0.5, 60, 2)],
    ),
    "a note-off before a note-on at one tick": (
        smf(track((0, on(60, 1)), (480, off(60)), (0, on(60, 2)), (480, off(60)))),
        [(0.0, 0.5, 60, 1), (0.5, 1.0, 60, 2)],
    ),
    "a note-on before a note-off at one tick": (
        smf(track((0, on(60, 1)), (480, on(60, 2)), (0, off(60)), (480, off(60)))),
        [(0.0, 0.5, 60, 1), (0.5, 1.0, 60, 2)],
    ),
    # pretty_midi reads tempi from the first track only; the standard lets any track carry them.
    "tempi of all tracks count": (
        smf(track((0, tempo(500_000)), *NOTE), track((0, tempo(1_000_000)))),
        [(0.0, 1.0, 60, 64)],
    ),
    "of two tempi at one tick the last holds": (
        smf(track((0, tempo(250_000)), (0, tempo(1_000_000)), *NOTE)),
        [(0.0, 1.0, 60, 64)],
    ),
    "no tempo means 120 to the minute": (smf(track(*NOTE)), [(0.0, 0.5, 60, 64)]),
    "running status goes on behind a meta event": (
        smf(track((0, on(60)), (0, b"\xff\x01\x02hi"), (480, bytes([60, 0])))),
        [(0.0, 0.5, 60, 64)],
    ),
    "a tempo change inside a note": (
        smf(track((0, on(60)), (240, tempo(1_000_000)), (240, off(60)))),
        [(0.0, 0.75, 60, 64)],
    ),
    "type 0": (smf(track(*NOTE), kind=0), [(0.0, 0.5, 60, 64)]),
    "no end of track": (smf(track(*NOTE, end=False)), [(0.0, 0.5, 60, 64)]),
    "nothing after the end of a track": (
        smf(track(*NOTE, (0, b"\xff\x2f\x00"), (0, on(70)), (480, off(70)))),
        [(0.0, 0.5, 60, 64)],
    ),
    "an unknown chunk between tracks": (
        smf(b"XXXX\x00\x00\x00\x02ab", track(*NOTE), promised=1),
        [(0.0, 0.5, 60, 64)],
    ),
    "a longer header": (
        smf(track(*NOTE)).replace(b"\x00\x00\x00\x06", b"\x00\x00\x00\x08")[:14]
        + b"\x00\x00"
        + track(*NOTE),
        [(0.0, 0.5, 60, 64)],
    ),
    "an exclusive message": (
        smf(track((0, b"\xf0\x03\x01\x02\xf7"), *NOTE)),
        [(0.0, 0.5, 60, 64)],
    ),
}


@pytest.mark.parametrize("name", DECLARED)
def test_declared_results(name: str) -> None:
    raw, expected = DECLARED[name]
    found = rows(parse_performance(raw))
    assert [n[2:] for n in found] == [n[2:] for n in expected]
    np.testing.assert_allclose([n[:2] for n in found], [n[:2] for n in expected], atol=1e-12)


GOOD = smf(track((0, tempo(500_000))), track(*(e for _ in range(20) for e in NOTE)))
MALFORMED = {
    "empty": b"",
    "text": b"not a MIDI file at all, just some words",
    "RIFF": b"RIFF" + bytes(40),
    "header cut": GOOD[:10],
    "header only": GOOD[:14],
    "a message of the wire": smf(track(*NOTE, (0, b"\xf2\x00\x00"))),
    "a tempo of two bytes": smf(track((0, b"\xff\x51\x02\x07\xa1"), *NOTE)),
    "running status behind an exclusive message": smf(
        track((0, on(60)), (0, b"\xf0\x01\xf7"), (480, bytes([60, 0])))
    ),
    "controller value above 127": smf(track((0, b"\xb0\x40\xff"), *NOTE)),
    "no tracks": smf(),
    "no tracks, one promised": smf(promised=1),
    "fewer tracks than promised": smf(track(*NOTE), promised=2),
    "65535 tracks promised": smf(track(*NOTE), promised=65_535),
    "header length 0": b"MThd" + bytes(4) + GOOD[8:],
    "header length 2 GiB": b"MThd\x7f\xff\xff\xff" + GOOD[8:],
    "division 0": smf(track(*NOTE), division=0),
    "division in frames": smf(track(*NOTE), division=0xE728),
    "type 2": smf(track(*NOTE), track(*NOTE), kind=2),
    "type 7": smf(track(*NOTE), kind=7),
    "tracks without notes": smf(track(), track((0, tempo(400_000)))),
    "drums only": smf(track((0, on(36, 64, 9)), (480, off(36, 9)))),
    "only notes without an end": smf(track((0, on(60)), (480, on(61)))),
    "pitch above 127": smf(track((0, b"\x90\xc8\x40"), (480, b"\x80\xc8\x00"), *NOTE)),
    "velocity above 127": smf(track((0, b"\x90\x3c\xc8"), (480, off(60)))),
    "running status first": smf(track((0, bytes([60, 64])), (480, bytes([60, 0])))),
    "data byte as status": smf(track((0, b"\x10"), *NOTE)),
    "endless variable length": smf(track((0, on(60)), (0, b"\xff\x01\xff\xff\xff\xff\x01"))),
    "tempo 0": smf(track((0, tempo(0)), *NOTE)),
    "meta longer than the track": smf(track((0, b"\xff\x01\xff\x7f"), *NOTE)),
    "exclusive without an end": smf(track(*NOTE, (0, b"\xf0\x7f\x01"), end=False)),
    "track length too long": GOOD[:18] + b"\x7f\xff\xff\xff" + GOOD[22:],
    "track cut in a message": smf(b"MTrk\x00\x00\x00\x03\x00\x90\x3c"),
    "a delta of 77 hours": smf(track((0, on(60)), (0x0FFFFFFF, off(60)))),
    "several deltas of 77 hours": smf(track(*((0x0FFFFFFF, b"\xb0\x40\x00"),) * 5, *NOTE)),
    "slowest tempo, long note": smf(
        track((0, tempo(0xFFFFFF)), (0, on(60)), (3_000_000, off(60))), division=480
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_typed_errors(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.midi").write_bytes(MALFORMED[name])
    with pytest.raises(MidiError) as caught:
        read_performance(tmp_path / "x.midi")
    assert caught.value.kind in ("unreadable", "no-notes", "too-large")
    assert str(tmp_path / "x.midi") in str(caught.value)
    assert "\n" not in str(caught.value)


BOUNDED = """
import os, resource, sys
from pathlib import Path
from pipeline.base.errors import MidiError
from pipeline.midi import read_performance
folder = Path(sys.argv[1])
read_performance(folder / "good.midi")  # compiled before the limits come
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for path in sorted(folder.glob("bad-*.midi")):
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
        resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
        try:
            read_performance(path)
        except MidiError:
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, (path.name, status)
print("all refused")
"""


def test_malformed_files_take_neither_time_nor_memory(tmp_path: Path) -> None:
    """Each in a process of its own with 2 s of processor time and 512 MiB on top."""
    (tmp_path / "good.midi").write_bytes(GOOD)
    for i, raw in enumerate(MALFORMED.values()):
        (tmp_path / f"bad-{i}.midi").write_bytes(raw)
    assert len(MALFORMED) >= 30
    command = [sys.executable, "-c", BOUNDED, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "all refused\n"


def test_every_truncation_is_a_typed_error() -> None:
    for length in range(len(GOOD)):
        with pytest.raises(MidiError):
            parse_performance(GOOD[:length])
    assert len(parse_performance(GOOD)) == 20


def test_a_track_cut_short_with_its_length_corrected_loses_notes_or_fails() -> None:
    body = b"".join(varlen(d) + m for _ in range(20) for d, m in NOTE)
    for length in range(len(body)):
        raw = smf(b"MTrk" + length.to_bytes(4, "big") + body[:length])
        try:
            found = parse_performance(raw)
        except MidiError:
            continue
        assert 1 <= len(found) <= length // 9


def test_too_many_notes(monkeypatch) -> None:
    monkeypatch.setattr(midi, "MAX_NOTES", 18)
    with pytest.raises(MidiError, match="too many notes") as caught:
        parse_performance(GOOD)
    assert caught.value.kind == "too-large"


def test_too_many_bytes(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "x.midi").write_bytes(GOOD)
    monkeypatch.setattr(midi, "MAX_BYTES", len(GOOD) - 1)
    with pytest.raises(MidiError) as caught:
        read_performance(tmp_path / "x.midi")
    assert caught.value.kind == "too-large"


def test_missing_files(tmp_path: Path) -> None:
    for path, kind in ((tmp_path / "no.midi", "missing"), (tmp_path / ("n" * 300), "unreadable")):
        with pytest.raises(MidiError) as caught:
            read_performance(path)
        assert caught.value.kind == kind


FUZZ = """
import resource, sys
import numpy as np
from pipeline.base.errors import MidiError
from pipeline.midi import parse_performance
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
good = bytes.fromhex(sys.argv[1])
rng = np.random.default_rng(int(sys.argv[2]))
parsed = refused = 0
for _ in range(int(sys.argv[3])):
    raw = bytearray(good)
    for _ in range(rng.integers(1, 6)):
        raw[rng.integers(len(raw))] = rng.integers(256)
    if rng.random() < 0.3:
        at = rng.integers(len(raw))
        raw[at:at] = rng.bytes(rng.integers(1, 9))
    try:
        p = parse_performance(bytes(raw))
    except MidiError:
        refused += 1
        continue
    parsed += 1
    assert np.isfinite(p.onset_s).all() and np.isfinite(p.end_s).all()
    assert (p.onset_s >= 0).all() and (p.end_s >= p.onset_s).all()
    assert (p.pitch < 128).all() and (p.velocity < 128).all()
# Not ru_maxrss: a child starts with its parent's.
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
assert peak < 512 * 1024, peak
print(parsed, refused)
"""


def test_random_damage_neither_crashes_nor_gives_impossible_notes() -> None:
    command = [sys.executable, "-c", FUZZ, GOOD.hex(), "7", "3000"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    parsed, refused = map(int, found.stdout.split())
    assert parsed > 100
    assert refused > 100


@pytest.mark.full
def test_parity_with_pretty_midi_on_every_real_performance(real_data: Path) -> None:
    """With what it was once seen to read; where that differs, with itself."""
    known = json.loads(midi_digests.FILE.read_text())
    paths = sorted(real_data.rglob("*.midi"))
    assert len(paths) == len(known) >= 400
    for path in paths:
        found = read_performance(path)
        if midi_digests.digest_of(rows(found)) != known[midi_digests.key_of(path)]:
            assert_same(found, oracles.midi_notes(path))


@pytest.mark.full
def test_the_digests_are_those_of_pretty_midi(real_data: Path) -> None:
    known = json.loads(midi_digests.FILE.read_text())
    for path in sorted(real_data.rglob("*.midi"))[::20]:
        notes = oracles.midi_notes(path)
        assert midi_digests.digest_of(notes) == known[midi_digests.key_of(path)]
        notes[len(notes) // 2] = (notes[len(notes) // 2][0] + 1e-4, *notes[len(notes) // 2][1:])
        assert midi_digests.digest_of(notes) != known[midi_digests.key_of(path)]
