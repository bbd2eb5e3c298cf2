"""What ``pip install xmodal`` and its extras bring is enough: nothing of ``dev`` is leant on.

The requirements are followed from pyproject.toml through the metadata of what is installed. Commands
then run in processes to which every other package does not exist, and which reach no network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from makers import (
    Spec,
    build_quietly,
    corpus_of,
    make_audio,
    make_corpus,
    make_notes,
    write_midi,
)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from pipeline.store import Store
from trainer.cli import export_app, train_app
from trainer.retrieval.baselines import BASELINES

ROOT = Path(__file__).parent.parent

# Python imports this file at its start, in worker processes too.
SITECUSTOMIZE = """
import json, os, socket, sys

absent = frozenset(json.loads(os.environ["ABSENT"]))

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            return None
        return self.finder.find_spec(name, path, target)

def no_network(event, arguments):
    if event != "socket.connect" or arguments[0].type != socket.SOCK_STREAM:
        return
    address = arguments[1]
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print("NETWORK", address, file=sys.stderr, flush=True)
        os._exit(99)

sys.meta_path[:] = [Without(f) if hasattr(f, "find_spec") else f for f in sys.meta_path]
sys.addaudithook(no_network)
"""


def own_requirements(extra: str) -> list[str]:
    """Of this project, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["optional-dependencies"][extra] if extra else project["dependencies"]


def closure(extra: str) -> set[str]:
    """Canonical names of everything that ``pip install xmodal[extra]`` brings here."""
    found: set[tuple[str, str]] = set()
    open_ = [("xmodal", ""), ("xmodal", extra)]
    while open_:
        name, wanted = open_.pop()
        if (name, wanted) in found:
            continue
        found.add((name, wanted))
        own = name == "xmodal"
        listed = own_requirements(wanted) if own else metadata.requires(name) or []
        for requirement in map(Requirement, listed):
            if requirement.marker is None or requirement.marker.evaluate({"extra": wanted}):
                each = canonicalize_name(requirement.name)
                open_ += [(each, e) for e in ("", *requirement.extras)]
    return {name for name, _ in found}


def absent(extra: str) -> list[str]:
    """Top-level modules that are installed here and would not be."""
    there = closure(extra)
    return sorted(
        module
        for module, owners in metadata.packages_distributions().items()
        if not there & set(map(canonicalize_name, owners))
    )


@pytest.fixture
def run(tmp_path: Path):
    """``run(extra, code, *arguments)``: in such a process."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(SITECUSTOMIZE)

    def go(extra: str, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}",
            "ABSENT": json.dumps(absent(extra)),
        }
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True, text=True, env=env, cwd=tmp_path, check=False,
        )  # fmt: skip

    return go


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


FEATURES = "from pipeline.cli import main; main()"
TRAIN = "from trainer.cli import train_main; train_main()"
EVALUATE = "from trainer.cli import evaluate_main; evaluate_main()"
ANALYZE = "from trainer.cli_analyses import analyze_main; analyze_main()"
SEARCH = "from trainer.cli_search import main; main()"
COMPARE = "from trainer.cli_analyses import compare_main; compare_main()"
SMALL = ("--size", "tiny", "--epochs", 1, "--batches-per-epoch", 2, "--batch-size", 4,
         "--pool-size", 8)  # fmt: skip


def test_what_is_absent_does_not_exist_and_no_connection_is_made(run) -> None:
    assert {"pytest", "librosa", "matplotlib", "numba"} <= set(absent(""))
    assert {"pytest", "matplotlib", "music21"} <= set(absent("features"))
    assert "music21" not in absent("demo")
    code = "import importlib.util as u; print(u.find_spec('pytest'), u.find_spec('numpy'))"
    found = ok(run("", code))
    assert found.startswith("None ModuleSpec(name='numpy'")
    assert "ModuleNotFoundError" in run("demo", "import hypothesis").stderr
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    assert run("demo", code).returncode == 99


EMBED = """
import sys
import numpy as np
import xmodal
from pipeline.base.errors import MissingExtra
from pipeline.descriptors import DESCRIPTORS
from trainer.search.queries import read_notes

midi, out, folder = sys.argv[1:]
query = read_notes(midi)
(window,) = query.windows([2.0])
found = {n: d.extract(window) for n, d in DESCRIPTORS.items() if d.side == "midi"}
found |= {"onset": query.performance.onset_s, "end": query.performance.end_s}
model = xmodal.load_model(folder)
found["embeddings"] = xmodal.embed_midi(model, midi)
np.savez(out, **found)
print("numba" in sys.modules)
try:
    xmodal.embed_audio(model, np.sin(np.arange(100_000)))
