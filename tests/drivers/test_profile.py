"""Profiles: the golden frames of every one, strictness, and the decoder beside its slow twin."""

from __future__ import annotations

import contextlib
import math
import re
import struct
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from drivers.contract import BadReply
from drivers.decode import ORDERS, TYPES, Judge, Order, Place, Type, decoder
from drivers.gnss import codecs, nmea, sentences
from drivers.gnss.baseline import Reference
from drivers.gnss.epoch import Epoch
from drivers.profile import (
    BUILT_IN,
    CompiledBlock,
    DiscardStep,
    Profile,
    ProfileError,
    Proof,
    ReadStep,
    WaitStep,
    WriteStep,
    load,
    read_profile,
)
from drivers.sample import Quality

if TYPE_CHECKING:
    from pathlib import Path

IDS = sorted(path.stem for path in BUILT_IN.glob("*.toml"))
PROFILES = [load(i) for i in IDS]
PROOFS = [pytest.param(p, proof, id=f"{p.id}-{i}") for p in PROFILES for i, proof in enumerate(p.proofs)]
REQUESTS: dict[int, type[ModbusPDU]] = {
    1: ReadCoilsRequest,
    2: ReadDiscreteInputsRequest,
    3: ReadHoldingRegistersRequest,
    4: ReadInputRegistersRequest,
}


def request_frame(block: CompiledBlock, unit: int) -> bytes:
    """The RTU frame that pymodbus builds for the block."""
    request = REQUESTS[block.fn](address=block.at, count=block.count, dev_id=unit)
    return bytes(FramerRTU(DecodePDU(is_server=False)).buildFrame(request))


@pytest.mark.parametrize(("profile", "proof"), PROOFS)
def test_every_golden_frame_decodes_to_what_its_maker_says(profile: Profile, proof: Proof) -> None:
    if profile.speaks == "modbus":
        decoded = from_wire(profile, proof)
    elif profile.codec:
        decoded = from_codec(profile, proof)
    else:
        decoded = from_sentence(profile, proof)
    for name, expected in proof.expect.items():
        value, quality = decoded[name]
        if expected == "bad":
            assert math.isnan(value)
            assert Quality(quality).is_bad
        else:
            assert value == pytest.approx(expected, rel=1e-6)
            assert quality == Quality.GOOD


def from_wire(profile: Profile, proof: Proof) -> dict[str, tuple[float, int]]:
    (block,) = (b for b in profile.blocks if request_frame(b, proof.unit) == proof.tx)
    used, reply = FramerRTU(DecodePDU(is_server=False)).handleFrame(proof.rx, proof.unit, 0)
    assert used == len(proof.rx), "pymodbus finds the golden reply whole, its CRC right"
    assert reply is not None
    data = proof.rx[3:-2]
    assert len(data) == block.data_bytes
    _, values, qualities = block.decode(data)
    return dict(zip(block.block.points, zip(values, qualities, strict=True), strict=True))


def from_sentence(profile: Profile, proof: Proof) -> dict[str, tuple[float, int]]:
    sentence = nmea.parse(proof.rx)
    assert sentence is not None
    (rule,) = (s for s in profile.sentences if s.tag == sentence.tag)
    _, values, qualities = rule.decode(sentence.fields)
    return dict(zip(rule.block.points, zip(values, qualities, strict=True), strict=True))


