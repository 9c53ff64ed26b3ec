"""One task per line owns it: schedule, read, back off, reopen.

`PolledLine` asks devices in turn. Ticks are multiples of a device's period on the clock's schedule; the
poll with the earliest deadline (its tick plus its period) goes first. A poll that could not begin before
its next tick is an overrun: the ticks in between are counted, told as missing and never piled up, but a
round that has begun is finished, so that what the devices of one line say of a tick stays together. Work
asked for by people or outputs goes ahead of routine polls and takes its turn in the same task, so nobody
else ever touches the line.

A device that stays silent is asked less and less: each attempt costs the bus up to `cost_s`, so the next
waits 2, 4, ... 20 times that (with jitter), which bounds a dead device to a twentieth of the bus.

`StreamLine` listens to a device that speaks by itself, and says so for each tick in which nothing came.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from daemon.clock import NS
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
BACK_OFF_MOST = 20  # a silent device is asked again after at most so many times what asking costs
REOPEN_FIRST_S, REOPEN_MOST_S = 0.2, 5.0
BEAT_S = 5.0  # a line's task shows at least so often that it is alive


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
        self._next_s = 0.0

    def is_time(self, now_s: float) -> bool:
        return now_s >= self._next_s

    def failed(self, now_s: float) -> None:
        self._next_s = now_s + self._random.uniform(0.0, self._delay_s)
        self._delay_s = min(2 * self._delay_s, REOPEN_MOST_S)

    def heard(self) -> None:
        self._delay_s = REOPEN_FIRST_S
        self._next_s = 0.0


@dataclass(slots=True)
class PolledUnit:
    """A device on a line, and what the poller knows of it.

    `cost_s` is the bus time (real seconds) that an unanswered request takes: the longer of its deadline and
    the silence kept after it.
    """

    driver: PolledDriver
    every_ns: int
    cost_s: float
    due_ns: int = 0
    failures: int = 0
    ask_again_s: float = 0.0
    up: bool | None = field(default=None)

    @property
    def deadline_ns(self) -> int:
        return self.due_ns + self.every_ns


class PolledLine:
    """The one task that speaks on a request-and-reply line."""

    def __init__(
        self, line: Line, units: Sequence[PolledUnit], clock: Clock, observer: Observer, seed: int = 0
    ) -> None:
        self.id = line.name
        self._line = line
        self._units = list(units)
        self._clock = clock
        self._observer = observer
        self._random = random.Random(seed or None)  # noqa: S311 -- jitter, no secret
        self._reopen = Reopen(self._random)
        self._jobs: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(JOBS)
        self._round_ns = 0
        self._steps = clock.steps
        self.beat_s = 0.0
        self.patience_s = 6 * BEAT_S + sum(unit.cost_s for unit in self._units)
        self.up: bool | None = None

    async def run(self) -> None:
        """Poll until cancelled."""
        self._align()
        try:
            while True:
                self.beat_s = asyncio.get_running_loop().time()
                while not self._jobs.empty():
                    await self._jobs.get_nowait()()
                unit = self._next_due()
                if unit is None:
                    await self._wait()
                else:
                    await self._poll(unit)
        finally:
            self._line.close()

    async def submit(self, work: Callable[[Line], Awaitable[T]]) -> T:
        """Have `work` done on the line ahead of routine polls; its result or its WireError comes back.

        Raises:
            LineBusy: JOBS pieces of work are waiting already.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def job() -> None:
            try:
                await self._must_open()
                result = await work(self._line)
            except (DeviceError, LineDown) as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            raise LineBusy(f"line {self.id} has {JOBS} requests waiting; ask again later") from None
        return await done

    @property
    def busy_s(self) -> float:
        """Seconds in which the line was in use since the start."""
        return self._line.busy_s

    # -- schedule ------------------------------------------------------------------------------------

    def _next_due(self) -> PolledUnit | None:
        if self._clock.steps != self._steps:
            self._align()
        now_ns = self._clock.schedule_ns()
        while True:
            unit = None
            for each in self._units:
                if each.due_ns <= now_ns and (unit is None or each.deadline_ns < unit.deadline_ns):
                    unit = each
            if unit is None:
                return None
            latest_ns = now_ns - now_ns % unit.every_ns
            if unit.due_ns == self._round_ns or latest_ns <= unit.due_ns:
                self._round_ns = unit.due_ns
                return unit
            self._skip_to(unit, latest_ns)

    def _skip_to(self, unit: PolledUnit, latest_ns: int) -> None:
        ticks = (latest_ns - unit.due_ns) // unit.every_ns
        self._observer.overrun(self.id, ticks)
        self._missing(unit.driver.blocks, unit.due_ns, Quality.OVERRUN)
        unit.due_ns = latest_ns

    def _align(self) -> None:
        """Every device's next tick anew: at the start, and after the wall clock stepped."""
        now_ns = self._clock.schedule_ns()
        self._steps = self._clock.steps
        for unit in self._units:
            unit.due_ns = now_ns - now_ns % unit.every_ns + unit.every_ns

    async def _wait(self) -> None:
        """Until the next tick or the next piece of work."""
        now_ns = self._clock.schedule_ns()
        next_ns = min((unit.due_ns for unit in self._units), default=now_ns + NS)
        wait_s = min(max(0.0, (next_ns - now_ns) / NS / self._clock.rate), BEAT_S)
        try:
            async with asyncio.timeout(wait_s):
                job = await self._jobs.get()
        except TimeoutError:
            return
        await job()

    # -- one poll ------------------------------------------------------------------------------------

    async def _poll(self, unit: PolledUnit) -> None:
        tick_ns = unit.due_ns
        try:
            if not await self._opened():
                self._missing(unit.driver.blocks, tick_ns, Quality.LINE_DOWN)
            elif asyncio.get_running_loop().time() < unit.ask_again_s:
                self._missing(unit.driver.blocks, tick_ns, Quality.BACK_OFF)
            else:
                await self._ask(unit, tick_ns)
        finally:
            unit.due_ns += unit.every_ns

    async def _ask(self, unit: PolledUnit, tick_ns: int) -> None:
        loop = asyncio.get_running_loop()
        attempts = 2 if unit.failures == 0 and unit.up else 1  # one retry for a device that was well
        for attempt in range(attempts):
            began_s = loop.time()
            try:
                frames = await unit.driver.poll(self._line, tick_ns)
            except LineDown as error:
                self._reopen.failed(loop.time())
                self._line_state(up=False, error=str(error))
                self._observer.device_error(self.id, unit.driver.device, "line-down")
                self._missing(unit.driver.blocks, tick_ns, Quality.LINE_DOWN)
                return
            except Busy:
                self._observer.device_error(self.id, unit.driver.device, "busy")
                self._answered(unit)
                self._missing(unit.driver.blocks, tick_ns, Quality.BUSY)
                return
            except DeviceError as error:
                self._observer.device_error(
                    self.id, unit.driver.device, error.quality.name.lower().replace("_", "-")
                )
                if attempt + 1 == attempts:
                    self._failed(unit, error)
                    self._missing(unit.driver.blocks, tick_ns, error.quality)
            else:
                self._observer.polled(self.id, loop.time() - began_s)
                self._answered(unit)
                for frame in frames:
                    self._observer.take(frame)
                return

    def _missing(self, blocks: Sequence[Block], tick_ns: int, why: Quality) -> None:
        _tell_missing(self._observer, self._clock, blocks, tick_ns, why)

    # -- health --------------------------------------------------------------------------------------

    def _answered(self, unit: PolledUnit) -> None:
        self._reopen.heard()
        unit.failures = 0
        unit.ask_again_s = 0.0
        if unit.up is not True:
            unit.up = True
            self._observer.device_state(self.id, unit.driver.device, up=True, error="")

    def _failed(self, unit: PolledUnit, error: DeviceError) -> None:
        unit.failures += 1
        if unit.failures > 1:
            times = min(2 ** (unit.failures - 1), BACK_OFF_MOST)
            pause_s = times * unit.cost_s * self._random.uniform(0.75, 1.0)
            unit.ask_again_s = asyncio.get_running_loop().time() + pause_s
        if unit.up is not False and unit.failures > 1:
            unit.up = False
            self._observer.device_state(self.id, unit.driver.device, up=False, error=str(error))

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
            return False
        self._line_state(up=True, error="")
        return True

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
        self._every_ns = every_ns
        self._clock = clock
        self._observer = observer
        self._reopen = Reopen(random.Random())  # noqa: S311 -- jitter, no secret
        self._ticks_heard: deque[int] = deque(maxlen=8)
        self._quiet_ticks = 0
        self._is_open = False
        self.beat_s = 0.0
        self.patience_s = 6 * BEAT_S
        self._up: bool | None = None

    async def run(self) -> None:
        """Listen until cancelled; after each tick say whether anything came for it."""
        try:
            while True:
                now_ns = self._clock.schedule_ns()
                tick_ns = now_ns - now_ns % self._every_ns
                await self._listen_until(tick_ns + self._every_ns + self._every_ns // 2)
                self._close_tick(tick_ns)
        finally:
            self._wire.close()

    async def _listen_until(self, end_ns: int) -> None:
        """Until an instant of the schedule; meanwhile open what is not open."""
        steps = self._clock.steps
        while self._clock.steps == steps and (left_ns := end_ns - self._clock.schedule_ns()) > 0:
            self.beat_s = asyncio.get_running_loop().time()
            await self._open()
            most_s = BEAT_S if self._is_open else REOPEN_FIRST_S
            await asyncio.sleep(min(left_ns / NS / self._clock.rate, most_s))

    def _heard(self, data: bytes) -> None:
        for frame in self._driver.feed(data):
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
