"""Where the bytes of each line can be seen: for the recording, for `trace`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.recorder import Header, Recorded, Tap

if TYPE_CHECKING:
    from daemon.baselines import Baselines
    from daemon.config import LineTable, Site
    from daemon.poller import Observer
    from drivers.sample import Frame


class TappedObserver:
    """A poller's observer that shows the line's tap each frame as well."""

    def __init__(self, observer: Observer, tap: Tap) -> None:
        self._take = observer.take
        self._tap = tap
        self.device_error = observer.device_error
        self.device_state = observer.device_state
        self.polled = observer.polled
        self.overrun = observer.overrun

    def take(self, frame: Frame) -> None:
        self._tap.frame(frame)
        self._take(frame)


def header(site: Site, line: LineTable, baselines: Baselines) -> Header:
    """What a recording of this line begins with."""
    devices = tuple(
        Recorded(d.id, d.profile, d.unit, *baselines.known(d.id)) for d in site.devices if d.line == line.id
    )
    return Header(line.id, line.kind, str(line.serial) if line.port else "", site.site.mode, devices)
