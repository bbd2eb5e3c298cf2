"""Descriptors of other packages: the example of docs/descriptors.md, and one that is broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from makers import features

from pipeline.descriptors import DESCRIPTORS
from pipeline.store import Store

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docs/examples/xmodal-flatness"


def environment(site: Path) -> dict[str, str]:
    """Subprocesses see the packages in ``site`` and this checkout."""
    path = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}


def pretend_installed(site: Path, module: str, source: str) -> None:
    """A module in ``site`` with the metadata of an installed package."""
    site.mkdir()
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[xmodal.descriptors]\nmine = {module}\n")


BROKEN = {
    "cannot be imported": ("import no_such_module", "ModuleNotFoundError"),
    "takes a name": (
        "from pipeline.descriptors import register\n"
        "from pipeline.descriptors.a4 import A4\n"
        "register(type('Mine', (A4,), {}))\n",
        "descriptor 'A4' is registered twice",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    source, said = BROKEN[name]
    pretend_installed(tmp_path / "site", "xmodal_broken", source)
    found = features("list", "--json", env=environment(tmp_path / "site"))
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
    message = json.loads(found.stdout)["error"]["message"]
    assert said in message
    assert "xmodal_broken" in message


@pytest.mark.full
def test_the_example_package_is_installed_listed_and_built(own_store: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "source")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(site), str(tmp_path / "source")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    env = environment(site)

    listed = json.loads(features("list", "--json", env=env).stdout)
    assert [d["name"] for d in listed] == [*DESCRIPTORS.names(), "flatness"]
    assert listed[-1]["cost_ms"] is None
    assert " - ms " in features("list", env=env).stdout.splitlines()[-1]

    added = features(
        "add", own_store, "--descriptors", "flatness", "--workers", 2, "--json", env=env
    )
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["built"] == ["flatness"]
    store = Store.open(own_store)
    values = store.read("flatness")
    assert values.shape == (len(store.segments), 188, 1)
    assert 0 < np.median(values) < 0.6
    # without the package the store is as readable as before
    assert features("verify", own_store).returncode == 0

    train = "from trainer.cli import train_main; train_main()"
    choices = subprocess.run(
        [sys.executable, "-c", train, "--list", "descriptors", "--json"],
        capture_output=True, text=True, env=env, check=True,
    )  # fmt: skip
    assert "flatness" in [d["name"] for d in json.loads(choices.stdout)]
