"""The site file as a whole: one good file, and every way in which it can be wrong or incomplete."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from daemon import example
from daemon.binder import Problem, bind
from daemon.check_devices import line_loads
from daemon.config import File, Site, SiteFileError
from drivers.calibration import VibratingWire
from edge_rules.law.derived import PiezometricElevation

ROOT = Path(__file__).parents[2]

GOOD = """
[site]
id = "s"
gateway = "g"

[[pond]]
id = "n"
kind = "dry"

[[section]]
id = "2-2"
pond = "n"

[[line]]
id = "bus"
kind = "modbus-rtu"
port = "/dev/ttyS0"

[[line]]
id = "air"
kind = "modbus-tcp"
address = "10.0.0.5:502"

[[line]]
id = "sky"
kind = "serial"
port = "/dev/ttyS1"
serial = "115200 8N1"

[[device]]
id = "vw1"
line = "bus"
profile = "wenkon-vtn416"
every = "10 min"

[[device]]
id = "relay1"
line = "bus"
profile = "waveshare-relay-8"
every = "10 min"
unit = 2

[[device]]
id = "weather"
line = "air"
profile = "campbell-metsens300"
every = "1 min"

[[device]]
id = "gnss1"
line = "sky"
profile = "nmea-gga-gst"
every = "1 min"
baseline = { latitude_deg = 36.0, longitude_deg = 116.0, height_m = 84.0 }
base_station = "1"

[[channel]]
id = "p"
unit = "kPa"
item = "phreatic-line"
pond = "n"
section = "2-2"
monitoring_point = "PZ03"
from = "vw1.freq03"
temperature = "vw1.temp03"
barometer = "weather.pressure"
span = [-5, 350]
calibration = { kind = "vibrating-wire", family = "geokon", zero_digits = 9082, zero_celsius = 22.0, zero_hpa = 1008.2, kpa_per_digit = -0.1795, kpa_per_celsius = 0.1319 }

[[channel]]
id = "z"
unit = "m"
item = "phreatic-line"
pond = "n"
monitoring_point = "PZ03"
derive = { kind = "piezometric-elevation", of = "p", tip_elevation_m = 78.42 }
levels = { rising = true, yellow = 85.0, red = 87.0, source = "design report", approver = "W" }

[[channel]]
id = "east"
unit = "mm"
item = "displacement"
pond = "n"
monitoring_point = "GN01"
from = "gnss1.east"
levels = { rising = true, red = 50, source = "design report", approver = "W" }

[[channel]]
id = "rain"
unit = "hPa"
item = "rainfall"
pond = "n"
from = "weather.pressure"
levels = { rising = true, red = 5000, source = "no pressure is rain, but it is a point", approver = "W" }

[[output]]
id = "siren"
device = "relay1"
write = "relay1"
pond = "n"

