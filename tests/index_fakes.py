"""An index of small recordings, and an embedder that counts; for tests of indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from makers import Spec

from pipeline.store import Store
from trainer.search.embedders import BaselineEmbedder

SPECS = tuple(
    Spec(f"r{i}", rate=24_000, channels=1, seconds=9.0 + i, title=f"One, BWV {i}") for i in range(4)
)


class Counting(BaselineEmbedder):
    """Says which segments it embeds; fails before the n-th call, if asked to."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__("flux")
        self.fail_at, self.asked = fail_at, []

    def segments(self, store: Store, rows: Any) -> Any:
        if len(self.asked) == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append(list(rows))
        return super().segments(store, rows)

    @property
    def embedded(self) -> int:
        return sum(map(len, self.asked))


def data_of(index: Path) -> dict[str, bytes]:
    """All files of an index but its record."""
    return {
        str(p.relative_to(index)): p.read_bytes()
        for p in sorted(index.rglob("*"))
        if p.is_file() and p.name != "index.json"
    }


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
