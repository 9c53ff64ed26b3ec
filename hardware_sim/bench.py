"""The bench: every instrument on its line, the platform, the control socket, as one `async with`.

    async with Bench(Scenario.load("storm"), run_dir, BenchClock.starting_now(60)) as bench:
        bench.addresses            # {"rs485-1": "<run_dir>/rs485-1", "weather": "127.0.0.1:40123", ...}
        bench.set_fault("rs485-1/192", "silent")
        bench.play(Scenario.load("calm"))           # another scenario, from the dam's present state on

Lines: `rs485-1` (pseudo-terminal: VTN416 unit 1, relays unit 3, rain gauge unit 192), `rs485-1-tcp` (the
same bus behind a serial device server, RTU over TCP), `gnss-1` (pseudo-terminal or TCP), `weather` (Modbus
TCP: barometer unit 1, radar unit 2).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import asdict
from math import floor
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from hardware_sim import faults, site
from hardware_sim.control import ControlSocket
from hardware_sim.dam import Dam, Truth
from hardware_sim.faults import Fault, FaultUnknown
from hardware_sim.gateway import Gateway
from hardware_sim.instruments.dfrobot_sen0575 import UNIT as RAIN_GAUGE_UNIT
from hardware_sim.instruments.dfrobot_sen0575 import Sen0575
from hardware_sim.instruments.gnss import GnssReceiver
from hardware_sim.instruments.gnss_binary import basevectorgeod, relposned
from hardware_sim.instruments.gnss_nmea import sentences
from hardware_sim.instruments.metsens300 import MetSens300
from hardware_sim.instruments.vegapuls import VegaPuls
from hardware_sim.instruments.waveshare_relay import WaveshareRelay
from hardware_sim.instruments.wenkon_vtn416 import Vtn416
from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver
from hardware_sim.scenario import ScenarioWrong
from hardware_sim.sensors import Sensor
from hardware_sim.table import TableLine
from hardware_sim.wires import ModbusTcpWire, RtuTcpWire, RtuWire, TalkerPtyWire, TalkerTcpWire, Wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from hardware_sim.clock import BenchClock
    from hardware_sim.recording import Playback
    from hardware_sim.scenario import Outage, PlannedFault, Scenario

GNSS_LINE: Final = "gnss-1"
LANGUAGES: Final = {"nmea": sentences, "ubx": relposned, "sbf": basevectorgeod}
_LOGGER_UNIT: Final = 1
_RELAY_UNIT: Final = 3  # Waveshare's own default is 1, which the logger has
_BAROMETER_UNIT: Final = 1
_RADAR_UNIT: Final = 2
_DAY_S: Final = 86_400.0
_LEAST_BETWEEN_EPOCHS_S: Final = 0.02  # real; at higher rates the receiver skips instants


class Bench:
    """Everything that is simulated, started and ended together.

    Args:
        scenario: rain, faults, outages of the platform.
        run_dir: where pseudo-terminals, socket and files are linked; made if missing.
        clock: the bench's time; rain and dam begin now.
        outages: instead of the scenario's, if not None.
        platform: instead of one with a `Receiver` in memory; entered and left by the bench.
        gnss_every_s: bench seconds between two GNSS instants.
        gnss_speaks: the receiver's language, one of `LANGUAGES`.
        gnss_over: `pty` or `tcp`.
        baud: the serial bus takes the time of this rate; None: none.
        control: the daemon's control socket; None: `run_dir/control.sock`.
        played: further lines, made of recordings and tables.
    """

    def __init__(
        self,
        scenario: Scenario,
        run_dir: Path,
        clock: BenchClock,
        *,
        outages: Sequence[Outage] | None = None,
        platform: Platform | None = None,
        gnss_every_s: float = 10.0,
        gnss_speaks: str = "nmea",
        gnss_over: str = "pty",
        baud: int | None = None,
        control: Path | None = None,
        played: Sequence[Playback | TableLine] = (),
    ) -> None:
        self.scenario = scenario
        self.run_dir = run_dir
        self.clock = clock
        self.platform = platform or Platform(Receiver())
        self.faults: dict[str, str] = {}  # what is in force: target -> fault
        self._outages = scenario.outage if outages is None else outages
        self._gnss_every_s = gnss_every_s
        self._played = played
        self._began_s = clock.now_s()
        self.played_s = self._began_s  # since when the present scenario runs
        course = scenario.course
        self._dam = Dam(course.rain_mm_per_h, scenario.seed, self._began_s % _DAY_S)
        self._dam.follow(course)
        self.relays = WaveshareRelay(clock.now_s)
        self.gnss = GnssReceiver(site.GNSS_ORIGIN, scenario.seed, LANGUAGES[gnss_speaks])
        self._gnss_wire = TalkerPtyWire(run_dir / GNSS_LINE) if gnss_over == "pty" else TalkerTcpWire()
        self._build_wires(baud)
        self._check(scenario)
        self.gateway = Gateway(control or run_dir / "control.sock", run_dir / "clock-step")
        self._control = ControlSocket(run_dir / "bench.sock", self)
        self._stack = contextlib.AsyncExitStack()
        self._group = asyncio.TaskGroup()
        self._speaking: list[asyncio.Task[None]] = []
        self._staged: list[asyncio.Task[None]] = []

    def _build_wires(self, baud: int | None) -> None:
        logger, gauge, barometer, radar = (
            Sensor(self.truth, quantity) for quantity in ("pore_kpa", "rain_mm", "pressure_hpa", "pond_m")
        )
        serial = {
            _LOGGER_UNIT: Vtn416(logger, site.PIEZOMETERS, _LOGGER_UNIT),
            _RELAY_UNIT: self.relays,
            RAIN_GAUGE_UNIT: Sen0575(gauge, site.RAIN_MM_PER_TIP),
        }
        weather = {
            _BAROMETER_UNIT: MetSens300(barometer),
            _RADAR_UNIT: VegaPuls(radar, site.RADAR_ZERO_ELEVATION_M, site.RADAR_RANGE_M),
        }
        self._sensors = {
            f"rs485-1/{_LOGGER_UNIT}": logger,
            f"rs485-1/{RAIN_GAUGE_UNIT}": gauge,
            f"weather/{_BAROMETER_UNIT}": barometer,
            f"weather/{_RADAR_UNIT}": radar,
        }
        bus = RtuWire(self.run_dir / "rs485-1", serial, baud)
        self._modbus: dict[str, RtuWire | ModbusTcpWire] = {"rs485-1": bus, "weather": ModbusTcpWire(weather)}
        self.lines: dict[str, Wire] = {
            **self._modbus,
            "rs485-1-tcp": RtuTcpWire(bus.station),
            GNSS_LINE: self._gnss_wire,
        }
        for each in self._played:
            self.lines[each.name] = each.wire

    @property
    def addresses(self) -> dict[str, str]:
        """Line name -> path of the pseudo-terminal, or host:port."""
        return {name: line.address for name, line in self.lines.items()}

    def truth(self) -> Truth:
        """The dam now."""
        return self._dam.at(self.clock.now_s() - self._began_s)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            for line in self.lines.values():
                stack.callback(line.close)
                await line.open()
            await stack.enter_async_context(self.platform)
            stack.callback(self.gateway.close)
            self.gateway.open()
            stack.callback(self._control.close)
            await self._control.open()
            await stack.enter_async_context(self._group)
            stack.callback(self._end_tasks)
            self._speaking = [self._group.create_task(self._speak(), name=GNSS_LINE)]
            for each in self._played:
                self._speaking.append(self._group.create_task(each.play(self.clock), name=each.name))
            self._stage_all(self._outages)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def play(self, scenario: Scenario) -> None:
        """Every fault ends; from its present state on the dam follows another scenario.

        Raises:
            ScenarioWrong: a fault that cannot happen here; the present scenario goes on.
        """
        self._check(scenario)
        for task in self._staged:
            task.cancel()
        for target in list(self.faults):
            self.set_fault(target, "none")
        self.platform.come_back()
        self.scenario = scenario
        self.played_s = self.clock.now_s()
        self.truth()  # the dam steps up to this moment on its old course
        self._dam.follow(scenario.course)
        self._stage_all(scenario.outage)

    # -- faults --------------------------------------------------------------------------------------

    def targets(self) -> dict[str, frozenset[str]]:
        """What can be broken, and the kinds of fault it can have."""
        found: dict[str, frozenset[str]] = {}
        for name in self.lines:
            found[name] = frozenset({"unplug"})
            if name == GNSS_LINE:
                found[name] = faults.OF_LINES | faults.OF_GNSS
            elif name in self._modbus:
                found[name] = faults.OF_LINES
                rtu = faults.OF_UNITS if name == "rs485-1" else faults.OF_UNITS - faults.RTU_ONLY
                for unit in self._modbus[name].station.instruments:
                    target = f"{name}/{unit}"
                    found[target] = rtu if target in self._sensors else rtu - faults.OF_SENSORS
        return found | {"platform": faults.OF_PLATFORM, "gateway": faults.OF_GATEWAY}

    def _check(self, scenario: Scenario) -> None:
        """Refuse at once what would end the bench in the middle of its run."""
        for planned in scenario.fault:
            try:
                self._possible(planned.target, planned.fault)
            except FaultUnknown as error:
                raise ScenarioWrong(f"{scenario.name}: fault at {planned.at_min:g} min: {error}") from None

    def _possible(self, target: str, fault: str) -> Fault | None:
        targets = self.targets()
        if target not in targets:
            raise FaultUnknown(f"nothing is called {target!r}; there are {', '.join(targets)}")
        wanted = Fault.parse(fault)
        if wanted is not None and wanted.kind not in targets[target]:
            raise FaultUnknown(f"{wanted.kind} cannot happen to {target}")
        return wanted

    def set_fault(self, target: str, fault: str) -> None:
        """Puts `fault` (see `faults`) in force at `LINE/UNIT`, `LINE`, `platform`, `gateway`; `none` ends it.

        Raises:
            FaultUnknown: no such target, or the fault cannot happen to it.
        """
        wanted = self._possible(target, fault)
        name, _, unit = target.partition("/")
        if unit:
            self._modbus[name].station.set_fault(int(unit), wanted)
            if target in self._sensors:
                self._sensors[target].suffer(wanted)
        elif target == "platform":
            self._set_platform_fault(wanted)
        elif target == "gateway":
            self.gateway.suffer(wanted)
        else:
            self._set_line_fault(name, wanted)
        self.faults.pop(target, None)
        if wanted is not None:
            self.faults[target] = str(wanted)

    def _set_line_fault(self, name: str, fault: Fault | None) -> None:
        line = self.lines[name]
        if name == GNSS_LINE:
            self.gnss.fault = fault
        elif name in self._modbus:
            self._modbus[name].station.cut = fault is not None and fault.kind == "cut"
        if fault is not None and fault.kind == "unplug":
            line.unplug()
        else:
            line.plug()

    def _set_platform_fault(self, fault: Fault | None) -> None:
        kind = fault.kind if fault is not None else ""
        self.platform.receipts = kind != "no_receipts"
        self.platform.acks = kind != "no_acks"
        self.platform.refuse = int(fault.number) if fault is not None and kind == "refuse" else 0
        if kind == "away":
            self.platform.go_away()
        else:
            self.platform.come_back()

    # -- what goes on by itself ----------------------------------------------------------------------

    def _stage_all(self, outages: Sequence[Outage]) -> None:
        self._staged = [
            self._group.create_task(work, name=name)
            for work, name in (
                *(
                    (self._stage(each), f"fault {each.fault} of {each.target}")
                    for each in self.scenario.fault
                ),
                *((self._take_platform_away(each), "outage") for each in outages),
            )
        ]

    def _end_tasks(self) -> None:
        for task in (*self._speaking, *self._staged):
            task.cancel()

    async def _speak(self) -> None:
        """The GNSS receiver: an instant at each multiple of its interval in bench time."""
        while True:
            due_s = floor(self.clock.now_s() / self._gnss_every_s + 1.0) * self._gnss_every_s
            await self.clock.sleep_until(due_s, least_real_s=_LEAST_BETWEEN_EPOCHS_S)
            self._gnss_wire.send(self.gnss.epoch(due_s, self.truth()))

    async def _stage(self, planned: PlannedFault) -> None:
        begin_s = self.played_s + planned.at_min * 60.0
        await self.clock.sleep_until(begin_s)
        try:
            self.set_fault(planned.target, planned.fault)
        except FaultUnknown as error:  # of the gateway, without a daemon on it
            print(f"bench: {planned.fault} of {planned.target} is left out: {error}", file=sys.stderr)
            return
        staged = self.faults.get(planned.target)
        if planned.length_min is not None:
            await self.clock.sleep_until(begin_s + planned.length_min * 60.0)
            if self.faults.get(planned.target) == staged:  # else somebody has put another in its place
                self.set_fault(planned.target, "none")

    async def _take_platform_away(self, outage: Outage) -> None:
        await asyncio.sleep(outage.begin_s)
        self.platform.go_away(outage.length_s)

    def facts(self, *, page: str = "") -> dict[str, Any]:
        """What `bench.json` says: where everything is, and the sheets of the instruments."""
        return {
            "scenario": self.scenario.name,
            "clock": str(self.clock),
            "lines": self.addresses,
            "platform": self.platform.address,
            "control": str(self.run_dir / "bench.sock"),
            "clock_step": str(self.gateway.step_file),
            "page": page,
            "tables": {each.name: each.table.columns for each in self._played if isinstance(each, TableLine)},
            "piezometers": [asdict(sheet) for sheet in site.PIEZOMETERS],
            "gnss_origin": asdict(site.GNSS_ORIGIN),
            "radar_zero_elevation_m": site.RADAR_ZERO_ELEVATION_M,
            "rain_mm_per_tip": site.RAIN_MM_PER_TIP,
        }

    def write_facts(self, *, page: str = "") -> None:
        """Writes `bench.json`, whole or not at all."""
        fresh = self.run_dir / ".bench.json.new"
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(self.facts(page=page)), indent=2) + b"\n")
        fresh.replace(self.run_dir / "bench.json")