def from_codec(profile: Profile, proof: Proof) -> dict[str, tuple[float, int]]:
    """The one epoch of a proof; where it has no solution, its position is bad."""
    decoder = codecs.decoder(profile)
    told = [*decoder.feed(proof.rx + b"\r\n", 0), *decoder.flush()]
    (epoch,) = (each for each in told if isinstance(each, Epoch))
    names: tuple[str, ...] = ("latitude_deg", "longitude_deg", "height_m")
    if codecs.origin_of(profile) is Reference:
        names = sentences.VECTOR
        if profile.layouts and sentences.place(profile.layouts[0].fields) == sentences.GRID:
            names = sentences.GRID
    where = dict(zip(names, epoch.where, strict=True))
    sigma = dict(zip(("sd_east_m", "sd_north_m", "sd_up_m"), epoch.sd_m, strict=True))
    status = {
        "fix": float(epoch.fix),
        "code": epoch.code,
        "satellites": epoch.satellites,
        "age_s": epoch.age_s,
    }
    status["base"] = float(epoch.base or "nan")
    decoded: dict[str, tuple[float, int]] = {
        k: (v, Quality.GOOD) for k, v in (where | sigma | status).items()
    }
    if math.isnan(sum(epoch.where)):
        decoded |= dict.fromkeys(where, (math.nan, Quality.NO_FIX))
    return decoded


@pytest.mark.parametrize("profile", PROFILES, ids=IDS)
def test_every_profile_compiles_for_a_device_and_stays_within_its_registers(profile: Profile) -> None:
    compiled = profile.compile("vw1")
    assert [b.block.device for b in compiled.blocks] == ["vw1"] * len(profile.blocks)
    assert all(step.block in compiled.blocks for step in compiled.steps if isinstance(step, ReadStep))
    for block in compiled.blocks:
        assert block.count <= (profile.bus.max_registers if block.fn in (3, 4) else 2000)
        numbers, values, qualities = block.decode(bytes(block.data_bytes))
        assert len(numbers) == len(values) == len(qualities) == len(block.points) == len(block.block.units)
    assert profile.sources


@pytest.mark.parametrize("profile", PROFILES, ids=IDS)
def test_bytes_of_any_kind_never_yield_a_number_that_is_bad_or_missing_without_a_reason(
    profile: Profile,
) -> None:
    for block in profile.blocks:
        for filler in (b"\x00", b"\xff", b"\x7f\xff", b"\x7f\xc0\x00\x00", b"\x27\x0f", b"\xff\x80\x00\x00"):
            data = (filler * block.data_bytes)[: block.data_bytes]
            _, values, qualities = block.decode(data)
            for value, quality in zip(values, qualities, strict=True):
                assert math.isfinite(value) is not Quality(quality).is_bad


def test_a_campbell_logger_sends_the_low_word_first() -> None:
    # CR510 manual, appendix F, example 2: C0 00 44 0A is 555.0, 00 00 1F 00 next to nothing.
    block = load("campbell-cr1000x").blocks[0]
    data = bytes(16) + bytes.fromhex("C000440A00001F00") + bytes(72)
    _, values, _ = block.decode(data)
    assert values[4] == 555.0
    assert abs(values[5]) < 1e-15


def test_the_rain_gauge_counts_with_the_low_word_first() -> None:
    block = load("dfrobot-sen0575").blocks[0]
    numbers, values, qualities = block.decode(struct.pack(">7H", 0, 0, 0xE678, 0x0001, 0x0003, 0x0001, 77))
    assert dict(zip(block.block.points, values, strict=True)) == {
        "rain_window": 0.0,
        "rain_total": 12.4536,
        "tips": 65539,
        "uptime": 77,
    }
    assert numbers[1] == 124536
    assert qualities == bytes(4)
    assert block.points[2].counter is not None
    assert block.points[2].counter.bits == 32


def test_a_radar_that_flags_its_first_value_keeps_its_second() -> None:
    block = load("vegapuls").blocks[0]
    _, values, qualities = block.decode(struct.pack(">I4f", 0b0001, 3.5, 21.0, 0.0, 0.0))
    by_name = dict(zip(block.block.points, zip(values, qualities, strict=True), strict=True))
    assert math.isnan(by_name["pv"][0])
    assert by_name["pv"][1] == Quality.SENSOR_FAULT
    assert by_name["sv"] == (21.0, Quality.GOOD)
    assert by_name["status"] == (1, Quality.GOOD)


