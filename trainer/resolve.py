"""Whether a configuration can be: every option written out, and the combination checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from typing import Any

from pipeline.base.config import from_plain, to_plain
from pipeline.base.errors import ConfigError
from pipeline.descriptors import DESCRIPTORS
from trainer.arms import pair as make_pair
from trainer.config import PairConfig, RunConfig
from trainer.controls import CONTROLS
from trainer.encoders.frontends import FRONTENDS
from trainer.encoders.pooling import POOLS
from trainer.encoders.positions import POSITIONS
from trainer.losses import LOSSES
from trainer.mechanisms import MECHANISMS, Mechanism
from trainer.optim import FREEZE_POLICIES
from trainer.schedules import SCHEDULES

CHOICES: dict[str, Callable[[str], Any]] = {
    "audio.frontend": FRONTENDS.get,
    "audio.positions": POSITIONS.get,
    "audio.pool": POOLS.get,
    "midi.positions": POSITIONS.get,
    "midi.pool": POOLS.get,
    "loss": LOSSES.get,
    "schedule": SCHEDULES.get,
    "control": CONTROLS.get,
}
"""Where a configuration chooses by name, and what the names stand for."""

POSITIVE = ("width", "heads", "ffn", "embedding", "slots")


def with_pairs(config: RunConfig, pairs: Iterable[tuple[str, str] | PairConfig]) -> RunConfig:
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
    plain = to_plain(dataclasses.replace(config, pairs=tuple(pairs)))
    for path, get in CHOICES.items():
        *parents, last = path.split(".")
        parent = reduce(dict.__getitem__, parents, plain)
        parent[last] = _written_out(parent[last], get, path)
    config = from_plain(RunConfig, plain)
    _check_pairs(config)
    _check_rest(config)
    return config


def _written_out(choice: dict[str, Any], get: Callable[[str], Any], path: str) -> dict[str, Any]:
    options = from_plain(get(choice["name"]).Options, choice["options"], f"{path}.options")
    return {"name": choice["name"], "options": to_plain(options)}


def _resolve_pair(pair: PairConfig) -> PairConfig:
    made = make_pair(pair.descriptor, pair.mechanism, **pair.options)
    kind = MECHANISMS.get(pair.mechanism)
    kind.check(from_plain(kind.Options, made.options))
    return made


def _check_pairs(config: RunConfig) -> None:
    taken: dict[str, PairConfig] = {}
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
        if mechanism.leaks and config.preset != "paper":
            raise ConfigError(
                f"{pair.mechanism} gives an encoder the item that it is asked to find, so its score "
                "is no retrieval score; it exists to repeat the reference: use --preset paper"
            )
        slot = mechanism.slot
        # The loss takes many terms, but none twice; a further view is of both encoders.
        own = {"loss": f"{pair.descriptor} {pair.mechanism} term of the loss", "view": "view slot"}
        place = own.get(slot, f"{slot} slot of the {side} encoder")
        other = taken.setdefault(place, pair)
        if other is not pair:
            raise ConfigError(
                f"{other.descriptor} {other.mechanism} and {pair.descriptor} {pair.mechanism} "
                f"both take the {place}; keep one of them"
            )
        _check_pooled(config, pair, mechanism)
    _check_places(config)


def _check_places(config: RunConfig) -> None:
    """Nobody asks for values at notes where a mechanism has put the sequence on frames."""
    for side in ("audio", "midi"):
        on = {
            (mechanism.slot, descriptor.axis): pair
            for pair in config.pairs
            if (mechanism := MECHANISMS.get(pair.mechanism)).enters(
                descriptor := DESCRIPTORS.get(pair.descriptor)
            )
            == side
        }
        moved, asked = on.get(("sequence", "frame")), on.get(("scores", "note"))
        if moved and asked and MECHANISMS.get(moved.mechanism).replaces:
            raise ConfigError(
                f"{moved.descriptor} {moved.mechanism} puts the {side} sequence on frames, where "
                f"{asked.descriptor} {asked.mechanism} has no values: it is one value per note"
            )


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
    if config.control.name != "real" and not config.pairs:
        raise ConfigError(
            f"control = {config.control.name}: an arm without descriptors has none to replace"
        )
    if config.freeze not in FREEZE_POLICIES:
        raise ConfigError(
            f"unknown freeze policy '{config.freeze}': known: {', '.join(FREEZE_POLICIES)}"
        )
    head = config.head
    if head.lag_cost < 0 or not 0 <= head.lags < head.slots:
        raise ConfigError(
            f"head.lags = {head.lags}, head.lag_cost = {head.lag_cost}: at least 0, and fewer lags "
            f"than head.slots = {head.slots}; head.lags = 0 compares by cosine alone"
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
    if config.midi.touch < 1:
        raise ConfigError(f"midi.touch = {config.midi.touch}: a factor of at least 1 (1: none)")
    if config.midi.clock_s < 0:
        raise ConfigError(f"midi.clock_s = {config.midi.clock_s}: seconds, at least 0 (0: none)")
    for name in ("epochs", "batches_per_epoch", "per_recording"):
        if getattr(budget, name) < 1:
            raise ConfigError(f"budget.{name} = {getattr(budget, name)}: must be at least 1")
    if budget.batch_size < 2:
        raise ConfigError(
            f"budget.batch_size = {budget.batch_size}: must be at least 2, since batch statistics "
            "and in-batch negatives need two segments"
        )
    if config.evaluation.pool_size < 2:
        raise ConfigError(f"evaluation.pool_size = {config.evaluation.pool_size}: at least 2")
    if any(epoch < 1 for epoch in config.evaluation.epochs):
        raise ConfigError("evaluation.epochs must be at least 1 each")
    if config.evaluation.every < 1 or config.evaluation.batch_size < 1:
        raise ConfigError("evaluation.every and evaluation.batch_size must be at least 1")


def _check_numbers(config: RunConfig) -> None:
    """No number is infinite or undefined, and what counts something real is positive."""
    for path, value in _leaves(to_plain(config), ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{path} = {value}: must be a finite number")
        name = path.rpartition(".")[2]
        if name.endswith("dropout") and not 0 <= value < 1:
            raise ConfigError(f"{path} = {value}: must be at least 0 and below 1")
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
