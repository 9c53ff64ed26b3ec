"""A client for one connection to a broker that a table of the site file names."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from daemon.credentials import first_line
from daemon.uplink.ack_client import AckClient
from daemon.uplink.tls import Files, context

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.reasoncodes import ReasonCode

    from daemon.uplink.tls import Times

CONNECT_S = 10.0  # for CONNACK and SUBACK
KEEPALIVE_S = 30
PACKET_BYTES = 128  # of a PUBLISH beside topic and payload, with room to spare
HEARD_BYTES: Final = 64 << 10  # a broker may send no longer packet
_FOR_GOOD = (0x99, 0x95)  # payload invalid, packet too large: not taken at another time either
_NOBODY_LISTENS = 0x10  # "no matching subscribers": accepted, and dropped; MQTT 5.0, 3.4.2.1
_PORTS = {"mqtt": 1883, "mqtts": 8883}


def is_refusal(code: ReasonCode) -> bool:
    """Whether a PUBACK says that the message reached nobody."""
    return bool(code.is_failure or code.value == _NOBODY_LISTENS)


def is_for_good(code: ReasonCode) -> bool:
    """Whether the same message will be refused another time too."""
    return code.value in _FOR_GOOD


class Where(Files, Protocol):
    """What a table says of its broker."""

    @property
    def url(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def password_file(self) -> str: ...


async def client(
    table: Where,
    times: Times,
    identifier: str,
    *,
    on_message: Callable[[str, bytes], None],
    on_lost: Callable[[], None],
    heard_bytes: int = HEARD_BYTES,
    session_s: int = 0,
    **settings: Any,
) -> AckClient:
    """Not connected yet. Files are read anew for each, so that a renewed certificate is taken.

    Args:
        table: broker, name, password and certificates.
        times: knows the present, for TLS.
        identifier: who we are to the broker.
        on_message: see `AckClient`.
        on_lost: likewise.
        heard_bytes: the broker may send no longer packet.
        session_s: so long the broker keeps messages for us while we are away.
        settings: aiomqtt's own.

    Raises:
        OSError: a file cannot be read, or is no certificate.
    """
    url = urlsplit(table.url)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
    properties.MaximumPacketSize = heard_bytes
    properties.SessionExpiryInterval = session_s
    secured = url.scheme == "mqtts"
    return AckClient(
        url.hostname or "",
        url.port or _PORTS[url.scheme],
        on_message=on_message,
        on_lost=on_lost,
        identifier=identifier,
        username=table.username or None,
        password=await asyncio.to_thread(first_line, table.password_file),
        tls_context=await asyncio.to_thread(context, table, times) if secured else None,
        timeout=CONNECT_S,
        keepalive=KEEPALIVE_S,
        clean_start=not session_s,
        properties=properties,
        **settings,
    )
