"""The documents say what is true: their code runs, their tables are the committed results."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from pipeline.corpora.resolve import CorpusRequest, resolve_corpus
from pipeline.plan import fingerprint_inputs, identity_of
from pipeline.store.schema import Segmentation
from trainer.cli_sweep import sweep_app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_tables_are_what_the_committed_results_say() -> None:
    pytest.importorskip("benchmarks.tables")
    from benchmarks.tables import PAGES, filled

    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert filled(text) == text, f"{page}: run: python -m benchmarks.tables"


def test_every_file_of_the_tree_says_what_it_is() -> None:
    pytest.importorskip("benchmarks.tables")
    from benchmarks.tables import tree

    _, _, *rows = (row.strip("| ").split(" |") for row in tree().splitlines())
    assert len(rows) > 100
    blank = [row[0] for row in rows if len(row) < 2 or not row[1].strip()]
    assert blank == []


def test_every_interval_in_the_documents_says_what_was_drawn_for_it() -> None:
    """In a column, or in the line below the table."""
    text = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    tables = re.findall(r"((?:^\|.*\n)+)\n?(.*)", text, re.MULTILINE)
    found = [(table.splitlines()[0].split(" | "), below) for table, below in tables]
    with_intervals = [(head, below) for head, below in found if "from" in head]
    assert len(with_intervals) > 5
    for head, below in with_intervals:
        assert "drawn |" in head[-1] or "drawn" in head or below.startswith("Intervals: "), head
    scores = README.partition("<!-- scores -->")[2].partition("<!-- /scores -->")[0]
    assert scores.count("* Floors: 10-s blocks drawn anew.") == 2  # of eight and eleven recordings


def test_what_the_speed_tables_rest_on_is_measured_by_make_bench() -> None:
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nbench:")[2].splitlines()
    measured = set(next(line for line in lines if "for name in" in line).split())
    cited = set(re.findall(r"`benchmarks\.([a-z]+)", README))
    assert cited >= {"features", "retrieval"}
    assert cited <= measured


def test_the_page_of_descriptors_has_every_one_and_the_example_as_it_is() -> None:
    from pipeline.descriptors import DESCRIPTORS

    page = (ROOT / "docs/descriptors.md").read_text(encoding="utf-8")
    for name, descriptor in DESCRIPTORS.items():
        (line,) = [row for row in page.splitlines() if row.startswith(f"| [`{name}`](")]
        assert descriptor.summary in line
        assert descriptor.shape() in line
    for path in re.findall(r"\]\(\.\./([^)#]+)[)#]", page):
        assert (ROOT / path).is_file(), path
    folder = ROOT / "docs/examples/xmodal-flatness"
    for language, file in (("toml", "pyproject.toml"), ("python", "xmodal_flatness.py")):
        assert blocks(page, language) == [(folder / file).read_text(encoding="utf-8")]


def test_every_tracked_module_has_its_line_in_the_readme() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "pipeline/**.py", "trainer/**.py"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    ).stdout.split()  # fmt: skip
    assert [name for name in listed if f"`{name}`" not in README] == []


def test_the_pictures_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).stat().st_size > 10_000


def test_the_examples_for_contributors_run_and_appear_everywhere() -> None:
    descriptor, mechanism = blocks(CONTRIBUTING, "python")
    script = (
        f"{descriptor}\n{mechanism}\n"
        "import json, torch\n"
        "from pipeline.spectral import Spectrum\n"
        "from pipeline.descriptors import DESCRIPTORS\n"
        "from trainer.resolve import with_pairs\n"
        "from trainer.commands import LISTINGS\n"
        "from trainer.model import build_model\n"
        "from trainer.presets import preset_config\n"
        "t = np.arange(96_000) / 24_000\n"
        "tone = Spectrum(np.sin(2 * np.pi * 1500 * t).astype(np.float32))\n"
        "value = DESCRIPTORS.get('centroid').extract(tone)\n"
        "pairs = [('centroid', 'gate')]\n"
        "model = build_model(with_pairs(preset_config('sound', 'tiny'), pairs), 'meta')\n"
        "print(json.dumps([value.shape, float(value.mean()), model.reads(),\n"
        "    [d['name'] for d in LISTINGS['descriptors']()[0]],\n"
        "    [m['name'] for m in LISTINGS['mechanisms']()[0]]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    shape, mean, reads, descriptors, mechanisms = json.loads(done.stdout)
    assert shape == [188, 1]
    assert mean == pytest.approx(1.5, abs=0.05)
    assert "centroid" in reads
    assert "centroid" in descriptors
    assert "gate" in mechanisms


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_readmes_commands_give_a_score_on_unseen_compositions(tmp_path: Path) -> None:
    """A clone of what is committed or staged, the commands as printed, in the order of the page."""
    clone = tmp_path / "xmodal"
    files = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split("\0")
    for name in filter(None, files):
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    # The environment is the one that runs this test; everything else is the clone's own.
    (clone / ".venv").mkdir()
    (clone / ".venv/bin").symlink_to(Path(sys.prefix) / "bin")
    (clone / ".venv/.ready-demo").touch()
    commands = "\n".join(blocks(README, "sh"))
    # As a user's shell has it: the suite's own limits (one thread, make's flags) do not count.
    own = ("OMP_NUM_THREADS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {k: v for k, v in os.environ.items() if k not in own}
    environment["PYTHONPATH"] = str(clone)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = clone.glob("runs/a4r-*")
    for protocol in ("paper", "strict"):
        score = json.loads((run / f"evaluation/{protocol}-test.json").read_text())
        assert score["S"] >= 0.40, score
        assert score["chance"]["R@10"] < 0.05
    assert "floor: flux" in done.stdout
    # What the page shows of the search is what came: the places, and both performances of the piece.
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (shown,) = [text for language, text in fenced if not language and "*  1." in text]
    printed = done.stdout[done.stdout.index(shown.splitlines()[0]) :]
    # Numbers may round otherwise on another machine.
    number = re.compile(r"\d+(?:\.\d+)?")
    for expected, found in zip(shown.splitlines()[:5], printed.splitlines(), strict=False):
        assert number.sub("#", found) == number.sub("#", expected)
        values = [[float(n) for n in number.findall(line)] for line in (found, expected)]
        np.testing.assert_allclose(*values, rtol=0.02, atol=0.2)
    assert (clone / "found.html").stat().st_size > 1_000_000
    again = subprocess.run(
        ["make", "features"], cwd=clone, capture_output=True, text=True, check=True,
        env=environment,
    )  # fmt: skip
    assert "nothing to do" in again.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/campaigns.md"])
def test_commands_that_take_long_or_need_a_queue_have_the_flags_that_there_are(page: str) -> None:
    """Blocks marked ``bash`` are not run by the test above, which runs those marked ``sh``."""
    found = blocks((ROOT / page).read_text(encoding="utf-8"), "bash")
    lines = [shlex.split(line, comments=True) for block in found for line in block.splitlines()]
    asked = [line for line in lines if line and line[0] == "xmodal-sweep"]
    assert {"run", "submit", "status", "report"} <= {words[1] for words in asked}
    known = get_command(sweep_app).commands
    for _, name, *words in asked:
        known[name].make_context(name, list(words))  # an unknown flag or a missing word raises


def test_the_array_script_asks_for_its_memory_and_sets_no_shell_options() -> None:
    """``--mem=0`` is a whole node; ``set -u`` and ``pipefail`` end in what a system's profile does."""
    script = (ROOT / "docs/examples/build-array.sbatch").read_text(encoding="utf-8")
    assert re.findall(r"^#SBATCH --mem=(.*)$", script, re.MULTILINE) == ["2G"]
    assert not re.search(r"^\s*(set|shopt) ", script, re.MULTILINE)


