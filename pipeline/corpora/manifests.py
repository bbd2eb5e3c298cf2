"""What a published corpus must be: ``data_manifests/<corpus>-v*.toml``, checked as it is read."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from pipeline.base.config import from_plain, load_toml
from pipeline.base.errors import ConfigError, UsageError
from pipeline.corpora.checksums import Checksum, read_checksums

# Beside the package, in a checkout as in an installed environment.
FOLDER = Path(__file__).resolve().parents[2] / "data_manifests"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """One file that a corpus is published as.

    Attributes
    ----------
    file : its name, below the manifest's ``base_url``
    bytes, sha256 : of the archive; nothing is unpacked that does not match
    unpacked_bytes : about what its contents take on disk, for the check of free space
    top : the one folder that all its members lie in
    folder : what that folder is called here
    """

    file: str
    bytes: int
    sha256: str
    unpacked_bytes: int
    top: str
    folder: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SegmentCounts:
    """Segments per split, with the paper's cap of 100 a recording and without."""

    cap_100: dict[str, int]
    all: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A published corpus in numbers that can be checked.

    Attributes
    ----------
    checksums : file in the same folder with the checksums of the corpus' files, as far as known
    hours : of all recordings together, by the table
    recordings : per split
    tables : metadata files whose bytes are known
    archives : by kind (``full``, ``midi``)
    """

    name: str
    version: str
    licence: str
    owner: str
    citation: str
    page: str
    base_url: str
    hours: float
    checksums: str
    recordings: dict[str, int]
    segments: SegmentCounts
    tables: dict[str, Checksum]
    archives: dict[str, Archive]

    def files(self) -> dict[str, Checksum]:
        """Path → checksum of every file of the corpus whose contents are known."""
        return {**read_checksums(FOLDER / self.checksums), **self.tables}


def find_manifest(corpus: str) -> Manifest | None:
    """The manifest of that corpus, or None where there is none (demo, a user's own CSV)."""
    found = _manifest_files().get(corpus)
    return from_plain(Manifest, load_toml(found), found.name) if found else None


def load_manifest(corpus: str) -> Manifest:
    """The manifest of that corpus.

    Raises
    ------
    ConfigError
        where there is none, naming those that there are.
    """
    manifest = find_manifest(corpus)
    if manifest is None:
        known = ", ".join(_manifest_files()) or "none"
        raise ConfigError(f"there is no manifest of the corpus '{corpus}'; known: {known}")
    return manifest


def other_archive(archive: Archive, sha256: str) -> Archive:
    """An archive of the same name and form with other bytes, for example a mirror's own."""
    if not re.fullmatch("[0-9a-f]{64}", sha256.lower()):
        raise UsageError(f"--sha256 '{sha256}' is not 64 hexadecimal digits")
    return dataclasses.replace(archive, sha256=sha256.lower(), bytes=0, unpacked_bytes=0)


def _manifest_files() -> dict[str, Path]:
    """Corpus → file of its newest version."""
    return {path.name.split("-v")[0]: path for path in sorted(FOLDER.glob("*-v*.toml"))}
