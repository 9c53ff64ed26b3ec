"""One task per line owns it: ask in turn, read, back off, reopen.

`PolledLine` asks devices in turn, as `daemon.schedule` decides. Every tick of a device is told once: with
what it said, or with the reason why there is nothing. Work asked for by people or outputs goes ahead of
routine polls and takes its turn in the same task, so nobody else ever touches the line.

A device that was well and fails is asked a second time for the same tick, after all others of that tick. One
that stays silent rests after each attempt: 4, 16, then 20 times the bus time the attempt took, less some
jitter. That bounds a dead device to a twentieth of the bus, and its return to 20 unanswered requests. Several
dead ones take turns and share a fifth of the bus, so that half a line may die and the rest not feel it.

`StreamLine` listens to a device that speaks by itself, and says so for each tick in which nothing came.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeVar

from daemon.clock import NS
from daemon.schedule import Schedule, Slot, What, back_off
from drivers.contract import Busy, DeviceError, LineDown
from drivers.sample import Frame, Quality

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from daemon.clock import Clock
    from drivers.contract import PolledDriver, StreamDriver
    from drivers.line import Line
    from drivers.sample import Block
    from drivers.wire import Wire

log = logging.getLogger(__name__)
T = TypeVar("T")

JOBS = 16  # on-demand work waiting for a line; a further one is refused
CROWD = 4  # after each attempt on a silent device the other silent ones rest so many times what it took
SUSPECTS = 3  # so many devices at once may be asked a second time for a tick
REOPEN_FIRST_S, REOPEN_MOST_S = 0.2, 3.0
BEAT_S = 1.0  # a line's task shows at least so often that it is alive, and looks after its port
PATIENCE_S = 30.0  # and is taken for hung after so long without, beyond what asking its devices may take


class LineBusy(RuntimeError):
    """More on-demand work than a line takes at once."""


class Observer(Protocol):
    """Who is told of frames and of the health of devices and lines."""

    def take(self, frame: Frame) -> None: ...

    def device_error(self, line: str, device: str, reason: str) -> None: ...

    def device_state(self, line: str, device: str, *, up: bool, error: str) -> None: ...

    def polled(self, line: str, seconds: float) -> None: ...

    def overrun(self, line: str, ticks: int) -> None: ...


class Reopen:
    """When to try a lost wire again: doubling delay with full jitter, in real time.

    Opening alone proves nothing (a port server may accept and close): the delay is short again only when
    a device was heard.
    """

    def __init__(self, random_: random.Random) -> None:
        self._random = random_
        self._delay_s = REOPEN_FIRST_S
        self.next_s = 0.0

    def is_time(self, now_s: float) -> bool:
        return now_s >= self.next_s

    def failed(self, now_s: float) -> None:
        self.next_s = now_s + self._random.uniform(0.0, self._delay_s)
        self._delay_s = min(2 * self._delay_s, REOPEN_MOST_S)

    def heard(self) -> None:
        self._delay_s = REOPEN_FIRST_S
        self.next_s = 0.0


class PolledUnit(Slot):
    """A device on a line, and what the poller knows of it.

    Args:
        driver: the device.
        every_ns: its period.
        longest_s: the longest (real seconds) that a poll of it can take. What it does take is measured; this
            is for the watchdog's patience.
        wake_s: how long it is not to be believed after its power comes.
        alike_s: how long after the start it is not asked, lest it answer what a core before this one asked.
    """

    __slots__ = (
        "again",
        "alike_s",
        "cut_off",
        "driver",
        "failures",
        "longest_s",
        "not_before_s",
        "up",
        "wake_s",
        "why",
    )

    def __init__(
        self,
        driver: PolledDriver,
        every_ns: int,
        longest_s: float,
        wake_s: float = 0.0,
        alike_s: float = 0.0,
    ) -> None:
        super().__init__(every_ns)
        self.driver = driver
        self.longest_s = longest_s
        self.wake_s = wake_s
        self.alike_s = alike_s
        self.not_before_s = 0.0  # of the event loop's clock
        self.failures = 0  # ticks in a row
        self.again = False  # this tick was asked for in vain once
        self.cut_off = False  # its line went down, and it was not heard since
        self.up: bool | None = None
        self.why = Quality.OVERRUN  # what a tick carries that cannot be asked any more


class PolledLine:
    """The one task that speaks on a request-and-reply line."""

    def __init__(
        self, line: Line, units: Sequence[PolledUnit], clock: Clock, observer: Observer, seed: int = 0
    ) -> None:
        self.id = line.name
        self._line = line
        self._units = list(units)
        self._schedule = Schedule(self._units)
        self._clock = clock
        self._observer = observer
        self._random = random.Random(seed or None)  # noqa: S311 -- jitter, no secret
        self._reopen = Reopen(self._random)
        self._jobs: deque[Callable[[], Awaitable[None]]] = deque()
        self._idle: asyncio.Future[None] | None = None  # while nothing is to be done
        self._steps = clock.steps
        self._noisy = False
        self.beat_s = 0.0
        self.patience_s = PATIENCE_S + sum(unit.longest_s for unit in self._units)
        self.up: bool | None = None

    async def run(self) -> None:
        """Poll until cancelled."""
        loop = asyncio.get_running_loop()
        for unit in self._units:  # after a power cut the instruments begin when the gateway does
            unit.not_before_s = max(unit.wake_s, loop.time() + unit.alike_s)
        self._align()
        try:
            while True:
                self.beat_s = loop.time()
                self._mark_noise()
                while self._jobs:
                    await self._jobs.popleft()()
                    self.beat_s = loop.time()
                if self._clock.steps != self._steps:
                    self._align()
                turn = self._schedule.turn(self._clock.schedule_ns())
                if turn is None:
                    await self._wait()
                elif turn.what is What.ASK:
                    await self._poll(turn.slot, turn.tick)
                else:
                    self._not_asked(turn.slot, turn.what, turn.tick, turn.ticks)
        finally:
            self._line.close()

    def set_every(self, device: str, every_ns: int) -> int:
        """Poll `device` at another period from now on; returns the first tick that belongs to it."""
        unit = next(each for each in self._units if each.driver.device == device)
        self._wake()
        return unit.set_every(every_ns, self._clock.schedule_ns())

    async def submit(self, work: Callable[[Line], Awaitable[T]]) -> T:
        """Have `work` done on the line ahead of routine polls; its result or its error comes back.

        Raises:
            WireError, LookupError, ValueError: from `work`.
            LineBusy: JOBS pieces of work are waiting already.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def job() -> None:
            try:
                await self._must_open()
                result = await work(self._line)
            except (DeviceError, LineDown, LookupError, ValueError) as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)
            finally:
                done.cancel()  # nothing happens if it is done; else nobody waits for ever

        if len(self._jobs) >= JOBS:
            raise LineBusy(f"line {self.id} has {JOBS} requests waiting; ask again later")
        self._jobs.append(job)
        self._wake()
        return await done

    @property
    def busy_s(self) -> float:
        """Seconds in which the line was in use since the start."""
        return self._line.busy_s

    # -- schedule ------------------------------------------------------------------------------------

    def _align(self) -> None:
        """Every device's next tick anew: at the start, and after the wall clock stepped."""
        self._steps = self._clock.steps
        self._schedule.align(self._clock.schedule_ns())
        now_s = asyncio.get_running_loop().time()
        for unit in self._units:
            if unit.not_before_s > now_s:
                self._rest(unit, unit.not_before_s - now_s)

    def _rest(self, unit: PolledUnit, real_s: float) -> None:
        until_ns = self._clock.schedule_ns() + int(real_s * NS * self._clock.rate)
        unit.rest_until = max(unit.rest_until, until_ns)

    def _not_asked(self, unit: PolledUnit, what: What, tick_ns: int, ticks: int) -> None:
        if what is What.BACK_OFF:
            self._missing(unit, tick_ns, Quality.BACK_OFF if unit.up is False else Quality.BUSY)
            unit.served()
            return
        if self._line.is_open:
            self._observer.overrun(self.id, ticks)
        self._missing(unit, tick_ns, unit.why if self._line.is_open else Quality.LINE_DOWN)
        unit.again, unit.why = False, Quality.OVERRUN

    async def _wait(self) -> None:
        """Until the next tick, the next piece of work, or the time to open a lost port."""
        now_ns = self._clock.schedule_ns()
        release_ns = self._schedule.next_release()
        wait_s = BEAT_S
        if release_ns is not None:
            wait_s = min(max(0.0, (release_ns - now_ns) / NS / self._clock.rate), wait_s)
        if not self._line.is_open:
            wait_s = min(max(0.0, self._reopen.next_s - asyncio.get_running_loop().time()), wait_s)
        loop = asyncio.get_running_loop()
        idle = self._idle = loop.create_future()
        alarm = loop.call_later(wait_s, self._wake)
        try:
            await idle
        finally:
            alarm.cancel()
            self._idle = None
        if not self._jobs:
            await self._opened()  # a port that is back is found without waiting for a tick

    def _wake(self) -> None:
        """Look again: at the time, or because there is work, or because the ticks have changed."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    # -- one poll ------------------------------------------------------------------------------------

    async def _poll(self, unit: PolledUnit, tick_ns: int) -> None:
        if not await self._opened():
            self._missing(unit, tick_ns, Quality.LINE_DOWN)
        elif await self._asked_in_vain(unit, tick_ns):
            return  # the tick stays due, behind its equals
        unit.again, unit.why = False, Quality.OVERRUN
        unit.served()

    async def _asked_in_vain(self, unit: PolledUnit, tick_ns: int) -> bool:
        """Ask once, and tell the tick; True where it is to be asked a second time instead."""
        loop = asyncio.get_running_loop()
        began_s, busy_s = loop.time(), self._line.busy_s
        try:
            frames = await unit.driver.poll(self._line, tick_ns)
        except LineDown as error:
            self._reopen.failed(loop.time())
            self._line_state(up=False, error=str(error))
            self._observer.device_error(self.id, unit.driver.device, "line-down")
            self._missing(unit, tick_ns, Quality.LINE_DOWN)
        except Busy:
            self._observer.device_error(self.id, unit.driver.device, "busy")
            self._answered(unit)
            self._missing(unit, tick_ns, Quality.BUSY)
        except DeviceError as error:
            reason = error.quality.name.lower().replace("_", "-")
            self._observer.device_error(self.id, unit.driver.device, reason)
            if self._deserves_a_second_try(unit):
                unit.again, unit.yields, unit.why = True, self._clock.schedule_ns(), error.quality
                return True
            took_s = loop.time() - began_s
            self._failed(unit, error, took_s, max(took_s, self._line.busy_s - busy_s))
            self._missing(unit, tick_ns, error.quality)
        else:
            self._observer.polled(self.id, loop.time() - began_s)
            if self._answered(unit):
                for frame in frames:
                    self._observer.take(frame)
            else:
                self._missing(unit, tick_ns, Quality.BUSY)
        return False

    def _deserves_a_second_try(self, unit: PolledUnit) -> bool:
        """One failure of a device that was well; where many fail at once the line has failed."""
        suspects = sum(each.up is True and each.yields > 0 for each in self._units)
        return unit.up is True and not unit.yields and suspects < SUSPECTS

    def _missing(self, unit: PolledUnit, tick_ns: int, why: Quality) -> None:
        _tell_missing(self._observer, self._clock, unit.driver.blocks, tick_ns, why)

    # -- health --------------------------------------------------------------------------------------

    def _answered(self, unit: PolledUnit) -> bool:
        """False where the answer proves only that power is back, and the device must wake first."""
        self._reopen.heard()
        was, unit.up = unit.up, True
        cut_off, unit.cut_off = unit.cut_off, False
        unit.failures, unit.rest_until, unit.yields = 0, 0, 0
        if was is not True or cut_off:
            self._observer.device_state(self.id, unit.driver.device, up=True, error="")
        if was is False and unit.wake_s:
            unit.not_before_s = asyncio.get_running_loop().time() + unit.wake_s
            self._rest(unit, unit.wake_s)
            return False
        return True

    def _failed(self, unit: PolledUnit, error: DeviceError, took_s: float, cost_s: float) -> None:
        """Count it; from the second failure on let the device rest, `cost_s` being what it took of the bus.

        Of that, `took_s` have passed; the rest is silence that the line still keeps.
        """
        unit.failures += 1
        unit.yields = self._clock.schedule_ns()
        silence_s = cost_s - took_s
        for each in self._units:
            if each.up is False and each is not unit:
                self._rest(each, silence_s + CROWD * cost_s)
        if unit.failures == 1 and not self._line.noisy:
            return
        self._rest(unit, silence_s + back_off(unit.failures, self._random.random()) * cost_s)
        was, unit.up = unit.up, False
        if was is not False and not unit.cut_off:
            self._observer.device_state(self.id, unit.driver.device, up=False, error=str(error))

    def _mark_noise(self) -> None:
        """Say once that a line is full of noise; when it is quiet again, ask everybody anew."""
        if self._line.noisy == self._noisy:
            return
        self._noisy = not self._noisy
        if self._noisy:
            log.warning("line %s is full of bytes that answer nothing: noise, or another master", self.id)
        else:
            log.info("line %s is quiet again", self.id)
            self._ask_anew()

    def _ask_anew(self) -> None:
        """What kept the devices silent is gone, perhaps: nobody rests any longer."""
        for unit in self._units:
            if unit.up is False:
                unit.rest_until = 0

    async def _must_open(self) -> None:
        if not await self._opened():
            raise LineDown(f"line {self.id} is down")

    async def _opened(self) -> bool:
        if self._line.is_open:
            return True
        now_s = asyncio.get_running_loop().time()
        if not self._reopen.is_time(now_s):
            return False
        try:
            await self._line.open()
        except LineDown as error:
            self._reopen.failed(asyncio.get_running_loop().time())
            self._line_state(up=False, error=str(error))
            self._cut_off(str(error))
            return False
        self._line_state(up=True, error="")
        self._ask_anew()
        return True

    def _cut_off(self, error: str) -> None:
        """A port that cannot be opened hides every device behind it. `up` stays: their power may be on."""
        for unit in self._units:
            told, unit.cut_off = unit.cut_off or unit.up is False, True
            if not told:
                self._observer.device_state(self.id, unit.driver.device, up=False, error=error)

    def _line_state(self, *, up: bool, error: str) -> None:
        if self.up is not up:
            self.up = up
            if up:
                log.info("line %s is open", self.id)
            else:
                log.warning("line %s is down: %s", self.id, error)


def _tell_missing(
    observer: Observer, clock: Clock, blocks: Sequence[Block], tick_ns: int, why: Quality
) -> None:
    for block in blocks:
        observer.take(Frame.missing(block, tick_ns, clock.wall_ns(), clock.monotonic_ns(), why))


class StreamLine:
    """Listens to one device that sends sentences by itself."""

    def __init__(
        self, name: str, wire: Wire, driver: StreamDriver, every_ns: int, clock: Clock, observer: Observer
    ) -> None:
        self.id = name
        self._wire = wire
        self._driver = driver
        self._slot = Slot(every_ns)
        self._clock = clock
        self._steps = clock.steps
        self._observer = observer
        self._reopen = Reopen(random.Random())  # noqa: S311 -- jitter, no secret
        self._ticks_heard: deque[int] = deque(maxlen=8)
        self._changed = asyncio.Event()  # its ticks have: look again when this one closes
        self._quiet_ticks = 0
        self._is_open = False
        self.beat_s = 0.0
        self.patience_s = PATIENCE_S
        self._up: bool | None = None

    async def run(self) -> None:
        """Listen until cancelled; after each tick say whether anything came for it."""
        self._align()
        try:
            while True:
                latest_ns = self._slot.latest(self._clock.schedule_ns())
                if self._clock.steps != self._steps or latest_ns - self._slot.due > 8 * self._slot.every:
                    self._align()
                await self._listen()
                self._close_tick(self._slot.due)
                self._slot.served()
        finally:
            self._wire.close()

    def set_every(self, device: str, every_ns: int) -> int:
        """Thin what `device` says to another period; returns the first tick that belongs to it."""
        assert device == self._driver.device, f"{self.id} carries {self._driver.device} alone"
        since_ns = self._slot.set_every(every_ns, self._clock.schedule_ns())
        self._driver.rhythm.change(every_ns, since_ns)
        self._changed.set()
        return since_ns

    def _align(self) -> None:
        now_ns = self._clock.schedule_ns()
        self._steps = self._clock.steps
        self._slot.align(now_ns)
        self._slot.serve(self._slot.latest(now_ns))

    async def _listen(self) -> None:
        """Until the tick closes; meanwhile open what is not open."""
        while (
            self._clock.steps == self._steps
            and (left_ns := self._slot.closes() - self._clock.schedule_ns()) > 0
        ):
            self.beat_s = asyncio.get_running_loop().time()
            await self._open()
            most_s = BEAT_S if self._is_open else REOPEN_FIRST_S
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_ns / NS / self._clock.rate, most_s)):
                    await self._changed.wait()

    def _heard(self, data: bytes) -> None:
        self._told(self._driver.feed(data))

    def _told(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._reopen.heard()
            self._ticks_heard.append(frame.tick_ns)
            self._observer.take(frame)

    def _lost(self, error: LineDown) -> None:
        self._is_open = False
        self._reopen.failed(asyncio.get_running_loop().time())
        log.warning("line %s is down: %s", self.id, error)
        self._observer.device_error(self.id, self._driver.device, "line-down")

    async def _open(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._is_open or not self._reopen.is_time(now_s):
            return
        try:
            await self._wire.open(self._heard, self._lost)
        except LineDown as error:
            self._reopen.failed(now_s)
            self._observer.device_error(self.id, self._driver.device, "line-down")
            self._state(up=False, error=str(error))
        else:
            self._is_open = True
            log.info("line %s is open", self.id)

    def _close_tick(self, tick_ns: int) -> None:
        """Half a period after its end a tick without a solution is missing: silence is the only sign."""
        self._told(self._driver.due())
        if tick_ns in self._ticks_heard:
            self._quiet_ticks = 0
            self._state(up=True, error="")
            return
        self._quiet_ticks += 1
        why = Quality.NO_REPLY if self._is_open else Quality.LINE_DOWN
        self._observer.device_error(self.id, self._driver.device, why.name.lower().replace("_", "-"))
        _tell_missing(self._observer, self._clock, self._driver.blocks, tick_ns, why)
        if self._quiet_ticks > 1:
            self._state(up=False, error="no sentence came" if self._is_open else "the port is gone")

    def _state(self, *, up: bool, error: str) -> None:
        if self._up is not up:
            self._up = up
            self._observer.device_state(self.id, self._driver.device, up=up, error=error)
