"""Which titles name one composition.

Two performances of one work must never meet as query and "wrong" candidate, so the key has to be the
same under every spelling of a title. It is the composer's surname and, in this order of trust:

1. the catalogue number (BWV, Hob., K., D., S., L., Op., …; second catalogues count as the first), with
   the piece's number where the opus is a collection: ``chopin-op25-3``, ``beethoven-op10-3``;
2. a name, or a numbered or keyed genre, that :mod:`pipeline.corpora.works` knows: "Appassionata",
   "Ballade No. 2", "Sonata in B-flat" are ``beethoven-op57``, ``chopin-op38``, ``schubert-d960``;
3. the title's own words, without tempi, movements and punctuation.

Movements of a sonata, suite or cycle are one work, and so are a prelude and its fugue. Where book and
key name a pair of the Well-Tempered Clavier they are believed rather than its number; a Schubert
sonata whose D. number is not in its key was counted on from the right one (a table filled downwards).
A recording of several pieces has a key of its own (``chopin-op25-1..5``); :func:`overlap` says which
other keys share music with it.

Case, accents, punctuation and spacing never matter. What a title leaves open is said in ``doubt``;
``xmodal-features compositions`` lists it, and a ``composition`` column in the table overrules all.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator

from pipeline.corpora.facts import facts_of
from pipeline.corpora.spelling import (
    GENRES,
    NAMES,
    NUMBER_WORDS,
    Key,
    find_key,
    spaced,
    without_key,
)

VERSION = 2  # counts up when any title may get another key; recorded in every store

# Composers with namesakes: the last given initials of the one that a bare surname means.
NAMESAKES = {"bach": "s", "mozart": "aw", "haydn": "jf", "scarlatti": "d", "schumann": "ra"}
CYCLIC = frozenset("sonata sonatina concerto suite partita".split())
# In order of trust. A letter alone is a catalogue only for the composers that it was made for.
OWNERS: dict[str, tuple[str, ...]] = {
    "bwv": ("bach",),
    "hwv": ("handel",),
    "hob": ("haydn",),
    "wq": ("bach-cpe",),
    "k": ("mozart", "scarlatti"),
    "d": ("schubert",),
    "s": ("liszt",),
    "l": ("debussy", "scarlatti"),
    "m": ("franck", "ravel"),
    "z": ("purcell",),
    "h": ("bach-cpe",),
    "woo": (),
    "op": (),
}
_PIECES = ("op", "d", "s", "l")  # their numbers may hold several pieces
_MENTION = re.compile(rf"\b({'|'.join(OWNERS)}|opus|kv|kk) (?:posth )?([ivx]+ )?(\d+[a-d]?)\b")
_ROMANS = {"xvi": 16, "xvii": 17, "xviii": 18, "xv": 15, "xiv": 14}
_WTC_KEYS = "C c C# c# D d Eb eb E e F f F# f# G g Ab ab A a Bb bb B b".split()
_BOOK = re.compile(r"\b(?:wtc|wtk|book|part) ([12])\b")
_FILLED_DOWN = 4  # movements that a D. number may have been counted on by
_NOISE = frozenset(
    "a an and the in of for from de des du la le les l d et e und der die das on by op opus no key "
    "piano solo complete posth posthumous movement movements mov mvt i ii iii iv v vi vii viii ix x "
    "allegro allegretto andante andantino adagio presto prestissimo largo larghetto lento vivace "
    "moderato maestoso grave assai molto con brio ma non troppo".split()
)
_ORDINAL = re.compile(
    r"\b(?:\d+(?:st|nd|rd|th)|first|second|third|fourth|fifth|sixth) (?:mov|mvt|movement)s?\b"
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a title names.

    Attributes
    ----------
    key : the same for all spellings of one work
    rule : how it was found: ``catalogue``, ``name`` or ``words``
    doubt : what the title leaves open or contradicts, or nothing
    """

    key: str
    rule: str
    doubt: str = ""


def composition_key(composer: str, title: str) -> str:
    """The key shared by all spellings of one work, for example ``chopin-op25-3``."""
    return find_work(composer, title).key


@functools.lru_cache(maxsize=4096)
def find_work(composer: str, title: str) -> Work:
    """The work that a composer and a title name; ``A / B`` is A arranged by B."""
    names = composer_names(composer)
    text = spaced(title)
    found = _by_catalogue(names, text) or _by_name(names, text)
    return found or _by_words(names[0], text)


