"""The site file as frozen types: the only place that sees the file's dictionaries.

`Site.load` reports every mistake at once. What the types cannot say (a channel that names a device
nobody declared) is checked in `daemon/crosscheck.py`, called from here. The metadata of each field is
what `config/site.example.toml` is made from.
"""

import hashlib
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from daemon import crosscheck
from daemon.binder import Problem, SerialMode, bind
from daemon.dated import SURVEY_VALID_S, ChannelWas, DeviceWas, Raise, Taken
from daemon.duty_tables import AlarmsTable, DutyTable, PersonTable
from daemon.uplink.tables import DIALECTS, OtherUplink
from drivers.calibration import KINDS as CALIBRATIONS
from drivers.calibration import Calibration
from drivers.gnss.baseline import Baseline, Reference
from edge_rules.law.derived import KINDS as DERIVATIONS
from edge_rules.law.derived import Axis, Derivation
from edge_rules.law.levels import Levels
from edge_rules.law.water import OperatingLimit

Item = Literal[
    "displacement",
    "phreatic-line",
    "pore-pressure",
    "rainfall",
    "pond-level",
    "dry-beach",
    "seepage-flow",
    "turbidity",
    "landslide",
    "weather",
    "health",
]


NAME = r"[A-Za-z0-9_-]+"  # stands in topics, and before the dot of device.point
DOTTED = r"[A-Za-z0-9._-]+"
ADDRESS = r"(\[[^\]]+\]|[^:\s]+):[0-9]{1,5}"


def _key(doc: str, example: str, *, default: Any = ..., **how: Any) -> Any:
    """A field with its documentation; `example` is TOML as it would stand in the file.

    `how` is what the binder knows: key, parse, variants, min, exclusive_min, max, pattern.
    """
    metadata = {"doc": doc, "example": example, **how}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class SiteTable:
    id: str = _key("name of the site in topics and payloads", '"liaocheng-1"', pattern=NAME)
    gateway: str = _key("name of this gateway, unique within the site", '"gw1"', pattern=NAME)
    name: str = _key("the site's name for people", '"聊城一号库"', default="")
    timezone: str = _key("where the local day begins", '"Asia/Shanghai"', default="Asia/Shanghai")
    mode: Literal["real", "test", "simulated"] = _key(
        "stands in every payload; simulated allows the bench's clock rate", '"real"', default="real"
    )
    shadow: bool = _key(
        "trial run: all is judged and kept, no output moves, nobody is called, alarms say test and shadow",
        "true",
        default=False,
    )


@dataclass(frozen=True, slots=True)
class StoreTable:
    path: str = _key("folder of store, head and keys", '"/var/lib/pondwatch"', default="/var/lib/pondwatch")
    linger_s: float = _key(
        "longest wait of a reading for its commit",
        '"200 ms"',
        default=0.2,
        key="linger",
        parse="duration",
        max=0.2,
    )
    keep_s: float = _key(
        "how long batches stay; then those go that every uplink declared archive has receipted",
        '"10 years"',
        default=10 * 31557600.0,
        key="keep",
        parse="duration",
        exclusive_min=0.0,
    )
    most_bytes: int = _key(
        "what the store may take of the disk; beyond it the oldest readings are pushed out, and announced",
        '"8 GB"',
        default=8_000_000_000,
        key="max_size",
        parse="size",
        min=1_000_000,
    )


@dataclass(frozen=True, slots=True)
class MetricsTable:
    listen: str = _key(
        "host:port of /metrics, /healthz, /readyz",
        '"127.0.0.1:9464"',
        default="127.0.0.1:9464",
        pattern=ADDRESS,
    )


@dataclass(frozen=True, slots=True)
class PageTable:
    """The status page, `pondwatch page`: read only, for whoever can reach it."""

    listen: str = _key("host:port", '"127.0.0.1:9465"', default="127.0.0.1:9465", pattern=ADDRESS)
    names: tuple[str, ...] = _key(
        "other names that browsers may know it by, such as that of a proxy in front of it",
        '["pond.example"]',
        default=(),
    )
    language: Literal["zh", "en"] = _key("of the page as it is first shown", '"zh"', default="zh")