def test_a_probe_that_says_its_own_unit_and_decimals_is_read_in_the_declared_unit() -> None:
    block = load("qdy30a").blocks[0]
    assert block.block.points == ("level", "pressure")
    cm = block.decode(struct.pack(">HHh", 0x11, 1, 1234))
    assert cm[1][0] == pytest.approx(1.234)
    assert cm[2] == bytes((Quality.GOOD, Quality.SENSOR_FAULT))
    psi = block.decode(struct.pack(">HHh", 0x15, 2, -150))
    assert psi[1][1] == pytest.approx(-1.5 * 6.894757293168361)
    assert psi[2] == bytes((Quality.SENSOR_FAULT, Quality.GOOD))
    assert block.decode(struct.pack(">HHh", 0x11, 60000, 1))[2][0] == Quality.SENSOR_FAULT


@pytest.mark.parametrize(
    ("code", "expected"),
    [(1, 0.0254), (2, 0.3048), (3, 0.001), (4, 0.01), (5, 1.0)],
)
def test_a_device_may_switch_between_units_of_length(code: int, expected: float) -> None:
    assert metres_or_kilopascals("m", "in ft mm cm m", code) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(1, 0.001), (2, 0.1), (3, 0.1), (4, 1.0), (5, 100.0), (6, 6.894757293168361)],
)
def test_a_device_may_switch_between_units_of_pressure(code: int, expected: float) -> None:
    assert metres_or_kilopascals("kPa", "Pa hPa mbar kPa bar psi", code) == pytest.approx(expected, rel=1e-15)


def metres_or_kilopascals(unit: str, codes: str, code: int) -> float:
    """The value of number 1 while the device says `code`; codes count from 1."""
    units = ", ".join(f'{i} = "{u}"' for i, u in enumerate(codes.split(), 1))
    points = (
        f'unit = {{ by = "code", as = "{unit}", {units} }}\n[point.code]\nin = "all"\nat = 11\ntype = "u16"'
    )
    text = MINIMAL.replace('unit = "m"', points).replace('"f32"', '"u16"', 1)
    return (
        read_profile(text.encode(), "probe", "probe.toml").blocks[0].decode(struct.pack(">2H", 1, code))[1][0]
    )


def test_relays_are_numbered_from_one_and_their_writes_name_what_verifies_them() -> None:
    profile = load("waveshare-relay-8")
    block = profile.blocks[0]
    assert block.decode(b"\x81")[1] == [1, 0, 0, 0, 0, 0, 0, 1]
    write = profile.writes["relay8"]
    assert (write.fn, write.at, write.on, write.off, write.verify) == (5, 7, 0xFF00, 0, "relay8")
    assert profile.compile("r", wanted=()).blocks, "what verifies a write is never left out"


def test_a_float_fix_of_a_baseline_sentence_is_shown_as_degraded() -> None:
    (sentence,) = read_profile(LINES.encode(), "lines", "lines.toml").sentences
    fields = ["212805.00", "5", "13417.470", " +12167.763", "-5654.401", "", "117"]
    _, values, qualities = sentence.decode(fields)
    assert values[:3] == [5.0, 12167763.0, -5654401.0]
    assert qualities == bytes((Quality.GOOD, Quality.DEGRADED, Quality.DEGRADED, Quality.NOT_A_NUMBER))
    assert sentence.decode(fields[:3])[2][1:] == bytes((Quality.NOT_A_NUMBER,) * 3)


def test_a_hidden_point_of_a_sentence_is_a_mistake() -> None:
    text = LINES.replace('at = "q"', 'at = "q"\nhidden = true')
    with pytest.raises(ProfileError, match=r"point\.fix\.hidden: says nothing here"):
        read_profile(text.encode(), "lines", "lines.toml")


