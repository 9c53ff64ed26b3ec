"""How the core is at this moment, as the control socket tells it to the status page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edge_rules.law.limits import COLOURS

if TYPE_CHECKING:
    from edge_rules.law.limits import Levels


class ChannelNow(msgspec.Struct, frozen=True):
    """A channel's latest reading.

    `value` is None where `quality` is bad; `limits` are those in force, colour -> limit, in its unit, of the
    side that `rising` names (None where the channel is not armed).
    """

    id: str
    value: float | None
    quality: str
    time: str
    level: str
    limits: dict[str, float]
    rising: bool | None


class LineNow(msgspec.Struct, frozen=True):
    """`busy`: share of the time since start; None for a line whose devices speak by themselves."""

    id: str
    busy: float | None


class DeviceNow(msgspec.Struct, frozen=True):
    id: str
    line: str
    up: bool


class UplinkNow(msgspec.Struct, frozen=True):
    """`unsettled` batches wait for it, the oldest for `oldest_s`."""

    id: str
    connected: bool
    unsettled: int
    oldest_s: float


class Present(msgspec.Struct, frozen=True):
    """`clock_why`: why the wall clock is not trusted; empty while it is. `days_left`: None is not known."""

    time: str
    site: str
    mode: str
    shadow: bool
    config_sha256: str
    ills: list[str]
    clock_why: str
    ponds: dict[str, str]
    items: list[tuple[str, str, str]]
    channels: list[ChannelNow]
    lines: list[LineNow]
    devices: list[DeviceNow]
    uplinks: list[UplinkNow]
    store_bytes: int
    store_trouble: str
    days_left: float | None
    overdue: list[str]


def limits_of(levels: Levels | None) -> tuple[dict[str, float], bool | None]:
    """The limits of the side named by `rising`, and that side."""
    if levels is None:
        return {}, None
    given = ((colour.text, levels.limit(colour)) for colour in COLOURS)
    return {colour: limit for colour, limit in given if limit is not None}, levels.rising
