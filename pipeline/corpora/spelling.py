"""Titles as people write them → plain words, musical keys, numbers.

Nothing here knows a composer. :func:`spaced` is the form that all rules read: lower case, no accents,
one space between words and numbers, ``#`` and ``♯`` as "sharp", "No." and "/" before a number as
"no", ranges as "to", Roman numerals of books as digits, one word for every spelling of a genre.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata

_SPELLINGS = {
    "sonata": "son sonatas sonate",
    "etude": "etudes study studies",
    "prelude": "preludes praeludium preludium",
    "waltz": "waltzes valse valses",
    "fantasy": "fantasia fantasias fantasie fantasies fantasien fantaisie",
    "nocturne": "nocturnes",
    "mazurka": "mazurkas",
    "polonaise": "polonaises",
    "ballade": "ballades",
    "impromptu": "impromptus",
    "rhapsody": "rhapsodies",
    "fugue": "fugues fuge",
    "variations": "variation var variaions",
    "romance": "romances",
    "bagatelle": "bagatelles",
    "intermezzo": "intermezzi intermezzos",
    "no": "nos nr nrs num number numbers",
    "op": "opus",
    "major": "maj dur",
    "minor": "min moll",
}
_FOLD = {other: word for word, others in _SPELLINGS.items() for other in others.split()}
_GERMAN = ("dur", "moll")
GENRES = frozenset(_SPELLINGS) | frozenset(
    "sonatina toccata suite partita concerto chaconne scherzo rondo capriccio invention duet "
    "minuet march dance piece pieces caprice overture concert tarantella tableau tableaux".split()
)
NUMBER_WORDS = frozenset("two three four five six seven eight nine ten twelve".split())
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6", "x": "10"}
# Spellings of surnames in other alphabets' romanisations.
NAMES = {
    "rachmaninov": "rachmaninoff",
    "rakhmaninov": "rachmaninoff",
    "chaikovsky": "tchaikovsky",
    "tschaikowsky": "tchaikovsky",
    "tchaikowsky": "tchaikovsky",
    "skryabin": "scriabin",
    "skrjabin": "scriabin",
    "prokofieff": "prokofiev",
    "moussorgsky": "mussorgsky",
    "musorgsky": "mussorgsky",
    "haendel": "handel",
    "korsakov": "rimskykorsakov",
}


def spaced(text: str) -> str:
    """The plain form of a title: words and numbers with one space between them."""
    text = unicodedata.normalize("NFKD", text.casefold().replace("♯", "#").replace("♭", " flat "))
    text = "".join(c for c in text if not unicodedata.combining(c)).casefold()
    text = re.sub(r"\b([a-h])\s*#", r"\1 sharp ", text)
    text = text.replace("#", " no ").replace("&", " and ").replace("w/", " with ")
    text = re.sub(r"(\d)\s*/\s*(?=\d)", r"\1 no ", text)
    text = re.sub(r"(\d)\s*[-‐‑–—]\s*(?=\d)", r"\1 to ", text)
    text = re.sub(r"[\W_]+", " ", text)
    text = re.sub(r"\bwt[ck]\s*(?=[i12])", "wtc ", text)
    text = re.sub(r"(?<=[^\W\d])(?=\d)", " ", text)
    words = text.split()
    german = [i for i, word in enumerate(words) if word in _GERMAN and i]
    for i in german:
        words[i - 1] = {"b": "bb", "h": "b"}.get(words[i - 1], words[i - 1])
    out = []
    for i, word in enumerate(words):
        book = i and words[i - 1] in ("book", "books", "series", "volume", "part", "wtc")
        out.append(_ROMAN.get(word, word) if book else _FOLD.get(word, word))
    return " ".join(out)


def squeezed(text: str) -> str:
    """A :func:`spaced` text without its spaces, umlauts written as one letter: for finding names."""
    return "".join(re.sub(r"([aou])e", r"\1", word) for word in text.split())


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A musical key; D-flat and C-sharp are the same."""

    tonic: int
    minor: bool

    @classmethod
    def named(cls, name: str) -> Key:
        """``C#`` and ``Bb`` are major, ``c#`` and ``bb`` minor."""
        shift = {"#": 1, "b": -1}.get(name[1:], 0)
        return cls((_TONICS[name[0].lower()] + shift) % 12, name[0].islower())

    @property
    def slug(self) -> str:
        """For example ``bb-minor``."""
        return f"{_NAMES[self.tonic]}-{'minor' if self.minor else 'major'}"


_TONICS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_NAMES = "c db d eb e f gb g ab a bb b".split()
_TONE = r"([a-g])(b|is|es|s)?(?: (sharp|flat))?"
_KEYS = (
    re.compile(rf"\b{_TONE} (major|minor)\b"),
    re.compile(r"\b([a-g])(b)?()(min|maj)\b"),
    # Without a mode it is major; a letter alone must not be an article or an initial.
    re.compile(r"\bin ([a-g])(b)?(?: (sharp|flat))?()(?= (?:op|d|k|s|l|no|hob|bwv|wtc) |$)"),
    re.compile(r"\b([a-g])(b)?()()(?<=b)(?<!\bb)\b"),
    re.compile(r"\b([a-g])() (sharp|flat)()\b"),
)


def find_key(text: str) -> Key | None:
    """The first key that a :func:`spaced` title names; "in B flat" is major."""
    return _search_key(text)[0]


def without_key(text: str) -> str:
    """The title without the words of :func:`find_key`."""
    _, (start, stop) = _search_key(text)
    return f"{text[:start]} {text[stop:]}"


@functools.lru_cache(maxsize=4096)
def _search_key(text: str) -> tuple[Key | None, tuple[int, int]]:
    for pattern in _KEYS:
        if match := pattern.search(text):
            letter, flat, word, mode = match.groups()
            return _key(letter, flat, word, mode), match.span()
    return None, (0, 0)


def _key(letter: str, accidental: str | None, word: str | None, mode: str | None) -> Key:
    shift = {"b": -1, "es": -1, "s": -1, "is": 1, "sharp": 1, "flat": -1}
    tone = _TONICS[letter] + shift.get(accidental or "", 0) + shift.get(word or "", 0)
    return Key(tone % 12, (mode or "") in ("minor", "min"))
