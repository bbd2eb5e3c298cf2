"""``xmodal-analyze`` and ``xmodal-compare``: flags, answers, the page as a browser has it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from browser import open_page
from typer.testing import CliRunner, Result

from pipeline.store import Store
from trainer.analyses import ANALYSES
from trainer.cli import train_app
from trainer.cli_analyses import analyze_app, compare_app

SMALL = (
    "--epochs",
    1,
    "--batches-per-epoch",
    2,
    "--batch-size",
    4,
    "--pool-size",
    8,
    "--size",
    "tiny",
)


APPS = {"xmodal-train": train_app, "xmodal-analyze": analyze_app, "xmodal-compare": compare_app}


def program(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = Path(sys.executable).parent / name
    return subprocess.run(
        [str(path), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def here(name: str, *arguments: object) -> Result:
    """The same within this process, which has imported everything already."""
    return CliRunner().invoke(APPS[name], list(map(str, arguments)))


def answer(name: str, *arguments: object) -> Any:
    done = here(name, *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def train(store: Store, out: Path, arm: str, seed: int = 42) -> Path:
    given = ("--arm", arm, "--seed", seed, "--store", store.path, "--out", out, *SMALL)
    return Path(answer("xmodal-train", *given)["run"])


@pytest.fixture(scope="module")
def runs(split_store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run with a descriptor and one without, barely trained."""
    out = tmp_path_factory.mktemp("runs")
    return [train(split_store, out, arm) for arm in ("d0", "a4r")]


def test_every_analysis_is_listed_with_its_variants() -> None:
    listed = {row["name"]: row["variants"] for row in answer("xmodal-analyze", "--list")}
    assert list(listed) == ANALYSES.names()
    assert set(listed) >= {
        "ablation", "matched", "transposition", "invariance", "similarity", "sensitivity", "probes",
        "maps", "attention", "cost",
    }  # fmt: skip
    assert all(set(v) == {"paper", "sound"} for n, v in listed.items() if n != "attention")