@dataclass(frozen=True, slots=True)
class RulesTable:
    start: Literal["child", "unit", "off"] = _key(
        "child: the core starts and supervises it; unit: systemd does; off: no detectors",
        '"unit"',
        default="unit",
    )


@dataclass(frozen=True, slots=True)
class RollupTable:
    """Counts of GB 39496-2020 5.5.4; the ladder above points was seen in print only in part."""

    blue_to_yellow: int = _key("so many blue points make their item yellow", "4", default=4, min=1)
    yellow_to_orange: int = _key("so many yellow points make their item orange", "3", default=3, min=1)
    orange_to_red: int = _key("so many orange points make their item red", "2", default=2, min=1)


@dataclass(frozen=True, slots=True)
class RainTable:
    """The pond's rain as a level of its own: designer's values, bands, storm signals, platform's warnings."""

    gauges: tuple[str, ...] = _key("channels with the rain since the poll before, mm", '["n.rain.depth"]')
    stop_at: Literal["blue", "yellow", "orange", "red"] = _key(
        "from this rain level on: advice to stop production and withdraw people", '"orange"', default="orange"
    )


@dataclass(frozen=True, slots=True)
class Pond:
    id: str = _key("short name, first part of channel ids by custom", '"n"', pattern=NAME)
    name: str = _key("name for people", '"北库"', default="")
    kind: Literal["wet", "dry"] = _key("wet pond or dry stack (GB 39496-2020 5.5.2)", '"wet"', default="wet")
    grade: Literal[1, 2, 3, 4, 5] = _key("grade of the pond, 1 the highest", "3", default=5)
    rollup: RollupTable = _key("counts from points to item to pond", "{ }", default=RollupTable())
    rain: RainTable | None = _key(
        "rain level of the pond", '{ gauges = ["n.rain.depth"], stop_at = "orange" }', default=None
    )
    limits: tuple[OperatingLimit, ...] = _key(
        "dated limits of the pond's level, [[pond.limit]]: of its channels of item pond-level without levels",
        '[{ kind = "flood-season", from = "2026-06-01", until = "2026-09-30", levels = { rising = true, '
        'orange = 86.5, red = 87.5, source = "flood control plan 2026" } }]',
        default=(),
        key="limit",
    )
    survey_valid_s: float = _key(
        "how long a dated survey of ground, crest, beach may be relied on: three months is a rule of ours",
        '"92 d"',
        default=SURVEY_VALID_S,
        key="survey_valid",
        parse="duration",
        exclusive_min=0.0,
    )
    raises: tuple[Raise, ...] = _key(
        "when the dam was raised, [[pond.raise]]: older surveys are not to be relied on from that day on",
        '[{ on = "2026-09-01", by = "王工", note = "lift 14, to 104.0 m" }]',
        default=(),
        key="raise",
    )


@dataclass(frozen=True, slots=True)
class Section:
    id: str = _key("name of the monitoring section", '"2-2"', pattern=DOTTED)
    pond: str = _key("the pond it belongs to", '"n"')
    name: str = _key("name for people", '"2-2断面"', default="")
    downstream_azimuth_deg: float | None = _key(
        "where downstream lies, seen from the crest, in degrees clockwise from north: for `axis` channels; "
        "of a ring dyke, outward",
        "105.0",
        default=None,
        min=0.0,
        max=360.0,
    )
    ring_dyke: bool = _key("part of a closed dyke, which has no left bank", "false", default=False)
    outline: tuple[tuple[float, float], ...] = _key(
        "the surveyed surface, for the status page: metres downstream of the dam's axis, elevation",
        "[[-60, 86.0], [0, 90.0], [80, 70.0]]",
        default=(),
    )
    live_at_least: int = _key(
        "with fewer monitoring points that can be seen the section is blind", "2", default=1, min=1
    )


@dataclass(frozen=True, slots=True)
class LineTable:
    id: str = _key("name of the line", '"rs485-1"', pattern=NAME)
    kind: Literal["modbus-rtu", "modbus-tcp", "rtu-over-tcp", "serial", "tcp"] = _key(
        "how the devices on it are spoken to; serial and tcp carry text streams", '"modbus-rtu"'
    )
    port: str = _key("device file, for modbus-rtu and serial", '"/dev/pondwatch/rs485-1"', default="")
    address: str = _key(
        "host:port, for modbus-tcp, rtu-over-tcp and tcp", '"10.0.0.5:502"', default="", pattern=ADDRESS
    )
    serial: SerialMode = _key(
        "baud, data bits, parity, stop bits",
        '"9600 8N1"',
        default=SerialMode(9600, 8, "N", 1.0),
        parse="serial",
    )
    record_bytes: int | None = _key(
        "keep so much of what goes over it, raw, in the store's folder; absent: nothing",
        '"16 MB"',
        default=None,
        key="record",
        parse="size",
        min=100_000,
    )


