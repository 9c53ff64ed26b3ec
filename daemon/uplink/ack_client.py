"""aiomqtt's client for one connection, taught to hear what the broker answers.

aiomqtt 2.5 returns from `publish` whatever reason code the PUBACK carries, and a client used again after a
lost connection resends from memory what is no longer its to send. So each connection is a new client here,
each PUBACK goes to a callback with its code, and a connection that failed is closed without a DISCONNECT, so
that the broker publishes the last will. This rests on private names of aiomqtt and paho: pinned in
pyproject.toml, held by tests/daemon/test_mqtt_peer.py.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Self

import aiomqtt

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from paho.mqtt.client import Client as PahoClient
    from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

_MOST_RECEIVE = 65_535  # MQTT 5.0, 3.2.2.3.3: what an absent Receive Maximum means
_TAKEN_OVER = 0x8E  # MQTT 5.0, 4.13: Session taken over
_MOST_PACKET_BYTES = 268_435_460  # the protocol's own limit
_QUIET: Final = logging.getLogger("daemon.uplink.paho")  # what matters is raised, and said once by the uplink
_QUIET.setLevel(logging.CRITICAL + 1)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _heed_cancellation() -> None:
    """End the task that was told to end while it waited in aiomqtt.

    `asyncio.wait_for`, with which aiomqtt waits, loses a cancellation that comes in the same turn of the loop
    as what it waits for, until Python 3.12; an uplink would then never end.

    Raises:
        CancelledError: it was.
    """
    if _is_cancelled():
        raise asyncio.CancelledError


class AckClient(aiomqtt.Client):
    """One connection.

    Args:
        hostname: of the broker.
        port: of the broker.
        on_message: told topic and payload of each message that arrives, on the event loop; it must not raise.
        on_lost: told when the connection ends.
        settings: aiomqtt's own.
    """

    def __init__(
        self,
        hostname: str,
        port: int,
        *,
        on_message: Callable[[str, bytes], None],
        on_lost: Callable[[], None],
        **settings: Any,
    ) -> None:
        super().__init__(
            hostname,
            port,
            protocol=aiomqtt.ProtocolVersion.V5,
            logger=_QUIET,
            max_inflight_messages=0,  # the window is ours
            **settings,
        )
        self.receive_maximum = _MOST_RECEIVE
        self.maximum_packet_bytes = _MOST_PACKET_BYTES
        self._hear = on_message
        self._on_lost = on_lost
        self._acks: dict[int, Callable[[ReasonCode], None]] = {}  # bounded by the caller's window

    async def __aenter__(self) -> Self:
        try:
            await super().__aenter__()
        except BaseException:
            self._abandon()
            _heed_cancellation()
            raise
        if _is_cancelled():
            self._abandon()
        _heed_cancellation()
        self._disconnected.add_done_callback(lambda _: self._on_lost())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye only when we leave by our own will; else the last will has to speak."""
        try:
            if kind is None or issubclass(kind, asyncio.CancelledError):
                await super().__aexit__(kind, error, trace)
        finally:
            self._abandon()

    def check(self) -> None:
        """Raise if the connection is lost.

        Raises:
            MqttError: with what ended it.
        """
        if self._disconnected.done():
            error = self._disconnected.exception()
            code = getattr(error, "rc", None)
            if getattr(code, "value", code) == _TAKEN_OVER:
                raise aiomqtt.MqttError("connection lost: another client has our identity")
            raise aiomqtt.MqttError(f"connection lost: {error or 'closed by the broker'}")

    def send(
        self,
        topic: str,
        payload: bytes,
        properties: Properties,
        then: Callable[[ReasonCode], None],
        *,
        retain: bool = False,
    ) -> None:
        """Publish at QoS 1; `then` gets the PUBACK's code, or is not called if the connection ends first.

        Raises:
            MqttError: the connection is lost.
        """
        self.check()
        info = self._client.publish(topic, payload, 1, retain, properties)
        if info.rc:
            raise aiomqtt.MqttCodeError(info.rc)
        self._acks[info.mid] = then  # no PUBACK can be read before we return to the event loop

    def say(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 0, which nothing acknowledges.

        Raises:
            MqttError: the connection is lost.
        """
        self.check()
        info = self._client.publish(topic, payload, 0)
        if info.rc:
            raise aiomqtt.MqttCodeError(info.rc)

    def _abandon(self) -> None:
        """Close the socket whatever state it is in; aiomqtt leaves it open when no CONNACK came."""
        self._client._sock_close()  # noqa: SLF001 -- paho has no public way that does not say DISCONNECT
        if self._disconnected.done():
            self._disconnected.exception()  # seen: asyncio need not warn of it
        else:
            self._disconnected.set_result(None)

    def _on_connect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.receive_maximum = getattr(properties, "ReceiveMaximum", _MOST_RECEIVE)
        self.maximum_packet_bytes = getattr(properties, "MaximumPacketSize", _MOST_PACKET_BYTES)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        """Before the CONNACK too, which is how TLS 1.3 refuses a certificate; aiomqtt would wait on."""
        if not self._connected.done():
            self._connected.set_exception(
                aiomqtt.MqttError("closed before CONNACK: is our certificate accepted?")
            )
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_publish(
        self,
        client: PahoClient,  # noqa: ARG002 -- here and below the signature is paho's
        userdata: Any,  # noqa: ARG002
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,  # noqa: ARG002
    ) -> None:
        then = self._acks.pop(mid, None)
        if then is not None:
            then(reason_code)

    def _on_message(
        self,
        client: PahoClient,  # noqa: ARG002
        userdata: Any,  # noqa: ARG002
        message: MQTTMessage,
    ) -> None:
        self._hear(message.topic, bytes(message.payload))
