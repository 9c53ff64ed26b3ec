"""At red the neighbourhood is measured again, over real wires, and the alarm is given what it says."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from daemon.alarms import AlarmBook, Observation, Subject
from daemon.clock import Clock
from daemon.config import Site
from daemon.instruments import build_drivers, sources
from daemon.poller import PolledLine, PolledUnit
from daemon.reasons import Reason
from daemon.remeasure import Remeasure
from drivers.framing import MbapFraming
from drivers.line import Line
from drivers.modbus import ModbusDevice
from drivers.wire import TcpWire
from hardware_sim.dam import Truth
from hardware_sim.faults import Fault
from hardware_sim.instruments.vegapuls import VegaPuls
from hardware_sim.wires import ModbusTcpWire
from tests.system.running import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from daemon.outputs import Output

S = 1_000_000_000
SITE = """
[site]
id = "s"
gateway = "g"
[[pond]]
id = "n"
[[line]]
id = "l"
kind = "modbus-tcp"
address = "{address}"
"""
DEVICE = """
[[device]]
id = "{id}"
line = "l"
profile = "vegapuls"
unit = {unit}
every = "10 min"
timeout = "300 ms"
slowest_reply = "300 ms"
"""
CHANNEL = """
[[channel]]
id = "{id}"
unit = "{unit}"
pond = "n"
item = "{item}"
{how}
"""


def truth(level_m: float) -> Truth:
    values: dict[str, Any] = dict.fromkeys(Truth.__dataclass_fields__, 0.0)
    return Truth(**(values | {"pond_m": level_m}))


def site(folder: Path, address: str) -> Site:
    measured = [("a", "a.pv", "pond-level"), ("b", "b.pv", "pond-level"), ("far", "c.pv", "seepage-flow")]
    derived = {
        "a.freeboard": 'derive = { kind = "freeboard", of = "a", crest_elevation_m = 20.0 }',
        "a.rate": 'derive = { kind = "rate", of = "a", per = "d", noise = 0.01 }',
    }
    text = SITE.format(address=address)
    text += "".join(DEVICE.format(id=name, unit=n) for n, name in enumerate("abc", 1))
    text += "".join(
        CHANNEL.format(id=name, unit="m", item=item, how=f'from = "{source}"')
        for name, source, item in measured
    )
    text += "".join(
        CHANNEL.format(id=name, unit="m/d" if "rate" in name else "m", item="pond-level", how=how)
        for name, how in derived.items()
    )
    path = folder / "site.toml"
    path.write_text(text)
    return Site.load(path)


class Nobody:
    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@asynccontextmanager
async def bench(
    folder: Path, outputs: tuple[Output, ...] = ()
) -> AsyncIterator[tuple[Remeasure, ModbusTcpWire, list[list[dict[str, Any]]]]]:
    levels = {1: 12.5, 2: 11.0, 3: 3.0}
    wire = ModbusTcpWire({n: VegaPuls(lambda m=m: truth(m), 0.0, 20.0) for n, m in levels.items()})  # type: ignore[misc]
    await wire.open()
    its, clock = site(folder, wire.address), Clock()
    drivers = build_drivers(its, clock)
    units = [PolledUnit(d, 600 * S, 0.3) for d in drivers.values() if isinstance(d, ModbusDevice)]
    host, _, port = wire.address.rpartition(":")
    line = PolledLine(Line(TcpWire(host, int(port)), MbapFraming(), "l", paced=True), units, clock, Nobody())
    found: list[list[dict[str, Any]]] = []
    again = Remeasure(
        its, sources(its, drivers), drivers, {"l": line}, outputs, clock, lambda _, rows: found.append(rows)
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(line.run()), group.create_task(again.run())]
        yield again, wire, found
        for task in tasks:
            task.cancel()
    wire.close()


def red(level: Any = "red", **evidence: Any) -> Any:
    book = AlarmBook(timezone=ZoneInfo("Asia/Shanghai"))
    subject = Subject("channel", "a", pond="n", item="pond-level", channel="a")
    return book.observe(subject, Observation(level, "present", S, Reason("", ""), evidence=evidence))


async def test_channel_and_neighbours_are_measured_with_what_is_derived_from_them(tmp_path: Path) -> None:
    async with bench(tmp_path) as (again, _, found):
        again.ask(red())
        (rows,) = await until(lambda: found, "what was measured")
        assert {(r["channel"], r["value"], r["unit"], r["quality"]) for r in rows} == {
            ("a", 12.5, "m", "good"),
            ("b", 11.0, "m", "good"),
            ("a.freeboard", 7.5, "m", "good"),
        }, "no other item, and no rate: what remembers is left out"


async def test_a_device_that_does_not_answer_costs_the_others_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as (again, wire, found):
        wire.station.set_fault(2, Fault("silent"))
        again.ask(red())
        (rows,) = await until(lambda: found, "what was measured")
        assert {r["channel"] for r in rows} == {"a", "a.freeboard"}


async def test_only_a_channel_that_turned_red_asks(tmp_path: Path) -> None:
    async with bench(tmp_path) as (again, _, found):
        again.ask(red("orange"))
        again.ask(red(remeasured=[]))
        again.ask(red(latched={}))
        await asyncio.sleep(0.2)
        assert found == []


async def test_the_siren_goes_first_and_is_waited_for_only_so_long(tmp_path: Path) -> None:
    class Stuck:
        settled = False

    stuck: Any = Stuck()
    async with bench(tmp_path, (stuck,)) as (again, _, found):
        again.ask(red())
        await asyncio.sleep(0.3)
        assert found == []
        stuck.settled = True
        began_s = time.monotonic()
        await until(lambda: found, "what was measured")
        assert time.monotonic() - began_s < 1.0
