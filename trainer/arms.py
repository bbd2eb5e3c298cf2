"""Arms: combinations of (descriptor, mechanism), their paper names, and what may be combined.

The table holds names only: nothing in the code branches on them, and an arm that nobody has named
works the same way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pipeline.base.config import from_plain, to_plain
from pipeline.base.errors import ConfigError
from pipeline.descriptors import DESCRIPTORS
from trainer.config import Choice, PairConfig, RunConfig
from trainer.encoders.frontends import FRONTENDS
from trainer.encoders.pooling import POOLS
from trainer.encoders.positions import POSITIONS
from trainer.losses import LOSSES
from trainer.mechanisms import MECHANISMS, Mechanism
from trainer.schedules import SCHEDULES

Pair = tuple[str, str]
POSITIVE = ("width", "heads", "ffn", "embedding", "slots")

ARMS: dict[str, tuple[Pair, ...]] = {
    "d0": (),
    "a4": (("A4", "concat"),),
    "d4": (("D4", "concat"),),
    "a4r": (("A4", "reverse_xattn"),),
    "d4r": (("D4", "reverse_xattn"),),
    "d4a4": (("D4", "concat"), ("A4", "concat")),
    "d4-a4r": (("D4", "concat"), ("A4", "reverse_xattn")),
    "d4a4r": (("D4", "reverse_xattn"), ("A4", "reverse_xattn")),
}
"""Paper name → its pairs (method §3.1). ``d0`` is the control."""

FREEZE_POLICIES: dict[str, tuple[str, ...]] = {
    "none": (),
    "run-d": ("audio.frontend", "audio.positions"),
    "run-b": (
        "audio.frontend",
        "audio.positions",
        "audio.transformer.layers.0",
        "audio.transformer.layers.1",
    ),
}
"""Policy → paths of the modules that it freezes (method §6.2)."""


def arm_pairs(name: str) -> tuple[Pair, ...]:
    """The pairs behind a paper name."""
    if name not in ARMS:
        raise ConfigError(f"unknown arm '{name}': known: {', '.join(ARMS)}")
    return ARMS[name]


def arm_name(pairs: Iterable[PairConfig]) -> str:
    """The paper name of a combination, or ``DESCRIPTOR-mechanism`` joined by ``+``."""
    given = sorted((p.descriptor, p.mechanism) for p in pairs)
    for name, known in ARMS.items():
        if sorted(known) == given:
            return name
    return "+".join("-".join(pair) for pair in given)


def with_pairs(config: RunConfig, pairs: Iterable[Pair | PairConfig]) -> RunConfig:
    """``config`` with other pairs, resolved: options written out, order made canonical, checked."""
    made = [
        p if isinstance(p, PairConfig) else PairConfig(descriptor=p[0], mechanism=p[1])
        for p in pairs
    ]
    return resolve(dataclasses.replace(config, pairs=tuple(made)))


def resolve(config: RunConfig) -> RunConfig:
    """Every option of every registered thing written out, and the whole checked.

    Raises
    ------
    ConfigError
        one line that says what cannot be combined, and why.
    """
    pairs = sorted(
        (_resolve_pair(p) for p in config.pairs), key=lambda p: (p.descriptor, p.mechanism)
    )
    audio, midi = config.audio, config.midi
    config = dataclasses.replace(
        config,
        pairs=tuple(pairs),
        audio=dataclasses.replace(
            audio,
            frontend=_written_out(audio.frontend, FRONTENDS.get, "audio.frontend"),
            positions=_written_out(audio.positions, POSITIONS.get, "audio.positions"),
            pool=_written_out(audio.pool, POOLS.get, "audio.pool"),
        ),
        midi=dataclasses.replace(
            midi,
            positions=_written_out(midi.positions, POSITIONS.get, "midi.positions"),
            pool=_written_out(midi.pool, POOLS.get, "midi.pool"),
        ),
        loss=_written_out(config.loss, LOSSES.get, "loss"),
        schedule=_written_out(config.schedule, SCHEDULES.get, "schedule"),
    )
    _check_pairs(config)
    _check_rest(config)
    return config


def _written_out(choice: Choice, get: Callable[[str], Any], where: str) -> Choice:
    kind = get(choice.name).Options
    return Choice(
        name=choice.name, options=to_plain(from_plain(kind, choice.options, f"{where}.options"))
    )


def _resolve_pair(pair: PairConfig) -> PairConfig:
    kind = MECHANISMS.get(pair.mechanism)
    where = f"pairs.{pair.descriptor}-{pair.mechanism}.options"
    options = to_plain(from_plain(kind.Options, pair.options, where))
    return dataclasses.replace(pair, options=options)


def _check_pairs(config: RunConfig) -> None:
    taken: dict[tuple[str, str], PairConfig] = {}
    for pair in config.pairs:
        descriptor, mechanism = DESCRIPTORS.get(pair.descriptor), MECHANISMS.get(pair.mechanism)
        if descriptor.role != "descriptor":
            raise ConfigError(
                f"{pair.descriptor} is the input of a front end, not a descriptor to inject; "
                "xmodal-train --list descriptors shows the choices"
            )
        side = mechanism.enters(descriptor)
        accepted = mechanism.axes.get(side, ())
        if descriptor.axis not in accepted:
            wanted = f"per-{' or per-'.join(accepted)}" if accepted else "no"
            raise ConfigError(
                f"{pair.mechanism} on the {side} side takes {wanted} descriptors; "
                f"{pair.descriptor} is one value per {descriptor.axis}"
            )
        if mechanism.slot != "loss":
            other = taken.setdefault((side, mechanism.slot), pair)
            if other is not pair:
                raise ConfigError(
                    f"{other.descriptor} {other.mechanism} and {pair.descriptor} {pair.mechanism} "
                    f"both take the {mechanism.slot} slot of the {side} encoder; keep one of them"
                )
        _check_pooled(config, pair, mechanism)


def _check_pooled(config: RunConfig, pair: PairConfig, mechanism: type[Mechanism]) -> None:
    companion = DESCRIPTORS.get(pair.descriptor).pooled
    if not mechanism.pools or companion is None:
        return
    if config.mechanisms.pooled == "mean" and config.preset != "paper":
        raise ConfigError(
            f"{pair.mechanism} would be given the time mean of {pair.descriptor}, which is constant "
            f"by construction; set mechanisms.pooled = companion ({companion}), or use --preset paper"
        )
    if config.mechanisms.pooled == "companion":
        DESCRIPTORS.get(companion)


def _check_rest(config: RunConfig) -> None:
    _check_numbers(config)
    if config.freeze not in FREEZE_POLICIES:
        raise ConfigError(
            f"unknown freeze policy '{config.freeze}': known: {', '.join(FREEZE_POLICIES)}"
        )
    for side, encoder in (("audio", config.audio), ("midi", config.midi)):
        parts = POOLS.get(encoder.pool.name)
        pool = parts(from_plain(parts.Options, encoder.pool.options, f"{side}.pool.options"))
        if pool.parts % config.head.slots or config.head.embedding % config.head.slots:
            raise ConfigError(
                f"head.slots = {config.head.slots} must divide the {pool.parts} parts of the {side} "
                f"pool and the embedding's {config.head.embedding} values"
            )
        width = encoder.transformer.width
        for heads in (encoder.transformer.heads, config.mechanisms.heads):
            if width % heads:
                raise ConfigError(f"{side}: width {width} is not a multiple of {heads} heads")
    budget = config.budget
    if not 0 <= config.seed < 2**63:
        raise ConfigError(f"seed = {config.seed}: must be from 0 to 2^63 - 1")
    for name in ("epochs", "batches_per_epoch"):
        if getattr(budget, name) < 1:
            raise ConfigError(f"budget.{name} = {getattr(budget, name)}: must be at least 1")
    if budget.batch_size < 2:
        raise ConfigError(
            f"budget.batch_size = {budget.batch_size}: must be at least 2, since batch statistics "
            "and in-batch negatives need two segments"
        )
    if config.evaluation.pool_size < 2:
        raise ConfigError(f"evaluation.pool_size = {config.evaluation.pool_size}: at least 2")
    if config.evaluation.every < 1 or config.evaluation.batch_size < 1:
        raise ConfigError("evaluation.every and evaluation.batch_size must be at least 1")


def _check_numbers(config: RunConfig) -> None:
    """No number is infinite or undefined, and what counts something real is positive."""
    for path, value in _leaves(to_plain(config), ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{path} = {value}: must be a finite number")
        name = path.rpartition(".")[2]
        if name in POSITIVE and value < 1:
            raise ConfigError(f"{path} = {value}: must be at least 1")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}[{i}]")
    else:
        yield path, value
