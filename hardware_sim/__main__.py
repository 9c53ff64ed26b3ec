"""`python -m hardware_sim SCENARIO`: the bench alone, until Ctrl-C or SIGTERM.

Prints a line for each thing it starts, then writes `RUN_DIR/bench.json`: when that file is there,
everything is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hardware_sim.bench import LANGUAGES, Bench
from hardware_sim.clock import BenchClock
from hardware_sim.control import assert_free
from hardware_sim.platform import Platform
from hardware_sim.receiver import Receiver
from hardware_sim.recording import NotPlayable, load
from hardware_sim.scenario import Outage, Scenario, ScenarioWrong
from hardware_sim.table import TableLine, TableWrong, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from hardware_sim.recording import Playback

_T = TypeVar("_T")
_WRONG_USAGE = 2
_SURROUNDINGS = 3
_PAGE_PORT = 8642
_LAST_PORT = 65_535
_SLOWEST_BAUD, _FASTEST_BAUD = 300, 921_600


def _argument(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """A parser whose sentence argparse shows: it does so for ArgumentTypeError, not for ValueError."""

    def parsed(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hardware_sim", description="Simulated instruments of a small dam, and a platform."
    )
    parser.add_argument("scenario", help="calm, storm, or a TOML file")
    parser.add_argument("--run-dir", type=Path, default=Path("build/run"), help="default: %(default)s")
    parser.add_argument("--speed", type=float, default=1.0, help="bench seconds per real second")
    parser.add_argument(
        "--clock", type=_argument(BenchClock.parse), help="RATE@EPOCH_SECONDS, in place of --speed"
    )
    parser.add_argument(
        "--platform-outage",
        type=_argument(Outage.parse),
        action="append",
        metavar="AT:FOR",
        help="the platform is away; real seconds, may be repeated, in place of the scenario's",
    )
    parser.add_argument(
        "--platform-store", type=Path, help="SQLite file in which the platform keeps payloads"
    )
    parser.add_argument("--platform-port", type=int, default=0, help="default: a free one")
    parser.add_argument(
        "--recording",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a line as `pondwatch trace` recorded it, called replay-LINE; may be repeated",
    )
    parser.add_argument(
        "--table", type=Path, metavar="CSV", help="history behind a Modbus TCP logger, line `table`"
    )
    parser.add_argument(
        "--gnss", choices=LANGUAGES, default="nmea", help="the receiver's language (default: %(default)s)"
    )
    parser.add_argument(
        "--gnss-over", choices=("pty", "tcp"), default="pty", help="where it talks (default: %(default)s)"
    )
    parser.add_argument(
        "--baud", type=_argument(_baud), help="the serial bus takes the time of this rate (default: none)"
    )
    parser.add_argument(
        "--page",
        type=_argument(_port),
        nargs="?",
        const=_PAGE_PORT,
        metavar="PORT",
        help=f"serve the technician's page on 127.0.0.1 (default port: {_PAGE_PORT}, 0: a free one)",
    )
    options = parser.parse_args(arguments)
    if not 0.0 < options.speed < inf:
        parser.error("--speed must be positive and finite")
    return options


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise ValueError(f"--page takes a port, not {text!r}; the scenario comes first")
    return int(text)


def _baud(text: str) -> int:
    if not text.isdecimal() or not _SLOWEST_BAUD <= int(text) <= _FASTEST_BAUD:
        raise ValueError(f"--baud takes a rate from {_SLOWEST_BAUD} to {_FASTEST_BAUD}, not {text!r}")
    return int(text)


def _control_socket(options: argparse.Namespace) -> Path:
    """Where the daemon listens, if one runs beside this bench."""
    return Path(os.environ.get("PONDWATCH_RUN") or options.run_dir) / "control.sock"


async def _run(options: argparse.Namespace, scenario: Scenario) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    options.run_dir.mkdir(parents=True, exist_ok=True)
    assert_free(options.run_dir)
    facts_file = options.run_dir / "bench.json"
    facts_file.unlink(missing_ok=True)
    receiver = Receiver(options.platform_store)
    clock = options.clock or BenchClock.starting_now(options.speed)
    platform = Platform(receiver, port=options.platform_port)
    played: list[Playback | TableLine] = [load(path, options.run_dir) for path in options.recording]
    twice = {each.name for each in played if sum(each.name == other.name for other in played) > 1}
    if twice:
        raise NotPlayable(f"two recordings of one line: {', '.join(sorted(twice))}")
    if options.table is not None:
        played.append(TableLine("table", read(options.table)))
    try:
        async with Bench(
            scenario,
            options.run_dir,
            clock,
            outages=options.platform_outage,
            platform=platform,
            played=played,
            gnss_speaks=options.gnss,
            gnss_over=options.gnss_over,
            baud=options.baud,
            control=_control_socket(options),
        ) as bench:
            for name, address in bench.addresses.items():
                print(f"line      {name:<14} {address}")
            print(f"platform  mqtt           {platform.address}")
            print(f"control   json lines     {options.run_dir / 'bench.sock'}")
            print(f"scenario  {scenario.name:<14} {scenario.title}")
            print(f"clock     {clock}")
            print("end it    with Ctrl-C", flush=True)
            async with contextlib.AsyncExitStack() as stack:
                address = ""
                if options.page is not None:
                    from hardware_sim.page.server import Page  # noqa: PLC0415 -- takes time to load

                    page = await stack.enter_async_context(
                        Page(bench, _control_socket(options), options.page)
                    )
                    address = page.address
                    print(f"page      http           {address}", flush=True)
                bench.write_facts(page=address)
                await stop.wait()
    finally:
        facts_file.unlink(missing_ok=True)
        receiver.close()


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    try:
        asyncio.run(_run(options, Scenario.load(options.scenario)))
    except (ScenarioWrong, NotPlayable, TableWrong) as error:
        print(f"bench: {error}", file=sys.stderr)
        return _WRONG_USAGE
    except OSError as error:
        print(f"bench: {error}", file=sys.stderr)
        return _SURROUNDINGS
    return 0


if __name__ == "__main__":
    sys.exit(main())
