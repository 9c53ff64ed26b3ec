"""Uplinks of the site file: where they go, what they name, and what of a pond each of them carries."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from daemon.binder import nearest
from daemon.check_secured import check_geohazard, check_influx, check_sparkplug
from daemon.credentials import is_there, missing
from daemon.findings import rows
from daemon.uplink import geohazard_codes, sl651_frames
from daemon.uplink.sl651_hours import is_group
from daemon.uplink.tables import (
    GeohazardTable,
    InfluxTable,
    Sl651Element,
    Sl651State,
    Sl651Table,
    SparkplugTable,
    TailingsFilesTable,
    TailingsPoint,
)
from daemon.uplink.tailings_files import MEASURED, RECORDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.config import File, UplinkTable
    from daemon.findings import Findings


def check_uplinks(file: File, found: Findings) -> None:
    channels = [channel.id for channel in file.channels]
    for path, uplink in rows("uplink", file.uplinks):
        if isinstance(uplink, TailingsFilesTable):
            _tailings(path, uplink, channels, found)
        elif isinstance(uplink, InfluxTable):
            check_influx(path, uplink, found)
        elif isinstance(uplink, Sl651Table):
            _sl651(path, uplink, channels, found)
        elif isinstance(uplink, SparkplugTable):
            check_sparkplug(path, uplink, found)
        elif isinstance(uplink, GeohazardTable):
            check_geohazard(path, uplink, found)
            _geohazard(path, uplink, channels, found)
        else:
            _mqtt(path, uplink, found)
            _request_keys(path, uplink, found)


def _known(path: str, names: Iterable[str], channels: list[str], found: Findings) -> None:
    for name in names:
        if name not in channels:
            found.wrong(path, f"there is no channel {name!r}{nearest(name, channels)}")


def _tailings(path: str, its: TailingsFilesTable, channels: list[str], found: Findings) -> None:
    found.warn(path, "tailings-files is de facto, from public code: compare it with the platform's own text")
    if its.folder.startswith("sftp://"):
        _sftp(path, its, found)
    elif "://" in its.folder:
        found.wrong(f"{path}.folder", f"{its.folder!r} must be a folder, or sftp://user@host:port/folder")
    records = dict(RECORDS) | {record.type: record.fields for record in its.records}
    for i, record in enumerate(its.records):
        _fields(f"{path}.record[{i}]", record.fields, found)
    codes: set[str] = set()
    for i, point in enumerate(its.points):
        where = f"{path}.point[{i}]"
        _known(where, point.channels(), channels, found)
        if point.code in codes:
            found.wrong(f"{where}.code", f"{point.code!r} names two points")
        codes.add(point.code)
        if point.type != "GNSS":
            _record(where, point, records.get(f"{point.type}SS"), found)


def _sl651(path: str, its: Sl651Table, channels: list[str], found: Findings) -> None:
    if its.ack_deadline_s < 3 * its.reply_deadline_s:
        found.wrong(f"{path}.ack_deadline", "must leave time for three times reply_deadline")
    if its.clock_program:
        found.warn(
            f"{path}.clock_program", "lets whoever is at the other end of an unencrypted line set the clock"
        )
        if not is_there(its.clock_program):
            found.warn(f"{path}.clock_program", f"there is no file {its.clock_program}")
    for i, bit in enumerate(its.states):
        _sl651_state(f"{path}.state[{i}]", bit, its, channels, found)
    named: set[str] = set()
    for i, each in enumerate(its.elements):
        where, group = f"{path}.element[{i}]", is_group(each.element)
        _known(f"{where}.channel", [each.channel], channels, found)
        (_sl651_group if group else _sl651_element)(where, each, found)
        twice = (
            other.channel == each.channel and is_group(other.element) == group for other in its.elements[:i]
        )
        if each.element in named or any(twice):
            found.wrong(where, "tells an element or a channel a second time")
        named.add(each.element)


def _sl651_element(where: str, its: Sl651Element, found: Findings) -> None:
    known = int(its.element, 16) in sl651_frames.STANDARD
    if not known and (its.digits is None or its.decimals is None):
        found.wrong(f"{where}.digits", f"is missing: this program knows no format of element {its.element}")
    if its.step_s is not None and (its.step_s % 60 or 86400 % its.step_s):
        found.wrong(f"{where}.step", "must be whole minutes that fit a whole number of times into a day")
    if its.base is not None:
        found.wrong(f"{where}.base", "is for F5 to FC: other levels are not relative")


def _sl651_group(where: str, its: Sl651Element, found: Findings) -> None:
    for key, value in {"digits": its.digits, "decimals": its.decimals, "step": its.step_s}.items():
        if value is not None:
            found.wrong(f"{where}.{key}", f"is what the standard says, for the groups of {its.element}")
    if (its.base is not None) != (int(its.element, 16) in sl651_frames.LEVEL_GROUPS):
        wrong = (
            "is for F5 to FC" if its.base is not None else "is missing: the levels of F5 to FC are relative"
        )
        found.wrong(f"{where}.base", wrong)


def _sl651_state(
    where: str, its: Sl651State, table: Sl651Table, channels: list[str], found: Findings
) -> None:
    _known(f"{where}.channel", [its.channel], channels, found)
    if (its.below is not None) + (its.above is not None) + bool(its.when) != 1:
        found.wrong(where, "needs one of below, above and when")
    if not table.unwatched:
        found.wrong(where, "needs `unwatched` of the uplink: what its other bits say")
    if sum(other.bit == its.bit for other in table.states) > 1:
        found.wrong(f"{where}.bit", f"bit {its.bit} is said twice")


def _geohazard(path: str, its: GeohazardTable, channels: list[str], found: Findings) -> None:
    found.warn(path, "geohazard-mqtt is de facto, from public code: compare it with the platform's own text")
    places: set[tuple[str, str, str]] = set()
    bare: dict[tuple[str, str], bool] = {}
    for i, each in enumerate(its.values):
        where, device = f"{path}.value[{i}]", each.device or its.device
        _known(f"{where}.channel", [each.channel], channels, found)
        known = geohazard_codes.FIELDS.get(each.code.rpartition("_")[0])
        if known is None:
            found.warn(f"{where}.code", f"no public code shows {each.code}")
        elif each.field not in known:
            fields = ", ".join(known) if known != ("",) else "a bare number"
            found.warn(f"{where}.field", f"no public code shows {each.field!r} of {each.code}: {fields}")
        twice = (device, each.code, each.field) in places
        if twice or each.channel in {other.channel for other in its.values[:i]}:
            found.wrong(where, "tells a place or a channel a second time")
        places.add((device, each.code, each.field))
        if bare.setdefault((device, each.code), not each.field) != (not each.field):
            found.wrong(f"{where}.field", f"{each.code} cannot be a bare number and have fields")
        if each.code == its.status and not each.field:
            found.wrong(f"{where}.field", f"is missing: {each.code} has fields")


def _sftp(path: str, its: TailingsFilesTable, found: Findings) -> None:
    try:
        url = urlsplit(its.folder)
        whole = bool(url.hostname) and bool(url.username) and (url.port is None or url.port > 0)
    except ValueError:
        whole = False
    if not whole or url.password is not None:
        found.wrong(
            f"{path}.folder", f"{its.folder!r} must be sftp://user@host:port/folder, without a password"
        )
    if not its.host_key:
        found.wrong(f"{path}.host_key", "is missing: without the server's key anybody can pretend to be it")
    if not its.key and not its.password_file:
        found.wrong(f"{path}.key", "is missing: sftp needs a private key, or a password_file")
    for key, name in {"host_key": its.host_key, "key": its.key, "password_file": its.password_file}.items():
        if name and not is_there(name):
            found.warn(f"{path}.{key}", missing(name))


def _fields(path: str, fields: Iterable[str], found: Findings) -> None:
    known = [*TailingsPoint.__dataclass_fields__, "time"]
    for field in fields:
        quoted = len(field) > 1 and field.startswith('"') and field.endswith('"')
        if field not in known and not quoted:
            found.wrong(f"{path}.fields", f"{field!r} is no field{nearest(field, known)}")


def _record(path: str, point: TailingsPoint, fields: Iterable[str] | None, found: Findings) -> None:
    if fields is None:
        what = f"no text says how {point.type} is sent in real time: name its fields in [[uplink.record]]"
        found.warn(path, f"{what}; until then only its definition is")
        return
    for field in sorted(MEASURED - set(fields)):
        if getattr(point, field):
            found.warn(f"{path}.{field}", f"stands in no field of {point.type}SS: it is not sent")


def _request_keys(path: str, uplink: UplinkTable, found: Findings) -> None:
    for i, public in enumerate(uplink.request_keys):
        if re.fullmatch("[0-9a-f]{64}", public) is None:
            found.wrong(f"{path}.request_keys[{i}]", "is no public Ed25519 key: 64 hex digits, small letters")


def _mqtt(path: str, uplink: UplinkTable, found: Findings) -> None:  # noqa: C901
    try:
        url = urlsplit(uplink.url)
        whole = bool(url.hostname) and (url.port is None or url.port > 0) and url.path in ("", "/")
    except ValueError:
        whole = False
    if not whole or url.scheme not in ("mqtt", "mqtts"):
        found.wrong(f"{path}.url", f"{uplink.url!r} must be mqtt://host:port or mqtts://host:port")
        return
    files = {"ca": uplink.ca, "certificate": uplink.certificate, "key": uplink.key}
    for key, name in files.items():
        if name and url.scheme == "mqtt":
            found.wrong(f"{path}.{key}", "is for TLS, which the url does not ask for: write mqtts://")
    if bool(uplink.certificate) != bool(uplink.key):
        lacking = "key" if uplink.certificate else "certificate"
        found.wrong(f"{path}.{lacking}", "is missing: certificate and key go together")
    if uplink.archive and uplink.settle != "receipt":
        found.wrong(f"{path}.archive", 'asks for settle = "receipt": a PUBACK says nothing about an archive')
    if uplink.password_file and not uplink.username:
        found.wrong(f"{path}.username", "is missing: a password needs a name")
    if url.scheme == "mqtt" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
        found.warn(f"{path}.url", "is not encrypted: anybody on the way can read and change what is sent")
    for key, name in (files | {"password_file": uplink.password_file}).items():
        if name and not is_there(name):
            found.warn(f"{path}.{key}", missing(name))
