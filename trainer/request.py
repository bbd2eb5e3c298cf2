"""From what a user says to a resolved run: preset ← ``--config`` file ← flags ← ``--set``.

A recipe lays its stages between file and flags. A registered thing that is chosen by name (front end,
position code, pool, loss, schedule) brings its own options: of those that were set for another one, it
keeps what it knows too.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.config import from_plain, load_toml, merge, to_plain
from pipeline.base.console import Console
from pipeline.base.errors import ConfigError
from pipeline.store import find_newest
from trainer.arms import arm_pairs
from trainer.config import PRESETS, SIZES, PairConfig, Preset, RunConfig, Size
from trainer.devices import default_compiled, default_precision, default_size, pick_device
from trainer.plan import RunRequest
from trainer.presets import FRONTEND_OPTIONS, preset_config
from trainer.recipes import stages
from trainer.resolve import CHOICES, with_pairs

FEATURES = Path("data/features")
PAIRS = "pairs"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The flags of ``xmodal-train`` that say what a run is; None where a flag was not given."""

    pairs: Sequence[tuple[str, str]] = ()
    arm: str | None = None
    preset: str | None = None
    size: str | None = None
    seed: int | None = None
    precision: str = "auto"
    config: Path | None = None
    over: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: Sequence[str] = ()
    recipe: str | None = None


def run_requests(
    wanted: Wanted,
    *,
    store: Path | None,
    device: str,
    console: Console,
    compiled: bool | None = None,
    **rest: Any,
) -> list[RunRequest]:
    """Resolved requests, one, or one for each stage of a recipe; says what was chosen for the user.

    ``rest`` goes to :class:`RunRequest`.

    Raises
    ------
    ConfigError
        when it cannot be what was asked for.
    """
    target = pick_device(device)
    file = load_toml(wanted.config) if wanted.config else {}
    if store is None:
        store = find_newest(FEATURES)
        console.say(f"store: {store} (the newest in {FEATURES})")
    # The file may say what it is laid over, where no flag does.
    preset = wanted.preset or _one_of("preset", file.get("preset", "sound"), PRESETS)
    size = wanted.size
    if size is None and "size" in file:
        size = _one_of("size", file["size"], SIZES)
    if size is None:
        size = default_size(target)
        console.say(f"size: {size} (device {target.type})")
    layers = [{}] if wanted.recipe is None else [s.over for s in stages(wanted.recipe, size)]  # type: ignore[arg-type]
    settings = parse_settings(wanted.settings)
    options = settings.pop(PAIRS, {})
    for name in ("preset", "size"):
        if name in settings:
            raise ConfigError(f"--set {name}=…: use --{name}, on which the other settings lie")
    precision = {} if wanted.precision == "auto" else {"precision": wanted.precision}
    if not precision and "precision" not in {**file, **settings} and preset != "paper":
        # The paper's numbers are float32's; asking for another format is up to the user.
        precision = {"precision": default_precision(target)}
    flags = given({**wanted.over, "seed": wanted.seed, **precision})
    requests = []
    for layer in layers:
        config = lay_over(preset, size, file, layer, flags, settings)  # type: ignore[arg-type]
        pairs: Sequence[tuple[str, str] | PairConfig] = config.pairs
        if wanted.arm is not None:
            pairs = arm_pairs(wanted.arm)
        elif wanted.pairs:
            pairs = wanted.pairs
        config = with_pairs(dataclasses.replace(config, pairs=()), _with_options(pairs, options))
        requests.append(
            RunRequest(
                config=config,
                store=store,
                device=device,
                compiled=default_compiled(target) if compiled is None else compiled,
                **rest,
            )
        )
    return requests


