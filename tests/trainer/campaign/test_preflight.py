"""What would end runs in a queue is found before: a fault is made, and a check names it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from campaign_fakes import write_run

from pipeline.base.console import Console
from pipeline.base.errors import UsageError, XmodalError
from pipeline.base.files import FolderLock, read_json, write_json
from pipeline.store import Store
from pipeline.store.schema import seal
from trainer.campaign import checks as files
from trainer.campaign import preflight as module
from trainer.campaign.batch_script import Options
from trainer.campaign.manifest import read_campaign
from trainer.campaign.plan import plan_campaign
from trainer.campaign.preflight import Check, preflight
from trainer.campaign.queueing import put
from trainer.campaign.sweep import Sweep
from trainer.campaign.work import do_run
from trainer.estimate import Estimate
from trainer.mechanisms import MECHANISMS

CAMPAIGN = """
title = "Two runs, one from the other"
corpus = "tiny"
size = "tiny"
[settings.budget]
epochs = 1
batches_per_epoch = 2
batch_size = 4
[settings.evaluation]
pool_size = {pool}
first = 1
[[runs]]
name = "base"
arms = ["d0"]
[[runs]]
name = "arms"
from = "base"
arms = ["a4r"]
seeds = [42, 123]
"""
Plan = Callable[..., Sweep]


def planned(store: Store, folder: Path, pool: int = 8) -> Sweep:
    (folder / "two.toml").write_text(CAMPAIGN.format(pool=pool))
    return plan_campaign(read_campaign(str(folder / "two.toml")), store.path, folder / "runs")


@pytest.fixture(scope="module")
def planned_once(split_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return planned(split_store, tmp_path_factory.mktemp("planned"))


@pytest.fixture
def plan(planned_once: Sweep, tmp_path: Path) -> Plan:
    """The campaign with its runs in a folder; ``own`` on a store that a test may break."""

    def made(own: bool = False) -> Sweep:
        sweep = dataclasses.replace(planned_once, out=str(tmp_path / "runs"))
        if not own:
            return sweep
        store = tmp_path / "features" / planned_once.store_name
        shutil.copytree(planned_once.store, store)
        return dataclasses.replace(sweep, store=str(store))

    return made


@pytest.fixture
def no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, and what they would cost, are not what the test is about."""
    cost = Estimate(flops_a_step=1, resident_bytes=1, state_bytes=1, activation_bytes=1,
                    available_bytes=100, seconds=7200.0)  # fmt: skip
    monkeypatch.setattr(module, "rehearse", lambda plan, start, device: "not tried")
    monkeypatch.setattr(module, "estimate", lambda config, store, device: cost)


def failed(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks if not check.ok}


