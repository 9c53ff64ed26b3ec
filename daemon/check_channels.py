"""Channels of the site file: where they come from, in which unit, what corrects them, and what is armed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.binder import nearest
from daemon.check_alarms import check_levels
from daemon.check_devices import points
from daemon.findings import by_id, rows
from drivers import calibration
from drivers.calibration import Count, Thermistor, VibratingWire, VibratingWirePolynomial
from edge_rules.law import derived
from edge_rules.law.rain import RainGauge, RainIntensity, RainUndercatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.config import ChannelTable, File
    from daemon.findings import Findings
    from drivers.model import Profile

_PRESSURE = ("hPa", "mbar", "kPa", "Pa")
_NOT_JUDGED = ("weather", "health")

# Units of (input, result) that a formula needs; the formulas know no other.
_CALIBRATED: Mapping[type, tuple[str, str]] = {
    VibratingWire: ("Hz", "kPa"),
    VibratingWirePolynomial: ("Hz", "kPa"),
    Thermistor: ("ohm", "degC"),
}
_DERIVED: Mapping[type, tuple[str, str]] = {
    derived.PiezometricElevation: ("kPa", "m"),
    derived.BurialDepth: ("m", "m"),
    derived.Freeboard: ("m", "m"),
    derived.DryBeach: ("m", "m"),
    RainIntensity: ("mm", "mm/h"),
    derived.ProjectedFreeboard: ("m", "m"),
    derived.ProjectedBeach: ("m", "m"),
    derived.Drawdown: ("m", "m/d"),
    derived.StandingWater: ("m", "h"),
    derived.AntecedentRain: ("mm", "mm"),
}


def check_channels(file: File, profiles: Mapping[str, Profile], found: Findings) -> None:
    """Check every channel against its pond, its instrument, and the channels it is computed from."""
    known = _Known(file, profiles)
    for path, channel in rows("channel", file.channels):
        if found.refers(f"{path}.pond", channel.pond, "pond", file.ponds) and channel.section:
            sections = [s for s in file.sections if getattr(s, "pond", channel.pond) == channel.pond]
            found.refers(f"{path}.section", channel.section, f"section of pond {channel.pond}", sections)
        if bool(channel.source) == bool(channel.derive):
            found.wrong(path, "needs exactly one of from (measured) and derive (computed)")
        elif channel.source:
            _measured(path, channel, known, found)
        else:
            _computed(path, channel, known, found)
        if channel.span and channel.span[0] >= channel.span[1]:
            found.wrong(f"{path}.span", f"{channel.span[0]:g} must lie below {channel.span[1]:g}")
        check_levels(path, channel, found)
        if channel.advice and (channel.advice.trend_noise is None) != (
            channel.advice.trend_rate_per_day is None
        ):
            found.wrong(f"{path}.advice", "trend_noise and trend_rate_per_day go together")
        _advice(path, channel, file, found)
    _circles(file, found)
    _armed(file, found)


def _advice(path: str, channel: ChannelTable, file: File, found: Findings) -> None:
    """What each detector needs beside itself."""
    advice = channel.advice
    if advice is None:
        return
    if advice.flatline_s is not None and channel.item == "rainfall":
        found.wrong(f"{path}.advice.flatline", "is not for rain: a dry gauge stands still")
    if advice.noise and not advice.resolution:
        found.wrong(
            f"{path}.advice.noise", "needs resolution: without it one step of a quiet sensor is noise"
        )
    if advice.onset and advice.trend_noise is None:
        found.wrong(f"{path}.advice.onset", "needs trend_noise and trend_rate_per_day")
    if advice.domain and (advice.trend_noise is None or advice.period_s is None):
        found.wrong(f"{path}.advice.domain", "needs period, trend_noise and trend_rate_per_day")
    if advice.response is None:
        return
    named = {key: getattr(advice.response, key) for key in ("rain", "pond", "evaporation")}
    if not any(named.values()):
        found.wrong(f"{path}.advice.response", "needs rain or pond")
    for key, name in named.items():
        if name:
            found.refers(f"{path}.advice.response.{key}", name, "channel", file.channels)


class _Known:
    """The units of everything a channel can be made from; None where it cannot be said."""

    def __init__(self, file: File, profiles: Mapping[str, Profile]) -> None:
        self.channels: dict[str, str | None] = {c.id: None for c in file.channels}
        self.channels |= {id_: c.unit for id_, c in by_id(file.channels).items()}
        units = {its.id: points(its) for its in {its.id: its for its in profiles.values()}.values()}
        self.sections = {(s.pond, s.id): s for _, s in rows("section", file.sections)}
        self.devices = {d.id: units[profiles[d.id].id] if d.id in profiles else None for d in file.devices}

    def point(self, path: str, name: str, found: Findings) -> str | None:
        """The unit of `device.point`."""
        device, _, point = name.partition(".")
        if not point:
            found.wrong(path, f"{name!r} must be device.point, as in 'vw1.freq03'")
        elif device not in self.devices:
            found.wrong(path, f"there is no device {device!r}{nearest(device, self.devices)}")
        elif (its := self.devices[device]) is not None:
            if point in its:
                return its[point] or None
            found.wrong(path, f"device {device} has no point {point!r}{nearest(point, its) or _some(its)}")
        return None

    def either(self, path: str, name: str, found: Findings) -> str | None:
        """The unit of a device.point or channel."""
        if name in self.channels and name.partition(".")[0] not in self.devices:
            return self.channels[name]
        return self.point(path, name, found)


def _some(names: Mapping[str, str]) -> str:
    return f": it has {', '.join(list(names)[:8])}{' ...' if len(names) > 8 else ''}"  # noqa: PLR2004


def _measured(path: str, channel: ChannelTable, known: _Known, found: Findings) -> None:
    unit = known.point(f"{path}.from", channel.source, found)
    its = channel.calibration
    if its is None:
        if unit and unit != channel.unit:
            found.wrong(
                f"{path}.unit", f"is {channel.unit}, but {channel.source} is in {unit}: add a calibration"
            )
    else:
        for key, remedy in calibration.mistakes(its):
            found.wrong(f"{path}.calibration.{key}", remedy)
        if type(its) in _CALIBRATED:
            source, result = _CALIBRATED[type(its)]
            _unit(f"{path}.from", channel.source, unit, source, found)
            _unit(f"{path}.unit", "it", channel.unit, result, found)
    _correction(path, "temperature", channel.temperature, channel, known, found)
    _correction(path, "barometer", channel.barometer, channel, known, found)


def _unit(path: str, name: str, unit: str | None, needed: str, found: Findings) -> None:
    if unit is not None and unit != needed:
        found.wrong(path, f"{name} is in {unit}; the formula needs {needed}")


def _correction(
    path: str, key: str, name: str, channel: ChannelTable, known: _Known, found: Findings
) -> None:
    """The temperature or air pressure that the calibration corrects with."""
    its = channel.calibration
    needed = its is not None and not isinstance(its, Count) and getattr(its, f"needs_{key}")
    if needed and not name:
        found.wrong(f"{path}.{key}", "is missing: the calibration corrects with it")
    if not name:
        return
    if not needed:
        found.warn(f"{path}.{key}", "is not used: the calibration does not correct with it")
    unit = known.either(f"{path}.{key}", name, found)
    fitting = _PRESSURE if key == "barometer" else ("degC",)
    if unit is not None and unit not in fitting:
        found.wrong(f"{path}.{key}", f"{name} is in {unit}; it must be in {' or '.join(fitting)}")


def _computed(path: str, channel: ChannelTable, known: _Known, found: Findings) -> None:
    for key in ("calibration", "temperature", "barometer"):
        if getattr(channel, key):
            found.wrong(f"{path}.{key}", "has no place on a derived channel")
    its = channel.derive
    if its is None:
        return
    for problem in its.problems():
        found.wrong(f"{path}.derive", problem)
    units: dict[str, str | None] = {}
    for name in its.inputs:
        if name not in known.channels:
            found.wrong(f"{path}.derive", f"there is no channel {name!r}{nearest(name, known.channels)}")
        units[name] = known.channels.get(name)
    if isinstance(its, derived.Axis):
        _axis(path, channel, its, known, found)
    _derived_units(path, its, units, channel.unit, found)


def _axis(path: str, channel: ChannelTable, its: derived.Axis, known: _Known, found: Findings) -> None:
    """Whether the section says where downstream lies, and has the bank that the channel looks to."""
    section = known.sections.get((channel.pond, channel.section))
    if its.is_of_banks and section is not None and section.ring_dyke:
        found.wrong(f"{path}.derive.toward", f"section {section.id} is of a ring dyke: it has no left bank")
    azimuth_deg = its.at(section.downstream_azimuth_deg if section else None).downstream_azimuth_deg
    if not its.is_vertical and azimuth_deg is None:
        found.wrong(f"{path}.derive", "needs downstream_azimuth_deg, its own or that of its section")


def _derived_units(
    path: str, its: derived.Derivation, units: Mapping[str, str | None], unit: str, found: Findings
) -> None:
    """Whether inputs and result are in the units the formula has."""
    given = next((u for u in units.values() if u is not None), None)
    if type(its) in _DERIVED:
        source, result = _DERIVED[type(its)]
        for name, its_unit in units.items():
            _unit(f"{path}.derive", name, its_unit, source, found)
    elif isinstance(its, derived.Rate):
        result = f"{given}/{its.per}" if given else unit
    elif isinstance(its, derived.Horizontal | derived.RainWindow | derived.Axis):
        result = given or unit
    elif isinstance(its, RainUndercatch):
        result = units[its.of] or unit
        _unit(f"{path}.derive", its.intensity, units[its.intensity], "mm/h", found)
    elif isinstance(its, RainGauge):
        result = units[its.of] or unit
        _unit(f"{path}.derive", its.air, units.get(its.air), "degC", found)
        _unit(f"{path}.derive", its.neighbour, units.get(its.neighbour), result, found)
    else:
        return
    _unit(f"{path}.unit", "it", unit, result, found)


def _circles(file: File, found: Findings) -> None:
    """Channels that are computed from themselves."""
    feeds = {
        channel.id: [
            *(channel.derive.inputs if channel.derive else ()),
            channel.temperature,
            channel.barometer,
        ]
        for _, channel in rows("channel", file.channels)
    }
    done: set[str] = set()
    for path, channel in rows("channel", file.channels):
        circle = _circle(channel.id, feeds, done)
        if circle:
            found.wrong(path, f"is computed from itself: {' <- '.join(circle)}")


def _circle(start: str, feeds: Mapping[str, list[str]], done: set[str]) -> list[str]:
    """The first circle reached from `start`, not entering what is `done`; by hand, for chains may be long."""
    way: list[str] = []
    branches = [iter([start])]
    while branches:
        name = next(branches[-1], None)
        if name is None:
            branches.pop()
            if way:
                done.add(way.pop())
        elif name in way:
            circle = [*way[way.index(name) :], name]
            done.update(way)
            return circle
        elif name not in done and name in feeds:
            way.append(name)
            branches.append(iter(feeds[name]))
    return []


def _armed(file: File, found: Findings) -> None:
    """Monitoring points of which no channel has levels."""
    points_: dict[tuple[str, str, str], list[tuple[str, bool]]] = {}
    dated = {pond.id for _, pond in rows("pond", file.ponds) if pond.limits}
    for path, c in rows("channel", file.channels):
        if c.item not in _NOT_JUDGED:
            armed = c.levels is not None or (c.item == "pond-level" and c.pond in dated)
            points_.setdefault((c.pond, c.item, c.monitoring_point or c.id), []).append((path, armed))
    for (_, item, point), its in points_.items():
        if not any(armed for _, armed in its):
            found.warn(its[0][0], f"{item} {point} has no trigger levels on any channel: it is not armed")
