"""Lines and devices of the site file: do they fit each other and their profiles, how busy will they be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.binder import serial_mode
from daemon.cadence import at_warning_s
from daemon.clock import Clock
from daemon.findings import by_id, rows
from drivers import profile
from drivers.gnss import baseline, codecs
from drivers.modbus import ModbusDevice
from drivers.profile import ProfileError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.config import DeviceTable, File, LineTable
    from daemon.findings import Findings
    from drivers.model import Profile

_ON_PORT = ("modbus-rtu", "serial")
_STREAMS = ("serial", "tcp")
_RTU_UNITS = range(1, 248)  # Modbus over Serial Line 1.02, 2.2
_BUSY = 0.8


@dataclass(frozen=True, slots=True)
class LineLoad:
    """How busy a serial line will be: share of the time that requests and replies are on it."""

    line: str
    kind: str
    devices: int
    share: float | None  # None where the wire is no serial one
    share_at_warning: float | None


def check_devices(file: File, found: Findings) -> dict[str, Profile]:
    """Check lines and devices; the profile of each device that has one."""
    _lines(file, found)
    lines, profiles = by_id(file.lines), {}
    loaded: dict[str, Profile] = {}
    for path, device in rows("device", file.devices):
        found.refers(f"{path}.line", device.line, "line", file.lines)
        try:
            if device.profile not in loaded:
                loaded[device.profile] = profile.load(device.profile)
                _trust(path, loaded[device.profile], found)
        except ProfileError as error:
            for problem in error.problems:
                found.wrong(f"{path}.profile", f"{device.profile}: {problem}")
            continue
        its = profiles[device.id] = loaded[device.profile]
        _origin(path, device, its, found)
        _pace(path, device, its, found)
        if device.line in lines:
            _fits(path, device, its, lines[device.line], found)
    _shared(file, profiles, found)
    for (path, _), load in zip(rows("line", file.lines), _loads(file, profiles), strict=True):
        if load.share is not None and load.share > _BUSY:
            found.warn(
                path, f"would be busy {load.share:.0%} of the time: poll less often or use a second line"
            )
        elif load.share_at_warning is not None and load.share_at_warning > _BUSY:
            found.warn(
                path,
                f"would be busy {load.share_at_warning:.0%} of the time at warning: choose longer "
                "every_at_warning or use a second line",
            )
    return profiles


def points(its: Profile) -> dict[str, str]:
    """Point -> unit of all that a device of this profile yields."""
    if its.codec:
        return codecs.points(its)
    return {name: point.unit for name, point in its.compile("").points.items()}


def wanted(file: File) -> dict[str, set[str]]:
    """Device -> the points that some channel or output needs; blocks without any are never asked."""
    needed: dict[str, set[str]] = {}
    for _, channel in rows("channel", file.channels):
        for name in (channel.source, channel.temperature, channel.barometer):
            device, _, point = name.partition(".")
            needed.setdefault(device, set()).add(point)
    for _, output in rows("output", file.outputs):
        needed.setdefault(output.device, set()).add(output.write)
    return needed


def line_loads(file: File) -> list[LineLoad]:
    """The expected load of every line of a checked site file."""
    return _loads(file, {device.id: profile.load(device.profile) for device in file.devices})


def _loads(file: File, profiles: Mapping[str, Profile]) -> list[LineLoad]:
    """Of every line, when each of its devices answers at once."""
    needed = wanted(file)
    loads = []
    for _, line in rows("line", file.lines):
        devices = [d for _, d in rows("device", file.devices) if d.line == line.id]
        modbus = [d for d in devices if d.id in profiles and profiles[d.id].speaks == "modbus"]
        share, dense = None, None
        if line.kind == "modbus-rtu":
            costs = [(d, _seconds(d, profiles[d.id], line, needed)) for d in modbus]
            share = sum(s / d.every_s for d, s in costs)
            dense = sum(s / at_warning_s(d) for d, s in costs)
        loads.append(LineLoad(line.id, line.kind, len(devices), share, dense))
    return loads


def _seconds(device: DeviceTable, its: Profile, line: LineTable, needed: Mapping[str, set[str]]) -> float:
    """How long one poll of `device` is on the wire."""
    compiled = its.compile(device.id, needed.get(device.id, set()))
    return ModbusDevice(device.id, compiled, compiled.bus.unit, Clock()).wire_seconds(line.serial)


def _lines(file: File, found: Findings) -> None:
    ends: dict[str, str] = {}
    for path, line in rows("line", file.lines):
        key, other = ("port", "address") if line.kind in _ON_PORT else ("address", "port")
        end = getattr(line, key)
        if not end:
            found.wrong(f"{path}.{key}", f"is missing: a {line.kind} line needs it")
        elif ends.setdefault(end, line.id) != line.id:
            found.wrong(f"{path}.{key}", f"line {ends[end]} has {end} already; put the devices on that line")
        if getattr(line, other):
            found.wrong(f"{path}.{other}", f"has no place on a {line.kind} line")
        on_it = [d for _, d in rows("device", file.devices) if d.line == line.id]
        if not on_it:
            found.warn(path, "has no device")
        if line.kind in _STREAMS and len(on_it) > 1:
            names = ", ".join(d.id for d in on_it)
            found.wrong(path, f"a {line.kind} line carries one device, not {names}")


def _trust(path: str, its: Profile, found: Findings) -> None:
    less = sorted({source.trust for source in its.sources} - {"manual"})
    if less:
        found.warn(
            f"{path}.profile",
            f"{its.id} rests in part on facts from no manual ({', '.join(less)}): compare with the "
            "instrument's own display before relying on it",
        )


def _origin(path: str, device: DeviceTable, its: Profile, found: Findings) -> None:
    """What displacement counts from, and whose corrections it rests on."""
    given = {"baseline": device.baseline, "reference": device.reference}
    wanted = {baseline.Baseline: "baseline", baseline.Reference: "reference"}
    key = wanted[codecs.origin_of(its)] if its.codec else ""
    for name, origin in given.items():
        if origin is None:
            if name == key:
                found.wrong(f"{path}.{name}", "is missing: displacement of a GNSS receiver counts from it")
            continue
        if not key:
            found.wrong(f"{path}.{name}", f"is for GNSS receivers; {its.id} is none")
        elif name != key:
            found.wrong(f"{path}.{name}", f"is not what {its.id} tells; its origin is a {key}")
        for coordinate, remedy in baseline.mistakes(origin):
            found.wrong(f"{path}.{name}.{coordinate}", remedy)
    _base_station(path, device, its, found)


def _base_station(path: str, device: DeviceTable, its: Profile, found: Findings) -> None:
    names_base = bool(its.codec) and codecs.names_base(its)
    if names_base and not device.base_station:
        found.warn(
            f"{path}.base_station",
            "is missing: another base station after a restart would go unnoticed",
        )
    if device.base_station and not names_base:
        found.wrong(f"{path}.base_station", f"cannot be checked: {its.id} does not tell it")
    if device.oldest_corrections_s is not None and not its.codec:
        found.wrong(f"{path}.oldest_corrections", f"is for GNSS receivers; {its.id} is none")


def _pace(path: str, device: DeviceTable, its: Profile, found: Findings) -> None:
    """A device that cannot answer within its period would be asked again while it still measures."""
    if device.every_at_warning_s is not None and device.every_at_warning_s > device.every_s:
        found.wrong(f"{path}.every_at_warning", f"must not be longer than every, {device.every_s:g} s")
    if its.speaks != "modbus":
        return
    timeout_s = its.bus.timeout_s if device.timeout_s is None else device.timeout_s
    slowest_s = its.bus.slowest_reply_s if device.slowest_reply_s is None else device.slowest_reply_s
    if device.slowest_reply_s is not None and slowest_s < timeout_s:
        found.wrong(
            f"{path}.slowest_reply", f"{slowest_s:g} s must not be shorter than the timeout, {timeout_s:g} s"
        )
    longest_s = max(timeout_s, slowest_s)
    for key, every_s in (("every", device.every_s), ("every_at_warning", device.every_at_warning_s)):
        if every_s is not None and longest_s > every_s:
            found.wrong(
                f"{path}.{key}",
                f"{every_s:g} s is shorter than an answer of {its.id} may take, {longest_s:g} s: poll "
                "less often, or give this device's own timeout and slowest_reply",
            )
        elif every_s is not None and device.timeout_s is None and every_s < its.bus.period_min_s:
            found.wrong(
                f"{path}.{key}",
                f"{every_s:g} s is below the shortest of {its.id}, {its.bus.period_min_s:g} s",
            )


def _fits(path: str, device: DeviceTable, its: Profile, line: LineTable, found: Findings) -> None:
    if (its.speaks == "modbus") == (line.kind in _STREAMS):
        says = (
            "speaks Modbus"
            if its.speaks == "modbus"
            else "sends by itself what it has to say: its line must be serial or tcp"
        )
        found.wrong(f"{path}.line", f"{its.id} {says}; {line.id} is {line.kind}")
        return
    if its.speaks != "modbus" and not its.codec:
        found.wrong(f"{path}.profile", f"no driver listens to {its.id}: it has no codec")
    if its.speaks == "modbus":
        unit = its.bus.unit if device.unit is None else device.unit
        if line.kind != "modbus-tcp" and unit not in _RTU_UNITS:
            found.wrong(f"{path}.unit", f"{unit} is no unit number of a {line.kind} line: 1 to 247")
    if line.kind in _ON_PORT and serial_mode(its.bus.serial) != line.serial:
        found.warn(
            f"{path}.line",
            f"{its.id} comes as {its.bus.serial}, the line is {line.serial}: see that the instrument is too",
        )


def _shared(file: File, profiles: Mapping[str, Profile], found: Findings) -> None:
    taken: dict[tuple[str, int], str] = {}
    for path, device in rows("device", file.devices):
        if device.id not in profiles or profiles[device.id].speaks != "modbus":
            continue
        unit = profiles[device.id].bus.unit if device.unit is None else device.unit
        if taken.setdefault((device.line, unit), device.id) != device.id:
            other = taken[device.line, unit]
            found.wrong(f"{path}.unit", f"{unit} is the unit of {other} on line {device.line} already")
