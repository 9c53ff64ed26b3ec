"""The MQTT uplink against mosquitto: delivery, refusal, outage, receipts, certificates."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import logging
import os
import shutil
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiomqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from daemon.clock import Clock
from daemon.config import UplinkTable
from daemon.seal import verify
from daemon.spool import Draft, Spool
from daemon.uplink.ack_client import AckClient
from daemon.uplink.mqtt import MqttUplink, Status
from hardware_sim.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from daemon.spool import Kind

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]
STATUS = Status("test", "0.1.0", "boot-1", "?", "c0ffee", "2026-11-23T08:00:00.000Z")
RECEIPTS = "pondwatch/1/site/gw1/receipts"


class Broker:
    """A mosquitto of our own, that can be stopped and started again with its memory."""

    def __init__(self, folder: Path, extra: str = "", listener: str = "") -> None:
        self.port = free_port()
        folder.mkdir()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\n{listener}\n"
            + ("allow_anonymous true\n" if "allow_anonymous" not in extra else "")
            + f"persistence true\npersistence_location {folder}/\nautosave_interval 1\nmax_queued_messages 100000\n"
            + ("user root\n" if os.geteuid() == 0 else "")
            + extra
        )
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        assert MOSQUITTO is not None
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            MOSQUITTO, "-c", str(self._config), stdout=quiet, stderr=quiet
        )
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(how)
            await self._process.wait()
        self._process = None


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path / "broker")
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    async with Spool.open(tmp_path / "store", "test", "boot-1") as spool:
        yield spool


@dataclass
class Platform:
    """Who receives: keeps the bytes by seq, counts repeats, sends receipts when told to."""

    port: int
    receipts: bool = True
    listens: asyncio.Event = field(default_factory=asyncio.Event)
    batches: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    arrivals: Counter[int] = field(default_factory=Counter)
    order: list[int] = field(default_factory=list)
    status: list[dict[str, Any]] = field(default_factory=list)
    backfilled: set[int] = field(default_factory=set)
    forks: int = 0

    async def run(self) -> None:
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._listen()
            await asyncio.sleep(0.05)

    async def _listen(self) -> None:
        async with aiomqtt.Client(
            "127.0.0.1",
            self.port,
            identifier="platform",
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=_session(),
            timeout=1.0,
        ) as client:
            await client.subscribe("pondwatch/1/+/+/#", qos=1)
            self.listens.set()
            try:
                async for message in client.messages:
                    record = self._take(message)
                    if self.receipts and "seq" in record:
                        receipt = {"stream": record["stream"], "settled": [[record["seq"], record["seq"]]]}
                        await client.publish(RECEIPTS, json.dumps(receipt), qos=1)
            finally:  # paho has acknowledged these already, so the broker will not bring them again
                while not client._queue.empty():
                    self._take(client._queue.get_nowait())

    def _take(self, message: aiomqtt.Message) -> dict[str, Any]:
        assert isinstance(message.payload, bytes)
        kind = message.topic.value.rpartition("/")[2]
        record: dict[str, Any] = {} if kind == "receipts" else json.loads(message.payload)
        if kind == "status":
            self.status.append(record)
        elif record:
            self._keep(kind, record["seq"], message)
        return record

    def _keep(self, kind: str, seq: int, message: aiomqtt.Message) -> None:
        assert isinstance(message.payload, bytes)
        properties: Any = message.properties
        assert properties.ContentType == "application/json"
        if ("backfill", "true") in getattr(properties, "UserProperty", []):
            self.backfilled.add(seq)
        self.arrivals[seq] += 1
        self.order.append(seq)
        before = self.batches.setdefault(seq, (kind, message.payload))
        self.forks += before[1] != message.payload


def _session() -> Any:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600
    return properties


def draft(n: int, kind: Kind = "readings") -> Draft:
    return Draft(kind, b'"n":%d' % n, time_ns=n, mono_ns=n, count=1)


def table(port: int, settle: str = "puback", scheme: str = "mqtt", **rest: Any) -> UplinkTable:
    return UplinkTable("up", "mqtt", f"{scheme}://127.0.0.1:{port}", settle, **rest)  # type: ignore[arg-type]


def make(settings: UplinkTable, spool: Spool) -> MqttUplink:
    return MqttUplink(settings, "site", "gw1", spool, STATUS, Clock(), reconnect_most_s=0.3)


@contextlib.asynccontextmanager
async def running(*parts: Any, after: Platform | None = None) -> AsyncIterator[None]:
    """Run `parts`; those behind `after` begin when it listens."""
    tasks = []
    for part in parts:
        tasks.append(asyncio.create_task(part.run()))
        if after is not None and part is after:
            await after.listens.wait()
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result


async def until(true: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(45):
            while True:
                result = true()
                if (await result) if not isinstance(result, bool) else result:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"in 45 s not seen: {what}")


async def durable(spool: Spool, last: int) -> bool:
    return (await spool.settled("up")).to_list() == [[1, last]]


@pytest.mark.parametrize("settle", ["puback", "receipt"])
async def test_every_batch_arrives_once_with_its_very_bytes_and_settles(
    broker: Broker, spool: Spool, settle: str
) -> None:
    uplink, platform = make(table(broker.port, settle), spool), Platform(broker.port)
    made = await spool.commit([draft(n) for n in range(300)])
    async with running(platform, uplink, after=platform):
        await until(lambda: bool(platform.status), "connected")
        made += await spool.commit([draft(1, "alarms"), draft(2, "gaps"), draft(3, "audit"), draft(4)])
        await until(lambda: durable(spool, 304), "all settled")
        await until(lambda: len(platform.batches) == 304, "all arrived")
        assert await uplink.unsettled() == (0, 0.0)
    states = [uplink.connected]
    assert states == [False]
    assert {b.seq: (b.kind, b.payload) for b in made} == platform.batches
    assert verify(made) is None
    assert set(platform.arrivals.values()) == {1}
    assert platform.backfilled == set(range(1, 301))
    assert [s["state"] for s in platform.status][-1] == "online"
    assert uplink.counters.settled == uplink.counters.sent == 304


async def test_an_alarm_overtakes_the_backlog(broker: Broker, spool: Spool) -> None:
    await spool.commit([draft(n) for n in range(2000)] + [draft(2000, "alarms")])
    uplink, platform = make(table(broker.port), spool), Platform(broker.port)
    async with running(platform, uplink, after=platform):
        await until(lambda: len(platform.batches) == 2001, "all arrived")
    assert platform.order[0] == 2001


@pytest.mark.parametrize("settle", ["puback", "receipt"])
async def test_a_broker_that_goes_and_comes_back_gets_everything_and_the_platform_keeps_one_of_each(
    broker: Broker, spool: Spool, settle: str
) -> None:
    uplink = make(table(broker.port, settle, receipt_deadline_s=2.0), spool)
    platform = Platform(broker.port)
    enough = asyncio.Event()

    async def commit() -> None:
        while not enough.is_set():
            await spool.commit([draft(1), draft(2, "alarms")])
            await asyncio.sleep(0.005)

    async with running(platform, uplink, after=platform):
        await until(lambda: uplink.connected, "connected")
        committing = asyncio.create_task(commit())
        for _ in range(3):
            await asyncio.sleep(0.3)
            await broker.stop()
            await until(lambda: not uplink.connected, "the loss is noticed")
            await asyncio.sleep(0.2)
            await broker.start()
            await until(lambda: uplink.connected, "connected again")
        enough.set()
        await committing
        last = spool.last_seq
        await until(lambda: durable(spool, last), "all settled")
        await until(lambda: len(platform.batches) == last, "all arrived")
    assert platform.forks == 0
    assert uplink.counters.connections == 4
    if settle == "puback":
        assert uplink.counters.resent <= 3 * 20  # no more than a window for each loss


async def test_what_is_committed_while_a_connection_begins_waits_for_no_later_commit(
    broker: Broker, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    uplink, platform = make(table(broker.port), spool), Platform(broker.port)
    first_seq = spool.first_seq

    async def with_a_commit_meanwhile() -> int:
        found = await first_seq()
        if spool.last_seq == 0:
            await spool.commit([draft(1)])
            await until(lambda: spool.last_seq == 1, "told")
        return found

    monkeypatch.setattr(spool, "first_seq", with_a_commit_meanwhile)
    async with running(platform, uplink, after=platform):
        await until(lambda: durable(spool, 1), "settled")


async def test_a_process_that_dies_goes_on_where_its_settled_ranges_end(broker: Broker, spool: Spool) -> None:
    platform = Platform(broker.port)
    await spool.commit([draft(n) for n in range(50)])
    async with running(platform):
        await platform.listens.wait()
        first = make(table(broker.port), spool)
        async with running(first):
            await until(lambda: durable(spool, 50), "all settled")
        await spool.commit([draft(n) for n in range(50)])
        async with running(make(table(broker.port), spool)):
            await until(lambda: durable(spool, 100), "all settled")
            await until(lambda: len(platform.batches) == 100, "all arrived")
    assert set(platform.arrivals.values()) == {1}


async def test_what_the_broker_refuses_is_not_settled_and_stops_nothing_else(
    tmp_path: Path, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite #\ntopic deny pondwatch/1/site/gw1/audit\n")
    acl.chmod(0o600)
    broker = Broker(tmp_path / "broker", f"acl_file {acl}\n")
    await broker.start()
    rejected: list[int] = []
    uplink = MqttUplink(
        table(broker.port), "site", "gw1", spool, STATUS, Clock(), on_rejected=lambda: rejected.append(1)
    )
    platform = Platform(broker.port)
    await spool.commit([draft(1), draft(2, "audit"), draft(3, "alarms"), draft(4, "audit"), draft(5)])
    with caplog.at_level(logging.WARNING, "daemon.uplink.mqtt"):
        async with running(platform, uplink, after=platform):
            await until(lambda: len(platform.batches) == 3, "what is allowed arrived")
            await until(lambda: uplink.counters.rejected >= 3, "refused and tried again")
            await spool.commit([draft(6)])
            await until(lambda: 6 in platform.batches, "and it goes on")
            assert (await uplink.unsettled()).batches == 2
    await broker.stop()
    assert (await spool.settled("up")).to_list() == [[1, 1], [3, 3], [5, 6]]
    assert len(rejected) == uplink.counters.rejected
    (line,) = [r.getMessage() for r in caplog.records]
    assert "refuses batch 2 (audit): Not authorized" in line


async def test_what_nobody_subscribes_to_is_not_delivered_and_arrives_once_somebody_does(
    broker: Broker, spool: Spool
) -> None:
    uplink, platform = make(table(broker.port), spool), Platform(broker.port)
    await spool.commit([draft(n) for n in range(5)])
    async with running(uplink):
        await until(lambda: uplink.counters.rejected == 5, "dropped by the broker")
        assert not await spool.settled("up")
        async with running(platform):
            await until(lambda: durable(spool, 5), "settled")
            await until(
                lambda: len(platform.batches) == 5, "all arrived: the broker brings them in its own time"
            )
            assert sorted(platform.batches) == [1, 2, 3, 4, 5]


async def test_receipts_decide_and_nonsense_among_them_changes_nothing(
    broker: Broker, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    uplink, reader = make(table(broker.port, "receipt"), spool), Platform(broker.port, receipts=False)
    await spool.commit([draft(n) for n in range(6)])
    async with (
        running(reader, uplink, after=reader),
        aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as platform,
    ):
        await until(lambda: uplink.counters.acked == 6, "all acknowledged")
        assert (await uplink.unsettled()).batches == 6
        bad: list[str | bytes] = [
            b"", b"\xff\xfe", "{", "[]", "null", '{"stream":1,"settled":[]}', '{"stream":"x"}', "[" * 5000,
            json.dumps({"stream": spool.stream, "settled": [[3, 1]]}),
            json.dumps({"stream": spool.stream, "settled": [[1]]}),
            json.dumps({"stream": spool.stream, "settled": [["1", "2"]]}),
            json.dumps({"stream": spool.stream, "settled": [[1, 10**40]]}),
            json.dumps({"stream": "another", "settled": [[1, 6]]}),
            json.dumps({"stream": spool.stream, "settled": [[7, 10**15]]}),
            json.dumps({"stream": spool.stream, "settled": [[0, 0]]}),
            b" " * 65_537,
        ]  # fmt: skip
        for payload in bad:
            await platform.publish(RECEIPTS, payload, qos=1)
        await until(lambda: uplink.counters.receipts_refused == len(bad), "all refused")
        assert not await spool.settled("up")
        await platform.publish(
            RECEIPTS, json.dumps({"stream": spool.stream, "settled": [[5, 6], [2, 3]]}), qos=1
        )
        await until(lambda: uplink.counters.settled == 4, "a good one counts")
        await platform.publish(RECEIPTS, json.dumps({"stream": spool.stream, "settled": [[1, 6]]}), qos=1)
        await until(lambda: durable(spool, 6), "all settled")
        assert uplink.connected
    lines = [r.getMessage() for r in caplog.records if "receipt" in r.getMessage()]
    assert len(lines) == 3  # unreadable, strange stream, never sent: once each


async def test_without_a_receipt_the_batch_is_sent_again_until_the_platform_is_back(
    broker: Broker, spool: Spool
) -> None:
    uplink = make(table(broker.port, "receipt", receipt_deadline_s=0.3), spool)
    platform = Platform(broker.port, receipts=False)
    await spool.commit([draft(1)])
    async with running(platform, uplink, after=platform):
        await until(lambda: platform.arrivals[1] >= 2, "sent again")
        assert not await spool.settled("up")
        platform.receipts = True
        await until(lambda: durable(spool, 1), "settled")
    assert platform.forks == 0


async def test_a_receipt_that_came_while_we_were_away_counts_when_we_are_back(
    broker: Broker, spool: Spool
) -> None:
    await spool.commit([draft(1)])
    uplink = make(table(broker.port, "receipt", receipt_deadline_s=3600.0), spool)
    reader = Platform(broker.port, receipts=False)
    async with running(reader, uplink, after=reader):
        await until(lambda: uplink.counters.acked == 1, "acknowledged")
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as platform:
        await platform.publish(RECEIPTS, json.dumps({"stream": spool.stream, "settled": [[1, 1]]}), qos=1)
    async with running(uplink):  # the same process after a loss; the broker kept the receipt
        await until(lambda: durable(spool, 1), "settled")
    assert uplink.counters.sent == 1


async def status_of(port: int) -> dict[str, Any]:
    """What a newcomer is told."""
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("pondwatch/1/site/gw1/status")
        message = await anext(client.messages)
        assert message.retain
        assert isinstance(message.payload, bytes)
        record: dict[str, Any] = json.loads(message.payload)
        return record


async def test_the_retained_status_tells_online_stopping_and_a_sudden_death(
    broker: Broker, spool: Spool
) -> None:
    uplink = make(table(broker.port), spool)
    async with running(uplink):
        await until(lambda: uplink.connected, "connected")
        assert await status_of(broker.port) == {
            "v": 1, "state": "online", "mode": "test", "version": "0.1.0", "boot": "boot-1", "stream": "?",
            "config_sha256": "c0ffee", "started": "2026-11-23T08:00:00.000Z",
        }  # fmt: skip
    assert (await status_of(broker.port))["state"] == "stopping"
    client = await uplink._client()
    async with asyncio.timeout(5):
        with contextlib.suppress(aiomqtt.MqttError):
            async with client:
                raise aiomqtt.MqttError("died without a word")
        while (await status_of(broker.port))["state"] != "offline":
            await asyncio.sleep(0.02)


async def test_mosquitto_sub_sees_the_documented_topics_and_properties(broker: Broker, spool: Spool) -> None:
    subscriber = shutil.which("mosquitto_sub")
    if subscriber is None:
        pytest.skip("mosquitto_sub is not installed: apt-get install mosquitto-clients")
    process = await asyncio.create_subprocess_exec(
        subscriber, "-p", str(broker.port), "-V", "5", "-q", "1", "-t", "pondwatch/#", "-C", "3",
        "-F", "%t|%q|%C|%P|%p", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await asyncio.sleep(0.3)
    (batch,) = await spool.commit([draft(1)])
    async with running(make(table(broker.port), spool)):
        await until(lambda: durable(spool, 1), "settled")
        (alarm,) = await spool.commit([draft(2, "alarms")])
        async with asyncio.timeout(5):
            out, _ = await process.communicate()
    status, readings, alarms = out.splitlines()
    assert status.startswith(b'pondwatch/1/site/gw1/status|1|application/json||{"v":1,"state":"online"')
    assert readings == b"pondwatch/1/site/gw1/readings|1|application/json|backfill:true|" + batch.payload
    assert alarms == b"pondwatch/1/site/gw1/alarms|1|application/json||" + alarm.payload


async def test_a_name_and_its_password_file_are_used(tmp_path: Path, spool: Spool) -> None:
    passwd = shutil.which("mosquitto_passwd")
    if passwd is None:
        pytest.skip("mosquitto_passwd is not installed: apt-get install mosquitto")
    known = tmp_path / "known"
    process = await asyncio.create_subprocess_exec(passwd, "-b", "-c", str(known), "gw1", "secret word")
    assert await process.wait() == 0
    broker = Broker(tmp_path / "broker", f"allow_anonymous false\npassword_file {known}\n")
    await broker.start()
    (tmp_path / "password").write_text("wrong\n")
    uplink = make(table(broker.port, username="gw1", password_file=str(tmp_path / "password")), spool)
    async with running(uplink):
        await asyncio.sleep(0.3)
        assert not uplink.connected
        assert "Not authorized" in uplink._trouble
        (tmp_path / "password").write_text("secret word\n")  # read anew at each attempt
        await until(lambda: uplink.connected, "connected")
    await broker.stop()


# -- TLS --------------------------------------------------------------------------------------------


def certificate(
    name: str,
    folder: Path,
    issuer: str | None = None,
    *,
    server: bool = False,
    lasting: dt.timedelta = dt.timedelta(hours=1),
) -> None:
    """`<name>.pem` and `<name>.key` in `folder`, signed by `issuer` or by itself as an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + lasting)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if server:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
    signer, issuer_name = key, subject
    if issuer is not None:
        loaded = serialization.load_pem_private_key((folder / f"{issuer}.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
        issuer_name = x509.load_pem_x509_certificate((folder / f"{issuer}.pem").read_bytes()).subject
    signed = builder.issuer_name(issuer_name).sign(signer, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest.fixture
async def tls_broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """Asks for a client certificate, and lets a gateway write under its own name only."""
    for args in [
        ("ca", None),
        ("server", "ca"),
        ("gw1", "ca"),
        ("stranger-ca", None),
        ("stranger", "stranger-ca"),
    ]:
        certificate(args[0], tmp_path, args[1], server=args[0] == "server")
    acl = tmp_path / "acl"
    acl.write_text("pattern readwrite pondwatch/1/site/%u/#\n")
    acl.chmod(0o600)
    listener = (
        f"cafile {tmp_path}/ca.pem\ncertfile {tmp_path}/server.pem\nkeyfile {tmp_path}/server.key\n"
        "require_certificate true\nuse_identity_as_username true\n"
    )
    broker = Broker(tmp_path / "broker", f"allow_anonymous false\nacl_file {acl}\n", listener)
    await broker.start()
    yield broker
    await broker.stop()


def tls_table(port: int, folder: Path, ca: str = "ca", own: str = "gw1") -> UplinkTable:
    files = {"certificate": str(folder / f"{own}.pem"), "key": str(folder / f"{own}.key")} if own else {}
    return table(port, "receipt", "mqtts", ca=str(folder / f"{ca}.pem") if ca else "", **files)


async def test_tls_with_our_certificate_delivers_under_our_name(
    tmp_path: Path, tls_broker: Broker, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    uplink = make(tls_table(tls_broker.port, tmp_path), spool)
    await spool.commit([draft(n) for n in range(100)])
    async with running(uplink):
        await until(lambda: uplink.counters.rejected >= 18, "all reached the broker")
        assert "No matching subscribers" in caplog.text  # the only reason: nobody listens there
        assert "Not authorized" not in caplog.text


@pytest.mark.parametrize(
    ("ca", "own", "why"),
    [
        ("stranger-ca", "gw1", "certificate verify failed"),
        ("", "gw1", "certificate verify failed"),
        ("ca", "stranger", "closed before CONNACK"),
        ("ca", "", "closed before CONNACK"),
        ("ca", "missing", "certificate files"),
        ("missing", "gw1", "missing.pem"),
    ],
    ids=[
        "strange broker",
        "authority unknown",
        "strange client",
        "no client certificate",
        "no file",
        "no ca file",
    ],
)
@pytest.mark.filterwarnings(  # paho drops the socket of a failed handshake for the collector to close
    "ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning", "ignore:unclosed:ResourceWarning"
)
async def test_tls_that_cannot_be_trusted_is_no_connection_and_says_why(
    tmp_path: Path, tls_broker: Broker, spool: Spool, ca: str, own: str, why: str
) -> None:
    uplink = make(tls_table(tls_broker.port, tmp_path, ca, own), spool)
    await spool.commit([draft(1)])
    async with running(uplink):
        await until(lambda: bool(uplink._trouble), "it says what is wrong")
        assert not uplink.connected
    assert why in uplink._trouble
    assert uplink.counters.sent == 0


@pytest.mark.parametrize("answer", ["CONNACK", "closed"])
async def test_a_cancellation_in_the_same_turn_as_the_brokers_answer_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connecting(client: aiomqtt.Client) -> aiomqtt.Client:
        await asyncio.wait_for(answered, 10)  # as aiomqtt waits
        return client

    monkeypatch.setattr(aiomqtt.Client, "__aenter__", connecting)

    async def stay() -> None:
        async with AckClient("127.0.0.1", 1, on_message=lambda _, __: None, on_lost=lambda: None):
            await asyncio.sleep(3600)

    task = asyncio.create_task(stay())
    await asyncio.sleep(0.01)
    if answer == "CONNACK":
        answered.set_result(None)
    else:
        answered.set_exception(aiomqtt.MqttError("closed before CONNACK"))
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
