"""The loop: exact resume, signals, damaged checkpoints, guards, and that every mechanism can learn."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pickle
import signal
from typing import Any

import numpy as np
import pytest
import torch
from trainer_fakes import FakeStore, run_config, unvaried

from pipeline.base.errors import Interrupted, RunError, TrainingError
from pipeline.base.files import read_json, write_json
from pipeline.descriptors import DESCRIPTORS
from trainer import checkpoint
from trainer import fit as fit_module
from trainer.cache import ResidentStore
from trainer.checkpoint import load_checkpoint, load_latest
from trainer.config import PairConfig
from trainer.embed import embed_split
from trainer.fit import fit
from trainer.frozen import keep_tokens
from trainer.guards import check_drift
from trainer.mechanisms import MECHANISMS
from trainer.metrics_log import read_metrics
from trainer.model import build_model
from trainer.optim import build_optimizer

SMALL = {
    "audio": {"transformer": {"width": 32, "ffn": 64, "layers": 1}},
    "midi": {
        "transformer": {"width": 32, "ffn": 64, "layers": 1},
        "pitch_width": 16, "velocity_width": 8, "duration_width": 8,
    },
    "head": {"embedding": 64},
    "budget": {"epochs": 3, "batches_per_epoch": 4, "batch_size": 8},
}  # fmt: skip


class Killed(BaseException):
    """Stands for ``kill -9``: nothing between it and the disk gets to run."""


def small(arm: str = "a4r", **over: Any):
    return run_config("sound", arm, **(SMALL | over))


def train(
    store, folder, config, *, arm="a4r", report=lambda e: None, evaluate=None, compiled=False
):
    model = build_model(config)
    resident = ResidentStore(store, "train", model.reads())

    def constant(model):
        audio, midi = embed_split(model, resident)
        return {"S": float(np.abs(audio - midi).mean()), "seconds": 1.0}

    return fit(
        model, resident, folder, arm=arm, evaluate=evaluate or constant, report=report,
        initial_state=lambda: build_model(config).state_dict(), compiled=compiled,
    )  # fmt: skip


def results(folder) -> dict[str, bytes]:
    files = ["metrics.jsonl", "model.safetensors", "checkpoints/step-00000012/model.safetensors"]
    return {name: (folder / name).read_bytes() for name in files}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(FakeStore(), folder, small())
    return results(folder)


@pytest.mark.parametrize("at", [1, 4, 6, 8, 11])
def test_killed_after_any_step_resumes_to_the_same_bytes(at, store, tmp_path, uninterrupted):
    def die(event):
        if event["event"] == "step" and event["step"] == at:
            raise Killed

    with pytest.raises(Killed):
        train(store, tmp_path, small(), report=die)
    train(store, tmp_path, small())
    assert results(tmp_path) == uninterrupted
    steps = [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl") if "loss" in r]
    assert steps == list(range(1, 13))


def test_noise_of_a_router_resumes_to_the_same_bytes(store, tmp_path):
    """Its strength is a function of the epoch, its draws of the step: neither is lost in a kill."""

    def die(event):
        if event["event"] == "step" and event["step"] == 6:
            raise Killed

    config = small("moe-a4-v2")
    train(store, tmp_path / "whole", config)
    with pytest.raises(Killed):
        train(store, tmp_path / "cut", config, report=die)
    train(store, tmp_path / "cut", config)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


@pytest.mark.full
@pytest.mark.parametrize("arm", ["a4r", "d4a4", "moe-a4", "A4-attn_bias"])
def test_a_compiled_step_trains_to_the_same_model(arm, store, tmp_path, monkeypatch):
    """Traced and replayed by torch, without a code generator, which would take minutes here."""
    traced = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", traced)
    config = small((("A4", "attn_bias"),) if arm == "A4-attn_bias" else arm)
    train(store, tmp_path / "plain", config)
    train(store, tmp_path / "compiled", config, compiled=True)
    rows = [read_metrics(tmp_path / n / "metrics.jsonl") for n in ("plain", "compiled")]
    losses = [[r["loss"] for r in found if "loss" in r] for found in rows]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("point", ["save_weights", "write_json", "prune", "_publish"])
def test_killed_inside_saving_resumes_to_the_same_bytes(
    point, store, tmp_path, uninterrupted, monkeypatch
):
    calls = []

    def dies_second_time(original):
        def wrapper(*args, **kwargs):
            calls.append(point)
            if len(calls) == 2:
                raise Killed
            return original(*args, **kwargs)

        return wrapper

    owner = {"prune": fit_module, "_publish": fit_module._Loop}.get(point, checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(owner, point, dies_second_time(getattr(owner, point)))
        with pytest.raises(Killed):
            train(store, tmp_path, small())
    train(store, tmp_path, small())
    assert results(tmp_path) == uninterrupted


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2", "SIGINT"])
@pytest.mark.parametrize("during", ["step", "evaluation", "checkpoint"])
def test_a_signal_stops_at_a_step_boundary_and_resumes(
    name, during, store, tmp_path, uninterrupted
):
    sent = []

    def send(event):
        if event["event"] == during and event["step"] >= 3 and not sent:
            sent.append(event)
            os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(getattr(signal, name))
    with pytest.raises(Interrupted, match=name) as caught:
        train(store, tmp_path, small(), report=send)
    assert caught.value.exit_code == 75
    assert signal.getsignal(getattr(signal, name)) is before
    found = load_latest(tmp_path / "checkpoints", pytest.fail)
    assert found.step == {"step": 3, "evaluation": 4, "checkpoint": 4}[during]
    train(store, tmp_path, small())
    assert results(tmp_path) == uninterrupted


def newest_of_a_killed_run(store, folder):
    """The last checkpoint of a training that was killed at its tenth step."""

    def die(event):
        if event["event"] == "step" and event["step"] == 10:
            raise Killed

    with pytest.raises(Killed):
        train(store, folder, small(), report=die)
    return sorted((folder / "checkpoints").glob("step-*"))[-1]


class Bomb:
    """Runs when it is unpickled, if anything lets it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "writer", [torch.save, lambda o, path: path.write_bytes(pickle.dumps(o, 2))]
)
def test_a_checkpoint_that_would_run_code_is_passed_over(writer, store, tmp_path, uninterrupted):
    """With sums that fit: whoever plants it can count them too."""
    newest = newest_of_a_killed_run(store, tmp_path)
    writer(Bomb(tmp_path / "exploded"), newest / "optimizer.pt")
    record = read_json(newest / "checkpoint.json")
    data = (newest / "optimizer.pt").read_bytes()
    sums = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    record["files"]["optimizer.pt"] = sums
    write_json(newest / "checkpoint.json", record)
    with pytest.raises(RunError, match="damaged") as caught:
        load_checkpoint(newest)
    assert "\n" not in str(caught.value)
    train(store, tmp_path, small())
    assert results(tmp_path) == uninterrupted
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "uncommit"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, store, tmp_path, uninterrupted):
    newest = newest_of_a_killed_run(store, tmp_path)
    target = newest / "optimizer.pt"
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    act = {
        "flip": lambda: target.write_bytes(content),
        "truncate": lambda: target.write_bytes(content[:100]),
        "delete": target.unlink,
        "uncommit": (newest / "checkpoint.json").unlink,
    }
    act[damage]()
    with pytest.raises(RunError, match=r"damaged"):
        load_checkpoint(newest)
    events = []
    train(store, tmp_path, small(), report=events.append)
    warnings = [e for e in events if e["event"] == "warning"]
    assert any("damaged" in e["message"] for e in warnings)
    assert next(e["step"] for e in events if e["event"] == "resumed") == 4
    assert results(tmp_path) == uninterrupted


