"""Parcels as MQTT messages: name is the topic, and the PUBACK acknowledges each.

A message that no subscriber matches is not delivered to anybody: the broker says so, and it counts as
refused.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Never, Protocol
from urllib.parse import urlsplit

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from daemon.credentials import first_line
from daemon.uplink.ack_client import AckClient
from daemon.uplink.dialect import Refused
from daemon.uplink.tls import context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from paho.mqtt.reasoncodes import ReasonCode

    from daemon.uplink.dialect import Link, Parcel
    from daemon.uplink.tls import Times

CONNECT_S = 10.0
KEEPALIVE_S = 30
_MOST_HEARD_BYTES = 64 << 10
_PACKET_BYTES = 128  # of a PUBLISH beside topic and payload, with room to spare
_PAYLOAD_INVALID, _PACKET_TOO_LARGE = 0x99, 0x95
_NOBODY_LISTENS = 0x10
PORTS = {"mqtt": 1883, "mqtts": 8883}


class Where(Protocol):
    """What a table says of its broker."""

    @property
    def url(self) -> str: ...
    @property
    def ca(self) -> str: ...
    @property
    def certificate(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def password_file(self) -> str: ...


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
            async with await self._client(link) as client:
                link.client = client
                yield link
        except aiomqtt.MqttError as error:
            raise ConnectionError(str(error)) from None

    async def _client(self, link: _PubAckLink) -> AckClient:
        table = self._table
        url = urlsplit(table.url)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
        properties.MaximumPacketSize = _MOST_HEARD_BYTES
        secured = url.scheme == "mqtts"
        return AckClient(
            url.hostname or "",
            url.port or PORTS[url.scheme],
            on_message=lambda _topic, _payload: None,  # nothing was subscribed to
            on_lost=link.lost,
            identifier=self._client_id,
            username=table.username or None,
            password=await asyncio.to_thread(first_line, table.password_file),
            tls_context=await asyncio.to_thread(context, table, self._times) if secured else None,
            timeout=CONNECT_S,
            keepalive=KEEPALIVE_S,
            clean_start=True,
            properties=properties,
        )


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
                if code.is_failure or code.value == _NOBODY_LISTENS:
                    raise Refused(str(code), for_good=code.value in (_PAYLOAD_INVALID, _PACKET_TOO_LARGE))

    async def _published(self, parcels: Sequence[Parcel]) -> list[ReasonCode]:
        client = self._its()
        if any(len(name) + len(load) + _PACKET_BYTES > client.maximum_packet_bytes for name, load in parcels):
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
