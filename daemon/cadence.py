"""Instruments are read more often while it matters.

A device with `every_at_warning` is read at that period while its pond, or an armed channel of its own, stands
at yellow or above, and while a rain gauge of its pond stands at any level: rain comes before the dam moves.
So it is while the pond's rain level, or a warning of a storm or an earthquake that was passed on, stands.
GNSS receivers are then read at least every 30 minutes in any case (GB 51108-2015, commentary to 4.5). Ticks
stay multiples of the period, and a reading's inputs are looked for at the period that held at its tick.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from daemon.clock import NS
from edge_rules.law.levels import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from daemon.channels import Channels
    from daemon.clock import Clock
    from daemon.config import ChannelTable, DeviceTable, Site
    from daemon.judge import Judge

log = logging.getLogger(__name__)

GNSS_AT_WARNING_S = 1800.0


class Paced(Protocol):
    """A line whose devices can be read at another period."""

    def set_every(self, device: str, every_ns: int) -> int:
        """Returns the first tick of the new period."""
        ...


@dataclass(slots=True)
class _Device:
    """A device that has a second period, and what decides between the two."""

    table: DeviceTable
    line: Paced
    calm_ns: int
    dense_ns: int
    channels: tuple[str, ...]
    ponds: tuple[str, ...]
    gauges: tuple[str, ...]
    is_dense: bool = False


class Cadence:
    """Sets the periods of devices by the levels; `follow` after every change of one, and now and then.

    Args:
        site: devices and channels.
        judge: the levels as they stand.
        channels: told of each change, since readings are joined tick by tick.
        lines: by id; every device's line.
        clock: whose steps move the ticks.
        stirs: whether rain or a warning stands for a pond at that time.
    """

    def __init__(
        self,
        site: Site,
        judge: Judge,
        channels: Channels,
        lines: Mapping[str, Paced],
        clock: Clock,
        stirs: Callable[[str, int], bool],
    ) -> None:
        self._judge = judge
        self._stirs = stirs
        self._channels = channels
        self._clock = clock
        self._steps = clock.steps
        self._devices = list(_devices(site, lines))

    def follow(self) -> None:
        # Which ticks belong to which period is told in wall time: after a step of it, told anew.
        stepped, self._steps = self._clock.steps != self._steps, self._clock.steps
        for device in self._devices:
            dense = self._is_warned(device)
            if dense != device.is_dense or stepped:
                self._set(device, dense=dense)

    def _set(self, device: _Device, *, dense: bool) -> None:
        name, every_ns = device.table.id, device.dense_ns if dense else device.calm_ns
        since_ns = device.line.set_every(name, every_ns)
        self._channels.set_every(name, every_ns, since_ns)
        if dense != device.is_dense:
            log.info("%s is read every %g s%s", name, every_ns / NS, " while the warning stands" * dense)
        device.is_dense = dense

    def _is_warned(self, device: _Device) -> bool:
        judge, now_ns = self._judge, self._clock.wall_ns()
        return (
            any(judge.ponds[pond] >= Level.YELLOW for pond in device.ponds)
            or any(judge.level(channel) >= Level.YELLOW for channel in device.channels)
            or any(judge.level(gauge) for gauge in device.gauges)
            or any(self._stirs(pond, now_ns) for pond in device.ponds)
        )


def _devices(site: Site, lines: Mapping[str, Paced]) -> Iterator[_Device]:
    for table in site.devices:
        dense_s = at_warning_s(table)
        if dense_s >= table.every_s:
            continue
        mine = [channel for channel in site.channels if table.id in _fed_by(channel)]
        ponds = dict.fromkeys(channel.pond for channel in mine)
        gauges = [c.id for c in site.channels if c.item == "rainfall" and c.pond in ponds]
        yield _Device(
            table,
            lines[table.line],
            round(table.every_s * NS),
            round(dense_s * NS),
            tuple(channel.id for channel in mine),
            tuple(ponds),
            tuple(gauges),
        )


def at_warning_s(table: DeviceTable) -> float:
    """The period of a device at warning; its ordinary one if it has no other."""
    dense_s = table.every_s if table.every_at_warning_s is None else table.every_at_warning_s
    return min(dense_s, GNSS_AT_WARNING_S) if table.baseline or table.reference else dense_s


def _fed_by(channel: ChannelTable) -> set[str]:
    names = (channel.source, channel.temperature, channel.barometer)
    return {name.partition(".")[0] for name in names if name}
