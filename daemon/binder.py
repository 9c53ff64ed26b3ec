"""Tables of a TOML file into frozen dataclasses: strict, and every mistake at once.

A dataclass field may carry in its metadata `key` (the name in the file, where that differs from the
attribute, as `every` does from `every_s`), `parse` (a name from PARSERS, for text with a unit), `doc`,
`example` and `variants` (classes chosen by the table's `kind`). Plain data, so that drivers and rules
can describe their own settings without importing the daemon.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = typing.TypeVar("T")

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "days": 86400.0, "years": 31557600.0}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")
_SERIAL = re.compile(r"(\d+) ([5-8])([NEO])(1|1\.5|2)")


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it stands, and one sentence that names the remedy."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclasses.dataclass(frozen=True, slots=True)
class SerialMode:
    """`9600 8N1` taken apart."""

    baud: int
    data_bits: int
    parity: Literal["N", "E", "O"]
    stop_bits: float

    @property
    def bits_per_character(self) -> float:
        return 1 + self.data_bits + (self.parity != "N") + self.stop_bits


def _quantity(text: str, units: Mapping[str, float], example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} needs a number and one of the units {', '.join(units)}, as in {example!r}")
    return float(match[1]) * units[match[2]]


def duration_s(text: str) -> float:
    """`"10 min"` in seconds."""
    return _quantity(text, _SECONDS, "10 min")


def size_bytes(text: str) -> int:
    """`"8 GB"` in bytes, decimal multiples."""
    return int(_quantity(text, _BYTES, "8 GB"))


def serial_mode(text: str) -> SerialMode:
    """`"9600 8N1"`: baud, data bits, parity, stop bits."""
    match = _SERIAL.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no serial mode: write baud, data bits, parity, stop bits, as in '9600 8N1'")
    parity: Any = match[3]
    return SerialMode(int(match[1]), int(match[2]), parity, float(match[4]))


PARSERS: dict[str, Callable[[str], Any]] = {
    "duration": duration_s,
    "size": size_bytes,
    "serial": serial_mode,
}


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'every'?`, or nothing when no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def bind(cls: type[T], table: object, path: str, problems: list[Problem]) -> T | None:
    """`table` as a `cls`, or None after adding to `problems` all that is wrong with it.

    Args:
        cls: a dataclass; its annotations are the schema.
        table: what tomllib made of the table.
        path: where it stands in the file, as `channel[3].calibration`; empty for the whole file.
        problems: every mistake is appended here; nothing is raised.
    """
    if not isinstance(table, dict):
        problems.append(Problem(path, f"must be a table, not {_kind(table)}"))
        return None
    before = len(problems)
    hints = typing.get_type_hints(cls)
    fields = {f.metadata.get("key", f.name): f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            problems.append(Problem(_join(path, key), f"unknown key{nearest(key, fields)}"))
    values: dict[str, Any] = {}
    for key, f in fields.items():
        if key in table:
            values[f.name] = _value(hints[f.name], f.metadata, table[key], _join(path, key), problems)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            problems.append(Problem(_join(path, key), f"is missing{_example(f.metadata)}"))
    return cls(**values) if len(problems) == before else None


def _value(hint: Any, metadata: Mapping[str, Any], value: object, path: str, problems: list[Problem]) -> Any:
    """`value` as `hint` says; problems hold what is wrong, and then the result is never used."""
    if "variants" in metadata:
        return _variant(metadata["variants"], value, path, problems)
    if "parse" in metadata:
        return _parsed(metadata["parse"], metadata, value, path, problems)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (a for a in args if a is not type(None))
        return _value(inner, metadata, value, path, problems)
    if origin is tuple:
        return _sequence(args, metadata, value, path, problems)
    if origin is Literal:
        if value not in args or isinstance(value, bool) is not isinstance(args[0], bool):
            allowed = ", ".join(repr(a) for a in args)
            problems.append(Problem(path, f"{value!r} is none of {allowed}{nearest(str(value), map(str, args))}"))
        return value
    if dataclasses.is_dataclass(hint):
        return bind(typing.cast("type[Any]", hint), value, path, problems)
    return _scalar(hint, metadata, value, path, problems)


def _scalar(hint: Any, metadata: Mapping[str, Any], value: object, path: str, problems: list[Problem]) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        problems.append(Problem(path, f"must be {_NAMES.get(hint, hint)}, not {_kind(value)}{_example(metadata)}"))
    elif isinstance(value, float) and not math.isfinite(value):
        problems.append(Problem(path, "must be a finite number"))
    return value


def _sequence(args: Any, metadata: Mapping[str, Any], value: object, path: str, problems: list[Problem]) -> Any:
    if not isinstance(value, list):
        problems.append(Problem(path, f"must be a list, not {_kind(value)}{_example(metadata)}"))
        return ()
    if args[-1] is Ellipsis:
        return tuple(_value(args[0], {}, v, f"{path}[{i}]", problems) for i, v in enumerate(value))
    if len(value) != len(args):
        problems.append(Problem(path, f"must have {len(args)} members, not {len(value)}{_example(metadata)}"))
        return ()
    return tuple(
        _value(a, {}, v, f"{path}[{i}]", problems) for i, (a, v) in enumerate(zip(args, value, strict=True))
    )


def _variant(variants: Mapping[str, type], value: object, path: str, problems: list[Problem]) -> Any:
    if not isinstance(value, dict):
        problems.append(Problem(path, f"must be a table with a kind, not {_kind(value)}"))
        return None
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in variants:
        known = ", ".join(variants)
        said = "is missing" if kind is None else f"{kind!r} is unknown"
        problems.append(Problem(_join(path, "kind"), f"{said}: one of {known}{nearest(str(kind), variants)}"))
        return None
    settings = {k: v for k, v in value.items() if k != "kind"}
    return bind(variants[kind], settings, path, problems)


def _parsed(
    parser: str, metadata: Mapping[str, Any], value: object, path: str, problems: list[Problem]
) -> object:
    if not isinstance(value, str):
        problems.append(Problem(path, f"must be text with its unit, not {_kind(value)}{_example(metadata)}"))
        return None
    try:
        return PARSERS[parser](value)
    except ValueError as error:
        problems.append(Problem(path, str(error)))
        return None


_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _kind(value: object) -> str:
    return _NAMES.get(type(value), {list: "a list", dict: "a table"}.get(type(value), type(value).__name__))


def _example(metadata: Mapping[str, Any]) -> str:
    return f", as in {metadata['example']}" if "example" in metadata else ""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
