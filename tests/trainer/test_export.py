"""A run as a folder of files: whole, honest, loadable without anything else, and used like a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pipeline.base.errors import RunError
from pipeline.store import Store
from trainer.analyses.bench import Bench
from trainer.analyses.comparison import grouped
from trainer.analyses.errors import AnalysisError
from trainer.analyses.matched import control_plan
from trainer.cli import evaluate_app, export_app, train_app
from trainer.cli_analyses import analyze_app, compare_app
from trainer.config import Choice
from trainer.run import open_run

RUNNER = CliRunner()


SCORES = ("S", "a2m", "m2a", "protocol", "queries", "pool_hash")


def call(app, *arguments):
    return RUNNER.invoke(app, [str(a) for a in arguments])


def result(app, *arguments):
    """What a command says with --json."""
    done = call(app, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def trained(store, out, *flags):
    given = ["--store", store.path, "--out", out, "--size", "tiny", "--epochs", 1]
    given += ["--batches-per-epoch", 2, "--batch-size", 4, "--pool-size", 4]
    return open_run(Path(result(train_app, *given, *flags)["run"]))


@pytest.fixture(scope="module")
def run(split_store, tmp_path_factory):
    return trained(split_store, tmp_path_factory.mktemp("runs"), "--arm", "a4")


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    """An exported model; nothing is changed but its evaluations."""
    out = tmp_path_factory.mktemp("models") / "mine"
    export(run.path, out)
    return open_run(out)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No folder data/features here."""
    monkeypatch.chdir(tmp_path)


def export(*arguments):
    return call(export_app, *arguments)


def test_the_folder_is_enough(run, tmp_path):
    out = tmp_path / "model"
    assert export(run.path, out).exit_code == 0
    moved = tmp_path / "elsewhere"
    shutil.move(out, moved)
    model, own = open_run(moved).load_model(), run.load_model()
    for name, value in own.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert not model.training
    facts = json.loads((moved / "config.json").read_text())
    card = (moved / "README.md").read_text()
    assert facts["reads"]["A4"] in card
    assert run.record["best"]["step"] == facts["best"]["step"]
    for score in facts["scores"]:
        assert f"| {score['protocol']} | validation | {score['S']:.3f} |" in card
    assert facts["data"]["identity"][:12] in card
    for file in moved.iterdir():
        assert str(run.path.parent).encode() not in file.read_bytes()
        assert str(run.store_path).encode() not in file.read_bytes()


def test_what_must_not_be_exported_is_refused(run, tmp_path):
    out = tmp_path / "model"
    export(run.path, out)
    again = export(run.path, out)
    assert again.exit_code == 3
    assert "--overwrite" in again.output
    assert export(run.path, out, "--overwrite").exit_code == 0
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert export(copy, tmp_path / "other").exit_code == 3
    assert not (tmp_path / "other").exists()
    (out / "model.safetensors").write_bytes(weights)
    with pytest.raises(RunError, match="not the one that was exported; export it again"):
        open_run(out).load_model()
    (out / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"has no model\.safetensors; export it again"):
        open_run(out).load_model()
    done = export(out, tmp_path / "again")
    assert done.exit_code == 3
    assert "is an exported model already: copy the folder" in done.output


def test_nothing_but_an_export_is_replaced(run, tmp_path):
    own = tmp_path / "mine"
    own.mkdir()
    (own / "precious").touch()
    done = export(run.path, own, "--overwrite")
    assert done.exit_code == 3
    assert "no exported model" in done.output
    assert (own / "precious").exists()


def test_an_exported_model_scores_as_its_run_does(run, model, split_store, alone):
    own = result(evaluate_app, run.path, "--split", "test")["scores"]
    found = result(evaluate_app, model.path, "--split", "test", "--store", split_store.path)[
        "scores"
    ]
    assert [{k: s[k] for k in SCORES} for s in found] == [{k: s[k] for k in SCORES} for s in own]
    assert {s["run"] for s in found} == {"mine"}
    # Its store is known for what it is, so the scores lie where those of a run lie.
    assert (model.path / "evaluation/strict-test.json").is_file()
    assert open_run(model.path).whole


