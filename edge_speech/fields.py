"""Checked access to tables from outside (JSON, TOML): wrong or missing values become InputErrors."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_speech.errors import InputError


@dataclass(frozen=True)
class Table:
    """A mapping and where it came from; every getter raises InputError that names both."""

    data: Mapping[str, Any]
    where: str

    @staticmethod
    def of(value: object, where: str) -> Table:
        """Wrap `value`, which must be a table."""
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: expected a table, got {_shown(value)}")
        return Table(value, where)

    def only(self, *keys: str) -> Table:
        """The table itself, which must have no other keys."""
        for key in self.data:
            if key not in keys:
                raise InputError(f"{self.where}: unknown key {key!r}; {nearest(key, keys)}")
        return self

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self.data.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """An integer of [low, high]."""
        value = self.data.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(key, f"an integer from {low} to {high}")
        return value

    def boolean(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """A finite number of [low, high]."""
        value = self.data.get(key, default)
        if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
            raise self.wrong(key, f"a finite number from {low:g} to {high:g}")
        return float(value)

    def table(self, key: str, default: Mapping[str, Any] | None = None) -> Table:
        """A nested table."""
        return Table.of(self.data.get(key, default), f"{self.where}: {key}")

    def optional(self, key: str) -> dict[str, Any] | None:
        """A nested table or nothing."""
        return None if self.data.get(key) is None else dict(self.table(key).data)

    def tables(self, key: str, most: int) -> list[Table]:
        """A list of at most `most` tables; a missing key is an empty list."""
        items = self.data.get(key, [])
        if not isinstance(items, list) or len(items) > most:
            raise self.wrong(key, f"a list of at most {most} tables")
        return [Table.of(item, f"{self.where}: {key}[{i}]") for i, item in enumerate(items)]

    def strings(self, key: str) -> tuple[str, ...]:
        """A non-empty list of strings."""
        items = self.data.get(key)
        if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
            raise self.wrong(key, "a non-empty list of strings")
        return tuple(items)

    def numbers(self, key: str, keys: Iterable[str], low: float, high: float) -> dict[str, float]:
        """A non-empty table of finite numbers of [low, high], whose keys are among `keys`."""
        table = self.table(key).only(*keys)
        if not table.data:
            raise self.wrong(key, "a table with at least one entry")
        return {name: table.number(name, low, high) for name in table.data}

    def integers(self, key: str, most: int, low: int, high: int) -> tuple[int, ...]:
        """A list of 1 to `most` integers of [low, high]."""
        items = self.data.get(key)
        if not isinstance(items, (list, tuple)) or not 1 <= len(items) <= most:
            raise self.wrong(key, f"a list of 1 to {most} integers")
        if not all(type(item) is int and low <= item <= high for item in items):
            raise self.wrong(key, f"a list of integers from {low} to {high}")
        return tuple(items)

    def wrong(self, key: str, allowed: str) -> InputError:
        """The error for `key`, to be raised by the caller."""
        got = _shown(self.data[key]) if key in self.data else "nothing"
        return InputError(f"{self.where}: {key!r} must be {allowed}, got {got}")


def nearest(name: str, known: Iterable[str]) -> str:
    """What to try instead of an unknown `name`."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
