"""The whole daemon against a real mosquitto: TLS with a client's certificate, access rules, persistence.

The platform here is the bench's receiver behind aiomqtt; it sends a receipt for all that it has stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import ssl
from typing import TYPE_CHECKING, Any

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from hardware_sim.ports import free_port
from hardware_sim.receiver import Receiver
from tests.daemon.test_mqtt_peer import certificate
from tests.system import payloads
from tests.system.running import PATH, Bench, Daemon, Program, demo_site, listens, received, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MOSQUITTO = shutil.which("mosquitto", path=PATH)
SPEED = 120.0
TOPIC = "pondwatch/1/demo/gw1/"
ACL = """
pattern write pondwatch/1/demo/%u/status
pattern write pondwatch/1/demo/%u/readings
pattern write pondwatch/1/demo/%u/alarms
pattern write pondwatch/1/demo/%u/gaps
pattern write pondwatch/1/demo/%u/audit
pattern write pondwatch/1/demo/%u/seals
pattern read pondwatch/1/demo/%u/receipts
user platform
topic read pondwatch/1/#
topic write pondwatch/1/+/+/receipts
"""

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto"),
    pytest.mark.timeout(240),
]


class Mosquitto(Program):
    """A broker of our own; names come from certificates, memory from its file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        for name, issuer in (("ca", None), ("server", "ca"), ("gw1", "ca"), ("platform", "ca")):
            certificate(name, folder, issuer, server=name == "server")
        self.folder = folder
        self.port = free_port()
        (folder / "acl").write_text(ACL)
        (folder / "acl").chmod(0o600)
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\ncafile {folder}/ca.pem\ncertfile {folder}/server.pem\n"
            f"keyfile {folder}/server.key\nrequire_certificate true\nuse_identity_as_username true\n"
            f"allow_anonymous false\nacl_file {folder}/acl\npersistence true\n"
            f"persistence_location {folder}/\nautosave_interval 1\nmax_queued_messages 100000\n"
            + ("user root\n" if os.geteuid() == 0 else "")
        )
        super().__init__([str(MOSQUITTO), "-c", str(config)], folder / "mosquitto.log")

    async def start(self) -> None:
        await super().start()
        await self.ready(lambda: listens(self.port), "mosquitto listens")

    def client(self, identifier: str, session_s: int) -> aiomqtt.Client:
        """The platform's side, by its certificate."""
        tls = ssl.create_default_context(cafile=self.folder / "ca.pem")
        tls.load_cert_chain(self.folder / "platform.pem", self.folder / "platform.key")
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = session_s
        return aiomqtt.Client(
            "127.0.0.1",
            self.port,
            identifier=identifier,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=session_s == 0,
            properties=properties,
            tls_context=tls,
        )


class Platform:
    """Keeps every message, stores what is new, and receipts what is stored."""

    def __init__(self, broker: Mosquitto, path: Path) -> None:
        self.receiver = Receiver(path)
        self.messages: list[aiomqtt.Message] = []
        self.listening = asyncio.Event()
        self._broker = broker
        self._receipt = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        self._receipt.ContentType = "application/json"

    async def run(self) -> None:
        task = asyncio.current_task()
        while task is not None and not task.cancelling():  # aiomqtt may lose a cancellation, see AckClient
            with contextlib.suppress(aiomqtt.MqttError):
                await self._listen()
            await asyncio.sleep(0.05)

    async def _listen(self) -> None:
        async with self._broker.client("platform", session_s=3600) as client:
            await client.subscribe(TOPIC + "#", qos=1)
            self.listening.set()
            async for message in client.messages:
                if kind(message) == "receipts":
                    continue
                self.messages.append(message)
                self.receiver.take(message.topic.value, body(message))
                for topic, payload in self.receiver.receipts():
                    await client.publish(topic, payload, qos=1, properties=self._receipt)

    def states(self) -> list[str]:
        """What the gateway has said of itself, repeats left out."""
        said: list[str] = []
        for message in self.messages:
            if kind(message) == "status":
                status = payloads.read("status", body(message))
                assert isinstance(status, payloads.Status)
                said += [status.state] if said[-1:] != [status.state] else []
        return said

    def whole_up_to(self) -> int:
        """The seq up to which nothing is missing."""
        ((_, last), *_) = next(iter(self.receiver.summary().streams.values()))
        return last

    def alarms(self) -> list[payloads.Alarm]:
        return [alarm for message in self.messages if isinstance(alarm := read(message), payloads.Alarm)]


def kind(message: aiomqtt.Message) -> str:
    return message.topic.value.rpartition("/")[2]


def body(message: aiomqtt.Message) -> bytes:
    assert isinstance(message.payload, bytes)
    return message.payload


def read(message: aiomqtt.Message) -> Any:
    return payloads.read(kind(message), body(message))


def marks(message: aiomqtt.Message) -> list[tuple[str, str]]:
    return list(getattr(message.properties, "UserProperty", []))


