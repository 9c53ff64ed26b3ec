"""The uplink over MQTT v5: batches at QoS 1, a status that outlives us, settled by receipt or by PUBACK.

A PUBACK with a failure code is no delivery, nor is one that says nobody subscribes: the broker drops such a
message. Memory is bounded by `SendQueue`; everything else stays in the store. Of the seals only the newest is
kept and sent: it covers all before it. All deadlines here are of the network and run in real time, on the
bench too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from itertools import product
from math import inf
from typing import TYPE_CHECKING, Literal, Never

import aiomqtt
import msgspec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from daemon.ranges import Ranges
from daemon.seal import place
from daemon.spool import Mode
from daemon.uplink import broker
from daemon.uplink.contract import SendQueue
from daemon.uplink.envelope import REQUEST_BYTES
from daemon.uplink.queued import RECONNECT_MOST_S, OtherStream, QueuedUplink
from daemon.uplink.tls import Times, WallClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from paho.mqtt.reasoncodes import ReasonCode

    from daemon.clock import Clock
    from daemon.config import UplinkTable
    from daemon.spool import Batch, Kind, Spool
    from daemon.uplink.ack_client import AckClient

log = logging.getLogger(__name__)

SETTLE_LINGER_S = 0.2  # acknowledgements are gathered for so long before they are made durable
RECEIPT_BYTES = 64 << 10  # a longer receipt is refused, by the broker already
_SESSION_S = 86_400  # so long the broker keeps receipts for us while we are away
_BACKFILL, _REPEAT = ("backfill", "true"), ("repeat", "true")


class Status(msgspec.Struct, frozen=True):
    """What the retained `status` says beside `state`."""

    mode: Mode
    version: str
    boot: str
    stream: str
    config_sha256: str
    started: str  # RFC 3339
    shadow: bool = False  # said where it is so

    def payload(self, state: Literal["online", "stopping", "offline"]) -> bytes:
        its = msgspec.structs.asdict(self)
        if not self.shadow:
            del its["shadow"]
        return msgspec.json.encode({"v": 1, "state": state, **its})


class Receipt(msgspec.Struct):
    """What the platform says is durable there."""

    stream: str
    settled: list[tuple[int, int]]


class MqttUplink(QueuedUplink):
    """One broker.

    Args:
        table: the uplink as the site file has it.
        site: first part of the topics, `pondwatch/1/{site}/{gateway}/{kind}`.
        gateway: second part.
        spool: where the batches are.
        status: sent retained when connected, and left with the broker as last will.
        clock: tells the age of what is unsettled.
        on_rejected: told of each batch that the broker refused.
        on_quarantined: told of seq, kind and reason when a batch is not tried any more.
        times: knows the present where the wall clock does not, for TLS.
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
        on_quarantined: Callable[[int, Kind, str], None] | None = None,
        times: Times | None = None,
        reconnect_most_s: float = RECONNECT_MOST_S,
        random: Random | None = None,
    ) -> None:
        super().__init__(
            table,
            table.url,
            spool,
            clock,
            on_rejected=on_rejected,
            on_quarantined=on_quarantined,
            reconnect_most_s=reconnect_most_s,
            random=random,
        )
        self._table = table
        self._prefix = f"pondwatch/1/{site}/{gateway}/"
        self._client_id = f"pondwatch-{site}-{gateway}-{table.id}"
        self._status = status
        self._on_request: Callable[[bytes], None] | None = None
        self._times = times or WallClock()
        self._seal: bytes | None = None
        self._seal_due = False
        self._some_to_settle = asyncio.Event()
        self._bad_receipts: set[str] = set()
        self._said: set[str] = set()
        encoding = [("encoding", "zstd")] if table.encoding == "zstd" else []
        self._compress = _compressor() if encoding else bytes
        self._plain = _properties()
        marks = {(True, False): [_BACKFILL], (False, True): [_REPEAT], (True, True): [_BACKFILL, _REPEAT]}
        self._marked = {
            how: _properties(*marks.get(how, []), *encoding) for how in product((False, True), (False, True))
        }

    async def run(self) -> Never:
        """Send and settle until cancelled.

        Raises:
            StoreError: in a group; the store failed, nothing else ends it.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_commits(), name=f"uplink {self.id} commits")
            group.create_task(self._make_durable(), name=f"uplink {self.id} settle")
            await self._stay_connected()

    def obey(self, on_request: Callable[[bytes], None]) -> None:
        """Listen to `requests`, from the next connection on; each message there goes to `on_request`."""
        self._on_request = on_request

    def seal(self, payload: bytes) -> None:
        """Send this seal; one that has not left yet is covered by it."""
        self._seal, self._seal_due = payload, True
        self._wake.set()

    # -- connecting ----------------------------------------------------------------------------------

    def _new_queue(self, settled: Ranges) -> SendQueue:
        return SendQueue(
            settled,
            by_receipt=self._table.settle == "receipt",
            window=self._table.window,
            ack_deadline_s=self._table.ack_deadline_s,
            receipt_deadline_s=self._table.receipt_deadline_s,
            drain_bytes_per_s=self._table.drain_bytes_per_s or inf,
        )

    def _stream_changed(self) -> None:
        self._status = msgspec.structs.replace(self._status, stream=self._stream)

    async def _connection(self, queue: SendQueue) -> Never:
        try:
            async with await self._client() as client:
                try:
                    await self._converse(client, queue)
                except asyncio.CancelledError:
                    self._tell(client, "stopping")
                    raise
                finally:
                    self.connected = False
        except aiomqtt.MqttError as error:
            raise ConnectionError(str(error)) from None

    async def _client(self) -> AckClient:
        """A client for one connection; files are read anew, so that a renewed certificate is taken.

        Raises:
            OSError: a file cannot be read, or is no certificate.
        """
        return await broker.client(
            self._table,
            self._times,
            self._client_id,
            on_message=self._heard,
            on_lost=self._wake.set,
            heard_bytes=max(RECEIPT_BYTES, REQUEST_BYTES) + 1024,
            session_s=_SESSION_S if self._table.settle == "receipt" else 0,
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
        await self._listen(client)
        self._tell(client, "online")
        self._up(queue)
        floor = await self._spool.first_seq()
        queue.begin(self._spool.latest, floor, client.receive_maximum)  # the newest of now: commits go on
        self._seal_due = self._seal is not None
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            client.check()
            if self._spool.stream != self._stream:
                raise OtherStream
            if self._seal_due:
                self._send_seal(client)
            if queue.tick(loop.time()):
                raise aiomqtt.MqttError(f"no PUBACK for {self._table.ack_deadline_s:g} s")
            ask = queue.ask()
            if ask is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(queue.next_deadline_s - loop.time(), 3600.0)):
                        await self._wake.wait()
                continue
            batches = await self._spool.peek(ask.after, ask.upto, ask.lane.kinds, ask.limit, ask.max_bytes)
            if batches and place(batches[0].payload)[1] != self._stream:
                raise OtherStream
            for batch in queue.found(ask, batches, loop.time()):
                how = (queue.is_backfill(ask.lane, batch.seq), queue.is_repeat(batch.seq))
                self._publish(client, batch, self._marked[how])

    async def _listen(self, client: AckClient) -> None:
        """Subscribe to what the platform says.

        Raises:
            MqttError: we may not, and without receipts nothing would ever settle.
        """
        if self._table.settle == "receipt":
            (code,) = await client.subscribe(self._prefix + "receipts", qos=1)
            if getattr(code, "is_failure", False):
                raise aiomqtt.MqttError(f"may not read {self._prefix}receipts: {code}")
        if self._on_request is not None:
            (code,) = await client.subscribe(self._prefix + "requests", qos=1)
            if getattr(code, "is_failure", False):
                log.warning("uplink %s: may not read %srequests: %s", self.id, self._prefix, code)

    def _publish(self, client: AckClient, batch: Batch, properties: Properties) -> None:
        topic = self._prefix + batch.kind
        payload = self._compress(batch.payload)
        acked = partial(self._acked, self._stream, batch.seq, batch.kind)
        if len(payload) + len(topic) + broker.PACKET_BYTES > client.maximum_packet_bytes:
            why = "it is larger than the broker's maximum packet size"
            self._held_back(batch.seq, batch.kind, why, batch.kind, for_good=True)
            return
        client.send(topic, payload, properties, acked)

    def _send_seal(self, client: AckClient) -> None:
        """The newest seal; sent again on the next connection, until then only a newer one."""
        assert self._seal is not None
        self._seal_due = False
        client.send(self._prefix + "seals", self._seal, self._plain, self._told("seals"))

    def _tell(self, client: AckClient, state: Literal["online", "stopping"]) -> None:
        """Publish the status; behind it nothing waits."""
        with contextlib.suppress(aiomqtt.MqttError):  # lost already: the will speaks for us
            client.send(
                self._prefix + "status",
                self._status.payload(state),
                self._plain,
                self._told("status"),
                retain=True,
            )

    def _told(self, what: str) -> Callable[[ReasonCode], None]:
        """What is done with the PUBACK of something that is not in the chain: its refusal is said once."""

        def acked(code: ReasonCode) -> None:
            if code.is_failure and what not in self._said:
                self._said.add(what)
                log.warning("uplink %s: the broker refuses our %s: %s", self.id, what, code)

        return acked

    # -- what comes back -----------------------------------------------------------------------------

    def _acked(self, stream: str, seq: int, kind: Kind, code: ReasonCode) -> None:
        self._wake.set()
        if stream != self._stream:
            return
        if broker.is_refusal(code):
            self._held_back(seq, kind, str(code), kind, for_good=broker.is_for_good(code))
            return
        self._taken(kind)
        if self._queue is not None and self._queue.acked(seq, asyncio.get_running_loop().time()):
            self._settled([seq])

    def _heard(self, topic: str, payload: bytes) -> None:
        """A message on one of the two topics we listen to."""
        if topic == self._prefix + "requests":
            if self._on_request is not None:
                self._on_request(payload)
        else:
            self._receipt(payload)

    def _receipt(self, payload: bytes) -> None:
        """A receipt, or nonsense, which changes nothing."""
        assert self._queue is not None
        try:
            if len(payload) > RECEIPT_BYTES:
                raise ValueError(f"{len(payload)} bytes are too long")  # noqa: TRY301 -- one place says what is wrong
            receipt = msgspec.json.decode(payload, type=Receipt)
            ranges = Ranges(receipt.settled)
        except (ValueError, msgspec.DecodeError) as error:
            self._refuse_receipt("unreadable", str(error))
            return
        if receipt.stream != self._stream:
            self._refuse_receipt("strange stream", f"{receipt.stream[:40]!r}, ours is {self._stream}")
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
        stream = self._stream
        if not ranges:
            return
        try:
            await self._spool.settle(self.id, ranges, stream=stream)
        except BaseException:  # a failing store, or our own end: `run` may be called again
            if stream == self._stream:
                for pair in ranges:
                    self._to_settle.add(*pair)
                self._some_to_settle.set()
            raise

    # -- saying it once ------------------------------------------------------------------------------

    def _up(self, queue: SendQueue) -> None:
        super()._up(queue)
        self._bad_receipts.clear()
        self._said.clear()


def _compressor() -> Callable[[bytes], bytes]:
    """zstd, loaded only where it is asked for."""
    import zstandard  # noqa: PLC0415 -- it is a megabyte that most gateways need not hold

    return zstandard.ZstdCompressor().compress


def _properties(*user: tuple[str, str], packet: int = PacketTypes.PUBLISH) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]  # paho
    properties.ContentType = "application/json"
    if user:
        properties.UserProperty = list(user)
    return properties
