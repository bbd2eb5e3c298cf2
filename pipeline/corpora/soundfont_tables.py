"""The tables of a SoundFont: presets, instruments, their zones, the headers of samples.

A synthesiser believes their numbers: with a damaged file symusic's (0.5.9) reads past its tables and
the process is gone, or plays for ever. So what they name is looked up before it is asked.

Source: SoundFont Technical Specification 2.04, §7 (hydra) and §8.1 (generators).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import CorpusError

INSTRUMENT, SAMPLE_MODES, SAMPLE, ROOT_KEY = 41, 54, 53, 58
LAST_GENERATOR, LAST_MODE = 60, 3
# Where a zone begins and ends to play, away from its sample's header: frames, and 32,768 of them.
FROM, TO = (0, 4), (1, 12)
COARSE = 32_768
IN_ROM, COMPRESSED = 0x8000, 0x10
BAG = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
GENERATOR = np.dtype([("kind", "<u2"), ("amount", "<u2")])
MODULATOR = np.dtype("V10")
Table = npt.NDArray[Any]


def _record(size: int, **fields: tuple[int, str]) -> np.dtype[Any]:
    offsets, formats = zip(*fields.values(), strict=True)
    names = list(fields)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


RECORDS = {
    "phdr": _record(38, program=(20, "<u2"), bank=(22, "<u2"), bag=(24, "<u2")),
    "pbag": BAG,
    "pmod": MODULATOR,
    "pgen": GENERATOR,
    "inst": _record(22, bag=(20, "<u2")),
    "ibag": BAG,
    "imod": MODULATOR,
    "igen": GENERATOR,
    "shdr": _record(46, start=(20, "<u4"), end=(24, "<u4"), root=(40, "u1"), type=(44, "<u2")),
}
# Records of the first say with which of the second they begin.
BEGINNINGS = (
    ("phdr", "bag", "pbag"), ("pbag", "generator", "pgen"), ("pbag", "modulator", "pmod"),
    ("inst", "bag", "ibag"), ("ibag", "generator", "igen"), ("ibag", "modulator", "imod"),
)  # fmt: skip


def read_tables(content: bytes | bytearray) -> dict[str, Table]:
    """Tables by name, one record an entry; those of a bytearray may be written to.

    Raises
    ------
    CorpusError
        when it is no SoundFont 2, or one whose tables name what is not there.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"sfbk":
        raise CorpusError("not a SoundFont 2")
    chunks = dict(_chunks(content))
    tables: dict[str, Table] = {}
    for name, record in RECORDS.items():
        place = chunks.get(name.encode())
        if place is None or place.stop > len(content):
            raise _broken(f"cut off before the end of {name}")
        count, over = divmod(place.stop - place.start, record.itemsize)
        if over or not count:
            raise _broken(f"{name} holds no whole records")
        tables[name] = np.frombuffer(content, record, count, place.start)
    _check_names(tables)
    samples = chunks.get(b"smpl", slice(0, 0))
    _check_zones(tables, (samples.stop - samples.start) // 2)
    return tables


def zones(tables: dict[str, Table]) -> Iterator[dict[int, int]]:
    """Generators of every zone of every instrument, by kind; of two of a kind the last."""
    first = tables["ibag"]["generator"].tolist()
    values = tables["igen"].tolist()
    for start, stop in itertools.pairwise(first):
        yield dict(values[start:stop])


def _check_names(tables: dict[str, Table]) -> None:
    for name, field, begun in BEGINNINGS:
        first = tables[name][field].astype(np.int64)
        if (np.diff(first) < 0).any() or first[-1] > len(tables[begun]):
            raise _broken(f"{name} names what {begun} does not have")
    for name, kind, named in (("pgen", INSTRUMENT, "inst"), ("igen", SAMPLE, "shdr")):
        kinds, amounts = tables[name]["kind"], tables[name]["amount"]
        # The last of the named ones only says where they end.
        if (amounts[kinds == kind] >= len(tables[named]) - 1).any():
            raise _broken(f"{name} names what {named} does not have")
        if (kinds > LAST_GENERATOR).any() or (amounts[kinds == SAMPLE_MODES] > LAST_MODE).any():
            raise _broken(f"{name} holds a generator that does not exist")


def _check_zones(tables: dict[str, Table], frames: int) -> None:
    for zone in zones(tables):
        if SAMPLE not in zone:
            continue
        sample = tables["shdr"][zone[SAMPLE]]
        if sample["type"] & (IN_ROM | COMPRESSED):
            continue
        start, end = (int(sample[n]) + _moved(zone, by) for n, by in (("start", FROM), ("end", TO)))
        if not 0 <= start < min(end, frames):  # an end that is too late is cut
            raise _broken("a zone plays what is no part of the samples")


def _moved(zone: dict[int, int], by: tuple[int, int]) -> int:
    fine, coarse = (zone.get(kind, 0) for kind in by)
    signed = [amount - 65_536 * (amount >= 32_768) for amount in (fine, coarse)]
    return signed[0] + COARSE * signed[1]


def _broken(what: str) -> CorpusError:
    return CorpusError(f"not a whole SoundFont 2: {what}")


def _chunks(content: bytes | bytearray) -> Iterator[tuple[bytes, slice]]:
    """Names and places of all chunks, those inside of lists included."""
    at = 12  # RIFF, size, sfbk
    while at + 8 <= len(content):
        name, size = bytes(content[at : at + 4]), int.from_bytes(content[at + 4 : at + 8], "little")
        if name == b"LIST":
            at += 12
            continue
        yield name, slice(at + 8, at + 8 + size)
        at += 8 + size
        # A chunk of odd length is padded; the writers of compressed SoundFonts forget it.
        at += size % 2 and content[at : at + 1] == b"\0"