def begin(sweep: Sweep, index: int, **over: Any) -> Path:
    """A run as one that was begun and stopped leaves it."""
    run = sweep.runs[index]
    folder = sweep.path(run)
    record = {
        "signature": run.signature, "arm": run.arm, "status": "interrupted", "config": run.config,
        "store": {"path": sweep.store, "name": sweep.store_name}, "reads": {"store": "s"},
        "versions": {},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", {**record, **over})
    return folder


def test_a_campaign_that_can_run_passes_every_check(plan: Plan) -> None:
    sweep, said = plan(), list[str]()
    checks = preflight(sweep, device="cpu", minutes=60, say=said.append)
    assert failed(checks) == {}
    names = [check.name for check in checks]
    # Two seeds of an arm are one model: one step.
    assert [n for n in names if n.startswith("a step of")] == [
        "a step of d0, seed 42", "a step of a4r, seed 42",
    ]  # fmt: skip
    assert len(said) == len(checks)
    assert all(line.startswith("ok") for line in said)
    out = Path(sweep.out)
    assert not list(out.iterdir())  # it leaves nothing behind


def test_runs_that_are_done_are_not_tried(plan: Plan) -> None:
    sweep = plan()
    base = do_run(sweep, sweep.runs[0], device="cpu")
    names = [check.name for check in preflight(sweep, device="cpu")]
    assert "a step of d0, seed 42" not in names
    for run in sweep.runs[1:]:
        do_run(sweep, run, device="cpu")
    (only,) = preflight(sweep, device="cpu")
    assert only.ok
    assert "every run is done" in only.detail
    # What others start from is looked at byte by byte.
    (base.path / "model.safetensors").write_bytes(b"other")
    (sweep.path(sweep.runs[1]) / "run.json").unlink()
    assert "gone or was changed" in failed(preflight(sweep, device="cpu"))["beginnings"].detail


def test_a_store_that_went_away_is_refused(plan: Plan, no_steps: None) -> None:
    sweep = plan(own=True)
    shutil.rmtree(sweep.store)
    found = failed(preflight(sweep, device="cpu"))
    assert "there is no store" in found["store"].detail


def test_a_store_of_which_a_file_is_short_is_refused(plan: Plan, no_steps: None) -> None:
    sweep = plan(own=True)
    record = read_json(Path(sweep.store) / "store.json")
    name = max(record["files"], key=lambda n: record["files"][n]["size"])
    with (Path(sweep.store) / name).open("r+b") as handle:
        handle.truncate(100)
    assert "has 100 bytes" in failed(preflight(sweep, device="cpu"))["store"].detail


def test_a_changed_byte_is_found_by_the_full_check(
    plan: Plan, no_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = plan(own=True)
    record = read_json(Path(sweep.store) / "store.json")
    name = max(record["files"], key=lambda n: record["files"][n]["size"])
    file = Path(sweep.store) / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    monkeypatch.setattr(files, "SAMPLE_BYTES", 1000)
    assert failed(preflight(sweep, device="cpu")) == {}  # the sample has not the largest file
    assert name in failed(preflight(sweep, device="cpu", full=True))["store"].detail


def test_a_store_without_an_array_is_refused_with_the_command_that_adds_it(
    plan: Plan, no_steps: None
) -> None:
    sweep = plan(own=True)
    record = read_json(Path(sweep.store) / "store.json")
    lacking = dataclasses.replace(sweep.runs[1], missing=("A4",))
    sweep = dataclasses.replace(sweep, runs=(sweep.runs[0], lacking, sweep.runs[2]))
    assert failed(preflight(sweep, device="cpu")) == {}  # it was added since the plan was made
    store = Path(sweep.store)
    del record["arrays"]["A4"]
    _write_record(store, record)
    found = failed(preflight(sweep, device="cpu"))
    assert f"xmodal-features add {store} --descriptors A4" in found["arrays"].remedy


def _write_record(store: Path, record: dict[str, Any]) -> None:
    write_json(store / "store.json", seal(record))


def test_a_folder_that_cannot_be_written_to_is_refused(plan: Plan, no_steps: None) -> None:
    sweep = plan()
    sweep = dataclasses.replace(sweep, out="/proc/nowhere")
    found = failed(preflight(sweep, device="cpu"))
    assert "cannot write and lock" in found["folder of runs"].detail
    assert "--out" in found["folder of runs"].remedy


def test_a_disk_that_checkpoints_would_fill_is_refused(
    plan: Plan, no_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = plan()
    least = sum(4 * (r.parameters + 2 * r.trainable) * 3 for r in sweep.runs)
    usage = shutil.disk_usage(sweep.store)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=least))
    assert "space" in failed(preflight(sweep, device="cpu"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10 * least))
    assert failed(preflight(sweep, device="cpu")) == {}


def warnings(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.detail for check in checks if check.warning}


def test_other_versions_than_a_run_was_begun_with_are_told_and_refuse_nothing(
    plan: Plan, no_steps: None
) -> None:
    sweep, said = plan(), list[str]()
    for index in (0, 1):
        begin(sweep, index, versions={"torch": version("torch"), "numpy": "1.0"})
    begin(sweep, 2, versions={"torch": version("torch")})
    checks = preflight(sweep, device="cpu", say=said.append)
    assert failed(checks) == {}
    found = warnings(checks)
    assert list(found) == ["versions"]
    assert f"and 1 more: begun with numpy 1.0, here is {version('numpy')}" in found["versions"]
    assert "torch" not in found["versions"]
    assert [line[:12] for line in said if not line.startswith("ok")] == ["!!  versions"]


def test_where_no_run_was_begun_no_versions_are_compared(plan: Plan, no_steps: None) -> None:
    sweep = plan()
    (told,) = [c for c in preflight(sweep, device="cpu") if c.name == "versions"]
    assert (told.ok, told.warning) == (True, False)
    assert told.detail.startswith("no run was begun, so there are none to compare with")
    assert f"torch {version('torch')}, numpy {version('numpy')}" in told.detail
    begin(sweep, 2, versions={"torch": version("torch")})
    (told,) = [c for c in preflight(sweep, device="cpu") if c.name == "versions"]
    assert told.detail == "those that 1 begun runs were begun with"


def test_one_run_that_cannot_go_on_is_told_and_holds_up_no_other(
    plan: Plan, no_steps: None
) -> None:
    sweep = plan()
    write_json(begin(sweep, 0) / "attempts.json", {"failure": "3 starts gained no step"})
    (begin(sweep, 1) / "run.json").write_text("{")
    begin(sweep, 2, parameters={"total": 1, "trainable": 1})
    checks = preflight(sweep, device="cpu")
    assert failed(checks) == {}
    idle, damaged, other = warnings(checks).values()
    assert "gained no step" in idle
    assert "does not read" in damaged
    assert "another number of parameters" in other
    steps = [check.name for check in checks if check.name.startswith("a step of")]
    assert len(steps) == 2  # everything else was tried all the same


def test_a_run_that_failed_is_told_and_tried_again(plan: Plan, no_steps: None) -> None:
    sweep = plan()
    begin(sweep, 0, status="failed", failure={"kind": "diverged", "message": "loss is nan"})
    checks = preflight(sweep, device="cpu")
    assert failed(checks) == {}
    (about,) = [check for check in checks if check.name == "beginnings"]
    assert "1 runs that failed are tried again" in about.detail


def test_code_that_would_make_another_run_is_refused(plan: Plan, no_steps: None) -> None:
    sweep = plan()
    other = dataclasses.replace(sweep.runs[0], signature="0" * 12, folder="d0-" + "0" * 12)
    changed = dataclasses.replace(sweep, runs=(other,))
    found = failed(preflight(changed, device="cpu"))
    assert "plan the campaign again" in found["d0, seed 42"].remedy
    assert "0 of 1 runs" in found["configurations"].detail


def test_a_thing_that_is_not_registered_here_is_named(
    plan: Plan, no_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = plan()
    config = json.loads(json.dumps(sweep.runs[1].config).replace("reverse_xattn", "from_elsewhere"))
    run = dataclasses.replace(sweep.runs[1], config=config)
    sweep = dataclasses.replace(sweep, runs=(sweep.runs[0], run))
    assert "from_elsewhere" in failed(preflight(sweep, device="cpu"))[run.label].detail


def test_a_mechanism_that_breaks_in_its_first_step_is_found(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("stack expects each tensor to be equal size\nand more")

    sweep = plan()
    monkeypatch.setattr(MECHANISMS.get("reverse_xattn"), "on_sequence", broken)
    found = failed(preflight(sweep, device="cpu"))
    assert list(found) == ["a step of a4r, seed 42", "memory of a4r, seed 42"]
    assert found["a step of a4r, seed 42"].detail == "stack expects each tensor to be equal size"


def test_a_loss_that_is_not_a_number_is_found(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.model import RetrievalModel

    real = RetrievalModel.training_step

    def spoiled(self: RetrievalModel, batch: Any) -> Any:
        loss, parts = real(self, batch)
        return loss * float("nan"), parts

    sweep = plan()
    monkeypatch.setattr(RetrievalModel, "training_step", spoiled)
    found = failed(preflight(sweep, device="cpu"))
    assert "loss nan" in found["a step of d0, seed 42"].detail


def test_pools_that_the_store_is_too_small_for_are_found(
    split_store: Store, tmp_path: Path
) -> None:
    found = failed(preflight(planned(split_store, tmp_path, pool=256), device="cpu"))
    assert "cannot fill a strict pool of 256" in found["a step of d0, seed 42"].detail


def test_only_a_few_segments_are_loaded_for_a_step(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import cache

    rows: list[int] = []
    real = cache._read_rows

    def counted(store: Any, name: str, wanted: Any, *rest: Any) -> Any:
        if name != "audio":
            rows.append(len(wanted))
        return real(store, name, wanted, *rest)

    monkeypatch.setattr(cache, "_read_rows", counted)
    assert failed(preflight(plan(), device="cpu")) == {}
    assert set(rows) == {4}  # a batch, of 42 segments


def test_a_gpu_that_only_the_nodes_have_is_told(
    plan: Plan, no_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    checks = preflight(plan(), device="cuda")
    assert failed(checks) == {}
    memory, time = checks[-2:]
    assert memory.detail == "not known: this machine has no GPU"
    assert time.detail.startswith("not known: this machine has no GPU, and no like was finished")


def test_steps_that_were_measured_on_a_gpu_count_where_there_is_none(
    plan: Plan, no_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    like = {1: 7200.0, 2: 3600.0}  # of the third, the first of the plan, nothing is known
    last = preflight(plan(), device="cuda", minutes=50, requeues=2, measured=like)[-1]
    assert last.ok
    assert "a4r, seed 42 is the longest, about 120 min on cuda (measured)" in last.detail
    assert "all that is left, about 3.0 h, without 1 runs of which no like" in last.detail
    assert "queued again about 2 times, after 50 min each" in last.detail
    found = failed(preflight(plan(), device="cuda", minutes=50, requeues=1, measured=like))
    assert list(found) == ["time"]
    assert found["time"].remedy == "a longer --time, or more --requeues than 1"


def test_a_limit_that_the_longest_run_never_gets_done_in_is_refused_before_it_is_submitted(
    split_store: Store, tmp_path: Path, no_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a run of the same arm that was finished on the GPU to a submission from a login node."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked: list[Options] = []
    monkeypatch.setattr("trainer.campaign.queueing.submit", lambda s, o, say: asked.append(o) or [])
    sweep = planned(split_store, tmp_path)
    run = sweep.runs[1]
    other = dataclasses.replace(run, folder=f"a4r-{'0' * 12}", signature="0" * 12)
    folder = write_run(Path(sweep.out), other)
    record = read_json(folder / "run.json") | {
        "device": "NVIDIA X",  # a step takes 30 minutes
        "performance": {"segments_per_s": 4 / 1800, "peak_memory": {"host": 1, "device": 1}},
    }
    write_json(folder / "run.json", record)
    put(sweep, Options(gpus=1, time="2:00:00"), True, False, Console(False))
    put(sweep, Options(gpus=1, time="40", requeues=1), True, False, Console(False))
    assert len(asked) == 2
    with pytest.raises(XmodalError, match=r"time: .* about 60 min on cuda \(measured\)"):
        # Warned 5 minutes before its end, a task has 15 of 20.
        put(sweep, Options(gpus=1, time="20", requeues=2), True, False, Console(False))
    assert len(asked) == 2


@pytest.fixture
def no_room(no_steps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login node that has neither a GPU nor the memory of one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cost = dataclasses.replace(module.estimate(None, None, None), available_bytes=2)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "estimate", lambda config, store, device: cost)


def test_memory_of_a_gpu_that_is_asked_of_the_queue_is_not_looked_for_where_it_is_submitted(
    plan: Plan, no_room: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Options] = []
    monkeypatch.setattr("trainer.campaign.queueing.submit", lambda s, o, say: asked.append(o) or [])
    with pytest.raises(XmodalError, match="needs about"):
        put(plan(), Options(), True, False, Console(False))
    assert asked == []
    put(plan(), Options(gpus=1), True, False, Console(False))
    assert len(asked) == 1


def test_memory_of_this_machine_ends_no_run_that_another_one_does(
    plan: Plan, no_room: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(plan: Any, start: Any, device: torch.device) -> str:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(module, "rehearse", full)
    checks = preflight(plan(), device="cuda")
    assert failed(checks) == {}
    assert "this machine has not the memory" in warnings(checks)["a step of d0, seed 42"]
    assert "a step of d0, seed 42" in failed(preflight(plan(), device="cpu"))


def test_every_file_is_hashed_before_a_submission_where_that_is_asked_for(
    plan: Plan, no_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = plan(own=True)
    record = read_json(Path(sweep.store) / "store.json")
    name = max(record["files"], key=lambda n: record["files"][n]["size"])
    data = (Path(sweep.store) / name).read_bytes()
    (Path(sweep.store) / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    monkeypatch.setattr(files, "SAMPLE_BYTES", 1000)
    monkeypatch.setattr("trainer.campaign.queueing.submit", lambda sweep, options, say: [])
    put(sweep, Options(), True, False, Console(False))
    with pytest.raises(XmodalError, match="does not match its SHA-256"):
        put(sweep, Options(), True, True, Console(False))
    with pytest.raises(UsageError, match="--no-preflight"):
        put(sweep, Options(), False, True, Console(False))


SEVERAL = """
title = "Models that are alike"
corpus = "tiny"
size = "tiny"
seeds = [42, 123]
[settings.budget]
epochs = 1
batches_per_epoch = 2
batch_size = 4
[settings.evaluation]
pool_size = 8
first = 1
[[runs]]
name = "schedules"
arms = ["d0", "a4r"]
[runs.vary]
"schedule.name" = ["cosine", "trapezoidal"]
"evaluation.every" = [1, 2]
[[runs]]
name = "pairs"
descriptors = ["A4", "D4"]
mechanisms = ["film", "concat"]
"""


def test_runs_that_differ_in_no_step_are_tried_once_and_of_many_models_one_of_a_kind(
    split_store: Store, tmp_path: Path, no_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "several.toml").write_text(SEVERAL)
    campaign = read_campaign(str(tmp_path / "several.toml"))
    sweep = plan_campaign(campaign, split_store.path, tmp_path / "runs")
    assert len(sweep.runs) == 2 * (2 * 4 + 4)

    def steps() -> dict[str, str]:
        checks = preflight(sweep, device="cpu")
        assert failed(checks) == {}
        return {c.name: c.detail for c in checks if "step" in c.name}

    assert list(steps().values()) == ["not tried"] * 6  # d0, a4r, and four pairs
    monkeypatch.setattr(module, "MANY", 5)
    *found, summary = steps().values()
    pair = "not tried; stands for 2 models"
    assert found == ["not tried", "not tried", pair, pair]
    assert "4 models were tried, and stand for 6" in summary


def test_memory_that_a_run_would_not_get_is_refused(
    plan: Plan, no_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = dataclasses.replace(module.estimate(None, None, None), available_bytes=2)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "estimate", lambda config, store, device: cost)
    found = failed(preflight(plan(), device="cpu"))
    assert "needs about" in found["memory of d0, seed 42"].detail


def test_a_time_limit_is_compared_with_the_longest_run(plan: Plan, no_steps: None) -> None:
    last = preflight(plan(), device="cpu", minutes=30, requeues=3)[-1]
    assert last.ok
    assert "about 120 min on cpu (counted, not measured)" in last.detail
    assert "all that is left, about 6.0 h" in last.detail
    assert "queued again about 3 times, after 30 min each" in last.detail
    assert list(failed(preflight(plan(), device="cpu", minutes=30, requeues=2))) == ["time"]
    assert "again" not in preflight(plan(), device="cpu", minutes=180)[-1].detail
    # What was measured comes before what is counted.
    like = dict.fromkeys(range(3), 60.0)
    last = preflight(plan(), device="cpu", minutes=30, measured=like)[-1]
    assert "about 1 min on cpu (measured)" in last.detail


def test_a_run_that_a_process_is_at_is_left_alone(plan: Plan, no_steps: None) -> None:
    sweep = plan()
    with FolderLock(sweep.path(sweep.runs[0])):
        names = [check.name for check in preflight(sweep, device="cpu")]
    assert "a step of a4r, seed 42" in names
    assert "a step of d0, seed 42" not in names
