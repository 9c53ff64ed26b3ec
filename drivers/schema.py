"""`drivers/profiles/schema.json`, the JSON Schema by which editors check a profile as it is typed.

`python -m drivers.schema` writes it. Words (types, orders, dialects) come from the parser itself; that the
keys are the parser's too, and that both refuse the same, is held by a test.
"""

from __future__ import annotations

import json
import sys
from typing import Any, get_args

from drivers.decode import ORDERS, TYPES
from drivers.model import Speaks, Trust
from drivers.points import CHECKS, UNITS
from drivers.profile import BUILT_IN, CODECS, MOST_IDENTITY

PATH = BUILT_IN / "schema.json"
Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "number"}


def _table(properties: Schema, *required: str, says: str = "") -> Schema:
    about = {"description": says} if says else {}
    needs = {"required": list(required)} if required else {}
    return {"type": "object", **about, "properties": properties, **needs, "additionalProperties": False}


def _named(one: Schema, says: str) -> Schema:
    return {"type": "object", "description": says, "additionalProperties": one}


def _list(of: Schema, says: str = "", **more: int) -> Schema:
    return {"type": "array", **({"description": says} if says else {}), "items": of, **more}


def _text(says: str) -> Schema:
    return {**_TEXT, "description": says}


def _whole(low: int, high: int, says: str = "") -> Schema:
    return {
        "type": "integer",
        "minimum": low,
        "maximum": high,
        **({"description": says} if says else {}),
    }


def _one_of(words: Any, says: str = "") -> Schema:
    return {"enum": list(words), **({"description": says} if says else {})}


def _duration(says: str) -> Schema:
    return {**_text(f'{says}; as in "500 ms"'), "pattern": r"^\d+(\.\d+)? ?(ms|s|min|h)$"}


def _said(says: str) -> Schema:
    return _named(_list(_NUMBER, minItems=1), f"numbers of another point that mean: {says}")


_WORD = _whole(0, 0xFFFF)
_ADDRESS = _whole(0, 0xFFFF, "address on the wire, from 0")
_ORDER = _one_of(ORDERS, "order of the bytes of a number; CDAB is low word first")
_OK = _said("well; any other is a fault of the sensor")
_DEGRADED = _said("the value stands, marked")


def schema() -> Schema:
    """The whole schema."""
    top = _table(
        {
            "schema": {"const": 1},
            "id": {**_text("the file's name"), "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
            "title": _text("the model, for people"),
            "source": _list(_SOURCE, "where the facts come from", minItems=1),
            "speaks": _one_of(get_args(Speaks), "what the device says; how it travels is the site's line"),
            "codec": _one_of(CODECS, "where code says what the lines or frames mean"),
            "bus": _BUS,
            "block": _named(_BLOCK, "requests; each is one atomic sample"),
            "point": {
                "type": "object",
                "description": "numbers of a reply",
                "patternProperties": {"^[a-z][a-z0-9_]*$": _POINT},
                "additionalProperties": False,
            },
            "sentence": _named(_SENTENCE, "lines of text"),
            "cycle": _table({"steps": _list({"anyOf": _STEPS})}, says="absent: every block is read"),
            "write": _named(_WRITE, "what may be written"),
            "identity": _IDENTITY,
            "proof": _list(_PROOF, "golden frames"),
        },
        *("schema", "id", "title", "source", "speaks"),
    )
    title = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Pondwatch device profile"}
    return title | top


_SOURCE = _table({"doc": _TEXT, "url": _TEXT, "trust": _one_of(get_args(Trust))}, "doc", "trust")
_BUS = _table(
    {
        "serial": _text('as delivered, "9600 8N1"'),
        "unit": _whole(1, 255, "as delivered"),
        "order": _ORDER,
        "timeout": _duration("how long a reply is waited for"),
        "slowest_reply": _duration("the latest moment a reply can still come"),
        "gap": _duration("silence before a request beyond 3.5 characters"),
        "turnaround": _duration("rest after a reply"),
        "wake": _duration("wait after power-up"),
        "period_min": _duration("shortest useful interval of polls"),
        "max_registers": _whole(1, 125, "most registers in one request"),
        "bridge_holes": {**_FLAG, "description": "requests may read registers that no point names"},
    },
    says="how the device wants to be asked",
)
_BLOCK = _table(
    {"fn": _one_of((1, 2, 3, 4)), "at": _ADDRESS, "n": _whole(1, 2000, "registers or coils")}, "fn", "at", "n"
)
_BIT = _whole(0, 63)
_UNIT_BY: Schema = {
    "type": "object",
    "properties": {"by": _text("the point with the code"), "as": _one_of(UNITS)},
    "required": ["by", "as"],
    "additionalProperties": _one_of(UNITS),
}
_POINT = _table(
    {
        "in": _text("its block or sentence"),
        "at": {"anyOf": [_ADDRESS, _text("a field of the sentence")]},
        "type": _one_of((*TYPES, "bit")),
        "order": _ORDER,
        "bits": {
            "anyOf": [_BIT, _list(_BIT, minItems=2, maxItems=2)],
            "description": "one bit, or first and last",
        },
        "repeat": _whole(1, 99),
        "scale": _NUMBER,
        "offset": _NUMBER,
        "decimals": {"anyOf": [_whole(0, 9), _text("the point that holds it")]},
        "unit": {"anyOf": [_TEXT, _UNIT_BY]},
        "bad": _list(
            {"anyOf": [_NUMBER, _one_of(("nan", "inf"))]}, "numbers, before scale, that mean no value"
        ),
        "ok": _OK,
        "degraded": _DEGRADED,
        "busy": _said("still measuring"),
        "counter": _table(
            {"bits": _one_of((16, 32)), "resets": _list(_TEXT), "max_step": _whole(1, 2**31 - 1)},
            "bits",
            says="it only rises",
        ),
        "hidden": {**_FLAG, "description": "needed to judge others, not shown"},
    },
    "in",
    "at",
)
_SENTENCE = _table(
    {"check": _one_of(CHECKS), "fields": _list(_TEXT), "ok": _OK, "degraded": _DEGRADED}, "check", "fields"
)
_STEPS = [
    _table({"write": _TEXT, "value": _WORD}, "write"),
    _table({"wait": _duration("how long")}, "wait"),
    _table({"discard": _text("a block, read and forgotten")}, "discard"),
    _table({"read": _text("a block")}, "read"),
]
_WRITE = _table(
    {
        "fn": _one_of((5, 6, 16)),
        "at": _ADDRESS,
        "repeat": _whole(1, 99),
        "on": _WORD,
        "off": _WORD,
        "value": _WORD,
        "verify": _text("the point that shows the result"),
        "danger": _text("what it destroys"),
        "broadcast": {**_FLAG, "description": "one for all devices of the line"},
    },
    "fn",
    "at",
)
_IDENTITY = _table(
    {
        "fn": _one_of((3, 4)),
        "at": _ADDRESS,
        "is": _list({"anyOf": [_WORD, _one_of(("unit", "any"))]}, minItems=1, maxItems=MOST_IDENTITY),
    },
    "fn",
    "at",
    "is",
    says="registers by which a scan knows the device",
)
_PROOF = _table(
    {
        "unit": _whole(0, 255),
        "tx": _TEXT,
        "rx": _TEXT,
        "expect": {**_named({"anyOf": [_NUMBER, {"const": "bad"}]}, "number by point"), "minProperties": 1},
    },
    "rx",
    "expect",
)


def main() -> int:
    PATH.write_text(json.dumps(schema(), indent=1) + "\n")
    sys.stdout.write(f"{PATH} written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
