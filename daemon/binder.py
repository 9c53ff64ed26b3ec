"""Tables of a TOML file into frozen dataclasses: strict, and every mistake at once.

A dataclass field may carry in its metadata `key` (the name in the file, where that differs from the
attribute, as `every` does from `every_s`), `parse` (a name from PARSERS, for text with a unit), `doc`,
`example`, `variants` (classes chosen by the table's `kind`), and `min`, `exclusive_min`, `max` or
`pattern`, which hold for the parsed value. Plain data, so that drivers and rules can describe their own
settings without importing the daemon.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import difflib
import functools
import math
import operator
import re
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = typing.TypeVar("T")

_SECONDS = {
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "days": 86400.0,
    "years": 31557600.0,
}
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

    def __str__(self) -> str:
        return f"{self.baud} {self.data_bits}{self.parity}{self.stop_bits:g}"

    @property
    def bits_per_character(self) -> float:
        return 1 + self.data_bits + (self.parity != "N") + self.stop_bits


def _quantity(text: str, units: Mapping[str, float], example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(
            f"{text!r} needs a number and one of the units {', '.join(units)}, as in {example!r}"
        )
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
        raise ValueError(
            f"{text!r} is no serial mode: write baud, data bits, parity, stop bits, as in '9600 8N1'"
        )
    parity: Any = match[3]
    return SerialMode(int(match[1]), int(match[2]), parity, float(match[4]))


def date(text: str) -> dt.date:
    """`"2026-06-01"`, a local day."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date, as in '2026-06-01'") from None


def instant(text: str) -> dt.datetime:
    """`"2026-05-10T09:30:00+08:00"`, an instant; without its offset it is none."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{text!r} is no instant with its offset, as in '2026-05-10T09:30:00+08:00'")
    return moment


def clock(text: str) -> dt.time:
    """`"20:00"`, a local time of day."""
    try:
        return dt.datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007 -- a time of day, no instant
    except ValueError:
        raise ValueError(f"{text!r} is no time of day, as in '20:00'") from None


def bytes_per_s(text: str) -> float:
    """`"20 kB/s"` in bytes a second."""
    amount, slash, per = text.rpartition("/")
    if not slash or per.strip() != "s":
        raise ValueError(f"{text!r} needs a size for each second, as in '20 kB/s'")
    return _quantity(amount, _BYTES, "20 kB/s")


PARSERS: dict[str, Callable[[str], Any]] = {
    "duration": duration_s,
    "size": size_bytes,
    "rate": bytes_per_s,
    "serial": serial_mode,
    "date": date,
    "instant": instant,
    "clock": clock,
}


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'every'?`, or nothing when no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Broken:
    """Stands for a table that could not be bound.

    So the others of its list keep their index, and who refers to its `id` is not told that it does not exist.
    """

    id: str


_BAD = object()  # a value whose problem has been written down


def bind(cls: type[T], table: object, path: str, problems: list[Problem]) -> T | None:
    """`table` as a `cls`, or None if something of its own is wrong with it.

    A list of tables is kept even if some of its members are not well, and so is the whole file: those
    tables are `Broken` in it. The result may be used only if no problem was added.

    Args:
        cls: a dataclass; its annotations are the schema.
        table: what tomllib made of the table.
        path: where it stands in the file, as `channel[3].calibration`; empty for the whole file.
        problems: every mistake is appended here; nothing is raised.
    """
    if not isinstance(table, dict):
        problems.append(Problem(path, f"must be a table, not {_kind(table)}"))
        return None
    fields = _schema(typing.cast("typing.Hashable", cls))
    values: dict[str, Any] = {}
    stray = False
    for key in table:
        if key not in fields:
            problems.append(Problem(_join(path, key), f"unknown key{nearest(key, fields)}"))
            stray = True
    for key, (f, hint) in fields.items():
        if key in table:
            values[f.name] = _value(hint, f.metadata, table[key], _join(path, key), problems)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            problems.append(Problem(_join(path, key), f"is missing{_example(f.metadata)}"))
            values[f.name] = _BAD
    if not path:  # the file stands, so that what is well in it can be cross-checked
        values = {name: Broken("") if value is _BAD else value for name, value in values.items()}
    elif stray or any(value is _BAD for value in values.values()):
        return None
    return cls(**values)


@functools.cache
def _schema(cls: Any) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Key in the file -> field and type; working the types out anew for each row would take longest."""
    hints = typing.get_type_hints(cls)
    return {f.metadata.get("key", f.name): (f, hints[f.name]) for f in dataclasses.fields(cls) if f.init}


def _value(hint: Any, metadata: Mapping[str, Any], value: object, path: str, problems: list[Problem]) -> Any:
    """`value` as `hint` says, or _BAD and a problem more."""
    origin, args = get_origin(hint), get_args(hint)
    if "variants" in metadata and origin is not tuple:
        return _variant(metadata["variants"], value, path, problems)
    if origin in (types.UnionType, typing.Union):
        (hint,) = (a for a in args if a is not type(None))
        origin, args = get_origin(hint), get_args(hint)
    if "parse" in metadata:
        return _parsed(metadata["parse"], metadata, value, path, problems)
    if origin is tuple:
        return _sequence(args, metadata, value, path, problems)
    if origin is Literal:
        return _choice(args, value, path, problems)
    if dataclasses.is_dataclass(hint):
        return _or_bad(bind(typing.cast("type[Any]", hint), value, path, problems))
    return _scalar(hint, metadata, value, path, problems)


