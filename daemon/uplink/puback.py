"""Parcels as MQTT messages: name is the topic, and the PUBACK acknowledges each.

A message that no subscriber matches is not delivered to anybody: the broker says so, and it counts as
refused.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Never

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from daemon.uplink import broker
from daemon.uplink.dialect import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from paho.mqtt.reasoncodes import ReasonCode

    from daemon.uplink.ack_client import AckClient
    from daemon.uplink.broker import Where
    from daemon.uplink.dialect import Link, Parcel
    from daemon.uplink.tls import Times


class PubAck:
    """The way to one broker."""

    def __init__(self, table: Where, client_id: str, times: Times) -> None:
        self._table = table
        self._client_id = client_id
        self._times = times

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        link = _PubAckLink()
        try:
            async with await broker.client(
                self._table,
                self._times,
                self._client_id,
                on_message=lambda _topic, _payload: None,  # nothing was subscribed to
                on_lost=link.lost,
            ) as client:
                link.client = client
                yield link
        except aiomqtt.MqttError as error:
            raise ConnectionError(str(error)) from None


class _PubAckLink:
    def __init__(self) -> None:
        self.client: AckClient | None = None
        self._gone = asyncio.Event()
        self._waiting: set[asyncio.Future[Any]] = set()

    def lost(self) -> None:
        self._gone.set()
        for each in self._waiting:
            if not each.done():
                each.set_exception(ConnectionResetError("the connection is lost"))

    async def watch(self) -> Never:
        while True:
            await self._gone.wait()
            try:
                self._its().check()
            except aiomqtt.MqttError as error:
                raise ConnectionError(str(error)) from None
            raise ConnectionError("the connection is lost")

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        at_once = self._its().receive_maximum
        for first in range(0, len(parcels), at_once):
            try:
                codes = await self._published(parcels[first : first + at_once])
            except aiomqtt.MqttError as error:
                raise ConnectionError(str(error)) from None
            for code in codes:
                if broker.is_refusal(code):
                    raise Refused(str(code), for_good=broker.is_for_good(code))

    async def _published(self, parcels: Sequence[Parcel]) -> list[ReasonCode]:
        client = self._its()
        if any(
            len(name) + len(load) + broker.PACKET_BYTES > client.maximum_packet_bytes
            for name, load in parcels
        ):
            raise Refused("it is larger than the broker's maximum packet size", for_good=True)
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[ReasonCode]] = [loop.create_future() for _ in parcels]
        self._waiting = set(futures)
        try:
            for parcel, future in zip(parcels, futures, strict=True):
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
                client.send(parcel.name, parcel.payload, properties, _into(future))
            return await asyncio.gather(*futures)
        finally:
            self._waiting = set()
            for future in futures:
                future.cancel()

    def _its(self) -> AckClient:
        assert self.client is not None
        return self.client


def _into(future: asyncio.Future[ReasonCode]) -> Any:
    def acked(code: ReasonCode) -> None:
        if not future.done():
            future.set_result(code)

    return acked
