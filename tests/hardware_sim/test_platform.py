"""The platform as a gateway meets it, over MQTT."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiomqtt
import pytest

from hardware_sim import mqtt
from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver
from tests.hardware_sim.test_broker import CONNECT, client
from tests.hardware_sim.test_receiver import STREAM, chain, topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def gateway(platform: Platform) -> AsyncIterator[aiomqtt.Client]:
    async with client(platform._broker, "gw1") as connected:
        await connected.subscribe(topic("receipts"), qos=1)
        yield connected


async def settled(of: aiomqtt.Client, length: int) -> list[list[int]]:
    """Ranges receipted until `length` seqs are covered."""
    ranges: list[list[int]] = []
    async with asyncio.timeout(3):
        async for message in of.messages:
            receipt = json.loads(message.payload)
            assert (receipt["v"], receipt["stream"]) == (1, STREAM)
            ranges += receipt["settled"]
            if sum(b - a + 1 for a, b in ranges) >= length:
                break
    return ranges


async def test_what_is_stored_is_receipted() -> None:
    async with Platform(Receiver()) as platform, gateway(platform) as up:
        for where, batch in chain(20):
            await up.publish(where, batch, qos=1)
        covered = {n for a, b in await settled(up, 20) for n in range(a, b + 1)}
        assert covered == set(range(1, 21))
        assert platform.receiver.summary().chain_breaks == 0


async def test_receipts_kept_back_come_when_they_are_let_go() -> None:
    async with Platform(Receiver()) as platform, gateway(platform) as up:
        platform.receipts = False
        for where, batch in chain(3):
            await up.publish(where, batch, qos=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(aiter(up.messages))
        platform.receipts = True
        assert await settled(up, 3) == [[1, 3]]


@pytest.mark.parametrize("code", [0x87, 0x97])
async def test_what_is_refused_is_neither_stored_nor_receipted(code: int) -> None:
    async with Platform(Receiver()) as platform:
        platform.refuse = code
        reader, writer = await asyncio.open_connection(*platform.address.split(":"))
        writer.write(CONNECT)
        head = await asyncio.wait_for(reader.readexactly(2), 2)
        await reader.readexactly(head[1])
        [(where, batch)] = chain(1)
        writer.write(mqtt.publish(mqtt.Publish(where, batch, 1, packet_id=1)))
        assert await asyncio.wait_for(reader.readexactly(5), 2) == mqtt.puback(1, code)
        assert platform.receiver.summary().received == 0
        platform.refuse = 0
        writer.write(mqtt.publish(mqtt.Publish(where, batch, 1, packet_id=1)))
        assert await asyncio.wait_for(reader.readexactly(4), 2) == mqtt.puback(1, 0)
        writer.close()
        await writer.wait_closed()


async def test_it_can_take_and_never_acknowledge() -> None:
    async with Platform(Receiver()) as platform, gateway(platform) as up:
        platform.acks = False
        [(where, batch)] = chain(1)
        with pytest.raises(aiomqtt.MqttError, match="timed out"):
            await up.publish(where, batch, qos=1, timeout=0.2)
        assert platform.receiver.summary().received == 1


async def test_it_goes_away_and_comes_back_on_the_same_address_knowing_what_it_had() -> None:
    async with Platform(Receiver()) as platform:
        address = platform.address
        batches = chain(4)
        async with gateway(platform) as up:
            for where, batch in batches[:2]:
                await up.publish(where, batch, qos=1)
            platform.go_away(0.3)
            gone = not platform.here
            assert gone
            with pytest.raises(aiomqtt.MqttError):
                await settled(up, 3)  # more than was sent: it ends with the connection
        with pytest.raises(aiomqtt.MqttError):
            async with gateway(platform):
                pass
        while not platform.here:
            await asyncio.sleep(0.01)
        assert platform.address == address
        async with gateway(platform) as up:
            for where, batch in batches:  # the gateway does not know what arrived: all of it again
                await up.publish(where, batch, qos=1)
            assert {n for a, b in await settled(up, 4) for n in range(a, b + 1)} == {1, 2, 3, 4}
        summary = platform.receiver.summary()
        assert (summary.received, summary.repeats, summary.forks, summary.holes) == (4, 2, 0, 0)
