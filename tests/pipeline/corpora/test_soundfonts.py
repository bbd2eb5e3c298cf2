"""A damaged SoundFont is refused by name, and never takes the process with it."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import AudioError, CorpusError
from pipeline.corpora.soundfont import soundfont_path, synthesizer_of, tone_of
from pipeline.corpora.soundfont_tables import (
    BAG,
    GENERATOR,
    MODES,
    RECORDS,
    SAMPLE,
    SoundFontTables,
    read_tables,
)
from pipeline.corpora.soundfont_zones import as_synthesised
from pipeline.corpora.takes import read_soundfont
from pipeline.rendered import AUDIBLE_DB

GOOD = soundfont_path().read_bytes()


def changed(table: str, record: int, **fields: int) -> bytes:
    content = bytearray(GOOD)
    for field, value in fields.items():
        read_tables(content).of[table][field][record] = value
    return bytes(content)


def with_generators(kind: int, *new: int) -> bytes:
    """All of a kind replaced by another kind and amount."""
    content = bytearray(GOOD)
    generators = read_tables(content).of["igen"]
    generators[generators["kind"] == kind] = new
    return bytes(content)


def with_headers(content: bytes = GOOD, **fields: int) -> bytes:
    """All samples' headers."""
    out = bytearray(content)
    for field, value in fields.items():
        read_tables(out).of["shdr"][field] = value
    return bytes(out)


def with_bytes(chunk: bytes, before: int, *words: int) -> bytes:
    content = bytearray(GOOD)
    struct.pack_into(f"<{len(words)}I", content, GOOD.index(chunk) + 8 - before, *words)
    return bytes(content)


def n_records(table: str) -> int:
    return len(read_tables(GOOD).of[table])