def test_the_best_epoch_is_published_and_two_more_are_kept(store, tmp_path):
    scores = iter([0.5, 0.9, 0.2, 0.1, 0.3])
    config = small("d0", budget={"epochs": 5, "batches_per_epoch": 1, "batch_size": 8})
    result = train(store, tmp_path, config, evaluate=lambda model: {"S": next(scores)})
    assert (result.best_S, result.best_step) == (0.9, 2)
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000004", "step-00000005"]
    best = tmp_path / "checkpoints/step-00000002/model.safetensors"
    assert (tmp_path / "model.safetensors").read_bytes() == best.read_bytes()


def test_steps_of_equal_s_are_told_apart_by_mrr_and_else_the_first_stays(store, tmp_path):
    scores = iter([(0.9, 0.5), (1.0, 0.6), (1.0, 0.8), (1.0, 0.8), (1.0, 0.7)])
    config = small("d0", budget={"epochs": 5, "batches_per_epoch": 1, "batch_size": 8})
    result = train(
        store, tmp_path, config,
        evaluate=lambda model: dict(zip(("S", "MRR"), next(scores), strict=True)),
    )  # fmt: skip
    assert (result.best_S, result.best_step) == (1.0, 3)


def test_after_a_fallback_the_best_of_that_time_is_still_there(store, tmp_path):
    # Best at epochs 1 and 3; the last checkpoint is lost, and a signal comes before epoch 3 ends.
    scores = iter([0.5, 0.1, 0.9])
    train(store, tmp_path, small(), evaluate=lambda model: {"S": next(scores)})
    (tmp_path / "checkpoints/step-00000012/model.safetensors").write_bytes(b"")

    def stop(event):
        if event["event"] == "step":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(store, tmp_path, small(), report=stop)
    first = (tmp_path / "checkpoints/step-00000004/model.safetensors").read_bytes()
    assert (tmp_path / "model.safetensors").read_bytes() == first