def test_only_the_blocks_somebody_wants_are_read() -> None:
    profile = load("wenkon-vtn416")
    assert [b.block.name for b in profile.compile("vw1", wanted={"freq03"}).blocks] == ["ch"]
    assert [b.block.name for b in profile.compile("vw1").blocks] == ["ch", "temp"]
    assert profile.bus.slowest_reply_s >= profile.bus.timeout_s > 120.0


def test_a_cycle_is_kept_in_its_order() -> None:
    steps = load("geokon-3810a").steps
    assert isinstance(steps[0], WriteStep)
    assert (steps[0].write.at, steps[0].value) == (0x0118, 1)
    assert isinstance(steps[1], WaitStep)
    assert steps[1].s == 0.5
    assert isinstance(steps[2], ReadStep)


def test_an_unknown_profile_names_the_nearest_one() -> None:
    with pytest.raises(ProfileError, match="did you mean 'wenkon-vtn416'"):
        load("wenkon-vtn-416")
    with pytest.raises(ProfileError, match="no such profile"):
        load("../profiles/vegapuls")


def test_a_site_may_bring_profiles_and_correct_ours(tmp_path: Path) -> None:
    (tmp_path / "vegapuls.toml").write_text(MINIMAL.replace("probe", "vegapuls"))
    assert load("vegapuls", (tmp_path,)).title == "Probe"
    assert load("vegapuls").title != "Probe"
    (tmp_path / "other.toml").write_text(MINIMAL)
    with pytest.raises(ProfileError, match="id: must be the file's name"):
        load("other", (tmp_path,))


LINES = """
schema = 1
id = "lines"
title = "A board that sends lines"
source = [{ doc = "three published sentences", trust = "community" }]
speaks = "lines"

[sentence.GPNTR]
check = "xor8"
fields = ["utc", "q", "distance_m", "north_m", "east_m", "up_m", "base"]
ok = { q = [4, 7] }
degraded = { q = [5] }

[point.fix]
in = "GPNTR"
at = "q"

[point.north]
in = "GPNTR"
at = "north_m"
scale = 1000.0
unit = "mm"

[point.east]
in = "GPNTR"
at = "east_m"
scale = 1000.0
unit = "mm"

[point.up]
in = "GPNTR"
at = "up_m"
scale = 1000.0
unit = "mm"

[[proof]]
rx = "$GPNTR,212805.00,4,13417.470,+12167.763,-5654.401,-42.319,117*71"
expect = { fix = 4, north = 12167763, east = -5654401, up = -42319 }
"""

MINIMAL = """
schema = 1
id = "probe"
title = "Probe"
source = [{ doc = "its manual", trust = "manual" }]
speaks = "modbus"
[block.all]
fn = 3
at = 10
n = 2
[point.level]
in = "all"
at = 10
type = "f32"
unit = "m"
"""

