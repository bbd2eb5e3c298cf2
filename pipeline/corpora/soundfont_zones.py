"""Root keys of a SoundFont's zones, written where a simple synthesiser looks for them.

A zone says which key its sample was recorded at: by the sample's header or, overriding it, by the
generator ``overridingRootKey`` (58). symusic's synthesiser (0.5.9) reads the header alone, so with
TimGM6mb, whose piano samples all say 60, a key sounded 11 to 44 semitones off. Where all zones of a
sample agree, their root is written into the header; fine tuning (generator 52) is obeyed as it is.
"""

from __future__ import annotations

from pipeline.corpora.soundfont_tables import ROOT_KEY, SAMPLE, read_tables, zones

NO_ROOT = 255


def with_zone_roots(content: bytes) -> bytes:
    """The same SoundFont, every sample's header naming the root key that its zones play it by.

    Raises
    ------
    CorpusError
        when it is no SoundFont 2, or not a whole one.
    """
    out = bytearray(content)
    tables = read_tables(out)
    roots: dict[int, set[int]] = {}
    for zone in zones(tables):
        if SAMPLE in zone:
            roots.setdefault(zone[SAMPLE], set()).add(zone.get(ROOT_KEY, NO_ROOT))
    for sample, found in roots.items():
        root = min(found)
        if len(found) == 1 and root <= 127:
            tables["shdr"]["root"][sample] = root
    return bytes(out)


def read_presets(content: bytes) -> set[tuple[int, int]]:
    """(bank, program) of every preset.

    Raises
    ------
    CorpusError
        when it is no SoundFont 2, or not a whole one.
    """
    presets = read_tables(content)["phdr"][:-1]  # the last one only says where they end
    return set(zip(presets["bank"].tolist(), presets["program"].tolist(), strict=True))
