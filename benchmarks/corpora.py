"""What is measured on: the demo's recordings, listed for hours; real ones, where there are any."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from pipeline.corpora.demo import make_demo
from pipeline.corpora.recordings import load_table
from pipeline.corpora.resolve import Corpus

DEMO = Path("data/corpora/demo")
VARIABLE = "XMODAL_TEST_DATA"


def real_data(given: Path | None = None) -> Path | None:
    """The folder of real recordings, ``given`` or by the environment; without one, says so."""
    folder = given or Path(os.environ.get(VARIABLE) or "/nonexistent")
    if folder.is_dir():
        return folder
    if given:
        raise SystemExit(f"{given} is no folder")
    print(f"{VARIABLE} names no folder of real recordings: the demo's alone", file=sys.stderr)
    return None


def real_table(given: Path | None = None) -> Path | None:
    """The table of the real recordings that have audio (MAPS)."""
    folder = real_data(given)
    if folder and not (folder / "maps-metadata.csv").is_file():
        raise SystemExit(f"{folder} has no maps-metadata.csv")
    return folder / "maps-metadata.csv" if folder else None


def folders_of(files: list[Path], root: Path) -> str:
    """How many files each folder of ``root`` has: ``maestro 205, maps 48``."""
    found = Counter(f.relative_to(root).parts[0] for f in files)
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()))


def long_corpus(table: Path, folder: Path, hours: float) -> tuple[Corpus, float]:
    """The demo recordings, listed under new names until they last ``hours``."""
    rows = list(csv.DictReader(table.open(encoding="utf-8", newline="")))
    listed, lasted, copy = [], 0.0, 0
    while lasted < hours * 3600:
        (folder / f"copy{copy}").symlink_to(table.parent.resolve())
        for row in rows:
            if lasted >= hours * 3600:
                break
            paths = {k: f"copy{copy}/{row[k]}" for k in ("audio_filename", "midi_filename")}
            listed.append({**row, **paths})
            lasted += float(row["duration"])
        copy += 1
    path = folder / "long.csv"
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(listed)
    recordings = load_table(path)
    return Corpus(name="long", table=path, root=folder, recordings=recordings), lasted / 3600


def demo_corpus(folder: Path = DEMO) -> Corpus:
    """The demo itself, made if need be."""
    table = make_demo(folder)
    return Corpus(name="demo", table=table, root=table.parent, recordings=load_table(table))


def scratch_folder() -> Path:
    """Where stores are written: memory where there is a folder for it, not a shared disk."""
    shared_memory = Path("/dev/shm")
    return shared_memory if shared_memory.is_dir() else Path(tempfile.gettempdir())


def medium(folder: Path) -> str:
    """``memory`` or ``disk``: what the folder lies on."""
    try:
        mounts = [m.split()[1:3] for m in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "disk"
    above = [(len(at), kind) for at, kind in mounts if folder.resolve().is_relative_to(at)]
    return "memory" if max(above)[1] in ("tmpfs", "ramfs") else "disk"


def touch_memory(folder: Path, size: int) -> None:
    """Make the machine have ``size`` bytes at hand, as it has after any other work.

    A virtual machine is given its memory page by page, at eight times the price of writing it.
    """
    block = bytes(16 << 20)
    with (folder / "touched").open("wb") as handle:
        for _ in range(-(-size // len(block))):
            handle.write(block)
    (folder / "touched").unlink()
