"""Whether the site file still has what an alarm is about.

A channel, device, line, section or output that a new site file leaves out is observed by nobody, so its open
alarm can never be gone. People may close it once it is handled; nothing closes it by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.alarms import Alarm
    from daemon.config import Site

_OUTPUT = "output."
_QUARANTINE = "quarantine."


class Subjects:
    """What the site file in use names."""

    def __init__(self, site: Site) -> None:
        self._channels = {each.id for each in site.channels}
        self._lines = {each.id for each in site.lines}
        self._devices = {each.id for each in site.devices}
        self._ponds = {each.id for each in site.ponds}
        self._sections = {(each.pond, each.id) for each in site.sections}
        self._items = {(each.pond, each.item) for each in site.channels}
        self._outputs = {f"{_OUTPUT}{each.id}" for each in site.outputs}
        self._uplinks = {f"{_QUARANTINE}{each.id}" for each in site.uplinks}

    def has(self, alarm: Alarm) -> bool:
        _, name, _ = alarm.id.split(":", 2)
        return (
            (alarm.channel is None or alarm.channel in self._channels)
            and (alarm.line is None or alarm.line in self._lines)
            and (alarm.device is None or alarm.device in self._devices)
            and (alarm.pond is None or alarm.pond in self._ponds)
            and (alarm.section is None or (alarm.pond, alarm.section) in self._sections)
            and (alarm.kind != "item" or (alarm.pond, alarm.item) in self._items)
            and (not name.startswith(_OUTPUT) or name in self._outputs)
            and (not name.startswith(_QUARANTINE) or name in self._uplinks)
        )
