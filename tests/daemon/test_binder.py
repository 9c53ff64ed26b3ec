"""The binder against tables made by tomllib, one mistake at a time and all at once."""

import tomllib
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.binder import (
    Broken,
    Problem,
    SerialMode,
    bind,
    duration_s,
    nearest,
    serial_mode,
    size_bytes,
)


@dataclass(frozen=True)
class Straight:
    slope: float
    offset: float = 0.0


@dataclass(frozen=True)
class Curve:
    family: Literal["geokon", "roctest"]
    terms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    id: str = field(metadata={"pattern": "[a-z0-9]+", "example": '"pz03"'})
    every_s: float = field(
        metadata={"key": "every", "parse": "duration", "example": '"10 min"', "exclusive_min": 0.0}
    )
    unit: int | None = field(default=None, metadata={"min": 1, "max": 247})
    on: bool = True
    grade: Literal[1, 2, 3] = 1
    span: tuple[float, float] | None = None
    tags: tuple[str, ...] = ()
    curve: Straight | Curve | None = field(
        default=None, metadata={"variants": {"straight": Straight, "curve": Curve}}
    )
    serial: SerialMode = field(
        default=SerialMode(9600, 8, "N", 1.0), metadata={"parse": "serial", "example": '"9600 8N1"'}
    )
    limits: Straight | None = None


@dataclass(frozen=True)
class File:
    site: Straight
    rows: tuple[Row, ...] = field(default=(), metadata={"key": "row"})


def bound(text: str) -> tuple[Any, list[str]]:
    problems: list[Problem] = []
    return bind(File, tomllib.loads(text), "", problems), [str(p) for p in problems]


SITE = "site = { slope = 1 }\n"


def problems_of_row(text: str) -> list[str]:
    return bound(f'{SITE}[[row]]\nid = "a"\nevery = "1 s"\n{text}')[1]


def test_a_good_file_becomes_frozen_types_with_parsed_units() -> None:
    file, problems = bound(
        SITE
        + """
        [[row]]
        id = "a"
        every = "10 min"
        unit = 7
        span = [-5, 350]
        tags = ["x", "y"]
        curve = { kind = "curve", family = "geokon", terms = [1, 2.5] }
        serial = "115200 8E1"
        """
    )
    assert problems == []
    (row,) = file.rows
    assert row.every_s == 600.0
    assert row.span == (-5.0, 350.0)
    assert isinstance(row.span[0], float)
    assert row.curve == Curve("geokon", (1.0, 2.5))
    assert row.serial == SerialMode(115200, 8, "E", 1.0)
    assert row.on is True


