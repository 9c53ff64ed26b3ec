"""The server's half of MQTT v5 without a socket: its words, what a server writes, how topics match.

`mqtt_decoder` is the other direction. What is spoken: CONNECT, PUBLISH at QoS 0 and 1, PUBACK, SUBSCRIBE,
UNSUBSCRIBE, PINGREQ, DISCONNECT and their answers, with all properties. What is not (QoS 2, topic aliases,
enhanced authentication, shared subscriptions, sessions that outlive a connection) is refused in the words
the standard has for it. Source: MQTT Version 5.0, OASIS Standard, 7 March 2019; clause numbers below are
its own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    # One value per property; user properties come as one list of pairs.
    PropertyValue = int | str | bytes | list[tuple[str, str]]


class Reason(IntEnum):
    """Reason codes used here (2.4)."""

    SUCCESS = 0x00
    NO_SUBSCRIPTION = 0x11
    DISCONNECT_WITH_WILL = 0x04
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_INVALID = 0x85
    BAD_CREDENTIALS = 0x86
    NOT_AUTHORISED = 0x87
    SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    TAKEN_OVER = 0x8E
    FILTER_INVALID = 0x8F
    TOPIC_INVALID = 0x90
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    PAYLOAD_INVALID = 0x99
    QOS_UNSUPPORTED = 0x9B
    SHARED_UNSUPPORTED = 0x9E


class Property(IntEnum):
    """Property identifiers used here by name (2.2.2.2)."""

    CONTENT_TYPE = 0x03
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    AUTHENTICATION_METHOD = 0x15
    RECEIVE_MAXIMUM = 0x21
    WILL_DELAY = 0x18
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    USER = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    SUBSCRIPTION_IDENTIFIERS_AVAILABLE = 0x29
    SHARED_SUBSCRIPTIONS_AVAILABLE = 0x2A


class Violation(Exception):
    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


Properties = dict[int, "PropertyValue"]


@dataclass(frozen=True, slots=True)
class Publish:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    packet_id: int = 0  # 0 at QoS 0
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connect:
    client_id: str
    keep_alive_s: int
    receive_maximum: int
    maximum_packet_bytes: int
    username: str | None
    password: bytes | None
    will: Publish | None


@dataclass(frozen=True, slots=True)
class Puback:
    packet_id: int
    reason: int


@dataclass(frozen=True, slots=True)
class Filter:
    """One subscription (3.8.3.1)."""

    text: str
    qos: int
    no_local: bool
    retain_as_published: bool
    retain_handling: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    packet_id: int
    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pingreq:
    pass


@dataclass(frozen=True, slots=True)
class Disconnect:
    reason: int


Packet = Connect | Publish | Puback | Subscribe | Unsubscribe | Pingreq | Disconnect


# How each property's value travels (2.2.2.2): a struct format, or varint, text, binary.
PROPERTY_TYPES: Final = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), ">B"),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), ">H"),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), ">I"),
    0x0B: "varint",
    **dict.fromkeys((0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F), "text"),
    **dict.fromkeys((0x09, 0x16), "binary"),
}


def connack(reason: int, properties: Properties) -> bytes:
    return _packet(0x20, bytes((0, reason)) + _properties(properties))


def publish(message: Publish) -> bytes:
    head = _text(message.topic)
    if message.qos:
        head += struct.pack(">H", message.packet_id)
    first = 0x30 | message.qos << 1 | message.retain
    return _packet(first, head + _properties(message.properties) + message.payload)


def puback(packet_id: int, reason: int) -> bytes:
    return _packet(0x40, struct.pack(">HB", packet_id, reason) if reason else struct.pack(">H", packet_id))


def suback(packet_id: int, reasons: list[int]) -> bytes:
    return _packet(0x90, struct.pack(">HB", packet_id, 0) + bytes(reasons))


def unsuback(packet_id: int, reasons: list[int]) -> bytes:
    return _packet(0xB0, struct.pack(">HB", packet_id, 0) + bytes(reasons))


def disconnect(reason: int) -> bytes:
    return _packet(0xE0, bytes((reason,)))


PINGRESP: Final = b"\xd0\x00"


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | 0x80 if value else low)
        if not value:
            return bytes(out)


def _binary(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _text(text: str) -> bytes:
    return _binary(text.encode("utf-8"))


def _properties(properties: Properties) -> bytes:
    out = b"".join(_property(key, value) for key, value in properties.items())
    return _varint(len(out)) + out


def _property(key: int, value: PropertyValue) -> bytes:
    if isinstance(value, list):
        return b"".join(bytes((key,)) + _text(name) + _text(text) for name, text in value)
    if isinstance(value, str):
        return bytes((key,)) + _text(value)
    if isinstance(value, bytes):
        return bytes((key,)) + _binary(value)
    kind = PROPERTY_TYPES[key]
    return bytes((key,)) + (_varint(value) if kind == "varint" else struct.pack(kind, value))


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter with `+` and `#` takes a topic (4.7); `$` topics hide from leading wildcards."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i == len(levels) or level not in {"+", levels[i]}:
            return False
    return len(wanted) == len(levels)


def filter_is_valid(topic_filter: str) -> bool:
    """`+` fills a whole level, `#` the last one (4.7.1)."""
    levels = topic_filter.split("/")
    wild_in_word = any(len(level) > 1 and ("+" in level or "#" in level) for level in levels)
    return bool(topic_filter) and not wild_in_word and "#" not in levels[:-1]