def test_a_damaged_best_checkpoint_is_not_published(store, tmp_path):
    scores = iter([0.9, 0.1, 0.1])
    train(store, tmp_path, small(), evaluate=lambda model: {"S": next(scores)})
    best = tmp_path / "checkpoints/step-00000004/model.safetensors"
    content = bytearray(best.read_bytes())
    content[-1] ^= 1
    best.write_bytes(content)
    with pytest.raises(RunError, match="step-00000004"):
        train(store, tmp_path, small())


def test_a_metrics_file_cut_short_is_reported(store, tmp_path):
    train(store, tmp_path, small())
    (tmp_path / "metrics.jsonl").unlink()
    events = []
    train(store, tmp_path, small(), report=events.append)
    assert any("metrics.jsonl lacks" in e.get("message", "") for e in events)


def test_a_full_disk_is_an_os_error_that_names_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("[enforce fail] PytorchStreamWriter failed writing file")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match=r"optimizer\.pt"):
        checkpoint.save_checkpoint(tmp_path, 1, {"w": torch.zeros(2)}, {}, {})


def test_nan_names_step_segments_and_arm(store, tmp_path):
    poisoned = type(store)()
    poisoned._arrays["mel"][:] = np.nan
    with pytest.raises(
        TrainingError, match=r"loss is nan: arm a4r, step 1, segments \d+"
    ) as caught:
        train(poisoned, tmp_path, small())
    assert caught.value.kind == "diverged"
    assert not list(tmp_path.glob("checkpoints/step-*"))


def test_divergence_stops_the_run(store, tmp_path):
    with pytest.raises(TrainingError, match="times the first one"):
        train(store, tmp_path, small(divergence_factor=0.1))


