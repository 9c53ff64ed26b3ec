"""The uplink over MQTT v5: batches at QoS 1, a status that outlives us, settled by receipt or by PUBACK.

A PUBACK with a failure code is no delivery, nor is one that says nobody subscribes: the broker drops such a
message. Memory is bounded by `SendQueue`; everything else stays in the store. All deadlines here are of the
network and run in real time, on the bench too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal, Never
from urllib.parse import urlsplit

import aiomqtt
import msgspec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from daemon.ranges import Ranges
from daemon.spool import Mode
from daemon.uplink.ack_client import AckClient
from daemon.uplink.contract import Counters, SendQueue, Unsettled

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.reasoncodes import ReasonCode

    from daemon.clock import Clock
    from daemon.config import UplinkTable
    from daemon.spool import Batch, Kind, Spool
    from daemon.uplink.contract import Lane

log = logging.getLogger(__name__)

RECONNECT_BASE_S, RECONNECT_MOST_S = 0.5, 30.0
STEADY_S = 10.0  # a connection that lasted so long was a good one: the next pause is short again
SETTLE_LINGER_S = 0.2  # acknowledgements are gathered for so long before they are made durable
CONNECT_S = 10.0  # for CONNACK and SUBACK
KEEPALIVE_S = 30
RECEIPT_BYTES = 64 << 10  # a longer receipt is refused, by the broker already
_NOBODY_LISTENS = 0x10  # "no matching subscribers": accepted, and dropped; MQTT 5.0, 3.4.2.1
_SESSION_S = 86_400  # so long the broker keeps receipts for us while we are away
_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Status(msgspec.Struct, frozen=True):
    """What the retained `status` says beside `state`."""

    mode: Mode
    version: str
    boot: str
    stream: str
    config_sha256: str
    started: str  # RFC 3339

    def payload(self, state: Literal["online", "stopping", "offline"]) -> bytes:
        return msgspec.json.encode({"v": 1, "state": state, **msgspec.structs.asdict(self)})


class Receipt(msgspec.Struct):
    """What the platform says is durable there."""

    stream: str
    settled: list[tuple[int, int]]


class MqttUplink:
    """One broker.

    Args:
        table: the uplink as the site file has it.
        site: first part of the topics, `pondwatch/1/{site}/{gateway}/{kind}`.
        gateway: second part.
        spool: where the batches are.
        status: sent retained when connected, and left with the broker as last will.
        clock: tells the age of what is unsettled.
        on_rejected: told of each batch that the broker refused.
        reconnect_most_s: longest pause between two attempts; shorter on the bench.
        random: jitter.
    """

    def __init__(
        self,
        table: UplinkTable,
        site: str,
        gateway: str,
        spool: Spool,
        status: Status,
        clock: Clock,
        *,
        on_rejected: Callable[[], None] | None = None,
        reconnect_most_s: float = RECONNECT_MOST_S,
        random: Random | None = None,
    ) -> None:
        self.id = table.id
        self.connected = False
        self._table = table
        self._prefix = f"pondwatch/1/{site}/{gateway}/"
        self._client_id = f"pondwatch-{site}-{gateway}-{table.id}"
        self._spool = spool
        self._status = status
        self._clock = clock
        self._on_rejected = on_rejected
        self._reconnect_most_s = reconnect_most_s
        self._random = random or Random()  # noqa: S311 -- jitter
        self._queue: SendQueue | None = None
        self._wake = asyncio.Event()
        self._to_settle = Ranges()  # acknowledged, not yet durable; as bounded as the queue's own ranges
        self._some_to_settle = asyncio.Event()
        self._refusals: dict[Kind, int] = {}
        self._trouble = ""
        self._bad_receipts: set[str] = set()
        self._plain = _properties()
        self._backfill = _properties(("backfill", "true"))

    @property
    def counters(self) -> Counters:
        """What was sent, acknowledged, rejected and settled since the start."""
        return self._queue.counters if self._queue is not None else Counters()

    async def unsettled(self) -> Unsettled:
        """What is committed and not yet settled here, connected or not."""
        settled = self._queue.settled if self._queue is not None else await self._spool.settled(self.id)
        first, last = await self._spool.first_seq(), self._spool.last_seq
        batches = max(0, last - first + 1) - settled.count(first, last)
        if batches <= 0:
            return Unsettled(0, 0.0)
        oldest_ns = await self._spool.time_of(settled.missing_after(first - 1))
        now_ns = self._clock.wall_ns()
        return Unsettled(batches, max(0.0, (now_ns - (oldest_ns or now_ns)) / 1e9))

    async def run(self) -> Never:
        """Send and settle until cancelled.

        Raises:
            StoreError: in a group; the store failed, nothing else ends it.
        """
        if self._queue is None:
            self._queue = SendQueue(
                await self._spool.settled(self.id),
                by_receipt=self._table.settle == "receipt",
                window=self._table.window,
                ack_deadline_s=self._table.ack_deadline_s,
                receipt_deadline_s=self._table.receipt_deadline_s,
            )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_commits(self._queue), name=f"uplink {self.id} commits")
            group.create_task(self._make_durable(), name=f"uplink {self.id} settle")
            await self._stay_connected(self._queue)

    # -- connecting ----------------------------------------------------------------------------------

    async def _stay_connected(self, queue: SendQueue) -> Never:
        loop = asyncio.get_running_loop()
        attempt = -1
        while True:
            began_s = loop.time()
            try:
                async with await self._client() as client:
                    try:
                        await self._converse(client, queue)
                    except asyncio.CancelledError:
                        self._tell(client, "stopping")
                        raise
                    finally:
                        self.connected = False
            except (aiomqtt.MqttError, OSError) as error:
                self._log_trouble(str(error))
            attempt = 0 if loop.time() - began_s > STEADY_S else attempt + 1
            # Full jitter: after an outage a hundred gateways do not come back in the same second.
            most_s = min(self._reconnect_most_s, RECONNECT_BASE_S * 2.0 ** min(attempt, 16))
            await asyncio.sleep(self._random.uniform(0.0, most_s))

    async def _client(self) -> AckClient:
        """A client for one connection; files are read anew, so that a renewed certificate is taken.

        Raises:
            OSError: a file cannot be read, or is no certificate.
        """
        table = self._table
        url = urlsplit(table.url)
        by_receipt = table.settle == "receipt"
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
        properties.MaximumPacketSize = RECEIPT_BYTES + 1024
        properties.SessionExpiryInterval = _SESSION_S if by_receipt else 0
        return AckClient(
            url.hostname or "",
            url.port or _PORTS[url.scheme],
            on_message=self._heard,
            on_lost=self._wake.set,
            identifier=self._client_id,
            username=table.username or None,
            password=await asyncio.to_thread(_first_line, table.password_file),
            tls_context=await asyncio.to_thread(_tls, table) if url.scheme == "mqtts" else None,
            timeout=CONNECT_S,
            keepalive=KEEPALIVE_S,
            clean_start=not by_receipt,
            properties=properties,
            will=aiomqtt.Will(
                self._prefix + "status",
                self._status.payload("offline"),
                qos=1,
                retain=True,
                properties=_properties(packet=PacketTypes.WILLMESSAGE),
            ),
        )

    async def _converse(self, client: AckClient, queue: SendQueue) -> Never:
        """Keep the window full until the connection is lost.

        Raises:
            MqttError: it is lost, or was given up because acknowledgements are overdue.
        """
        if self._table.settle == "receipt":
            (code,) = await client.subscribe(self._prefix + "receipts", qos=1)
            if getattr(code, "is_failure", False):
                raise aiomqtt.MqttError(f"may not read {self._prefix}receipts: {code}")
        self._tell(client, "online")
        self._up(queue)
        queue.begin(self._spool.latest, await self._spool.first_seq(), client.receive_maximum)
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            client.check()
            if queue.tick(loop.time()):
                raise aiomqtt.MqttError(f"no PUBACK for {self._table.ack_deadline_s:g} s")
            ask = queue.ask()
            if ask is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(queue.next_deadline_s - loop.time(), 3600.0)):
                        await self._wake.wait()
                continue
            batches = await self._spool.peek(ask.after, ask.upto, (ask.lane.kind,), ask.limit, ask.max_bytes)
            for batch in queue.found(ask, batches, loop.time()):
                self._publish(client, batch, ask.lane)

    def _publish(self, client: AckClient, batch: Batch, lane: Lane) -> None:
        topic = self._prefix + batch.kind
        if len(batch.payload) + len(topic) + 64 > client.maximum_packet_bytes:
            self._refused(batch.seq, batch.kind, "it is larger than the broker's maximum packet size")
            return
        properties = self._backfill if lane.backfill else self._plain
        client.send(topic, batch.payload, properties, partial(self._acked, batch.seq, batch.kind))

    def _tell(self, client: AckClient, state: Literal["online", "stopping"]) -> None:
        """Publish the status; behind it nothing waits."""

        def acked(code: ReasonCode) -> None:
            if code.is_failure:
                log.warning("uplink %s: the broker refuses our status: %s", self.id, code)

        with contextlib.suppress(aiomqtt.MqttError):  # lost already: the will speaks for us
            client.send(self._prefix + "status", self._status.payload(state), self._plain, acked, retain=True)

    # -- what comes back -----------------------------------------------------------------------------

    def _acked(self, seq: int, kind: Kind, code: ReasonCode) -> None:
        self._wake.set()
        if code.is_failure or code.value == _NOBODY_LISTENS:
            self._refused(seq, kind, str(code))
            return
        if refusals := self._refusals.pop(kind, 0):
            log.warning("uplink %s takes %s again, %d were refused", self.id, kind, refusals)
        if self._queue is not None and self._queue.acked(seq, asyncio.get_running_loop().time()):
            self._settled([seq])

    def _refused(self, seq: int, kind: Kind, why: str) -> None:
        """A refused batch stays ours; it is tried again later and stands in nobody's way."""
        assert self._queue is not None
        pause_s = self._queue.refused(seq, asyncio.get_running_loop().time())
        if self._on_rejected is not None:
            self._on_rejected()
        if kind not in self._refusals:
            text = "uplink %s refuses batch %d (%s): %s; it is kept and tried again in %.0f s"
            log.warning(text, self.id, seq, kind, why, pause_s)
        self._refusals[kind] = self._refusals.get(kind, 0) + 1

    def _heard(self, payload: bytes) -> None:
        """A message on the one topic we listen to: a receipt, or nonsense, which changes nothing."""
        assert self._queue is not None
        try:
            if len(payload) > RECEIPT_BYTES:
                raise ValueError(f"{len(payload)} bytes are too long")  # noqa: TRY301 -- one place says what is wrong
            receipt = msgspec.json.decode(payload, type=Receipt)
            ranges = Ranges(receipt.settled)
        except (ValueError, msgspec.DecodeError) as error:
            self._refuse_receipt("unreadable", str(error))
            return
        if receipt.stream != self._spool.stream:
            self._refuse_receipt("strange stream", f"{receipt.stream[:40]!r}, ours is {self._spool.stream}")
            return
        newly, strange = self._queue.receipt(ranges)
        if strange:
            self._refuse_receipt("batches never sent", "they stay unsettled, the others count")
        if newly:
            self._settled(newly)
            self._wake.set()

    def _refuse_receipt(self, mistake: str, detail: str) -> None:
        """One line for each kind of mistake and connection; the counter has the rest."""
        self.counters.receipts_refused += 1
        if mistake not in self._bad_receipts:
            self._bad_receipts.add(mistake)
            log.warning("uplink %s refuses a receipt: %s: %s", self.id, mistake, detail)

    # -- settling ------------------------------------------------------------------------------------

    def _settled(self, seqs: list[int]) -> None:
        for seq in seqs:
            self._to_settle.add(seq)
        self._some_to_settle.set()

    async def _make_durable(self) -> Never:
        """What is settled reaches the store a few times a second; what a crash forgets is sent again."""
        try:
            while True:
                await self._some_to_settle.wait()
                await asyncio.sleep(SETTLE_LINGER_S)
                await self._flush()
        finally:
            await self._flush()

    async def _flush(self) -> None:
        self._some_to_settle.clear()
        ranges, self._to_settle = self._to_settle, Ranges()
        if not ranges:
            return
        try:
            await self._spool.settle(self.id, ranges)
        except BaseException:  # a failing store, or our own end: `run` may be called again
            for pair in ranges:
                self._to_settle.add(*pair)
            self._some_to_settle.set()
            raise

    async def _watch_commits(self, queue: SendQueue) -> Never:
        news = self._spool.subscribe()
        while True:
            await news.wait()
            queue.committed(self._spool.latest)
            self._wake.set()

    # -- saying it once ------------------------------------------------------------------------------

    def _up(self, queue: SendQueue) -> None:
        self.connected = True
        queue.counters.connections += 1
        log.info("uplink %s connected to %s", self.id, self._table.url)
        self._trouble = ""
        self._bad_receipts.clear()

    def _log_trouble(self, why: str) -> None:
        if why != self._trouble:
            self._trouble = why
            log.warning("uplink %s: %s; it goes on trying", self.id, why)


def _properties(*user: tuple[str, str], packet: int = PacketTypes.PUBLISH) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]  # paho
    properties.ContentType = "application/json"
    if user:
        properties.UserProperty = list(user)
    return properties


def _first_line(path: str) -> str | None:
    return Path(path).read_text().partition("\n")[0] if path else None


def _tls(table: UplinkTable) -> ssl.SSLContext:
    """TLS 1.2 or newer, the peer always verified, our certificate shown if there is one."""
    try:
        context = ssl.create_default_context(cafile=table.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if table.certificate:
            context.load_cert_chain(table.certificate, table.key or None)
    except OSError as error:  # it does not say which file
        files = ", ".join(filter(None, (table.ca, table.certificate, table.key)))
        raise OSError(f"certificate files ({files or 'of the system'}): {error}") from error
    return context
