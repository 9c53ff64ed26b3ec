"""One gateway, four platforms at once: company, province by SFTP, hydrology, SCADA. Each in turn goes wrong.

The clock of the bench runs for simulated sites only, and simulated data are withheld from two of these; so the
site is a real one and time is real. The pond level is read every second: in the minute that a platform is
blocked as much waits for it as in an hour of a reading a minute.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import time
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from daemon.reading import parse_rfc3339
from tests.daemon.dialects import test_sftp as sftp
from tests.daemon.dialects import test_sl651 as hydrology
from tests.daemon.dialects import test_sparkplug as sparkplug
from tests.daemon.dialects.test_tailings_files import measured
from tests.system.running import Bench, Daemon, batches, demo_site, readings, received, until
from tests.system.weir import Weir

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(
        sparkplug.MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"
    ),
    pytest.mark.skipif(sftp.SSHD is None, reason="sshd is not installed: apt-get install openssh-server"),
]
BLOCKED_S, WRONG_S, QUIET_S = 60.0, 20.0, 20.0
LATE_S = 10.0  # so old the oldest unsettled batch of a platform that is well may get, on a machine that is not idle
UPLINKS = ("company", "province", "hydrology", "scada")
LEVEL, ELEVATION = "n.pond.level", "n.pz01.elevation"
ZONE = ZoneInfo("Asia/Shanghai")
AGE = "pondwatch_spool_oldest_unsettled_seconds"

SITE = """
[[uplink]]
id = "province"
kind = "tailings-files"
project = "P1"
project_name = "北库"
folder = "sftp://{user}@127.0.0.1:{province}{folder}/inbox"
key = "{folder}/ours"
host_key = "{folder}/weir_hosts"
ack_deadline = "5 s"

[[uplink.point]]
code = "P1KSW020001"
type = "KSW"
value = "n.pond.level"

[[uplink]]
id = "hydrology"
kind = "sl651"
address = "127.0.0.1:{hydrology}"
centre = 5
station = "0011223344"
password = "03E8"
station_class = "4B"
keep_alive = "5 s"
reply_deadline = "1 s"
ack_deadline = "5 s"

[[uplink.element]]
channel = "n.pond.level"
element = "3B"

[[uplink.element]]
channel = "n.pz01.elevation"
element = "FF02"
digits = 9
decimals = 4

