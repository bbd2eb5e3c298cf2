"""One self-contained HTML page about a store, to look at and to listen to.

Everything on the page comes from the store's own files. Tables are read whole; of arrays and notes a
sample is read that does not grow with the store (:mod:`pipeline.report.sample`), and the page says
how large it is. The same store gives the same page, byte for byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.base.console import Console
from pipeline.base.files import atomic_write
from pipeline.base.html import Section, page
from pipeline.report import contents, distributions, segments, tables
from pipeline.report.sample import SEED, draw
from pipeline.store.reader import Store

SHOWN_PER_SPLIT = 3


def write_report(store: Store, file: Path, console: Console) -> dict[str, Any]:
    """Write the page about ``store`` to ``file``, atomically; returns what the command answers.

    Raises
    ------
    StoreError
        when something that the page shows does not verify.
    """
    text = report(store, console)
    with atomic_write(file, "w") as handle:
        handle.write(text)
    return {
        "report": str(file),
        "store": str(store.path),
        "segments": store.record["segments"],
        "bytes": len(text.encode()),
    }


def report(store: Store, console: Console) -> str:
    """The page about ``store``."""
    arrays = [name for name in store.arrays if name != "audio"]
    with console.progress("report", len(arrays) + 3) as update:
        sample = draw(store, SEED)
        update(1, "tables")
        parts = [
            Section(title="What was computed", body=contents.computed(store)),
            Section(title="Splits", body=tables.splits(store)),
            Section(title="Failures", body=tables.failures(store)),
        ]
        update(2, "notes")
        parts.append(Section(title="Notes", body=distributions.notes(store, sample)))
        summaries = []
        for done, name in enumerate(arrays, 3):
            update(done, name)
            summaries.append(distributions.summarise(store, sample, name))
        parts += [
            Section(title="Descriptors", body=distributions.descriptors(store, sample, summaries)),
            Section(
                title="Segments to see and hear",
                body=segments.shown(store, summaries, SHOWN_PER_SPLIT, SEED),
            ),
            Section(title="Recordings", body=tables.recordings(store)),
            Section(title="Time spent", body=contents.timings(store)),
            Section(title="Files", body=tables.files(store)),
            Section(title="Next", body=contents.next_commands(store)),
        ]
        text = page(store.name, contents.lead(store), parts)
        update(len(arrays) + 3, "")
    return text