def lay_over(preset: Preset, size: Size, *layers: dict[str, Any]) -> RunConfig:
    """A preset with plain layers on top of it, the last one winning."""
    plain = to_plain(preset_config(preset, size))
    for layer in layers:
        plain = _merged(plain, {**layer, "preset": preset, "size": size}, size)
    return from_plain(RunConfig, plain)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """``["loss.name=siglip", "budget.epochs=5"]`` → nested plain data; values are TOML, or words."""
    settings: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {text}: give KEY=VALUE, for example loss.name=siglip")
        leaf: Any = _value(value.strip())
        for key in reversed(keys):
            leaf = {key: leaf}
        settings = merge(settings, leaf)
    return settings


def settings_of(config: RunConfig) -> list[str]:
    """Every setting of a resolved run as ``KEY=VALUE``, as ``--set`` takes it."""
    plain = to_plain(config)
    options = {f"{p.descriptor}-{p.mechanism}": to_plain(p.options) for p in config.pairs}
    chosen = {k: v for k, v in plain.items() if k not in ("preset", "size", PAIRS)}
    return [*_written(chosen, ""), *_written({PAIRS: options}, "")]


def given(over: dict[str, Any]) -> dict[str, Any]:
    """Only the values that were given."""
    cleaned = {
        key: given(value) if isinstance(value, dict) else value for key, value in over.items()
    }
    return {key: value for key, value in cleaned.items() if value not in (None, {})}


def _merged(base: dict[str, Any], over: dict[str, Any], size: Size) -> dict[str, Any]:
    merged = merge(base, over)
    for path, registry in CHOICES.items():
        before, after, said = (_at(plain, path) for plain in (base, merged, over))
        if not after or not before:
            continue
        if not isinstance(after, dict) or not isinstance(after.get("name"), str):
            raise ConfigError(f"config.{path} = {after!r}: say {path}.name = NAME")
        if not isinstance(after.get("options", {}), dict):
            raise ConfigError(f"config.{path}.options = {after['options']!r}: must be a table")
        if after["name"] == before["name"]:
            continue
        known = {f.name for f in dataclasses.fields(registry(after["name"]).Options)}
        kept = {k: v for k, v in before.get("options", {}).items() if k in known}
        own = FRONTEND_OPTIONS[size].get(after["name"], {}) if path == "audio.frontend" else {}
        after["options"] = {**own, **kept, **said.get("options", {})}
    return merged


def _at(plain: dict[str, Any], path: str) -> Any:
    """A copy-free look at a nested value; an empty dict where it is absent."""
    found: Any = plain
    for key in path.split("."):
        if not isinstance(found, dict):
            raise ConfigError(f"config.{path.partition('.')[0]} = {found!r}: must be a table")
        found = found.get(key, {})
    return found


def _with_options(
    pairs: Sequence[tuple[str, str] | PairConfig], options: dict[str, Any]
) -> list[PairConfig]:
    """Pairs with what ``--set pairs.A4-moe.gate=top1`` says of them."""
    made: list[PairConfig] = []
    if not isinstance(options, dict) or not all(isinstance(o, dict) for o in options.values()):
        raise ConfigError("--set pairs: give DESCRIPTOR-MECHANISM.OPTION=VALUE below it")
    left = dict(options)
    for pair in pairs:
        if not isinstance(pair, PairConfig):
            pair = PairConfig(descriptor=pair[0], mechanism=pair[1])
        over = left.pop(f"{pair.descriptor}-{pair.mechanism}", {})
        made.append(dataclasses.replace(pair, options={**pair.options, **over}))
    if left:
        have = ", ".join(f"{p.descriptor}-{p.mechanism}" for p in made) or "none"
        raise ConfigError(f"--set pairs.{next(iter(left))}: no such pair; this run has {have}")
    return made


def _written(plain: dict[str, Any], path: str) -> Iterator[str]:
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from _written(value, f"{path}{key}.")
        elif value is not None:  # TOML has no word for it
            yield f"{path}{key}={_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _one_of(name: str, value: Any, known: Sequence[str]) -> str:
    if value not in known:
        raise ConfigError(f"config.{name} = {value!r}: must be one of {', '.join(known)}")
    return str(value)
