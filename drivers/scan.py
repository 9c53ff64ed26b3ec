"""Looking for units on a line, by reading only: who answers, and which profile it could be.

A unit is there if it answers a read of one register, if only with an exception. What the answer is does not
matter. Then the registers are read by which profiles know their device (`[identity]`). Function codes 3 and 4
are all that is ever sent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal

from drivers.contract import BadReply, Busy, NoReply, Refused
from drivers.framing import ModbusRefused
from drivers.pdu import read_pdu

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from drivers.line import Line
    from drivers.model import Identity

UNITS = range(1, 248)  # Modbus over Serial Line 1.02, 2.2; 0 is everybody and never asked
_ADDRESSES = range(0x10000)


@dataclass(frozen=True, slots=True)
class Look:
    """How a unit is looked for: one register, and how long an answer is waited for."""

    fn: Literal[3, 4] = 3
    at: int = 0
    timeout_s: float = 0.2

    def check(self, units: Iterable[int]) -> None:
        """ValueError, with the remedy, for what cannot be asked."""
        if self.at not in _ADDRESSES:
            raise ValueError(f"register {self.at} does not exist; addresses lie within 0 .. {_ADDRESSES[-1]}")
        if not 0.0 < self.timeout_s < inf:
            raise ValueError(f'a timeout of {self.timeout_s:g} s waits for nobody; give one as "200 ms"')
        if wrong := [unit for unit in units if unit not in UNITS]:
            raise ValueError(f"there is no unit {wrong[0]}; units lie within 1 .. {UNITS[-1]}")


@dataclass(frozen=True, slots=True)
class Found:
    """A unit that answers: in which way, and the profiles whose identity it shows."""

    unit: int
    said: str
    profiles: tuple[str, ...]


async def look_for(line: Line, unit: int, look: Look, identities: Mapping[str, Identity]) -> Found | None:
    """What answers as `unit`, or None.

    Raises:
        LineDown: the port is gone.
    """
    try:
        words = await _read(line, unit, look, look.fn, look.at, 1)
        said = f"register {look.at} is {words[0]}"
    except NoReply:
        return None
    except ModbusRefused as refused:
        said = f"exception {refused.code}"
    except (Refused, Busy):
        said = "busy"
    except BadReply:
        return Found(unit, "garbled: two units with this number, another parity or speed", ())
    return Found(unit, said, tuple([name async for name in _known(line, unit, look, identities)]))


async def _known(line: Line, unit: int, look: Look, identities: Mapping[str, Identity]) -> AsyncIterator[str]:
    """Profiles whose identity the unit shows; each set of registers is read once."""
    seen: dict[tuple[int, int, int], tuple[int, ...]] = {}
    for name, identity in identities.items():
        where = (identity.fn, identity.at, len(identity.words))
        if where not in seen:
            try:
                seen[where] = await _read(line, unit, look, *where)
            except (NoReply, BadReply, Refused, Busy):
                seen[where] = ()
        if identity.fits(seen[where], unit):
            yield name


async def _read(line: Line, unit: int, look: Look, fn: int, at: int, count: int) -> tuple[int, ...]:
    reply = await line.transact(
        unit,
        read_pdu(fn, at, count),
        reply_bytes=2 + 2 * count,
        timeout_s=look.timeout_s,
        slowest_reply_s=look.timeout_s,
    )
    return struct.unpack(f">{count}H", reply[2:])
