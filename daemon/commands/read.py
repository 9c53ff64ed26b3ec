"""Measure channels now: the raw words as they came, what they are in each word order, the value."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Self

import msgspec

from daemon import requests
from daemon.commands.surface import CommandError, control_socket, print_json, print_table
from daemon.requests import Measured

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

MOST_TIMES = 1000
# Where the bytes A B C D of a number stand on the wire.
ORDERS = {"ABCD": (0, 1, 2, 3), "CDAB": (2, 3, 0, 1), "BADC": (1, 0, 3, 2), "DCBA": (3, 2, 1, 0)}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="default: all that are measured")
    parser.add_argument(
        "--times", type=int, default=1, metavar="N", help="ask so often, and show how long answers took"
    )


def run(options: argparse.Namespace) -> int:
    request = requests.Read(tuple(options.channels))
    if not 1 <= options.times <= MOST_TIMES:
        raise CommandError(f"--times {options.times} must lie within 1 .. {MOST_TIMES}", 2)
    rows: list[Measured] = []
    took_ms: dict[str, list[float | None]] = {}
    for _ in range(options.times):
        rows = requests.ask(control_socket(options), request, list[Measured], requests.MEASURED_S)
        for device, ms in {row.device: row.round_trip_ms for row in rows}.items():
            took_ms.setdefault(device, []).append(ms)
    trips = [RoundTrips.of(device, all_ms) for device, all_ms in took_ms.items()] if options.times > 1 else []
    if options.json:
        print_json({"readings": rows, "round_trips": trips} if trips else rows)
    else:
        for row in rows:
            print("\n".join(_shown(row)))
        if trips:
            print_table(RoundTrips.__struct_fields__, [trip.cells() for trip in trips])
    return int(any(row.quality.startswith("bad") for row in rows))


class RoundTrips(msgspec.Struct, frozen=True):
    """How long the polls of a device took, in ms; those it did not answer count in `asked` alone."""

    device: str
    asked: int
    answered: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None

    @classmethod
    def of(cls, device: str, all_ms: Sequence[float | None]) -> Self:
        took = sorted(ms for ms in all_ms if ms is not None)
        shares = [percentile(took, share) for share in (0.5, 0.9, 0.99, 1.0)]
        return cls(device, len(all_ms), len(took), *shares)

    def cells(self) -> list[str]:
        numbers = (self.p50_ms, self.p90_ms, self.p99_ms, self.max_ms)
        return [
            self.device,
            str(self.asked),
            str(self.answered),
            *("-" if ms is None else f"{ms:.1f}" for ms in numbers),
        ]


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest of `ordered` that at least `share` of them do not exceed; None of nothing."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _shown(row: Measured) -> Iterator[str]:
    value = "-" if row.value is None else f"{row.value:.8g} {row.unit}".rstrip()
    took = "" if row.round_trip_ms is None else f"  {row.round_trip_ms:.0f} ms"
    yield f"{row.channel}  {value}  {row.quality}  {row.device}.{row.point}{took}"
    if row.words:
        yield "  words " + " ".join(f"{word:04X}" for word in row.words)
    if len(row.words) == 2:  # noqa: PLR2004 -- where there is an order to get wrong
        yield from (f"  {order}  {shown}" for order, shown in word_orders(row.words).items())


def word_orders(words: Sequence[int]) -> dict[str, str]:
    """Two registers as 32-bit float, unsigned and signed number, in each of the four byte orders."""
    wire = struct.pack(">2H", *words)
    shown = {}
    for order, places in ORDERS.items():
        number = bytes(wire[place] for place in places)
        (real,), (whole,), (signed,) = (struct.unpack(form, number) for form in (">f", ">I", ">i"))
        real_text = f"{real:.7g}" if math.isfinite(real) else "no number"
        shown[order] = f"float {real_text}  unsigned {whole}" + (f"  signed {signed}" if signed < 0 else "")
    return shown
