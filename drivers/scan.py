"""Looking for units on a line, by reading only: who answers, and which profile it could be.

A unit is there if it answers a read of one register, if only with an exception. What the answer is does not
matter. Then the registers are read by which profiles know their device (`[identity]`). Function codes 3 and 4
are all that is ever sent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from drivers.contract import BadReply, Busy, NoReply, Refused
from drivers.framing import ModbusRefused
from drivers.pdu import read_pdu

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from drivers.line import Line
    from drivers.model import Identity

_NO_PATH = 10  # a gateway's word: it has no such unit


@dataclass(frozen=True, slots=True)
class Look:
    """How a unit is looked for: one register, and how long an answer is waited for."""

    fn: Literal[3, 4] = 3
    at: int = 0
    timeout_s: float = 0.2


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
        if refused.code == _NO_PATH:
            return None
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