@pytest.mark.full
def test_the_scores_are_of_the_store_that_this_code_builds(real_data: Path) -> None:
    """A reader or a rule that changes what is stored makes the committed scores history."""
    result = json.loads((ROOT / "benchmarks/results/scores-maps.json").read_text())
    request = CorpusRequest(root=None, cache=real_data, workers=0)
    corpus = resolve_corpus(str(real_data / "maps-metadata.csv"), request)
    segmentation = Segmentation()
    inputs = fingerprint_inputs(corpus.recordings, corpus.root, segmentation=segmentation)
    assert identity_of(corpus.recordings, inputs, segmentation) == result["identity"]
    assert {arm: len(runs) for arm, runs in result["arms"].items()} == {"d0": 3, "a4r": 3}
    for summary in result["summary"].values():
        assert summary["paper"]["S"]["low"] >= 0.65


def test_search_finds_every_real_recording_and_its_moments() -> None:
    """The promises of the search, held by the committed results."""
    found = json.loads((ROOT / "benchmarks/results/search-maps.json").read_text())
    for way in ("flux", "d0"):
        for side in ("midi", "audio"):
            assert found[way]["whole"][side]["queries"] == found["recordings"] == 48
            assert found[way]["whole"][side]["tied"] == 1.0
        for absent in found[way]["absent"].values():
            assert absent["queries"] > 200
    assert all(placed >= 0.95 for placed in found["better"].values())


def test_the_sizes_of_a_store_are_the_measured_ones() -> None:
    text = (ROOT / "docs/known-issues.md").read_text(encoding="utf-8")
    (line,) = [row for row in text.splitlines() if row.startswith("| T8 |")]
    results = ROOT / "benchmarks/results"
    usual = json.loads((results / "scale.json").read_text())["store"]["paper_scale"]
    every = json.loads((results / "memory.json").read_text())["job"]["bytes_of_arrays"]
    assert f"{usual / 1e9:.1f} GB" in line
    assert f"{every / 1e9:.0f} GB" in line


def test_every_known_issue_is_answered_by_something_that_exists() -> None:
    """Lost runs, tool defects and numbers that misled; every test that is named is there."""
    text = (ROOT / "docs" / "known-issues.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ((?:[LTV]\d+(?:, )?)+) \|", text, re.MULTILINE)
    ids = [i for cell in listed for i in cell.split(", ")]
    expected = {"L": 25, "T": 22, "V": 24}
    assert ids == [f"{kind}{n}" for kind, last in expected.items() for n in range(1, last + 1)]
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in source, (file, name)
