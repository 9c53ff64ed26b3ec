"""Dated constants of the site file: in order, of one kind with those of now, and not too old."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from daemon.dated import SURVEYED, doubtful_on
from daemon.findings import by_id, is_whole, rows
from drivers import calibration
from drivers.calibration import Count
from drivers.gnss import baseline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.config import ChannelTable, DeviceTable, File, Pond
    from daemon.dated import ChannelWas, DeviceWas
    from daemon.findings import Findings


def check_dated(file: File, found: Findings) -> None:
    """Check what held before, and when what holds was measured."""
    ponds = by_id(file.ponds)
    for path, channel in rows("channel", file.channels):
        _order(path, channel.was, found)
        for i, was in enumerate(channel.was):
            if is_whole(was):
                _channel_was(f"{path}.was[{i}]", was, channel, found)
        if channel.taken is not None and channel.calibration is None and channel.derive is None:
            found.wrong(f"{path}.taken", "is of a calibration or derive, and there is none")
        if channel.pond in ponds:
            _age(path, channel, ponds[channel.pond], found)
    for path, device in rows("device", file.devices):
        _order(path, device.was, found)
        for i, before in enumerate(device.was):
            if is_whole(before):
                _device_was(f"{path}.was[{i}]", before, device, found)
        _exchanged(device, file, found)


def _order(path: str, was: Sequence[ChannelWas | DeviceWas], found: Findings) -> None:
    ends = [(f"{path}.was[{i}].until", each.until) for i, each in enumerate(was) if is_whole(each)]
    for (_, before), (its, until) in pairwise(ends):
        if until <= before:
            found.wrong(its, f"{until} must lie after the one before, {before}: oldest first")


def _channel_was(path: str, was: ChannelWas, channel: ChannelTable, found: Findings) -> None:
    if was.calibration is None and was.derive is None and not was.sensor and was.taken is None:
        found.wrong(path, "says nothing of what was different: calibration, derive, sensor or taken")
    if was.taken is not None and was.taken.on > was.until.date():
        found.wrong(f"{path}.taken.on", f"{was.taken.on} lies after until, {was.until}")
    if was.calibration is not None:
        _calibration_was(f"{path}.calibration", was, channel, found)
    if was.derive is None:
        return
    now = channel.derive
    if type(was.derive) is not type(now) or now is None or was.derive.inputs != now.inputs:
        found.wrong(f"{path}.derive", "must be of the same kind and from the same channels as derive")
    elif now.make().state() is not None:
        found.wrong(f"{path}.derive", "remembers what went before: it has no constants that can be dated")
    for problem in was.derive.problems():
        found.wrong(f"{path}.derive", problem)


def _calibration_was(path: str, was: ChannelWas, channel: ChannelTable, found: Findings) -> None:
    now, its = channel.calibration, was.calibration
    if its is None:
        return
    if now is None or isinstance(its, Count) != isinstance(now, Count):
        found.wrong(path, "has no place here: the channel has none now, or one of quite another kind")
        return
    if isinstance(its, Count) and isinstance(now, Count) and its.bits != now.bits:
        found.wrong(f"{path}.bits", f"must be {now.bits} as now; another counter is another channel")
    for key in ("temperature", "barometer"):
        if getattr(its, f"needs_{key}") and not getattr(channel, key):
            found.wrong(path, f"corrects with a {key}, which the channel does not name")
    for key, remedy in calibration.mistakes(its):
        found.wrong(f"{path}.{key}", remedy)


def _device_was(path: str, was: DeviceWas, device: DeviceTable, found: Findings) -> None:
    if not was.serial_number and was.baseline is None and was.reference is None:
        found.wrong(path, "says nothing of what was different: serial_number, baseline or reference")
    for key in ("baseline", "reference"):
        origin = getattr(was, key)
        if origin is None:
            continue
        if getattr(device, key) is None:
            found.wrong(f"{path}.{key}", f"has no place here: the device has no {key} now")
        for coordinate, remedy in baseline.mistakes(origin):
            found.wrong(f"{path}.{key}.{coordinate}", remedy)


def _age(path: str, channel: ChannelTable, pond: Pond, found: Findings) -> None:
    if isinstance(channel.derive, SURVEYED) and channel.taken is None:
        found.warn(f"{path}.taken", "is missing: nobody sees when the survey it rests on is too old")
    day = doubtful_on(channel.taken, channel.derive, pond)
    if channel.taken is not None and day is not None and day <= datetime.now(UTC).date():
        found.warn(
            f"{path}.taken",
            f"is of {channel.taken.on}: since {day} it is too old or from before a raise, and readings are "
            "uncertain:old-constants; survey anew",
        )


def _exchanged(device: DeviceTable, file: File, found: Findings) -> None:
    """Whether the calibration of what hangs on an exchanged instrument was looked at again."""
    whole = [was for was in device.was if is_whole(was) and was.serial_number]
    if not whole:
        return
    for path, channel in rows("channel", file.channels):
        its = channel.source.partition(".")[0] == device.id and channel.calibration is not None
        looked = channel.taken is not None and channel.taken.on >= whole[-1].until.date()
        if its and not looked and not any(is_whole(w) and w.until >= whole[-1].until for w in channel.was):
            found.warn(
                f"{path}.calibration",
                f"is as before device {device.id} was exchanged at {whole[-1].until}: if it holds for the "
                "new one too, say so with taken",
            )
