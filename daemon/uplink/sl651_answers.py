"""What a centre may ask of a station, and what it is told: SL 651-2014, 6.6.4.10 to 6.6.4.31.

Present values, stretches of the past, state and alarms, version and clock are told; a clock is set by the
program that the site file names. All else is refused, and stays without an answer.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from daemon.uplink import sl651_frames as frames
from daemon.uplink import sl651_hours as hours

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.uplink.sl651 import Sl651
    from daemon.uplink.tables import Sl651Element

log = logging.getLogger(__name__)

CLOCK_PROGRAM_S = 5.0
MOST_PAST: Final = timedelta(days=31)  # a longer stretch keeps the store's thread busy for others
_HEAD_BYTES = 40  # of an answer before its first value, with room to spare
_HOUR = timedelta(hours=1)


class Answers:
    """Those of one connection; `send` takes a function and a body."""

    def __init__(self, dialect: Sl651, send: Callable[[int, bytes], None]) -> None:
        self._dialect = dialect
        self._send = send
        self._said: set[int] = set()

    async def asked(self, said: frames.Down) -> None:
        """Answer, or refuse."""
        its = self._dialect
        head = said.serial.to_bytes(2, "big") + frames.stamp(its.now()) + b"\xf1\xf1" + its.station.address
        if said.function == frames.QUERY_CLOCK:
            self._send(said.function, head)
        elif said.function == frames.QUERY_VERSION:
            text = f"pondwatch {version('pondwatch')}".encode()
            self._send(said.function, head + bytes([len(text)]) + text)
        elif said.function in (frames.QUERY_NOW, frames.QUERY_ELEMENTS):
            wanted = frames.named(said.rest) if said.function == frames.QUERY_ELEMENTS else None
            self._present(said, its.present(wanted))
        elif said.function == frames.QUERY_PERIOD:
            await self._period(said)
        elif said.function == frames.QUERY_STATE and its.table.unwatched:
            self._send(said.function, head + frames.state(await self._state()))
        elif said.function == frames.SET_CLOCK and its.table.clock_program:
            if await self._clock_set(said.sent):
                self._send(said.function, head[:2] + frames.stamp(its.now()) + head[8:])
        else:
            what = (
                "setting the clock" if said.function == frames.SET_CLOCK else f"command {said.function:02X}"
            )
            self._refuse(said.function, what)

    def _present(self, said: frames.Down, observed: bytes) -> None:
        if len(observed) > frames.MOST_BYTES - _HEAD_BYTES:
            self._refuse(said.function, "more present values than a frame has room for")
        else:
            self._report(said, observed)

    def _report(self, said: frames.Down, observed: bytes) -> None:
        its = self._dialect
        if observed:
            self._send(said.function, frames.report(its.station, its.kind, said.serial, its.now(), observed))

    # -- the past ------------------------------------------------------------------------------------

    async def _period(self, said: frames.Down) -> None:
        try:
            stretch = frames.stretch(said.rest)
            if stretch.last - stretch.first > MOST_PAST:
                raise frames.Broken(f"more than {MOST_PAST.days} days")  # noqa: TRY301 -- one place refuses
            self._report(said, await (self._steps if stretch.step_minutes else self._hours)(stretch))
        except frames.Broken as error:
            self._refuse(said.function, f"command 38: {error}")

    async def _steps(self, stretch: frames.Stretch) -> bytes:
        """One value for each step, from the first hour to the last, both with them."""
        its = self._dialect
        element = _known(its.element_of(stretch.element), stretch)
        first, last = (each.replace(tzinfo=its.zone) for each in (stretch.first, stretch.last))
        begin, end = (int(each.timestamp()) // 60 for each in (first, last))
        minutes = range(begin, end + 1, stretch.step_minutes)
        _check_size(len(minutes) * its.width(element))
        values = await its.past.minutes(element.channel, first, last)
        series = its.series(element, [values.get(minute) for minute in minutes])
        _check_size(len(series))
        return hours.at(first) + frames.step(stretch.step_minutes) + stretch.element + series

    async def _hours(self, stretch: frames.Stretch) -> bytes:
        """The twelve groups of each hour between the two."""
        its = self._dialect
        element = _known(its.groups_of(stretch.element), stretch)
        first, last = (each.replace(tzinfo=its.zone) for each in (stretch.first, stretch.last))
        ends = [first + n * _HOUR for n in range(1, (last - first) // _HOUR + 1)]
        code = stretch.element[0]
        _check_size(len(ends) * frames.group_size(code))
        values = await its.past.minutes(element.channel, first, last)
        groups = [hours.said(element, [values.get(minute) for minute in hours.steps(end)]) for end in ends]
        head = hours.at(first + timedelta(minutes=5)) + frames.step(0)
        return head + bytes([code, frames.group_size(code) << 3]) + b"".join(groups)

    # -- state and clock -----------------------------------------------------------------------------

    async def _state(self) -> int:
        """The bits that the site file names, over those that nothing here watches."""
        its = self._dialect
        bits = int(its.table.unwatched, 16)
        present = {alarm.channel for alarm in await its.past.alarms() if alarm.condition != "gone"}
        for each in its.table.states:
            is_so = each.says(its.latest(each.channel), present)
            if is_so is not None:
                bits = bits | 1 << each.bit if is_so else bits & ~(1 << each.bit)
        return bits

    async def _clock_set(self, sent: bytes) -> bool:
        """Let the operator's program do it; the core itself never sets a clock."""
        its, moment = self._dialect, frames.clock_of(sent)
        if moment is None:
            return False
        text = moment.replace(tzinfo=its.zone).isoformat()
        try:
            child = await asyncio.create_subprocess_exec(
                its.table.clock_program, text, stdin=asyncio.subprocess.DEVNULL
            )
        except OSError as error:
            log.warning("%s: %s cannot be started: %s", its.where, its.table.clock_program, error)
            return False
        try:
            async with asyncio.timeout(CLOCK_PROGRAM_S):
                code = await child.wait()
        except TimeoutError:
            child.kill()
            code = await child.wait()
        log.warning(
            "%s sets the clock to %s: %s ends with %d", its.where, text, its.table.clock_program, code
        )
        return code == 0

    def _refuse(self, function: int, what: str) -> None:
        if function not in self._said:
            self._said.add(function)
            log.warning("%s: %s is refused", self._dialect.where, what)


def _known(element: Sl651Element | None, stretch: frames.Stretch) -> Sl651Element:
    if element is None:
        raise frames.Broken(f"element {stretch.element.hex().upper()} is not told here")
    return element


def _check_size(size: int) -> None:
    """What is longer than a frame a centre has to ask for in pieces."""
    if not 0 < size <= frames.MOST_BYTES - _HEAD_BYTES:
        raise frames.Broken(
            f"{size} bytes of values, and a frame has room for {frames.MOST_BYTES - _HEAD_BYTES}"
        )
