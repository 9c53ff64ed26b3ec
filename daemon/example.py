"""`config/site.example.toml`, made from the types of the site file: `python -m daemon.example` writes it.

Every key is in it, with what it means, its unit and its default. What stands uncommented is a small, whole
site that loads; what a key could be instead, and every kind of calibration and derivation, stands beside it
commented out.
"""

from __future__ import annotations

import dataclasses
import sys
import textwrap
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from daemon.binder import SerialMode
from daemon.config import File

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATH = Path(__file__).parents[1] / "config" / "site.example.toml"

_HEAD = """\
The site file of Pondwatch with every key. It is made from the program's own types
(python -m daemon.example), so it is never behind them. A line that begins with "#key =" shows a key
that may be left out, and its default or an example. Durations carry their unit: ms, s, min, h, d,
years. `pondwatch check --config FILE` names every mistake at once.
"""

# The example site: for each table, the rows, and for each row the keys that stand uncommented.
_ROWS: Mapping[str, list[dict[str, str]]] = {
    "site": [{"id": '"liaocheng-1"', "gateway": '"gw1"', "name": '"聊城一号库"'}],
    "store": [{}],
    "metrics": [{}],
    "page": [{}],
    "rules": [{}],
    "pond": [{"id": '"n"', "name": '"北库"', "kind": '"wet"', "grade": "3"}],
    "section": [{"id": '"2-2"', "pond": '"n"'}],
    "line": [
        {
            "id": '"rs485-1"', "kind": '"modbus-rtu"', "port": '"/dev/pondwatch/rs485-1"',
            "serial": '"9600 8N1"',
        },
        {
            "id": '"gnss-1"', "kind": '"serial"', "port": '"/dev/pondwatch/gnss-1"',
            "serial": '"115200 8N1"',
        },
    ],
    "device": [
        {
            "id": '"vw1"', "line": '"rs485-1"', "profile": '"wenkon-vtn416"', "every": '"10 min"',
            "unit": "1",
        },
        {
            "id": '"weather"', "line": '"rs485-1"', "profile": '"campbell-metsens300"', "every": '"10 min"',
            "unit": "2",
        },
        {
            "id": '"relay1"', "line": '"rs485-1"', "profile": '"waveshare-relay-8"', "every": '"10 min"',
            "unit": "3",
        },
        {
            "id": '"gnss1"', "line": '"gnss-1"', "profile": '"nmea-gga-gst"', "every": '"1 min"',
            "baseline": "{ latitude_deg = 36.123456789, longitude_deg = 115.987654321, height_m = 84.1234 }",
        },
    ],
    "channel": [
        {
            "id": '"n.pz03.pressure"', "unit": '"kPa"', "item": '"phreatic-line"', "pond": '"n"',
            "section": '"2-2"', "monitoring_point": '"PZ03"', "from": '"vw1.freq03"',
            "temperature": '"vw1.temp03"', "barometer": '"weather.pressure"', "span": "[-5, 350]",
            "calibration": '{ kind = "vibrating-wire", family = "geokon", zero_digits = 9082, '
            "zero_celsius = 22.0, zero_hpa = 1008.2, kpa_per_digit = -0.1795, kpa_per_celsius = 0.1319 }",
        },
        {
            "id": '"n.pz03.elevation"', "unit": '"m"', "item": '"phreatic-line"', "pond": '"n"',
            "section": '"2-2"', "monitoring_point": '"PZ03"',
            "derive": '{ kind = "piezometric-elevation", of = "n.pz03.pressure", tip_elevation_m = 78.42, '
            'datum = "1985" }',
            "levels": "{ rising = true, blue = 84.0, yellow = 85.0, orange = 86.0, red = 87.0, "
            'hysteresis = 0.2, hold = "20 min", source = "design report 2024-07, table 5-3", '
            'approver = "王工, 2024-09-01" }',
            "uncertainty": "0.05",
            "advice": "{ hampel = true, resolution = 0.005 }",
        },
    ],
    "output": [{"id": '"siren-n"', "device": '"relay1"', "write": '"relay1"', "pond": '"n"'}],
    "alarms": [{}],
    "person": [
        {"id": '"wang"', "name": '"王工"', "role": '"supervisor"'},
        {"id": '"li"', "name": '"李伟"', "role": '"duty"'},
    ],
    "duty": [
        {"id": '"day"', "from": '"08:00"', "until": '"20:00"', "person": '"li"', "supervisor": '"wang"'},
        {"id": '"night"', "from": '"20:00"', "until": '"08:00"', "person": '"li"', "supervisor": '"wang"'},
    ],
    "uplink": [
        {"id": '"company"', "kind": '"mqtt"', "url": '"mqtts://broker.example:8883"', "settle": '"receipt"'}
    ],
}  # fmt: skip


def text() -> str:
    """The whole example file."""
    parts = [_comment(_HEAD)]
    hints = typing.get_type_hints(File)
    for f in dataclasses.fields(File):
        name = f.metadata.get("key", f.name)
        hint = hints[f.name]
        listed = get_origin(hint) is tuple
        kinds: Mapping[str, type] = f.metadata.get("variants", {})
        cls = next(iter(kinds.values())) if kinds else get_args(hint)[0] if listed else hint
        head = f"[[{name}]]" if listed else f"[{name}]"
        first, *more = _ROWS[name]
        parts.append("\n".join(_documented(cls, head, first)))
        parts += ["\n".join([head, *(f"{key} = {value}" for key, value in row.items())]) for row in more]
        parts += ["\n".join(_other_kind(head, kind, other)) for kind, other in list(kinds.items())[1:]]
    return "\n\n".join(parts) + "\n"