@pytest.mark.full
def test_one_analysis_leaves_numbers_and_a_picture(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = answer("xmodal-analyze", "ablation", runs[1], "--variant", "sound", "--out", out)
    (found,) = told["analyses"]
    written = json.loads((out / "ablation-sound.json").read_text())
    assert written == found
    assert (out / "ablation-sound.png").read_bytes()[:4] == b"\x89PNG"
    kept = json.loads((runs[1] / "analyses/validation/ablation-sound.json").read_text())
    assert kept["complete"]
    assert kept["conditions"] == found["findings"][0]["conditions"]
    picture = (out / "ablation-sound.png").read_bytes()
    answer("xmodal-analyze", "ablation", runs[1], "--variant", "sound", "--out", out)
    assert (out / "ablation-sound.png").read_bytes() == picture


@pytest.mark.full
def test_floors_stand_beside_the_runs(runs: list[Path], tmp_path: Path) -> None:
    floors = ("--baseline", "register", "--baseline", "flux", "--baseline", "register")
    told = answer("xmodal-analyze", "transposition", *runs, *floors, "--out", tmp_path)
    for outcome in told["analyses"]:
        labels = [finding["label"] for finding in outcome["findings"]]
        assert labels == ["d0", "a4r", "floor: register", "floor: flux"]
    assert (tmp_path / "transposition-paper.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.full
def test_a_run_that_cannot_be_asked_is_named(runs: list[Path], tmp_path: Path) -> None:
    done = here("xmodal-analyze", "ablation", runs[0], "--out", tmp_path)
    assert done.exit_code == 3
    assert "the arm d0 reads no descriptor" in done.stderr
    both = answer("xmodal-analyze", "ablation", *runs, "--variant", "paper", "--out", tmp_path)
    assert list(both["analyses"][0]["refused"]) == ["d0"]


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "name an analysis"),
        (("ablation",), 2, "at least one folder of a run"),
        (("ablate", "{run}"), 2, "did you mean 'ablation'"),
        (("ablation", "{nowhere}"), 3, "is not a run"),
        (("ablation", "{run}", "--store", "{nowhere}"), 3, "nowhere"),
        (("ablation", "{run}", "--split", "train"), 2, "train"),
        (("ablation", "{run}", "--baseline", "flux"), 2, "nothing to ask a floor"),
        (("invariance", "{run}", "--baseline", "flx"), 2, "did you mean 'flux'"),
        (("invariance", "{run}", "--baseline", ""), 2, "baseline"),
    ],
)
def test_a_users_error_is_one_line(
    runs: list[Path], tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    places = {"run": runs[1], "nowhere": tmp_path / "nowhere"}
    given = [a.format(**places) for a in arguments]
    done = here("xmodal-analyze", *given, "--out", tmp_path)
    assert done.exit_code == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_an_unfinished_run_is_refused(runs: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / runs[1].name
    copy.mkdir()
    record = json.loads((runs[1] / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    for name in ("xmodal-analyze", "xmodal-compare"):
        given = ("ablation", copy) if name == "xmodal-analyze" else (copy,)
        done = here(name, *given)
        assert done.exit_code == 3
        assert "is not finished" in done.stderr


@pytest.mark.full
def test_arms_are_compared_and_one_seed_states_nothing(runs: list[Path], tmp_path: Path) -> None:
    told = answer("xmodal-compare", *runs, "--baseline", "flux", "--out", tmp_path)
    assert set(told) == {"paper", "strict"}
    for protocol, comparisons in told.items():
        names = [(c["second"], c["first"]) for c in comparisons]
        assert names == [("a4r", "d0"), ("d0", "flux"), ("a4r", "flux")]
        assert not any(c["found"]["S"]["stated"] for c in comparisons)
        assert json.loads((tmp_path / f"differences-{protocol}.json").read_text()) == comparisons
        assert (tmp_path / f"differences-{protocol}.png").exists()
    alone = here("xmodal-compare", runs[0])
    assert alone.exit_code == 2
    assert "nothing to compare" in alone.stderr


@pytest.mark.full
def test_an_evaluation_of_other_weights_or_arrays_is_made_again(
    runs: list[Path], split_store: Store, tmp_path: Path
) -> None:
    first = answer("xmodal-compare", *runs, "--protocol", "strict")
    file = runs[0] / "evaluation/strict-validation.json"
    record = json.loads(file.read_text())
    for changed in ({"key": "another", "S": 0.123}, {"pool_hash": None}):
        file.write_text(
            json.dumps({k: v for k, v in {**record, **changed}.items() if v is not None})
        )
        assert answer("xmodal-compare", *runs, "--protocol", "strict") == first
        assert json.loads(file.read_text())["S"] == record["S"]
    moved = tmp_path / "renamed"
    shutil.copytree(split_store.path, moved)
    told = answer("xmodal-compare", *runs, "--protocol", "strict", "--store", moved)
    assert told["strict"][0]["found"] == first["strict"][0]["found"]


@pytest.mark.full
def test_all_analyses_make_one_page(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = answer("xmodal-analyze", "all", *runs, "--out", out)
    assert Path(told["page"]) == out / "index.html"
    text = (out / "index.html").read_text(encoding="utf-8")
    seen = open_page(out / "index.html", tmp_path)
    assert seen.console == []
    assert seen.requests == []
    for _, analysis in ANALYSES.items():
        assert analysis.title in seen.dom
        assert analysis.question in seen.dom
    for name in ("flux", "cqt", "chroma", "chroma-dtw", "a4", "register"):
        assert f"floor: {name}" in seen.dom
    pictures = re.findall(r'src="data:image/png;base64,[^"]{2000,}"', text)
    drawn = [a for a in told["analyses"] if a["findings"]]
    assert len(pictures) == len(drawn) + 2
    assert str(tmp_path) not in text
    again = answer("xmodal-analyze", "all", *runs, "--out", out)
    assert again["analyses"] == told["analyses"]
    assert (out / "index.html").read_text(encoding="utf-8") == text


@pytest.mark.full
def test_controls_are_trained_once_and_compared_on_the_same_queries(
    runs: list[Path], split_store: Store, tmp_path: Path
) -> None:
    run = train(split_store, tmp_path / "runs", "a4r")
    told = answer("xmodal-analyze", "matched", run, "--out", tmp_path, "--variant", "sound")
    (finding,) = told["analyses"][0]["findings"]
    assert list(finding["conditions"]) == ["real", "zero", "random", "shuffled"]
    names = sorted(p.name for p in (tmp_path / "runs").glob("a4r-*-*"))
    assert [n.split("-")[1] for n in names] == ["random", "shuffled", "zero"]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*/model.safetensors")}
    assert len(before) == 4
    weights = {p.read_bytes() for p in before}
    assert len(weights) == 4  # four trainings, four models
    answer("xmodal-analyze", "matched", run, "--out", tmp_path, "--variant", "sound")
    assert {p: p.stat().st_mtime_ns for p in before} == before
    zero = next((tmp_path / "runs").glob("a4r-zero-*"))
    config = json.loads((zero / "run.json").read_text())["config"]
    own = json.loads((run / "run.json").read_text())["config"]
    assert {k for k in own if own[k] != config[k]} == {"control"}


@pytest.mark.full
def test_a_stopped_analysis_goes_on(runs: list[Path], tmp_path: Path) -> None:
    """Stopped by a signal while conditions are measured; nothing that was measured is lost."""
    folder = runs[1] / "analyses/test"
    path = str(Path(sys.executable).parent / "xmodal-analyze")
    command = [path, "invariance", str(runs[1]), "--split", "test", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    file = folder / "invariance-paper.json"
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if file.exists() and len(json.loads(file.read_text())["conditions"]) >= 3:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    kept = json.loads(file.read_text())["conditions"]
    assert 3 <= len(kept) <= 18
    done = program(*("xmodal-analyze", *command[1:]))
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "invariance (paper)" in line]
    assert len(told) == 18 - len(kept)
    finished = json.loads(file.read_text())
    assert finished["complete"]
    assert {k: finished["conditions"][k] for k in kept} == kept
