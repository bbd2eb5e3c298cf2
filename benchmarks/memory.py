"""What one job of a queue holds at paper scale: the peak after each stage, with all descriptors.

1. A job: the plan of as many segments as MAESTRO has (the demo's recordings, listed again and again),
   then one task of each stage over the first shards, cut as MAESTRO's would be: 64 MiB of audio a
   file; 8,192 segments, twice the coarsest shard, described. Their first thousand are computed;
   after that a descriptor gives its last value again, which takes the same room in less time.
2. Ingest alone of one minute and of three hours, into shards of that size.

Every measurement is a process of its own; its peak is ``VmHWM`` of Linux (``ru_maxrss`` would begin
with the size of the process that started it).

    python -m benchmarks.memory
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import environment, write
from pipeline.checks import check_tasks, run_check
from pipeline.corpora.recordings import load_table
from pipeline.describe import describe_tasks, run_describe
from pipeline.descriptors import DESCRIPTORS
from pipeline.ingest import IngestTask, ingest_tasks, run_ingest
from pipeline.plan import Source, fingerprint_inputs, make_plan
from pipeline.sounds import Recorded
from pipeline.spectral import SAMPLE_RATE
from pipeline.store.schema import Segmentation, audio_layout, descriptor_layout
from pipeline.store.writer import JOURNAL, create_array, write_table

RECORDINGS, SEGMENTS = 1_276, 127_092  # of MAESTRO v3, from its table with the cap of 100
COMPUTED = 1_024
TIMELINE = (SEGMENTS + 3 * RECORDINGS) * SAMPLE_RATE


def main() -> None:
    """Measure and write ``benchmarks/results/memory.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("data/corpora/demo"))
    arguments = parser.parse_args()
    from pipeline.corpora.demo import make_demo  # not in the processes that are measured

    result: dict[str, Any] = {"environment": environment()}
    table = make_demo(arguments.demo)
    with tempfile.TemporaryDirectory(prefix="xmodal-memory-") as scratch:
        folder = Path(scratch)
        result["job"] = measured("job", listed(table, folder), folder / "store", COMPUTED)
        for name, seconds in (("one_minute", 60), ("three_hours", 3 * 3600)):
            sound = silence(folder / f"{name}.wav", seconds)
            result[name] = measured("ingest", sound, folder / name, seconds)
    write("memory", result)


def measured(what: str, *arguments: object) -> dict[str, Any]:
    """What :func:`job` or :func:`ingest` returns in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory", what, *map(str, arguments)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def listed(table: Path, folder: Path) -> Path:
    """A table that lists the recordings of another one until there are MAESTRO's segments."""
    rows = list(csv.DictReader(table.open(encoding="utf-8", newline="")))
    count, copy, target = 0, 0, folder / "long.csv"
    with target.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        while count < SEGMENTS:
            (folder / f"copy{copy}").symlink_to(table.parent.resolve())
            for row in rows:
                paths = {k: f"copy{copy}/{row[k]}" for k in ("audio_filename", "midi_filename")}
                writer.writerow({**row, **paths})
                count += Segmentation().count(float(row["duration"]))
            copy += 1
    return target


def silence(path: Path, seconds: int) -> Path:
    """A sparse WAV at 44.1 kHz."""
    size = seconds * 44_100 * 2
    form = struct.pack("<HHIIHH", 1, 1, 44_100, 88_200, 2, 16)
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<I", 16))
        file.write(form + b"data" + struct.pack("<I", size))
        file.truncate(44 + size)
    return path


def job(table: str, folder: str, computed: str) -> dict[str, Any]:
    """Peaks after the plan and after one task of each stage, in MiB."""
    store, recordings = Path(folder), load_table(Path(table))
    cut = Segmentation()
    inputs = fingerprint_inputs(recordings, Path(table).parent, segmentation=cut)
    plan = make_plan("long", recordings, inputs, cut)
    (store / JOURNAL).mkdir(parents=True)
    for name, rows in plan.tables.items():
        write_table(store, name, rows)
    audio = audio_layout(plan.n_samples, plan.identity)
    infos = [
        descriptor_layout(d, n_segments=plan.n_segments, n_notes=plan.n_notes, identity="0" * 64)
        for _, d in DESCRIPTORS.items()
    ]
    for info in (audio, *infos):
        create_array(store, info)
    peaks = {"plan": peak()}
    units = -(-plan.n_segments // max(i.shard_rows for i in infos if i.axis != "note"))
    tasks = describe_tasks(store, infos, units // 2)
    first = [task for task in tasks if task.start == 0]  # one an axis
    last = first[0].stop - 1
    end = int(plan.tables["segments"].column("audio_start")[last].as_py()) + 4 * SAMPLE_RATE
    shards = -(-end // audio.shard_rows)
    run_ingest(ingest_tasks(store, audio, plan.sources, audio.n_shards // shards)[0])
    peaks["ingest"] = peak()
    run_check(check_tasks(store, plan.tables["segments"], cut, len(recordings))[0])
    peaks["check"] = peak()
    for info in infos:
        if info.axis != "note":
            compute_first(DESCRIPTORS.get(info.name), int(computed))
    for task in first:
        run_describe(task)
    peaks["describe"] = peak()
    return {
        "peak_mib": peaks,
        "recordings": len(recordings),
        "segments": plan.n_segments,
        "note_rows": plan.n_notes,
        "descriptors": len(infos),
        "audio_shard_mib": audio.shard_rows * 2 >> 20,
        "audio_shards": shards,
        "described_segments": last + 1,
        "computed_segments": int(computed),
        "bytes_of_arrays": sum(2 * math.prod(i.shape) for i in (audio, *infos)),
    }


def compute_first(descriptor: Any, computed: int) -> None:
    """Make a descriptor compute its first rows only, and return the last of them from then on."""
    extract, calls, value = descriptor.extract, 0, None

    def replaced(segment: Any) -> Any:
        nonlocal calls, value
        if calls < computed:
            value = extract(segment)
        calls += 1
        return value

    descriptor.extract = replaced


def ingest(path: str, folder: str, seconds: str) -> dict[str, Any]:
    """Peak of ingesting one recording into shards of paper scale, in MiB."""
    store, length = Path(folder), int(seconds) * SAMPLE_RATE
    info = audio_layout(TIMELINE, "0" * 64)
    (store / JOURNAL).mkdir(parents=True)
    create_array(store, info)
    size = Path(path).stat().st_size
    source = Source(recording=0, sound=Recorded(path=path, bytes=size), start=0, length=length)
    stop = -(-length // info.shard_rows)
    task = IngestTask(folder=folder, info=info, first=0, stop=stop, sources=[source])
    assert not run_ingest(task)["failures"]
    return {"peak_mib": peak(), "audio_shard_mib": info.shard_rows * 2 >> 20, "shards": stop}


def peak() -> int:
    """Peak resident memory of this process, MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) >> 10


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("job", "ingest"):
        chosen = job if sys.argv[1] == "job" else ingest
        print(json.dumps(chosen(*sys.argv[2:])))
    else:
        main()
