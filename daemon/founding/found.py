"""What is on the lines of a new gateway: units that answer, sentences that are heard; reading only."""

from __future__ import annotations

import asyncio
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from daemon.binder import serial_mode
from daemon.commands.scan import search
from daemon.config import ADDRESS, LineTable
from drivers import profile
from drivers.contract import LineDown
from drivers.wire import SerialWire, TcpWire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daemon.binder import SerialMode
    from drivers.scan import Found, Look

LISTEN_S: Final = 2.5  # receivers send each second
STREAM_MODES: Final = ("115200 8N1", "9600 8N1", "38400 8N1")
PORTS: Final = ("/dev/pondwatch/*", "/dev/serial/by-id/*")
_SENTENCE = re.compile(rb"\$([A-Z]{2,8}),[^\r\n]{6,}\*[0-9A-F]{2}")


@dataclass(slots=True)
class FoundLine:
    """A line and all that was heard on it."""

    table: LineTable
    units: list[tuple[Found, str]] = field(default_factory=list)
    sentences: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()  # of what sends by itself
    why_not: str = ""


class _Heard:
    def __init__(self, tell: Callable[[str], None]) -> None:
        self.units: list[tuple[Found, str]] = []
        self.says = tell

    def found(self, found: Found, mode: str) -> None:
        self.units.append((found, mode))
        self.says(f"  unit {found.unit} {mode} {found.said} {' '.join(found.profiles)}".rstrip())


def ports() -> dict[str, str]:
    """Serial ports with a name that stays: id of a line -> port; those named by us before the others."""
    found: dict[str, str] = {}
    real: set[Path] = set()
    for pattern in PORTS:
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            if path.resolve() not in real:
                real.add(path.resolve())
                found[re.sub(r"[^A-Za-z0-9_-]+", "-", path.name)] = str(path)
    return found


def line(name: str, where: str) -> LineTable:
    """A line as it is searched: `where` is a device file or host:port."""
    if re.fullmatch(ADDRESS, where) and not where.startswith("/"):
        return LineTable(name, "modbus-tcp", address=where)
    return LineTable(name, "modbus-rtu", port=where)


async def look_at(
    table: LineTable,
    units: Sequence[int],
    modes: Sequence[SerialMode],
    look: Look,
    tell: Callable[[str], None],
) -> FoundLine:
    """Search a line in every way it may speak; the first way in which somebody answers is the line's."""
    heard = _Heard(tell)
    why = ""
    for way, its_modes in _ways(table, modes):
        try:
            await search(way, units, its_modes, look, heard)
        except LineDown as error:
            why = str(error)
            break
        garbled = all(found.said.startswith("garbled") for found, _ in heard.units)
        if heard.units and garbled and (stream := await _listen(table, tell)).sentences:
            return stream
        if heard.units:
            mode = heard.units[0][1]
            return FoundLine(replace(way, serial=serial_mode(mode)) if mode else way, heard.units)
    if not why:
        return await _listen(table, tell)
    return FoundLine(table, why_not=why)


def _ways(table: LineTable, modes: Sequence[SerialMode]) -> Iterator[tuple[LineTable, Sequence[SerialMode]]]:
    yield table, modes if table.port else modes[:1]
    if table.address:
        yield replace(table, kind="rtu-over-tcp"), modes[:1]


async def _listen(table: LineTable, tell: Callable[[str], None]) -> FoundLine:
    """Whether somebody sends sentences by himself."""
    for mode in map(serial_mode, STREAM_MODES if table.port else STREAM_MODES[:1]):
        tell(f"  {mode if table.port else table.address}: listening for {LISTEN_S:g} s")
        host, _, port = table.address.rpartition(":")
        wire = SerialWire(table.port, mode) if table.port else TcpWire(host, int(port))
        data = bytearray()
        try:
            await wire.open(data.extend, lambda why: None)  # noqa: ARG005 -- what came counts
        except LineDown as error:
            return FoundLine(table, why_not=str(error))
        try:
            await asyncio.sleep(LISTEN_S)
        finally:
            wire.close()
        names = tuple(sorted({name.decode() for name in _SENTENCE.findall(bytes(data))}))
        if names:
            tell(f"  it sends {' '.join(names)}")
            stream = replace(table, kind="serial" if table.port else "tcp", serial=mode)
            return FoundLine(stream, sentences=names, profiles=tuple(_profiles(names)))
    return FoundLine(table, why_not="nothing answers, nothing is sent")


def _profiles(names: Sequence[str]) -> Iterator[str]:
    """Profiles of which some sentence is heard that carries more than the date."""
    for path in sorted(profile.BUILT_IN.glob("*.toml")):
        known = tomllib.loads(path.read_text()).get("sentence", {})
        tells = [name for name in known if not name.endswith(("RMC", "ZDA"))]
        if any(heard.endswith(name) for name in tells for heard in names):
            yield path.stem