def composer_names(composer: str) -> tuple[str, ...]:
    """Surnames of everyone named, plain; namesakes of the famous one carry initials (``bach-cpe``)."""
    found = []
    for person in re.split(r"[/&;]|\band\b", re.sub(r"\(.*?\)", " ", composer)):
        last, comma, given = person.partition(",")
        words = [
            re.sub(r"[\W_]+", "", spaced(w))
            for w in (f"{given} {last}" if comma else person).replace(".", " ").split()
        ]
        words = [w for w in words if w and w not in ("ii", "iii", "jr", "sr", "arr")]
        if not words:
            continue
        surname = NAMES.get(words[-1], words[-1])
        initials = "".join(w[0] for w in words[:-1])
        other = initials and surname in NAMESAKES and initials[-1] not in NAMESAKES[surname]
        found.append(f"{surname}-{initials}" if other else surname)
    return tuple(found) or ("unknown",)


def overlap(a: str, b: str) -> bool:
    """Whether two different keys share music: a set and its piece, or sets with a common piece."""
    base_a, pieces_a = _split(a)
    base_b, pieces_b = _split(b)
    return (
        a != b and base_a == base_b and (not pieces_a or not pieces_b or bool(pieces_a & pieces_b))
    )


def _split(key: str) -> tuple[str, frozenset[int]]:
    """``chopin-op25-1..3+5`` → ``chopin-op25``, {1, 2, 3, 5}."""
    match = re.fullmatch(r"(.*?-[a-z]+\d+[a-d]?)(?:-([\d.+]+))?", key)
    if match is None or not match[2]:
        return key, frozenset()
    pieces: set[int] = set()
    for part in match[2].split("+"):
        low, _, high = part.partition("..")
        pieces.update(range(int(low), int(high or low) + 1))
    return match[1], frozenset(pieces)


# ---------------------------------------------------------------- 1. catalogues


def _by_catalogue(names: tuple[str, ...], text: str) -> Work | None:
    mentions = list(_mentions(names, text))
    pair = _well_tempered(names, text)
    if pair is not None:
        wrong = [
            number for _, system, number, _ in mentions if (system, number) != ("bwv", pair[3:])
        ]
        doubt = f"BWV {wrong[0]} is not in this book and key" if wrong else ""
        return Work(key=f"bach-{pair}", rule="catalogue", doubt=doubt)
    if not mentions:
        return None
    system = min((m[1] for m in mentions), key=list(OWNERS).index)
    bases: dict[tuple[str, str], list[int]] = {}
    for owner, found, number, pieces in mentions:
        if found == system:
            bases[owner, system + number] = bases.get((owner, system + number)) or pieces
    if system != "op":  # a second number of the same catalogue is an older edition's
        bases = dict(list(bases.items())[:1])
    works = [_settled(owner, base, pieces, text) for (owner, base), pieces in bases.items()]
    if len(works) == 1:
        return works[0]
    key = "+".join([works[0].key, *(w.key.partition("-")[2] for w in works[1:])])
    return Work(key=key, rule="catalogue", doubt="several works")


def _mentions(names: tuple[str, ...], text: str) -> Iterator[tuple[str, str, str, list[int]]]:
    """(owner, catalogue, number, pieces) of every catalogue number, second catalogues translated."""
    for match in _MENTION.finditer(text):
        system = {"opus": "op", "kv": "k", "kk": "k"}.get(match[1], match[1])
        owners = OWNERS[system]
        owner = next((n for n in names if n in owners), None if owners else names[0])
        if owner is None or (match[2] and system != "hob"):
            continue
        number, rest = match[3], text[match.end() :].split()
        if system == "hob":
            number = f"{_ROMANS.get((match[2] or '').strip(), number)}"
            following = [w for w in rest[:2] if w.isdigit()]
            yield owner, system, f"{number}-{match[3] if match[2] else ''.join(following[:1])}", []
            continue
        pieces = _pieces(rest, bare=system == "op") if system in _PIECES else []
        same = facts_of(owner).same.get(system + number)
        if same is not None:
            system, number = re.fullmatch(r"([a-z]+)(\d+[a-d]?)", same).groups()  # type: ignore[union-attr]
        yield owner, system, number, pieces


def _pieces(words: list[str], *, bare: bool) -> list[int]:
    """The numbers at the start of ``words``: "no 3", "no 4 and 5", "no 1 to 5"; ``bare``: "3"."""
    explicit, found = False, list[int]()
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else ""
        if word == "no" or (word == "to" and not found and following.isdigit()):
            explicit = True
        elif word.isdigit() and (explicit or (bare and not found)):
            if found and words[i - 1] == "to":
                found.extend(range(found[-1] + 1, min(int(word), found[-1] + 50)))
            found.append(int(word))
        elif not (
            explicit and word in ("and", "to") and (following.isdigit() or following == "no")
        ):
            break
    return found


