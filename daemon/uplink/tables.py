"""The site file's tables of uplinks other than our own MQTT payload, one for each dialect.

What no public text says about a platform (codes, separators, the order of fields) is a key here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from daemon.duty_tables import _key

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

DOTTED = r"[A-Za-z0-9._-]+"
NAME = r"[A-Za-z0-9_-]+"

TailingsType = Literal["GTX", "JYL", "KSW", "BWY", "QRX", "GNSS"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """What every dialect's uplink has."""

    id: str = _key("name of the uplink", '"province"', pattern=NAME)
    window: int = _key("so many batches are handed over together at most", "20", 20, min=1, max=1000)
    ack_deadline_s: float = _key(
        "no acknowledgement for this long: a new connection",
        '"30 s"',
        30.0,
        key="ack_deadline",
        parse="duration",
        exclusive_min=0.0,
    )
    drain_bytes_per_s: float | None = _key(
        "what the backlog of an outage may take of the link; absent: what live readings leave",
        '"20 kB/s"',
        None,
        key="drain_rate",
        parse="rate",
        exclusive_min=0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TailingsPoint:
    """A monitoring point as the platform knows it; what is left out is sent as an empty field."""

    code: str = _key("the platform's code of the device", '"370000KSW020001"', pattern=DOTTED)
    type: TailingsType = _key(
        "dry beach, rain, pond level, surface displacement, phreatic line, GNSS", '"KSW"'
    )
    value: str = _key("channel with its value; of GNSS and BWY see x, y, z", '"n.pond.level"', "")
    second: str = _key("GTX: channel of the second value, whose meaning no text says", '"n.beach.slope"', "")
    x: str = _key("GNSS, BWY: channel of the displacement in x, mm", '"n.g01.north"', "")
    y: str = _key("likewise in y", '"n.g01.east"', "")
    z: str = _key("likewise in z", '"n.g01.up"', "")
    x_speed: str = _key("GNSS, BWY: channel of the velocity in x", '"n.g01.north.rate"', "")
    y_speed: str = _key("likewise in y", '"n.g01.east.rate"', "")
    z_speed: str = _key("likewise in z", '"n.g01.up.rate"', "")
    x_acceleration: str = _key("GNSS, BWY: channel of the acceleration in x", '"n.g01.north.acc"', "")
    y_acceleration: str = _key("likewise in y", '"n.g01.east.acc"', "")
    z_acceleration: str = _key("likewise in z", '"n.g01.up.acc"', "")
    horizontal: str = _key(
        "GNSS: channel whose alarms go as gnssalarm by horizontal displacement", '"n.g01.horizontal"', ""
    )
    horizontal_speed: str = _key("likewise by horizontal velocity", '"n.g01.horizontal.rate"', "")
    horizontal_acceleration: str = _key("likewise by acceleration", '"n.g01.horizontal.acc"', "")
    name: str = _key("name of the device", '"库水位计1"', "")
    installed: str = _key("day of installation, as the platform writes it", '"2024-06-01"', "")
    location: str = _key("where it is installed", '"溢洪道"', "")
    install_height: str = _key("KSW: height of installation", '"84.20"', "")
    hole_depth: str = _key("QRX: depth of the hole", '"25.0"', "")
    control_depth: str = _key("QRX: control depth of the phreatic line", '"6.0"', "")
    manufacturer: str = _key("who made it", '"VEGA"', "")
    device_type: str = _key("its model", '"VEGAPULS"', "")
    power_comm: str = _key("how it is powered and talks", '"太阳能/RS485"', "")
    accuracy: str = _key("its accuracy", '"2mm"', "")
    longitude: str = _key("degrees, as the platform wants them written", '"115.987654"', "")
    latitude: str = _key("likewise", '"36.123456"', "")
    altitude: str = _key("metres", '"84.20"', "")
    level1: str = _key("the designer's first warning level, as the platform has it", '"87.5"', "")
    level2: str = _key("the second", '"86.5"', "")
    level3: str = _key("the third", '"84.8"', "")
    range: str = _key("GNSS: measuring range", '""', "")

    def channels(self) -> tuple[str, ...]:
        """All that it names."""
        its = (self.value, self.second, self.x, self.y, self.z, self.x_speed, self.y_speed, self.z_speed)
        more = (self.x_acceleration, self.y_acceleration, self.z_acceleration)
        alarmed = (self.horizontal, self.horizontal_speed, self.horizontal_acceleration)
        return tuple(dict.fromkeys(name for name in (*its, *more, *alarmed) if name))


@dataclass(frozen=True, slots=True, kw_only=True)
class TailingsRecord:
    """The fields of one kind of record, in order."""

    type: str = _key(
        "type and DY (definition) or SS (real time)", '"KSWSS"', pattern="(GTX|JYL|KSW|BWY|QRX)(DY|SS)"
    )
    fields: tuple[str, ...] = _key(
        "names of fields: those of [[uplink.point]], time, and text in quotes as it is to stand there",
        '["code", "time", "value"]',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TailingsFilesTable(_Pace):
    """Text and GNSS files for the tailings platform: de facto, from public code, unverified."""

    project: str = _key("project number, before every name", '"370000"', pattern=DOTTED)
    project_name: str = _key("name of the project", '"北库"')
    folder: str = _key(
        "where the files go: a folder of this machine, or sftp://user@host:port/folder", '"/srv/province"'
    )
    host_key: str = _key(
        "sftp: file with the server's key, as known_hosts has it; required then",
        '"/etc/pondwatch/known_hosts"',
        "",
    )
    key: str = _key("sftp: file with our private key", '"/etc/pondwatch/secrets/id_ed25519"', "")
    password_file: str = _key(
        "sftp: file with the password, first line, where there is no key",
        '"/etc/pondwatch/secrets/company"',
        "",
    )
    open_pit: str = _key("GNSS: open_pit_no", '"37000001"', "")
    slope: str = _key("GNSS: slope_no; a tailings dam's begins with 04", '"3700000104"', "")
    txt_folder: str = _key("folder of the text files, below `folder`", '"wkk"', "wkk")
    gnss_folder: str = _key("folder of the GNSS files, below `folder`", '"GNSS"', "GNSS")
    field_end: str = _key("between fields", '";"', ";")
    record_end: str = _key("after the header and each record", '"~"', "~")
    file_end: str = _key("at the end of a file", '"||"', "||")
    decimals: int = _key("digits after the point", "3", 3, min=0, max=9)
    clear_at: Literal["handled", "closed"] = _key(
        "clearalarm is sent when the alarm is handled, or when it is closed", '"handled"', "handled"
    )
    records: tuple[TailingsRecord, ...] = _key(
        "other fields than the usual ones, [[uplink.record]]",
        '[{ type = "BWYSS", fields = ["code", "time", "x", "y", "z"] }]',
        (),
        key="record",
    )
    points: tuple[TailingsPoint, ...] = _key(
        "the monitoring points, [[uplink.point]]",
        '[{ code = "370000KSW020001", type = "KSW", value = "n.pond.level" }]',
        key="point",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured(_Pace):
    """Who we are to the other side, and how we know it."""

    ca: str = _key(
        "TLS: file with the authority's certificate; absent: the system's", '"/etc/pondwatch/ca.pem"', ""
    )
    certificate: str = _key(
        "TLS: file with our certificate, where they ask for one", '"/etc/pondwatch/secrets/gw1.pem"', ""
    )
    key: str = _key("TLS: file with our key", '"/etc/pondwatch/secrets/gw1.key"', "")
    username: str = _key("our name there", '"gw1"', "")
    password_file: str = _key("file with the password, first line", '"/etc/pondwatch/secrets/company"', "")


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxTable(Secured):
    """InfluxDB's line protocol over HTTPS: InfluxDB 1, 2 and 3, and what else takes it."""

    url: str = _key(
        "where lines are written, whole: /write?db=NAME, or /api/v2/write?org=NAME&bucket=NAME",
        '"https://influx.example:8086/write?db=ponds"',
    )
    token_file: str = _key(
        "file with the token, first line, where there is no password", '"/etc/pondwatch/secrets/influx"', ""
    )
    measurement: str = _key("what the readings are called", '"reading"', "reading", pattern=DOTTED)
    alarm_measurement: str = _key("what the alarms are called", '"alarm"', "alarm", pattern=DOTTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sl651Element:
    """One channel and the element that carries it."""

    channel: str = _key("the channel", '"n.pond.level"')
    element: str = _key(
        "the standard's element in hex, or FF and a number of the vendor's own; F4 to FC are the five-minute "
        "groups of an hour, of rain in five minutes and of levels",
        '"3B"',
        pattern="(FF)?[0-9A-F]{2}",
    )
    base: float | None = _key("F5 to FC: what relative levels count from, in metres", "80.0", None)
    digits: int | None = _key("decimal digits; absent: the standard's", "7", None, min=1, max=18)
    decimals: int | None = _key("of these, behind the point; absent: the standard's", "3", None, min=0, max=7)
    scale: float = _key("factor from the channel's unit to the element's", "1.0", 1.0)
    step_s: float | None = _key(
        "whole minutes: what is measured on this step goes as uniform reports; absent: none does",
        '"5 min"',
        None,
        key="step",
        parse="duration",
        min=60.0,
        max=86400.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sl651State:
    """One bit of the station's state and alarms (table 58 of the standard), and the channel that says it."""

    bit: int = _key("number of the bit", "1", min=0, max=31)
    channel: str = _key("the channel", '"n.battery"')
    below: float | None = _key("the bit is 1 while the value is less", "11.5", None)
    above: float | None = _key("the bit is 1 while the value is greater", "0.5", None)
    when: Literal["", "alarm", "no-value"] = _key(
        "the bit is 1 while the alarm book has an alarm of the channel, or while it has no value",
        '"alarm"',
        "",
    )

    def says(self, latest: tuple[bool, float | None], alarmed: Collection[str | None]) -> bool | None:
        """Whether the bit is 1; None: nobody knows. `latest`: whether there was a reading, and its value."""
        measured, value = latest
        if self.when == "alarm":
            return self.channel in alarmed
        if self.when == "no-value":
            return value is None if measured else None
        if value is None:
            return None
        return value < self.below if self.below is not None else value > (self.above or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sl651Table(_Pace):
    """Hydrology telemetry, SL 651-2014, over TCP: rain, levels, pressure."""

    address: str = _key(
        "host:port of the centre", '"10.0.0.9:5001"', pattern=r"(\[[^\]]+\]|[^:\s]+):[0-9]{1,5}"
    )
    centre: int = _key("number of the centre", "1", min=1, max=255)
    station: str = _key("address of the station, ten digits", '"0012345678"', pattern="[0-9]{10}")
    password: str = _key("the station's password, four hex digits", '"1234"', pattern="[0-9A-Fa-f]{4}")
    station_class: str = _key(
        "class of the station in hex: 50 rain, 48 river, 4B reservoir", '"4B"', pattern="[0-9A-F]{2}"
    )
    keep_alive_s: float = _key(
        "a keep-alive so often, at most 255 s by the standard",
        '"40 s"',
        40.0,
        key="keep_alive",
        parse="duration",
        exclusive_min=0.0,
        max=255.0,
    )
    reply_deadline_s: float = _key(
        "no confirmation for so long: the report is sent again, twice at most",
        '"9 s"',
        9.0,
        key="reply_deadline",
        parse="duration",
        exclusive_min=0.0,
    )
    clock_program: str = _key(
        "program called with the centre's time (RFC 3339) when it sets the clock; absent: refused",
        '"/usr/local/sbin/set-clock"',
        "",
    )
    unwatched: str = _key(
        "state and alarms, eight hex digits: the bits that no channel says, as the centre wants them; "
        "absent: the state is not told",
        '"00000480"',
        "",
        pattern="([0-9A-F]{8})?",
    )
    states: tuple[Sl651State, ...] = _key(
        "bits of the state that a channel says, [[uplink.state]]",
        '[{ bit = 2, channel = "n.pond.level", when = "alarm" }]',
        (),
        key="state",
    )
    elements: tuple[Sl651Element, ...] = _key(
        "what is reported, [[uplink.element]]",
        '[{ channel = "n.pond.level", element = "3B" }]',
        key="element",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkplugTable(Secured):
    """A Sparkplug B 3.0 edge node: each pond a device, each channel a metric."""

    url: str = _key(
        "mqtt://host:port, or mqtts:// with TLS; the broker speaks MQTT v5", '"mqtts://scada.example:8883"'
    )
    group: str = _key("the group id", '"tailings"', pattern=r"[^/+#\s]+")
    node: str = _key("the edge node id, unique in the group", '"north-gw1"', pattern=r"[^/+#\s]+")
    primary_host: str = _key(
        "host application that must be online, or all waits; absent: nobody is waited for, and what nobody "
        "listens to is lost",
        '"scada"',
        "",
        pattern=r"[^/+#\s]*",
    )
    again_s: float = _key(
        "what left so long before host or broker went away leaves again, as history: half as long again as "
        "the host's keep-alive, for so long a host that is dead counts as online",
        '"90 s"',
        90.0,
        key="again",
        parse="duration",
        min=0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GeohazardValue:
    """One channel and where it stands in a frame."""

    channel: str = _key("the channel", '"n.g01.north"')
    code: str = _key("the platform's code of the sensor", '"L1_GP_1"', pattern="[A-Z][0-9]_[A-Z]+_[0-9]+")
    field: str = _key(
        "the field of it; absent: the code has a bare number", '"gpsTotalX"', "", pattern="|" + NAME
    )
    device: str = _key("number of the device; absent: the uplink's", '"17165802"', "", pattern="|" + DOTTED)
    scale: float = _key("factor from the channel's unit to the platform's", "1.0", 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeohazardTable(Secured):
    """$dp frames of the geological-hazard platforms over MQTT: de facto, from public code, unverified."""

    url: str = _key("broker: mqtt://host:port, or mqtts:// for TLS", '"mqtts://hazard.example:8883"')
    device: str = _key("number of the device, as the platform knows it", '"17165802"', pattern=DOTTED)
    client_id: str = _key("client identifier; absent: the device", '"17165802"', "")
    topic: str = _key("where frames are published", '"$dp"', "$dp")
    status: str = _key(
        "code of the device's status", '"S1_ZT_1"', "S1_ZT_1", pattern="[A-Z][0-9]_[A-Z]+_[0-9]+"
    )
    sensor_fault: int | None = _key(
        "number sensor_state has for a sensor without a value; absent: sensor_state is not sent",
        "1",
        None,
        min=1,
    )
    values: tuple[GeohazardValue, ...] = _key(
        "what is reported, [[uplink.value]]",
        '[{ channel = "n.g01.north", code = "L1_GP_1", field = "gpsTotalX" }]',
        key="value",
    )


OtherUplink = TailingsFilesTable | InfluxTable | Sl651Table | SparkplugTable | GeohazardTable
DIALECTS: Mapping[str, type[OtherUplink]] = {
    "tailings-files": TailingsFilesTable,
    "influx": InfluxTable,
    "sl651": Sl651Table,
    "sparkplug": SparkplugTable,
    "geohazard-mqtt": GeohazardTable,
}
