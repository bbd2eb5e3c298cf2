"""Batches from resident tensors equal what a reader would slice by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.base.errors import ConfigError, StoreError
from trainer import cache
from trainer.cache import ResidentStore, fingerprints
from trainer.ordering import Groups, batch_order


def test_a_batch_equals_slices_of_the_store(store):
    resident = ResidentStore(store, "train", ["audio", "mel", "A4", "D4"], segments="all")
    index = [13, 0, 5, 21]
    batch = resident.batch(index)
    notes, table = store.notes(), store.segments
    assert len(batch) == 4
    for i, position in enumerate(index):
        row = int(resident.rows[position])
        assert int(batch.segments_B[i]) == row
        start = int(table.audio_start[row])
        window = store.read("audio", start, start + 96_000).astype(np.float64) / 32768
        assert np.array_equal(batch.audio_BS[i].numpy(), window)
        assert np.array_equal(
            batch.arrays["A4"][i].numpy(), store.read("A4")[row].astype(np.float32)
        )
        first, count = int(table.note_start[row]), int(table.note_count[row])
        if count == 0:
            continue
        own = slice(first, first + count)
        assert np.array_equal(batch.pitch_BN[i, :count], notes.pitch[own])
        assert np.array_equal(batch.velocity_BN[i, :count], notes.velocity[own])
        assert np.array_equal(batch.duration_bucket_BN[i, :count], notes.duration_bucket[own])
        assert np.array_equal(batch.onset_BN[i, :count], notes.onset_s[own])
        assert np.array_equal(batch.duration_BN[i, :count], notes.duration_s[own])
        assert np.array_equal(batch.arrays["D4"][i, :count].numpy(), store.read("D4")[own])
        assert not batch.padding_BN[i, :count].any()
        assert batch.padding_BN[i, count:].all()
        assert not batch.arrays["D4"][i, count:].any()
        assert (batch.onset_BN[i, count:] == -1).all()


def test_reading_in_small_blocks_changes_nothing(store, monkeypatch):
    names = ["audio", "A4", "D4"]
    whole = ResidentStore(store, "train", names).batch(np.arange(8))
    monkeypatch.setattr(cache, "READ_BYTES", 100_000)
    parts = ResidentStore(store, "train", names).batch(np.arange(8))
    assert torch.equal(whole.audio_BS, parts.audio_BS)
    assert all(torch.equal(whole.arrays[n], parts.arrays[n]) for n in whole.arrays)


def test_an_empty_segment_gets_the_dummy_note_in_the_batch_only(store):
    resident = ResidentStore(store, "train", ["D4"], segments="all")
    batch = resident.batch([int(np.flatnonzero(~store.segments.valid[resident.rows])[0]), 1])
    fields = (batch.pitch_BN, batch.velocity_BN, batch.duration_bucket_BN)
    assert [int(f[0, 0]) for f in fields] == [60, 64, 16]
    assert (float(batch.onset_BN[0, 0]), float(batch.duration_BN[0, 0])) == (0.0, 0.5)
    assert batch.padding_BN[0].tolist() == [False] + [True] * (batch.padding_BN.shape[1] - 1)
    assert not batch.arrays["D4"][0].any()


def test_valid_segments_only_for_sound_all_for_paper(store):
    valid = ResidentStore(store, "train", [], segments="valid")
    every = ResidentStore(store, "train", [], segments="all")
    assert store.segments.valid[valid.rows].all()
    assert len(valid) < len(every) == int((store.segments.split == "train").sum())


def test_notes_are_padded_to_few_lengths_or_to_the_longest(store):
    longest = int(store.segments.note_count.max())
    for padding, allowed in (("buckets", {32, 64}), ("longest", set(range(1, longest + 1)))):
        resident = ResidentStore(store, "train", [], note_padding=padding)
        widths = {resident.batch([i]).pitch_BN.shape[1] for i in range(len(resident))}
        assert widths <= allowed


def test_what_does_not_fit_the_device_stays_on_the_host(store, monkeypatch):
    resident = ResidentStore(store, "train", ["A4"])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    free = 2 * resident.nbytes  # half of it must hold everything, and a byte more
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    resident = ResidentStore(store, "train", ["A4"], "cuda")
    assert resident.home.type == "cpu"
    assert {t.device.type for t in resident._tensors().values()} == {"cpu"}


def test_missing_array_and_empty_split_are_said(store, monkeypatch):
    monkeypatch.delitem(store.arrays, "A9")
    with pytest.raises(StoreError, match="A9"):
        ResidentStore(store, "train", ["A9"])
    with pytest.raises(StoreError, match="no test segments"):
        ResidentStore(store, "test", [])


def test_fingerprints_name_only_what_is_read(store):
    assert fingerprints(store, ["A4"]) == {
        "store": "fake-identity",
        "compositions": "fake-grouping",
        "A4": "fingerprint-A4",
    }


def test_groups_bring_segments_of_one_recording_together():
    recordings = np.repeat(np.arange(10), [3, 17, 40, 8, 8, 8, 1, 25, 30, 60]).astype(np.int64)
    groups = Groups(recordings, 4)
    order = [batch_order(200, 16, 42, 0, s, groups=groups) for s in range(12)]
    assert len(set(np.concatenate(order).tolist())) == 12 * 16
    together = [np.bincount(recordings[batch]).max() for batch in order]
    apart = [np.bincount(recordings[batch_order(200, 16, 42, 0, s)]) for s in range(12)]
    assert min(together) >= 4
    kinds = [len(set(recordings[batch].tolist())) for batch in order]
    assert np.mean(kinds) < 6 < np.mean([np.count_nonzero(found) for found in apart])
    neighbours = np.concatenate(order)[:-1] + 1 == np.concatenate(order)[1:]
    assert neighbours.mean() < 0.2  # any of a recording's segments, not a stretch of it
    again = [batch_order(200, 16, 42, 0, s, groups=Groups(recordings, 4)) for s in (3, 0)]
    assert np.array_equal(again[0], order[3])
    assert np.array_equal(again[1], order[0])
    backwards = batch_order(200, 16, 42, 0, 0, groups=Groups(recordings[::-1].copy(), 4))
    assert not np.array_equal(backwards, order[0])  # as many segments of other recordings
    other = batch_order(200, 16, 42, 1, 0, groups=groups)
    assert not np.array_equal(other, order[0])


def test_batch_order_is_a_permutation_per_epoch_and_a_pure_function():
    first = [batch_order(100, 8, 42, 0, s) for s in range(12)]
    again = [batch_order(100, 8, 42, 0, s) for s in reversed(range(12))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    seen = np.concatenate(first)
    assert len(set(seen.tolist())) == 96
    other = np.concatenate([batch_order(100, 8, 42, 1, s) for s in range(12)])
    assert not np.array_equal(seen, other)
    # the thirteenth batch opens a further permutation
    assert len(batch_order(100, 8, 42, 0, 12)) == 8
    with pytest.raises(ConfigError, match="fewer than one batch"):
        batch_order(7, 8, 42, 0, 0)
