"""Names → things, in one place per kind: CLI choices, listings, docs and tests all follow from it.

A registry is filled by a decorator; a name can be taken once. Packages outside this one may add
entries through a Python entry point, which is read at the first look-up.
"""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pipeline.base.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """An ordered, write-once table of named things of one ``kind`` (a word for messages)."""

    def __init__(self, kind: str, *, entry_point: str | None = None) -> None:
        self.kind = kind
        self._entry_point = entry_point
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Register ``item``; a second one under the same name raises :class:`ConfigError`."""
        if name in self._items and self._items[name] is not item:
            raise ConfigError(f"{self.kind} '{name}' is registered twice")
        self._items[name] = item
        return item

    def register(self, name: str) -> Callable[[T], T]:
        """Use as ``@registry.register("name")`` above a class or function."""
        return lambda item: self.add(name, item)

    def get(self, name: str) -> T:
        """The thing of that name; an unknown name raises and suggests the nearest."""
        self._load_entry_points()
        if name not in self._items:
            near = difflib.get_close_matches(name, self._items, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise ConfigError(
                f"unknown {self.kind} '{name}': {hint}known: {', '.join(self._items) or 'none'}"
            )
        return self._items[name]

    def names(self) -> list[str]:
        """All names, in the order they were registered."""
        self._load_entry_points()
        return list(self._items)

    def items(self) -> list[tuple[str, T]]:
        """All (name, thing) pairs, in the order they were registered."""
        self._load_entry_points()
        return list(self._items.items())

    def __contains__(self, name: object) -> bool:
        self._load_entry_points()
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _load_entry_points(self) -> None:
        if self._entry_point is None:
            return
        group, self._entry_point = self._entry_point, None
        for point in importlib.metadata.entry_points(group=group):
            try:
                point.load()
            except Exception as error:
                self._entry_point = group
                package = point.dist.name if point.dist else point.value
                raise ConfigError(
                    f"{self.kind} '{point.name}' of the package {package} cannot be loaded "
                    f"({type(error).__name__}: {error}); repair or uninstall that package"
                ) from error