def test_without_a_store_it_says_so_and_one_that_is_there_is_used(
    run, model, split_store, tmp_path, alone
):
    told = f"does not know where its store {split_store.name} is"
    for app, before in ((evaluate_app, ()), (compare_app, ()), (analyze_app, ("ablation",))):
        done = call(app, *before, model.path)
        assert done.exit_code == 3
        assert told in done.output
        assert "--store DIR" in done.output
        assert len(done.output.splitlines()) == 1
    features = tmp_path / "data/features"
    features.mkdir(parents=True)
    (features / "damaged").mkdir()
    (features / "damaged/store.json").write_text("{}")
    (features / "copy").symlink_to(split_store.path)
    done = call(evaluate_app, model.path)
    assert done.exit_code == 0, done.output
    assert "store: data/features/copy (the one that" in done.output


def test_it_is_compared_and_analysed(run, model, split_store, tmp_path, alone):
    given = ("--store", split_store.path, "--split", "test")
    found = result(compare_app, model.path, "--baseline", "chroma", "--protocol", "strict", *given)
    assert found["strict"][0]["second"] == "a4"
    result(analyze_app, "ablation", model.path, "--out", tmp_path / "out", *given)
    assert (model.path / "analyses/test/ablation-sound.json").is_file()


def test_its_controls_are_trained_on_the_store_that_is_given(
    run, model, split_store, tmp_path, alone
):
    zero = Choice(name="zero", options={})
    plans = [control_plan(Bench(r, split_store, "test"), zero) for r in (run, model)]
    assert plans[0].signature == plans[1].signature
    assert plans[1].folder.parent == model.path.parent
    shutil.copytree(split_store.path, tmp_path / "other")
    other = Store.open(tmp_path / "other")
    other.identity = "another"
    with pytest.raises(AnalysisError, match="does not know where its store"):
        control_plan(Bench(model, other, "test"), zero)


def test_runs_start_from_it_and_groups_know_what_they_started_from(
    run, model, split_store, tmp_path
):
    first = trained(split_store, tmp_path / "a", "--arm", "a4r", "--init", run.path)
    again = trained(split_store, tmp_path / "b", "--arm", "a4r", "--init", model.path)
    assert again.path.name == first.path.name
    for name, value in first.load_model().state_dict().items():
        assert torch.equal(again.load_model().state_dict()[name], value), name
    export(first.path, tmp_path / "model")
    exported = open_run(tmp_path / "model")
    assert exported.record["init"] == run.path.name
    other = trained(split_store, tmp_path / "a", "--arm", "a4r", "--init", run.path, "--seed", 1)
    scratch = trained(split_store, tmp_path / "a", "--arm", "a4r")
    assert [len(g) for g in grouped([exported, again, other, scratch]).values()] == [3, 1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "is not that of an exported model"),
        ('["BertModel"]', "is not that of an exported model"),
        ('{"model_type": "bert"}', "is not that of an exported model"),
        ("{", "does not read"),
        ('{"kind": "xmodal-model", "schema": 2}', "schema 2, not 1"),
        ('{"kind": "xmodal-model"}', "KeyError: 'schema'"),
    ],
)  # fmt: skip
def test_what_is_no_export_is_told_in_one_line(text, problem, tmp_path):
    (tmp_path / "config.json").write_text(text)
    done = call(evaluate_app, tmp_path)
    assert done.exit_code == 3
    assert problem in done.output
    assert len(done.output.splitlines()) == 1


def test_every_part_of_the_record_is_missed(model, tmp_path):
    facts = json.loads((model.path / "config.json").read_text())
    needed = (
        "config signature status arm store reads model_sha256 parameters init beginning".split()
    )
    for key in needed:
        rest = {k: v for k, v in facts.items() if k != key}
        (tmp_path / "config.json").write_text(json.dumps(rest))
        with pytest.raises(RunError, match=f"KeyError: '{key}'"):
            open_run(tmp_path)