@contextlib.asynccontextmanager
async def site_with_broker(folder: Path) -> AsyncIterator[tuple[Mosquitto, Platform, Daemon]]:
    """Broker, platform, bench and a daemon that is not started yet."""
    run = folder / "run"
    async with Mosquitto(folder / "broker") as broker, Bench(run, "storm", SPEED) as bench:
        files = "".join(
            f'\n{key} = "{broker.folder}/{name}"'
            for key, name in (("ca", "ca.pem"), ("certificate", "gw1.pem"), ("key", "gw1.key"))
        )
        site = demo_site(
            run,
            bench,
            (f'"mqtt://{bench.facts["platform"]}"', f'"mqtts://127.0.0.1:{broker.port}"{files}'),
            ('receipt_deadline = "30 s"', 'receipt_deadline = "2 s"'),
            ('start = "child"', 'start = "off"'),
        )
        platform = Platform(broker, folder / "platform.db")
        listening = asyncio.create_task(platform.run(), name="platform")
        try:
            await asyncio.wait_for(platform.listening.wait(), 10)
            daemon = Daemon(site, run, bench.facts["clock"])
            try:
                yield broker, platform, daemon
            finally:
                await daemon.kill()
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
            platform.receiver.close()


async def settled(daemon: Daemon) -> bool:
    _, out = await daemon.verb("spool", "status")
    return "uplink company: 0 batches not settled" in out


async def status_for_a_newcomer(broker: Mosquitto) -> tuple[bool, str]:
    """Whether it was retained, and the state it tells."""
    async with broker.client("newcomer", session_s=0) as client:
        await client.subscribe(TOPIC + "status", qos=1)
        async with asyncio.timeout(10):
            message = await anext(aiter(client.messages))
    return message.retain, read(message).state


async def test_what_arrives_through_mosquitto_is_what_is_documented_and_settles_by_receipt(
    tmp_path: Path,
) -> None:
    async with site_with_broker(tmp_path) as (broker, platform, daemon):
        await daemon.start()
        await until(lambda: platform.receiver.summary().levels.get("yellow"), "a yellow alarm")
        assert await status_for_a_newcomer(broker) == (True, "online")
        worst = (await daemon.ask("alarms.list"))[0]["id"]
        deed = ("alarms", "ack", worst, "--by", "王工", "--role", "值班", "--note", "现场查看")
        assert (await daemon.verb(*deed))[0] == 0
        await until(lambda: any(alarm.by == "王工" for alarm in platform.alarms()), "the acknowledgement")
        await daemon.kill()
        await until(lambda: platform.states() == ["online", "offline"], "the last will")
        assert await status_for_a_newcomer(broker) == (True, "offline")
        await daemon.start()
        await until(lambda: platform.states()[-1] == "online", "the daemon again")
        assert await daemon.stop() == 0
        await until(lambda: platform.states() == ["online", "offline", "online", "stopping"], "its farewell")
        assert await settled(daemon)
        assert received(tmp_path / "platform.db") == daemon.batches()
        summary = platform.receiver.summary()

    assert (summary.malformed, summary.holes, summary.forks, summary.chain_breaks) == (0, 0, 0, 0)
    for message in platform.messages:
        read(message)
        assert message.topic.value == TOPIC + kind(message)
        assert message.qos == 1
        properties: Any = message.properties
        assert properties.ContentType == "application/json"
        assert marks(message) in ([], [("backfill", "true")])
    acknowledged = next(alarm for alarm in platform.alarms() if alarm.by)
    assert (acknowledged.id, acknowledged.response) == (worst, "acknowledged")
    assert (acknowledged.by, acknowledged.role, acknowledged.note) == ("王工", "值班", "现场查看")
    assert {alarm.kind for alarm in platform.alarms()} == {"channel", "item", "pond"}


async def test_mosquitto_stopped_for_ten_seconds_and_killed_loses_nothing(tmp_path: Path) -> None:
    async with site_with_broker(tmp_path) as (broker, platform, daemon):
        await daemon.start()
        await until(lambda: platform.receiver.summary().readings > 100, "readings")
        assert platform.receiver.summary().repeats == 0

        await broker.stop()
        before = await last_seq(daemon)
        await asyncio.sleep(10)  # the outage itself
        after = await last_seq(daemon)
        await broker.start()
        await until(lambda: platform.whole_up_to() > after + 20, "the backlog and what came after it")

        broker.send(signal.SIGKILL)
        await broker.wait()
        await until(lambda: is_away(daemon), "the daemon notices")
        await broker.start()
        await until(lambda: not_away(daemon), "the daemon is back")
        await until(lambda: settled(daemon), "all settled")
        assert await daemon.stop() == 0
        assert await settled(daemon)
        stored = daemon.batches()
        assert received(tmp_path / "platform.db") == stored
        summary = platform.receiver.summary()

    assert (summary.malformed, summary.unverified, summary.forks) == (0, 0, 0)
    assert (summary.holes, summary.chain_breaks) == (0, 0)
    of_the_outage = {
        batch.seq for batch in stored if batch.kind == "readings" and before < batch.seq <= after
    }
    assert len(of_the_outage) > 10
    marked = {read(message).seq for message in platform.messages if marks(message)}
    assert of_the_outage <= marked


async def last_seq(daemon: Daemon) -> int:
    return int((await daemon.ask("status"))["last_seq"])


async def not_away(daemon: Daemon) -> bool:
    return bool((await daemon.ask("status"))["uplinks"]["company"]["connected"])


async def is_away(daemon: Daemon) -> bool:
    return not await not_away(daemon)
