from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_sim import mqtt
from hardware_sim.mqtt import Property, Reason, Violation
from hardware_sim.mqtt_decoder import Decoder

# The example of clause 3.1.3 and its neighbours, put together by hand from the standard's tables.
CONNECT = bytes.fromhex("10 12 00 04 4D 51 54 54 05 02 00 0A 05 11 00 00 00 0A 00 00")


def decoder() -> Decoder:
    return Decoder(1_000_000)


def test_the_connect_of_the_standards_example_is_read() -> None:
    [packet] = decoder().feed(CONNECT)
    assert isinstance(packet, mqtt.Connect)
    assert (packet.client_id, packet.keep_alive_s, packet.receive_maximum) == ("", 10, 65_535)
    assert packet.will is None


TEXT = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=20)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        0x01: st.integers(0, 1),
        0x02: st.integers(0, 2**32 - 1),
        0x03: TEXT,
        0x09: st.binary(max_size=10),
        0x0B: st.integers(1, 2**28 - 1),
        0x26: st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3),
    },
)
MESSAGES = st.one_of(
    st.builds(mqtt.Publish, TEXT, st.binary(max_size=300), st.just(0), st.booleans(), st.just(0), PROPERTIES),
    st.builds(
        mqtt.Publish,
        TEXT,
        st.binary(max_size=300),
        st.just(1),
        st.booleans(),
        st.integers(1, 65_535),
        PROPERTIES,
    ),
)


@given(st.lists(MESSAGES, max_size=5), st.integers(1, 50))
def test_messages_survive_the_wire_however_it_cuts_them(messages: list[mqtt.Publish], size: int) -> None:
    stream = b"".join(mqtt.publish(m) for m in messages)
    found, reader = [], decoder()
    for i in range(0, len(stream), size):
        found += reader.feed(stream[i : i + size])
    assert found == messages


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_never_crashes(garbage: bytes) -> None:
    reader = decoder()
    with contextlib.suppress(Violation):  # anything else is a crash
        reader.feed(garbage)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (CONNECT.replace(b"\x05\x02", b"\x04\x02"), Reason.UNSUPPORTED_VERSION),
        (CONNECT.replace(b"MQTT", b"MQIs"), Reason.UNSUPPORTED_VERSION),
        (CONNECT.replace(b"\x05\x02", b"\x05\x03"), Reason.MALFORMED),
        (bytes.fromhex("34 06 00 01 61 00 01 00"), Reason.QOS_UNSUPPORTED),
        (bytes.fromhex("30 07 00 01 61 03 23 00 01"), Reason.TOPIC_ALIAS_INVALID),
        (bytes.fromhex("30 04 00 01 23 00"), Reason.TOPIC_INVALID),
        (bytes.fromhex("30 03 00 00 00"), Reason.TOPIC_INVALID),
        (bytes.fromhex("32 06 00 01 61 00 00 00"), Reason.PROTOCOL_ERROR),  # packet identifier 0
        (bytes.fromhex("82 03 00 01 00"), Reason.PROTOCOL_ERROR),  # SUBSCRIBE without a filter
        (bytes.fromhex("80 07 00 01 00 00 01 61 00"), Reason.MALFORMED),  # its flags are wrong
        (bytes.fromhex("20 03 00 00 00"), Reason.PROTOCOL_ERROR),  # CONNACK from a client
        (bytes.fromhex("30 FF FF FF FF 01"), Reason.MALFORMED),
        (bytes.fromhex("30 FF FF FF 7F"), Reason.PACKET_TOO_LARGE),
        (bytes.fromhex("30 05 00 02 C3 28 00"), Reason.MALFORMED),  # not UTF-8
        (bytes.fromhex("30 08 00 01 61 04 01 00 01 00"), Reason.PROTOCOL_ERROR),  # a property twice
    ],
)
def test_what_the_standard_forbids_is_refused_in_its_words(packet: bytes, reason: Reason) -> None:
    with pytest.raises(Violation) as caught:
        decoder().feed(packet)
    assert caught.value.reason == reason


def test_a_packet_too_large_is_refused_before_it_is_kept() -> None:
    reader = Decoder(100)
    with pytest.raises(Violation) as caught:
        reader.feed(bytes.fromhex("30 80 80 01"))
    assert caught.value.reason == Reason.PACKET_TOO_LARGE


@pytest.mark.parametrize(
    ("topic_filter", "topic", "takes"),
    [
        # Clauses 4.7.1.2, 4.7.1.3 and 4.7.2.
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "a/b", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/uptime", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/uptime", True),
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
    ],
)
def test_filters_take_what_the_standard_says(topic_filter: str, topic: str, takes: bool) -> None:
    assert mqtt.matches(topic_filter, topic) is takes


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("#", True),
        ("a/#", True),
        ("a/#/b", False),
        ("a#", False),
        ("+/a", True),
        ("a+/b", False),
        ("", False),
    ],
)
def test_wildcards_fill_whole_levels(text: str, valid: bool) -> None:
    assert mqtt.filter_is_valid(text) is valid


def test_a_connack_is_written_as_the_standard_lays_it_out() -> None:
    written = mqtt.connack(Reason.SUCCESS, {Property.RECEIVE_MAXIMUM: 20})
    assert written == bytes.fromhex("20 06 00 00 03 21 00 14")
    assert mqtt.puback(7, 0) == bytes.fromhex("40 02 00 07")
    assert mqtt.puback(7, Reason.NOT_AUTHORISED) == bytes.fromhex("40 03 00 07 87")
