"""Two presets × two sizes, fully written out.

``paper`` takes the first setting of every declared pair (the reference, defects included), ``sound``
the second (the corrected one). ``base`` has the paper's widths, ``tiny`` trains on a CPU.

Budgets (epochs × batches × batch size; ``sound``: groups of 16 of one recording)
    ======  =====================  ====================
    size    paper                  sound
    ======  =====================  ====================
    base    30 × 1000 × 16         30 × 500 × 128
    tiny    5 × 100 × 16           3 × 50 × 64
    ======  =====================  ====================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.config import (
    AudioConfig,
    BudgetConfig,
    Choice,
    EvaluationConfig,
    GroupConfig,
    HeadConfig,
    MechanismsConfig,
    MidiConfig,
    OptimizerConfig,
    Precision,
    Preset,
    RunConfig,
    Size,
    TransformerConfig,
)

# The corrected pool keeps time: 64 parts of 62.5 ms, with eight numbers each in the embedding.
SLOTS, EMBEDDING = 64, 512
# Scores allow for clocks that are up to 3 parts (0.19 s) apart.
LAGS, LAG_COST = 3, 0.02
# In training other recorders, touch and clocks (trainer.encoders.variation). Without the clocks, parts
# this short take a recording whose notes are one part off for other music.
RECORDERS = {"level_db": 12.0, "colour_db": 4.0, "noise": 0.18}
TOUCH, CLOCK_S = 1.5, 0.03
MEL = {"strides": [2, 1]}  # a token every 43 ms
# out channels, kernel, stride, padding (method §4.1; 40 samples a token)
PAPER_CNN = [[512, 10, 5, 0], [512, 3, 2, 1], [512, 3, 2, 1], [1024, 3, 2, 1]]
# The same shape, eight times narrower and at 512 samples a token, so that a CPU can run it.
TINY_CNN = [[64, 16, 8, 4], [64, 8, 4, 2], [64, 8, 4, 2], [128, 8, 4, 4]]

# Options of front ends that have no defaults, for runs that choose another than the preset's.
FRONTEND_OPTIONS: dict[Size, dict[str, dict[str, Any]]] = {
    "base": {
        "mel": MEL,
        "wave": {"layers": PAPER_CNN, "groups": 32},
        "wave-frozen": {"layers": PAPER_CNN, "groups": 32},
    },
    "tiny": {
        "mel": MEL,
        "wave": {"layers": TINY_CNN, "groups": 32},
        "wave-frozen": {"layers": TINY_CNN, "groups": 32},
    },
}


def preset_config(preset: Preset, size: Size, *, seed: int = 42) -> RunConfig:
    """The resolved configuration of the control arm (no descriptor) of one preset and size."""
    return _PRESETS[preset, size](seed)


def _paper(
    seed: int, size: Size, audio: AudioConfig, midi: MidiConfig, head: HeadConfig,
    heads: int, budget: BudgetConfig, warmup: int, first_evaluation: int, split: int,
) -> RunConfig:  # fmt: skip
    layers = audio.transformer.layers
    path = "audio.transformer.layers.{}".format
    return RunConfig(
        preset="paper",
        size=size,
        seed=seed,
        pairs=(),
        audio=audio,
        midi=midi,
        head=head,
        mechanisms=MechanismsConfig(heads=heads, dropout=0.1, key_padding="missing", pooled="mean"),
        loss=Choice(name="vicreg"),
        optimizer=OptimizerConfig(
            groups=(
                # Empty under the reference's policies: both are frozen.
                GroupConfig(name="front", modules=("audio.frontend", "audio.positions"), lr=5e-6),
                GroupConfig(name="audio-lower", modules=tuple(map(path, range(split))), lr=5e-6),
                GroupConfig(
                    name="audio-upper", modules=tuple(map(path, range(split, layers))), lr=1e-5
                ),
                GroupConfig(name="midi", modules=("midi",), lr=5e-5),
                GroupConfig(name="heads", modules=("audio_head", "midi_head", "loss"), lr=1e-4),
                GroupConfig(name="mechanisms", modules=("mechanisms",), lr=5e-4),
            ),
            weight_decay=1e-4,
            decay="all",
        ),
        schedule=Choice(name="cosine", options={"warmup": warmup, "first_update": "full"}),
        freeze="run-d",
        budget=budget,
        evaluation=EvaluationConfig(
            every=1,
            first=first_evaluation,
            batch_size=16,
            pool_seed="training",
            selection="paper",
        ),
        segments="all",
        precision="fp32",
    )


def _paper_transformer(width: int, heads: int, layers: int, norm: str) -> TransformerConfig:
    return TransformerConfig(
        width=width,
        heads=heads,
        ffn=4 * width,
        layers=layers,
        norm="pre" if norm == "pre" else "post",
        output_norm=norm == "pre",
        dropout=0.1,
        ffn_dropout=0.1,
        attention_dropout=0.1,
        layer_init="identical",
    )


def _paper_audio(cnn: list[list[int]], heads: int, layers: int) -> AudioConfig:
    width = cnn[-1][0]
    return AudioConfig(
        frontend=Choice(name="wave-frozen", options={"layers": cnn, "groups": 32}),
        positions=Choice(name="table", options={"rows": 6000, "dropout": 0.0}),
        transformer=_paper_transformer(width, heads, layers, "post"),
        pool=Choice(name="mean"),
    )


def _paper_midi(width: int, heads: int, layers: int) -> MidiConfig:
    return MidiConfig(
        pitch_width=width // 2,
        velocity_width=width // 4,
        duration_width=width // 4,
        timing="absent",
        positions=Choice(name="index", options={"rows": 2048, "dropout": 0.1}),
        transformer=_paper_transformer(width, heads, layers, "pre"),
        pool=Choice(name="mean"),
    )


def _paper_base(seed: int) -> RunConfig:
    return _paper(
        seed,
        "base",
        _paper_audio(PAPER_CNN, 8, 4),
        _paper_midi(512, 8, 4),
        HeadConfig(hidden=(512, 512), embedding=256, slots=1),
        8,
        BudgetConfig(epochs=30, batches_per_epoch=1000, batch_size=16),
        warmup=200,
        first_evaluation=25,
        split=2,
    )


def _paper_tiny(seed: int) -> RunConfig:
    return _paper(
        seed,
        "tiny",
        _paper_audio(TINY_CNN, 4, 2),
        _paper_midi(128, 4, 2),
        HeadConfig(hidden=(256, 256), embedding=256, slots=1),
        4,
        BudgetConfig(epochs=5, batches_per_epoch=100, batch_size=16),
        warmup=20,
        first_evaluation=1,
        split=1,
    )


def _sound(
    seed: int, size: Size, audio_width: int, midi_width: int, heads: int, layers: int,
    lr: float, warmup: int, budget: BudgetConfig, precision: Precision,
) -> RunConfig:  # fmt: skip
    def transformer(width: int) -> TransformerConfig:
        return TransformerConfig(
            width=width,
            heads=heads,
            ffn=4 * width,
            layers=layers,
            norm="pre",
            output_norm=True,
            dropout=0.1,
            ffn_dropout=0.0,
            attention_dropout=0.0,
            layer_init="independent",
        )

    seconds = Choice(
        name="seconds",
        options={"periods": 32, "shortest_s": 0.04, "longest_s": 8.0, "dropout": 0.0},
    )
    everything = ("audio", "midi", "audio_head", "midi_head", "mechanisms", "loss")
    return RunConfig(
        preset="sound",
        size=size,
        seed=seed,
        pairs=(),
        audio=AudioConfig(
            frontend=Choice(name="mel", options={**MEL, **RECORDERS}),
            positions=seconds,
            transformer=transformer(audio_width),
            pool=Choice(name="slots", options={"slots": SLOTS}),
        ),
        midi=MidiConfig(
            pitch_width=midi_width // 2,
            velocity_width=midi_width // 4,
            duration_width=midi_width // 4,
            timing="given",
            positions=seconds,
            transformer=transformer(midi_width),
            pool=Choice(name="slots", options={"slots": SLOTS}),
            touch=TOUCH,
            clock_s=CLOCK_S,
        ),
        head=HeadConfig(hidden=(), embedding=EMBEDDING, slots=SLOTS, lags=LAGS, lag_cost=LAG_COST),
        mechanisms=MechanismsConfig(
            heads=heads, dropout=0.0, key_padding="present", pooled="companion"
        ),
        loss=Choice(name="infonce"),
        optimizer=OptimizerConfig(
            groups=(GroupConfig(name="all", modules=everything, lr=lr),),
            weight_decay=1e-2,
            decay="matrices",
        ),
        schedule=Choice(name="cosine", options={"warmup": warmup, "first_update": "warm"}),
        freeze="none",
        budget=budget,
        evaluation=EvaluationConfig(every=1, first=1, batch_size=128, pool_seed="fixed"),
        segments="valid",
        precision=precision,
    )


def _sound_base(seed: int) -> RunConfig:
    budget = BudgetConfig(epochs=30, batches_per_epoch=500, batch_size=128, per_recording=16)
    return _sound(seed, "base", 1024, 512, 8, 4, 3e-4, 500, budget, "bf16")


def _sound_tiny(seed: int) -> RunConfig:
    budget = BudgetConfig(epochs=3, batches_per_epoch=50, batch_size=64, per_recording=16)
    return _sound(seed, "tiny", 128, 128, 4, 2, 1e-3, 25, budget, "fp32")


_PRESETS: dict[tuple[Preset, Size], Callable[[int], RunConfig]] = {
    ("paper", "base"): _paper_base,
    ("paper", "tiny"): _paper_tiny,
    ("sound", "base"): _sound_base,
    ("sound", "tiny"): _sound_tiny,
}
