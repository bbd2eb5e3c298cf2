"""Where a recording's samples come from: a file that is decoded, or a performance that is rendered.

The plan and the ingest know a :class:`Sound` and not which kind it is. Both kinds are small values
that travel to workers; both notice when what they read is no longer what was fingerprinted.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

from pipeline.audio import AudioHeader, Int16Array, decode, probe
from pipeline.base.config import digest
from pipeline.base.errors import AudioError, MidiError
from pipeline.corpora.recordings import Recording
from pipeline.corpora.takes import Take
from pipeline.midi import read_performance
from pipeline.rendered import render, rendered_header

EDGE_BYTES = 1 << 20
PROBE_BYTES = 64 << 10
N_PROBES = 16
Checksum = Literal["sampled", "full"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """An audio file; ``bytes`` is its size when it was fingerprinted (0: not yet)."""

    path: str
    bytes: int = 0

    def header(self) -> AudioHeader:
        """Raises :class:`AudioError`, see :func:`~pipeline.audio.probe`."""
        return probe(Path(self.path))

    def fingerprinted(self, checksum: Checksum) -> tuple[Sound, dict[str, Any]]:
        """The sound with what tells it from others, and that as part of a store's identity."""
        size = Path(self.path).stat().st_size
        found = {"audio": audio_fingerprint(Path(self.path), checksum), "audio_bytes": size}
        return dataclasses.replace(self, bytes=size), found

    def samples(self, n_samples: int, start: int = 0) -> Generator[Int16Array]:
        """Samples ``[start, n_samples)`` at 24 kHz, mono, in blocks; errors as ``decode``."""
        path = Path(self.path)
        if self.bytes and (not path.exists() or path.stat().st_size != self.bytes):
            raise _changed(self.path)
        yield from decode(path, n_samples, start)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """A MIDI file and how it is played; ``sha256`` is its content ("": not yet known)."""

    path: str
    take: Take
    sha256: str = ""

    def header(self) -> AudioHeader:
        """Raises :class:`MidiError`."""
        return rendered_header(read_performance(Path(self.path)))

    def fingerprinted(self, checksum: Checksum) -> tuple[Sound, dict[str, Any]]:
        """The sound with what tells it from others, and that as part of a store's identity."""
        sha256 = hashlib.sha256(Path(self.path).read_bytes()).hexdigest()
        return dataclasses.replace(self, sha256=sha256), {"audio": digest(self.take.identity, 64)}

    def samples(self, n_samples: int, start: int = 0) -> Generator[Int16Array]:
        """Samples ``[start, n_samples)`` at 24 kHz, mono, in blocks; errors as ``render``."""
        path = Path(self.path)
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest() if self.sha256 else ""
            performance = read_performance(path)
        except (OSError, MidiError):
            raise _changed(self.path) from None
        if content != self.sha256:
            raise _changed(self.path)
        yield from render(performance, self.take, n_samples, start)


Sound = Recorded | Rendered


def sound_of(recording: Recording, root: Path, take: Take | None) -> Sound:
    """A corpus' recording as it is to be heard."""
    if take is None:
        return Recorded(path=str(root / recording.audio_path))
    return Rendered(path=str(root / recording.midi_path), take=take)


def audio_fingerprint(path: Path, checksum: Checksum) -> str:
    """SHA-256 of the whole file, or of its first and last MiB and 16 even 64 KiB blocks."""
    digest_ = hashlib.sha256(checksum.encode())
    size = path.stat().st_size
    with path.open("rb") as handle:
        if checksum == "full" or size <= 2 * EDGE_BYTES + N_PROBES * PROBE_BYTES:
            while block := handle.read(EDGE_BYTES):
                digest_.update(block)
            return digest_.hexdigest()
        inner = size - 2 * EDGE_BYTES - PROBE_BYTES
        offsets = [EDGE_BYTES + inner * i // (N_PROBES - 1) for i in range(N_PROBES)]
        for offset, length in [
            (0, EDGE_BYTES),
            *((o, PROBE_BYTES) for o in offsets),
            (size - EDGE_BYTES, EDGE_BYTES),
        ]:
            handle.seek(offset)
            digest_.update(handle.read(length))
    return digest_.hexdigest()


def _changed(path: str) -> AudioError:
    return AudioError(
        f"{path}: changed while the store was being built; repeat the command", kind="changed"
    )
