"""The JSON Schema for editors, held against the strict parser: same keys, same words, same verdict."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from drivers import points, profile, schema
from drivers.profile import BUILT_IN, ProfileError, read_profile
from drivers.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA: dict[str, Any] = json.loads((BUILT_IN / "schema.json").read_text())
IDS = sorted(path.stem for path in BUILT_IN.glob("*.toml"))

WHOLE = """
schema = 1
id = "whole"
title = "All keys there are"
source = [{ doc = "its manual", url = "example.org", trust = "manual" }]
speaks = "modbus"
[bus]
serial = "9600 8N1"
unit = 1
order = "CDAB"
timeout = "1 s"
slowest_reply = "2 s"
gap = "5 ms"
turnaround = "5 ms"
wake = "1 s"
period_min = "1 min"
max_registers = 20
bridge_holes = true
[cycle]
steps = [{ write = "go", value = 1 }, { wait = "1 s" }, { discard = "all" }, { read = "all" }]
[block.all]
fn = 3
at = 10
n = 6
[point.level]
in = "all"
at = 10
type = "f32"
order = "ABCD"
scale = 2.0
offset = 1.0
decimals = 1
unit = "m"
bad = [0, "nan"]
ok = { state = [0] }
degraded = { state = [1] }
busy = { state = [2] }
[point.state]
in = "all"
at = 12
type = "u16"
bits = [0, 3]
hidden = true
[point.count]
in = "all"
at = 13
repeat = 2
type = "u16"
unit = { by = "state", as = "m", 1 = "cm" }
counter = { bits = 16, resets = ["power"], max_step = 9 }
[write.go]
fn = 6
at = 1
repeat = 1
on = 1
off = 0
value = 1
verify = "level"
danger = "none"
broadcast = false
[identity]
fn = 3
at = 0
is = [1, "any", "unit"]
[[proof]]
unit = 1
tx = "01"
rx = "02"
expect = { level = 1.0, count1 = "bad" }
"""


def faults(its: dict[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """What JSON Schema (draft 2020-12) says against `value`; the keywords that ours uses, and no others."""
    unknown = set(its) - {
        "$schema", "title", "description", "type", "properties", "required", "additionalProperties", "enum", "const",
        "pattern", "patternProperties", "items", "minItems", "maxItems", "minimum", "maximum", "anyOf", "minProperties",
    }  # fmt: skip
    assert not unknown, unknown
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    kind = its.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{path}: is no {kind}"
        return
    same = list(its.get("enum", [its["const"]] if "const" in its else []))
    if same and not any(type(v) is type(value) and v == value for v in same):
        yield f"{path}: {value!r} is none of {same}"
    if "pattern" in its and not re.search(its["pattern"], value):
        yield f"{path}: {value!r} does not match"
    if not its.get("minimum", value) <= value <= its.get("maximum", value) if kind == "integer" else False:
        yield f"{path}: {value} is out of range"
    if kind == "array" and not its.get("minItems", 0) <= len(value) <= its.get("maxItems", len(value)):
        yield f"{path}: has {len(value)} members"
    if kind == "object" and len(value) < its.get("minProperties", 0):
        yield f"{path}: is empty"
    if "anyOf" in its and all(list(faults(one, value, path)) for one in its["anyOf"]):
        yield f"{path}: fits none"
    for i, member in enumerate(value if kind == "array" else ()):
        yield from faults(its.get("items", {}), member, f"{path}[{i}]")
    yield from _members(its, value if kind == "object" else {}, path)


def _members(its: dict[str, Any], table: dict[str, Any], path: str) -> Iterator[str]:
    if its.get("type") == "object":
        yield from (f"{path}.{key}: is missing" for key in its.get("required", []) if key not in table)
    for key, member in table.items():
        fitting = [s for k, s in its.get("properties", {}).items() if k == key]
        fitting += [s for k, s in its.get("patternProperties", {}).items() if re.search(k, key)]
        rest = its.get("additionalProperties", True)
        if not fitting and rest is False:
            yield f"{path}.{key}: unknown key"
        elif not fitting and isinstance(rest, dict):
            fitting = [rest]
        for one in fitting:
            yield from faults(one, member, f"{path}.{key}")


@pytest.mark.parametrize("name", IDS)
def test_every_profile_we_ship_fits_the_schema(name: str) -> None:
    assert list(faults(SCHEMA, tomllib.loads((BUILT_IN / f"{name}.toml").read_text()))) == []


def test_the_schema_knows_exactly_the_keys_the_parser_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, set[str]] = {}

    class Watched(Table):
        def finish(self) -> None:
            path = re.sub(r"\[\d+\]", "", self.path)
            path = re.sub(r"^(block|point|write)\..*?(\.|$)", r"\1.*\2", path).rstrip(".")
            asked.setdefault(path, set()).update(self._asked)
            super().finish()

    for module in (points, profile):
        if hasattr(module, "Table"):
            monkeypatch.setattr(module, "Table", Watched)
    monkeypatch.setattr("drivers.table.Table", Watched)
    assert read_profile(WHOLE.encode(), "whole", "whole.toml").identity is not None
    props = SCHEMA["properties"]
    point = next(iter(props["point"]["patternProperties"].values()))["properties"]
    for path, keys in {
        "": props,
        "source": props["source"]["items"]["properties"],
        "bus": props["bus"]["properties"],
        "block.*": props["block"]["additionalProperties"]["properties"],
        "point.*": point,
        "point.*.counter": point["counter"]["properties"],
        "write.*": props["write"]["additionalProperties"]["properties"],
        "identity": props["identity"]["properties"],
        "proof": props["proof"]["items"]["properties"],
    }.items():
        assert asked[path] == set(keys), path


def test_the_file_is_what_the_program_makes_of_its_own_words() -> None:
    assert schema.schema() == SCHEMA, "run python -m drivers.schema"


WRONG = [
    ('trust = "manual"', 'trust = "hearsay"'),
    ("schema = 1", "schema = 2"),
    ("fn = 3", "fn = 7"),
    ("at = 10", "at = -1"),
    ('timeout = "1 s"', 'timeout = "1"'),
    ('type = "f32"', 'type = "float"'),
    ("busy = { state = [2] }", "busy = { state = 2 }"),
    ('is = [1, "any", "unit"]', 'is = ["own"]'),
    ('expect = { level = 1.0, count1 = "bad" }', "expect = { }"),
    ('title = "All keys there are"', 'titel = "All keys there are"'),
    ("counter = { bits = 16", "counter = { bits = 24"),
    ('{ wait = "1 s" }', '{ weit = "1 s" }'),
]


@pytest.mark.parametrize(("right", "wrong"), WRONG)
def test_what_the_schema_marks_in_the_editor_the_parser_refuses_too(right: str, wrong: str) -> None:
    text = WHOLE.replace(right, wrong, 1)
    assert text != WHOLE
    assert list(faults(SCHEMA, tomllib.loads(WHOLE))) == []
    assert list(faults(SCHEMA, tomllib.loads(text)))
    with pytest.raises(ProfileError):
        read_profile(text.encode(), "whole", "whole.toml")
