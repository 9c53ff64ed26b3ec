"""Search a line for units, reading only: who answers, at which speed, and which profile it could be.

A line that a running core polls is searched a little at a time, units of the site file left out; any other is
opened here, and other speeds can be tried.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from typing import TYPE_CHECKING, Protocol

from daemon import requests
from daemon.binder import SerialMode, duration_s, serial_mode
from daemon.commands.surface import CommandError, control_socket, load_site, print_json
from daemon.requests import NotAnswered
from drivers import profile
from drivers.contract import LineDown
from drivers.framing import MbapFraming, RtuFraming
from drivers.line import Line
from drivers.scan import UNITS, Found, Look, look_for
from drivers.wire import SerialWire, TcpWire

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from daemon.config import LineTable
    from drivers.wire import Wire

USUAL_MODES = ("9600 8N1", "4800 8N1", "19200 8N1", "19200 8E1", "9600 8E1", "38400 8N1", "115200 8N1")
_NOT_HELD = 2  # the exit code of a line the core does not poll


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("line", metavar="LINE", help="a line of the site file")
    parser.add_argument("--units", default="1-247", help="as in 1-32,80 (%(default)s)")
    parser.add_argument(
        "--modes", help='serial modes to try, as in "9600 8N1,19200 8E1", or "usual"; default: the site\'s'
    )
    parser.add_argument("--timeout", default="200 ms", help="how long an answer is waited for (%(default)s)")
    parser.add_argument("--function", type=int, choices=(3, 4), default=3, help="what is read (%(default)s)")
    parser.add_argument("--at", type=int, default=0, metavar="ADDRESS", help="from where (%(default)s)")


def run(options: argparse.Namespace) -> int:
    table = next((line for line in load_site(options).lines if line.id == options.line), None)
    if table is None or table.kind in ("serial", "tcp"):
        raise CommandError(f"the site file has no Modbus line called {options.line}", 2)
    units = units_of(options.units)
    try:
        look = Look(options.function, options.at, duration_s(options.timeout))
        look.check(units)
        modes = _modes(options.modes, table)
    except ValueError as error:
        raise CommandError(str(error), 2) from None
    shown = _Shown(json=options.json)
    if options.modes or not _through_core(options, units, look, shown):
        try:
            asyncio.run(search(table, units, modes, look, shown))
        except LineDown as error:
            raise CommandError(str(error), 3) from None
    return shown.end()


class _Shown:
    """What is found, as it is found."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._count = 0

    def says(self, what: str) -> None:
        if not self._json:
            print(what, flush=True)

    def found(self, found: Found, mode: str) -> None:
        self._count += 1
        if self._json:
            print_json({"unit": found.unit, "mode": mode, "said": found.said, "profiles": found.profiles})
        else:
            guess = f"  could be {' or '.join(found.profiles)}" if found.profiles else ""
            print(f"unit {found.unit:3}  {mode:10} {found.said}{guess}", flush=True)

    def end(self) -> int:
        self.says(f"{self._count} found" if self._count else "nothing answers")
        return int(not self._count)


class Shown(Protocol):
    """Who is told what a search finds."""

    def says(self, what: str) -> None: ...

    def found(self, found: Found, mode: str) -> None: ...


async def search(
    table: LineTable, units: Sequence[int], modes: Sequence[SerialMode], look: Look, shown: Shown
) -> None:
    """On a port that is ours; a unit found in one mode is not looked for in the others.

    Raises:
        LineDown: the port cannot be opened, or is gone.
    """
    identities = profile.identities()
    left = list(units)
    for mode in modes:
        name = str(mode) if table.port else ""
        seconds = len(left) * (look.timeout_s + 20 * mode.bits_per_character / mode.baud)
        shown.says(f"{name or table.address}: {len(left)} units, {seconds:.0f} s at most")
        framing = MbapFraming() if table.kind == "modbus-tcp" else RtuFraming()
        line = Line(_wire(table, mode), framing, table.id)
        await line.open()
        try:
            for unit in tuple(left):
                found = await look_for(line, unit, look, identities)
                if found is not None:
                    shown.found(found, name)
                    left.remove(unit)
        finally:
            line.close()


def _wire(table: LineTable, mode: SerialMode) -> Wire:
    if table.port:
        return SerialWire(table.port, mode)
    host, _, port = table.address.rpartition(":")
    return TcpWire(host, int(port))


def _modes(text: str | None, table: LineTable) -> list[SerialMode]:
    """The modes to try; the site's unless others are asked for."""
    if text and not table.port:
        raise ValueError(f"--modes is for serial lines; {table.id} is {table.kind}")
    if not text:
        return [table.serial]
    return [serial_mode(each) for each in (USUAL_MODES if text == "usual" else text.split(","))]


def units_of(text: str) -> list[int]:
    units: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        wanted = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not wanted or wanted[0] not in UNITS or wanted[-1] not in UNITS:
            raise CommandError(f"--units {part!r} must lie within 1-247, as in 1-32,80", 2)
        units += [unit for unit in wanted if unit not in units]
    return units


def _through_core(options: argparse.Namespace, units: Sequence[int], look: Look, shown: _Shown) -> bool:
    """Have a running core search its line; False if there is no core, or it does not hold the line."""
    path = control_socket(options)
    with socket.socket(socket.AF_UNIX) as probe:
        # Only where there is none: two masters on one line take each other's replies for their own.
        if probe.connect_ex(str(path)) in (errno.ENOENT, errno.ECONNREFUSED):
            return False
    request = requests.Scan(options.line, tuple(units), look.fn, look.at, look.timeout_s)
    rows = requests.stream(path, request, Found)
    try:
        for found in rows:
            shown.found(found, "")
    except NotAnswered as refused:
        if refused.exit == _NOT_HELD:
            return False
        raise
    return True
