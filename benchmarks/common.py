"""Timing in pairs, and the JSON that goes with every figure."""

from __future__ import annotations

import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

RESULTS = Path(__file__).parent / "results"
WRITTEN = (
    ":(top,exclude)benchmarks/results",
    ":(top,exclude)docs/images",
)  # by benchmarks themselves
T = TypeVar("T")
PACKAGES = ("numpy", "scipy", "numba", "librosa", "soxr", "zarr", "pyarrow", "torch")


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def paired(
    ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, calls: int = 1
) -> dict[str, float]:
    """Time two functions in turn; the ratio is taken pair by pair, so that drift cancels.

    Each timing is of ``calls`` calls in a row, as in a stream of segments: otherwise either function
    would be measured with the caches as the other one left them.
    """

    def timed(function: Callable[[], Any]) -> float:
        return seconds(lambda: [function() for _ in range(calls)]) / calls

    timed(ours)
    timed(theirs)
    return {**of_pairs([(timed(ours), timed(theirs)) for _ in range(rounds)]), "calls": calls}


def paired_over(
    items: Iterable[T], ours: Callable[[T], Any], theirs: Callable[[T], Any]
) -> dict[str, float]:
    """Time two functions in turn on every item, who begins alternating; a ratio for every item."""
    pairs = []
    for number, item in enumerate(items):
        if number == 0:  # compiles, and opens files once
            ours(item)
            theirs(item)
        sides = {"ours": ours, "theirs": theirs}
        order = list(sides)[:: 1 if number % 2 else -1]
        found = {side: seconds(functools.partial(sides[side], item)) for side in order}
        pairs.append((found["ours"], found["theirs"]))
    return of_pairs(pairs)


def of_pairs(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Medians of both sides' seconds, and of the ratios with their 10–90 % range."""
    return {
        "ours_ms": 1e3 * statistics.median(a for a, _ in pairs),
        "theirs_ms": 1e3 * statistics.median(b for _, b in pairs),
        **ranged([b / a for a, b in pairs]),
        "rounds": len(pairs),
    }


def ranged(ratios: Iterable[float]) -> dict[str, float]:
    """Median and 10–90 % range; of fewer than ten, the whole range."""
    ordered = sorted(ratios)
    tenth = len(ordered) // 10
    return {
        "ratio": statistics.median(ordered),
        "ratio_low": ordered[tenth],
        "ratio_high": ordered[-1 - tenth],
    }


def environment() -> dict[str, Any]:
    """Commit, machine and versions."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "commit": _git("rev-parse", "HEAD"),
        "clean": _git("status", "--porcelain", "-uno", "--", ":/", *WRITTEN) == "",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def write(name: str, data: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``benchmarks/results/<name>.json`` and print it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8")
    print(text)
    return path


def command(program: str, *arguments: object) -> Any:
    """Run one of the project's commands beside this interpreter; its JSON answer."""
    path = Path(sys.executable).parent / program
    done = subprocess.run(
        [str(path), *map(str, arguments), "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, cwd=RESULTS.parent
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
