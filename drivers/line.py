"""One shared line: whose turn it is, the deadline, and the silence after a failure.

A request has one total deadline; bytes that merely trickle in do not move it. Whatever ends a request
before its reply (deadline, cancelled caller, lost wire) leaves a reply that may still come. The line
then stays silent until the device's slowest reply must have arrived and the line is quiet, and only then
gives the next turn. The caller that failed does not wait for this; the next one does. The late reply
itself, recognised, ends the silence early. Where a reply names no request (RTU) it would else be taken
for another's. Where it does (TCP) it would not; but behind the address there may be a gateway that is
still waiting for a dead unit, and whoever is asked meanwhile is asked behind that one. Only urgent
requests go out there all the same.

What no receiver can tell apart: a reply that comes later than `slowest_reply_s`, or a second copy of a
reply that comes after the next request went out, when that next request asks the same unit for the same
function and count. Against it there are only a true `slowest_reply` in the profile, and blocks of
different length.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from drivers.contract import BadReply, LineDown, NoReply, WireError
from drivers.framing import error_of
from drivers.timer import timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from drivers.framing import Framing
    from drivers.timer import Timer
    from drivers.wire import Wire

_FAST_CHARACTER_S = 11 / 19200
_FAST_SILENCE_S = 0.00175  # Modbus over Serial Line 1.02, 2.5.1.1: fixed above 19200 baud
_RESYNC_QUIET_S = 0.005
_LATENCY_S = 0.02  # an adapter may keep a received byte for 16 ms
_NOISE_PATIENCE_S = 1.0
_HELD_S = 0.5  # how long a serial server may take to pass on what it has kept, beside the round trip
_STRAY_SHARE = 0.25  # of the wire's time; more than that fills the bucket of stray bytes
_STRAY_MOST_S = 1.0


class _Waiter:
    """One caller in the queue, the silence its device wants, and whether it goes before a hold ends."""

    __slots__ = ("gap_s", "hurries", "since", "turn")

    def __init__(
        self, turn: asyncio.Future[None], gap_s: float, since: float, *, hurries: bool = False
    ) -> None:
        self.turn, self.gap_s, self.since, self.hurries = turn, gap_s, since, hurries


class Line:
    """The one owner of a port. Deadlines are real time, kept by the event loop.

    Callers queue: urgent ones (a person's read, an output) before routine polls, each lane in order. The
    queue is as long as there are tasks that poll on this line; nothing else fills it.

    Args:
        wire: the transport; opened and closed by this line only.
        framing: how requests and replies look on it.
        name: the line's id, for messages.
        paced: keep the silence between frames and reckon with the time characters take. False only on
            the bench above rate 1.

    Attributes:
        on_trace: called with ("tx" | "rx", UTC in ns, bytes) for everything sent and received.
        requests, bytes_sent, bytes_received: counts since the start.
        timeouts, bad_replies: requests that ended so.
        resyncs: silences held after a failure.
        busy_s: seconds in which the line was taken by a request or by such a silence.
        told: what drivers broadcast on it: request -> the tick it was for, loop time at which it went out.
    """

    def __init__(self, wire: Wire, framing: Framing, name: str, *, paced: bool = True) -> None:
        self.name = name
        self.on_trace: Callable[[str, int, bytes], None] | None = None
        self.requests = self.bytes_sent = self.bytes_received = 0
        self.timeouts = self.bad_replies = self.resyncs = 0
        self.busy_s = 0.0
        self.told: dict[bytes, tuple[int, float]] = {}
        self.is_open = False
        self._wire = wire
        self._framing = framing
        self._paced = paced
        self._latency_s = 0.0 if framing.names_requests else _LATENCY_S
        self._character_s = wire.character_s if paced else 0.0
        self._silence_s = 3.5 * self._character_s
        if 0.0 < self._character_s < _FAST_CHARACTER_S:
            self._silence_s = _FAST_SILENCE_S
        self._urgent: deque[_Waiter] = deque()
        self._routine: deque[_Waiter] = deque()
        self._taken = False
        self._pending: asyncio.Future[bytes] | None = None
        self._deadline = 0.0  # loop time; of the pending request
        self._alarm: asyncio.TimerHandle | None = None  # looks at the deadline, at the latest when it comes
        self._grant_timer: asyncio.TimerHandle | None = None
        self._fine: Timer | None = None  # while a paced line is open
        self._hold_until = 0.0  # loop time; a reply to an abandoned request may come until then
        self._quiet_since = 0.0  # loop time of the last byte, sent or received
        self._suspicious = False  # bytes that nobody asked for may be about
        self._stray_s, self._stray_at = 0.0, 0.0  # wire time of bytes nobody asked for, leaking away
        self._received_before = 0  # `bytes_received` when the request under way was sent

    @property
    def broadcasts(self) -> bool:
        """Whether unit 0 means everybody; behind Modbus TCP it is a unit like others."""
        return not self._framing.names_requests

    @property
    def noisy(self) -> bool:
        """Whether bytes that answer nothing fill a quarter of the wire's time and more, for seconds."""
        return self._stray_s > 0.0 and self._strays(0) > _STRAY_MOST_S / 2

    async def open(self) -> None:
        """Open the port; nothing happens if it is open.

        Raises:
            LineDown: not possible now.
        """
        if self.is_open:
            return
        self._loop = asyncio.get_running_loop()
        self._framing.reset()
        begun = self._loop.time()
        await self._wire.open(self._on_bytes, self._on_loss)
        if self._silence_s:
            self._fine = timer(self._loop, self._fine_came)
        self._quiet_since = now = self._loop.time()
        if self._wire.keeps_bytes and not self._framing.names_requests:
            # What a serial server still holds for whoever asked before, it sends a round trip after this one.
            self._suspicious = True
            self._hold_until = max(self._hold_until, now + _HELD_S + (now - begun))
        self.is_open = True

    def close(self) -> None:
        """Let go of the port; whoever waits gets LineDown."""
        self._wire.close()
        if self.is_open:
            self._on_loss(LineDown(f"line {self.name} was closed"))

    async def transact(
        self,
        unit: int,
        pdu: bytes,
        *,
        reply_bytes: int,
        timeout_s: float,
        slowest_reply_s: float,
        gap_s: float = 0.0,
        turnaround_s: float = 0.0,
        urgent: bool = False,
    ) -> bytes:
        """Ask once; never asks again by itself.

        Args:
            unit: 0..255; on a serial line 0 is a broadcast, which nobody answers: the result is empty.
            pdu: function code and data.
            reply_bytes: length of the reply wanted, from the function code on, without checksum.
            timeout_s: how long the device may take, beyond what the bytes themselves take on the wire.
            slowest_reply_s: from the request's last byte, the latest moment a reply can still come.
            gap_s: silence on the line before this request (3.5 characters at least).
            turnaround_s: the rest the device needs after its reply, and everybody after a broadcast.
            urgent: before all routine requests.

        Raises:
            NoReply, BadReply, Refused, Busy, LineDown: see drivers.contract.
        """
        if not self.is_open:
            raise LineDown(f"line {self.name} is not open")
        begun = self._loop.time()
        gap_s = gap_s if self._paced else 0.0
        if self._is_free(gap_s, begun):
            self._taken = True
        else:
            await self._turn(gap_s, begun, urgent=urgent)
            begun = self._loop.time()
        try:
            if not self.is_open:  # lost in the instant between the turn and this line
                raise LineDown(f"line {self.name} is not open")
            if unit == 0 and self.broadcasts:
                self._send(self._framing.request(unit, pdu, 0))
                if not self.is_open:
                    raise LineDown(f"line {self.name} was lost while everybody was told")
                return b""
            adu = self._framing.request(unit, pdu, reply_bytes)
            reply = await self._exchange(adu, reply_bytes, timeout_s, slowest_reply_s)
        finally:
            self.busy_s += self._loop.time() - begun
            if turnaround_s and self._paced:
                self._hold_until = max(self._hold_until, self._quiet_since + turnaround_s)
            self._taken = False
            self._arm()
        if (error := error_of(unit, reply)) is not None:
            raise error
        return reply

    async def _exchange(
        self, adu: bytes, reply_bytes: int, timeout_s: float, slowest_reply_s: float
    ) -> bytes:
        pending: asyncio.Future[bytes] = self._loop.create_future()
        self._pending = pending
        self._suspicious = False
        self._send(adu)
        sent = self._quiet_since
        reply_wire_s = (reply_bytes + 3) * self._character_s
        self._deadline = sent + timeout_s + reply_wire_s
        # One timer serves many requests: nearly every request is answered long before its deadline.
        if self._alarm is None or self._alarm.when() > self._deadline:
            self._set_alarm()
        try:
            return await pending
        except (WireError, asyncio.CancelledError):
            if not self._framing.names_requests or (self.is_open and self._framing.owes):
                self._resync(sent + slowest_reply_s + reply_wire_s + self._latency_s)
            raise
        finally:
            self._pending = None

    def _send(self, adu: bytes) -> None:
        if self.on_trace is not None:
            self.on_trace("tx", time.time_ns(), adu)
        self.requests += 1
        self._received_before = self.bytes_received
        self.bytes_sent += len(adu)
        self._quiet_since = self._loop.time() + len(adu) * self._character_s
        self._wire.write(adu)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(self._deadline, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._alarm = None
        if self._pending is None or self._pending.done():
            return
        if self._deadline > self._loop.time():  # of a later request than the one it was set for
            self._set_alarm()
        else:
            self._expire(self._pending)

    def _expire(self, pending: asyncio.Future[bytes]) -> None:
        heard = self._framing.heard
        if heard:
            self.bad_replies += 1
            self._strays(self.bytes_received - self._received_before)
            pending.set_exception(BadReply(f"no valid answer on line {self.name}, only: {heard.hex(' ')}"))
        else:
            self.timeouts += 1
            pending.set_exception(NoReply(f"no answer on line {self.name}"))

    def _resync(self, until: float) -> None:
        self.resyncs += 1
        self._suspicious = True
        self._hold_until = until
        self.busy_s += max(0.0, until - self._loop.time())

    def _strays(self, count: int) -> float:
        """Take so many stray bytes into account; seconds of wire time in the leaky bucket."""
        now = self._loop.time()
        left_s = max(0.0, self._stray_s - _STRAY_SHARE * (now - self._stray_at))
        self._stray_s = min(left_s + count * self._character_s, _STRAY_MOST_S)
        self._stray_at = now
        return self._stray_s

    # What the wire calls.

    def _on_bytes(self, data: bytes) -> None:
        self._quiet_since = now = self._loop.time()
        self.bytes_received += len(data)
        if self.on_trace is not None:
            self.on_trace("rx", time.time_ns(), data)
        pending = self._pending
        try:
            reply = self._framing.feed(data)
        except LineDown as down:
            self._wire.close()
            self._on_loss(down)
            return
        except BadReply as bad:
            if pending is not None and not pending.done():
                self.bad_replies += 1
                pending.set_exception(bad)
            return
        if pending is None or pending.done():
            self._strays(len(data))
            self._suspicious = not self._framing.names_requests
            if reply is not None and self._hold_until > now:
                # The reply that was given up: nothing else can come, so the silence may end.
                self.busy_s -= self._hold_until - now
                self._hold_until = now
                self._arm()
        elif reply is not None:
            pending.set_result(reply)

    def _on_loss(self, down: LineDown) -> None:
        self.is_open = False
        self.told.clear()  # perhaps nobody heard it
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._fine is not None:
            self._fine.close()
            self._fine = None
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(down)
        for lane in (self._urgent, self._routine):
            for waiter in lane:
                if not waiter.turn.done():
                    waiter.turn.set_exception(down)
            lane.clear()

    # Whose turn it is.

    def _is_free(self, gap_s: float, now: float) -> bool:
        """Nobody asks or waits, nothing strange was heard, and the line has been quiet for long enough."""
        if self._taken or self._suspicious or self._urgent or self._routine:
            return False
        return now >= self._hold_until and now >= self._quiet_since + max(gap_s, self._silence_s)

    async def _turn(self, gap_s: float, since: float, *, urgent: bool) -> None:
        hurries = urgent and self._framing.names_requests  # a siren waits for no dead unit's reply
        waiter = _Waiter(self._loop.create_future(), gap_s, since, hurries=hurries)
        (self._urgent if urgent else self._routine).append(waiter)
        self._arm()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self._taken = False  # the turn and the cancellation came together: pass it on
                self._arm()
            raise

    def _ready_at(self, waiter: _Waiter) -> float:
        """Loop time from which the next request may go out.

        Quiet is waited for with patience only: on a line that is never quiet the request is tried, and
        its checksum decides. The hold is kept in any case.
        """
        hold_until = 0.0 if waiter.hurries else self._hold_until
        quiet_s = max(waiter.gap_s, self._silence_s, _RESYNC_QUIET_S if self._suspicious else 0.0)
        patience = max(waiter.since, hold_until) + waiter.gap_s + _NOISE_PATIENCE_S
        return max(hold_until, min(self._quiet_since + quiet_s, patience))

    def _arm(self) -> None:
        """Look again when the first in the queue may go."""
        if self._grant_timer is not None:
            self._grant_timer.cancel()
            self._grant_timer = None
        for lane in (self._urgent, self._routine):
            while lane and lane[0].turn.done():  # cancelled while waiting
                lane.popleft()
        lane = self._urgent or self._routine
        if lane and not self._taken:
            now = self._loop.time()
            ready = self._ready_at(lane[0])
            if self._fine is None or ready <= now:
                self._grant_timer = self._loop.call_at(ready, self._grant)
            else:
                self._fine.set(ready)

    def _fine_came(self) -> None:
        """The gap is over, to the microsecond.

        Still by a timer of the loop, of zero seconds: asyncio runs timers after it has read what the wire
        holds, so nothing that came while the program was busy elsewhere is younger than the request.
        """
        if self._grant_timer is None:
            self._grant_timer = self._loop.call_at(0.0, self._grant)

    def _grant(self) -> None:
        self._grant_timer = None
        lane = self._urgent or self._routine
        if lane and not lane[0].turn.done() and self._loop.time() >= self._ready_at(lane[0]):
            self._taken = True
            lane.popleft().turn.set_result(None)
        else:
            self._arm()