MISTAKES = [
    ("schema = 1", "schema = 2", "schema: is 2"),
    ('title = "Probe"', "title = 7", "title: must be text, not 7"),
    ('title = "Probe"', 'titel = "Probe"', "titel: unknown key; did you mean 'title'?"),
    ('trust = "manual"', 'trust = "manul"', "source[0].trust: 'manul' is unknown; one of manual"),
    ("source = [{", "sources = [{", "source: is missing; say where the facts come from"),
    ('speaks = "modbus"', 'speaks = "lines"', "speaks: modbus needs [block.*]"),
    ("fn = 3", "fn = 7", "block.all.fn: 7 is unknown; one of 1, 2, 3, 4"),
    ("fn = 3", "fn = true", "block.all.fn: True is unknown"),
    ("n = 2", "n = 126", "block.all.n: is 126; it must lie within 1 .. 125"),
    ("n = 2", "n = 1", "point.level.at: level lies outside its block"),
    ("n = 2", "n = 4", "block.all.n: register 2 of the block belongs to no point"),
    ('type = "f32"', 'type = "float"', "point.level.type: 'float' is unknown; one of u16"),
    ('type = "f32"', 'type = "u32"\nbad = [-1]', "point.level.bad: -1 is nothing a u32 can be"),
    ('type = "f32"', 'type = "u32"\nbits = [3, 40]', "point.level.bits: must be a bit"),
    ('type = "f32"', 'type = "f32"\nscale = 0', "point.level.scale: is 0"),
    ('type = "f32"', 'type = "f32"\norder = "ABDC"', "point.level.order: 'ABDC' is unknown; one of ABCD"),
    ('type = "f32"', 'type = "f32"\nok = { state = [0] }', "point.level.ok: names 'state', which is no point"),
    ('type = "f32"', 'type = "f32"\nok = { level = 0 }', "point.level.ok.level: must be a list"),
    ('type = "f32"', 'type = "f32"\ncounter = { bits = 24 }', "point.level.counter.bits: 24 is unknown"),
    ('in = "all"', 'in = "any"', "point.level.in: names no block and no sentence"),
    ('unit = "m"', 'unit = { by = "level", as = "m", 1 = "kPa" }', "point.level.unit.1: kPa cannot be expressed in m"),
    ('unit = "m"', 'unit = { by = "level", as = "m", one = "cm" }', "point.level.unit.one: must be the number"),
    ("schema = 1", 'schema = 1\nbus = { timeout = "1" }', "bus.timeout: needs a number and one of the units"),
    ("schema = 1", 'schema = 1\nbus = { timeout = "1 fortnight" }', "bus.timeout: needs a number"),
    ("schema = 1", "schema = 1\nbus = { order = 1 }", "bus.order: 1 is unknown"),
    ("schema = 1", 'schema = 1\ncycle = { steps = [{ reed = "all" }] }', "cycle.steps[0]: is no step"),
    ("schema = 1", 'schema = 1\ncycle = { steps = [{ read = "al" }] }', "cycle.steps[0].read: 'al' is unknown"),
    ("schema = 1", "schema = 1\nwrite = { go = { fn = 6, at = -1 } }", "write.go.at: is -1"),
    ("schema = 1", 'schema = 1\nwrite = { go = { fn = 6, at = 1, verify = "gone" } }', "'gone' is no point"),
    ("schema = 1", 'schema = 1\nproof = [{ tx = "01", rx = "0x", expect = { level = 1 } }]', "proof[0].rx: must be bytes"),
    ("schema = 1", 'schema = 1\nproof = [{ tx = "01", rx = "02" }]', "proof[0].expect: is missing"),
    ("schema = 1", 'schema = 1\nidentity = { fn = 3, at = 1, is = ["any"] }', "identity.is: must be 1 to 8 registers"),
    ("schema = 1", "schema = 1\nidentity = { fn = 3, at = 1, is = 7 }", "identity.is: must be 1 to 8 registers"),
    ("schema = 1", "schema = 1\nidentity = { fn = 1, at = 1, is = [70000] }", "identity.fn: 1 is unknown"),
    ('type = "f32"', 'type = "f32"\nbusy = { state = [1] }', "point.level.busy: names 'state', which is no point"),
]  # fmt: skip


def test_two_points_of_one_name_are_a_mistake() -> None:
    other = '[point.level1]\nin = "all"\nat = 10\ntype = "u16"\n'
    text = MINIMAL.replace('type = "f32"', 'type = "u16"\nrepeat = 2') + other
    with pytest.raises(ProfileError, match="point: level1 is named twice"):
        read_profile(text.encode(), "probe", "probe.toml")


