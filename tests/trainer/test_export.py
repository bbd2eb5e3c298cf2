"""A run as a folder of files: whole, honest, loadable without anything else."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from pipeline.base.errors import RunError
from trainer.cli import export_app, train_app
from trainer.export import load_export
from trainer.run import open_run

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def run(split_store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    flags = ["--arm", "a4", "--store", split_store.path, "--out", out, "--size", "tiny"]
    flags += ["--epochs", 1, "--batches-per-epoch", 2, "--batch-size", 4, "--pool-size", 4]
    done = RUNNER.invoke(train_app, [*map(str, flags), "--json"])
    assert done.exit_code == 0, done.output
    (folder,) = out.glob("a4-*")
    return open_run(folder)


def export(*arguments):
    return RUNNER.invoke(export_app, [str(a) for a in arguments])


def test_the_folder_is_enough(run, tmp_path):
    out = tmp_path / "model"
    assert export(run.path, out).exit_code == 0
    moved = tmp_path / "elsewhere"
    shutil.move(out, moved)
    model, own = load_export(moved), run.load_model()
    for name, value in own.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert not model.training
    facts = json.loads((moved / "config.json").read_text())
    card = (moved / "README.md").read_text()
    assert facts["reads"]["A4"] in card
    assert run.record["best"]["step"] == facts["training"]["best"]["step"]
    for score in facts["scores"]:
        assert f"| {score['protocol']} | validation | {score['S']:.3f} |" in card
    assert facts["data"]["identity"][:12] in card


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
    with pytest.raises(RunError, match="not the one"):
        load_export(out)
    with pytest.raises(RunError, match="no exported model"):
        load_export(tmp_path)


def test_nothing_but_an_export_is_replaced(run, tmp_path):
    own = tmp_path / "mine"
    own.mkdir()
    (own / "precious").touch()
    done = export(run.path, own, "--overwrite")
    assert done.exit_code == 3
    assert "no exported model" in done.output
    assert (own / "precious").exists()