@dataclass(frozen=True, slots=True)
class DeviceTable:
    id: str = _key("name of the device; no dot, see `from`", '"vw1"', pattern=NAME)
    line: str = _key("the line it hangs on", '"rs485-1"')
    profile: str = _key("its device profile, see drivers/profiles", '"wenkon-vtn416"')
    every_s: float = _key(
        "how often it is read, aligned to the clock", '"10 min"', key="every", parse="duration", min=0.01
    )
    every_at_warning_s: float | None = _key(
        "how often while its pond or a channel of its own stands at yellow or above, or while rain of any "
        "level or a warning passed on (storm, earthquake) stands for the pond; GNSS at least every 30 min "
        "then (GB 51108 4.5); absent: as ever",
        '"1 min"',
        default=None,
        key="every_at_warning",
        parse="duration",
        min=0.01,
    )
    unit: int | None = _key("Modbus unit number; absent: the profile's", "1", default=None, min=0, max=255)
    serial_number: str = _key("as engraved", '"VTN-2024-0117"', default="")
    timeout_s: float | None = _key(
        "deadline of one transaction; absent: the profile's",
        '"500 ms"',
        default=None,
        key="timeout",
        parse="duration",
        exclusive_min=0.0,
    )
    slowest_reply_s: float | None = _key(
        "latest moment a reply can still come; absent: the profile's",
        '"2 s"',
        default=None,
        key="slowest_reply",
        parse="duration",
    )
    baseline: Baseline | None = _key(
        "GNSS only: the fixed origin from which displacement counts",
        "{ latitude_deg = 36.123456789, longitude_deg = 115.987654321, height_m = 84.1234 }",
        default=None,
    )
    reference: Reference | None = _key(
        "GNSS that tells a vector from its base station, or grid coordinates: what it told at commissioning, "
        "from which displacement counts",
        "{ east_m = -5654.4012, north_m = 12167.7631, up_m = -42.3190 }",
        default=None,
    )
    base_station: str = _key(
        "GNSS only: the base station that the origin was measured from; another one makes readings uncertain "
        "until a survey ties it (`pondwatch baseline`); any: a network that serves whichever is near; "
        "absent: the first one heard, kept in the store",
        '"117"',
        default="",
    )
    was: tuple[DeviceWas, ...] = _key(
        "what held before, oldest first, [[device.was]]: readings of then keep it",
        '[{ until = "2026-05-10T09:30:00+08:00", by = "王工", serial_number = "VTN-2019-0044" }]',
        default=(),
    )
    oldest_corrections_s: float | None = _key(
        "GNSS only: a solution on older corrections is none; absent: the receiver's own judgement",
        '"30 s"',
        default=None,
        key="oldest_corrections",
        parse="duration",
        exclusive_min=0.0,
    )


@dataclass(frozen=True, slots=True)
class ResponseTable:
    """What a pore pressure is expected from; judged only where it explains 90 % of the variance."""

    rain: str = _key("channel with the rain since the poll before", '"n.rain.depth"', default="")
    pond: str = _key("channel with the pond level, the decisive input", '"n.pond.level"', default="")
    evaporation: str = _key(
        "channel with the evaporation since the poll before", '"n.evaporation"', default=""
    )
    step_s: float = _key(
        "means over so long are compared", '"1 day"', default=86400.0, key="step", parse="duration", min=600.0
    )
    learn_s: float = _key(
        "history before anything is judged: one wet season at least",
        '"365 days"',
        default=365 * 86400.0,
        key="learn",
        parse="duration",
        min=86400.0,
    )


