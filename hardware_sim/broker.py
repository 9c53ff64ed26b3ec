"""A small MQTT v5 broker on asyncio: what a receiving platform needs, and what watchers need to look on.

No session outlives its connection. Everything happens in event-loop callbacks. Bounded: clients
(`_MOST_CLIENTS`, more are dropped), packet size, retained topics (`_MOST_RETAINED`, more are refused with
0x97), and per client what waits for it (`_MOST_WAITING`, `_MOST_WAITING_BYTES`: who reads too slowly is
disconnected, 0x97).
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from hardware_sim import mqtt
from hardware_sim.mqtt import Property, Reason, Violation
from hardware_sim.mqtt_decoder import Decoder
from hardware_sim.ports import free_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_MOST_CLIENTS: Final = 64
_MOST_RETAINED: Final = 10_000
_MOST_WAITING: Final = 10_000
_MOST_WAITING_BYTES: Final = 16 * 1024 * 1024
_MAXIMUM_PACKET_BYTES: Final = 4 * 1024 * 1024
_CONNECT_WITHIN_S: Final = 10.0
_FAREWELL_WITHIN_S: Final = 2.0
_FAILURE: Final = 0x80  # reason codes from here on refuse (2.4)


class Broker:
    """Listens, and routes what clients publish.

    Args:
        on_publish: called as `on_publish(client_id, message)` before a message is routed; its answer is the
            PUBACK's reason code, None for no PUBACK at all. What it refuses (0x80 and above) is not routed.
        receive_maximum: QoS 1 messages a client may have unacknowledged; more is a violation (0x93).
        credentials: (username, password) that clients must give.
    """

    def __init__(
        self,
        on_publish: Callable[[str, mqtt.Publish], int | None] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        credentials: tuple[str, str] | None = None,
        receive_maximum: int = 100,
    ) -> None:
        self._on_publish = on_publish
        self._host = host
        self._port = port
        self._tls = tls
        self.credentials = credentials
        self.receive_maximum = receive_maximum
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self.sessions: dict[str, _Connection] = {}
        self._retained: dict[str, mqtt.Publish] = {}

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    @property
    def listening(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        """Listens; on the same port as before after a `stop`.

        Raises:
            OSError: the port is taken.
        """
        loop = asyncio.get_running_loop()
        self._port = self._port or free_port(self._host)
        self._server = await loop.create_server(
            lambda: _Connection(self), self._host, self._port, ssl=self._tls
        )

    def stop(self) -> None:
        """Closes the listener and drops every connection, as a platform does whose power fails."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.drop()

    def admit(self, connection: _Connection) -> bool:
        if len(self._connections) >= _MOST_CLIENTS or not self.listening:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: _Connection, *, gone: bool) -> None:
        """Routes nothing to it any more; `gone` when its socket is closed too."""
        if gone:
            self._connections.discard(connection)
        if self.sessions.get(connection.client_id) is connection:
            del self.sessions[connection.client_id]

    def take(self, sender: _Connection, message: mqtt.Publish) -> int | None:
        """A client's message: asks, keeps, routes; returns the PUBACK's reason code."""
        code = self._on_publish(sender.client_id, message) if self._on_publish else Reason.SUCCESS
        if code is not None and code >= _FAILURE:
            return code
        if message.retain and message.topic not in self._retained and len(self._retained) >= _MOST_RETAINED:
            return Reason.QUOTA_EXCEEDED
        self.publish(message, sender)
        return code

    def publish(self, message: mqtt.Publish, sender: _Connection | None = None) -> None:
        """Routes a message to whoever subscribed."""
        if message.retain and message.payload:
            self._retained[message.topic] = message
        elif message.retain:
            self._retained.pop(message.topic, None)
        for session in list(self.sessions.values()):
            session.offer(message, from_itself=session is sender)

    def retained_for(self, topic_filter: str) -> list[mqtt.Publish]:
        return [m for m in self._retained.values() if mqtt.matches(topic_filter, m.topic)]


