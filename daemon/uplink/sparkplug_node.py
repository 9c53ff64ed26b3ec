"""What a Sparkplug edge node says, as far as it does not depend on a connection's course.

Each pond is a device, each channel a metric whose alias is its place in the site file; the changes of the
alarm book are one metric of the node, JSON as our own payload has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from daemon.reading import parse_rfc3339
from daemon.uplink.dialect import Parcel, json
from daemon.uplink.sparkplug_payload import BAD, BOOLEAN, DOUBLE, GOOD, INT64, STALE, STRING, Payload, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daemon.config import ChannelTable
    from daemon.uplink.dialect import Told

REBIRTH: Final = "Node Control/Rebirth"
ALARM, ALARM_ALIAS = "Alarm", 1
QUALITY, REASON = "Quality", "Pondwatch/Quality"


class Node:
    """The edge node `node` of `group`."""

    def __init__(self, group: str, node: str, channels: Iterable[ChannelTable]) -> None:
        self._group = group
        self._node = node
        self._channels = {each.id: (alias, each) for alias, each in enumerate(channels, ALARM_ALIAS + 1)}

    def encode(self, told: Sequence[Told]) -> Sequence[Parcel]:
        made = []
        for one in told:
            of: dict[str, Any] = {}
            for reading in one.readings:
                alias, channel = self._channels.get(reading.channel, (0, None))
                if channel is not None:
                    payload = of.setdefault(channel.pond, Payload())
                    its = payload.metrics.add(alias=alias, timestamp=_ms(reading.time))
                    _set(its, reading.value, reading.quality)
            made += [Parcel(pond, payload.SerializeToString()) for pond, payload in of.items()]
            if one.alarm is not None:
                payload = Payload()
                its = payload.metrics.add(alias=ALARM_ALIAS, timestamp=_ms(one.alarm.time))
                its.string_value = json(one.alarm).decode()
                made.append(Parcel("", payload.SerializeToString()))
        return made

    def births(self, bd_seq: int, latest: Mapping[int, Any], now_ms: int) -> list[tuple[str, Any]]:
        """(device, payload): the node's, then each pond's; what is not known yet is null and stale."""
        node = Payload()
        node.metrics.add(name="bdSeq", datatype=INT64, timestamp=now_ms, long_value=bd_seq)
        node.metrics.add(name=REBIRTH, datatype=BOOLEAN, timestamp=now_ms, boolean_value=False)
        _born(node, ALARM, ALARM_ALIAS, STRING, latest, now_ms)
        made = {"": node}
        for alias, channel in self._channels.values():
            payload = made.setdefault(channel.pond, Payload())
            its = _born(payload, channel.id, alias, DOUBLE, latest, now_ms)
            say(its, "engUnit", channel.unit)
        return list(made.items())

    def death(self, bd_seq: int, now_ms: int) -> bytes:
        payload = Payload(timestamp=now_ms)
        payload.metrics.add(name="bdSeq", datatype=INT64, timestamp=now_ms, long_value=bd_seq)
        its: bytes = payload.SerializeToString()
        return its

    def topic(self, what: str, device: str = "") -> str:
        node = f"spBv1.0/{self._group}/{what}/{self._node}"
        return f"{node}/{device}" if device else node


def _set(metric: Any, value: float | None, quality: str) -> None:
    if value is None:
        metric.is_null = True
    else:
        metric.double_value = value
    say(metric, QUALITY, BAD if value is None else GOOD)
    say(metric, REASON, quality)


def _ms(time: str) -> int:
    return max(0, parse_rfc3339(time) // 1_000_000)


def _born(payload: Any, name: str, alias: int, datatype: int, latest: Mapping[int, Any], now_ms: int) -> Any:
    its = payload.metrics.add()
    if alias in latest:
        its.CopyFrom(latest[alias])
    else:
        its.timestamp, its.is_null = now_ms, True
        say(its, QUALITY, STALE)
    its.name, its.alias, its.datatype = name, alias, datatype
    return its