def test_the_page_about_the_format_names_every_key_that_a_profile_uses() -> None:
    page = (BUILT_IN / "README.md").read_text()

    def keys(table: dict[str, Any], depth: int = 0) -> set[str]:
        found = set()
        for key, value in table.items():
            members = value if isinstance(value, list) else [value]
            named = depth == 1  # block.X, point.Y: names of their own
            found |= set() if named else {key}
            for member in members:
                if isinstance(member, dict) and key not in ("ok", "degraded", "busy", "expect", "unit"):
                    found |= keys(
                        member, 1 if depth == 0 and key in ("block", "point", "sentence", "write") else 2
                    )
        return found

    used = set().union(*(keys(tomllib.loads((BUILT_IN / f"{i}.toml").read_text())) for i in IDS))
    tables = {"bus", "cycle", "block", "point", "sentence", "write", "identity", "proof"}
    assert len(used) > 40
    for key in used - tables:
        assert re.search(rf"\b{key}\b", page), key
    for key in used & tables:
        assert f"[{key}" in page, key


def test_the_profile_that_the_mistakes_are_made_in_is_right() -> None:
    profile = read_profile(MINIMAL.encode(), "probe", "probe.toml")
    assert profile.bus.timeout_s == 1.0
    assert profile.bus.slowest_reply_s == 2.0


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES, ids=[m[1][:40] for m in MISTAKES])
def test_a_mistake_is_named_with_its_key_and_remedy(right: str, wrong: str, said: str) -> None:
    with pytest.raises(ProfileError) as caught:
        read_profile(MINIMAL.replace(right, wrong, 1).encode(), "probe", "probe.toml")
    assert any(said in problem for problem in caught.value.problems), caught.value.problems
    assert str(caught.value).startswith("probe.toml: ")


def test_all_mistakes_come_at_once() -> None:
    text = MINIMAL.replace("fn = 3", "fn = 9").replace('"f32"', '"f23"').replace('unit = "m"', "unti = 1")
    with pytest.raises(ProfileError) as caught:
        read_profile(text.encode(), "probe", "probe.toml")
    assert len(caught.value.problems) >= 3


@given(st.data())
def test_no_table_whatever_its_contents_escapes_as_another_exception(data: st.DataObject) -> None:
    """Replace one value of a good profile by anything TOML can hold."""
    anything = st.one_of(
        st.booleans(), st.integers(-3, 70000), st.floats(), st.text(max_size=4), st.just([]), st.just({}),
        st.just([{}]), st.just({"x": 1}), st.just([1, "a"]),
    )  # fmt: skip
    table: dict[str, Any] = tomllib.loads(MINIMAL + PROOF_AND_MORE)
    place: Any = table
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(anything)
    with contextlib.suppress(ProfileError):
        assert read_profile(to_toml(table).encode(), "probe", "probe.toml").id == "probe"


PROOF_AND_MORE = """
hidden = false
scale = 2.0
bad = [0]
ok = { level = [1] }
[bus]
timeout = "1 s"
[write.go]
fn = 6
at = 1
value = 1
[cycle]
steps = [{ write = "go" }, { discard = "all" }, { read = "all" }]
"""


