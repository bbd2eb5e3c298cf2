"""What a campaign costs beside its training: planning, asking, collecting, starting a run.

python -m benchmarks.campaigns                      all but the screening, whose last figure is kept
python -m benchmarks.campaigns --screening FOLDER   all, the tiny screening in FOLDER included

``folders``: ``plan``, ``status`` and ``ledger`` as commands, on a thousand run folders that are copies
of finished ones (of the screening, or of one ``a4r`` that is trained for it), each under the name and
with the configuration that its plan gives it. ``start``: to a run's first step, from the call of its
task, and, where a Slurm answers, from ``submit`` as a user calls it (``tried``: preflight comes first)
and with ``--no-preflight`` (``submit``); store and compiled kernels are warm. ``screening``: the whole
tiny screening, run unless the folder holds a finished one: from the start of its first run to the last
of its scores, as the files tell; runs that were interrupted are refused. Its page is drawn by a
headless Chromium, where there is one, as the README's picture.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.cells import load
from benchmarks.common import command, environment, seconds, write

PROGRAM = "xmodal-sweep"
ARMS = ("d0", "d4", "a4", "a7", "a8", "a9", "d4x", "a4x", "a7x", "d4r", "a4r", "d4a4", "d4a4cm")
SEEDS = 77  # 13 arms × 77 seeds: a thousand and one runs
ROUNDS = 5
TIMEOUT_S = 180.0
PICTURE = Path(__file__).parent.parent / "docs/images/campaign.png"
WINDOW = "1200,1780"
THOUSAND = f"""
title = "A thousand runs"
corpus = "demo"
size = "tiny"
[settings.budget]
epochs = 5
batches_per_epoch = 60
batch_size = 16
[[runs]]
name = "arms"
arms = {json.dumps(ARMS)}
seeds = {list(range(SEEDS))}
"""


def main() -> None:
    """Measure, write ``benchmarks/results/campaigns.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--screening", type=Path, help="Folder of its runs. [default: not measured]"
    )
    parser.add_argument("--store", type=Path, help="Of the demo. [default: newest]")
    arguments = parser.parse_args()
    given = environment()
    store = () if arguments.store is None else ("--store", arguments.store)
    if arguments.screening is None:
        kept = load("campaigns")["screening"]
    else:
        kept = screening(arguments.screening, store)
    found = {"environment": given, "screening": kept}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        finished = arguments.screening or _one_run(work, store)
        found["folders"] = folders(work, finished, store)
        found["start"] = start(work, store)
    write("campaigns", found)
    if arguments.screening is not None:
        picture(arguments.screening, store)


def _one_run(work: Path, store: tuple[Any, ...]) -> Path:
    """A folder with a finished, scored run: what is read of a run is as long as in the screening."""
    out = work / "finished"
    command(PROGRAM, "run", _one(work), "--out", out, *store)
    return out


def screening(out: Path, store: tuple[Any, ...]) -> dict[str, Any]:
    """The tiny screening, two runs side by side."""
    asked = ("screening", "--tiny", "--out", out, *store)
    if command(PROGRAM, "plan", *asked)["counts"].keys() <= {"missing", "waiting"}:
        command(PROGRAM, "run", *asked, "--jobs", 2, "--threads", 1)
    told = command(PROGRAM, "status", *asked)
    if told["counts"] != {"done": len(told["runs"])}:
        raise SystemExit(f"{out} holds a screening that is not finished: {told['counts']}")
    records = [json.loads(file.read_text(encoding="utf-8")) for file in out.glob("*/run.json")]
    if any(record["attempts"] != 1 for record in records):
        raise SystemExit(f"a run in {out} was interrupted: how long it took is not known")
    began = min(datetime.fromisoformat(record["started_at"]).timestamp() for record in records)
    ended = max(file.stat().st_mtime for file in out.glob("*/evaluation/*.json"))
    return {
        "seconds": ended - began,
        "commits": sorted({record["commit"] for record in records}),
        "runs": len(told["runs"]),
        "arms": sum(run["group"] == "arms" for run in told["runs"]),
        "updates": sum(run["updates"] for run in told["runs"]),
        "folder": str(told["campaign"]),
    }


def picture(out: Path, store: tuple[Any, ...]) -> None:
    """The head of the screening's page as ``docs/images/campaign.png``."""
    page = command(PROGRAM, "report", "screening", "--tiny", "--out", out, *store)["page"]
    browser = shutil.which("chromium")
    if browser is None:
        print("no Chromium: the picture stays as it is")
        return
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
    shot = (f"--window-size={WINDOW}", f"--screenshot={PICTURE}", Path(page).resolve().as_uri())
    subprocess.run([browser, *flags, *shot], check=True, capture_output=True)


