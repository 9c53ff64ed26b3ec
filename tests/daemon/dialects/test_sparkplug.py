"""Sparkplug over a real mosquitto with TLS; payloads are read by pysparkplug, which nobody here wrote."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
from collections import Counter, deque
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import aiomqtt
import pysparkplug as spb
import pytest
from pysparkplug import _protobuf as their_protobuf

from daemon.clock import Clock
from daemon.reading import rfc3339
from daemon.spool import Spool
from daemon.uplink.dialect_uplink import DialectUplink
from daemon.uplink.dialects import build
from hardware_sim.ports import free_port
from tests.daemon.dialects import alarm, reading, readings, table, whole
from tests.daemon.test_mqtt_peer import certificate
from tests.system.running import PATH, Program, listens, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from daemon.spool import Draft

MOSQUITTO = shutil.which("mosquitto", path=PATH)
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]
STATE = "spBv1.0/STATE/scada"
NCMD = "spBv1.0/tailings/NCMD/gw1"
CHANNELS = [
    {"id": "n.pond.level", "unit": "m", "item": "pond-level", "pond": "n", "from": "r.level"},
    {"id": "n.rain.1h", "unit": "mm/h", "item": "rainfall", "pond": "n", "from": "r.rain"},
    {"id": "m.pond.level", "unit": "m", "item": "pond-level", "pond": "m", "from": "r.other"},
]
STALE, GOOD, BAD = 500, 192, 0


class Broker(Program):
    """A mosquitto that forgets everything when it dies."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = free_port()
        for name, issuer in (("ca", None), ("server", "ca")):
            certificate(name, folder, issuer, server=name == "server")
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\ncafile {folder}/ca.pem\ncertfile {folder}/server.pem\n"
            f"keyfile {folder}/server.key\nallow_anonymous true\n"
            + ("user root\n" if os.geteuid() == 0 else "")
        )
        super().__init__([str(MOSQUITTO), "-c", str(config)], folder / "mosquitto.log")

    async def start(self) -> None:
        await super().start()
        await self.ready(lambda: listens(self.port), "mosquitto listens")

    def client(self, name: str) -> aiomqtt.Client:
        tls = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        return aiomqtt.Client(
            "127.0.0.1", self.port, identifier=name, tls_context=tls, protocol=aiomqtt.ProtocolVersion.V5
        )


class Value(NamedTuple):
    """One metric as the host has it after aliases are resolved."""

    name: str
    time_ms: int
    value: Any
    historical: bool
    quality: int


