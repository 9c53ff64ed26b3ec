"""One gateway, four platforms at once: company, province by SFTP, hydrology, SCADA. Each in turn goes wrong.

Each is blocked for an hour of the gateway's time, in which the pond level is read 360 times; then it lies, and
refuses. The site is a real one, because simulated data are withheld from two of the four; the hour passes in
3600 / RATE real seconds by a clock handed in from outside (`paced.py`). What others call seconds is real here, if
no name says otherwise.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import time
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import aiomqtt
import pytest

from daemon.reading import parse_rfc3339
from tests.daemon.dialects import test_sftp as sftp
from tests.daemon.dialects import test_sl651 as hydrology
from tests.daemon.dialects import test_sparkplug as sparkplug
from tests.daemon.dialects.test_tailings_files import measured
from tests.system.running import (
    ROOT,
    Bench,
    Daemon,
    Program,
    batches,
    demo_site,
    readings,
    received,
    rows,
    until,
)
from tests.system.weir import Weir

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        sparkplug.MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"
    ),
    pytest.mark.skipif(sftp.SSHD is None, reason="sshd is not installed: apt-get install openssh-server"),
]
RATE = 144
HOUR_S, WRONG_S, QUIET_S = 3600 / RATE, 6.0, 4.0
EVERY_S = 10 / RATE  # between two readings of the pond level
LATE_S = 5.0  # so far behind a platform that is well may get, on a machine that is not idle
UPLINKS = ("company", "province", "hydrology", "scada")
LEVEL, ELEVATION = "n.pond.level", "n.pz01.elevation"
ZONE = ZoneInfo("Asia/Shanghai")
AGE = "pondwatch_spool_oldest_unsettled_seconds"
NS = 10**9
REPORTS = (0x32, 0x34)

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
        self.newest = ""

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
                if said.function in REPORTS:
                    self.newest = max(self.newest, said.observed)
                writer.write(hydrology.order(said.function, said.serial, 0x1B))


class Paced(Daemon):
    """The daemon on a clock that runs with the bench's, and steps when the bench says so."""

    module = "tests.system.paced"


class Wrong(NamedTuple):
    """What goes wrong with a platform, and how it is put right."""

    uplink: str
    what: str
    begin: Callable[[], Awaitable[object]]
    end: Callable[[], Awaitable[object]]
    for_s: float = WRONG_S


class Seen(NamedTuple):
    """How far behind a platform was at most: by what the gateway says is unsettled, by what was at the platform."""

    unsettled_s: float
    newest_s: float


