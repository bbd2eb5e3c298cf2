"""Which piano, room and recorder a rendered recording gets: drawn by seed, so that no two sound alike.

A model must not be able to tell pieces apart by timbre, or to lean on one instrument: every recording
of a corpus that has no audio draws a :class:`Take` from its own key. The draw covers what differs
between real recordings: the instrument, how loudness follows the key's speed, the distance and colour
of the microphone, the room, the level and the noise. Ranges are wider than any one studio's.

A SoundFont is known by its content. A split may have its own (``test=OTHER.sf2``), so that scores are
of instruments that training never heard.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pipeline.base.errors import CorpusError, UsageError
from pipeline.corpora.recordings import SPLITS, Recording
from pipeline.corpora.soundfont import soundfont_path
from pipeline.corpora.soundfont_tables import read_tables

VERSION = 1  # counts up when rendered samples change: part of a store's identity
# General MIDI's acoustic, bright and honky-tonk pianos. Not its electric grand (2): where a sample's
# loop is one period, the synthesiser rounds it to whole samples: high keys are up to a semitone off.
PIANOS = (0, 1, 3)
DIGITS = 6  # of what is drawn: last bits differ between machines, and a store's name with them


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Take:
    """How one recording is rendered.

    Attributes
    ----------
    soundfont : its file
    sha256 : of the SoundFont
    program : General MIDI program of its instrument, 0-based
    seed : of the room's reflections and of the noise
    hardness : loudness is (velocity / 127) to this power
    delay_s : from the string to the microphone
    bass_db, treble_db : gains of a low shelf at 250 Hz and a high shelf at 3 kHz
    bandwidth_hz : the recorder hears nothing above
    reverb_s, wet_db : time of the room's decay by 60 dB; its energy relative to the direct sound
    level_db : RMS of the loudest passages, dBFS
    noise_db : RMS of the noise relative to that
    """

    soundfont: str
    sha256: str
    program: int
    seed: int
    hardness: float
    delay_s: float
    bass_db: float
    treble_db: float
    bandwidth_hz: float
    reverb_s: float
    wet_db: float
    level_db: float
    noise_db: float

    @property
    def identity(self) -> dict[str, object]:
        """All but where the SoundFont lies."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"version": VERSION, **fields, "soundfont": None}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SoundFont:
    """A SoundFont that was found readable, and the pianos in it."""

    path: Path
    sha256: str
    programs: tuple[int, ...]


def choose_takes(recordings: Iterable[Recording], soundfonts: Sequence[str]) -> tuple[Take, ...]:
    """One take per recording.

    Parameters
    ----------
    soundfonts : files, each for all splits (``FILE``) or for one (``test=FILE``), which then has no
        other; several for one split are drawn from. None: the SoundFont of the package pretty_midi.

    Raises
    ------
    CorpusError
        for a file that is missing or no SoundFont; :class:`UsageError` for an unknown split.
    """
    of_split = _by_split(soundfonts)
    return tuple(_draw(r.key, of_split[r.split]) for r in recordings)


def _by_split(texts: Sequence[str]) -> dict[str, list[SoundFont]]:
    common: list[Path] = []
    own: dict[str, list[Path]] = {}
    for text in texts:
        split, equals, file = text.partition("=")
        if equals and split in SPLITS:
            own.setdefault(split, []).append(Path(file))
        elif not equals or Path(text).exists():
            common.append(Path(text))
        else:
            raise UsageError(
                f"--soundfont {text}: give FILE, or SPLIT=FILE with one of {', '.join(SPLITS)}"
            )
    if not common and set(own) != set(SPLITS):
        common = [soundfont_path()]
    files = {*common, *(path for paths in own.values() for path in paths)}
    known = {path: read_soundfont(path) for path in sorted(files)}
    return {split: [known[path] for path in own.get(split, common)] for split in SPLITS}


def read_soundfont(path: Path) -> SoundFont:
    """Look into a SoundFont before anything depends on it.

    Raises
    ------
    CorpusError
        kind ``soundfont``.
    """
    if not path.is_file():
        raise CorpusError(f"there is no SoundFont {path}", kind="soundfont")
    try:
        content = path.read_bytes()
        tables = read_tables(content)
        programs = sorted(program for bank, program in tables.presets() if bank == 0)
        pianos = tuple(p for p in programs if p in PIANOS) or tuple(programs[:1])
        tables.check(pianos)
    except CorpusError as error:
        raise CorpusError(f"{path}: {error}", kind="soundfont") from None
    if not pianos:
        raise CorpusError(f"{path}: holds no instrument in bank 0", kind="soundfont")
    return SoundFont(path=path, sha256=hashlib.sha256(content).hexdigest(), programs=pianos)


def _draw(key: str, soundfonts: Sequence[SoundFont]) -> Take:
    """The draws are by name, one generator each: a further one moves none that are there."""

    def rng(name: str) -> np.random.Generator:
        seed = hashlib.sha256(f"{key}\0{name}".encode()).digest()[:16]
        return np.random.default_rng(int.from_bytes(seed, "little"))

    def uniform(name: str, low: float, high: float) -> float:
        return round(float(rng(name).uniform(low, high)), DIGITS)

    font = soundfonts[int(rng("soundfont").integers(len(soundfonts)))]
    return Take(
        soundfont=str(font.path.absolute()),
        sha256=font.sha256,
        program=font.programs[int(rng("program").integers(len(font.programs)))],
        seed=int(rng("seed").integers(2**63)),
        hardness=uniform("hardness", 1.2, 2.6),
        delay_s=uniform("delay", 0.0, 0.045),
        bass_db=uniform("bass", -6, 6),
        treble_db=uniform("treble", -9, 6),
        bandwidth_hz=round(4_000 * 2.875 ** uniform("bandwidth", 0, 1), DIGITS),
        reverb_s=uniform("reverb", 0.2, 1.0),
        wet_db=uniform("wet", -16, 0),
        level_db=uniform("level", -30, -14),
        noise_db=uniform("noise", -60, -20),
    )