[[uplink]]
id = "scada"
kind = "sparkplug"
url = "mqtts://127.0.0.1:{scada}"
ca = "{broker}/ca.pem"
group = "tailings"
node = "gw1"
primary_host = "scada"
ack_deadline = "5 s"
"""


class Centre(hydrology.Centre):
    """Confirms what it hears, or lies, or refuses; keeps only what it confirmed."""

    def __init__(self) -> None:
        super().__init__()
        self.lies = self.refuses = False

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readexactly(14)
            size = (head[11] & 0x0F) << 8 | head[12]
            said = hydrology.taken_apart(head + await reader.readexactly(size + 3))
            if said.function == 0x2F:
                continue
            if self.lies:  # it confirms what was never sent, and has not kept what was
                writer.write(hydrology.order(said.function, said.serial ^ 0x5555, 0x1B))
            elif self.refuses:
                writer.write(hydrology.order(said.function, said.serial, 0x15))
            else:
                self.heard.append(said)
                writer.write(hydrology.order(said.function, said.serial, 0x1B))


class Wrong(NamedTuple):
    """What goes wrong with a platform, and how it is put right."""

    uplink: str
    what: str
    begin: Callable[[], Awaitable[object]]
    end: Callable[[], Awaitable[object]]
    for_s: float = WRONG_S


class Everybody:
    """The gateway and all the platforms."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self._stack = stack

    async def begin(self) -> None:
        enter = self._stack.enter_async_context
        run, shells = self.folder / "run", [self.folder / name for name in ("ssh", "other-ssh")]
        for shell in shells:
            shell.mkdir()
        self.inbox = self.folder / "company.db"
        self.bench = await enter(Bench(run, "calm", 1, "--platform-store", str(self.inbox)))
        self.server, self.other_server = [await enter(sftp.Server(shell)) for shell in shells]
        self.centre = Centre()
        await enter(self.centre.listening())
        self.broker = await enter(sparkplug.Broker(self.folder / "broker"))
        self.other_broker = await enter(sparkplug.Broker(self.folder / "other-broker"))
        self.host = await enter(sparkplug.host(self.broker))
        await self.host_is(online=True)
        company = int(self.bench.facts["platform"].rpartition(":")[2])
        targets = (company, self.server.port, self.centre.port, self.broker.port)
        self.weirs = {name: await enter(Weir(to)) for name, to in zip(UPLINKS, targets, strict=True)}
        known = (shells[0] / "host.pub").read_text()
        (shells[0] / "weir_hosts").write_text(f"[127.0.0.1]:{self.weirs['province'].port} {known}")
        self.daemon = Daemon(self._site(run, shells[0]), run)
        self._stack.push_async_callback(self.daemon.kill)
        await self.daemon.start()

    def _site(self, run: Path, shell: Path) -> Path:
        ports = {name: weir.port for name, weir in self.weirs.items()}
        site = demo_site(
            run,
            self.bench,
            ('mode = "simulated"', 'mode = "real"'),
            ('start = "child"', 'start = "off"'),
            (
                'profile = "vegapuls"\nunit = 2\nevery = "1 min"',
                'profile = "vegapuls"\nunit = 2\nevery = "1 s"',
            ),
            (f"mqtt://{self.bench.facts['platform']}", f"mqtt://127.0.0.1:{ports['company']}"),
            ('receipt_deadline = "30 s"', 'receipt_deadline = "5 s"'),
        )
        more = SITE.format(user=getpass.getuser(), folder=shell, broker=self.broker.folder, **ports)
        site.write_text(site.read_text() + more)
        return site

    async def host_is(self, *, online: bool) -> None:
        await self.host.state(time.time_ns() // 1_000_000, online=online)

    async def ages(self) -> dict[str, float]:
        metrics = await self.daemon.metrics()
        return {name: metrics[f'{AGE}{{uplink="{name}"}}'] for name in UPLINKS}

    async def watched(self, for_s: float) -> dict[str, float]:
        """The greatest age of the oldest unsettled batch of each in so long."""
        most = dict.fromkeys(UPLINKS, 0.0)
        until_s = time.monotonic() + for_s
        while time.monotonic() < until_s:
            ages = await self.ages()
            most = {name: max(most[name], ages[name]) for name in UPLINKS}
            await asyncio.sleep(0.5)
        return most

    async def caught_up(self) -> None:
        async def all_are() -> bool:
            return max((await self.ages()).values()) < LATE_S / 2

        await until(all_are, "all have caught up", 180.0)

    # -- what goes wrong -----------------------------------------------------------------------------

    def wrongs(self) -> list[Wrong]:
        async def shut(name: str) -> None:
            self.weirs[name].close()

        async def opened(name: str) -> None:
            self.weirs[name].open()

        async def centre(**how: bool) -> None:
            self.centre.__dict__.update(how)

        platform = self.bench.ask
        lead = {name: weir.lead_to for name, weir in self.weirs.items()}
        return [
            *(Wrong(name, "blocked", partial(shut, name), partial(opened, name), BLOCKED_S) for name in UPLINKS),
            Wrong("company", "acknowledges and sends no receipt", lambda: platform("platform", receipts=False),
                  lambda: platform("platform", receipts=True)),
            Wrong("company", "refuses", lambda: platform("platform", refuse=0x97), lambda: platform("platform", refuse=0)),
            Wrong("province", "is somebody else", lambda: lead["province"](self.other_server.port),
                  lambda: lead["province"](self.server.port)),
            Wrong("province", "refuses", self._take_the_inbox_away, self._give_the_inbox_back),
            Wrong("hydrology", "confirms another report", lambda: centre(lies=True), lambda: centre(lies=False)),
            Wrong("hydrology", "refuses", lambda: centre(refuses=True), lambda: centre(refuses=False)),
            Wrong("scada", "is somebody else", lambda: lead["scada"](self.other_broker.port),
                  lambda: lead["scada"](self.broker.port)),
            Wrong("scada", "its host is offline", lambda: self.host_is(online=False), lambda: self.host_is(online=True)),
        ]  # fmt: skip

    async def _take_the_inbox_away(self) -> None:
        self.server.inbox.rename(self.server.inbox.with_name("away"))
        self.server.inbox.write_text("no folder")

    async def _give_the_inbox_back(self) -> None:
        self.server.inbox.unlink()
        self.server.inbox.with_name("away").rename(self.server.inbox)


@pytest.fixture
async def everybody(tmp_path: Path) -> AsyncIterator[Everybody]:
    async with AsyncExitStack() as stack:
        its = Everybody(tmp_path, stack)
        await its.begin()
        yield its


async def test_each_platform_in_turn_is_blocked_lies_and_refuses_and_the_others_do_not_notice(
    everybody: Everybody,
) -> None:
    its = everybody
    await until(lambda: its.host.values and its.centre.heard and received(its.inbox), "all report", 120.0)
    await its.caught_up()
    told = [("all are well", "", await its.watched(QUIET_S))]
    for wrong in its.wrongs():
        await wrong.begin()
        most = await its.watched(wrong.for_s)
        await wrong.end()
        told.append((wrong.what, wrong.uplink, most))
        print(wrong.uplink, wrong.what, most)  # noqa: T201 -- a campaign tells what it found
        assert most[wrong.uplink] > wrong.for_s / 2, f"{wrong.what}: it did not go wrong"
        late = {name: age for name, age in most.items() if name != wrong.uplink and age > LATE_S}
        assert not late, f"while {wrong.uplink} {wrong.what}"
        await its.caught_up()
    print(json.dumps(told))  # noqa: T201
    cut_ns = time.time_ns()
    await until_settled(its, cut_ns)
    await its.daemon.stop()
    assert_all_have_everything_once(its, cut_ns)
    assert not [file for file in its.other_server.inbox.rglob("*") if file.is_file()]


async def until_settled(its: Everybody, cut_ns: int) -> None:
    """All that was committed before this moment is settled everywhere."""

    async def seen() -> bool:
        ages = await its.ages()
        return max(ages.values()) < (time.time_ns() - cut_ns) / 1e9 - 1.0

    await until(seen, "all is settled", 120.0)


def assert_all_have_everything_once(its: Everybody, cut_ns: int) -> None:
    stored = batches(its.daemon.store / "spool.db")
    levels = [one for one in readings(stored, LEVEL) if parse_rfc3339(one["time"]) < cut_ns - 2 * 10**9]
    elevations = [
        one for one in readings(stored, ELEVATION) if parse_rfc3339(one["time"]) < cut_ns - 2 * 10**9
    ]
    assert len(levels) > len(its.wrongs()) * WRONG_S
    every_level = readings(stored, LEVEL)

    company = received(its.inbox)
    assert [batch.sha256 for batch in company] == [batch.sha256 for batch in stored[: len(company)]]
    assert {one["time"] for one in levels} <= {one["time"] for one in readings(company, LEVEL)}

    files = {(moment, value) for _, moment, value in measured(its.server.inbox)}
    assert _in_files(levels) <= files <= _in_files(every_level)

    values = {(v.time_ms, v.value) for v in its.host.values if v.name == LEVEL}
    assert _in_metrics(levels) <= values <= _in_metrics(every_level)

    reports = [up for up in its.centre.heard if up.function in (0x32, 0x34)]
    said = {(up.observed, up.elements["FF02"]) for up in reports if "FF02" in up.elements}
    assert _in_minutes(elevations, 4) <= said <= _in_minutes(readings(stored, ELEVATION), 4)
    by_minute = {(up.observed, up.elements["3B"]) for up in reports if "3B" in up.elements}
    assert by_minute <= _in_minutes(every_level, 3), "a minute has many levels: one of its own is told"
    assert {minute for minute, _ in _in_minutes(levels, 3)} <= {minute for minute, _ in by_minute}


def _local(one: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(one["time"]).astimezone(ZONE)


def _in_files(levels: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {
        (f"{_local(one):%Y-%m-%d %H:%M:%S}", f"{one['value']:.3f}")
        for one in levels
        if one["value"] is not None
    }


def _in_metrics(levels: list[dict[str, Any]]) -> set[tuple[int, float]]:
    return {(parse_rfc3339(one["time"]) // 10**6, one["value"]) for one in levels}


def _in_minutes(levels: list[dict[str, Any]], decimals: int) -> set[tuple[str, float | None]]:
    return {
        (f"{_local(one):%y%m%d%H%M}", None if one["value"] is None else round(one["value"], decimals))
        for one in levels
    }
