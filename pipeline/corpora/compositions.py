"""Which titles name one composition.

Two performances of one work must never meet as query and "wrong" candidate. The key is the
composer's surname plus, in this order of trust: a catalogue number (BWV, K., D., Hob., Op., …) with
the number within the opus when the opus is a collection of pieces, or else the title's own words
without keys, tempi and punctuation. Movements of a sonata or suite are one work.
"""

from __future__ import annotations

import re
import unicodedata

# A number after one of these words counts movements, not works: the parts are one composition.
CYCLIC_WORDS = ("sonata", "sonatina", "suite", "partita", "concerto", "fantasia", "variations")

_CATALOGUES = (
    ("bwv", r"\bbwv\s*(\d+)"),
    ("hob", r"\bhob\.?\s*([xvi]+)[\s:/]*(\d+)"),
    ("k", r"\bkv?\.?\s*(\d+)"),
    ("woo", r"\bwoo\.?\s*(\d+)"),
    ("op", r"\bop(?:us|\.)?\s*(\d+)\s*[a-z]?\b(?:[\s,.:/-]*(?:nos?\.?|nr\.?)?\s*(\d+))?"),
    # Letters that are also keys: without the dot at least two digits make a catalogue number.
    ("d", r"\bd(?:\.\s*|\s?(?=\d\d))(\d+)"),
    ("s", r"\bs(?:\.\s*|\s?(?=\d\d))(\d+)"),
    ("l", r"\bl(?:\.\s*|\s?(?=\d\d))(\d+)"),
)
_NOISE = frozenset(
    "a an and the in of for de la le des major minor sharp flat dur moll no nr number "
    "allegro andante adagio presto largo vivace moderato movement mov".split()
)


def composition_key(composer: str, title: str) -> str:
    """The key shared by all spellings of one work, for example ``chopin-op25-3``."""
    surname = _plain(re.split(r"[/&]", composer)[0]).split()
    return "-".join([surname[-1] if surname else "unknown", _work(_plain(title))])


def _work(title: str) -> str:
    cyclic = any(word in title for word in CYCLIC_WORDS)
    for name, pattern in _CATALOGUES:
        found = re.search(pattern, title)
        if found:
            numbers = [g for g in found.groups() if g]
            kept = numbers[:1] if name == "op" and cyclic and len(numbers) > 1 else numbers
            return name + "-".join(kept)
    words = [w for w in re.findall(r"[a-z0-9]+", title) if w not in _NOISE]
    return "-".join(words) or "untitled"


def _plain(text: str) -> str:
    """Lower case, without accents."""
    decomposed = unicodedata.normalize("NFKD", text.lower())
    return "".join(c for c in decomposed if not unicodedata.combining(c))
