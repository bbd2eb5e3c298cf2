"""A SoundFont's zones, written as a simple synthesiser wants them.

A zone says which key its sample was recorded at: by the sample's header or, overriding it, by the
generator ``overridingRootKey`` (58). symusic's synthesiser (0.5.9) reads the header alone, so with
TimGM6mb, whose piano samples all say 60, a key sounded 11 to 44 semitones off. Where all zones of a
sample agree, their root is written into the header; fine tuning (generator 52) is obeyed as it is.

What a reader shall ignore, it does not: generators that do not exist and spare bits of a zone's modes
end the process; a sample without pitch (root 255) never ends.
"""

from __future__ import annotations

from pipeline.corpora.soundfont_tables import MODES, ROOT_KEY, SAMPLE, read_tables

LAST_GENERATOR, UNUSED_GENERATOR = 60, 59
HIGHEST_KEY, USUAL_ROOT = 127, 60
NO_ROOT = 255


def as_synthesised(content: bytes) -> bytes:
    """The same SoundFont, every sample's header naming the root key that its zones play it by.

    And without what a reader shall ignore.

    Raises
    ------
    CorpusError
        when it is no SoundFont 2, or not a whole one.
    """
    out = bytearray(content)
    tables = read_tables(out)
    headers = tables.of["shdr"]
    roots: dict[int, set[int]] = {}
    for instrument in range(len(tables.of["inst"]) - 1):
        for zone in tables.zones(instrument):
            roots.setdefault(zone[SAMPLE], set()).add(zone.get(ROOT_KEY, NO_ROOT))
    for sample, found in roots.items():
        root = min(found)
        if len(found) == 1 and root <= HIGHEST_KEY:
            headers["root"][sample] = root
    headers["root"][headers["root"] > HIGHEST_KEY] = USUAL_ROOT
    for name in ("pgen", "igen"):
        generators = tables.of[name]
        generators["kind"][generators["kind"] > LAST_GENERATOR] = UNUSED_GENERATOR
        generators["amount"][generators["kind"] == MODES] &= 3
    return bytes(out)