def _other_kind(head: str, kind: str, cls: type) -> Iterator[str]:
    """A table of another kind, all of it commented out."""
    yield _comment(f'{head} of kind = "{kind}". {_own_doc(cls)}')
    yield _comment(head, first="#     ")
    for f, hint in _fields(cls):
        key = f.metadata.get("key", f.name)
        doc = f"{key} = {_shown(f)}: {f.metadata['doc']} ({_what(f, hint)})"
        yield _comment(doc, first="#     ", then="#       ")
        yield from _inner(f, hint)


def _documented(cls: type, head: str, row: Mapping[str, str]) -> Iterator[str]:
    """A table with every key explained."""
    if _own_doc(cls):
        yield _comment(_own_doc(cls))
    yield head
    for f, hint in _fields(cls):
        key = f.metadata.get("key", f.name)
        yield _comment(f"{f.metadata['doc']} ({_what(f, hint)})", first="# ")
        yield f"{key} = {row[key]}" if key in row else f"#{key} = {_shown(f)}"
        yield from _inner(f, hint)


def _inner(f: dataclasses.Field[Any], hint: Any) -> Iterator[str]:
    """The keys of a table within a table; of every kind, where there are several."""
    inner = _plain(hint)
    if get_origin(inner) is tuple and dataclasses.is_dataclass(get_args(inner)[0]):
        inner = get_args(inner)[0]
    kinds: Mapping[str, type] = f.metadata.get("variants", {})
    if not kinds and dataclasses.is_dataclass(inner) and inner is not SerialMode:
        kinds = {"": typing.cast("type", inner)}
    for kind, cls in kinds.items():
        if kind:
            about = _own_doc(cls).partition("\n")[0]
            yield _comment(f'kind = "{kind}": {about}', first="#   ", then="#     ")
        for each, its_hint in _fields(cls):
            key = each.metadata.get("key", each.name)
            doc = f"{key} = {_shown(each)}: {each.metadata['doc']} ({_what(each, its_hint)})"
            yield _comment(doc, first="#     ", then="#       ")


def _fields(cls: type) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        yield f, hints[f.name]


def _what(f: dataclasses.Field[Any], hint: Any) -> str:
    """What may stand there, and what holds when nothing does."""
    allowed = _plain(hint)
    said = [" | ".join(map(str, get_args(allowed)))] if get_origin(allowed) is Literal else []
    for key, words in (("min", "at least"), ("exclusive_min", "more than"), ("max", "at most")):
        if key in f.metadata:
            said.append(f"{words} {f.metadata[key]:g}{' s' if f.metadata.get('parse') == 'duration' else ''}")
    if f.default is dataclasses.MISSING:
        said.append("required")
    elif f.default in (None, "", ()):
        said.append("may be left out")
    elif f.metadata.get("parse") or not dataclasses.is_dataclass(f.default):
        said.append(f"default {_toml(f)}")
    return "; ".join(said) or "may be left out"


def _shown(f: dataclasses.Field[Any]) -> str:
    """The default where there is one to show, the example otherwise."""
    none = f.default is dataclasses.MISSING or f.default in (None, "", ())
    table = dataclasses.is_dataclass(f.default) and "parse" not in f.metadata
    return str(f.metadata["example"]) if none or table else _toml(f)


def _toml(f: dataclasses.Field[Any]) -> str:
    """A field's default as it would be written."""
    value: Any = f.default
    if f.metadata.get("parse") == "duration":
        return f'"{_duration(value)}"'
    if f.metadata.get("parse") == "size":
        return f'"{_size(value)}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{each}"' for each in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str | SerialMode) else str(value)


def _duration(seconds: float) -> str:
    for unit, length_s in (("years", 31557600.0), ("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= length_s and seconds % length_s == 0:
            return f"{seconds / length_s:g} {unit}"
    return f"{seconds * 1000:g} ms" if seconds else "0 s"


def _size(size_bytes: int) -> str:
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= length and size_bytes % length == 0:
            return f"{size_bytes // length} {unit}"
    return f"{size_bytes} B"


def _plain(hint: Any) -> Any:
    """The hint without `| None`."""
    if get_origin(hint) in (types.UnionType, typing.Union):
        return next(a for a in get_args(hint) if a is not type(None))
    return hint


def _own_doc(cls: type) -> str:
    """The class's docstring; the one that dataclasses make up counts for none."""
    doc = textwrap.dedent(cls.__doc__ or "").strip()
    return "" if doc.startswith(f"{cls.__name__}(") else doc


def _comment(words: str, first: str = "# ", then: str = "") -> str:
    return "\n".join(
        textwrap.fill(
            " ".join(paragraph.split()),
            110,
            initial_indent=first,
            subsequent_indent=then or first,
            break_on_hyphens=False,
        )
        for paragraph in words.strip().split("\n\n")
    )


def main() -> int:
    PATH.write_text(text())
    sys.stdout.write(f"{PATH} written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
