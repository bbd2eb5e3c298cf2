"""Frozen dataclasses ↔ plain data, with a hash over the *whole* resolved value.

A configuration is one nested frozen dataclass. Unknown keys raise; a value of the wrong type
raises; the hash covers every field, defaults included, so that an edited default is a new run and
never an old one under a new name.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from pipeline.base.errors import ConfigError

T = TypeVar("T")
SCALARS = frozenset((str, int, float, bool))


def to_plain(value: Any) -> Any:
    """Dataclasses → dicts, tuples → lists; JSON scalars stay."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value


def from_plain(kind: type[T], data: Any, where: str = "config") -> T:
    """Build the dataclass ``kind`` from nested plain data.

    Raises
    ------
    ConfigError
        on an unknown key, a missing key without default, or a value of the wrong type.
    """
    return typing.cast(T, _build(kind, data, where))


def digest(value: Any, length: int = 12) -> str:
    """First ``length`` hexadecimal digits of the SHA-256 of the canonical JSON of ``value``."""
    return digest_plain(to_plain(value), length)


def digest_plain(value: Any, length: int = 12) -> str:
    """:func:`digest` of what is plain already, such as JSON that was read."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a missing or malformed one is a :class:`ConfigError`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the leaves of ``over`` laid on top, nested dicts merged."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _build(kind: Any, data: Any, where: str) -> Any:
    if kind is type(data) and kind in SCALARS:  # most of what is read; plans have thousands
        return data
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, data, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in args:
            return None
        return _build(next(a for a in args if a is not type(None)), data, where)
    if origin is typing.Literal:
        if data not in args:
            raise ConfigError(f"{where} = {data!r}: must be one of {', '.join(map(str, args))}")
        return data
    if origin is tuple and isinstance(data, (list, tuple)):
        return tuple(_build(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is dict and isinstance(data, dict):
        if args[1] is Any:
            return {str(k): v for k, v in data.items()}
        return {str(k): _build(args[1], v, f"{where}.{k}") for k, v in data.items()}
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is Any:
        return data
    if origin is not None:
        raise ConfigError(f"{where} = {data!r}: must be a {'list' if origin is tuple else 'table'}")
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise ConfigError(f"{where} = {data!r}: must be {getattr(kind, '__name__', kind)}")
    return data


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@functools.cache
def _fields(kind: Any) -> dict[str, bool]:
    """Name of a field → whether it must be given."""
    missing = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    return {f.name: f.default is missing and f.default_factory is missing for f in fields}


def _build_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{where} must be a table, not {type(data).__name__}")
    hints, fields = _hints(kind), _fields(kind)
    for key in data:
        if key not in fields:
            raise ConfigError(f"{where}.{key} is unknown; known: {', '.join(fields)}")
    for name, required in fields.items():
        if required and name not in data:
            raise ConfigError(f"{where}.{name} is missing")
    return kind(**{k: _build(hints[k], v, f"{where}.{k}") for k, v in data.items()})