NO_PART, NO_LOOP = "plays what is no part of the samples", "loops where it does not play"
FINE_TUNE = 52  # in every zone of a piano
# Made by the test that asks: each is as large as the SoundFont.
DAMAGED: dict[str, tuple[Callable[[], bytes | None], str]] = {
    "missing": (lambda: None, "there is no SoundFont"),
    "junk": (lambda: b"x" * 100, "not a SoundFont 2"),
    "empty": (lambda: b"RIFF\0\0\0\0sfbk" + b"\0" * 40, "cut off before the end of ifil"),
    "half": (lambda: GOOD[:3_000_000], "cut off before the end of smpl"),
    "presets alone": (lambda: GOOD[:5_800_000], "cut off before the end of ibag"),
    "a byte less": (lambda: GOOD[:-1], "cut off before the end of shdr"),
    "version": (lambda: with_bytes(b"ifil", 0, 4), "version 4; only 2 and 3"),
    "half a record": (lambda: with_bytes(b"shdr", 4, 47), "shdr holds no whole records"),
    "no record": (lambda: with_bytes(b"shdr", 4, 0), "shdr holds no whole records"),
    "preset": (lambda: changed("phdr", -1, bag=60_000), "phdr names what pbag does not have"),
    "preset by one": (lambda: changed("phdr", -1, bag=n_records("pbag")), "phdr names what pbag does"),
    "backwards": (lambda: changed("inst", 3, bag=0), "inst names what ibag does not have"),
    "modulators": (lambda: changed("ibag", -1, modulator=9_999), "ibag names what imod does not have"),
    "samples": (lambda: with_generators(SAMPLE, SAMPLE, 65_000), "igen names what shdr does not have"),
    "end of samples": (
        lambda: with_generators(SAMPLE, SAMPLE, n_records("shdr") - 1), "igen names what shdr does",
    ),
    "starts late": (lambda: with_generators(FINE_TUNE, 4, 999), NO_PART),
    "starts early": (lambda: with_generators(FINE_TUNE, 4, 0x8000), NO_PART),
    "ends first": (lambda: with_generators(FINE_TUNE, 12, 0x8000), NO_PART),
    "ends late": (lambda: with_headers(end=20_000_000), NO_PART),
    "empty loop": (lambda: with_headers(loop_start=900_000, loop_end=900_000), NO_LOOP),
    "loop elsewhere": (lambda: with_headers(loop_start=0, loop_end=1), NO_LOOP),
    "no rate": (lambda: with_headers(rate=0), "a sample of 0 Hz"),
    "rate": (lambda: with_headers(rate=65_536), "a sample of 65536 Hz"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_soundfont_is_said(
    make: Callable[[], bytes | None], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.sf2"
    if (content := make()) is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=said) as caught:
        read_soundfont(path)
    assert str(path) in str(caught.value)
    assert caught.value.kind == "soundfont"


def test_what_the_synthesiser_refuses_is_said_of_the_soundfont(tmp_path: Path) -> None:
    path = tmp_path / "odd.sf2"
    path.write_bytes(GOOD.replace(b"INFO", b"ODDS", 1))
    with (
        pytest.raises(AudioError, match=r"odd\.sf2: the synthesiser cannot play it"),
        synthesizer_of(path, 24_000),
    ):
        pass


def piano_zones(tables: SoundFontTables) -> list[dict[int, int]]:
    return [zone for number in tables.instruments([0]) for zone in tables.zones(number)]


def test_only_what_is_played_has_to_be_right(tmp_path: Path) -> None:
    """An empty sample of an instrument that nobody asked for is no reason to refuse the others."""
    played = {zone[SAMPLE] for zone in piano_zones(read_tables(GOOD))}
    tables = read_tables(content := bytearray(GOOD))
    for sample in set(range(len(tables.of["shdr"]))) - played:
        tables.of["shdr"]["end"][sample] = 0
    tables.check([0])
    (path := tmp_path / "other.sf2").write_bytes(content)
    with synthesizer_of(path, 24_000) as synthesizer:
        assert abs(tone_of(synthesizer, 0, 60, 24_000, AUDIBLE_DB)).max() > 0
    with pytest.raises(CorpusError, match=NO_PART):
        tables.check([40])


def test_places_of_compressed_samples_are_bytes() -> None:
    """And loops are places in what is compressed."""
    compressed = with_bytes(b"ifil", 0, 3)
    read_tables(compressed).check([0])
    read_tables(with_headers(compressed, start=5_000_000, end=5_000_001, loop_start=0)).check([0])
    with pytest.raises(CorpusError, match=NO_PART):
        read_tables(with_headers(compressed, end=5_787_217)).check([0])


def test_a_first_zone_without_a_sample_is_for_all_and_what_follows_a_sample_is_ignored() -> None:
    def zones(*of: list[tuple[int, int]]) -> list[dict[int, int]]:
        starts = np.cumsum([0, *map(len, of)])
        bags = np.array([(start, 0) for start in starts], BAG)
        instruments = np.zeros(2, RECORDS["inst"])
        instruments["bag"] = 0, len(of)
        generators = np.array([pair for zone in of for pair in zone], GENERATOR)
        tables = {"inst": instruments, "ibag": bags, "igen": generators}
        return list(SoundFontTables(version=2, sample_bytes=0, of=tables).zones(0))

    assert zones([(4, 7), (5, 8)], [(5, 9), (SAMPLE, 1), (6, 1)], [(SAMPLE, 2)]) == [
        {4: 7, 5: 9, SAMPLE: 1},
        {4: 7, 5: 8, SAMPLE: 2},
    ]
    assert zones([(SAMPLE, 1)], [(4, 7)], [(SAMPLE, 2)]) == [{SAMPLE: 1}, {SAMPLE: 2}]
    assert zones([]) == []


def test_a_whole_soundfont_is_as_it_was_but_for_its_roots() -> None:
    found = as_synthesised(GOOD)
    a, b = (read_tables(content).of["shdr"] for content in (GOOD, found))
    other = np.frombuffer(GOOD, np.uint8) != np.frombuffer(found, np.uint8)
    assert 0 < np.count_nonzero(other) == np.count_nonzero(a["root"] != b["root"])


def test_what_readers_shall_ignore_is_no_damage(tmp_path: Path) -> None:
    """Generators that do not exist, spare bits of modes, a sample without pitch."""
    content = with_headers(with_generators(FINE_TUNE, 61, 9), root=255)
    generators = read_tables(content := bytearray(content)).of["igen"]
    generators["amount"][generators["kind"] == MODES] |= 0x7F8
    (path := tmp_path / "odd.sf2").write_bytes(content)
    font = read_soundfont(path)
    with synthesizer_of(path, 24_000) as synthesizer:
        for program in font.programs:
            assert abs(tone_of(synthesizer, program, 60, 24_000, AUDIBLE_DB)).max() > 0


TRIALS = r"""
import random, struct, sys
from pathlib import Path
from pipeline.base.errors import XmodalError
from pipeline.corpora.soundfont import soundfont_path, synthesizer_of, tone_of
from pipeline.corpora.takes import read_soundfont
from pipeline.rendered import AUDIBLE_DB
good, path, draw = soundfont_path().read_bytes(), Path(sys.argv[1]), random.Random(7)
tables = [b"phdr", b"pbag", b"pgen", b"inst", b"ibag", b"igen", b"shdr"]
played = refused = 0
for _ in range(60):
    content = bytearray(good)
    table = draw.choice(tables)
    start = good.index(table) + 8
    size = struct.unpack_from("<I", good, start - 4)[0]
    at, length = start + draw.randrange(size), draw.choice((1, 2, 4, 40))
    content[at : at + length] = draw.choice((b"\xff" * length, draw.randbytes(length)))
    path.write_bytes(content)
    try:
        font = read_soundfont(path)
        with synthesizer_of(path, 24_000) as synthesizer:
            for key in (30, 60, 90):
                tone_of(synthesizer, font.programs[0], key, 24_000, AUDIBLE_DB)
        played += 1
    except XmodalError:
        refused += 1
print(played, refused)
"""


def test_no_damage_takes_the_process_with_it(tmp_path: Path) -> None:
    """Bytes of any table: of such files, one in five ended the process before tables were checked."""
    found = subprocess.run(
        [sys.executable, "-c", TRIALS, str(tmp_path / "damaged.sf2")],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    played, refused = map(int, found.stdout.split())
    assert played > 5
    assert refused > 5