def test_every_mistake_is_reported_at_once_with_its_exact_path() -> None:
    file, problems = bound(
        """
        sites = 1
        [site]
        slop = 1
        [[row]]
        id = "fine"
        every = "1 s"
        [[row]]
        id = "B!"
        evry = "1 s"
        curve = { kind = "curve", family = "geocon" }
        [[row]]
        id = 4
        every = 10
        unit = 248
        span = [1]
        """
    )
    assert [p.split(": ", 1)[0] for p in problems] == [
        "sites",
        "site.slop",
        "site.slope",
        "row[1].evry",
        "row[1].id",
        "row[1].every",
        "row[1].curve.family",
        "row[2].id",
        "row[2].every",
        "row[2].unit",
        "row[2].span",
    ]
    assert file.rows[0].id == "fine"
    assert file.rows[1:] == (Broken("B!"), Broken(""))
    assert file.site == Broken("")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("evrey = 1", "row[0].evrey: unknown key; did you mean 'every'?"),
        ("zzz = 1", "row[0].zzz: unknown key"),
        ("unit = true", "row[0].unit: must be a whole number, not true or false"),
        ("unit = 1.0", "row[0].unit: must be a whole number, not a number"),
        ('unit = "1"', "row[0].unit: must be a whole number, not text"),
        ("unit = 0", "row[0].unit: must be at least 1"),
        ("unit = 248", "row[0].unit: must be at most 247"),
        ("on = 1", "row[0].on: must be true or false, not a whole number"),
        ("grade = true", "row[0].grade: True is none of 1, 2, 3"),
        ("grade = 2.0", "row[0].grade: 2.0 is none of 1, 2, 3"),
        ("span = 4", "row[0].span: must be a list, not a whole number"),
        ("span = [1, 2, 3]", "row[0].span: must have 2 members, not 3"),
        ("span = [1, inf]", "row[0].span[1]: must be a finite number"),
        ("span = [nan, 1]", "row[0].span[0]: must be a finite number"),
        ('tags = ["a", 2]', "row[0].tags[1]: must be text, not a whole number"),
        ("curve = 3", "row[0].curve: must be a table with a kind, not a whole number"),
        ("curve = { slope = 1 }", "row[0].curve.kind: is missing: one of straight, curve"),
        (
            'curve = { kind = "strait" }',
            "row[0].curve.kind: 'strait' is unknown: one of straight, curve; did you mean 'straight'?",
        ),
        ('curve = { kind = "straight" }', "row[0].curve.slope: is missing"),
        (
            'curve = { kind = "straight", slope = true }',
            "row[0].curve.slope: must be a number, not true or false",
        ),
        (
            'curve = { kind = "curve", family = "geokom" }',
            "row[0].curve.family: 'geokom' is none of 'geokon', 'roctest'; did you mean 'geokon'?",
        ),
        (f"unit = {10**30}", "row[0].unit: is larger than TOML allows"),
        (f"span = [0, {10**400}]", "row[0].span[1]: is larger than TOML allows"),
        ("limits = 1", "row[0].limits: must be a table, not a whole number"),
        ("limits = { slope = 2020-01-01 }", "row[0].limits.slope: must be a number, not a date"),
        ("serial = 9600", 'row[0].serial: must be text, not a whole number, as in "9600 8N1"'),
        (
            'serial = "9600 8X1"',
            "row[0].serial: '9600 8X1' is no serial mode: write baud, data bits, parity, stop bits, as in '9600 8N1'",
        ),
    ],
)
def test_a_mistake_is_named_with_its_remedy(line: str, problem: str) -> None:
    assert problems_of_row(line) == [problem]


def test_what_is_missing_comes_with_an_example() -> None:
    assert bound(SITE + '[[row]]\nid = "a"')[1] == ['row[0].every: is missing, as in "10 min"']


def test_a_range_holds_for_the_parsed_value() -> None:
    assert bound(SITE + '[[row]]\nid = "a"\nevery = "0 s"')[1] == [
        'row[0].every: must be more than 0.0, as in "10 min"'
    ]


def test_single_brackets_where_a_list_of_tables_belongs_are_explained() -> None:
    assert bound(SITE + '[row]\nid = "a"')[1] == ["row: must be a list, not a table: write [[row]]"]


def test_a_table_in_place_of_the_whole_file_is_needed() -> None:
    problems: list[Problem] = []
    assert bind(File, [], "", problems) is None
    assert [str(p) for p in problems] == ["must be a table, not a list"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("200 ms", 0.2), ("1s", 1), (" 1.5 min ", 90), ("2 h", 7200), ("1 d", 86400), ("7 days", 604800)],
)
def test_durations_carry_their_unit(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("text", ["", "10", "min", "-1 s", "1e3 s", "10 minutes", "1 s 2", "nan s", "٣ x"])
def test_a_duration_without_number_and_known_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="as in '10 min'"):
        duration_s(text)


def test_sizes_are_decimal() -> None:
    assert size_bytes("8 GB") == 8_000_000_000
    assert size_bytes("1.5 kB") == 1500


def test_a_character_on_the_wire_has_start_parity_and_stop_bits() -> None:
    assert serial_mode("9600 8N1").bits_per_character == 10
    assert serial_mode("9600 8E1").bits_per_character == 11
    assert serial_mode("9600 7O2").bits_per_character == 11


def test_nothing_is_suggested_when_nothing_is_near() -> None:
    assert nearest("every", ["every_s"]) == "; did you mean 'every_s'?"
    assert nearest("every", ["port", "line"]) == ""


toml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "every", "kind", "curve", "span", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["site", "row", "x"]), toml_values, max_size=3))
def test_no_file_whatsoever_makes_the_binder_raise(table: dict[str, object]) -> None:
    problems: list[Problem] = []
    bind(File, table, "", problems)
    assert problems or isinstance(table["site"], dict)
