"""Pools, heads, position codes, alignment of frames, signatures, run folders."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from trainer_fakes import run_config

from pipeline.base.config import from_plain, to_plain
from pipeline.base.errors import ConfigError, RunError
from trainer import plan as plan_module
from trainer import training as training_module
from trainer.batch import Tokens, frame_times
from trainer.cache import ResidentStore
from trainer.config import HeadConfig, RunConfig, signature
from trainer.devices import pick_device
from trainer.embed import embed_split
from trainer.encoders.frontends import MelConvolution, MelOptions
from trainer.encoders.heads import ProjectionHead
from trainer.encoders.pooling import MeanOptions, MeanPool, SlotPool, SlotsOptions
from trainer.encoders.positions import index_sinusoids
from trainer.mechanisms.align import resample
from trainer.model import build_model
from trainer.plan import RunRequest, plan_run
from trainer.run import open_run
from trainer.training import initial_model
from trainer.training import train as train_planned


def some_tokens() -> Tokens:
    times = torch.tensor([[-0.5, 0.2, 1.0, 3.99, 7.0, 2.5], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    padding = torch.tensor([[False] * 5 + [True], [False] + [True] * 5])
    return Tokens(x_BTC=torch.randn(2, 6, 3), time_BT=times, padding_BT=padding)


def test_slots_are_means_over_parts_of_time():
    tokens = some_tokens()
    got = SlotPool(SlotsOptions(slots=4))(tokens).view(2, 4, 3)
    x = tokens.x_BTC
    torch.testing.assert_close(got[0, 0], x[0, :2].mean(0))  # before the start: the first slot
    torch.testing.assert_close(got[0, 1], x[0, 2])
    assert not got[0, 2].any()  # its only token is padding
    torch.testing.assert_close(got[0, 3], x[0, 3:5].mean(0))  # after the end: the last slot
    torch.testing.assert_close(got[1, 0], x[1, 0])
    assert not got[1, 1:].any()


def test_mean_pool_leaves_padding_out():
    tokens = some_tokens()
    got = MeanPool(MeanOptions())(tokens)
    torch.testing.assert_close(got[0], tokens.x_BTC[0, :5].mean(0))
    tokens.padding_BT = torch.ones(2, 6, dtype=torch.bool)
    assert not MeanPool(MeanOptions())(tokens).any()


def test_a_head_with_slots_treats_every_part_alike():
    head = ProjectionHead(12, HeadConfig(hidden=(), embedding=8, slots=4))
    pooled = torch.randn(5, 12)
    rolled = pooled.view(5, 4, 3).roll(1, dims=1).reshape(5, 12)
    expected = head(pooled).view(5, 4, 2).roll(1, dims=1).reshape(5, 8)
    torch.testing.assert_close(head(rolled), expected)
    assert sum(p.numel() for p in head.parameters()) == 3 * 2 + 2


def test_slots_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match=r"head.slots = 3"):
        run_config("sound", "d0", head={"slots": 3})


def test_index_sinusoids_are_the_textbooks():
    table = index_sinusoids(50, 16).numpy()
    row, i = 37, 5
    angle = row / 10_000 ** (2 * i / 16)
    assert table[row, 2 * i] == pytest.approx(np.sin(angle), abs=1e-5)
    assert table[row, 2 * i + 1] == pytest.approx(np.cos(angle), abs=1e-5)


def test_frames_are_interpolated_up_and_averaged_down():
    frames = torch.randn(2, 188, 3)
    down = resample(frames, 47)
    torch.testing.assert_close(down, frames.view(2, 47, 4, 3).mean(2))
    up = resample(frames, 2400).numpy()
    position = (np.arange(2400) + 0.5) * 188 / 2400 - 0.5  # align_corners=False
    expected = np.interp(position, np.arange(188), frames[0, :, 1].numpy())
    np.testing.assert_allclose(up[0, :, 1], expected, atol=1e-4)


def every_field(value: Any, plain: Any) -> None:
    """What is hashed names every field, at every depth."""
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value)]
        assert sorted(plain) == sorted(names)
        for name in names:
            every_field(getattr(value, name), plain[name])


def test_the_signature_covers_every_field_and_what_is_read():
    config = run_config("sound", "a4")
    reads = {"store": "s", "A4": "f"}
    base = signature(config, reads)
    every_field(config, to_plain(config))
    assert signature(from_plain(RunConfig, json.loads(json.dumps(to_plain(config)))), reads) == base
    changed = [
        signature(dataclasses.replace(config, seed=1), reads),
        signature(dataclasses.replace(config, precision="bf16"), reads),
        signature(dataclasses.replace(config, pairs=()), reads),
        signature(run_config("sound", "a4", audio={"transformer": {"dropout": 0.2}}), reads),
        signature(config, {**reads, "A4": "g"}),
        signature(config, reads, init="abc"),
    ]
    assert len({base, *changed}) == len(changed) + 1


def test_an_absent_gpu_is_an_error_not_a_fallback(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no usable GPU"):
        pick_device("cuda")
    assert pick_device("auto").type == "cpu"


TINY = {
    "budget": {"epochs": 1, "batches_per_epoch": 2, "batch_size": 4},
    "evaluation": {"batch_size": 16},
}


def train(request, *arguments):
    return train_planned(plan_run(request), *arguments)


@pytest.fixture
def request_of(store, monkeypatch, tmp_path):
    """Makes requests on the fake store."""
    monkeypatch.setattr(plan_module, "Store", SimpleNamespace(open=lambda path: store))

    def make(arm: str = "d0", **over: Any) -> RunRequest:
        config = run_config("sound", arm, **TINY)
        return RunRequest(
            **{"config": config, "store": tmp_path / "store", "out": tmp_path / "runs", **over}
        )

    return make


def score(audio: np.ndarray, midi: np.ndarray, resident: Any) -> dict[str, float]:
    assert audio.shape == midi.shape == (len(resident), 512)
    assert resident.split == "validation"
    return {"S": 0.5}


def test_a_run_is_trained_found_again_and_loaded_strictly(request_of):
    run = train(request_of("a4"), score)
    assert run.finished
    assert run.path.name == f"a4-{run.signature}"
    assert run.record["best"] == {"S": 0.5, "step": 2}
    events: list[dict[str, Any]] = []
    again = train(request_of("a4"), pytest.fail, events.append)
    assert again.record == run.record
    assert [e["event"] for e in events] == ["finished"]
    assert run.config == run_config("sound", "a4", **TINY)
    assert not run.load_model().training
    other = dataclasses.replace(run, config=run_config("sound", "d0", **TINY))
    with pytest.raises(RunError, match=r"the model lacks mechanisms\.A4-concat"):
        other.load_model()


def test_an_evaluation_embeds_the_split_once_and_only_when_due(request_of, monkeypatch):
    seen = []

    def counted(model, resident):
        seen.append(resident.split)
        return embed_split(model, resident)

    monkeypatch.setattr(training_module, "embed_split", counted)
    budget = {"budget": {**TINY["budget"], "epochs": 4}}
    config = run_config("sound", "d0", **TINY | budget)
    evaluation = dataclasses.replace(config.evaluation, first=1, every=3)
    train(request_of(config=dataclasses.replace(config, evaluation=evaluation)), score)
    assert seen == ["validation"] * 2  # after epochs 1 and 4


def test_a_failed_run_says_so_and_overwrite_starts_anew(request_of):
    def fails(audio, midi, resident):
        raise RunError("no score today")

    with pytest.raises(RunError, match="no score today"):
        train(request_of(), fails)
    folder = next((request_of().out).iterdir())
    assert open_run(folder).record["failure"]["message"] == "no score today"
    run = train(request_of(overwrite=True), score)
    assert run.finished
    assert run.record["attempts"] == 1


@pytest.mark.parametrize(
    ("capability", "machine", "precision", "slow"),
    [
        ("AVX2", "x86_64", "bf16", True),
        ("AVX2", "x86_64", "fp32", False),
        ("AVX512", "x86_64", "bf16", False),
        ("DEFAULT", "aarch64", "bf16", False),
    ],
)
def test_bf16_on_a_processor_that_lacks_it_is_told(
    capability, machine, precision, slow, request_of, monkeypatch
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(training_module, "_train", unable)  # where it is told it does take long
    config = run_config("sound", "d0", **TINY, precision=precision)
    events: list[dict[str, Any]] = []
    with pytest.raises(RunError, match="not today"):
        train(request_of(config=config), score, events.append)
    told = [e["message"] for e in events if e["event"] == "warning"]
    assert any("--precision fp32" in message for message in told) == slow


def unable(*_: Any) -> None:
    raise RunError("not today")


def test_init_takes_the_base_and_leaves_the_arm_fresh(request_of):
    base = train(request_of(), score)
    config = run_config("sound", "a4", **TINY)
    started, fresh = initial_model(config, base.path).state_dict(), build_model(config).state_dict()
    given = base.load_model().state_dict()
    for name, value in started.items():
        source = fresh if name.startswith(("mechanisms.", "loss.")) else given
        assert torch.equal(value, source[name]), name
    run = train(request_of("a4", init=base.path), score)
    assert run.signature != train(request_of("a4"), score).signature


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"it has no run\.json"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="does not read"):
        open_run(tmp_path)


def test_tokens_of_frames_lie_where_the_frames_are():
    # Frame 40 is centred on sample 40 x 512; what happens there shows at a token of that time.
    times = frame_times(188, torch.zeros(1))
    torch.testing.assert_close(times[0, 40].item(), 40 * 512 / 24_000)
    torch.manual_seed(0)
    frontend = MelConvolution(8, MelOptions(strides=(2, 2), bands=96))
    silent = torch.zeros(1, 188, 96)
    struck = silent.clone()
    struck[0, 40] = 1.0
    tokens = [frontend(SimpleNamespace(arrays={"mel": mel})) for mel in (silent, struck)]
    change = (tokens[1].x_BTC - tokens[0].x_BTC).abs().sum(-1)[0]
    reached = tokens[0].time_BT[0, change > 0]  # the kernel's width, evenly to both sides
    assert (tokens[0].x_BTC.shape[1], len(reached)) == (47, 3)
    assert reached.mean().item() == pytest.approx(40 * 512 / 24_000)


@pytest.mark.parametrize("preset", ["paper", "sound"])
def test_each_preset_selects_by_its_own_protocol(preset):
    assert run_config(preset, "d0").evaluation.selection == {
        "paper": "paper", "sound": "strict",
    }[preset]  # fmt: skip


def test_a_frozen_front_end_may_run_in_fewer_bits(make_config, store):
    low = {"audio": {"frontend": {"options": {"precision": "bf16"}}}}
    full, few = (build_model(make_config("paper", "d0", **o)) for o in ({}, low))
    assert signature(full.config, {}) != signature(few.config, {})
    batch = ResidentStore(store, "train", full.reads()).batch([0, 1, 2])
    a, b = (m.audio.frontend(batch).x_BTC for m in (full, few))
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert float((a - b).abs().max()) < 0.05 * float(a.abs().max())
    assert not a.requires_grad
    loss, _ = few.train().training_step(batch)
    loss.backward()


def test_a_run_begun_with_another_model_is_not_gone_on_with(request_of):
    run = train(request_of("d0"), score)
    record = json.loads((run.path / "run.json").read_text())
    record["parameters"]["total"] += 1
    (run.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="was begun with"):
        train(request_of("d0"), score)
    assert train(request_of("d0", overwrite=True), score).finished