def test_a_part_that_stands_still_is_named(make_config):
    model = build_model(make_config("sound", "a4"))
    optimizer = build_optimizer(model, model.config.optimizer)
    start = {n: p.detach().clone() for n, p in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        if not name.startswith("mechanisms."):
            parameter.data += 1e-3
    with pytest.raises(TrainingError, match=r"mechanisms.A4-concat did not move"):
        check_drift(optimizer, model, start)


def test_a_single_number_may_come_back_to_nearly_where_it_was(make_config):
    model = build_model(make_config("sound", "d0"))
    optimizer = build_optimizer(model, model.config.optimizer)
    start = {n: p.detach().clone() for n, p in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.data += 1e-3
    scale = model.loss.log_scale
    scale.data = torch.nextafter(start["loss.log_scale"], torch.tensor(9.0))
    check_drift(optimizer, model, start)
    scale.data = start["loss.log_scale"].clone()
    with pytest.raises(TrainingError, match="loss did not move"):
        check_drift(optimizer, model, start)


def test_metrics_hold_no_clock(store, tmp_path):
    train(
        store, tmp_path, small("d0", budget={"epochs": 1, "batches_per_epoch": 1, "batch_size": 8})
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert set(rows[-1]["validation"]) == {"S"}
    assert {"step", "epoch", "loss", "gradient_norm", "lr_multiplier"} <= set(rows[0])


NARROW_CNN = [[16, 32, 32, 0], [32, 8, 8, 4], [32, 8, 8, 4]]
NARROW = {"third_tower": {"width": 32, "layers": 1}}
FRONT_ENDS = {
    "paper": {"frontend": {"options": {"layers": NARROW_CNN, "groups": 4}}},
    "sound": unvaried("sound")["audio"],  # pairs to be learnt by heart are not seen otherwise
}


def a_pair_for_each_mechanism_and_side() -> list[tuple[str, tuple[Any, ...]]]:
    """Every registered mechanism on every side that it enters, with the first descriptor it takes."""
    cases: list[tuple[str, tuple[Any, ...]]] = [("paper", ()), ("sound", ())]
    for name, mechanism in MECHANISMS.items():
        preset = "paper" if mechanism.leaks else "sound"
        sides = {}
        for descriptor in map(DESCRIPTORS.get, ("A4", "D4", "D1")):
            side = mechanism.enters(descriptor)
            if descriptor.axis in mechanism.axes.get(side, ()):
                sides.setdefault(side, descriptor.name)
        options = NARROW.get(name, {})
        cases += [
            (preset, (PairConfig(descriptor=d, mechanism=name, options=options),))
            for d in sides.values()
        ]
    return [*cases, ("paper", (("A4", "reverse_xattn"),)), ("paper", (("D4", "concat"),))]


@pytest.mark.full
@pytest.mark.parametrize(("preset", "pairs"), a_pair_for_each_mechanism_and_side())
def test_every_mechanism_overfits_32_pairs(preset, pairs, store):
    """32 synthetic pairs → R@1 = 1 both ways, with InfoNCE and one learning rate in both presets."""
    one_rate = {
        "name": "all",
        "lr": 4e-3,
        "modules": ["audio", "midi", "audio_head", "midi_head", "mechanisms", "loss"],
    }
    config = run_config(
        preset,
        pairs,
        **{
            **SMALL,
            "audio": {**SMALL["audio"], **FRONT_ENDS[preset]},
            "midi": {**SMALL["midi"], **unvaried(preset)["midi"]},
        },
        loss={"name": "infonce", "options": {}},
        optimizer={"groups": [one_rate]},
    )
    model = build_model(config)
    resident = ResidentStore(store, "train", model.reads())
    keep_tokens(model, resident, uses=10_000, room=1 << 30)
    batch = resident.batch(np.arange(32))
    optimizer = build_optimizer(model, config.optimizer)
    torch.manual_seed(0)
    for step in range(1, 301):
        model.train()
        loss, _ = model.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0 and retrieves_all(model.eval(), batch):
            return
    pytest.fail(f"after {step} steps some pair is not found, loss {float(loss.detach()):.3f}")


@torch.no_grad()
def retrieves_all(model, batch) -> bool:
    audio, midi = (torch.nn.functional.normalize(x) for x in model(batch))
    similarity, own = audio @ midi.T, torch.arange(len(batch))
    return all(torch.equal(similarity.argmax(dim=d), own) for d in (0, 1))
