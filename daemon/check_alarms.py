"""What the site file says of levels, people, rain and outputs: does it fit together, and what is missing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from daemon.binder import nearest
from daemon.findings import is_whole, rows
from edge_rules.law import derived, water
from edge_rules.law.levels import COLOURS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.config import ChannelTable, File, OutputTable, Pond
    from daemon.duty_tables import DutyTable
    from daemon.findings import Findings
    from drivers.model import Profile, Write
    from edge_rules.law.levels import Levels

_TODAYS = (derived.Freeboard, derived.DryBeach)


def check_levels(path: str, channel: ChannelTable, found: Findings) -> None:
    """The designer's levels of one channel."""
    its = channel.levels
    if its is None:
        return
    for problem in its.problems():
        found.wrong(f"{path}.levels", problem)
    _passable(path, channel, its, found)
    if not its.approver.strip():
        found.warn(f"{path}.levels.approver", "is missing: say who approved these limits")
    for warning in its.close_neighbours(channel.uncertainty or 0.0):
        found.warn(f"{path}.levels", warning)
    if isinstance(channel.derive, _TODAYS):
        found.warn(
            f"{path}.derive",
            "has levels, but is of today's water: GB 50863-2013 4.2.1 holds at the design flood's level, see "
            "projected-freeboard and projected-beach",
        )


def _passable(path: str, channel: ChannelTable, its: Levels, found: Findings) -> None:
    """A limit outside what the sensor can measure never rings."""
    low, high = channel.span or (-float("inf"), float("inf"))
    for side in its.sides():
        for colour in COLOURS:
            limit = side.limit(colour)
            if limit is not None and (limit >= high if side.rising else limit <= low):
                found.wrong(
                    f"{path}.levels.{colour.text}",
                    f"{limit:g} can never be passed: a value outside the span {low:g} .. {high:g} is bad",
                )


def check_alarms(file: File, profiles: Mapping[str, Profile], found: Findings) -> None:
    """People, shifts, rain, dated limits, outputs."""
    for path, duty in rows("duty", file.duties):
        _duty(path, duty, file, found)
    if is_whole(file.alarms) and file.people:
        roles = {person.role for _, person in rows("person", file.people)}
        for role in file.alarms.red_closed_by:
            if role not in roles:
                found.warn("alarms.red_closed_by", f"no person has the role {role!r}{nearest(role, roles)}")
    if is_whole(file.alarms) and file.alarms.key_switch:
        found.refers("alarms.key_switch", file.alarms.key_switch, "channel", file.channels)
    for path, pond in rows("pond", file.ponds):
        _rain(path, pond, file, found)
        _dated(path, pond, file, found)
    for path, output in rows("output", file.outputs):
        _output(path, output, file, found)
        if output.device in profiles and output.write in profiles[output.device].writes:
            _ends(path, output, profiles[output.device].writes[output.write], found)


def _duty(path: str, duty: DutyTable, file: File, found: Findings) -> None:
    for key in ("person", "deputy", "supervisor"):
        who = getattr(duty, key)
        if who:
            found.refers(f"{path}.{key}", who, "person", file.people)
    if duty.begins == duty.ends:
        found.wrong(f"{path}.until", "is the time at which the shift begins: it would last no time")


def _rain(path: str, pond: Pond, file: File, found: Findings) -> None:
    if pond.rain is None:
        return
    for name in pond.rain.gauges:
        if found.refers(f"{path}.rain.gauges", name, "channel", file.channels):
            unit = next((c.unit for _, c in rows("channel", file.channels) if c.id == name), "mm")
            if unit != "mm":
                found.wrong(f"{path}.rain.gauges", f"{name} is in {unit}; rain is summed in mm")


def _dated(path: str, pond: Pond, file: File, found: Findings) -> None:
    """Dated limits: fit, and valid now."""
    limits = [limit for limit in pond.limits if is_whole(limit)]
    for i, limit in enumerate(pond.limits):
        if is_whole(limit):
            for problem in limit.problems():
                found.wrong(f"{path}.limit[{i}]", problem)
    if not limits:
        return
    its = [
        (where, c)
        for where, c in rows("channel", file.channels)
        if c.pond == pond.id and c.item == "pond-level"
    ]
    for where, channel in its:
        if channel.levels is not None:
            found.wrong(f"{where}.levels", f"pond {pond.id} has dated limits: give the levels in one place")
    if not its:
        found.warn(f"{path}.limit", "no channel of item pond-level is there to be judged by it")
    today = datetime.now(UTC).date()
    last = water.covered_until(limits, today)
    if last is None:
        found.warn(f"{path}.limit", f"none holds today, {today}: renew the operating limits")
    elif not any(limit.kind == "flood-season" and limit.until >= today for limit in limits):
        found.warn(
            f"{path}.limit", "no flood season from now on has a limit: renew it before the flood season"
        )


def _output(path: str, output: OutputTable, file: File, found: Findings) -> None:
    _authority(path, output, file, found)
    if output.after_calls and not file.duties:
        found.warn(f"{path}.after_calls", "there is no [[duty]]: calls go to nobody, only the time counts")


def _authority(path: str, output: OutputTable, file: File, found: Findings) -> None:
    """A public siren needs somebody who may have it sound, and a way for what they ask."""
    if output.kind != "public":
        if output.authority_keys:
            found.wrong(f"{path}.authority_keys", f"is for kind = public; this output is a {output.kind}")
        return
    if not output.authority_keys:
        found.wrong(f"{path}.authority_keys", "is missing: nobody could have the public siren sound")
    heard = {key for _, up in rows("uplink", file.uplinks) for key in getattr(up, "request_keys", ())}
    for i, key in enumerate(output.authority_keys):
        where = f"{path}.authority_keys[{i}]"
        if re.fullmatch("[0-9a-f]{64}", key) is None:
            found.wrong(where, "is no public Ed25519 key: 64 hex digits, small letters")
        elif key not in heard:
            found.wrong(where, "stands in no uplink's request_keys: its requests would not be heard")


def _ends(path: str, output: OutputTable, write: Write, found: Findings) -> None:
    """A switch must be able to go off, a pulse must end by itself."""
    pulses = output.kind in ("pulse", "watchdog")
    if write.on is None:
        found.wrong(f"{path}.write", f"{output.write} has no value for on")
    elif pulses and write.off is not None:
        found.wrong(f"{path}.kind", f"{output.write} stays on until it is written off: no {output.kind}")
    elif not pulses and write.off is None:
        found.wrong(f"{path}.kind", f"{output.write} ends by itself: use it with kind = pulse or watchdog")