class Host:
    """A host application: it holds the node to the protocol and keeps what it says."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._seq = -1
        self._births: dict[str, Any] = {}
        self.said: list[str] = []  # message types in order, data once in a row
        self.bd_seqs: list[int] = []  # of births, and of deaths as negatives less one
        self.values: list[Value] = []
        self.born: dict[str, Value] = {}
        self.units: dict[str, str] = {}

    async def run(self) -> None:
        async for message in self._client.messages:
            assert isinstance(message.payload, bytes)
            if not str(message.topic).startswith("spBv1.0/STATE"):
                assert (message.retain, message.qos) == (
                    False,
                    message.qos if "NDEATH" in str(message.topic) else 0,
                )
                self.take(str(message.topic), message.payload)

    async def state(self, time_ms: int, *, online: bool) -> None:
        payload = json.dumps({"online": online, "timestamp": time_ms})
        await self._client.publish(STATE, payload, qos=1, retain=True)

    def has(self, numbers: set[float]) -> bool:
        return numbers <= {value.value for value in self.values}

    def take(self, topic: str, raw: bytes) -> None:
        _, group, kind, node, *rest = topic.split("/")
        if "CMD" in kind:
            return
        assert (group, node) == ("tailings", "gw1")
        device = rest[0] if rest else ""
        if self.said[-1:] != [kind]:
            self.said.append(kind)
        if kind == "NDEATH":
            death = spb.NDeath.decode(raw)
            assert death.bd_seq_metric.name == "bdSeq"
            assert isinstance(death.bd_seq_metric.value, int)
            self.bd_seqs.append(-1 - death.bd_seq_metric.value)
            self._births.clear()
        elif kind in ("NBIRTH", "DBIRTH"):
            self._birth(kind, device, raw)
        else:
            of = {"NDATA": spb.NData, "DDATA": spb.DData}[kind].decode(raw, birth=self._births[device])
            self._in_order(of.seq)
            self.values += self._metrics(raw, of)

    def _birth(self, kind: str, device: str, raw: bytes) -> None:
        birth: Any = (spb.NBirth if kind == "NBIRTH" else spb.DBirth).decode(raw)
        if kind == "NBIRTH":
            self._seq = -1
            self._births.clear()
            (bd_seq,) = [metric for metric in birth.metrics if metric.name == "bdSeq"]
            assert bd_seq.datatype is spb.DataType.INT64
            (rebirth,) = [metric for metric in birth.metrics if metric.name == "Node Control/Rebirth"]
            assert (rebirth.datatype, rebirth.value) == (spb.DataType.BOOLEAN, False)
            self.bd_seqs.append(bd_seq.value)
        else:
            assert "" in self._births, "the node is born before its devices"
        self._in_order(birth.seq)
        self._births[device] = birth
        self.born |= {value.name: value for value in self._metrics(raw, birth)}
        for metric in their_protobuf.Payload.FromString(raw).metrics:
            if "engUnit" in metric.properties.keys:
                self.units[metric.name] = metric.properties.values[
                    list(metric.properties.keys).index("engUnit")
                ].string_value
        aliases = [metric.alias for each in self._births.values() for metric in each.metrics if metric.alias]
        assert len(aliases) == len(set(aliases))

    def _in_order(self, seq: int) -> None:
        assert seq == (self._seq + 1) % 256
        self._seq = seq

    def _metrics(self, raw: bytes, decoded: Any) -> list[Value]:
        its = []
        plain = their_protobuf.Payload.FromString(raw).metrics  # pysparkplug's Metric has no properties
        for metric, bare in zip(decoded.metrics, plain, strict=True):
            assert (metric.value is None) == metric.is_null
            keys = list(bare.properties.keys)
            quality = bare.properties.values[keys.index("Quality")].int_value if "Quality" in keys else GOOD
            its.append(Value(metric.name, metric.timestamp, metric.value, metric.is_historical, quality))
        return its


@asynccontextmanager
async def host(broker: Broker) -> AsyncIterator[Host]:
    async with broker.client("scada") as client:
        its = Host(client)
        await client.subscribe("spBv1.0/#", qos=1)
        task = asyncio.create_task(its.run())
        try:
            yield its
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await task


@asynccontextmanager
async def sending(spool: Spool, broker: Broker, **settings: Any) -> AsyncIterator[DialectUplink]:
    its = {
        "id": "scada",
        "url": f"mqtts://127.0.0.1:{broker.port}",
        "ca": str(broker.folder / "ca.pem"),
        "group": "tailings",
        "node": "gw1",
        "ack_deadline": "5 s",
        "again": "0 s",
        **settings,
    }
    site = whole(
        {
            "site": {"id": "s", "gateway": "g"},
            "pond": [{"id": "n"}, {"id": "m"}],
            "channel": CHANNELS,
            "uplink": [{"kind": "sparkplug", **its}],
        }
    )
    dialect = build(site.uplinks[0], site, Clock())  # type: ignore[arg-type]
    bound = table("sparkplug", its)
    uplink = DialectUplink(bound, dialect, spool, Clock(), again_s=bound.again_s, reconnect_most_s=0.2)
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def level(value: float, time_ms: int, channel: str = "n.pond.level", quality: str = "good") -> Draft:
    return readings(
        reading(channel, None if quality[:3] == "bad" else value, rfc3339(time_ms * 1_000_000), "m", quality)
    )


async def settled(uplink: DialectUplink) -> bool:
    return (await uplink.unsettled()).batches == 0


def now_ms() -> int:
    return Clock().wall_ns() // 1_000_000


async def test_a_host_has_every_value_once_and_knows_what_is_history_and_nothing_leaves_without_it(
    tmp_path: Path,
) -> None:
    began = now_ms() - 3_600_000
    async with (
        Broker(tmp_path / "broker") as broker,
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        host(broker) as scada,
    ):
        for n in range(10):
            await spool.commit([level(n, began + n)])
        await scada.state(5, online=False)
        async with sending(spool, broker, primary_host="scada") as uplink:
            await asyncio.sleep(0.3)
            await scada.state(
                4, online=True
            )  # of a connection that has ended: it comes late, and counts for nothing
            await asyncio.sleep(0.3)
            assert (scada.said, uplink.connected, uplink.counters.acked) == ([], False, 0)
            await scada.state(6, online=True)
            await until(lambda: len(scada.values) == 10, "the backlog")
            assert scada.said == ["NBIRTH", "DBIRTH", "DDATA"]
            assert scada.units == {"n.pond.level": "m", "n.rain.1h": "mm/h", "m.pond.level": "m"}
            assert {value.quality for name, value in scada.born.items() if "." in name} == {STALE}
            assert scada.values == [Value("n.pond.level", began + n, float(n), True, GOOD) for n in range(10)]

            live = now_ms()
            for n in range(300):  # more than there are sequence numbers
                await spool.commit([level(100 + n, live + n), level(n, live + n, "m.pond.level")])
            await spool.commit([level(0, live + 300, "n.rain.1h", "bad:no-reply")])
            await until(lambda: len(scada.values) == 611, "what is live")
            assert not any(value.historical for value in scada.values[10:])
            assert scada.values[-1] == Value("n.rain.1h", live + 300, None, False, BAD)
            await until(lambda: settled(uplink), "settled")

            await scada.state(7, online=False)
            await until(lambda: "NDEATH" in scada.said, "the node dies with its host")
            await spool.commit([level(777, live + 400)])
            await asyncio.sleep(0.3)
            assert not await settled(uplink)
            await scada.state(8, online=True)
            await until(lambda: len(scada.values) == 612, "what waited")
            assert scada.values[-1] == Value("n.pond.level", live + 400, 777.0, True, GOOD)
            await until(lambda: settled(uplink), "settled")
        await until(lambda: len(scada.bd_seqs) == 4, "the last death")
    first, dead, second, dead_again = scada.bd_seqs
    assert (dead, second, dead_again) == (-1 - first, (first + 1) % 256, -1 - second)
    assert set(Counter((value.name, value.time_ms) for value in scada.values).values()) == {1}


async def test_what_left_while_a_dead_host_still_counted_as_online_leaves_again_as_history(
    tmp_path: Path,
) -> None:
    live = now_ms() + 60_000
    async with (
        Broker(tmp_path / "broker") as broker,
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        host(broker) as scada,
        sending(spool, broker, primary_host="scada", again="90 s") as uplink,
    ):
        await scada.state(1, online=True)
        await spool.commit([level(0, live)])
        await until(lambda: settled(uplink), "settled")
        uplink._recent = deque(
            (settled_s - 91.0, seq) for settled_s, seq in uplink._recent
        )  # the host had it
        for n in range(1, 30):
            await spool.commit([level(n, live + n)])
        await until(lambda: settled(uplink), "settled")
        await until(partial(scada.has, {29.0}), "all")
        scada.values.clear()  # the host has died with them, and its broker learns of it only now
        await scada.state(2, online=False)
        await scada.state(3, online=True)
        await spool.commit([level(30, live + 30)])
        await until(partial(scada.has, {float(n) for n in range(1, 31)}), "what was unsure, and what is new")
        await until(lambda: settled(uplink), "settled")
        assert not scada.has({0.0})
        count = Counter(value.value for value in scada.values)
        assert (
            max(count[float(n)] for n in range(1, 30)) == 1
        )  # the 30th may have left twice, in either session


async def test_a_clock_that_was_ahead_makes_no_history_of_the_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead_ns = 86_400 * 10**9
    real_ns = Clock.wall_ns
    async with (
        Broker(tmp_path / "broker") as broker,
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        host(broker) as scada,
    ):
        with monkeypatch.context() as patched:
            patched.setattr(Clock, "wall_ns", lambda clock: real_ns(clock) + ahead_ns)
            async with sending(spool, broker) as uplink:
                await until(lambda: "DBIRTH" in scada.said, "born a day ahead")
                await spool.commit([level(1.0, now_ms() + 5)])
                await until(partial(scada.has, {1.0}), "a value of that day")
                patched.undo()
                await spool.commit([level(2.0, now_ms() + 5)])
                await until(partial(scada.has, {2.0}), "and of this")
                for n in range(3, 6):
                    await spool.commit([level(float(n), now_ms() + 5)])
                    await until(partial(scada.has, {float(n)}), "and so on")
                await until(lambda: settled(uplink), "settled")
    assert [(value.value, value.historical) for value in scada.values] == [(n, False) for n in range(1, 6)]


async def test_a_rebirth_on_request_tells_the_present_values_and_no_other_command_does_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.uplink.sparkplug.REBIRTH_EVERY_S", 0.3)

    def command(name: str, value: object, kind: spb.DataType) -> bytes:
        metric = spb.Metric(timestamp=now_ms(), name=name, datatype=kind, value=value)  # type: ignore[arg-type]
        return spb.NCmd(timestamp=now_ms(), metrics=(metric,)).encode(include_dtypes=True)

    async with (
        Broker(tmp_path / "broker") as broker,
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        host(broker) as scada,
        broker.client("somebody") as somebody,
        sending(spool, broker) as uplink,
    ):
        await until(lambda: scada.said == ["NBIRTH", "DBIRTH"], "born")
        time_ms = now_ms()
        await spool.commit([level(84.5, time_ms), alarm(time=rfc3339(time_ms * 1_000_000))])
        await until(lambda: settled(uplink), "settled")
        for nonsense in (
            b"\xff\xff\xff",
            b"",
            command("Node Control/Rebirth", value=False, kind=spb.DataType.BOOLEAN),
            command("Node Control/Reboot", value=True, kind=spb.DataType.BOOLEAN),
            command("n.pond.level", value=1.0, kind=spb.DataType.DOUBLE),
        ):
            await somebody.publish(NCMD, nonsense)
            await somebody.publish("spBv1.0/tailings/DCMD/gw1/n", nonsense)
        await asyncio.sleep(0.4)
        assert scada.said == ["NBIRTH", "DBIRTH", "NDATA", "DDATA"]
        for _ in range(50):
            await somebody.publish(
                NCMD, command("Node Control/Rebirth", value=True, kind=spb.DataType.BOOLEAN)
            )
        await until(lambda: scada.said.count("NBIRTH") >= 2, "born again")
        await spool.commit([level(84.6, time_ms + 1)])
        await until(lambda: settled(uplink), "and it goes on")
        await until(lambda: scada.values[-1].value == 84.6, "and it goes on")
    assert len(scada.bd_seqs) <= 2 + 2, "a flood of requests is no flood of births"
    assert len(set(scada.bd_seqs[:-1])) == 1
    assert scada.born["n.pond.level"].value in (84.5, 84.6)
    assert scada.born["n.pond.level"].quality == GOOD
    assert scada.born["m.pond.level"].value is None
    told = json.loads(scada.born["Alarm"].value)
    assert (told["level"], told["reason"]["zh"]) == ("yellow", "水平位移黄色预警")


async def test_a_broker_that_dies_and_forgets_costs_no_value(tmp_path: Path) -> None:
    values: list[Value] = []
    live = now_ms()
    async with (
        Broker(tmp_path / "broker") as broker,
        Spool.open(tmp_path / "store", "real", "boot") as spool,
        sending(spool, broker, primary_host="scada") as uplink,
    ):
        for life in range(3):
            async with host(broker) as scada:
                await scada.state(now_ms(), online=True)
                for n in range(20):
                    await spool.commit([level(life * 100 + n, live + life * 100 + n)])
                await until(lambda: settled(uplink), "settled")
                waited = (
                    {life * 100.0 - 50} if life else set()
                )  # what was committed while there was no broker
                its = {life * 100.0 + n for n in range(20)} | waited
                await until(partial(scada.has, its), "the host has them")
            values += scada.values
            await broker.kill()
            await spool.commit([level(life * 100 + 50, live + life * 100 + 50)])
            await until(lambda: not uplink.connected, "it sees that the broker is gone")
            await broker.start()
        async with host(broker) as scada:
            await scada.state(now_ms(), online=True)
            await until(lambda: settled(uplink), "the last")
            await until(partial(scada.has, {250.0}), "the last")
        values += scada.values
    expected = {life * 100.0 + n for life in range(3) for n in (*range(20), 50)}
    assert {value.value for value in values} == expected
    assert len({(value.name, value.time_ms) for value in values}) == len(expected)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # paho leaves its socket to the gc
async def test_a_strangers_broker_gets_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Broker(tmp_path / "broker") as broker, Spool.open(tmp_path / "store", "real", "boot") as spool:
        certificate("strange", broker.folder)
        await spool.commit([level(84, now_ms())])
        async with sending(spool, broker, ca=str(broker.folder / "strange.pem")) as uplink:
            await until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text, "it says why")
            assert not await settled(uplink)