@dataclass(frozen=True, slots=True)
class AdviceTable:
    """Detectors give advice beside the levels; they never raise, lower or silence a level."""

    hampel: bool = _key("spikes against the trailing median, a quality check", "true", default=False)
    resolution: float = _key(
        "smallest step of the instrument in the channel's unit: floor of the spread",
        "0.01",
        default=0.0,
        min=0.0,
    )
    flatline_s: float | None = _key(
        "the same raw count for longer, and for longer than twice the longest run so far (five times, among "
        "the first 1000 readings), is a stuck sensor; never within the first two weeks; not for rain",
        '"6 h"',
        default=None,
        key="flatline",
        parse="duration",
        exclusive_min=0.0,
    )
    noise: bool = _key(
        "readings that scatter four times as usual, or for a day a fifth; needs resolution",
        "true",
        default=False,
    )
    period_s: float | None = _key(
        "usual time between readings: stale after 2.5 of them, dead after 6",
        '"10 min"',
        default=None,
        key="period",
        parse="duration",
        exclusive_min=0.0,
    )
    trend_noise: float | None = _key(
        "standard deviation of one reading in the channel's unit; arms the robust trend",
        "2.0",
        default=None,
        exclusive_min=0.0,
    )
    trend_rate_per_day: float | None = _key(
        "rate at which the trend is worth a look, in the channel's unit per day",
        "2.0",
        default=None,
        exclusive_min=0.0,
    )
    onset: bool = _key(
        "for displacement: steps, onset of acceleration, time of failure with its interval; needs the trend",
        "true",
        default=False,
    )
    domain: str = _key(
        "failure domain: channels of one component that hang on one base station, barometer or logger; what "
        "they all do at once is taken away; needs trend and period",
        '"base1-east"',
        default="",
    )
    response: ResponseTable | None = _key(
        "expect the pore pressure from rain and pond level",
        '{ rain = "n.rain.depth", pond = "n.pond.level" }',
        default=None,
    )
    false_alarms_per_year: float = _key(
        "budget of the response model, from which its limits follow",
        "0.1",
        default=0.1,
        exclusive_min=0.0,
        max=12.0,
    )


@dataclass(frozen=True, slots=True)
class ChannelTable:
    id: str = _key("name of the channel, unique on the gateway", '"n.pz03.pressure"', pattern=DOTTED)
    unit: str = _key("unit of its readings", '"kPa"')
    item: Item = _key("what is monitored (GB 39496-2020 5.5.2), or weather, or health", '"phreatic-line"')
    pond: str = _key("the pond it belongs to", '"n"')
    section: str = _key("the monitoring section", '"2-2"', default="")
    monitoring_point: str = _key("what the roll-up counts; absent: the channel itself", '"PZ03"', default="")
    along_m: float | None = _key(
        "where its point stands in the section, metres downstream of the dam's axis, for the status page",
        "12.5",
        default=None,
    )
    source: str = _key("device.point that is measured", '"vw1.freq03"', default="", key="from")
    temperature: str = _key(
        "device.point or channel with the sensor's temperature, degC", '"vw1.temp03"', default=""
    )
    barometer: str = _key(
        "device.point or channel with the air pressure, hPa or kPa", '"weather.pressure"', default=""
    )
    span: tuple[float, float] | None = _key(
        "what the sensor can measure, in the channel's unit; outside is bad", "[-5, 350]", default=None
    )
    calibration: Calibration | None = _key(
        "numbers of the calibration sheet",
        '{ kind = "linear", scale = 1.0, offset = 0.0 }',
        default=None,
        variants=CALIBRATIONS,
    )
    derive: Derivation | None = _key(
        "the quantity computed from other channels, in place of `from`",
        '{ kind = "piezometric-elevation", of = "n.pz03.pressure", tip_elevation_m = 78.42, '
        'density_kg_m3 = 1000, datum = "1985" }',
        default=None,
        variants=DERIVATIONS,
    )
    levels: Levels | None = _key(
        "the designer's trigger levels; without them the channel is not armed",
        "{ rising = true, blue = 84.0, yellow = 85.0, orange = 86.0, red = 87.0, hysteresis = 0.2, "
        'hold = "20 min", source = "design report 2024-07, table 5-3" }',
        default=None,
    )
    uncertainty: float | None = _key(
        "standard uncertainty of a reading, in its unit; levels nearer than three times it are named",
        "0.05",
        default=None,
        exclusive_min=0.0,
    )
    manual_tolerance: float | None = _key(
        "how far a reading by hand may lie from the instrument's, in the channel's unit",
        "0.1",
        default=None,
        exclusive_min=0.0,
    )
    sensor: str = _key("serial number of the sensor, as engraved", '"VW-2207"', default="")
    taken: Taken | None = _key(
        "when and by whom the numbers of calibration or derive were measured",
        '{ on = "2026-05-10", by = "李工", document = "survey 2026-05, sheet 3" }',
        default=None,
    )
    was: tuple[ChannelWas, ...] = _key(
        "what held before, oldest first, [[channel.was]]: readings of then keep it",
        '[{ until = "2026-05-10T09:30:00+08:00", by = "王工", '
        'calibration = { kind = "linear", scale = 1.0, offset = 0.3 } }]',
        default=(),
    )
    advice: AdviceTable | None = _key("detectors of the rules process", "{ hampel = true }", default=None)