def folders(work: Path, finished: Path, store: tuple[Any, ...]) -> dict[str, Any]:
    """Seconds of the commands that ask, on a thousand folders."""
    manifest, out = work / "thousand.toml", work / "runs"
    manifest.write_text(THOUSAND, encoding="utf-8")
    asked = (manifest, "--out", out, *store)
    first = seconds(lambda: command(PROGRAM, "plan", *asked))
    planned = command(PROGRAM, "plan", *asked)
    size = _copied(planned, finished, out)
    found: dict[str, Any] = {
        "runs": len(planned["runs"]),
        "bytes": size,
        "first_plan_seconds": first,
        "rounds": ROUNDS,
    }
    for name, call in (
        ("plan", ("plan", *asked)),
        ("status", ("status", *asked)),
        ("ledger", ("ledger", "--out", out)),
    ):
        command(PROGRAM, *call)
        times = [seconds(lambda call=call: command(PROGRAM, *call)) for _ in range(ROUNDS)]  # type: ignore[misc]
        found[name] = {"seconds": statistics.median(times), "highest": max(times)}
    done = command(PROGRAM, "status", *asked)["counts"]
    if done != {"done": len(planned["runs"])}:
        raise SystemExit(f"the copies are not what a finished run is: {done}")
    return found


def _copied(planned: dict[str, Any], finished: Path, out: Path) -> int:
    """A finished run, of the same arm if there is one, under the name of every planned one; bytes."""
    by_arm = {folder.name.rpartition("-")[0]: folder for folder in _finished(finished)}
    other = next(reversed(by_arm.values()))
    size = 0
    for run in json.loads(Path(planned["plan"]).read_text(encoding="utf-8"))["runs"]:
        source, target = by_arm.get(run["arm"], other), out / run["folder"]
        (target / "evaluation").mkdir(parents=True)
        for name in run["scores"]:  # other seeds have those of the common pools, too
            own = source / "evaluation" / "-".join(name.split("-")[:2])
            for kind in (".json", ".parquet"):
                shutil.copy(own.with_suffix(kind), target / "evaluation" / f"{name}{kind}")
        for name in ("metrics.jsonl", "attempts.json"):
            shutil.copy(source / name, target)
        record = json.loads((source / "run.json").read_text(encoding="utf-8"))
        record |= {key: run[key] for key in ("signature", "arm", "config")}
        (target / "run.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        size += sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    return size


def _finished(out: Path) -> Iterator[Path]:
    """Run folders, those of the arms last."""
    records = [(json.loads(file.read_text()), file.parent) for file in out.glob("*/run.json")]
    for _, folder in sorted(records, key=lambda found: found[0]["started_at"]):
        yield folder


def start(work: Path, store: tuple[Any, ...]) -> dict[str, Any]:
    """Seconds to the first step of an ``a4r``: of a task, of a submission, of one that tries first."""
    manifest = _one(work)
    found: dict[str, Any] = {}
    for way in ("task", "submit", "tried"):
        if way != "task" and not _queue_answers():
            found[way] = None
            continue
        times = [_to_first_step(way, manifest, work / f"{way}-{i}", store) for i in range(ROUNDS)]
        found[way] = {"seconds": statistics.median(times[1:]), "highest": max(times[1:])}
    return found


def _one(work: Path) -> Path:
    """The manifest of one ``a4r``."""
    manifest = work / "one.toml"
    text = THOUSAND.replace(json.dumps(ARMS), '["a4r"]')
    manifest.write_text(text.replace(str(list(range(SEEDS))), "[1]"), encoding="utf-8")
    return manifest


def _to_first_step(way: str, manifest: Path, out: Path, store: tuple[Any, ...]) -> float:
    asked = (manifest, "--out", out, *store)
    planned = command(PROGRAM, "plan", *asked)
    log = out / planned["runs"][0]["folder"] / "metrics.jsonl"
    began = time.perf_counter()
    if way != "task":
        flags = ["--cpus", 2, "--memory", "1900M", "--device", "cpu", "--time", 10]
        flags += [] if way == "tried" else ["--no-preflight"]
        command(PROGRAM, "submit", *asked, *flags)
        process = None
    else:
        program = Path(sys.executable).parent / PROGRAM
        process = subprocess.Popen(
            [str(program), "task", planned["plan"], "0", "--device", "cpu"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    while not (log.exists() and log.stat().st_size):
        if time.perf_counter() - began > TIMEOUT_S:
            raise SystemExit(f"no step within {TIMEOUT_S:.0f} s by {way}")
        time.sleep(0.02)
    took = time.perf_counter() - began
    if process is None:
        command(PROGRAM, "cancel", *asked)
        while (log.parent / ".lock").exists():
            time.sleep(0.1)
    else:
        os.kill(process.pid, signal.SIGTERM)
        process.wait()
    return took


def _queue_answers() -> bool:
    if shutil.which("sinfo") is None:
        return False
    done = subprocess.run(["sinfo", "-h"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and bool(done.stdout.strip())


if __name__ == "__main__":
    main()
