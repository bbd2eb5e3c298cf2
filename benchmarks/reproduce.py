"""The paper again: build the store, train the campaign, score, analyse; JSON and a page.

    python -m benchmarks.reproduce --tier cpu --data DATA [--out reproduction] [--minutes 9]

``DATA`` holds a table of performances (``maestro-subset.csv`` or ``maestro-v3.0.0.csv``) and their
MIDI files in ``maestro/``, or MAESTRO itself; and, if there, ``maps-metadata.csv``, whose recordings
of a real piano are then scored, too. Every step is one of the project's commands and goes on where it
was stopped. Rendered audio needs no decoder, dask or polars; without Matplotlib, which draws their
pictures, analyses are left out, and floors that need librosa without it.

Writes ``benchmarks/results/reproduce-<tier>.json`` (what was found: the same bytes on the same
machine, however often and in however many pieces it ran), ``reproduce-<tier>-cost.json`` (what it
took; of a dry run ``-budget.json``: what it would take) and the campaign's page in the run folder.
``python -m benchmarks.tables`` and ``python -m docs.result_figures`` fill docs/results.md.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.budget import budget
from benchmarks.common import RESULTS, environment, write
from benchmarks.corpora import VARIABLE
from benchmarks.reproduced import arm_runs, costs, found, unscored
from benchmarks.tiers import DESCRIPTORS, REAL, TABLE, TIERS, Tier, write_real_table, write_table
from pipeline.base.errors import EXIT_RESUMABLE, XmodalError
from pipeline.base.files import write_json
from pipeline.corpora.recordings import load_table
from trainer.campaign.manifest import known_campaigns, read_campaign
from trainer.campaign.plan import plan_campaign
from trainer.campaign.sweep import Sweep

PERFORMANCES = ("maestro-subset.csv", "maestro-v3.0.0.csv", "maestro-v3.0.0.json")
TOLD = ("commit", "clean", "cpu", "cores", "python", "versions")


class Later(Exception):
    """The time is over; the same command goes on."""


class Steps:
    """The project's commands, one after the other, until the time is over."""

    def __init__(self, minutes: float | None) -> None:
        self.end = None if minutes is None else time.monotonic() + 60 * minutes
        self.took: dict[str, float] = {}

    def run(self, name: str, program: str, *arguments: object) -> Any:
        """The JSON answer of a command."""
        with self._timed(name):
            return self._answer(program, *arguments)

    def run_all(self, name: str, program: str, several: list[list[object]], jobs: int) -> None:
        """The same command with several lists of arguments, ``jobs`` at a time.

        The first that ends otherwise than well lets none begin after it.
        """
        with self._timed(name), concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self._answer, program, *given) for given in several]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.took[name] = self.took.get(name, 0.0) + time.monotonic() - began

    def _answer(self, program: str, *arguments: object) -> Any:
        path = Path(sys.executable).parent / program
        left = self._left()  # nothing is begun that nobody would wait for
        process = subprocess.Popen(
            [str(path), *map(str, arguments), "--json"], stdout=subprocess.PIPE, text=True
        )
        try:
            answer, _ = process.communicate(timeout=left)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.send_signal(signal.SIGTERM)
            process.communicate()
            raise Later from None
        if process.returncode == EXIT_RESUMABLE:
            raise Later
        if process.returncode:
            raise SystemExit(process.returncode)
        return json.loads(answer) if answer.strip() else {}

    def _left(self) -> float | None:
        if self.end is None:
            return None
        left = self.end - time.monotonic()
        if left <= 0:
            raise Later
        return left


