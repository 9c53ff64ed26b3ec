"""Measure channels now: the raw words as they came, what they are in each word order, the value."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from daemon import requests
from daemon.commands.surface import control_socket, print_json
from daemon.requests import Measured

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

# Where the bytes A B C D of a number stand on the wire.
ORDERS = {"ABCD": (0, 1, 2, 3), "CDAB": (2, 3, 0, 1), "BADC": (1, 0, 3, 2), "DCBA": (3, 2, 1, 0)}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="default: all that are measured")


def run(options: argparse.Namespace) -> int:
    request = requests.Read(tuple(options.channels))
    rows: list[Measured] = requests.ask(control_socket(options), request, list[Measured])
    if options.json:
        print_json(rows)
    else:
        for row in rows:
            print("\n".join(_shown(row)))
    return int(any(row.quality.startswith("bad") for row in rows))


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