class _Connection(asyncio.Protocol):
    """One client, from its connection to its end."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._decoder = Decoder(_MAXIMUM_PACKET_BYTES)
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._heard_s = 0.0
        self._filters: dict[str, mqtt.Filter] = {}
        self._waiting: deque[mqtt.Publish] = deque()
        self._waiting_bytes = 0
        self._unacked: set[int] = set()
        self._unanswered: set[int] = set()  # what the client sent and we never acknowledge
        self._next_id = 1
        self._writable = True
        self._connect: mqtt.Connect | None = None
        self._will: mqtt.Publish | None = None

    @property
    def client_id(self) -> str:
        return self._connect.client_id if self._connect else ""

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._broker.admit(self):
            self._transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(_CONNECT_WITHIN_S, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._cancel_deadline()
        self._broker.forget(self, gone=True)
        self._send_will()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._send_waiting()

    def data_received(self, data: bytes) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        try:
            for packet in self._decoder.feed(data):
                self._take(packet)
        except Violation as violation:
            self._refuse(violation.reason)

    # What packets do

    def _take(self, packet: mqtt.Packet) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if isinstance(packet, mqtt.Connect):
            self._begin(packet)
        elif self._connect is None:
            raise Violation(Reason.PROTOCOL_ERROR, "the first packet is not CONNECT")
        else:
            _PACKETS[type(packet)](self, packet)

    def _begin(self, connect: mqtt.Connect) -> None:
        if self._connect is not None:
            raise Violation(Reason.PROTOCOL_ERROR, "a second CONNECT")
        wanted = self._broker.credentials
        if wanted and (connect.username, connect.password) != (wanted[0], wanted[1].encode()):
            raise Violation(Reason.BAD_CREDENTIALS, "wrong username or password")
        properties: mqtt.Properties = {
            Property.SESSION_EXPIRY: 0,
            Property.RECEIVE_MAXIMUM: self._broker.receive_maximum,
            Property.MAXIMUM_QOS: 1,
            Property.MAXIMUM_PACKET_SIZE: _MAXIMUM_PACKET_BYTES,
            Property.SUBSCRIPTION_IDENTIFIERS_AVAILABLE: 0,
            Property.SHARED_SUBSCRIPTIONS_AVAILABLE: 0,
        }
        if not connect.client_id:
            connect = replace(connect, client_id=f"auto-{id(self):x}")
            properties[Property.ASSIGNED_CLIENT_ID] = connect.client_id
        before = self._broker.sessions.get(connect.client_id)
        if before is not None:
            before.end(Reason.TAKEN_OVER)
        self._connect, self._will = connect, connect.will
        self._broker.sessions[connect.client_id] = self
        self._write(mqtt.connack(Reason.SUCCESS, properties))
        self._watch()

    def _published(self, message: mqtt.Publish) -> None:
        if message.qos and message.packet_id not in self._unanswered:
            if len(self._unanswered) >= self._broker.receive_maximum:
                raise Violation(Reason.RECEIVE_MAXIMUM_EXCEEDED, "more than receive maximum in flight")
            self._unanswered.add(message.packet_id)
        code = self._broker.take(self, message)
        if message.qos and code is not None:
            self._unanswered.discard(message.packet_id)
            self._write(mqtt.puback(message.packet_id, code))

    def _subscribed(self, packet: mqtt.Subscribe) -> None:
        reasons: list[int] = []
        fresh = []
        for wanted in packet.filters:
            if wanted.text.startswith("$share/"):
                reasons.append(Reason.SHARED_UNSUPPORTED)
            elif not mqtt.filter_is_valid(wanted.text):
                reasons.append(Reason.FILTER_INVALID)
            else:
                reasons.append(wanted.qos)
                if wanted.retain_handling == 0 or (
                    wanted.retain_handling == 1 and wanted.text not in self._filters
                ):
                    fresh.append(wanted)
                self._filters[wanted.text] = wanted
        self._write(mqtt.suback(packet.packet_id, reasons))
        for wanted in fresh:
            for message in self._broker.retained_for(wanted.text):
                self._queue(replace(message, qos=min(wanted.qos, message.qos)))

    def _unsubscribed(self, packet: mqtt.Unsubscribe) -> None:
        known = [self._filters.pop(text, None) for text in packet.filters]
        reasons = [int(Reason.SUCCESS if f else Reason.NO_SUBSCRIPTION) for f in known]
        self._write(mqtt.unsuback(packet.packet_id, reasons))

    def _acknowledged(self, packet: mqtt.Puback) -> None:
        self._unacked.discard(packet.packet_id)
        self._send_waiting()

    def _pinged(self, packet: mqtt.Pingreq) -> None:
        del packet
        self._write(mqtt.PINGRESP)

    def _left(self, packet: mqtt.Disconnect) -> None:
        if packet.reason != Reason.DISCONNECT_WITH_WILL:
            self._will = None
        if self._transport is not None:
            self._transport.close()

    # What goes out

    def offer(self, message: mqtt.Publish, *, from_itself: bool) -> None:
        """Queues a routed message if any filter takes it; once, at the highest QoS subscribed."""
        taking = [
            f
            for f in self._filters.values()
            if mqtt.matches(f.text, message.topic) and not (f.no_local and from_itself)
        ]
        if taking:
            qos = min(message.qos, max(f.qos for f in taking))
            retain = message.retain and any(f.retain_as_published for f in taking)
            self._queue(replace(message, qos=qos, retain=retain))

    def _queue(self, message: mqtt.Publish) -> None:
        self._waiting.append(message)
        self._waiting_bytes += len(message.payload)
        self._send_waiting()
        if len(self._waiting) > _MOST_WAITING or self._waiting_bytes > _MOST_WAITING_BYTES:
            self.end(Reason.QUOTA_EXCEEDED)

    def _send_waiting(self) -> None:
        if self._connect is None:
            return
        while self._waiting and self._writable:
            message = self._waiting[0]
            if message.qos and len(self._unacked) >= self._connect.receive_maximum:
                return
            self._waiting.popleft()
            self._waiting_bytes -= len(message.payload)
            if message.qos:
                message = replace(message, packet_id=self._free_id())
                self._unacked.add(message.packet_id)
            data = mqtt.publish(message)
            if len(data) <= self._connect.maximum_packet_bytes:
                self._write(data)
            else:  # it cannot take this one; the standard lets it be dropped (3.1.2.11.4)
                self._unacked.discard(message.packet_id)

    def _free_id(self) -> int:
        while self._next_id in self._unacked:
            self._next_id = self._next_id % 65_535 + 1
        found = self._next_id
        self._next_id = self._next_id % 65_535 + 1
        return found

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # How it ends

    def _watch(self) -> None:
        """Ends a client that is silent for one and a half times its keep alive (3.1.2.10)."""
        self._cancel_deadline()
        assert self._connect is not None
        if self._connect.keep_alive_s == 0:
            return
        loop = asyncio.get_running_loop()
        left_s = self._heard_s + 1.5 * self._connect.keep_alive_s - loop.time()
        if left_s <= 0:
            self.end(Reason.KEEP_ALIVE_TIMEOUT)
        else:
            self._deadline = loop.call_later(left_s, self._watch)

    def _refuse(self, reason: Reason) -> None:
        if self._connect is None:
            self._write(mqtt.connack(reason, {}))
            if self._transport is not None:
                self._transport.close()
        else:
            self.end(reason)

    def end(self, reason: Reason) -> None:
        """Says why, sends the will, and closes; who does not even read the farewell is dropped."""
        self._write(mqtt.disconnect(reason))
        self._waiting.clear()
        self._broker.forget(self, gone=False)
        self._send_will()
        if self._transport is not None:
            self._transport.close()
            self._cancel_deadline()
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(_FAREWELL_WITHIN_S, self._transport.abort)

    def _send_will(self) -> None:
        if self._will is not None:
            will, self._will = self._will, None
            self._broker.take(self, will)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def drop(self) -> None:
        """The server is gone: no word, and no will from beyond."""
        self._will = None
        if self._transport is not None:
            self._transport.abort()


_PACKETS: Final[dict[type, Callable[[_Connection, Any], None]]] = {
    mqtt.Publish: _Connection._published,  # noqa: SLF001 -- the table of the class above
    mqtt.Puback: _Connection._acknowledged,  # noqa: SLF001
    mqtt.Subscribe: _Connection._subscribed,  # noqa: SLF001
    mqtt.Unsubscribe: _Connection._unsubscribed,  # noqa: SLF001
    mqtt.Pingreq: _Connection._pinged,  # noqa: SLF001
    mqtt.Disconnect: _Connection._left,  # noqa: SLF001
}