def main() -> None:
    """Everything that is not done yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tier", choices=list(TIERS), required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get(VARIABLE))
    parser.add_argument("--out", type=Path, default=Path("reproduction"), help="stores and runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    parser.add_argument("--minutes", type=float, help="stop after as many; [default: never]")
    parser.add_argument(
        "--soundfont", action="append", default=[], help="see xmodal-features build"
    )
    parser.add_argument(
        "--jobs", type=int, help="runs side by side [default: cores, or 1 on a GPU]"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build the store, print the runs and their budget, and stop",
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    if arguments.data is None:
        parser.error(f"--data, or the variable {VARIABLE}, names the folder of the performances")
    steps = Steps(arguments.minutes)
    try:
        reproduce(arguments, TIERS[arguments.tier], steps)
    except (Later, KeyboardInterrupt):
        print("stopped; repeat the command to go on", file=sys.stderr)
        raise SystemExit(EXIT_RESUMABLE) from None
    except XmodalError as error:
        raise SystemExit(f"error: {error}") from None
    except subprocess.CalledProcessError as error:  # it has said why
        raise SystemExit(error.returncode) from None
    finally:
        _remember(arguments.out / arguments.tier, steps.took)


def reproduce(arguments: argparse.Namespace, tier: Tier, steps: Steps) -> None:
    """The steps of a tier, in order."""
    out = arguments.out / arguments.tier
    if tier.audio == "files" and not has_recordings(arguments.data):
        print("there are no recordings: sound is rendered from the performances", file=sys.stderr)
        tier = as_rendered(tier, out)
    store = built(tier, arguments.data, out, arguments.soundfont, steps)
    sweeps = [_sweep(name, tier, store, out) for name in tier.campaigns]
    if arguments.dry_run:
        budgets = []
        for name, sweep in zip(tier.campaigns, sweeps, strict=True):
            program = Path(sys.executable).parent / "xmodal-sweep"
            plan = [program, "plan", *_campaign(name, tier, store, out)]
            subprocess.run([str(word) for word in plan], check=True)
            budgets.append(budget(sweep, store))
            print(f"budget of {budgets[-1]['said']}", flush=True)
        write(
            f"reproduce-{arguments.tier}-budget",
            {"environment": environment(), "campaigns": budgets},
            arguments.results,
        )
        return
    jobs = arguments.jobs or (1 if _has_gpu() else len(os.sched_getaffinity(0)))
    threads = [] if _has_gpu() else ["--threads", 1]  # sums are the same on any number of cores
    for name in tier.campaigns:
        given = _campaign(name, tier, store, out)
        steps.run("train", "xmodal-sweep", "run", *given, "--jobs", jobs, *threads)
    runs = {run.folder: sweep.path(run) for sweep in sweeps for run in sweep.runs}
    real = real_store(arguments.data, out, steps) if tier.real else None
    others = [s for s in (real, heard(tier, arguments, out, steps)) if s is not None]
    for on in (store, *others):
        due = [
            [path, "--split", "test", "--store", on, *asked]
            for path in runs.values()
            for asked in unscored(path, on)
        ]
        for some in filter(None, (due[:1], due[1:])):  # what all share is made once, by the first
            steps.run_all("score", "xmodal-evaluate", some, 1 if _has_gpu() else jobs)
    looked_at = [paths[0] for arm, paths in arm_runs(sweeps[:1]).items() if arm in tier.analysed]
    drawn = importlib.util.find_spec("matplotlib") is not None
    if not drawn:
        print("without analyses: Matplotlib draws their pictures", file=sys.stderr)
    for analysis in tier.analyses if drawn else ():
        steps.run("analyse", "xmodal-analyze", analysis, *looked_at, "--out", out / "analyses")
    for analysis in tier.on_real if drawn and real is not None else ():
        beside = [w for floor in tier.asked_floors for w in ("--baseline", floor)]
        flags = ("--store", real, "--split", "test", "--out", out / "analyses-real", *beside)
        steps.run("analyse", "xmodal-analyze", analysis, *looked_at, *flags)
    for name in tier.campaigns:  # and the floors, which found() reads
        given = _campaign(name, tier, store, out)
        floors = [word for name in tier.floors for word in ("--floor", name)]
        print(steps.run("report", "xmodal-sweep", "report", *given, *floors)["page"])
    machine = {k: v for k, v in environment().items() if k in TOLD}
    result = found(sweeps, store, others, looked_at, tier, out)
    result["tier"]["soundfonts"] = [_without_folder(text) for text in arguments.soundfont]
    name, folder = f"reproduce-{arguments.tier}", arguments.results
    write(name, {"environment": machine, **result}, folder)
    _remember(out, steps.took)
    took = json.loads((out / "seconds.json").read_text(encoding="utf-8"))
    cost = {"environment": environment(), "steps": took, **costs(sweeps, store)}
    write(f"{name}-cost", cost, folder)


def built(tier: Tier, data: Path, out: Path, soundfonts: list[str], steps: Steps) -> Path:
    """The store to train on."""
    table, root = performances(data)
    if tier.audio == "files":
        return _build(["--corpus", "maestro", "--root", root], out, steps)
    own = write_table(table, root, tier, out / TABLE)
    sound = ["--audio", "rendered", *(x for font in soundfonts for x in ("--soundfont", font))]
    return _build(["--corpus", own, "--root", root, *sound], out, steps)


def performances(data: Path) -> tuple[Path, Path]:
    """The table in a folder of data, and the folder that its names are below."""
    table = next((data / name for name in PERFORMANCES if (data / name).is_file()), None)
    if table is None:
        raise SystemExit(f"{data} has none of {', '.join(PERFORMANCES)}")
    return table, data / "maestro" if (data / "maestro").is_dir() else data


def as_rendered(tier: Tier, out: Path) -> Tier:
    """The same tier on rendered sound: with copies of its campaigns that are for this corpus."""
    known, copies = known_campaigns(), []
    for name in tier.campaigns:
        text = known[name].read_text(encoding="utf-8")
        copy = out / "manifests" / f"{name}.toml"
        copy.parent.mkdir(parents=True, exist_ok=True)
        on_rendered = text.replace('corpus = "maestro"', 'corpus = "maestro-rendered"')
        copy.write_text(on_rendered, encoding="utf-8")
        copies.append(str(copy))
    return dataclasses.replace(tier, audio="rendered", campaigns=tuple(copies))


def has_recordings(data: Path) -> bool:
    """Whether any recording of the table is there."""
    table, root = performances(data)
    return any((root / r.audio_path).is_file() for r in load_table(table))


def heard(tier: Tier, arguments: argparse.Namespace, out: Path, steps: Steps) -> Path | None:
    """Where the test split has a SoundFont of its own: the same as training's SoundFont plays it."""
    others = [f for f in arguments.soundfont if not f.startswith("test=")]
    if tier.audio == "files" or len(others) == len(arguments.soundfont):
        return None
    return built(tier, arguments.data, out, others, steps)


