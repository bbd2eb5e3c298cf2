"""What the trainer is measured against is the same method: the same batches, the same model."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from trainer_fakes import run_config

from pipeline.store import Store
from trainer.cache import ResidentStore
from trainer.model import build_model

plain = pytest.importorskip("benchmarks.plain_training")
stepping = pytest.importorskip("benchmarks.stepping")

EDGE = (
    2400  # samples: each excerpt is resampled by itself there, the store's whole recording is not
)
NAMES = (
    (r"audio\.frontend\.blocks\.", "cnn."),
    (r"audio\.positions\.rows_1RC", "positions"),
    (r"midi\.transformer\.norm\.", "midi_norm."),
    (r"(audio|midi)\.transformer\.", r"\1_transformer."),
    (r"layers\.(\d+)\.attention\.", r"layers.\1.self_attn."),
    (r"in_proj\.(weight|bias)", r"in_proj_\1"),
    (r"midi\.notes\.(pitch|velocity)\.", r"\1."),
    (r"midi\.notes\.duration\.", "bucket."),
    (r"midi\.notes\.project\.", "events.0."),
    (r"midi\.notes\.norm\.", "events.1."),
    (r"_head\.hidden\.0\.([01])\.", r"_head.\1."),
    (r"_head\.hidden\.1\.0\.", "_head.3."),
    (r"_head\.hidden\.1\.1\.", "_head.4."),
    (r"_head\.output\.", "_head.6."),
    (r"mechanisms\.A4-concat\.project", "mix_audio.0"),
    (r"mechanisms\.A4-concat\.norm", "mix_audio.1"),
    (r"mechanisms\.D4-concat\.project", "mix_midi.0"),
    (r"mechanisms\.D4-concat\.norm", "mix_midi.1"),
    (r"mechanisms\.A4-reverse_xattn\.queries\.rows_1RC", "rows"),
    (r"mechanisms\.A4-reverse_xattn\.queries\.project", "query"),
    (r"mechanisms\.A4-reverse_xattn\.norm", "attention_norm"),
    (r"mechanisms\.A4-reverse_xattn\.", ""),
)


def in_its_words(name: str) -> str:
    """The plain model's name of one of our weights."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def test_both_return_the_same_batch(tiny_corpus: Path, tiny_store: Store) -> None:
    """Every segment of the tiny corpus: WAV and FLAC, mono and stereo, several rates."""
    table = tiny_store.table("recordings").to_pylist()
    resident = ResidentStore(tiny_store, "train", ["audio"], segments="all", note_padding="longest")
    rows, root = resident.rows, tiny_corpus.parent
    segments = []
    for row in rows:
        recording = table[int(tiny_store.segments.recording[row])]
        files = (root / recording["audio_path"], root / recording["midi_path"])
        segments.append(plain.Segment(*files, float(tiny_store.segments.start_s[row])))
    dataset = plain.Segments(segments)
    size = 8
    for start in range(0, len(rows), size):
        index = np.arange(start, min(start + size, len(rows)))
        ours, theirs = resident.batch(index), plain.collate([dataset[i] for i in index])
        for name, field in (
            ("pitch", "pitch"),
            ("velocity", "velocity"),
            ("bucket", "duration_bucket"),
        ):
            assert torch.equal(theirs[name], getattr(ours, f"{field}_BN")), name
        assert torch.equal(theirs["mask"], ours.padding_BN)
        assert ours.audio_BS is not None
        apart = (theirs["audio"] - ours.audio_BS).abs()
        assert float(apart[:, EDGE:-EDGE].max()) < 1e-3
        assert float(ours.audio_BS.abs().max()) > 0.05


def test_its_loader_repeats_and_drops_what_is_left_over(tiny_corpus: Path) -> None:
    table = sorted(tiny_corpus.parent.rglob("*.wav"))[0]
    midi = sorted(tiny_corpus.parent.rglob("*.mid*"))[0]
    segments = [plain.Segment(table, midi, float(s)) for s in range(5)]
    rounds = [list(plain.loader(segments, 2, 0, seed=3)) for _ in range(2)]
    assert [len(r) for r in rounds] == [2, 2]
    assert torch.equal(rounds[0][0]["audio"], rounds[1][0]["audio"])


@pytest.mark.parametrize("arm", ["d0", "d4a4", "a4r"])
def test_both_are_the_same_model(arm: str, split_store: Store) -> None:
    """With the same weights and no dropout: the same embeddings, loss and gradients."""
    ours = build_model(run_config("paper", arm))
    theirs = plain.Plain(arm, **stepping.PLAIN_SHAPES["tiny"])
    theirs.load_state_dict({in_its_words(k): v for k, v in ours.state_dict().items()})
    for model in (ours, theirs):
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
    batch = ResidentStore(split_store, "train", ["audio", "A4", "D4"]).batch(np.arange(8))
    item = {
        "audio": batch.audio_BS, "pitch": batch.pitch_BN, "velocity": batch.velocity_BN,
        "bucket": batch.duration_bucket_BN, "mask": batch.padding_BN,
    }  # fmt: skip
    # A store's descriptors are float16; what follows is compared without that difference.
    computed = {"A4": plain.a4(item["audio"]), "D4": plain.d4(item["pitch"], item["mask"])}
    for name, values in computed.items():
        torch.testing.assert_close(batch.arrays[name], values, atol=5e-3, rtol=2e-3)
    batch.arrays.update(computed)
    close = {"atol": 1e-4, "rtol": 1e-4}
    audio, midi = theirs.embed_audio(item), theirs.embed_midi(item)
    torch.testing.assert_close(ours.embed_audio(batch), audio, **close)
    torch.testing.assert_close(ours.embed_midi(batch), midi, **close)
    loss, _ = ours.training_step(batch)
    torch.testing.assert_close(loss, plain.vicreg(audio, midi), **close)
    loss.backward()
    plain.vicreg(audio, midi).backward()
    own = {in_its_words(n): p for n, p in ours.named_parameters()}
    trained = {n: p for n, p in theirs.named_parameters() if p.requires_grad}
    assert trained.keys() == {n for n, p in own.items() if p.requires_grad}
    for name, parameter in trained.items():
        gradient, wanted = own[name].grad, parameter.grad
        assert gradient is not None
        assert wanted is not None
        # What batch statistics take away again has a gradient of rounding errors alone.
        apart = float((gradient - wanted).norm())
        assert apart < 1e-3 * float(wanted.norm()) + 2e-4, (name, apart)