def _or_bad(bound: Any) -> Any:
    return _BAD if bound is None else bound


def _choice(allowed: tuple[Any, ...], value: object, path: str, problems: list[Problem]) -> Any:
    if any(type(value) is type(a) and value == a for a in allowed):
        return value
    listed = ", ".join(repr(a) for a in allowed)
    problems.append(Problem(path, f"{value!r} is none of {listed}{nearest(str(value), map(str, allowed))}"))
    return _BAD


def _scalar(hint: Any, metadata: Mapping[str, Any], value: object, path: str, problems: list[Problem]) -> Any:
    if type(value) is int and value.bit_length() > 63:  # noqa: PLR2004 -- TOML's own range
        problems.append(Problem(path, "is larger than TOML allows"))
        return _BAD
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        problems.append(Problem(path, f"must be {_NAMES[hint]}, not {_kind(value)}{_example(metadata)}"))
        return _BAD
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(Problem(path, "must be a finite number"))
        return _BAD
    return _within(metadata, value, path, problems)


def _within(metadata: Mapping[str, Any], value: Any, path: str, problems: list[Problem]) -> Any:
    """`value`, if it keeps what the field's metadata says of its range or pattern."""
    for bound, broken, words in _BOUNDS:
        if bound in metadata and broken(value, metadata[bound]):
            problems.append(Problem(path, f"must be {words} {metadata[bound]}{_example(metadata)}"))
            return _BAD
    if "pattern" in metadata and re.fullmatch(metadata["pattern"], value) is None:
        problems.append(Problem(path, f"{value!r} must be written {metadata['pattern']}{_example(metadata)}"))
        return _BAD
    return value


_BOUNDS: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("min", operator.lt, "at least"),
    ("exclusive_min", operator.le, "more than"),
    ("max", operator.gt, "at most"),
)


def _sequence(
    args: Any, metadata: Mapping[str, Any], value: object, path: str, problems: list[Problem]
) -> Any:
    if not isinstance(value, list):
        tables = ("variants" in metadata or dataclasses.is_dataclass(args[0])) and isinstance(value, dict)
        remedy = f": write [[{path}]]" if tables else _example(metadata)
        problems.append(Problem(path, f"must be a list, not {_kind(value)}{remedy}"))
        return _BAD
    if args[-1] is not Ellipsis and len(value) != len(args):
        problems.append(Problem(path, f"must have {len(args)} members, not {len(value)}{_example(metadata)}"))
        return _BAD
    hints = [args[0]] * len(value) if args[-1] is Ellipsis else args
    of_each = {"variants": metadata["variants"]} if "variants" in metadata else {}
    members = [
        _value(hint, of_each, member, f"{path}[{i}]", problems)
        for i, (hint, member) in enumerate(zip(hints, value, strict=True))
    ]
    if "variants" in metadata or dataclasses.is_dataclass(args[0]):
        return tuple(_broken(v) if m is _BAD else m for m, v in zip(members, value, strict=True))
    return _BAD if _BAD in members else tuple(members)


def _broken(table: object) -> Broken:
    match table:
        case {"id": str(name)}:
            return Broken(name)
        case _:
            return Broken("")


def _variant(variants: Mapping[str, type], value: object, path: str, problems: list[Problem]) -> Any:
    if not isinstance(value, dict):
        problems.append(Problem(path, f"must be a table with a kind, not {_kind(value)}"))
        return _BAD
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in variants:
        known = ", ".join(variants)
        said = "is missing" if kind is None else f"{kind!r} is unknown"
        problems.append(Problem(_join(path, "kind"), f"{said}: one of {known}{nearest(str(kind), variants)}"))
        return _BAD
    cls = variants[kind]
    known_by_kind = "kind" in _schema(typing.cast("typing.Hashable", cls))
    settings = {k: v for k, v in value.items() if k != "kind" or known_by_kind}
    return _or_bad(bind(cls, settings, path, problems))


def _parsed(
    parser: str, metadata: Mapping[str, Any], value: object, path: str, problems: list[Problem]
) -> Any:
    if not isinstance(value, str):
        problems.append(Problem(path, f"must be text, not {_kind(value)}{_example(metadata)}"))
        return _BAD
    try:
        parsed = PARSERS[parser](value)
    except ValueError as error:
        problems.append(Problem(path, str(error)))
        return _BAD
    return _within(metadata, parsed, path, problems)


_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def _kind(value: object) -> str:
    return _NAMES.get(type(value), f"a {type(value).__name__}")


def _example(metadata: Mapping[str, Any]) -> str:
    return f", as in {metadata['example']}" if "example" in metadata else ""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