def real_store(data: Path, out: Path, steps: Steps) -> Path | None:
    """The store of the recordings of a real piano, where they are there."""
    if not (data / "maps-metadata.csv").is_file() or importlib.util.find_spec("soundfile") is None:
        print("without recordings of a real piano", file=sys.stderr)
        return None
    table = write_real_table(data / "maps-metadata.csv", out / REAL)
    return _build(["--corpus", table, "--root", data], out, steps)


def _build(corpus: list[object], out: Path, steps: Steps) -> Path:
    """By processes of dask, or without it by parts that share the work."""
    given = ["build", *corpus, "--out", out / "features", "--descriptors", DESCRIPTORS]
    if importlib.util.find_spec("distributed") is None:
        cores = len(os.sched_getaffinity(0))
        program = str(Path(sys.executable).parent / "xmodal-features")
        others = [
            subprocess.Popen(
                [program, *map(str, given), "--part", f"{i}/{cores}", "--json"],
                stdout=subprocess.DEVNULL,
            )
            for i in range(2, cores + 1)
        ]
        try:
            done = steps.run("build", "xmodal-features", *given, "--part", f"1/{cores}")
        except BaseException:
            for other in others:
                other.terminate()
            raise
        finally:  # the same command may come at once, and must find no other builder
            for other in others:
                other.wait()
        return Path(done["store"])
    return Path(steps.run("build", "xmodal-features", *given)["store"])


def _without_folder(soundfont: str) -> str:
    """``test=/a/b.sf2`` → ``test=b.sf2``: where it lies says nothing."""
    split, equals, path = soundfont.rpartition("=")
    return f"{split}{equals}{Path(path).name}"


def _campaign(name: str, tier: Tier, store: Path, out: Path) -> list[object]:
    return [name, *(["--tiny"] if tier.tiny else []), "--store", store, "--out", out / "runs"]


def _sweep(name: str, tier: Tier, store: Path, out: Path) -> Sweep:
    return plan_campaign(read_campaign(name, tiny=tier.tiny), store, out / "runs")


def _has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None


def _remember(out: Path, took: dict[str, float]) -> None:
    """Seconds by step, of all pieces together."""
    if not out.is_dir():
        return
    file = out / "seconds.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    total = {k: round(before.get(k, 0.0) + took.get(k, 0.0), 1) for k in {**before, **took}}
    took.clear()
    write_json(file, dict(sorted(total.items())))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """A queue's signal is a Ctrl-C: children are stopped, and what was done is kept."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
