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

A line of its own takes `unplug`; the GNSS line also `float` and `no_lines`. `none` ends any of them.
Seconds are real seconds: wires do not follow the bench's clock.
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
    "unplug": (0.0, 0.0),
    "float": (0.0, 0.0),
    "no_lines": (0.0, 0.0),
}
RTU_ONLY: Final = frozenset({"bad_crc", "echo", "noise"})
OF_LINES: Final = frozenset({"unplug"})
OF_GNSS: Final = frozenset({"float", "no_lines"})
OF_UNITS: Final = frozenset(KINDS) - OF_LINES - OF_GNSS
# These answer in the device's place: it never sees the request, so a relay does not switch.
UNHEARD: Final = frozenset({"silent", "exception"})

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
    "sentinel": lambda x, _n: [(0.0, _whole(x))],
}


def emissions(fault: Fault | None, exchange: Exchange) -> Sequence[Emission]:
    """What goes out for one exchange, each part with its delay in real seconds."""
    if fault is None:
        return [(0.0, _whole(exchange))]
    return _EMISSIONS[fault.kind](exchange, fault.number)
