"""Looking titles up in :mod:`pipeline.corpora.works`: by name, by numbered genre, by keyed genre."""

from __future__ import annotations

import functools
import re

from pipeline.corpora.spelling import Key, find_key, spaced, squeezed
from pipeline.corpora.works import WORKS


class Facts:
    """One composer's block of :data:`WORKS`, ready to be looked up."""

    def __init__(self, block: str) -> None:
        self.same: dict[str, str] = {}  # second catalogue → first
        self._names: list[tuple[str, str]] = []  # squeezed words → identity
        self._numbers: list[tuple[re.Pattern[str], str]] = []
        self._keys: list[tuple[str, Key, str]] = []  # genre, key, identity
        identities = []
        for line in filter(None, map(str.strip, block.splitlines())):
            identity, _, aliases = line.partition(":")
            identities.append(identity)
            for alias in filter(None, map(str.strip, aliases.split(";"))):
                self._add(identity, alias)
        self.holds = {i.partition("-")[0] for i in identities if "-" in i}  # known as collections
        self.single = {i for i in identities if "-" not in i} - self.holds
        self.series = {i[:-2] for i in identities if i.endswith("-#")}

    def _add(self, identity: str, alias: str) -> None:
        text = spaced(alias)
        number = re.fullmatch(r"(.+) (\d+)", text)
        key = re.fullmatch(r"(.+) in .+", text)
        if alias.startswith("="):
            self.same[text.replace(" ", "")] = identity.removesuffix("-#")
        elif number is not None:
            between = r"(?:in [a-h](?: flat| sharp)?(?: major| minor)? )?(?:no )?"
            self._numbers.append((re.compile(rf"\b{number[1]} {between}{number[2]}\b"), identity))
        elif key is not None and (found := find_key(text)) is not None:
            self._keys.append((key[1], found, identity))
        else:
            self._names.append((squeezed(text), identity))

    def named(self, text: str) -> list[str]:
        """Identities whose words stand in the title, but for those inside a longer name."""
        whole = squeezed(text)
        spans = []
        for words, identity in self._names:
            start = whole.find(words)
            if start >= 0:
                spans.append((start, start + len(words), identity))
        longest = [
            s
            for s in spans
            if not any(o[0] <= s[0] and s[1] <= o[1] and o[:2] != s[:2] for o in spans)
        ]
        found = list(dict.fromkeys(identity for *_, identity in sorted(longest)))
        # "Estampes: Pagodes" is the piece, not the set.
        return [
            i for i in found
            if not any(o != i and o.startswith(i.removesuffix("#").rstrip("-") + "-") for o in found)
        ]  # fmt: skip

    def numbered(self, text: str) -> list[str]:
        """The identity whose genre and number the title has."""
        return [identity for pattern, identity in self._numbers if pattern.search(text)][:1]

    def keyed(self, text: str) -> list[str]:
        """Identities in the title's genre and key (several where the key does not decide)."""
        key = find_key(text)
        if key is None:
            return []
        return [i for genre, k, i in self._keys if k == key and re.search(rf"\b{genre}\b", text)]


@functools.cache
def facts_of(composer: str) -> Facts:
    """What is known of one composer, by the name that keys begin with."""
    return Facts(WORKS.get(composer, ""))
