"""The spectrogram that the device makes is the store's, and a run may use either."""

from __future__ import annotations

import numpy as np
import pytest
from trainer_fakes import FakeStore

from pipeline.base.errors import StoreError
from pipeline.store import Store
from trainer.cache import ON_DEVICE, ResidentStore, fingerprints, held_arrays


def test_it_is_the_stores_array(split_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held = ResidentStore(split_store, "train", ["mel"], segments="all")
    monkeypatch.delitem(split_store.arrays, "mel")
    made = ResidentStore(split_store, "train", ["mel"], segments="all")
    batches = [r.batch(np.arange(len(r))) for r in (held, made)]
    wanted, got = (b.arrays["mel"] for b in batches)
    # Another transform's last bits, rounded to float16: one step up or down, hardly ever two.
    step = 2.0 ** (wanted.abs().clamp(min=2.0**-14).log2().floor() - 10)
    apart = (got - wanted).abs() / step
    assert float(apart.max()) <= 2
    assert float((apart <= 1).float().mean()) > 0.999
    assert float((apart == 0).float().mean()) > 0.9
    assert batches[1].audio_BS is None
    assert float(wanted.std()) > 0.1


def test_only_mel_can_be_made_and_the_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeStore()
    kept = fingerprints(store, ["mel"])["mel"]
    for name in ("mel", "A9"):
        monkeypatch.delitem(store.arrays, name)
    assert held_arrays(store, ["mel"]) == ["audio"]
    made = fingerprints(store, ["mel"])
    assert made["mel"].endswith(ON_DEVICE)
    assert made["mel"] != kept
    with pytest.raises(StoreError, match="A9"):
        held_arrays(store, ["mel", "A9"])
