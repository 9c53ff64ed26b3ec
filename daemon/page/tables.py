"""The page's tables: alarms, lines, delivery, every channel."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from daemon.alarms import Alarm
    from daemon.config import ChannelTable, Site
    from daemon.page.core import Seen
    from daemon.page.words import Say
    from daemon.present import ChannelNow

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86400.0
_DIGITS = {"m": 2, "mm": 1, "kPa": 2, "hPa": 1, "degC": 1}


def chip(level: str, say: Say, css: str = "") -> str:
    return f'<b class="chip {escape(level)} {css}">{escape(say(level))}</b>'


def number(value: float | None, digits: int) -> str:
    return "?" if value is None else f"{value:.{digits}f}"


def _table(css: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already."""
    heads = "".join(f"<th scope=col>{each}</th>" for each in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = f'<table class="{css}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    return f"<div class=wide>{table}</div>"


def figure(title: str, body: str) -> str:
    return f"<figure><figcaption>{title}</figcaption>{body}</figure>"


def _state(word: str, css: str, say: Say) -> str:
    return f'<span class="{css}">{say(word)}</span>'


def _block(css: str, title: str, body: str) -> str:
    return f'<section class="{css}"><h2>{title}</h2>{body}</section>'


# -- alarms ------------------------------------------------------------------------------------------


def alarms(seen: Seen, local: Callable[[str], str], say: Say) -> str:
    if seen.present is None:
        return ""
    overdue = set(seen.present.overdue)
    title = f"{say('alarms')} {len(seen.left.open)}"
    if overdue:
        title += f' <b class="chip late">{say("overdue")} {len(overdue)}</b>'
    if not seen.left.open:
        return _block("alarms", title, f'<p class="well">{say("no_alarm")}</p>')
    head = ("level", "reason", "state", "since", "due", "who")
    rows = [_alarm(alarm, local, say, late=alarm.id in overdue) for alarm in seen.left.open]
    return _block("alarms", title, _table("alarms", [say(each) for each in head], rows))


def _alarm(alarm: Alarm, local: Callable[[str], str], say: Say, *, late: bool) -> Sequence[str]:
    shown = alarm.level if alarm.kind not in ("fault", "advice", "system") else alarm.kind
    due = local(alarm.due) + (f' <b class="chip late">{say("overdue")}</b>' if late else "")
    return (
        chip(shown, say),
        f"{escape(say.either(alarm.reason.zh, alarm.reason.en))}<br><small>{escape(alarm.id)}</small>",
        f"{say(alarm.condition)}, {say(alarm.response)}",
        local(alarm.time),
        due,
        escape(alarm.by or ""),
    )


# -- lines and delivery ------------------------------------------------------------------------------


def lines(site: Site, seen: Seen, say: Say) -> str:
    if seen.present is None:
        return ""
    busy = {line.id: line.busy for line in seen.present.lines}
    up = {device.id: device.up for device in seen.present.devices}
    rows = []
    for line in site.lines:
        devices = [device.id for device in site.devices if device.line == line.id]
        share = busy.get(line.id)
        states = "".join(_device(device, up.get(device), say) for device in devices)
        rows.append(
            (escape(line.id), line.kind, "-" if share is None else f"{share:.0%}", f"<ul>{states}</ul>")
        )
    head = (say("line"), say("kind"), say("busy"), say("lines"))
    return _block("lines", say("lines"), _table("lines", head, rows))


def _device(name: str, up: bool | None, say: Say) -> str:  # noqa: FBT001 -- None is a third state
    word = {True: "answers", False: "silent", None: "not_yet"}[up]
    return f'<li class="{word}">{escape(name)} {say(word)}</li>'


def delivery(seen: Seen, say: Say) -> str:
    now = seen.present
    if now is None:
        return ""
    rows = [
        (
            escape(uplink.id),
            _state("connected", "answers", say) if uplink.connected else _state("away", "silent", say),
            str(uplink.unsettled),
            span(uplink.oldest_s) if uplink.unsettled else "-",
        )
        for uplink in now.uplinks
    ]
    table = _table("delivery", ("", say("state"), say("unsettled"), say("oldest")), rows)
    days = "?" if now.days_left is None else f"{now.days_left:.0f}"
    clock = say("not_trusted" if now.clock_why else "trusted")
    facts = (
        (say("store"), f"{now.store_bytes / 1e6:.1f} MB"),
        (say("days_left"), days),
        (say("clock"), clock),
    )
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return _block("delivery", say("delivery"), f"{table}<dl class=facts>{listed}</dl>")


def span(seconds: float) -> str:
    """`312 s`, `5 min`, `3.4 h`, `12.0 d`."""
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.1f} d"


# -- channels ----------------------------------------------------------------------------------------


def channels(site: Site, now: Mapping[str, ChannelNow], local: Callable[[str], str], say: Say) -> str:
    head = ("point", "item", "channel", "value", "quality", "level", "margin", "since")
    rows = [_channel(table, now.get(table.id), local, say) for table in site.channels]
    return _block("readings", say("readings"), _table("readings", [say(each) for each in head], rows))


def _channel(
    table: ChannelTable, now: ChannelNow | None, local: Callable[[str], str], say: Say
) -> Sequence[str]:
    front = (escape(table.monitoring_point), say(table.item), escape(table.id))
    unit = escape(table.unit.replace("degC", "°C"))
    if now is None:
        return (*front, f"<span class=bad>?</span> {unit}", say("never"), "", "", "")
    digits = _DIGITS.get(table.unit, 2)
    kind, _, why = now.quality.partition(":")
    quality = f'<span class="{kind}">{say(kind)}{f" {escape(why)}" if why else ""}</span>'
    value = f'<span class="{kind}">{number(now.value, digits)}</span> {unit}'
    level = chip(now.level, say) if now.rising is not None else ""
    return (*front, value, quality, level, margin(now, unit, digits, say), local(now.time))


def margin(now: ChannelNow, unit: str, digits: int, say: Say) -> str:
    """How far it is to the nearest limit that the value has not passed."""
    if now.value is None or now.rising is None:
        return ""
    ahead = [
        (abs(limit - now.value), colour)
        for colour, limit in now.limits.items()
        if (limit > now.value) is now.rising and limit != now.value
    ]
    if not ahead:
        return ""
    distance, colour = min(ahead)
    return f"{say(colour)} {distance:.{digits}f} {unit}"
