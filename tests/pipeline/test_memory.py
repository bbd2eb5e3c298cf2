"""Memory of an ingest worker does not depend on how long a recording is."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
from pathlib import Path
from pipeline.ingest import ingest_tasks, run_ingest
from pipeline.plan import Source
from pipeline.store.schema import audio_layout
from pipeline.store.writer import JOURNAL, create_array
from pipeline.spectral import SAMPLE_RATE

folder, path, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
length = seconds * SAMPLE_RATE
info = audio_layout(length, "0" * 64)
(folder / JOURNAL).mkdir(parents=True)
create_array(folder, info)
source = Source(recording=0, path=str(path), bytes=path.stat().st_size, start=0, length=length)
for task in ingest_tasks(folder, info, [source], 1):
    assert not run_ingest(task)["failures"]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mb(tmp_path: Path, seconds: int) -> int:
    """Peak resident memory, MiB, of ingesting one recording of that length (its file is sparse)."""
    path = tmp_path / f"{seconds}.wav"
    size = seconds * 44_100 * 2
    form = struct.pack("<HHIIHH", 1, 1, 44_100, 88_200, 2, 16)
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<I", 16))
        file.write(form + b"data" + struct.pack("<I", size))
        file.truncate(44 + size)
    arguments = [str(tmp_path / f"store-{seconds}"), str(path), str(seconds)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.full
def test_three_hours_need_a_shard_more_than_one_minute(tmp_path: Path) -> None:
    """Three hours are 494 MiB of samples; a worker holds a few shards (of 16 MiB here) at most."""
    assert peak_mb(tmp_path, 3 * 3600) < peak_mb(tmp_path, 60) + 128
