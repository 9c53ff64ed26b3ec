"""The instruments' side of the core, built of what the site file lists: drivers, lines, recordings, outputs.

Called by the composition root alone, and by whoever plays recorded bytes through the same drivers.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from daemon import dated
from daemon.channels import Source
from daemon.check_devices import wanted
from daemon.clock import NS
from daemon.outputs import Output
from daemon.poller import PolledLine, PolledUnit, StreamLine
from daemon.taps import TappedObserver
from drivers import profile
from drivers.framing import MbapFraming, RtuFraming
from drivers.gnss import codecs
from drivers.gnss.receiver import GnssReceiver, Mount
from drivers.modbus import ModbusDevice
from drivers.recorder import Ring, Tap, TappedLine, TappedWire
from drivers.wire import SerialWire, TcpWire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.clock import Clock
    from daemon.config import DeviceTable, LineTable, Site
    from daemon.pipeline import Pipeline
    from daemon.poller import Observer
    from drivers.wire import Wire


def build_drivers(site: Site, clock: Clock) -> dict[str, ModbusDevice | GnssReceiver]:
    """A driver for each device; nothing is opened."""
    kinds = {line.id: line.kind for line in site.lines}
    needed = wanted(site)
    return {
        table.id: _receiver(table, clock)
        if kinds[table.line] in ("serial", "tcp")
        else _modbus(table, needed.get(table.id, set()), clock)
        for table in site.devices
    }


def sources(site: Site, drivers: Mapping[str, ModbusDevice | GnssReceiver]) -> list[Source]:
    """Every block that frames will come from, with its period."""
    return [Source(block, _every_ns(table)) for table in site.devices for block in drivers[table.id].blocks]


def build_lines(
    site: Site,
    drivers: Mapping[str, ModbusDevice | GnssReceiver],
    clock: Clock,
    observer: Observer,
    taps: Mapping[str, Tap],
) -> dict[str, PolledLine | StreamLine]:
    lines: dict[str, PolledLine | StreamLine] = {}
    for table in site.lines:
        tap = taps[table.id]
        seen = TappedObserver(observer, tap)
        units = []
        for device in site.devices:
            if device.line != table.id:
                continue
            driver = drivers[device.id]
            if isinstance(driver, ModbusDevice):
                alike_s = 0.0 if table.kind == "modbus-tcp" or clock.rate != 1.0 else driver.alike_s
                units.append(PolledUnit(driver, _every_ns(device), driver.longest_s, driver.wake_s, alike_s))
            else:
                every_ns = _every_ns(device)
                wire = TappedWire(_wire(table), tap)
                lines[table.id] = StreamLine(table.id, wire, driver, every_ns, clock, seen)
        if units:
            framing = MbapFraming() if table.kind == "modbus-tcp" else RtuFraming()
            line = TappedLine(_wire(table), framing, tap, paced=clock.rate == 1.0)
            lines[table.id] = PolledLine(line, units, clock, seen)
    return lines


def build_rings(site: Site, taps: Mapping[str, Tap]) -> dict[str, Ring]:
    """A recording of each line that the site file wants recorded, listening from now on."""
    rings = {}
    for table in site.lines:
        if table.record_bytes is not None:
            tap = taps[table.id]
            folder = site.store_folder / "trace" / table.id
            rings[table.id] = Ring(folder, tap.header, table.record_bytes)
            tap.listeners.append(rings[table.id].put)
    return rings


def build_outputs(
    site: Site,
    drivers: Mapping[str, ModbusDevice | GnssReceiver],
    lines: Mapping[str, PolledLine | StreamLine],
    pipeline: Pipeline,
    clock: Clock,
) -> list[Output]:
    line_of = {device.id: device.line for device in site.devices}
    outputs = []
    for table in site.outputs:
        line, device = lines[line_of[table.device]], drivers[table.device]
        assert isinstance(line, PolledLine), f"{table.id}: the site check asks for a device that can switch"
        assert isinstance(device, ModbusDevice), f"{table.id}: likewise"
        outputs.append(Output(table, line, device, pipeline.output_fault, clock.rate))
    return outputs


def _modbus(table: DeviceTable, points: set[str], clock: Clock) -> ModbusDevice:
    compiled = profile.load(table.profile).compile(table.id, points)
    unit = compiled.bus.unit if table.unit is None else table.unit
    return ModbusDevice(
        table.id,
        compiled,
        unit,
        clock,
        timeout_s=table.timeout_s,
        slowest_reply_s=table.slowest_reply_s,
    )


def _receiver(table: DeviceTable, clock: Clock) -> GnssReceiver:
    origin = table.baseline or table.reference
    assert origin is not None, f"{table.id}: the site check asks for what displacement counts from"
    oldest_s = inf if table.oldest_corrections_s is None else table.oldest_corrections_s
    was = [(dated.ns(each.until), each.baseline or each.reference or origin) for each in table.was]
    mount = Mount(origin, table.base_station, oldest_s, was)
    return codecs.receiver(table.id, profile.load(table.profile), mount, table.every_s, clock)


def _wire(table: LineTable) -> Wire:
    if table.port:
        return SerialWire(table.port, table.serial)
    host, _, port = table.address.rpartition(":")
    return TcpWire(host, int(port))


def _every_ns(device: DeviceTable) -> int:
    return round(device.every_s * NS)
