"""Typed errors, each with a stable ``kind`` and the exit code its command ends with.

Exit codes: 0 ok · 1 failure · 2 usage · 3 data failed validation · 75 stopped by a signal and
resumable (``EX_TEMPFAIL``, which queue systems understand as "try again").

A message is one line: what is wrong, where, and what to do about it.
"""

from __future__ import annotations

from typing import Any

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_RESUMABLE = 75


class XmodalError(Exception):
    """An error the user can act on.

    ``kind`` is stable and machine-readable; ``details``, if any, is plain data for ``--json``.
    """

    exit_code = EXIT_FAILURE
    kind = "failure"
    details: Any = None

    def __init__(self, message: str, *, kind: str | None = None, details: Any = None) -> None:
        super().__init__(message)
        if kind is not None:
            self.kind = kind
        if details is not None:
            self.details = details


class UsageError(XmodalError):
    """A command line that cannot mean anything."""

    exit_code = EXIT_USAGE
    kind = "usage"


class ConfigError(XmodalError):
    """A configuration value, or a combination of them, that is not allowed."""

    exit_code = EXIT_USAGE
    kind = "config"


class CorpusError(XmodalError):
    """A corpus table, or the files it names, failed validation."""

    exit_code = EXIT_DATA
    kind = "corpus"


class AudioError(CorpusError):
    """One audio file cannot be used."""

    kind = "audio"


class MidiError(CorpusError):
    """One MIDI file cannot be used."""

    kind = "midi"


class ArchiveError(CorpusError):
    """An archive is not what it should be, or holds what must not be unpacked."""

    kind = "archive"


class DownloadError(XmodalError):
    """A file could not be fetched; what has come is kept unless it is known to be wrong."""

    kind = "download"


class StoreError(XmodalError):
    """A store is absent, incomplete, damaged, or lacks what was asked for."""

    exit_code = EXIT_DATA
    kind = "store"


class RunError(XmodalError):
    """A run folder is absent, damaged, or does not match its configuration."""

    exit_code = EXIT_DATA
    kind = "run"


class TrainingError(XmodalError):
    """A training went wrong: it diverged, or something in it does not move."""

    kind = "training"


class MissingExtra(XmodalError):
    """An optional dependency is not installed."""

    kind = "missing-extra"

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"the package '{package}' is not installed; "
            f"install it with: pip install 'xmodal[{extra}]'"
        )

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        """Worker processes send errors back pickled, which calls the constructor again."""
        return MissingExtra, (self.package, self.extra)


class Interrupted(XmodalError):
    """Stopped by a signal at a safe point; the same command continues."""

    exit_code = EXIT_RESUMABLE
    kind = "interrupted"
