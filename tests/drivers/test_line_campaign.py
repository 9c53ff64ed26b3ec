"""Thousands of random faults on pseudo-terminals: no value is ever another question's.

`COUNT=1000000 make campaign` runs the long version. The same faults with the silence taken away must
find wrong values, or the campaign would prove nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

import pytest

from drivers.contract import WireError
from drivers.framing import RtuFraming
from drivers.line import Line
from drivers.wire import SerialWire
from tests.drivers.rtu_server import Mode, RtuServer, adu, answer, data, read

TIMEOUT_S = 0.01
SLOWEST_S = 0.03
LATEST_S = SLOWEST_S + 0.02  # with what the line allows the machine for handing a byte over
RIGHT, MISATTRIBUTED, INVENTED = "right", "misattributed", "invented"
HELD_BACK, COINCIDENCE = (
    "kept back by the machine",
    "noise with a right checksum",
)  # nobody can tell these apart

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from tests.conftest import Figure

Plan = list[tuple[float, bytes]]


class Faults:
    """Draws what a device does with one request; a third of the requests are answered as they should be."""

    def __init__(self, seed: int, only: Sequence[str] = ()) -> None:
        self.random = random.Random(seed)
        names = [f"fault_{name}" for name in only] or [n for n in dir(self) if n.startswith("fault_")]
        self.foreign: deque[bytes] = deque(maxlen=60)
        self.kinds = [getattr(self, name) for name in names]

    def plan(self, request: bytes) -> Plan:
        fault = self.random.choice(self.kinds) if self.random.random() < 0.67 else None
        return fault(request) if fault else [(0.0, answer(request))]

    def _noise(self, most: int = 6) -> bytes:
        return self.random.randbytes(self.random.randint(1, most))

    def fault_silent(self, request: bytes) -> Plan:
        return []

    def fault_late(self, request: bytes) -> Plan:
        return [(self.random.uniform(TIMEOUT_S, SLOWEST_S), answer(request))]

    def fault_late_and_noisy(self, request: bytes) -> Plan:
        late_s = self.random.uniform(TIMEOUT_S, SLOWEST_S)
        return [(self.random.uniform(0.0, late_s), self._noise()), (late_s, self._noise() + answer(request))]

    def fault_just_in_time(self, request: bytes) -> Plan:
        return [(self.random.uniform(0.7, 1.2) * TIMEOUT_S, answer(request))]

    def fault_doubled(self, request: bytes) -> Plan:
        return [(0.0, answer(request) * 2)]

    def fault_foreign_right_behind(self, request: bytes) -> Plan:
        """A frame of the same unit, function and count that nobody asked for, before the next request."""
        foreign = adu(request[0], request[1:2] + b"\x04" + self.random.randbytes(4))
        self.foreign.append(foreign)
        return [(0.0, answer(request) + foreign)]

    def fault_other_master(self, request: bytes) -> Plan:
        """Another master asks another unit, and is answered, before our answer comes."""
        other = adu(request[0] ^ 3, request[1:6])
        return [(0.0, other + answer(other)), (0.002, answer(request))]

    def fault_torn(self, request: bytes) -> Plan:
        reply = answer(request)
        cut = self.random.randint(1, len(reply) - 1)
        return [(0.0, reply[:cut]), (self.random.uniform(0.0, 2 * TIMEOUT_S), reply[cut:])]

    def fault_trickling(self, request: bytes) -> Plan:
        step_s = self.random.uniform(0.0, 0.8) * TIMEOUT_S
        return [(i * step_s, bytes((b,))) for i, b in enumerate(answer(request))]

    def fault_truncated(self, request: bytes) -> Plan:
        return [(0.0, answer(request)[: self.random.randint(1, 8)])]

    def fault_noise_before(self, request: bytes) -> Plan:
        return [(0.0, self._noise() + answer(request))]

    def fault_noise_that_looks_like_a_head(self, request: bytes) -> Plan:
        return [(0.0, answer(request)[: self.random.randint(1, 4)] + answer(request))]

    def fault_echo(self, request: bytes) -> Plan:
        return [(0.0, request), (0.001, answer(request))]

    def fault_echo_and_late(self, request: bytes) -> Plan:
        """The adapter hears itself, and the device is as late as it may be."""
        return [(0.0, request), (self.random.uniform(TIMEOUT_S, SLOWEST_S), answer(request))]

    def fault_late_exception(self, request: bytes) -> Plan:
        refusal = adu(request[0], bytes((request[1] | 0x80, self.random.choice((2, 6, 11)))))
        return [(self.random.uniform(TIMEOUT_S, SLOWEST_S), refusal)]

    def fault_bad_checksum(self, request: bytes) -> Plan:
        reply = bytearray(answer(request))
        reply[self.random.randrange(len(reply))] ^= 1 << self.random.randrange(8)
        return [(0.0, bytes(reply))]

    def fault_another_unit(self, request: bytes) -> Plan:
        other = adu(request[0] ^ 7, answer(request)[1:-2])
        return [(0.0, other), (0.002, answer(request))][: self.random.randint(1, 2)]

    def fault_another_function(self, request: bytes) -> Plan:
        other = adu(request[0], bytes((request[1] ^ 7,)) + answer(request)[2:-2])
        return [(0.0, other)]

    def fault_another_count(self, request: bytes) -> Plan:
        reply = answer(request)
        return [(0.0, adu(request[0], bytes((request[1], reply[2] + 2)) + reply[3:-2] + b"\0\0"))]

    def fault_exception(self, request: bytes) -> Plan:
        return [(0.0, adu(request[0], bytes((request[1] | 0x80, self.random.choice((2, 5, 6))))))]


class Witness:
    """What was truly sent and when, beside what the line heard: of what kind a wrong value is.

    The device of this campaign never speaks later than its slowest reply, and its pseudo-terminal is no slow one. Two
    things no receiver can tell from an answer, and they are counted by themselves: bytes that the machine kept back,
    be it beyond what any line can wait for, be it until after the next question; and noise whose checksum is right.
    """

    def __init__(self, server: RtuServer) -> None:
        self._now = asyncio.get_running_loop().time
        self._sent: deque[tuple[float, float, bytes]] = deque(maxlen=60)  # question's time, its own, bytes
        self._heard = bytearray()
        self._asked_s = 0.0
        self._late_s = float("-inf")
        self._send, server.send = server.send, self.send  # type: ignore[method-assign]

    def send(self, data: bytes, not_after: float = float("inf")) -> None:
        self._sent.append((not_after - SLOWEST_S, self._now(), data))
        self._send(data, not_after)

    def trace(self, direction: str, bytes_: bytes, now_s: float) -> None:
        if direction == "tx":
            self._asked_s = now_s
            self._heard.clear()
            return
        self._heard += bytes_
        late = (
            len(piece) > 3 and piece in bytes_ and now_s - asked > LATEST_S for asked, _, piece in self._sent
        )
        if any(late):
            self._late_s = now_s

    def kind(self, frame: bytes, earlier: set[bytes], foreign: Container[bytes]) -> str:
        """Of a wrong value in `frame`; `earlier` are the true data of the questions before."""
        if frame not in self._heard:
            return INVENTED  # it never came over the wire
        if frame[3:-2] not in earlier and frame not in foreign:
            return COINCIDENCE  # nobody meant it
        if self._completed_s(frame) < self._asked_s or self._now() - self._late_s < 0.2:
            return HELD_BACK
        return MISATTRIBUTED if frame[3:-2] in earlier else INVENTED

    def _completed_s(self, frame: bytes) -> float:
        """When the last byte of this frame was sent, in one piece or in several, the last time."""
        stream, completed_s = b"", float("-inf")
        for _, at, piece in self._sent:
            before = len(stream)
            stream += piece
            if stream.rfind(frame) + len(frame) > max(before, len(frame) - 1):
                completed_s = at
        return completed_s


async def one_line(seed: int, count: int, only: Sequence[str] = ()) -> Counter[str]:
    """`count` requests, nearly all of one shape, so that only the silence can tell their replies apart."""
    server = RtuServer()
    server.last_moment_s = SLOWEST_S
    faults = Faults(seed, only)
    server.plan, witness = faults.plan, Witness(server)
    line = Line(SerialWire(server.port, Mode()), RtuFraming(), f"line {seed}")
    await line.open()
    server.watch(line, witness.trace)
    tally: Counter[str] = Counter()
    true_of_another: set[bytes] = set()
    for _ in range(count):
        at, unit, fn = faults.random.randrange(0xFF00), 1, faults.random.choice((3, 3, 3, 4))
        request = line.transact(
            unit, read(fn, at, 2), reply_bytes=6, timeout_s=TIMEOUT_S, slowest_reply_s=SLOWEST_S
        )
        try:
            if faults.random.random() < 0.03:
                async with asyncio.timeout(faults.random.uniform(0.0, TIMEOUT_S)):
                    reply = await request
            else:
                reply = await request
        except WireError as error:
            tally[type(error).__name__] += 1
        except TimeoutError:
            tally["cancelled"] += 1
        else:
            right = reply[2:] == data(unit, fn, at, 2)
            tally[RIGHT if right else witness.kind(adu(unit, reply), true_of_another, faults.foreign)] += 1
        true_of_another.add(data(unit, fn, at, 2))
    line.close()
    server.close()
    return tally


async def campaign(lines: int, count: int, seed: int, only: Sequence[str] = ()) -> Counter[str]:
    """`count` requests on `lines` lines at once, with faults of these kinds or of all."""
    runs = [
        asyncio.create_task(one_line(seed + i, count // lines, only), name=f"line {i}") for i in range(lines)
    ]
    total: Counter[str] = Counter()
    for tally in await asyncio.gather(*runs):
        total += tally
    return total


async def test_random_faults_never_give_one_question_anothers_value() -> None:
    tally = await campaign(lines=24, count=3000, seed=20241)
    assert tally[MISATTRIBUTED] == tally[INVENTED] == 0
    assert tally[RIGHT] > 1000, tally
    assert {"NoReply", "BadReply", "ModbusRefused", "ModbusBusy", "cancelled"} <= set(tally)


async def test_without_the_silence_the_same_faults_find_wrong_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "_resync", lambda self, until: None)
    tally = await campaign(lines=24, count=1200, seed=20241)
    assert tally[MISATTRIBUTED] > 0


@pytest.mark.campaign
@pytest.mark.fault(
    row=32, fault="late, doubled, foreign, truncated, noisy and echoed replies, together",
    injected="campaign of requests on 64 pseudo-terminals, two replies in three spoilt, late up to `slowest_reply`",
    holds="no value of another question, and none that stands in no register",
)  # fmt: skip
async def test_a_million_random_faults(figure: Figure) -> None:
    count = int(os.environ.get("COUNT") or 1_000_000)
    begun, tally = time.monotonic(), Counter[str]()
    for part in range(0, count, 64_000):
        tally += await campaign(lines=64, count=min(64_000, count - part), seed=part)
        print(f"{sum(tally.values())} requests in {time.monotonic() - begun:.0f} s: {dict(tally)}")  # noqa: T201 -- campaigns print their figures
    figure(
        f"{sum(tally.values()):,} requests, {tally['right']:,} answered right; misattributed {tally[MISATTRIBUTED]}, "
        f"invented {tally[INVENTED]}; beyond what any receiver can tell: {tally[HELD_BACK]} {HELD_BACK}, "
        f"{tally[COINCIDENCE]} {COINCIDENCE}"
    )
    assert tally[MISATTRIBUTED] == tally[INVENTED] == 0