except MissingExtra as error:
    print(error)
"""


def test_the_base_embeds_midi_with_an_exported_model_without_a_store(
    run, split_store: Store, own_corpus: Path, tmp_path: Path
) -> None:
    small = map(str, SMALL[:-1])
    store = shutil.copytree(split_store.path, tmp_path / "store")
    flags = ["--arm", "d4-a4r", "--store", store, "--out", tmp_path, *small, 4, "--json"]
    done = CliRunner().invoke(train_app, [str(f) for f in flags])
    assert done.exit_code == 0, done.output
    folder, exported = json.loads(done.stdout)["run"], tmp_path / "model"
    assert CliRunner().invoke(export_app, [folder, str(exported)]).exit_code == 0
    midi = sorted(own_corpus.parent.rglob("*.midi"))[0]
    shutil.rmtree(folder)
    shutil.rmtree(store)
    said = ok(run("", EMBED, midi, tmp_path / "base.npz", exported)).splitlines()
    assert said[0] == "False"
    assert "pip install 'xmodal[features]'" in said[1]
    assert ok(run("features", EMBED, midi, tmp_path / "full.npz", exported)) == "True\n"
    with np.load(tmp_path / "base.npz") as base, np.load(tmp_path / "full.npz") as wanted:
        assert set(base) == set(wanted) >= {"embeddings", "D1", "D2", "D3", "D4", "D4s", "D5"}
        for name in wanted:
            np.testing.assert_allclose(base[name], wanted[name], 0, 1e-5, err_msg=name)
        assert len(base["embeddings"]) > 2


@pytest.mark.full
def test_the_base_indexes_and_finds_midi_with_an_exported_model(
    run, split_store: Store, tmp_path: Path
) -> None:
    flags = ["--arm", "d0", "--store", split_store.path, "--out", tmp_path, *SMALL[:-1], 4]
    done = CliRunner().invoke(train_app, [*map(str, flags), "--json"])
    assert done.exit_code == 0, done.output
    exported, index = tmp_path / "model", tmp_path / "index"
    folder = json.loads(done.stdout)["run"]
    assert CliRunner().invoke(export_app, [folder, str(exported)]).exit_code == 0
    shutil.rmtree(folder)
    made = ok(
        run("", SEARCH, "index", split_store.path, "--run", exported, "--out", index, "--json")
    )
    assert json.loads(made)["rows"] == len(split_store.segments)
    notes = make_notes(12.0, 0)
    write_midi(tmp_path / "query.mid", notes)
    soundfile.write(tmp_path / "query.wav", make_audio(notes, 12.0, 24_000, 1, 0), 24_000)
    shutil.rmtree(exported)  # the index has its own
    asked = ("query", tmp_path / "query.mid", "--index", index, "--json")
    found, full = (
        json.loads(ok(run(extra, SEARCH, *asked)))["matches"] for extra in ("", "search")
    )
    assert [m["recording"] for m in found] == [m["recording"] for m in full]
    assert [m["score"] for m in found] == pytest.approx([m["score"] for m in full], abs=0.02)
    assert 1 <= len(found) <= 5  # four updates find little: what agrees nowhere is left out
    lost = run("", SEARCH, "query", tmp_path / "query.wav", "--index", index)
    assert (lost.returncode, len(lost.stderr.splitlines())) == (1, 1), lost.stderr
    assert "pip install 'xmodal[features]'" in lost.stderr
    wanted = ("index", split_store.path, "--baseline", "chroma", "--approximate")
    lost = run("features", SEARCH, *wanted, "--out", tmp_path / "other")
    assert lost.returncode == 1
    assert "pip install 'xmodal[search]'" in lost.stderr.splitlines()[-1]
    assert not any((tmp_path / "other").iterdir())  # said before anything is embedded


@pytest.mark.full
def test_the_base_trains_and_scores_a_store(run, tmp_path: Path) -> None:
    specs = tuple(
        Spec(f"{split}-{i}", seconds=24.0, split=split, title=f"{split}, BWV {n}{i}")
        for n, split in enumerate(("train", "validation"), 1)
        for i in range(2)
    )
    store = build_quietly(corpus_of(make_corpus(tmp_path / "corpus", specs)), tmp_path / "s").store
    code = "import sys, xmodal; print(len(xmodal.open_store(sys.argv[1]).segments))"
    assert ok(run("", code, store.path)) == f"{len(store.segments)}\n"
    assert "--descriptor" in ok(run("", TRAIN, "--help"))
    for command in ("info", "verify", "stage"):
        target = [tmp_path / "local"] if command == "stage" else []
        ok(run("", FEATURES, command, store.path, *target))
    ok(run("", FEATURES, "list"))
    given = ("--descriptor", "A4", "--mechanism", "reverse_xattn", "--store", store.path)
    told = json.loads(ok(run("", TRAIN, *given, "--out", tmp_path, *SMALL, "--json")))
    assert [s["protocol"] for s in told["scores"]] == ["paper", "strict"]
    assert "scores" in json.loads(ok(run("", EVALUATE, told["run"], "--pool-size", 8, "--json")))


@pytest.mark.full
def test_what_needs_an_extra_names_it_in_one_line(run, own_corpus: Path, tmp_path: Path) -> None:
    build = ("build", "--corpus", own_corpus, "--out", tmp_path / "out", "--workers", 0)
    done = run("", FEATURES, *build)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "pip install 'xmodal[features]'" in done.stderr
    demo = ("build", "--corpus", "demo", "--out", tmp_path / "out", "--workers", 0)
    done = run("features", FEATURES, *demo)
    assert done.returncode == 1
    assert "pip install 'xmodal[demo]'" in done.stderr.splitlines()[-1]


@pytest.mark.full
def test_the_extra_features_builds_checks_and_reports(
    run, own_corpus: Path, tiny_store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build = ("build", "--corpus", own_corpus, "--out", out, "--descriptors", "all", "--workers", 2)
    ok(run("features", FEATURES, *build))
    store = out / tiny_store.path.name
    ok(run("features", FEATURES, "report", store))
    check = ("check-corpus", "--corpus", own_corpus, "--level", "full")
    ok(run("features", FEATURES, *check, "--write-manifest", tmp_path / "sums.csv"))
    ok(run("features", FEATURES, "make-csv", own_corpus.parent, "--out", tmp_path / "t.csv"))
    ok(run("features", FEATURES, "compositions", "--corpus", own_corpus))
    scored = ("--baseline", "flux", "--protocol", "paper", "--store", store, "--pool-size", 4)
    ok(run("features", EVALUATE, *scored))


@pytest.mark.full
def test_the_extra_analysis_analyses_and_the_base_says_what_is_missing(run, tmp_path: Path) -> None:
    specs = tuple(
        Spec(f"{split}-{i}", seconds=24.0, split=split, title=f"{split}, BWV {n}{i}")
        for n, split in enumerate(("train", "validation"), 1)
        for i in range(2)
    )
    store = build_quietly(corpus_of(make_corpus(tmp_path / "corpus", specs)), tmp_path / "s").store
    given = ("--arm", "a4r", "--store", store.path, "--out", tmp_path, *SMALL)
    found = json.loads(ok(run("features", TRAIN, *given, "--json")))
    assert list(found["floors"]) == BASELINES.names()
    folder = found["run"]
    out = ("--out", tmp_path / "out")
    done = run("features", ANALYZE, "cost", folder, *out)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "pip install 'xmodal[analysis]'" in done.stderr
    ok(run("analysis", ANALYZE, "all", folder, *out))
    assert (tmp_path / "out/index.html").exists()
    assert json.loads(ok(run("", COMPARE, folder, "--baseline", "flux", "--json")))


@pytest.mark.full
def test_the_extra_demo_makes_a_corpus(run, tmp_path: Path) -> None:
    code = (
        "import dataclasses, pathlib, sys\n"
        "from pipeline.corpora.demo import make_demo\n"
        "from pipeline.corpora.demo_table import RECORDINGS\n"
        "def short(r):\n"
        "    score = dataclasses.replace(r.score, spans=((0.0, 24.0),))\n"
        "    return dataclasses.replace(r, score=score)\n"
        "wanted = [r for r in RECORDINGS if r.key in ('mozart-545-brisk', 'mozart-545-singing')]\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "print(make_demo(folder, workers=0, recordings=tuple(map(short, wanted))))\n"
    )
    table = ok(run("demo", code, tmp_path / "demo")).strip()
    build = ("build", "--corpus", table, "--out", tmp_path / "out", "--workers", 0)
    ok(run("demo", FEATURES, *build))
