"""A Sparkplug B 3.0 edge node over MQTT v5; what it says is made in `sparkplug_node.py`.

Data go at QoS 0, as the specification wants it, so nothing acknowledges them. What settles here is less than
a receipt and is said in docs/uplinks.md: the broker has answered a SUBSCRIBE that was sent behind them on the
same connection, and the primary host, where one is named, was online before and after.

The sequence number, the time of sending and whether a value is historical are put in when it leaves.
Historical is what was measured before this connection's birth, or is older than what this connection has sent
of the same metric.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Final, Never

import aiomqtt
import msgspec
from google.protobuf.message import DecodeError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from daemon.uplink import broker
from daemon.uplink.dialect import Refused
from daemon.uplink.sparkplug_node import ALARM_ALIAS, REBIRTH, Node
from daemon.uplink.sparkplug_payload import Metric, Payload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from daemon.clock import Clock
    from daemon.config import ChannelTable
    from daemon.uplink.ack_client import AckClient
    from daemon.uplink.dialect import Link, Parcel, Told
    from daemon.uplink.tables import SparkplugTable
    from daemon.uplink.tls import Times

log = logging.getLogger(__name__)

REBIRTH_EVERY_S = 5.0  # so often at most, however often somebody asks
_NOT_THE_RETAINED: Final = 2  # MQTT 5.0, 3.8.3.1: a command that was kept for us is none


class HostState(msgspec.Struct):
    """What a host application publishes of itself, chapter 5.15."""

    online: bool
    timestamp: int


class Sparkplug:
    """The dialect."""

    says_mode: ClassVar[bool] = False

    def __init__(
        self,
        table: SparkplugTable,
        channels: Iterable[ChannelTable],
        client_id: str,
        clock: Clock,
        times: Times,
    ) -> None:
        self.where = table.url
        self._table = table
        self.node = Node(table.group, table.node, channels)
        self._client_id = client_id
        self._clock = clock
        self._times = times
        self._bd_seq = int(clock.wall_ns() // 1_000_000_000) % 256  # hardly that of the process before us
        self._waited = False

    def encode(self, told: Sequence[Told]) -> Sequence[Parcel]:
        return self.node.encode(told)

    def death(self) -> bytes:
        return self.node.death(self._bd_seq, self._now_ms())

    def births(self, latest: Mapping[int, Any], now_ms: int) -> list[tuple[str, Any]]:
        return self.node.births(self._bd_seq, latest, now_ms)

    # -- one connection ------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Connect with our death as last will, wait for the primary host, and be born.

        Raises:
            OSError: it cannot be had, or is lost.
        """
        self._bd_seq = (self._bd_seq + 1) % 256
        link = _SparkplugLink(self, self._table, self._clock)
        try:
            async with await self._client(link) as client:
                try:
                    link.client = client
                    await self._listen(client)
                    await self._host(link)
                    link.be_born()
                    yield link
                except asyncio.CancelledError:
                    self._say_farewell(client)
                    raise
        except aiomqtt.MqttError as error:
            raise ConnectionError(str(error)) from None

    def _say_farewell(self, client: AckClient) -> None:
        """A DISCONNECT takes the will with it, so we say ourselves that we die."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
        with suppress(aiomqtt.MqttError):  # lost already: the will speaks for us
            client.send(self.node.topic("NDEATH"), self.death(), properties, lambda _: None)

    async def _client(self, link: _SparkplugLink) -> AckClient:
        return await broker.client(
            self._table,
            self._times,
            self._client_id,
            on_message=link.hear,
            on_lost=link.wake,
            will=aiomqtt.Will(self.node.topic("NDEATH"), self.death(), qos=1, retain=False),
        )

    async def _listen(self, client: AckClient) -> None:
        if self._table.primary_host:
            (code,) = await client.subscribe(f"spBv1.0/STATE/{self._table.primary_host}", qos=1)
            if getattr(code, "is_failure", False):
                raise ConnectionError(f"may not read the state of {self._table.primary_host}: {code}")
        await barrier(client, self.node.topic("NCMD"))

    async def _host(self, link: _SparkplugLink) -> None:
        """Wait until the primary host is there; for one that nobody named there is no waiting."""
        while self._table.primary_host and not link.host_online:
            if not self._waited:
                log.warning(
                    "uplink %s: waits for the primary host %s", self._table.id, self._table.primary_host
                )
                self._waited = True
            await link.news()
        self._waited = False

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000


class _SparkplugLink:
    def __init__(self, dialect: Sparkplug, table: SparkplugTable, clock: Clock) -> None:
        self.client: AckClient | None = None
        self.host_online = False
        self._dialect = dialect
        self._table = table
        self._clock = clock
        self._host_ms = -1
        self._host_left = False  # since our birth, though it may be back already
        self._seq = 0
        self._born_ms = self._born_mono_ns = 0
        self._latest: dict[int, Any] = {}  # by alias: the newest of this connection
        self._asked_to_be_born = False
        self._next_birth_s = -inf
        self._news = asyncio.Event()

    # -- what we hear --------------------------------------------------------------------------------

    def wake(self) -> None:
        self._news.set()

    def hear(self, topic: str, payload: bytes) -> None:
        """A command or the state of a host; nonsense changes nothing."""
        try:
            if topic == self._dialect.node.topic("NCMD"):
                self._command(payload)
            else:
                state = msgspec.json.decode(payload, type=HostState)
                if state.timestamp >= self._host_ms:  # an older one is of a connection that has ended
                    self._host_ms, self.host_online = state.timestamp, state.online
                    self._host_left = self._host_left or (self._born_ms > 0 and not state.online)
        except (DecodeError, msgspec.DecodeError) as error:
            log.warning("uplink %s: cannot read what came on %s: %s", self._table.id, topic, error)
        self._news.set()

    def _command(self, payload: bytes) -> None:
        for metric in Payload.FromString(payload).metrics:
            if metric.name == REBIRTH and metric.boolean_value:
                self._asked_to_be_born = True

    async def news(self) -> None:
        """Return when something was heard.

        Raises:
            MqttError: the connection is lost.
        """
        await self._news.wait()
        self._news.clear()
        self._its().check()

    async def watch(self) -> Never:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self.news()
                self._check_host()
                if self._asked_to_be_born and loop.time() >= self._next_birth_s:
                    self.be_born()
                elif self._asked_to_be_born:
                    loop.call_at(self._next_birth_s, self._news.set)
        except aiomqtt.MqttError as error:
            raise ConnectionError(str(error)) from None

    def _check_host(self) -> None:
        if self._table.primary_host and (self._host_left or not self.host_online):
            raise ConnectionError(f"the primary host {self._table.primary_host} has gone offline")

    # -- what we say ---------------------------------------------------------------------------------

    def be_born(self) -> None:
        """All births, with sequence numbers from 0."""
        now_ms = self._clock.wall_ns() // 1_000_000
        if not self._born_ms:
            self._born_ms, self._born_mono_ns = now_ms, self._clock.monotonic_ns()
        self._seq, self._asked_to_be_born = 0, False
        self._next_birth_s = asyncio.get_running_loop().time() + REBIRTH_EVERY_S
        for device, payload in self._dialect.births(self._latest, now_ms):
            self._say("DBIRTH" if device else "NBIRTH", device, payload, now_ms)

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        self._check_host()
        most_bytes = (
            self._its().maximum_packet_bytes
            - broker.PACKET_BYTES
            - 2 * len(self._dialect.node.topic("DDATA"))
        )
        if any(len(parcel.payload) > most_bytes for parcel in parcels):
            raise Refused("it is larger than the broker's maximum packet size", for_good=True)
        now_ms = self._clock.wall_ns() // 1_000_000
        try:
            for device, encoded in parcels:
                payload = Payload.FromString(encoded)
                for metric in payload.metrics:
                    self._place(metric, now_ms)
                self._say("DDATA" if device else "NDATA", device, payload, now_ms)
            await barrier(self._its(), self._dialect.node.topic("NCMD"), timeout_s=inf)
        except aiomqtt.MqttError as error:
            raise ConnectionError(str(error)) from None
        self._check_host()

    def _place(self, metric: Any, now_ms: int) -> None:
        """Tell what is of now from what is historical; what a clock stamped that was ahead counts no more."""
        latest = self._latest.get(metric.alias)
        lives_ms = (self._clock.monotonic_ns() - self._born_mono_ns) // 1_000_000
        before_birth = metric.alias != ALARM_ALIAS and metric.timestamp < min(
            self._born_ms, now_ms - lives_ms
        )  # an alarm of the outage counts
        if before_birth or (latest is not None and metric.timestamp < latest.timestamp <= now_ms):
            metric.is_historical = True
        else:
            kept = Metric()
            kept.CopyFrom(metric)
            self._latest[metric.alias] = kept

    def _say(self, what: str, device: str, payload: Any, now_ms: int) -> None:
        payload.timestamp, payload.seq = now_ms, self._seq
        self._seq = (self._seq + 1) % 256
        self._its().say(self._dialect.node.topic(what, device), payload.SerializeToString())

    def _its(self) -> AckClient:
        assert self.client is not None
        return self.client


async def barrier(client: AckClient, topic: str, timeout_s: float = broker.CONNECT_S) -> None:
    """Subscribe, at first or once more: the answer comes when the broker has read all that was sent before.

    Raises:
        MqttError: no answer.
    """
    options = SubscribeOptions(qos=1, retainHandling=_NOT_THE_RETAINED)
    await client.subscribe(topic, options=options, timeout=timeout_s)