@dataclass(frozen=True, slots=True)
class OutputTable:
    id: str = _key("name of the output", '"siren-n"', pattern=NAME)
    device: str = _key("the device that switches it", '"relay1"')
    write: str = _key("the write of its profile, with its index where it repeats", '"relay1"')
    pond: str = _key("the pond whose level drives it", '"n"')
    at: Literal["blue", "yellow", "orange", "red"] = _key(
        "on at this level and above", '"red"', default="red"
    )
    kind: Literal["switch", "pulse", "watchdog", "public"] = _key(
        "switch: on and off; pulse: the device ends each by itself, and it is repeated; watchdog: pulses as "
        "long as the core is well; public: by the named authority's signed request only, never by a level",
        '"pulse"',
        default="switch",
    )
    until: Literal["acknowledged", "gone"] = _key(
        "how long: until people have acknowledged, or until the level is gone, as a lamp",
        '"gone"',
        default="acknowledged",
    )
    every_s: float = _key(
        "pulse, watchdog: how often, less than the pulse is long for one that must not drop",
        '"15 s"',
        default=15.0,
        key="every",
        parse="duration",
        min=0.2,
    )
    after_calls: int = _key(
        "a louder one: only after so many further calls that nobody acknowledged", "1", default=0, min=0
    )
    authority_keys: tuple[str, ...] = _key(
        "public: Ed25519 keys of the named authority, 64 hex digits each; among an uplink's request_keys too",
        '["d7712120f3f55fc693d5639d4943126063d360b6951dc7a94940a6372963afe2"]',
        default=(),
    )
    at_most_s: float = _key(
        "public: longest time that one request may have it sound",
        '"10 min"',
        default=600.0,
        key="at_most",
        parse="duration",
        exclusive_min=0.0,
    )


@dataclass(frozen=True, slots=True)
class UplinkTable:
    """Our own MQTT payload, whole: readings, alarms, gaps, audit, in one chain."""

    id: str = _key("name of the uplink", '"company"', pattern=NAME)
    kind: Literal["mqtt"] = _key("dialect", '"mqtt"')
    url: str = _key("mqtt://host:port, or mqtts:// with TLS", '"mqtts://broker.example:8883"')
    settle: Literal["receipt", "puback"] = _key(
        "what proves delivery; puback: a broker that loses its memory after it loses the data", '"receipt"'
    )
    archive: bool = _key(
        "keeps for good what it has receipted, so that it may go here once `keep` is over; needs receipts",
        "true",
        default=False,
    )
    ca: str = _key(
        "file with the authority's certificate; absent: the system's", '"/etc/pondwatch/ca.pem"', default=""
    )
    certificate: str = _key(
        "file with the client's certificate", '"/etc/pondwatch/secrets/gw1.pem"', default=""
    )
    key: str = _key("file with the client's key", '"/etc/pondwatch/secrets/gw1.key"', default="")
    username: str = _key("name at the broker", '"gw1"', default="")
    password_file: str = _key(
        "file with the password, first line", '"/etc/pondwatch/secrets/company"', default=""
    )
    window: int = _key(
        "messages in flight at once, at most what the broker allows", "20", default=20, min=1, max=65535
    )
    ack_deadline_s: float = _key(
        "no PUBACK for this long: a new connection",
        '"30 s"',
        default=30.0,
        key="ack_deadline",
        parse="duration",
        exclusive_min=0.0,
    )
    receipt_deadline_s: float = _key(
        "settle = receipt: no receipt for this long: the batch is sent again",
        '"2 min"',
        default=120.0,
        key="receipt_deadline",
        parse="duration",
        exclusive_min=0.0,
    )
    drain_bytes_per_s: float | None = _key(
        "what the backlog of an outage may take of the link; absent: what live readings leave",
        '"20 kB/s"',
        default=None,
        key="drain_rate",
        parse="rate",
        exclusive_min=0.0,
    )
    encoding: Literal["json", "zstd"] = _key(
        "zstd: payloads are compressed, said in a user property", '"zstd"', default="json"
    )
    request_keys: tuple[str, ...] = _key(
        "public Ed25519 keys whose signed requests are done, 64 hex digits each; none: no requests",
        '["d7712120f3f55fc693d5639d4943126063d360b6951dc7a94940a6372963afe2"]',
        default=(),
    )


