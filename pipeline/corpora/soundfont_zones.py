"""Root keys of a SoundFont's zones, written where a simple synthesiser looks for them.

A zone says which key its sample was recorded at: by the sample's header or, overriding it, by the
generator ``overridingRootKey`` (58). symusic's synthesiser (0.5.9) reads the header alone, so with
TimGM6mb, whose piano samples all say 60, a key sounded 11 to 44 semitones off. Where all zones of a
sample agree, their root is written into the header; fine tuning (generator 52) is obeyed as it is.

Source: SoundFont Technical Specification 2.04, §7 (hydra) and §8.1.2 (generators).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

from pipeline.base.errors import CorpusError

SAMPLE_ID, OVERRIDING_ROOT_KEY = 53, 58
HEADER_BYTES, ROOT_AT = 46, 40
NO_ROOT = 255


def with_zone_roots(content: bytes) -> bytes:
    """The same SoundFont, every sample's header naming the root key that its zones play it by.

    Raises
    ------
    CorpusError
        when it is no SoundFont 2.
    """
    try:
        chunks = dict(_chunks(content))
        bags, generators, headers = (chunks[name] for name in (b"ibag", b"igen", b"shdr"))
        first = [g for g, _ in struct.iter_unpack("<HH", content[bags])]
        values = list(struct.iter_unpack("<HH", content[generators]))
    except (KeyError, struct.error):
        raise CorpusError("not a whole SoundFont 2: its instruments cannot be read") from None
    if headers.stop > len(content):  # the last chunk
        raise CorpusError("not a whole SoundFont 2: it is cut off")
    roots: dict[int, set[int]] = {}
    for start, stop in itertools.pairwise(first):
        zone = dict(values[start:stop])
        if SAMPLE_ID in zone:
            roots.setdefault(zone[SAMPLE_ID], set()).add(zone.get(OVERRIDING_ROOT_KEY, NO_ROOT))
    if max(roots, default=0) >= (headers.stop - headers.start) // HEADER_BYTES:
        raise CorpusError("not a whole SoundFont 2: a zone names a sample that is not there")
    out = bytearray(content)
    for sample, found in roots.items():
        root = min(found)
        if len(found) == 1 and root <= 127:
            out[headers.start + HEADER_BYTES * sample + ROOT_AT] = root
    return bytes(out)


def read_presets(content: bytes) -> set[tuple[int, int]]:
    """(bank, program) of every preset.

    Raises
    ------
    CorpusError
        when it is no SoundFont 2.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"sfbk":
        raise CorpusError("not a SoundFont 2")
    try:
        headers = content[dict(_chunks(content))[b"phdr"]]
        presets = [(bank, program) for _, program, bank in struct.iter_unpack("<20sHH14x", headers)]
    except (KeyError, struct.error):
        raise CorpusError("not a whole SoundFont 2: its presets cannot be read") from None
    return set(presets[:-1])  # the last one only says where they end


def _chunks(content: bytes) -> Iterator[tuple[bytes, slice]]:
    """Names and places of all chunks, those inside of lists included."""
    at = 12  # RIFF, size, sfbk
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        if name == b"LIST":
            at += 12
            continue
        yield name, slice(at + 8, at + 8 + size)
        at += 8 + size
        # A chunk of odd length is padded; the writers of compressed SoundFonts forget it.
        at += size % 2 and content[at : at + 1] == b"\0"
