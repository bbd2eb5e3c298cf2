"""End to end: the same recordings through a store, and item by item as in the reference."""

from __future__ import annotations

import csv
import statistics
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import soundfile
import torch

from benchmarks import plain_training as plain
from benchmarks.stepping import PLAIN_SHAPES, Trainer, now
from pipeline.base.console import Console
from pipeline.build import BuildConfig, build
from pipeline.corpora.recordings import COLUMNS
from pipeline.corpora.resolve import CorpusRequest, resolve_corpus
from pipeline.store import Store
from trainer.cache import ResidentStore
from trainer.devices import available_memory, is_slow
from trainer.frozen import keep_tokens
from trainer.ordering import batch_order

RECORDINGS, MINUTES, NOTES, RATE = 4, 10, 5_900, 44_100
WORKERS = 8  # of the reference's loader
PAPER_CAP = 100
PAPER_SEGMENTS = 962 * PAPER_CAP  # of MAESTRO's training split, at most (method 1)
PAPER_PASSES = 30 * 1000 * 16 / PAPER_SEGMENTS  # epochs, batches (method 5)


@cache
def recordings(folder: Path) -> Path:
    """The table of four recordings: 10 minutes of stereo noise bursts, 5,900 notes each."""
    random = np.random.default_rng(0)
    root = folder / "recordings"
    root.mkdir()
    rows = []
    for number in range(RECORDINGS):
        seconds = 60.0 * MINUTES
        noise = random.standard_normal((int(RATE * seconds), 2), np.float32) * 0.05
        soundfile.write(root / f"{number}.wav", noise, RATE, subtype="PCM_16")
        score = pretty_midi.PrettyMIDI()
        piano = pretty_midi.Instrument(0)
        for onset in np.sort(random.uniform(0, seconds - 2, NOTES)):
            pitch, velocity = int(random.integers(21, 109)), int(random.integers(20, 120))
            end = onset + float(random.uniform(0.05, 1.5))
            piano.notes.append(pretty_midi.Note(velocity, pitch, float(onset), end))
        score.instruments.append(piano)
        score.write(str(root / f"{number}.midi"))
        rows.append(
            {
                "canonical_composer": "Noise",
                "canonical_title": f"Study {number}",
                "split": "train",
                "year": 2000,
                "midi_filename": f"{number}.midi",
                "audio_filename": f"{number}.wav",
                "duration": seconds,
            }
        )
    table = root / "recordings.csv"
    with table.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return table


@cache
def store_of(folder: Path) -> Store:
    """Their store, under the paper's cap."""
    corpus = resolve_corpus(
        str(recordings(folder)), CorpusRequest(root=None, cache=folder, workers=0)
    )
    config = BuildConfig(descriptors=("A4", "D4"))
    return build(corpus, folder / "features", config, Console()).store


def bench_end_to_end(
    folder: Path, size: str, arm: str, device: torch.device, precision: str, compiled: bool,
    ours: int = 40, theirs: int = 20,
) -> dict[str, Any]:  # fmt: skip
    """Median milliseconds of a step with its batch, ours and the reference's way.

    ``kept``: with the frozen front end's tokens kept, over the whole of the paper's run: it sees every
    segment ``passes`` times on average, of which the first makes the tokens (``first``) and the others
    have them (``again``); those of all its segments would take ``kept_bytes``. ``bf16``: on a CPU that
    has it, the same with products in bfloat16, as on a GPU everything is.
    """
    store = store_of(folder)
    trainer = Trainer("paper", size, arm, device, precision, compiled)
    count = trainer.config.budget.batch_size
    resident = ResidentStore(store, "train", trainer.model.reads(), device, segments="all")

    def step_s(trainer: Trainer, first: int, end: int) -> float:
        """The median of these steps but the first five, which warm up."""
        times = []
        for step in range(first, end):
            began = now(device)
            trainer.step(resident.batch(batch_order(len(resident), count, 42, 0, step)))
            times.append(now(device) - began)
        return statistics.median(times[5:])

    ours_s = step_s(trainer, 0, ours)
    bf16_s = None
    if device.type == "cpu" and not is_slow("bf16", device):
        bf16_s = step_s(Trainer("paper", size, arm, device, "bf16", compiled), 0, ours)
    first_s = again_s = kept_s = kept_bytes = None
    if size == "tiny":  # at base it is for corpora far smaller than the paper's
        one_pass = len(resident) // count
        uses = int(PAPER_PASSES * len(resident))
        if not keep_tokens(trainer.model, resident, uses, available_memory(device)):
            raise SystemExit("tokens are not kept: too little memory is free")
        first_s = step_s(trainer, 0, one_pass)
        again_s = step_s(trainer, one_pass, one_pass + ours)
        tokens_BTC = resident.batch(np.arange(1)).tokens_BTC
        assert tokens_BTC is not None
        kept_bytes = tokens_BTC.nbytes * PAPER_SEGMENTS
        kept_s = (first_s + (PAPER_PASSES - 1) * again_s) / PAPER_PASSES

    root = recordings(folder).parent
    segments = [
        plain.Segment(root / f"{number}.wav", root / f"{number}.midi", float(start))
        for number in range(RECORDINGS)
        for start in range(PAPER_CAP)
    ]
    model = plain.Plain(arm, **PLAIN_SHAPES[size]).to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    batches = plain.loader(segments, count, WORKERS, 42)
    for _ in range(2):  # workers start, and fill their queues
        _train(model, optimizer, next(batches), device)
    # Queues hold 16 batches; what counts is how fast they are filled.
    began = now(device)
    for _ in range(theirs):
        _train(model, optimizer, next(batches), device)
    theirs_s = (now(device) - began) / theirs
    found = {
        "ours": ours_s,
        "ours_bf16": bf16_s,
        "ours_kept": kept_s,
        "ours_kept_first": first_s,
        "ours_kept_again": again_s,
    }
    return {
        **{f"{name}_ms": 1e3 * each for name, each in found.items() if each is not None},
        **{
            name.replace("ours", "ratio"): theirs_s / each
            for name, each in found.items()
            if each is not None
        },
        "theirs_ms": 1e3 * theirs_s,
        "workers": WORKERS,
        "batch_size": count,
        "passes": PAPER_PASSES,
        "kept_bytes": kept_bytes,
    }


def _train(model: Any, optimizer: Any, batch: plain.Item, device: torch.device) -> None:
    plain.training_step(model, optimizer, {k: v.to(device) for k, v in batch.items()})
