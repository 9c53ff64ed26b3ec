"""MQTT v5 packets out of a client's bytes, without a socket.

Source: MQTT Version 5.0, OASIS Standard, 7 March 2019; clause numbers below are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hardware_sim import mqtt
from hardware_sim.mqtt import (
    Connect,
    Disconnect,
    Filter,
    Packet,
    Pingreq,
    Properties,
    Property,
    Puback,
    Publish,
    Reason,
    Subscribe,
    Unsubscribe,
    Violation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_VERSION: Final = 5
_PUBLISH: Final = 3  # packet type
_MORE: Final = 0x80  # this bit of a variable byte integer says that another byte follows


class _Cursor:
    """Reads the fields of one packet; running past its end is the peer's mistake."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def rest(self) -> int:
        return len(self._body) - self._at

    def take(self, count: int) -> bytes:
        if count > self.rest:
            raise Violation(Reason.MALFORMED, "a packet ends before its last field")
        self._at += count
        return self._body[self._at - count : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if not byte & _MORE:
                return value
        raise Violation(Reason.MALFORMED, "a variable byte integer has more than four bytes")

    def binary(self) -> bytes:
        return self.take(self.u16())

    def text(self) -> str:
        try:
            text = self.binary().decode("utf-8")
        except UnicodeDecodeError:
            raise Violation(Reason.MALFORMED, "a string is not UTF-8") from None
        if "\0" in text:
            raise Violation(Reason.MALFORMED, "a string holds U+0000 (1.5.4)")
        return text

    def pair(self) -> tuple[str, str]:
        return self.text(), self.text()

    def properties(self) -> Properties:
        part = _Cursor(self.take(self.varint()))
        found: Properties = {}
        while part.rest:
            key = part.varint()
            if key == Property.USER:
                pairs = found.setdefault(key, [])
                assert isinstance(pairs, list)
                pairs.append(part.pair())
                continue
            if key not in mqtt.PROPERTY_TYPES:
                raise Violation(Reason.MALFORMED, f"no property {key:#x}")
            if key in found:
                raise Violation(Reason.PROTOCOL_ERROR, f"property {key:#x} twice")
            found[key] = _READ[mqtt.PROPERTY_TYPES[key]](part)
        return found


# How a property's value is read, by its type in `mqtt.PROPERTY_TYPES`.
_READ: Final[Mapping[str, Callable[[_Cursor], int | str | bytes]]] = {
    ">B": _Cursor.byte,
    ">H": _Cursor.u16,
    ">I": _Cursor.u32,
    "varint": _Cursor.varint,
    "text": _Cursor.text,
    "binary": _Cursor.binary,
}


class Decoder:
    """Cuts a client's bytes into packets.

    Holds at most one packet of `maximum_packet_bytes`: a longer one is refused when its length is known.
    """

    def __init__(self, maximum_packet_bytes: int) -> None:
        self._maximum = maximum_packet_bytes
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that `data` completes.

        Raises:
            Violation: what came is no MQTT, or something this server refuses.
        """
        self._held += data
        packets = []
        while (cut := self._cut()) is not None:
            packets.append(_decode(*cut))
        return packets

    def _cut(self) -> tuple[int, bytes] | None:
        length = 0
        for i in range(1, 5):
            if i >= len(self._held):
                return None
            length |= (self._held[i] & 0x7F) << (7 * (i - 1))
            if not self._held[i] & _MORE:
                break
        else:
            raise Violation(Reason.MALFORMED, "a remaining length has more than four bytes")
        if i + 1 + length > self._maximum:
            raise Violation(Reason.PACKET_TOO_LARGE, f"a packet of {length} bytes")
        if len(self._held) < i + 1 + length:
            return None
        first, body = self._held[0], bytes(self._held[i + 1 : i + 1 + length])
        del self._held[: i + 1 + length]
        return first, body


def _decode(first: int, body: bytes) -> Packet:
    kind, flags = first >> 4, first & 0x0F
    if kind == _PUBLISH:
        return _publish(flags, _Cursor(body))
    if kind not in _DECODERS:
        raise Violation(Reason.PROTOCOL_ERROR, f"no client sends packet type {kind} to this server")
    due, decode = _DECODERS[kind]
    if flags != due:
        raise Violation(Reason.MALFORMED, f"flags {flags:#x} in packet type {kind}")
    return decode(_Cursor(body))


def _connect(c: _Cursor) -> Connect:
    if c.text() != "MQTT":
        raise Violation(Reason.UNSUPPORTED_VERSION, "the protocol name is not MQTT")
    if c.byte() != _VERSION:
        raise Violation(Reason.UNSUPPORTED_VERSION, "only MQTT version 5 is spoken here")
    flags, keep_alive_s, properties = c.byte(), c.u16(), c.properties()
    if flags & 0x01:
        raise Violation(Reason.MALFORMED, "the reserved connect flag is set")
    if Property.AUTHENTICATION_METHOD in properties:
        raise Violation(Reason.BAD_AUTHENTICATION_METHOD, "enhanced authentication is not offered")
    client_id = c.text()
    will = None
    if flags & 0x04:
        will_properties, topic, payload = c.properties(), c.text(), c.binary()
        will_properties.pop(
            0x18, None
        )  # will delay: sessions end with their connection, so it is always zero
        will = Publish(topic, payload, _qos(flags >> 3 & 3), bool(flags & 0x20), 0, will_properties)
    username = c.text() if flags & 0x80 else None
    password = c.binary() if flags & 0x40 else None
    receive_maximum = _number(properties, Property.RECEIVE_MAXIMUM, 65_535)
    largest = _number(properties, Property.MAXIMUM_PACKET_SIZE, _LARGEST)
    if not receive_maximum or not largest:
        raise Violation(Reason.PROTOCOL_ERROR, "receive maximum and maximum packet size are never 0")
    return Connect(client_id, keep_alive_s, receive_maximum, largest, username, password, will)


def _number(properties: Properties, key: Property, default: int) -> int:
    value = properties.get(key, default)
    assert isinstance(value, int)
    return value


def _qos(qos: int) -> int:
    if qos > 1:
        raise Violation(Reason.QOS_UNSUPPORTED, "QoS 2 is not offered")
    return qos


def _publish(flags: int, c: _Cursor) -> Publish:
    qos = _qos(flags >> 1 & 3)
    topic = c.text()
    packet_id = _packet_id(c) if qos else 0
    properties = c.properties()
    if Property.TOPIC_ALIAS in properties:
        raise Violation(Reason.TOPIC_ALIAS_INVALID, "topic aliases are not offered")
    if not topic or "+" in topic or "#" in topic:
        raise Violation(Reason.TOPIC_INVALID, f"{topic!r} is no topic name")
    return Publish(topic, c.take(c.rest), qos, bool(flags & 1), packet_id, properties)


def _packet_id(c: _Cursor) -> int:
    packet_id = c.u16()
    if packet_id == 0:
        raise Violation(Reason.PROTOCOL_ERROR, "packet identifier 0")
    return packet_id


def _puback(c: _Cursor) -> Puback:
    return Puback(c.u16(), c.byte() if c.rest else 0)


def _subscribe(c: _Cursor) -> Subscribe:
    packet_id, _properties = _packet_id(c), c.properties()
    filters = []
    while c.rest:
        text, options = c.text(), c.byte()
        filters.append(
            Filter(text, min(1, options & 3), bool(options & 4), bool(options & 8), options >> 4 & 3)
        )
    if not filters:
        raise Violation(Reason.PROTOCOL_ERROR, "SUBSCRIBE without a filter")
    return Subscribe(packet_id, tuple(filters))


def _unsubscribe(c: _Cursor) -> Unsubscribe:
    packet_id, _properties = _packet_id(c), c.properties()
    filters = []
    while c.rest:
        filters.append(c.text())
    return Unsubscribe(packet_id, tuple(filters))


_LARGEST: Final = 268_435_460  # what four bytes of remaining length can say, and its own header
# Packet type -> flags it must carry, how its body is read (2.1.2, 2.1.3).
_DECODERS: Final[Mapping[int, tuple[int, Callable[[_Cursor], Packet]]]] = {
    1: (0, _connect),
    4: (0, _puback),
    8: (2, _subscribe),
    10: (2, _unsubscribe),
    12: (0, lambda _c: Pingreq()),
    14: (0, lambda c: Disconnect(c.byte() if c.rest else 0)),
}