class Everybody:
    """The gateway and all the platforms."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._counted, self._scada_ms = 0, 0
        self._forging: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        enter = self._stack.enter_async_context
        run, shells = self.folder / "run", [self.folder / name for name in ("ssh", "other-ssh")]
        for shell in shells:
            shell.mkdir()
        self.inbox = self.folder / "company.db"
        self.bench = await enter(Bench(run, "calm", RATE, "--platform-store", str(self.inbox)))
        self.epoch_s = float(str(self.bench.facts["clock"]).partition("@")[2])
        self.server, self.other_server = [await enter(sftp.Server(shell)) for shell in shells]
        self.read_only = await enter(sftp.Server(shells[0], "-R"))
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
        pace = {
            "PONDWATCH_TEST_PACE": self.bench.facts["clock"],
            "PONDWATCH_BENCH_STEP": self.bench.facts["clock_step"],
        }
        self.daemon = Paced(self._site(run, shells[0]), run, **pace)
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
                'profile = "vegapuls"\nunit = 2\nevery = "10 s"',
            ),
            (f"mqtt://{self.bench.facts['platform']}", f"mqtt://127.0.0.1:{ports['company']}"),
            ('receipt_deadline = "30 s"', 'receipt_deadline = "2 s"'),
        )
        more = SITE.format(user=getpass.getuser(), folder=shell, broker=self.broker.folder, **ports)
        site.write_text(site.read_text() + more)
        return site

    def now_ns(self) -> int:
        """The gateway's time."""
        return int((self.epoch_s + self.bench.now_s()) * NS)

    async def the_clock_steps(self) -> None:
        """Back by twenty minutes, and forward again."""
        for step_s in (-1200, 0):
            await self.bench.ask("fault", target="gateway", fault=f"clock_step {step_s}")
            await asyncio.sleep(2.0)

    async def host_is(self, *, online: bool) -> None:
        await self.host.state(time.time_ns() // 1_000_000, online=online)

    # -- how far behind they are ---------------------------------------------------------------------

    async def ages(self) -> dict[str, float]:
        """Since when the gateway has something unsettled for each."""
        metrics = await self.daemon.metrics()
        return {name: metrics[f'{AGE}{{uplink="{name}"}}'] / RATE for name in UPLINKS}

    def newest_ns(self) -> dict[str, int]:
        """The gateway's time of the newest reading that is at each platform, as it has it itself."""
        newest = "SELECT payload FROM batch WHERE kind = 'readings' ORDER BY seq DESC LIMIT 1"
        (payload,) = rows(self.inbox, newest)[0]
        stamp = max(file.stem[-14:] for file in (self.server.inbox / "wkk").glob("*_KSWSS_*.txt"))
        self._scada_ms = max(
            [self._scada_ms, *(value.time_ms for value in self.host.values[self._counted :])]
        )
        self._counted = len(self.host.values)
        return {
            "company": max(parse_rfc3339(one["time"]) for one in json.loads(payload)["readings"]),
            "province": _ns(stamp, "%Y%m%d%H%M%S"),
            "hydrology": _ns(self.centre.newest, "%y%m%d%H%M"),
            "scada": self._scada_ms * 10**6,
        }

    async def watched(self, for_s: float) -> dict[str, Seen]:
        """The furthest each was behind in so long."""
        most = dict.fromkeys(UPLINKS, Seen(0.0, 0.0))
        until_s = time.monotonic() + for_s
        while time.monotonic() < until_s:
            ages, newest_ns, now_ns = await self.ages(), self.newest_ns(), self.now_ns()
            for name, seen in most.items():
                behind_s = (now_ns - newest_ns[name]) / NS / RATE
                most[name] = Seen(max(seen.unsettled_s, ages[name]), max(seen.newest_s, behind_s))
            await asyncio.sleep(0.25)
        return most

    async def caught_up(self) -> None:
        async def all_are() -> bool:
            return max((await self.ages()).values()) < LATE_S / 4

        await until(all_are, "all have caught up", 120.0)

    # -- what goes wrong -----------------------------------------------------------------------------

    def wrongs(self) -> list[Wrong]:
        async def shut(name: str) -> None:
            self.weirs[name].close()

        async def opened(name: str) -> None:
            self.weirs[name].open()

        async def centre(**how: bool) -> None:
            self.centre.__dict__.update(how)

        platform = partial(self.bench.ask, "platform")
        lead = {name: weir.lead_to for name, weir in self.weirs.items()}
        return [
            *(Wrong(name, "blocked", partial(shut, name), partial(opened, name), HOUR_S) for name in UPLINKS),
            Wrong("company", "acknowledges, keeps nothing and receipts the future", self._forge, self._forge_no_more),
            Wrong("company", "acknowledges and sends no receipt", partial(platform, receipts=False),
                  partial(platform, receipts=True)),
            Wrong("company", "refuses", partial(platform, refuse=0x97), partial(platform, refuse=0)),
            Wrong("province", "is somebody else", partial(lead["province"], self.other_server.port),
                  partial(lead["province"], self.server.port)),
            Wrong("province", "denies permission", partial(lead["province"], self.read_only.port),
                  partial(lead["province"], self.server.port)),
            Wrong("hydrology", "confirms another report", partial(centre, lies=True), partial(centre, lies=False)),
            Wrong("hydrology", "refuses", partial(centre, refuses=True), partial(centre, refuses=False)),
            Wrong("scada", "is somebody else", partial(lead["scada"], self.other_broker.port),
                  partial(lead["scada"], self.broker.port)),
            Wrong("scada", "its host is offline", partial(self.host_is, online=False),
                  partial(self.host_is, online=True)),
        ]  # fmt: skip

    async def _forge(self) -> None:
        await self.bench.ask("platform", keeps=False)
        self._forging = asyncio.create_task(self._receipts_for_the_future())

    async def _forge_no_more(self) -> None:
        assert self._forging is not None
        self._forging.cancel()
        with suppress(asyncio.CancelledError):
            await self._forging
        await self.bench.ask("platform", keeps=True)

    async def _receipts_for_the_future(self) -> None:
        stream = (await self.daemon.ask("status"))["stream"]
        host, _, port = self.bench.facts["platform"].rpartition(":")
        forged = [(stream, 10**6, 2 * 10**6), (stream, 1, 10**6), ("0" * 16, 1, 10**6)]
        async with aiomqtt.Client(host, int(port), protocol=aiomqtt.ProtocolVersion.V5) as client:
            while True:
                for of, first, last in forged:
                    receipt = {"v": 1, "stream": of, "settled": [[first, last]]}
                    await client.publish("pondwatch/1/demo/gw1/receipts", json.dumps(receipt), qos=1)
                await asyncio.sleep(0.5)


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
    await until(lambda: its.host.values and its.centre.newest, "hydrology and SCADA have values", 60.0)
    await until(lambda: received(its.inbox) and measured(its.server.inbox), "company and province have", 60.0)
    await its.caught_up()
    tell("all are well", "", await its.watched(QUIET_S))
    hours: list[tuple[int, int]] = []
    for wrong in its.wrongs():
        if len(hours) == len(UPLINKS) // 2 and wrong.for_s == HOUR_S:  # between two blocks
            await its.the_clock_steps()
            await its.caught_up()
        began_ns = its.now_ns()
        await wrong.begin()
        most = await its.watched(wrong.for_s)
        await wrong.end()
        if wrong.for_s == HOUR_S:
            hours.append((began_ns, its.now_ns()))
        tell(wrong.what, wrong.uplink, most)
        assert most[wrong.uplink].unsettled_s > wrong.for_s / 2, f"{wrong.what}: it did not go wrong"
        late = {name: seen for name, seen in most.items() if name != wrong.uplink and max(seen) > LATE_S}
        assert not late, f"while {wrong.uplink} {wrong.what}"
        await its.caught_up()
    cut_ns = its.now_ns()
    await until_settled(its, cut_ns)
    summary = await its.bench.ask("summary")
    await its.daemon.stop()
    log = its.daemon.log.read_text()
    assert "batches never sent" in log
    assert "strange stream" in log
    assert log.count("the wall clock stepped by") == 2
    assert (summary["forks"], summary["chain_breaks"], summary["holes"], summary["twins"]) == (0, 0, 0, 0)
    assert_all_have_everything_once(its, cut_ns, hours)
    assert not [file for file in its.other_server.inbox.rglob("*") if file.is_file()]


async def test_no_rate_makes_a_rehearsal_pass_for_a_real_site(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    demo = (ROOT / "config" / "demo.toml").read_text().replace('mode = "simulated"', 'mode = "real"')
    site.write_text(demo.replace("build/run/", f"{tmp_path}/"))
    daemon = Daemon(site, tmp_path, clock=f"{RATE}@{time.time()}")
    await Program.start(daemon)
    assert await daemon.wait() == 3
    assert "a rate is for the bench only" in daemon.last_words()
    assert not (tmp_path / "store").exists()


def tell(what: str, uplink: str, most: dict[str, Seen]) -> None:
    behind = ", ".join(f"{name} {seen.unsettled_s:.2f}/{seen.newest_s:.2f} s" for name, seen in most.items())
    print(f"{uplink or 'nobody'}: {what}; behind at most, unsettled/newest: {behind}")  # noqa: T201 -- figures


async def until_settled(its: Everybody, cut_ns: int) -> None:
    """All that was committed before this moment is settled everywhere."""

    async def seen() -> bool:
        ages = await its.ages()
        return max(ages.values()) < (its.now_ns() - cut_ns) / NS / RATE - 1.0

    await until(seen, "all is settled", 120.0)


def assert_all_have_everything_once(its: Everybody, cut_ns: int, hours: list[tuple[int, int]]) -> None:
    stored = batches(its.daemon.store / "spool.db")
    every_level, every_elevation = readings(stored, LEVEL), readings(stored, ELEVATION)
    until_ns = cut_ns - 2 * RATE * NS
    levels, elevations = (
        [one for one in every if parse_rfc3339(one["time"]) < until_ns]
        for every in (every_level, every_elevation)
    )
    for began_ns, ended_ns in hours:
        read = sum(began_ns <= parse_rfc3339(one["time"]) < ended_ns for one in levels)
        print(f"in an hour of {(ended_ns - began_ns) / NS:.0f} s the level was read {read} times")  # noqa: T201
        assert read > 0.9 * (ended_ns - began_ns) / NS / 10
    assert len(elevations) > len(hours) * 50

    company = received(its.inbox)
    assert [batch.sha256 for batch in company] == [batch.sha256 for batch in stored[: len(company)]]
    assert {one["time"] for one in levels} <= {one["time"] for one in readings(company, LEVEL)}

    files = {(moment, value) for _, moment, value in measured(its.server.inbox)}
    assert _in_files(levels) <= files <= _in_files(every_level)

    values = {(v.time_ms, v.value) for v in its.host.values if v.name == LEVEL}
    assert _in_metrics(levels) <= values <= _in_metrics(every_level)

    reports = [up for up in its.centre.heard if up.function in REPORTS]
    for element, its_own, every, decimals in (
        ("3B", levels, every_level, 3),
        ("FF02", elevations, every_elevation, 4),
    ):
        said = {(up.observed, up.elements[element]) for up in reports if element in up.elements}
        assert said <= _in_minutes(every, decimals), (
            "of a minute with several readings one of its own is told"
        )
        assert {minute for minute, _ in _in_minutes(its_own, decimals)} <= {minute for minute, _ in said}


def _ns(local: str, how: str) -> int:
    return int(datetime.strptime(local, how).replace(tzinfo=ZONE).timestamp()) * NS


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
