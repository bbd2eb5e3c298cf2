"""The tables of a SoundFont: presets, instruments, their zones, the headers of samples.

A synthesiser believes their numbers: with a damaged file symusic's (0.5.9) reads past its tables and
the process is gone, or plays for ever. So what they name, and what the zones of an instrument play, is
looked up before it is asked.

Source: SoundFont Technical Specification 2.04, §7 (hydra) and §8.1 (generators). Version 3 is the same
with compressed samples, whose places are bytes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import CorpusError

INSTRUMENT, SAMPLE, MODES, ROOT_KEY = 41, 53, 54, 58
LOOPS = (1, 3)  # for ever, or until the key is up
# Moved away from the sample's header: by frames, and by 32,768 of them.
START, END, LOOP_START, LOOP_END = (0, 4), (1, 12), (2, 45), (3, 50)
COARSE = 32_768
RATES = (400, 65_535)
BAG = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
GENERATOR = np.dtype([("kind", "<u2"), ("amount", "<u2")])
MODULATOR = np.dtype("V10")
Table = npt.NDArray[Any]
Zone = dict[int, int]


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
    "shdr": _record(
        46, start=(20, "<u4"), end=(24, "<u4"), loop_start=(28, "<u4"), loop_end=(32, "<u4"),
        rate=(36, "<u4"), root=(40, "u1"),
    ),
}  # fmt: skip
# Records of the first say with which of the second they begin; the last bag is a record of its own.
BEGINNINGS = (
    ("phdr", "bag", "pbag", 1), ("pbag", "generator", "pgen", 0), ("pbag", "modulator", "pmod", 0),
    ("inst", "bag", "ibag", 1), ("ibag", "generator", "igen", 0), ("ibag", "modulator", "imod", 0),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SoundFontTables:
    """``version`` 2 or 3, ``sample_bytes`` of sound, and the tables by name, a record an entry."""

    version: int
    sample_bytes: int
    of: dict[str, Table]

    def presets(self) -> set[tuple[int, int]]:
        """(bank, program) of every preset."""
        headers = self.of["phdr"][:-1]  # the last one only says where they end
        return set(zip(headers["bank"].tolist(), headers["program"].tolist(), strict=True))

    def instruments(self, programs: Collection[int]) -> set[int]:
        """Numbers of what these programs of bank 0 play."""
        headers, bags, generators = (self.of[name] for name in ("phdr", "pbag", "pgen"))
        found: set[int] = set()
        for one, following in itertools.pairwise(headers):
            if one["bank"] == 0 and one["program"] in programs:
                of = generators[slice(*bags["generator"][[one["bag"], following["bag"]]])]
                found |= set(of["amount"][of["kind"] == INSTRUMENT].tolist())
        return found

    def zones(self, instrument: int) -> Iterator[Zone]:
        """Generators of every zone with a sample; a first zone without one is for all of them."""
        first, last = self.of["inst"]["bag"][[instrument, instrument + 1]].tolist()
        starts = self.of["ibag"]["generator"][first : last + 1].tolist()
        common: Zone = {}
        for number, (start, stop) in enumerate(itertools.pairwise(starts)):
            zone: Zone = {}
            for kind, amount in self.of["igen"][start:stop].tolist():
                zone[kind] = amount
                if kind == SAMPLE:  # what comes after it is ignored
                    yield {**common, **zone}
                    break
            else:
                common = zone if number == 0 else common

    def check(self, programs: Collection[int]) -> None:
        """That these programs of bank 0 play what is there.

        Raises
        ------
        CorpusError
            saying what a zone does.
        """
        for instrument in self.instruments(programs):
            for zone in self.zones(instrument):
                self._check_zone(zone, self.of["shdr"][zone[SAMPLE]])

    def _check_zone(self, zone: Zone, header: Any) -> None:
        rate = int(header["rate"])
        if not RATES[0] <= rate <= RATES[1]:
            raise _broken(f"a zone plays a sample of {rate} Hz")
        looped = zone.get(MODES, 0) & 3 in LOOPS
        start, end = int(header["start"]), int(header["end"])
        loop_start = int(header["loop_start"]) + _moved(zone, LOOP_START)
        loop_end = int(header["loop_end"]) + _moved(zone, LOOP_END)
        if self.version == 2:
            start, end = start + _moved(zone, START), end + _moved(zone, END)
            inside = 0 <= start < end <= self.sample_bytes // 2
            looped_inside = start <= loop_start < loop_end <= end
        else:  # moved, and looped, within what is compressed
            inside = 0 <= start < end <= self.sample_bytes
            looped_inside = 0 <= loop_start < loop_end
        if not inside:
            raise _broken("a zone plays what is no part of the samples")
        if looped and not looped_inside:
            raise _broken("a zone loops where it does not play")


def read_tables(content: bytes | bytearray) -> SoundFontTables:
    """The tables; those of a bytearray may be written to.

    Raises
    ------
    CorpusError
        when it is no SoundFont 2, or one whose tables name what is not there.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"sfbk":
        raise CorpusError("not a SoundFont 2")
    chunks: dict[str, slice] = {}
    for called, place in _chunks(content):
        chunks.setdefault(called.decode("latin-1"), place)
    of: dict[str, Table] = {}
    for wanted in ("ifil", "smpl", *RECORDS):
        if wanted not in chunks or chunks[wanted].stop > len(content):
            raise _broken(f"cut off before the end of {wanted}")
    for name, record in RECORDS.items():
        place = chunks[name]
        count, over = divmod(place.stop - place.start, record.itemsize)
        if over or not count:
            raise _broken(f"{name} holds no whole records")
        of[name] = np.frombuffer(content, record, count, place.start)
    _check_names(of)
    version = int.from_bytes(content[chunks["ifil"]][:2], "little")
    if version not in (2, 3):
        raise CorpusError(f"a SoundFont of version {version}; only 2 and 3 can be played")
    samples = chunks["smpl"]
    return SoundFontTables(version=version, sample_bytes=samples.stop - samples.start, of=of)


def _check_names(of: dict[str, Table]) -> None:
    for name, field, begun, own in BEGINNINGS:
        first = of[name][field].astype(np.int64)
        if (np.diff(first) < 0).any() or first[-1] > len(of[begun]) - own:
            raise _broken(f"{name} names what {begun} does not have")
    for name, kind, named in (("pgen", INSTRUMENT, "inst"), ("igen", SAMPLE, "shdr")):
        amounts = of[name]["amount"][of[name]["kind"] == kind]
        if (amounts >= len(of[named]) - 1).any():  # the last one only says where they end
            raise _broken(f"{name} names what {named} does not have")


def _moved(zone: Zone, by: tuple[int, int]) -> int:
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
