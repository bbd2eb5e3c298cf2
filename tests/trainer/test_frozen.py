"""Tokens of a frozen front end are made once and are the same; cheap dropout is dropout."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from trainer_fakes import run_config

from trainer.attention import Attention, ScoreBias, dropping_attention, fused_attention
from trainer.cache import ResidentStore
from trainer.dropout import Dropout, dropout
from trainer.embed import embed_split
from trainer.frozen import keep_tokens
from trainer.model import build_model

ROOM = 1 << 30


def pair(store, preset="paper", **over):
    model = build_model(run_config(preset, "a4r", **over))
    return model, ResidentStore(store, "train", model.reads(), note_padding="longest")


def test_batches_with_kept_tokens_give_the_same_bits(store):
    model, plain = pair(store)
    _, kept = pair(store)
    assert keep_tokens(model, kept, len(kept) + 1, ROOM)
    assert kept.batch([0]).audio_BS is None
    for index in ([3, 0, 11], np.arange(16), [7]):
        torch.manual_seed(4)
        wanted, _ = model.train().training_step(plain.batch(index)) if len(index) > 1 else (None, 0)
        torch.manual_seed(4)
        got, _ = model.training_step(kept.batch(index)) if len(index) > 1 else (None, 0)
        assert wanted is got or torch.equal(wanted, got)
        a, b = (model.eval().embed_audio(r.batch(index)) for r in (plain, kept))
        assert torch.equal(a, b)
    for a, b in zip(embed_split(model, plain, 8), embed_split(model, kept, 8), strict=True):
        assert np.array_equal(a, b)


def test_the_front_end_hears_every_segment_once(store):
    model, resident = pair(store)
    assert keep_tokens(model, resident, len(resident) + 1, ROOM)
    heard: list[int] = []
    listen = model.audio.frontend.convolve
    model.audio.frontend.convolve = lambda audio_BS: (
        heard.append(len(audio_BS)),
        listen(audio_BS),
    )[1]
    with torch.inference_mode():
        resident.batch([3, 3, 1])
    assert sum(heard) == 2
    assert resident.batch([1, 3]).tokens_BTC.is_inference() is False
    resident.batch(np.arange(len(resident)))
    resident.batch(np.arange(len(resident)))
    assert sum(heard) == len(resident)
    with pytest.raises(AssertionError, match="without audio"):
        model.audio.frontend(resident.sounding_batch([0]))


def test_two_threads_may_ask_at_once(store):
    """Both ask for the last segment; one is about to hear it when the other is through."""
    model, resident = pair(store)
    assert keep_tokens(model, resident, len(resident) + 1, ROOM)
    resident.batch(np.arange(1, len(resident)))
    begun, others_done = threading.Event(), threading.Event()
    sounding = resident.sounding_batch

    def held_up(index):
        if not begun.is_set():
            begun.set()
            others_done.wait(1)  # they cannot be done: it is this thread's turn
        return sounding(index)

    resident.sounding_batch = held_up
    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(resident.batch, [0])
        assert begun.wait(10)
        second = resident.batch([0]).tokens_BTC
        others_done.set()
        first = one.result().tokens_BTC
    assert torch.equal(first, second)


def test_they_are_kept_only_where_it_pays_and_fits(store):
    model, resident = pair(store)
    assert not keep_tokens(model, resident, len(resident), ROOM)
    assert not keep_tokens(model, resident, 10 * len(resident), 1_000_000)
    assert resident.batch([0]).audio_BS is not None
    for preset, over in (("sound", {}), ("paper", {"audio": {"frontend": {"name": "wave"}}})):
        model, resident = pair(store, preset, **over)
        assert not keep_tokens(model, resident, 10 * len(resident), ROOM)


def test_dropout_drops_what_it_should():
    torch.manual_seed(1)
    x = torch.ones(1001, 999, requires_grad=True)
    y = dropout(x, 0.1)
    kept = y != 0
    # Six standard deviations.
    assert float(kept.float().mean()) == pytest.approx(0.9, abs=6 * math.sqrt(0.09 / x.numel()))
    assert torch.allclose(y[kept], torch.tensor(1 / 0.9), rtol=1e-4)
    upstream = torch.randn_like(y)
    (y * upstream).sum().backward()
    assert torch.allclose(x.grad, y * upstream)  # y of ones: the mask times the scale
    # No element knows of its neighbours, of those in the same word above all.
    bits = kept.flatten().float() - kept.float().mean()
    for lag in (1, 2, 3, 4, 999):
        assert abs(float((bits[lag:] * bits[:-lag]).mean())) < 6 * 0.09 / math.sqrt(len(bits))
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.1), y)
    assert float(dropout(x, 1.0).abs().max()) == 0
    state = torch.get_rng_state()
    assert dropout(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), state)
    layer = Dropout(0.5)
    assert torch.equal(layer.eval()(x), x)
    assert not torch.equal(layer.train()(x), x)


def test_attention_written_out_is_torchs(store):
    torch.manual_seed(2)
    q, k, v = (torch.randn(2, 4, n, 8) for n in (5, 7, 7))
    visible = (torch.arange(7) < torch.tensor([7, 3])[:, None])[:, None, None]
    for mask in (None, visible):
        wanted = fused_attention(q, k, v, mask, 0.0, 0.3)
        torch.testing.assert_close(dropping_attention(q, k, v, mask, 0.0, 0.3), wanted)
        many = torch.stack([dropping_attention(q, k, v, mask, 0.3, 0.3) for _ in range(4000)])
        assert float((many.mean(dim=0) - wanted).abs().max()) < 0.08


@pytest.mark.parametrize("padded", [False, True])
def test_attention_in_bfloat16_is_that_of_float32_rounded(padded: bool) -> None:
    torch.manual_seed(3)
    attention = Attention(32, 4, 0.0)
    x = torch.randn(2, 9, 32, requires_grad=True)
    padding = torch.arange(9) >= torch.tensor([9, 5])[:, None] if padded else None
    bias = ScoreBias(0.3 * torch.randn(2, 4, 9, 6), torch.randn(2, 4, 9, 6))
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = attention.within(x, padding, bias, None)
        (gradient,) = torch.autograd.grad(y.float().square().sum(), x)
        found.append((y.float(), gradient))
    (wanted, slope), (y, gradient) = found
    torch.testing.assert_close(y, wanted, rtol=0, atol=0.03 * float(wanted.std()))
    torch.testing.assert_close(gradient, slope, rtol=0, atol=0.1 * float(slope.std()))
