"""The broker before clients nobody here wrote: aiomqtt (paho) and mosquitto's own tools, all at version 5."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiomqtt
import pytest

from hardware_sim import mqtt
from hardware_sim.broker import Broker
from hardware_sim.mqtt import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

CONNECT = bytes.fromhex("10 0E 00 04 4D 51 54 54 05 02 00 01 00 00 01 61")  # client "a", keep alive 1 s


@asynccontextmanager
async def listening(
    on_publish: Callable[[str, mqtt.Publish], int | None] | None = None, **options: Any
) -> AsyncIterator[Broker]:
    broker = Broker(on_publish, **options)
    await broker.start()
    try:
        yield broker
    finally:
        broker.stop()
        await asyncio.sleep(0)


def client(broker: Broker, identifier: str, **options: Any) -> aiomqtt.Client:
    host, port = broker.address.split(":")
    return aiomqtt.Client(
        host, int(port), identifier=identifier, protocol=aiomqtt.ProtocolVersion.V5, timeout=3, **options
    )


async def first(of: aiomqtt.Client) -> aiomqtt.Message:
    return await asyncio.wait_for(anext(aiter(of.messages)), 3)


async def test_a_message_goes_to_those_who_subscribed_at_the_lower_qos() -> None:
    async with listening() as broker, client(broker, "up") as up, client(broker, "down") as down:
        await down.subscribe("pondwatch/+/a/#", qos=1)
        await up.publish("pondwatch/1/b/x", b"not for you", qos=1)
        await up.publish("pondwatch/1/a/readings", b"{}", qos=1)
        message = await first(down)
        assert (str(message.topic), message.payload, message.qos) == ("pondwatch/1/a/readings", b"{}", 1)
        await down.unsubscribe("pondwatch/+/a/#")
        await down.subscribe("pondwatch/#", qos=0)
        await up.publish("pondwatch/1/a/readings", b"again", qos=1)
        assert (await first(down)).qos == 0


async def test_properties_travel_with_their_message() -> None:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = "application/json"
    properties.UserProperty = [("backfill", "1"), ("encoding", "zstd")]
    async with listening() as broker, client(broker, "up") as up, client(broker, "down") as down:
        await down.subscribe("#", qos=1)
        await up.publish("a", b"x", qos=1, properties=properties)
        arrived: Any = (await first(down)).properties
        assert arrived.ContentType == "application/json"
        assert arrived.UserProperty == [("backfill", "1"), ("encoding", "zstd")]


async def test_retained_messages_wait_for_those_who_come_later_and_can_be_cleared() -> None:
    async with listening() as broker, client(broker, "up") as up:
        await up.publish("status", b"online", qos=1, retain=True)
        async with client(broker, "late") as late:
            await late.subscribe("status", qos=1)
            message = await first(late)
            assert (message.payload, message.retain) == (b"online", True)
        await up.publish("status", b"", qos=1, retain=True)
        async with client(broker, "later") as later:
            await later.subscribe("#", qos=1)
            await up.publish("sign", b"", qos=1)
            assert str((await first(later)).topic) == "sign"


async def test_a_will_goes_out_when_a_client_vanishes_and_not_when_it_says_goodbye() -> None:
    # Client "w", flags: will at QoS 1, retained; will topic "s", payload "off".
    with_will = bytes.fromhex("10 17 00 04 4D 51 54 54 05 2E 00 00 00 00 01 77 00 00 01 73 00 03 6F 66 66")
    async with listening() as broker, client(broker, "watcher") as watcher, client(broker, "up") as up:
        await watcher.subscribe("#", qos=1)
        for farewell in (bytes.fromhex("E0 00"), b""):
            reader, writer = await asyncio.open_connection(*broker.address.split(":"))
            writer.write(with_will + farewell)
            assert (await asyncio.wait_for(reader.readexactly(1), 2)) == b"\x20"
            if farewell:
                await asyncio.wait_for(reader.read(), 2)
            writer.transport.abort()
            while "w" in broker.sessions:
                await asyncio.sleep(0.001)
            if farewell:
                await up.publish("sign", b"nothing came before this", qos=1)
                assert str((await first(watcher)).topic) == "sign"
        message = await first(watcher)
        assert (str(message.topic), message.payload) == ("s", b"off")


async def test_a_second_client_of_the_same_name_takes_over() -> None:
    async with listening() as broker:
        reader, writer = await asyncio.open_connection(*broker.address.split(":"))
        writer.write(CONNECT)
        assert (await asyncio.wait_for(reader.readexactly(4), 2))[0] == 0x20
        async with client(broker, "a"):
            rest = await asyncio.wait_for(reader.read(), 2)
            assert rest.endswith(mqtt.disconnect(Reason.TAKEN_OVER))
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("reason", [Reason.NOT_AUTHORISED, Reason.QUOTA_EXCEEDED])
async def test_a_refused_message_is_refused_in_its_puback_and_routed_to_nobody(reason: Reason) -> None:
    def refuse(_client: str, message: mqtt.Publish) -> int:
        return reason if message.topic == "bad" else Reason.SUCCESS

    async with listening(refuse) as broker, client(broker, "down") as down:
        await down.subscribe("#", qos=1)
        reader, writer = await asyncio.open_connection(*broker.address.split(":"))
        writer.write(CONNECT)
        connack = await asyncio.wait_for(reader.readexactly(2), 2)
        await reader.readexactly(connack[1])
        writer.write(mqtt.publish(mqtt.Publish("bad", b"x", 1, packet_id=9)))
        assert await asyncio.wait_for(reader.readexactly(5), 2) == mqtt.puback(9, reason)
        writer.write(mqtt.publish(mqtt.Publish("good", b"y", 1, packet_id=9)))
        assert await asyncio.wait_for(reader.readexactly(4), 2) == mqtt.puback(9, 0)
        assert (await first(down)).payload == b"y"
        writer.close()
        await writer.wait_closed()


async def test_more_unacknowledged_messages_than_allowed_end_the_connection() -> None:
    async with listening(lambda _c, _m: None, receive_maximum=3) as broker:
        reader, writer = await asyncio.open_connection(*broker.address.split(":"))
        writer.write(CONNECT)
        for packet_id in range(1, 5):
            writer.write(mqtt.publish(mqtt.Publish("t", b"", 1, packet_id=packet_id)))
        said = await asyncio.wait_for(reader.read(), 2)
        assert bytes.fromhex("21 00 03") in said, "receive maximum is advertised"
        assert said.endswith(mqtt.disconnect(Reason.RECEIVE_MAXIMUM_EXCEEDED))
        writer.close()
        await writer.wait_closed()


async def test_a_silent_client_is_disconnected_after_one_and_a_half_keep_alives() -> None:
    async with listening() as broker:
        reader, writer = await asyncio.open_connection(*broker.address.split(":"))
        writer.write(CONNECT)
        began = asyncio.get_running_loop().time()
        said = await asyncio.wait_for(reader.read(), 3)
        assert said.endswith(mqtt.disconnect(Reason.KEEP_ALIVE_TIMEOUT))
        assert 1.3 < asyncio.get_running_loop().time() - began < 2.5
        writer.close()
        await writer.wait_closed()


async def test_a_slow_reader_never_gets_more_than_its_receive_maximum_at_once() -> None:
    connect = bytes.fromhex("10 11 00 04 4D 51 54 54 05 02 00 00 03 21 00 02 00 01 62")  # receive maximum 2
    async with listening() as broker, client(broker, "up") as up:
        reader, writer = await asyncio.open_connection(*broker.address.split(":"))
        writer.write(connect + bytes.fromhex("82 07 00 01 00 00 01 74 01"))
        while (await asyncio.wait_for(reader.readexactly(1), 2)) != b"\x90":
            await reader.readexactly((await reader.readexactly(1))[0])
        await reader.readexactly((await reader.readexactly(1))[0])
        for n in range(4):
            await up.publish("t", bytes((n,)), qos=1)
        size = len(mqtt.publish(mqtt.Publish("t", b"0", 1, packet_id=1)))
        both = await asyncio.wait_for(reader.readexactly(2 * size), 2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.1)
        writer.write(mqtt.puback(both[5] << 8 | both[6], 0))
        assert (await asyncio.wait_for(reader.readexactly(size), 2))[-1] == 2
        writer.close()
        await writer.wait_closed()


async def test_wrong_credentials_are_refused_and_right_ones_let_in() -> None:
    async with listening(credentials=("gw1", "secret")) as broker:
        async with client(broker, "x", username="gw1", password="secret"):
            pass
        with pytest.raises(aiomqtt.MqttError, match=r"[Bb]ad user name|134"):
            async with client(broker, "x", username="gw1", password="wrong"):
                pass


async def test_it_comes_back_on_its_port_with_what_was_retained() -> None:
    async with listening() as broker:
        address = broker.address
        async with client(broker, "up") as up:
            await up.publish("status", b"online", qos=1, retain=True)
        broker.stop()
        with pytest.raises(aiomqtt.MqttError):
            async with client(broker, "up"):
                pass
        await broker.start()
        assert broker.address == address
        async with client(broker, "down") as down:
            await down.subscribe("status", qos=1)
            assert (await first(down)).payload == b"online"


def self_signed(folder: Path) -> tuple[Path, Path]:
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "bench.crt", folder / "bench.key"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate_path, key_path


async def test_it_speaks_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trust = ssl.create_default_context(cafile=str(certificate))
    async with listening(tls=context) as broker, client(broker, "x", tls_context=trust) as secure:
        await secure.subscribe("a", qos=1)
        await secure.publish("a", b"x", qos=1)
        assert (await first(secure)).payload == b"x"


needs_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None or shutil.which("mosquitto_sub") is None,
    reason="mosquitto_pub and mosquitto_sub are not installed (Debian package mosquitto-clients)",
)


@pytest.mark.peer
@needs_mosquitto
async def test_mosquittos_own_tools_publish_and_subscribe() -> None:
    async with listening() as broker:
        host, port = broker.address.split(":")
        where = ["-h", host, "-p", port, "-V", "mqttv5", "-q", "1"]
        publish = await asyncio.create_subprocess_exec(
            "mosquitto_pub", *where, "-t", "pondwatch/1/s/g/status", "-m", "online", "-r"
        )
        assert await asyncio.wait_for(publish.wait(), 5) == 0
        watch = await asyncio.create_subprocess_exec(
            "mosquitto_sub", *where, "-t", "pondwatch/#", "-v", "-C", "2", stdout=asyncio.subprocess.PIPE
        )
        while not broker.sessions:
            await asyncio.sleep(0.01)
        publish = await asyncio.create_subprocess_exec(
            "mosquitto_pub",
            *where,
            "-t",
            "pondwatch/1/s/g/readings",
            "-m",
            "{}",
            "-D",
            "publish",
            "content-type",
            "json",
        )
        assert await asyncio.wait_for(publish.wait(), 5) == 0
        out, _ = await asyncio.wait_for(watch.communicate(), 5)
        assert sorted(out.decode().splitlines()) == [
            "pondwatch/1/s/g/readings {}",
            "pondwatch/1/s/g/status online",
        ]
        assert watch.returncode == 0