[[uplink]]
id = "company"
kind = "mqtt"
url = "mqtts://broker.example:8883"
settle = "receipt"
"""


def load(tmp_path: Path, text: str) -> Site:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return Site.load(path)


def changed(*changes: tuple[str, str]) -> str:
    text = GOOD
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def problems(tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    with pytest.raises(SiteFileError) as error:
        load(tmp_path, changed(*changes))
    return [str(p) for p in error.value.problems]


def warnings(tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    return [str(w) for w in load(tmp_path, changed(*changes)).warnings]


def test_a_good_file_loads_as_frozen_types(tmp_path: Path) -> None:
    site = load(tmp_path, GOOD)
    assert site.site.timezone == "Asia/Shanghai"
    assert site.devices[0].every_s == 600.0
    assert isinstance(site.channels[0].calibration, VibratingWire)
    assert isinstance(site.channels[1].derive, PiezometricElevation)
    assert site.store_folder == Path("/var/lib/pondwatch")
    assert re.fullmatch(r"[0-9a-f]{64}", site.sha256)
    with pytest.raises(dataclasses.FrozenInstanceError):
        site.ponds = ()  # type: ignore[misc]
    assert [w for w in map(str, site.warnings) if "rests in part" not in w] == []


def test_what_is_no_toml_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SiteFileError, match=r"is not TOML: Invalid value"):
        load(tmp_path, "site = ")
    path = tmp_path / "site.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(SiteFileError, match="is not TOML"):
        Site.load(path)


def test_mistakes_of_form_and_of_reference_come_together(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        ('gateway = "g"', 'gatway = "g"'),
        ('kind = "dry"', 'kind = "dri"'),
        ('family = "geokon"', 'family = "geocon"'),
        ('of = "p"', 'of = "q"'),
        ('line = "air"', 'line = "aer"'),
        ('settle = "receipt"', ""),
    ) == [
        "site.gatway: unknown key; did you mean 'gateway'?",
        'site.gateway: is missing, as in "gw1"',
        "pond[0].kind: 'dri' is none of 'wet', 'dry'; did you mean 'dry'?",
        "channel[0].calibration.family: 'geocon' is none of 'geokon', 'soil-instruments', 'roctest'; did you mean 'geokon'?",
        'uplink[0].settle: is missing, as in "receipt"',
        "device[2].line: there is no line 'aer'; did you mean 'air'?",
        "channel[1].derive: there is no channel 'q'",
    ]


# (what is changed, the problem that must be found, and no other)
MISTAKES: list[tuple[list[tuple[str, str]], str]] = [
    ([("[[output]]", '[[pond]]\nid = "n"\nkind = "dry"\n[[output]]')], "pond[1].id: 'n' is the id of pond[0] already"),
    ([('gateway = "g"', 'gateway = "g"\ntimezone = "Asia/Shanghia"')],
     "site.timezone: 'Asia/Shanghia' is no time zone; did you mean 'Asia/Shanghai'?"),
    ([('[[section]]\nid = "2-2"\npond = "n"', '[[section]]\nid = "2-2"\npond = "m"')],
     "section[0].pond: there is no pond 'm'\nchannel[0].section: there is no section of pond n '2-2'"),
    ([('port = "/dev/ttyS0"', "")], "line[0].port: is missing: a modbus-rtu line needs it"),
    ([('port = "/dev/ttyS0"', 'port = "/dev/ttyS0"\naddress = "a:1"')],
     "line[0].address: has no place on a modbus-rtu line"),
    ([('port = "/dev/ttyS1"', 'port = "/dev/ttyS0"')],
     "line[2].port: line bus has /dev/ttyS0 already; put the devices on that line"),
    ([('address = "10.0.0.5:502"', 'address = "10.0.0.5"')],
     "line[1].address: '10.0.0.5' must be written "),
    ([('profile = "wenkon-vtn416"', 'profile = "wenkon-vtn41"')],
     "device[0].profile: wenkon-vtn41: no such profile"),
    ([("baseline = {", "#")], "device[3].baseline: is missing"),
    ([('every = "1 min"', 'every = "1 min"\nbaseline = { latitude_deg = 1.0, longitude_deg = 1.0, height_m = 1.0 }')],
     "device[2].baseline: is for GNSS receivers; campbell-metsens300 is none"),
    ([("latitude_deg = 36.0", "latitude_deg = 96.0")], "device[3].baseline.latitude_deg: is 96.0"),
    ([('every = "10 min"', 'every = "1 min"')],
     "device[0].every: 60 s is shorter than an answer of wenkon-vtn416 may take, 140 s: poll less often"),
    ([('every = "10 min"', 'every = "10 min"\ntimeout = "2 s"\nslowest_reply = "1 s"')],
     "device[0].slowest_reply: 1 s must not be shorter than the timeout, 2 s"),
    ([("unit = 2", "unit = 1")], "device[1].unit: 1 is the unit of vw1 on line bus already"),
    ([("unit = 2", "unit = 248")], "device[1].unit: 248 is no unit number of a modbus-rtu line: 1 to 247"),
    ([('line = "air"', 'line = "sky"')],
     ("line[2]: a serial line carries one device, not weather, gnss1\n"
     "device[2].line: campbell-metsens300 speaks Modbus; sky is serial")),
    ([('line = "sky"', 'line = "bus"')], "device[3].line: nmea-gga-gst sends by itself"),
    ([('profile = "nmea-gga-gst"', 'profile = "comnav-gpntr"')],
     ("device[3].baseline: is not what comnav-gpntr tells; its origin is a reference\n"
     "device[3].reference: is missing: displacement of a GNSS receiver counts from it")),
    ([('profile = "nmea-gga-gst"', 'profile = "rtklib-llh"')],
     "device[3].base_station: cannot be checked: rtklib-llh does not tell it"),
    ([('from = "gnss1.east"', 'derive = { kind = "axis", toward = "downstream", east = "p", up = "p" }')],
     ("channel[2].derive: north is missing\n"
     "channel[2].derive: up has no part in downstream\n"
     "channel[2].derive: there is no channel ''\n"
     "channel[2].derive: needs downstream_azimuth_deg, its own or that of its section\n"
     "channel[2].unit: it is in mm; the formula needs kPa")),
    ([('from = "gnss1.east"',
       'section = "2-2"\nderive = { kind = "axis", toward = "left-bank", east = "p", north = "p" }'),
      ("[[section]]", "[[section]]\nring_dyke = true\ndownstream_azimuth_deg = 105"),
      ('unit = "mm"', 'unit = "kPa"')],
     "channel[2].derive.toward: section 2-2 is of a ring dyke: it has no left bank"),
    ([('pond = "n"\nsection = "2-2"', 'pond = "m"\nsection = "2-2"')], "channel[0].pond: there is no pond 'm'"),
    ([('section = "2-2"', 'section = "2-3"')],
     "channel[0].section: there is no section of pond n '2-3'; did you mean '2-2'?"),
    ([('from = "gnss1.east"', "")], "channel[2]: needs exactly one of from (measured) and derive (computed)"),
    ([('of = "p", tip_elevation_m = 78.42 }', 'of = "p", tip_elevation_m = 78.42 }\nfrom = "vw1.freq01"')],
     "channel[1]: needs exactly one of from (measured) and derive (computed)"),
    ([("span = [-5, 350]", "span = [350, -5]")], "channel[0].span: 350 must lie below -5"),
    ([('"vw1.freq03"', '"vw2.freq03"')], "channel[0].from: there is no device 'vw2'; did you mean 'vw1'?"),
    ([('"vw1.freq03"', '"vw1.freq93"')], "channel[0].from: device vw1 has no point 'freq93'; did you mean "),
    ([('"vw1.freq03"', '"freq03"')], "channel[0].from: 'freq03' must be device.point"),
    ([('"gnss1.east"', '"gnss1.est"')], "channel[2].from: device gnss1 has no point 'est'; did you mean 'east'?"),
    ([('"vw1.freq03"', '"vw1.temp03"')], "channel[0].from: vw1.temp03 is in degC; the formula needs Hz"),
    ([('temperature = "vw1.temp03"', "")], "channel[0].temperature: is missing: the calibration corrects with it"),
    ([('barometer = "weather.pressure"', "")], "channel[0].barometer: is missing: the calibration corrects with it"),
    ([('"vw1.temp03"', '"vw1.freq04"')], "channel[0].temperature: vw1.freq04 is in Hz; it must be in degC"),
    ([('barometer = "weather.pressure"', 'barometer = "east"')],
     "channel[0].barometer: east is in mm; it must be in hPa or mbar or kPa or Pa"),
    ([('unit = "kPa"', 'unit = "MPa"')],
     "channel[0].unit: it is in MPa; the formula needs kPa\nchannel[1].derive: p is in MPa; the formula needs kPa"),
    ([('unit = "mm"', 'unit = "cm"')], "channel[2].unit: is cm, but gnss1.east is in mm: add a calibration"),
    ([("kpa_per_digit = -0.1795", "kpa_per_digit = 0.1795")], "channel[0].calibration.kpa_per_digit: is negative"),
    ([('unit = "m"', 'unit = "mm"')], "channel[1].unit: it is in mm; the formula needs m"),
    ([('of = "p"', 'of = "east"')], "channel[1].derive: east is in mm; the formula needs kPa"),
    ([("tip_elevation_m = 78.42", "tip_elevation_m = 78.42, density_kg_m3 = 0")],
     "channel[1].derive: density_kg_m3 0.0 must be above 0"),
    ([("yellow = 85.0, red = 87.0", "yellow = 87.0, red = 85.0")], "channel[1].levels: red 85.0 must lie beyond"),
    ([('levels = { rising = true, red = 50, source = "design report", approver = "W" }', "levels = { rising = true, red = 50 }")],
     "channel[2].levels: source is empty"),
    ([('from = "gnss1.east"', 'from = "gnss1.east"\nspan = [-40, 40]')],
     "channel[2].levels.red: 50 can never be passed: a value outside the span -40 .. 40 is bad"),
    ([('from = "gnss1.east"', 'from = "gnss1.east"\nadvice = { trend_noise = 2.0 }')],
     "channel[2].advice: trend_noise and trend_rate_per_day go together"),
    ([('device = "relay1"', 'device = "relay2"')], "output[0].device: there is no device 'relay2'; did you mean"),
    ([('write = "relay1"', 'write = "relay9"')],
     "output[0].write: the device's profile has no write 'relay9': it has relay1"),
    ([('write = "relay1"\npond = "n"', 'write = "relay1"\npond = "m"')], "output[0].pond: there is no pond 'm'"),
    ([("mqtts://broker", "https://broker")], "uplink[0].url: 'https://broker.example:8883' must be mqtt://host:port"),
    ([(":8883", ":88830")], "uplink[0].url: "),
    ([("mqtts://broker.example:8883", "mqtts://")], "uplink[0].url: "),
    ([('settle = "receipt"', 'settle = "receipt"\nkey = "a.key"')], "uplink[0].certificate: is missing"),
    ([("mqtts://", "mqtt://"), ('settle = "receipt"', 'settle = "receipt"\nca = "ca.pem"')],
     "uplink[0].ca: is for TLS, which the url does not ask for: write mqtts://"),
    ([('settle = "receipt"', 'settle = "receipt"\npassword_file = "p"')], "uplink[0].username: is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "problem"), MISTAKES, ids=[problem[:50] for _, problem in MISTAKES])
def test_a_mistake_is_found_with_its_path_and_nothing_else_is(
    tmp_path: Path, changes: list[tuple[str, str]], problem: str
) -> None:
    found = problems(tmp_path, *changes)
    expected = problem.split("\n")
    assert len(found) == len(expected), found
    assert all(is_.startswith(said) for is_, said in zip(found, expected, strict=True)), found


def test_a_rate_is_in_the_unit_of_what_it_is_the_rate_of(tmp_path: Path) -> None:
    rate = '\n[[channel]]\nid = "v"\nunit = "mm/h"\nitem = "displacement"\npond = "n"\n'
    rate += 'derive = { kind = "rate", of = "east", per = "d", noise = 2.0 }\n'
    with pytest.raises(SiteFileError, match=r"channel\[4\].unit: it is in mm/h; the formula needs mm/d"):
        load(tmp_path, GOOD + rate)
    load(tmp_path, GOOD + rate.replace("mm/h", "mm/d"))


def test_a_channel_computed_from_itself_is_found_once_however_long_the_way(tmp_path: Path) -> None:
    chain = "".join(
        f'\n[[channel]]\nid = "c{i}"\nunit = "m"\nitem = "health"\npond = "n"\n'
        f'derive = {{ kind = "linear", of = "c{(i + 1) % 2000}" }}\n'
        for i in range(2000)
    )
    with pytest.raises(SiteFileError) as error:
        load(tmp_path, GOOD + chain)
    (problem,) = error.value.problems
    assert problem.path == "channel[4]"
    assert problem.message.startswith("is computed from itself: c0 <- c1 <- c2")
    assert problem.message.endswith("c1999 <- c0")


def test_a_diamond_is_no_circle(tmp_path: Path) -> None:
    both = '\n[[channel]]\nid = "h"\nunit = "mm"\nitem = "health"\npond = "n"\nderive = { kind = "horizontal", east = "east", north = "north" }\n'
    twin = '\n[[channel]]\nid = "north"\nunit = "mm"\nitem = "health"\npond = "n"\nderive = { kind = "linear", of = "east" }\n'
    load(tmp_path, GOOD + twin + both)


# (what is changed, what a person is told)
ADVICE: list[tuple[list[tuple[str, str]], str]] = [
    ([('gateway = "g"', 'gateway = "g"\nmode = "simulated"')], "site.mode: every payload says that it is simulated"),
    ([('[[uplink]]\nid = "company"\nkind = "mqtt"\nurl = "mqtts://broker.example:8883"\nsettle = "receipt"', "")],
     "uplink: there is none: readings are kept here and go nowhere"),
    ([('unit = "hPa"', 'unit = "hPa"\nadvice = { hampel = true }'), ("[[pond]]", '[rules]\nstart = "off"\n[[pond]]')],
     "rules.start: is off, so the advice that channels ask for is not given"),
    ([('serial = "115200 8N1"', "")],
     "device[3].line: nmea-gga-gst comes as 115200 8N1, the line is 9600 8N1: see that the instrument is too"),
    ([('levels = { rising = true, red = 50, source = "design report", approver = "W" }', "")],
     "channel[2]: displacement GN01 has no trigger levels on any channel: it is not armed"),
    ([('item = "displacement"', 'item = "landslide"')],
     "pond[0]: no channel monitors displacement, which GB 39496-2020 5.5.2 asks of a dry pond"),
    ([('kind = "dry"', 'kind = "wet"')],
     "pond[0]: no channel monitors dry-beach, which GB 39496-2020 5.5.2 asks of a wet pond"),
    ([('kind = "dry"', 'kind = "wet"\ngrade = 3')],
     ("pond[0]: no channel monitors pore-pressure, seepage-flow, turbidity, which GB 39496-2020 5.5.2 asks of a wet "
     "pond of grade 3 where necessary")),
    ([("mqtts://", "mqtt://")], "uplink[0].url: is not encrypted: anybody on the way can read and change what is sent"),
    ([('settle = "receipt"', 'settle = "receipt"\nca = "/no/ca.pem"')], "uplink[0].ca: there is no file /no/ca.pem"),
    ([("[[output]]", '[[line]]\nid = "spare"\nkind = "tcp"\naddress = "a:1"\n[[output]]')], "line[3]: has no device"),
    ([('base_station = "1"', "")],
     "device[3].base_station: is missing: another base station after a restart would go unnoticed"),
    ([("kpa_per_celsius = 0.1319", "kpa_per_celsius = 0.0")],
     "channel[0].temperature: is not used: the calibration does not correct with it"),
    ([], ("device[0].profile: wenkon-vtn416 rests in part on facts from no manual (inferred): compare with the "
     "instrument's own display before relying on it")),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "warning"), ADVICE, ids=[warning[:50] for _, warning in ADVICE])
def test_what_the_daemon_can_live_with_is_a_warning(
    tmp_path: Path, changes: list[tuple[str, str]], warning: str
) -> None:
    assert warning in warnings(tmp_path, *changes)


def test_a_wet_pond_of_low_grade_needs_no_pore_pressure(tmp_path: Path) -> None:
    assert not any(
        "pore-pressure" in w for w in warnings(tmp_path, ('kind = "dry"', 'kind = "wet"\ngrade = 4'))
    )


def test_the_load_of_a_line_is_its_characters_over_the_period(tmp_path: Path) -> None:
    """By hand: 9600 8N1 is 10 bits a character; a poll of freq is 8 + 5 + 40 and one of temp 8 + 5 + 32
    characters, one of eight coils 8 + 5 + 1, each with 3.5 characters of silence."""
    loads = {load_.line: load_.share for load_ in line_loads(load(tmp_path, GOOD))}
    characters = (53 + 3.5) + (45 + 3.5) + (14 + 3.5)
    assert loads == {"bus": pytest.approx(characters * 10 / 9600 / 600), "air": None, "sky": None}


def test_a_line_that_would_be_too_busy_is_warned_of(tmp_path: Path) -> None:
    every = ('every = "10 min"', 'every = "110 ms"\ntimeout = "50 ms"\nslowest_reply = "50 ms"')
    assert "line[0]: would be busy 99% of the time: poll less often or use a second line" in warnings(
        tmp_path, every
    )


def test_the_example_is_what_the_types_say() -> None:
    assert example.PATH.read_text() == example.text(), "make it anew: python -m daemon.example"


def test_the_example_loads() -> None:
    assert Site.load(ROOT / "config" / "site.example.toml").channels[1].levels


def test_every_key_the_example_shows_commented_out_is_one_the_binder_takes() -> None:
    text = re.sub(r"^#(\w+ = )", r"\1", example.text(), flags=re.MULTILINE)
    found: list[Problem] = []
    bind(File, tomllib.loads(text), "", found)
    assert found == []


def test_the_example_has_every_key() -> None:
    text = example.text()
    for f in dataclasses.fields(File):
        name = f.metadata.get("key", f.name)
        start = re.search(rf"^\[+{name}\]+$", text, re.MULTILINE)
        assert start, name
    for key in (
        "receipt_deadline",
        "slowest_reply",
        "trend_rate_per_day",
        "ground_elevation_m",
        "per_count",
        "linger",
    ):
        assert re.search(rf"^#?\s*{key} = ", text, re.MULTILINE), key


def test_the_demo_site_is_well() -> None:
    site = Site.load(ROOT / "config" / "demo.toml")
    assert site.site.mode == "simulated"
