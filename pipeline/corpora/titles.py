"""Composer, title and year as folder and file names suggest them: a proposal, to be reviewed.

Of ``<folders>/<stem>`` below the corpus folder:

1. Folders that only sort files (``audio``, ``midi``, ``cd 1``, a year, …) say nothing but the year.
2. The first folder that is left is the composer; further folders and the stem are the title.
3. Without such a folder a stem ``Composer - Title`` (or ``Composer__Title``) gives both.
4. Otherwise the composer is ``Unknown`` and the stem is the title.

Underscores are spaces; a track number before the title, and ``take 2``, ``(3)`` and the like after it,
are dropped: two takes are one composition.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

UNKNOWN = "Unknown"
AUDIO_FOLDERS = frozenset("audio audios wav wavs flac flacs mp3 aiff recordings".split())
MIDI_FOLDERS = frozenset("midi midis mid mids smf".split())

_YEAR = re.compile(r"(?<!\d)(?:1[89]|20)\d\d(?!\d)")
_SORTING = re.compile(r"(?:cd|disc|disk|part|vol|volume)[ _-]*\d+|(?:1[89]|20)\d\d|\d{1,3}", re.I)
_TRACK = re.compile(r"^\d{1,3}(?:\s*[.)-]\s*|\s+)(?=\S)")
_TAKE = re.compile(
    r"[\s(\[-]+(?:(?:take|version|perf|performance|recording|rec)\.?\s*\d+|(?<=[(\[])\d{1,2})\s*[)\]]?$",
    re.I,
)
_BETWEEN = re.compile(r"\s+[-–—]\s+")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """What a path suggests; ``year`` 0 means that it suggests none."""

    composer: str
    title: str
    year: int


def guess(folders: Sequence[str], stem: str) -> Guess:
    """Composer, title and year of ``<folders>/<stem>`` (the stem without its extension)."""
    parts = _BETWEEN.split(_clean(stem))
    composer, *above = [_clean(f) for f in folders if not sorts_files(f)] or [""]
    if not composer:
        composer = parts.pop(0) if len(parts) > 1 else UNKNOWN
    elif len(parts) > 1 and parts[0].casefold() == composer.casefold():
        del parts[0]
    years = [int(y) for name in (*reversed(folders), stem) for y in _YEAR.findall(name)]
    return Guess(composer=composer, title=", ".join([*above, *parts]), year=(years or [0])[0])


def sorts_files(folder: str) -> bool:
    """Whether a folder's name only says what kind of files lie in it, or which disc they are from."""
    name = folder.lower()
    return name in AUDIO_FOLDERS | MIDI_FOLDERS or bool(_SORTING.fullmatch(name))


def _clean(text: str) -> str:
    plain = " ".join(text.replace("__", " - ").replace("_", " ").split())
    return _TAKE.sub("", _TRACK.sub("", plain)).strip(" -.") or plain or text
