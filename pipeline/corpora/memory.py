"""What is known of files that have been looked at, in one small JSON file.

Facts are kept per file, with the size and modification time they were learned under: whoever asks has
to compare those. The file is written whole or not at all, every few files or gigabytes, so that work
which is killed loses little; one that is damaged, or speaks of another subject, counts as empty.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from pipeline.base.config import digest
from pipeline.base.files import read_json, write_json

FORMAT = 1
SAVE_FILES, SAVE_BYTES = 64, 1 << 30


class Memory:
    """Facts by file name; threads may share one.

    Parameters
    ----------
    path : the JSON file
    subject : plain data that says what the facts are about, and by which readers they were made
    """

    def __init__(self, path: Path, subject: list[Any]) -> None:
        self.path = path
        self._subject = digest({"format": FORMAT, "subject": subject}, 64)
        self._facts: dict[str, dict[str, Any]] = {}
        self._new_files = self._new_bytes = 0
        self._lock = threading.RLock()
        try:
            document = read_json(path)
            if document["subject"] == self._subject and isinstance(document["files"], dict):
                self._facts = {k: v for k, v in document["files"].items() if isinstance(v, dict)}
        except (OSError, ValueError, TypeError, KeyError):
            pass

    def get(self, name: str) -> dict[str, Any]:
        """What is known of a file; empty if nothing is."""
        return self._facts.get(name, {})

    def put(self, name: str, facts: dict[str, Any], read: int) -> None:
        """Remember; ``read`` bytes were read to learn it."""
        with self._lock:
            self._facts[name] = facts
            self._new_files += 1
            self._new_bytes += read
            if self._new_files >= SAVE_FILES or self._new_bytes >= SAVE_BYTES:
                self.save()

    def save(self) -> None:
        """Write what is new, if anything is."""
        with self._lock:
            if self._new_files:
                write_json(self.path, {"subject": self._subject, "files": self._facts})
                self._new_files = self._new_bytes = 0
