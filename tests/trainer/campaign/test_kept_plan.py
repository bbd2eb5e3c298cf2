"""A plan is kept and read again, made anew when a run would be another one, and outlives its store."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.files import read_json, write_json
from pipeline.store import Store, find_newest
from pipeline.store.schema import seal
from trainer import presets
from trainer.campaign import plan as module
from trainer.campaign.manifest import Campaign, read_campaign
from trainer.campaign.plan import choose_store, code_version, kept_plan, plan_campaign, read_plan
from trainer.campaign.sweep import Sweep
from trainer.config import RunConfig

HEAD = """
title = "Some runs"
corpus = "tiny"
size = "tiny"
"""
BASE = '[[runs]]\nname = "base"\narms = ["d0"]\n'
ARMS = '[[runs]]\nname = "arms"\nfrom = "base"\narms = ["a4r", "d4a4"]\n'
Make = Callable[..., Sweep]


def written(folder: Path, body: str) -> Campaign:
    file = folder / "own.toml"
    file.write_text(HEAD + body, encoding="utf-8")
    return read_campaign(str(file))


@pytest.fixture
def make(split_store: Store, tmp_path: Path) -> Make:
    """Plan a manifest of these groups, in a folder of runs of the test's own."""

    def made(body: str = BASE + ARMS, *, store: Path | None = None) -> Sweep:
        return plan_campaign(written(tmp_path, body), store or split_store.path, tmp_path / "runs")

    return made


