"""What can go wrong with a device's reply, as tables: a fault turns one reply into what goes out, and when.

    silent            nobody answers, and nothing is done
    late S            the reply comes S seconds late, into whatever the wire is doing by then
    bad_crc           the last byte is wrong                          (RTU)
    truncated         only the first half arrives
    echo              the request comes back in front of the reply    (RTU: a two-wire adapter)
    exception N       Modbus exception N, and nothing is done
    noise             three stray bytes before the reply              (RTU)
    foreign           another unit's reply comes first
    duplicate         the reply comes twice
    byte_slow S       S seconds pass between bytes
    sentinel          the device answers well; its sensor is gone: the device's own "no value"
    power_cut         silent; when it ends the device starts anew, counters from zero

A device's sensor can be sick while the device answers well (`sensors`):

    stuck             the sensor stays at what it was
    drift N           it runs away by N of its units an hour
    spike N           one minute in seven it is off by N of its units

A line takes `cut` (its port is there, and nothing comes through) and `unplug` (its port is gone); the GNSS
line also

    float             no fixed solution: decimetres of noise
    base_lost         no corrections from the base station: metres of noise
    base_moved N      the base station was pushed N mm to the east
    no_lines          it sees no satellites, and says nothing
    out_of_order      after each instant the one before comes once more

the platform `away`, `no_receipts`, `no_acks` and `refuse CODE` (an MQTT reason code), and the gateway

    disk_full         its disk takes nothing more
    clock_step N      its wall clock is N seconds off

`none` ends any.
Seconds are real seconds: wires do not follow the bench's clock. How each looks on site: `looks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# (seconds from now, bytes)
Emission = tuple[float, bytes]


class FaultUnknown(ValueError):
    """No such fault, no such target, or a number that cannot be; the message says which."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    number: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Fault | None:
        """`KIND` or `KIND NUMBER`; None for `none`.

        Raises:
            FaultUnknown: no such kind, or its number is missing or out of range.
        """
        kind, _, rest = text.strip().partition(" ")
        if kind == "none":
            return None
        if kind not in KINDS:
            raise FaultUnknown(f"no fault {kind!r}; there are {', '.join(sorted(KINDS))} and none")
        lowest, highest = KINDS[kind]
        try:
            number = float(rest) if rest else lowest
        except ValueError:
            number = float("nan")
        if (highest > 0.0) != bool(rest) or not lowest <= number <= highest:
            needs = f"a number from {lowest:g} to {highest:g}" if highest > 0.0 else "no number"
            raise FaultUnknown(f"{kind} takes {needs}, not {rest!r}")
        return cls(kind, number)

    def __str__(self) -> str:
        return f"{self.kind} {self.number:g}" if KINDS[self.kind][1] > 0.0 else self.kind


# The range of each kind's number; (0, 0) takes none.
KINDS: Final = {
    "silent": (0.0, 0.0),
    "late": (0.0, 600.0),
    "bad_crc": (0.0, 0.0),
    "truncated": (0.0, 0.0),
    "echo": (0.0, 0.0),
    "exception": (1.0, 255.0),
    "noise": (0.0, 0.0),
    "foreign": (0.0, 0.0),
    "duplicate": (0.0, 0.0),
    "byte_slow": (0.0001, 1.0),
    "sentinel": (0.0, 0.0),
    "power_cut": (0.0, 0.0),
    "stuck": (0.0, 0.0),
    "drift": (-1000.0, 1000.0),
    "spike": (-1000.0, 1000.0),
    "cut": (0.0, 0.0),
    "unplug": (0.0, 0.0),
    "float": (0.0, 0.0),
    "base_lost": (0.0, 0.0),
    "base_moved": (-1000.0, 1000.0),
    "no_lines": (0.0, 0.0),
    "out_of_order": (0.0, 0.0),
    "away": (0.0, 0.0),
    "no_receipts": (0.0, 0.0),
    "no_acks": (0.0, 0.0),
    "refuse": (128.0, 255.0),
    "disk_full": (0.0, 0.0),
    "clock_step": (-1e9, 1e9),
}
RTU_ONLY: Final = frozenset({"bad_crc", "echo", "noise"})
OF_LINES: Final = frozenset({"cut", "unplug"})
OF_GNSS: Final = frozenset({"float", "base_lost", "base_moved", "no_lines", "out_of_order"})
OF_PLATFORM: Final = frozenset({"away", "no_receipts", "no_acks", "refuse"})
OF_GATEWAY: Final = frozenset({"disk_full", "clock_step"})
OF_SENSORS: Final = frozenset({"stuck", "drift", "spike"})
OF_UNITS: Final = frozenset(KINDS) - OF_LINES - OF_GNSS - OF_PLATFORM - OF_GATEWAY
# These answer in the device's place: it never sees the request, so a relay does not switch.
UNHEARD: Final = frozenset({"silent", "exception", "power_cut"})

_NOISE: Final = b"\x00\xff\x5a"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its reply, with the wire's way of framing a PDU."""

    request: bytes
    unit: int
    fn: int
    reply: bytes  # PDU
    framed: Callable[[int, bytes], bytes]


def _whole(x: Exchange) -> bytes:
    return x.framed(x.unit, x.reply)


def _corrupted(x: Exchange) -> bytes:
    whole = _whole(x)
    return whole[:-1] + bytes((whole[-1] ^ 0xFF,))


def _slowly(data: bytes, gap_s: float) -> Sequence[Emission]:
    return [(i * gap_s, data[i : i + 1]) for i in range(len(data))]


_EMISSIONS: Final[dict[str, Callable[[Exchange, float], Sequence[Emission]]]] = {
    "silent": lambda _x, _n: [],
    "late": lambda x, n: [(n, _whole(x))],
    "bad_crc": lambda x, _n: [(0.0, _corrupted(x))],
    "truncated": lambda x, _n: [(0.0, _whole(x)[: len(_whole(x)) // 2])],
    "echo": lambda x, _n: [(0.0, x.request + _whole(x))],
    "exception": lambda x, n: [(0.0, x.framed(x.unit, bytes((x.fn | 0x80, int(n)))))],
    "noise": lambda x, _n: [(0.0, _NOISE + _whole(x))],
    "foreign": lambda x, _n: [(0.0, x.framed(x.unit % 247 + 1, x.reply) + _whole(x))],
    "duplicate": lambda x, _n: [(0.0, _whole(x) * 2)],
    "byte_slow": lambda x, n: _slowly(_whole(x), n),
    "power_cut": lambda _x, _n: [],
    **dict.fromkeys(("sentinel", *OF_SENSORS), lambda x, _n: [(0.0, _whole(x))]),
}


def emissions(fault: Fault | None, exchange: Exchange) -> Sequence[Emission]:
    """What goes out for one exchange, each part with its delay in real seconds."""
    if fault is None:
        return [(0.0, _whole(exchange))]
    return _EMISSIONS[fault.kind](exchange, fault.number)