def to_toml(table: dict[str, Any]) -> str:
    """Just enough TOML for the test above: inline tables throughout."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{quoted(k)} = {text(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(text(v) for v in value) + "]"
        if isinstance(value, str):
            return quoted(value)
        return str(value).lower() if isinstance(value, bool) else repr(value)

    def quoted(words: str) -> str:
        return '"' + "".join(f"\\U{ord(c):08X}" for c in words) + '"'

    return "\n".join(f"{quoted(k)} = {text(v)}" for k, v in table.items())


def test_a_discarded_read_is_a_step_of_its_own() -> None:
    steps = read_profile((MINIMAL + PROOF_AND_MORE).encode(), "probe", "probe.toml").steps
    assert [type(s) for s in steps] == [WriteStep, DiscardStep, ReadStep]


# --- the decoder beside its slow twin ---------------------------------------------------------------------


def slow_number(data: bytes, place: Place) -> float:
    """One number, byte by byte: put the bytes into the order ABCD first, then read big-endian."""
    code, registers = TYPES[place.type]
    raw = data[2 * place.at : 2 * (place.at + registers)]
    words = [raw[i : i + 2] for i in range(0, len(raw), 2)]
    if registers > 1:
        if place.order in ("CDAB", "DCBA"):
            words.reverse()
        if place.order in ("BADC", "DCBA"):
            words = [word[::-1] for word in words]
    (number,) = struct.unpack(">" + code, b"".join(words))
    if place.bits:
        first, last = place.bits
        number = (number >> first) % (1 << (last - first + 1))
    return float(number) if code in "fd" else int(number)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Place], int]:
    """Numbers of any types and orders, with holes, overlaps and bits, in any sequence."""
    places = []
    for _ in range(draw(st.integers(1, 12))):
        kind: Type = draw(st.sampled_from(sorted(TYPES)))
        order: Order = draw(st.sampled_from(ORDERS)) if TYPES[kind][1] > 1 else "ABCD"
        bits = None
        if kind in ("u16", "u32") and draw(st.booleans()):
            first = draw(st.integers(0, 15))
            bits = (first, draw(st.integers(first, 15)))
        places.append(Place(draw(st.integers(0, 20)), kind, order, bits))
    return places, 2 * max(p.at + TYPES[p.type][1] for p in places)


@given(layouts(), st.data())
def test_any_layout_decodes_as_byte_by_byte(layout: tuple[list[Place], int], data: st.DataObject) -> None:
    places, size = layout
    reply = data.draw(st.binary(min_size=size, max_size=size))
    numbers, values, qualities = decoder(places, [Judge()] * len(places), len(places), size)(reply)
    for place, number, value, quality in zip(places, numbers, values, qualities, strict=True):
        expected = slow_number(reply, place)
        assert number == expected or (math.isnan(number) and math.isnan(expected))
        assert quality == (Quality.GOOD if math.isfinite(expected) else Quality.NOT_A_NUMBER)
        assert float(value) == float(expected) or math.isnan(value)  # 64 bits are more than a float keeps


@given(st.lists(st.sampled_from([0, 1, 2, 9999, 12569, 65535]), min_size=8, max_size=8))
def test_the_fast_way_and_the_slow_way_judge_alike(words: list[int]) -> None:
    """Status and sentinels: compared with the rules said plainly."""
    places = [Place(i, "u16") for i in range(8)]
    judges = [
        Judge(
            over=10, bad=frozenset((9999,)), ok=((7, frozenset((0, 1))),), degraded=((7, frozenset((1, 2))),)
        )
    ] * 4
    judges += [Judge(bad=frozenset((65535,)))] * 3 + [Judge()]
    numbers, values, qualities = decoder(places, judges, 7, 16)(struct.pack(">8H", *words))
    assert list(numbers) == words[:7]
    for i, (word, value, quality) in enumerate(zip(words, values, qualities, strict=False)):
        expected = Quality.GOOD
        if word == (9999 if i < 4 else 65535):
            expected = Quality.SENTINEL
        elif i < 4 and words[7] in (1, 2):
            expected = Quality.DEGRADED
        elif i < 4 and words[7] != 0:
            expected = Quality.SENSOR_FAULT
        assert quality == expected
        assert math.isnan(value) if expected.is_bad else value == (word / 10 if i < 4 else word)


def test_a_reply_of_another_length_is_refused() -> None:
    for block in load("wenkon-vtn416").blocks + load("waveshare-relay-8").blocks:
        for length in (0, block.data_bytes - 1, block.data_bytes + 1):
            with pytest.raises(BadReply, match="data bytes came"):
                block.decode(bytes(length))


def test_a_tenth_is_a_tenth_to_the_last_bit() -> None:
    decode = load("wenkon-vtn416").blocks[0].decode
    for word in range(1, 9999, 7):
        assert decode(struct.pack(">20H", *[word] * 16, 9999, 9999, 9999, 9999))[1][0] == float(
            f"{word / 10:.1f}"
        )