@pytest.fixture
def copied(split_store: Store, tmp_path: Path) -> Path:
    """The folder of a copy of the store that a test may change."""
    target = tmp_path / "features" / split_store.path.name
    return Path(shutil.copytree(split_store.path, target))


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever a campaign is planned, not read."""
    found: list[str] = []
    real = module.expanded

    def counted(campaign: Campaign, store: Store, out: Path) -> Any:
        found.append(campaign.name)
        return real(campaign, store, out)

    monkeypatch.setattr(module, "expanded", counted)
    return found


def change(store: Path, **over: Any) -> None:
    """Change the commit record of a store."""
    record = read_json(store / "store.json")
    write_json(store / "store.json", seal(record | over))


def by_arm(sweep: Sweep) -> dict[str, str]:
    return {run.arm: run.signature for run in sweep.runs}


def test_a_kept_plan_is_read_again(make: Make, times: list[str]) -> None:
    sweep = make()
    kept = (sweep.folder / "plan.json").read_bytes()
    assert make() == sweep
    assert times == ["own"]
    assert (sweep.folder / "plan.json").read_bytes() == kept
    assert read_plan(sweep.folder / "plan.json") == sweep


def test_a_kept_plan_goes_with_its_folder(
    make: Make, tmp_path: Path, split_store: Store, times: list[str]
) -> None:
    sweep = make()
    (tmp_path / "runs").rename(tmp_path / "moved")
    found = plan_campaign(written(tmp_path, BASE + ARMS), split_store.path, tmp_path / "moved")
    assert times == ["own"]
    assert found == dataclasses.replace(sweep, out=str(tmp_path / "moved"))


def test_a_kept_plan_needs_no_torch(make: Make, tmp_path: Path, split_store: Store) -> None:
    sweep = make()
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from trainer.campaign.manifest import read_campaign\n"
        "from trainer.campaign.plan import plan_campaign\n"
        "from trainer.campaign.state import states\n"
        "campaign, store, out = sys.argv[1:]\n"
        "sweep = plan_campaign(read_campaign(campaign), Path(store), Path(out))\n"
        "print(len(states(sweep)), 'torch' in sys.modules)"
    )
    given = [str(tmp_path / "own.toml"), str(split_store.path), sweep.out]
    command = [sys.executable, "-c", code, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]


def test_another_manifest_is_planned_again(make: Make, times: list[str]) -> None:
    sweep = make()
    assert make(BASE).folder == sweep.folder
    assert len(read_plan(sweep.folder / "plan.json").runs) == 1
    assert make() == sweep
    assert len(times) == 3


def test_a_changed_default_makes_another_run(
    make: Make, monkeypatch: pytest.MonkeyPatch, times: list[str]
) -> None:
    sweep = make()
    monkeypatch.setattr(module, "code_version", lambda: "changed code, equal defaults")
    same = make()
    assert len(times) == 2
    assert same.key != sweep.key
    assert same.runs == sweep.runs
    real = presets._PRESETS["paper", "tiny"]

    def changed(seed: int) -> RunConfig:
        return dataclasses.replace(real(seed), divergence_factor=19.0)

    monkeypatch.setitem(presets._PRESETS, ("paper", "tiny"), changed)
    monkeypatch.setattr(module, "code_version", lambda: "changed default")
    other = make()
    for mine, new in zip(sweep.runs, other.runs, strict=True):
        assert new.config == {**mine.config, "divergence_factor": 19.0}
        assert (new.signature, new.folder) != (mine.signature, mine.folder)
        assert new.folder == f"{new.arm}-{new.signature}"


def test_the_version_of_the_code_changes_with_its_files_and_with_other_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"one": tmp_path / "trainer" / "campaign" / "plan.py", "two": tmp_path / "pipeline/x.py"}
    for file in here.values():
        file.parent.mkdir(parents=True)
        file.write_text("a = 1\n", encoding="utf-8")
    monkeypatch.setattr(module, "__file__", str(here["one"]))
    version = code_version.__wrapped__
    seen = [version()]
    assert version() == seen[0]
    for file in here.values():
        file.write_text("a = 2\n", encoding="utf-8")
        seen.append(version())
    here["two"].rename(tmp_path / "pipeline" / "y.py")
    seen.append(version())
    point = EntryPoint(name="mine", value="mine:Mine", group="xmodal.mechanisms")
    monkeypatch.setattr(
        module, "entry_points", lambda group: [point] if group == point.group else []
    )
    seen.append(version())
    assert len(set(seen)) == len(seen)


def test_a_changed_store_is_planned_again(make: Make, copied: Path, times: list[str]) -> None:
    sweep = make(store=copied)
    change(copied, committed_at="2030-01-01T00:00:00Z")
    again = make(store=copied)
    assert (len(times), again.runs) == (2, sweep.runs)
    arrays = read_json(copied / "store.json")["arrays"]
    change(copied, arrays={**arrays, "A4": {**arrays["A4"], "fingerprint": "other"}})
    before, after = by_arm(sweep), by_arm(make(store=copied))
    assert before["d0"] == after["d0"]
    assert before["a4r"] != after["a4r"]


def test_a_store_elsewhere_is_planned_again_to_the_same_runs(
    make: Make, copied: Path, times: list[str]
) -> None:
    sweep, other = make(), make(store=copied)
    assert (len(times), other.store) == (2, str(copied))
    assert other.runs == sweep.runs


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b'{"schema": 1}', b"\xff\x00"])
def test_a_damaged_plan_is_made_again(make: Make, content: bytes) -> None:
    sweep = make(BASE)
    file = sweep.folder / "plan.json"
    kept = file.read_bytes()
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"plan\.json"):
        read_plan(file)
    assert make(BASE) == sweep
    assert file.read_bytes() == kept


def test_what_is_no_plan_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(ConfigError, match="is no plan of a campaign"):
            read_plan(path)


def test_the_store_that_was_committed_last_is_found(tmp_path: Path, copied: Path) -> None:
    features = copied.parent
    for name, when in (("aaaaaaaaaaaa", "2031"), ("bbbbbbbbbbbb", "2029"), ("v2-0000", "2040")):
        other = features / f"tiny-{name}"
        other.mkdir()
        record = read_json(copied / "store.json") | {"committed_at": f"{when}-01-01T00:00:00Z"}
        write_json(other / "store.json", seal(record))
    (features / "tiny-cccccccccccc").mkdir()
    (features / "tiny-cccccccccccc" / "store.json").write_text("{", encoding="utf-8")
    assert find_newest(features, "tiny") == features / "tiny-aaaaaaaaaaaa"
    assert find_newest(features, "tiny-v2") == features / "tiny-v2-0000"
    for folder in (features, tmp_path / "nowhere"):
        with pytest.raises(StoreError, match=f"build --corpus demo --out {folder}") as error:
            find_newest(folder, "demo")
        assert error.value.kind == "missing"


def test_the_plan_outlives_its_store(make: Make, tmp_path: Path, copied: Path) -> None:
    sweep = make(store=copied)
    campaign = read_campaign(str(tmp_path / "own.toml"))
    shutil.rmtree(copied)
    with pytest.raises(StoreError):
        make(store=copied)
    (tmp_path / "runs").rename(tmp_path / "moved")
    kept = kept_plan(campaign, tmp_path / "moved")
    assert kept == dataclasses.replace(sweep, out=str(tmp_path / "moved"))
    assert kept_plan(campaign, tmp_path / "runs") is None


def test_the_plan_that_was_kept_last_is_that_campaigns_own(make: Make, tmp_path: Path) -> None:
    campaign, out = written(tmp_path, BASE), tmp_path / "runs"

    def keep(folder: str, age: int, **over: Any) -> None:
        file = out / "campaigns" / folder / "plan.json"
        plan = read_json(sweep.folder / "plan.json") | over
        write_json(file, plan)
        os.utime(file, (2e9 - age, 2e9 - age))

    sweep = make(BASE)
    keep("own-tiny-old", 3, store_name="tiny-old")
    keep("own-tiny-new", 2, store_name="tiny-new")
    keep("own-tiny-tiny-0", 1, name="own-tiny", store_name="tiny-0")
    keep("own-tiny-v2-0", 1, store_name="tiny-v2-0")
    keep("own-tiny-damaged", 0, store_name=3)
    broken = out / "campaigns" / "own-tiny-broken" / "plan.json"
    broken.parent.mkdir()
    broken.write_text("{", encoding="utf-8")
    os.utime(broken, (2e9, 2e9))
    found = kept_plan(campaign, out)
    assert found is not None
    assert found.store_name == "tiny-new"


def test_a_campaign_stays_with_the_store_that_it_was_planned_on(
    make: Make, tmp_path: Path, copied: Path
) -> None:
    features, out = copied.parent, tmp_path / "runs"
    campaign = written(tmp_path, BASE)
    store, word = choose_store(campaign, out, features)
    assert (store, "the newest of the corpus 'tiny'" in word) == (copied, True)
    make(BASE, store=copied)
    newer = features / "tiny-ffffffffffff"
    newer.mkdir()
    record = read_json(copied / "store.json") | {"committed_at": "2040-01-01T00:00:00Z"}
    write_json(newer / "store.json", seal(record))
    store, word = choose_store(campaign, out, features)
    assert store == copied.resolve()
    assert word.endswith(f"(another one is there: --store {newer})")
    shutil.rmtree(copied)
    assert choose_store(campaign, out, features)[0] == newer


def test_a_plan_of_another_store_is_not_taken_for_this_ones(make: Make, tmp_path: Path) -> None:
    sweep, campaign = make(BASE), written(tmp_path, BASE)
    assert kept_plan(campaign, tmp_path / "runs", Path(sweep.store)) == sweep
    assert kept_plan(campaign, tmp_path / "runs", tmp_path / "another") is None


def test_two_manifests_of_one_name_do_not_share_a_plan(
    make: Make, tmp_path: Path, split_store: Store
) -> None:
    sweep = make(BASE)
    folder = tmp_path / "copies"
    folder.mkdir()
    copy = written(folder, BASE)
    kept = (sweep.folder / "plan.json").read_bytes()
    with pytest.raises(ConfigError, match=r"rename the file, or give another --out"):
        plan_campaign(copy, split_store.path, tmp_path / "runs")
    assert (sweep.folder / "plan.json").read_bytes() == kept
    (tmp_path / "own.toml").unlink()  # it was moved, not copied
    assert plan_campaign(copy, split_store.path, tmp_path / "runs").manifest == copy.file
