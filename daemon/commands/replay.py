"""A recording once more through the same drivers, channels and calibration: its readings, simulated."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from itertools import chain
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from daemon.channels import PATIENCE_S, Channels
from daemon.commands.surface import CommandError, load_site
from daemon.dated import periods
from daemon.instruments import build_drivers, sources
from drivers import recorder, replay
from drivers.gnss.receiver import GnssReceiver
from drivers.modbus import ModbusDevice
from drivers.recorder import Unreadable
from drivers.replay import Differences, Then

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from daemon.clock import Clock
    from daemon.config import Site
    from daemon.reading import Reading, ReadingFrame
    from drivers.sample import Frame


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="recordings, or the folder of a line's ring"
    )


def run(options: argparse.Namespace) -> int:
    differences = Differences()
    shown = 0
    if not options.json:
        print("simulated: readings of a recording; counters and windows begin with it")
    for frame in _readings(load_site(options), options.files, differences):
        for reading in frame:
            print(_json(reading) if options.json else _line(reading))
            shown += 1
    if differences.lost:
        print(f"{differences.lost} events are missing in the recording", file=sys.stderr)
    if differences.frames:
        print(
            f"{differences.frames} replies decode otherwise than when they were recorded: the profile or the "
            "site file is another",
            file=sys.stderr,
        )
    return int(bool(differences.frames) or not shown)


def _readings(site: Site, files: Sequence[Path], differences: Differences) -> Iterator[ReadingFrame]:
    """Frames of all lines in the order in which they came, through the site's channels."""
    then = Then()
    drivers = build_drivers(site, cast("Clock", then))  # drivers want a clock's stamps only
    channels = Channels(site.channels, sources(site, drivers), periods(site))
    lines: dict[str, list[Path]] = {}
    for path in (each for given in files for each in _expanded(given)):
        with path.open("rb") as start:
            lines.setdefault(_header(start, path).line, []).append(path)
    frames = [frame for paths in lines.values() for frame in _frames(paths, drivers, then, differences)]
    frames.sort(key=lambda frame: frame.mono_ns)
    for frame in frames:
        for _, readings in chain(channels.expire(frame.mono_ns), channels.on_frame(frame)):
            yield readings
    if frames:
        for _, readings in channels.expire(frames[-1].mono_ns + int(2e9 * PATIENCE_S)):
            yield readings


def _expanded(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = recorder.recordings(path)
    if not files:
        raise CommandError(f"{path}: holds no recording", 3)
    return files


def _header(start: Iterator[bytes], path: Path) -> recorder.Header:
    try:
        header, _ = recorder.read(start, str(path))
    except Unreadable as error:
        raise CommandError(str(error), 1) from None
    return header


def _frames(
    paths: Sequence[Path],
    drivers: dict[str, ModbusDevice | GnssReceiver],
    then: Then,
    differences: Differences,
) -> list[Frame]:
    """The frames of one line, whose recording may go over several files."""
    with ExitStack() as stack:
        try:
            parts = [recorder.read(stack.enter_context(path.open("rb")), str(path)) for path in paths]
            header, events = parts[0][0], chain.from_iterable(events for _, events in parts)
            mine = {device.id: drivers[device.id] for device in header.devices if device.id in drivers}
            if not mine:
                raise CommandError(f"{paths[0]}: the site file has none of this line's devices", 1)
            for device in header.devices:
                driver = mine.get(device.id)
                if isinstance(driver, GnssReceiver):
                    driver.resume(device.base, device.ties)
                    return list(replay.heard(events, driver, then, differences))
            polled = {name: driver for name, driver in mine.items() if isinstance(driver, ModbusDevice)}
            return list(replay.polled(events, header.kind, polled, differences))
        except Unreadable as error:
            raise CommandError(str(error), 1) from None


def _json(reading: Reading) -> str:
    row = {"mode": "simulated", **msgspec.structs.asdict(reading)}
    return msgspec.json.encode(row).decode()


def _line(reading: Reading) -> str:
    value = "-" if reading.value is None or isnan(reading.value) else f"{reading.value:.8g}"
    return f"{reading.time}  {reading.channel:28}  {value:>14} {reading.unit:8}  {reading.quality}"