def _settled(owner: str, base: str, pieces: list[int], text: str) -> Work:
    """One catalogue number with the pieces that the title means."""
    facts = facts_of(owner)
    doubt = ""
    counted = _counted_on(owner, base, text)
    if counted is not None:
        doubt = f"{base} is not in this key: counted on from {counted}"
        base = counted
    if base in facts.single:
        pieces = []
    elif not set(text.split()).isdisjoint(CYCLIC):
        number = base.lstrip("abcdefghijklmnopqrstuvwxyz")
        explicit = re.search(rf"\b{number} (?:no|to) ", text) is not None or base in facts.holds
        pieces = pieces[:1] if explicit else []
    if not pieces and base not in facts.single:
        names = [w for w in facts.named(text) if w.startswith(base + "-") and "#" not in w]
        if len(names) == 1:
            return Work(key=f"{owner}-{names[0]}", rule="catalogue", doubt=doubt)
        if base in facts.series:
            pieces = _numbers(text)
    return Work(key="-".join([owner, base, *_listed(pieces)]), rule="catalogue", doubt=doubt)


def _listed(pieces: list[int]) -> list[str]:
    """[1, 2, 3, 5] → ["1..3+5"]; nothing for nothing."""
    runs: list[list[int]] = []
    for number in sorted(set(pieces)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = (f"{r[0]}..{r[-1]}" if len(r) > 2 else "+".join(map(str, r)) for r in runs)
    return ["+".join(parts)] if runs else []


def _counted_on(owner: str, base: str, text: str) -> str | None:
    """The sonata in the title's key from which ``base`` was counted on, if it was."""
    if owner != "schubert" or not base.startswith("d") or "sonata" not in text.split():
        return None
    number = int(base[1:])
    known = [int(i[1:]) for i in facts_of(owner).keyed(text)]
    below = [k for k in known if number - _FILLED_DOWN <= k < number]
    return f"d{max(below)}" if below and number not in known else None


def _well_tempered(names: tuple[str, ...], text: str) -> str | None:
    """``bwv846`` … ``bwv893`` from book and key, where the title has both."""
    book, key = _BOOK.search(text), find_key(text)
    if "bach" not in names or book is None or key is None:
        return None
    if not re.search(r"\b(?:wtc|wtk|tempered|prelude|fugue|fuge)\b", text):
        return None
    order = [Key.named(name) for name in _WTC_KEYS]
    return f"bwv{846 + 24 * (int(book[1]) - 1) + order.index(key)}"


# ---------------------------------------------------------------- 2. names


def _by_name(names: tuple[str, ...], text: str) -> Work | None:
    for composer in names:
        facts = facts_of(composer)
        found = facts.named(text) or facts.numbered(text) or facts.keyed(text)
        if not found:
            continue
        if len(found) > 1 and facts.keyed(text) == found:
            return Work(
                key=f"{composer}-{'-or-'.join(found)}",
                rule="name",
                doubt=f"may be any of {', '.join(found)}",
            )
        keys, doubt = [], "several works" if len(found) > 1 else ""
        for identity in found:
            owner, _, rest = identity.rpartition("/")
            if rest.endswith("-#"):
                pieces = _listed(_numbers(text))
                doubt = doubt or ("" if pieces else "which number of the series?")
                rest = "-".join([rest[:-2], *pieces])
            keys.append((owner or composer, rest))
        key = "-".join([keys[0][0], "+".join(rest for _, rest in keys)])
        return Work(key=key, rule="name", doubt=doubt)
    return None


def _numbers(text: str) -> list[int]:
    """The pieces that "No. 4", "Nos. 4 and 5" or "Book 2, 4" name anywhere in the title."""
    words = text.split()
    for i, word in enumerate(words):
        if word == "no" and (found := _pieces(words[i:], bare=False)):
            return found
    return []


# ---------------------------------------------------------------- 3. words


def _by_words(composer: str, text: str) -> Work:
    key = find_key(text)
    rest = [w for w in _ORDINAL.sub(" ", without_key(text)).split() if w not in _NOISE]
    own = [w for w in rest if w not in GENRES and w not in NUMBER_WORDS]
    doubt = ""
    if not own and key is not None:  # nothing but a genre: the key tells works apart
        rest.append(key.slug)
    elif not own:
        doubt = "names a genre only"
    elif sum(w.isdigit() for w in own) > 1 and all(w.isdigit() for w in own):
        doubt = "several works"
    elif rest[0] in NUMBER_WORDS or not set(rest).isdisjoint(("selections", "excerpts")):
        doubt = "a selection"
    return Work(key="-".join([composer, *(rest or ["untitled"])]), rule="words", doubt=doubt)
