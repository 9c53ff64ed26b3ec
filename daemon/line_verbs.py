"""What the control socket can ask about a line: its bytes as they pass, and who else answers on it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from daemon import requests
from daemon.control import Fanout, Refused
from daemon.poller import LineBusy, PolledLine
from drivers import profile
from drivers.contract import WireError
from drivers.modbus import ModbusDevice
from drivers.scan import Found, Look, look_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from daemon.config import Site
    from daemon.control import Caller, Verb
    from daemon.poller import StreamLine
    from drivers.gnss.receiver import GnssReceiver
    from drivers.line import Line
    from drivers.recorder import Event, Header, Tap

SCAN_SHARE = 0.2  # of a line's time that a scan takes from its polls at most
LOOK_MOST_S = 1.0  # one unit is looked for in one piece, by some ten requests; no poll waits longer for it


class LineVerbs:
    """Verbs that only look; all run in the event loop's one thread."""

    def __init__(
        self,
        site: Site,
        drivers: Mapping[str, ModbusDevice | GnssReceiver],
        lines: Mapping[str, PolledLine | StreamLine],
        taps: Mapping[str, Tap],
    ) -> None:
        self._line_of = {device.id: device.line for device in site.devices}
        self._drivers = drivers
        self._lines = lines
        self._taps = taps
        self._searched: set[str] = set()

    def table(self) -> Mapping[type[requests.Request], Verb]:
        return {requests.Trace: self._trace, requests.Scan: self._scan}

    async def _trace(self, request: requests.Trace, caller: Caller) -> AsyncIterator[Header | Event]:
        """What passes on a line from now on; who reads too slowly is dropped, the line waits for nobody."""
        del caller
        if request.line not in self._taps:
            raise Refused(f"no line is called {request.line}; there are {', '.join(self._taps)}", 2)
        tap = self._taps[request.line]
        shown: Fanout[Event] = Fanout()
        tap.listeners.append(shown.publish)
        try:
            yield tap.header
            async for event in shown.watch():
                yield event
        finally:
            tap.listeners.remove(shown.publish)

    async def _scan(self, request: requests.Scan, caller: Caller) -> AsyncIterator[Found]:
        """Units the site file does not list, one look at a time, the line free for its polls in between."""
        del caller
        line = self._lines.get(request.line)
        if not isinstance(line, PolledLine):
            raise Refused(f"the core polls no Modbus line called {request.line}", 2)
        look = _look(request)
        identities = profile.identities()
        taken = self._units(request.line)
        loop = asyncio.get_running_loop()
        with self._alone(request.line):
            for unit in request.units:
                if unit in taken:
                    continue

                async def work(wire: Line, unit: int = unit) -> Found | None:
                    return await look_for(wire, unit, look, identities)

                began_s = loop.time()
                try:
                    found = await line.submit(work)
                except LineBusy as error:
                    raise Refused(str(error), 3) from None
                except WireError as error:
                    raise Refused(f"{request.line}: {error}", 3) from None
                if found is not None:
                    yield found
                await asyncio.sleep((loop.time() - began_s) * (1 / SCAN_SHARE - 1))

    @contextlib.contextmanager
    def _alone(self, line: str) -> Iterator[None]:
        """Several scans of one line would take a share each."""
        if line in self._searched:
            raise Refused(f"{line} is being searched already; wait for the end of that", 3)
        self._searched.add(line)
        try:
            yield
        finally:
            self._searched.remove(line)

    def _units(self, line: str) -> set[int]:
        """The units of a line that the site file lists: they are polled, and left alone here."""
        return {
            driver.unit
            for device, driver in self._drivers.items()
            if self._line_of[device] == line and isinstance(driver, ModbusDevice)
        }


def _look(request: requests.Scan) -> Look:
    """How a unit is looked for on a line that is polled; the socket is open to more than our own verb."""
    look = Look(request.fn, request.at, request.timeout_s)
    try:
        look.check(request.units)
    except ValueError as error:
        raise Refused(str(error), 2) from None
    if look.timeout_s > LOOK_MOST_S:
        raise Refused(
            f"a line that is polled waits {LOOK_MOST_S:g} s at most for an answer; stop the core to look for "
            "slower instruments",
            3,
        )
    return look