@dataclass(frozen=True, slots=True)
class File:
    """The file's top level; arrays of tables carry singular names, as TOML reads best."""

    site: SiteTable = field()
    store: StoreTable = field(default=StoreTable())
    metrics: MetricsTable = field(default=MetricsTable())
    page: PageTable = field(default=PageTable())
    rules: RulesTable = field(default=RulesTable())
    ponds: tuple[Pond, ...] = field(default=(), metadata={"key": "pond"})
    sections: tuple[Section, ...] = field(default=(), metadata={"key": "section"})
    lines: tuple[LineTable, ...] = field(default=(), metadata={"key": "line"})
    devices: tuple[DeviceTable, ...] = field(default=(), metadata={"key": "device"})
    channels: tuple[ChannelTable, ...] = field(default=(), metadata={"key": "channel"})
    outputs: tuple[OutputTable, ...] = field(default=(), metadata={"key": "output"})
    uplinks: tuple[UplinkTable | OtherUplink, ...] = field(
        default=(), metadata={"key": "uplink", "variants": {"mqtt": UplinkTable, **DIALECTS}}
    )
    alarms: AlarmsTable = field(default=AlarmsTable())
    people: tuple[PersonTable, ...] = field(default=(), metadata={"key": "person"})
    duties: tuple[DutyTable, ...] = field(default=(), metadata={"key": "duty"})


def _turned(file: File) -> tuple[ChannelTable, ...]:
    """The channels, those along a dam's axis with the direction of their section, then as now."""
    azimuths = {(each.pond, each.id): each.downstream_azimuth_deg for each in file.sections}

    def turned(derive: Derivation | None, channel: ChannelTable) -> Derivation | None:
        if not isinstance(derive, Axis):
            return derive
        return derive.at(azimuths.get((channel.pond, channel.section)))

    return tuple(
        replace(
            each,
            derive=turned(each.derive, each),
            was=tuple(replace(was, derive=turned(was.derive, each)) for was in each.was),
        )
        if isinstance(each.derive, Axis)
        else each
        for each in file.channels
    )


class SiteFileError(Exception):
    """The site file cannot be used; `problems` has all that is wrong with it."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        super().__init__("\n".join(f"{path}: {p}" for p in problems))
        self.path = path
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Site(File):
    """A whole, checked site file."""

    path: Path = field(default=Path(), kw_only=True)
    sha256: str = field(default="", kw_only=True)
    warnings: tuple[Problem, ...] = field(default=(), kw_only=True)

    @property
    def store_folder(self) -> Path:
        return Path(self.store.path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read, bind and cross-check the file at `path`.

        Raises:
            SiteFileError: with every problem found.
            OSError: the file cannot be read.
        """
        text = path.read_bytes()
        problems: list[Problem] = []
        try:
            table = tomllib.loads(text.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SiteFileError(path, [Problem("", f"is not TOML: {error}")]) from None
        bound = bind(File, table, "", problems)
        assert bound is not None  # a whole file always binds, with what is wrong in it marked
        warnings = crosscheck.warnings(bound, problems)
        if problems:
            raise SiteFileError(path, problems)
        parts = {f.name: getattr(bound, f.name) for f in fields(File)}
        parts["channels"] = _turned(bound)
        return cls(**parts, path=path, sha256=hashlib.sha256(text).hexdigest(), warnings=tuple(warnings))
