"""One table of a profile, read strictly: what is asked for is taken, what is left over is a mistake.

A `Table` never raises: it notes each problem with its key and the remedy and hands out a stand-in, so
that one reading of a file finds all its mistakes.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)")
_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}


class Table:
    """The keys of one TOML table at `path`; `problems` is shared by all tables of a file."""

    def __init__(self, content: Mapping[str, object], path: str, problems: list[str]) -> None:
        self.path = path
        self.problems = problems
        self._content = content
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._content

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._content)

    def where(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path and key else self.path or key

    def wrong(self, key: str, remedy: str) -> None:
        self.problems.append(f"{self.where(key)}: {remedy}")

    def value(self, key: str) -> object:
        """Whatever stands at `key`, or None; the key counts as known."""
        self._asked.add(key)
        return self._content.get(key)

    def _of(self, kind: type[T], key: str, default: T | None, stand_in: T) -> T:
        """The value at `key` if it is a `kind`; without a default the key must be there."""
        value = self.value(key)
        if value is None:
            if default is None:
                self.wrong(key, f"is missing; give {_NAMES[kind]}")
            return stand_in if default is None else default
        if type(value) is not kind:
            self.wrong(key, f"must be {_NAMES[kind]}, not {value!r}")
            return stand_in
        return value

    def text(self, key: str, default: str | None = None) -> str:
        return self._of(str, key, default, "")

    def flag(self, key: str) -> bool:
        return self._of(bool, key, False, False)  # noqa: FBT003 -- a value, not a switch

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        number = self._of(int, key, default, low)
        if not low <= number <= high:
            self.wrong(key, f"is {number}; it must lie within {low} .. {high}")
            return low
        return number

    def number(self, key: str, default: float) -> float:
        value = self.value(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.wrong(key, f"must be a finite number, not {value!r}")
            return default
        return float(value)

    def choice(self, key: str, allowed: Iterable[T], default: T | None = None) -> T:
        known = list(allowed)
        if default is not None and key not in self:
            self._asked.add(key)
            return default
        value = self.value(key)
        for member in known:
            if type(value) is type(member) and value == member:
                return member
        said = "is missing" if value is None else f"{value!r} is unknown"
        near = nearest(str(value), map(str, known))
        self.wrong(key, f"{said}; one of {', '.join(map(str, known))}{near}")
        return known[0]

    def duration_s(self, key: str, default: float | None = None) -> float:
        if default is not None and key not in self:
            self._asked.add(key)
            return default
        match = _DURATION.fullmatch(self.text(key, "" if key in self else None))
        if match is not None and match[2] in _SECONDS:
            return float(match[1]) * _SECONDS[match[2]]
        if key in self:
            self.wrong(key, 'needs a number and one of the units ms, s, min, h, as in "500 ms"')
        return 0.0

    def strings(self, key: str) -> tuple[str, ...]:
        value = self._of(list, key, None, [])
        if not all(isinstance(v, str) for v in value):
            self.wrong(key, "must be a list of texts")
            return ()
        return tuple(value)

    def table(self, key: str) -> Table:
        """The table at `key`, an empty one if it is absent."""
        return Table(self._of(dict, key, {}, {}), self.where(key), self.problems)

    def named(self, key: str) -> dict[str, Table]:
        """Tables with names of their own, as `[point.level]`."""
        group = self.table(key)
        return {name: group.table(name) for name in group.keys}

    def array(self, key: str) -> list[Table]:
        """A list of tables, as `[[proof]]`; empty if it is absent."""
        tables = []
        for i, member in enumerate(self._of(list, key, [], [])):
            if isinstance(member, dict):
                tables.append(Table(member, f"{self.where(key)}[{i}]", self.problems))
            else:
                self.wrong(f"{key}[{i}]", f"must be a table, not {member!r}")
        return tables

    def finish(self) -> None:
        """Every key nobody asked for is a mistake."""
        for key in self._content:
            if key not in self._asked:
                self.wrong(key, f"unknown key{nearest(key, self._asked)}; remove it")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'order'?`, or nothing when no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
