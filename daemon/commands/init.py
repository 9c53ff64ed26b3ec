"""A new gateway: asks little, searches the lines by reading only, writes a commented site file, makes keys.

Without a terminal everything must be said as options. It ends with what `pondwatch check` says. With
--addresses only the list of those the core may speak to is written anew, from the site file that is there.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.binder import duration_s, serial_mode
from daemon.commands import check
from daemon.commands.scan import USUAL_MODES, units_of
from daemon.commands.surface import CommandError, load_site
from daemon.config import NAME, SiteFileError
from daemon.founding import addresses, enrol, found, written
from daemon.keys import KeyMode
from daemon.replace import replace
from daemon.spool import StoreError
from drivers.scan import Look

if TYPE_CHECKING:
    import argparse

_PROMPTS = {
    "site": "name of the site in topics and payloads, as liaocheng-1",
    "gateway": "name of this gateway, as gw1",
    "pond": "short name of the pond, as n",
}


def options(parser: argparse.ArgumentParser) -> None:
    for key, prompt in _PROMPTS.items():
        parser.add_argument(f"--{key}", metavar="ID", help=prompt)
    parser.add_argument("--name", default="", help="the site's name for people")
    parser.add_argument("--kind", choices=("wet", "dry"), default="wet", help="of the pond (%(default)s)")
    parser.add_argument("--grade", type=int, choices=range(1, 6), default=5, help="of the pond (%(default)s)")
    parser.add_argument("--mode", choices=("real", "test", "simulated"), default="real", help="(%(default)s)")
    parser.add_argument(
        "--line",
        action="append",
        metavar="ID=WHERE",
        help="rs485-1=/dev/ttyUSB0, air=10.0.0.5:502; again for each; default: ports whose name stays",
    )
    parser.add_argument("--units", default="1-247", help="Modbus units to look for (%(default)s)")
    parser.add_argument("--modes", default="usual", help='serial modes, as "9600 8N1" (%(default)s)')
    parser.add_argument("--timeout", default="200 ms", help="how long an answer is waited for (%(default)s)")
    parser.add_argument("--uplink", default="", metavar="URL", help="mqtts://host:port of the platform")
    parser.add_argument("--settle", choices=("receipt", "puback"), help="with --uplink: what proves delivery")
    parser.add_argument("--store", default=written.STORE, help="the store's folder (%(default)s)")
    parser.add_argument("--secrets", type=Path, default=enrol.SECRETS, help="folder of keys (%(default)s)")
    parser.add_argument(
        "--drop-in", type=Path, default=addresses.PLACE, help="the core's list of addresses (%(default)s)"
    )
    parser.add_argument("--addresses", action="store_true", help="write only that list, from the site file")


def run(options: argparse.Namespace) -> int:
    if options.addresses:
        return _addresses(options)
    if options.config.exists():
        raise CommandError(f"{options.config} is there already: change a copy, then pondwatch apply it", 2)
    asked = _asked(options)
    lines = asyncio.run(_searched(options))
    secrets: Path = options.secrets
    client = (str(secrets / f"{asked.gateway}.pem"), str(secrets / f"{asked.gateway}.key"))
    options.config.parent.mkdir(parents=True, exist_ok=True)
    replace(options.config, written.text(asked, lines, client).encode())
    _say(options, f"{options.config} written")
    try:
        key = asyncio.run(enrol.first_key(Path(asked.store), options.mode))
    except (StoreError, KeyMode) as error:
        raise CommandError(str(error), 3) from None
    _say(options, f"store {asked.store}: stream {key.stream}; tell the platform its first key: {key.root}")
    request = enrol.request(secrets, asked.site, asked.gateway)
    _say(options, f"certificate request for the platform's authority: {request}")
    code = check.run(options)
    return code or _addresses(options)


def _say(options: argparse.Namespace, what: str) -> None:
    print(what, file=sys.stderr if options.json else sys.stdout, flush=True)


def _asked(options: argparse.Namespace) -> written.Asked:
    """What must be known, by option or by question."""
    said = {}
    for key, prompt in _PROMPTS.items():
        value = getattr(options, key) or _question(key, prompt)
        if not re.fullmatch(NAME, value):
            raise CommandError(f"--{key} {value!r} may have letters, digits, _ and - only", 2)
        said[key] = value
    if bool(options.uplink) != bool(options.settle):
        raise CommandError("--uplink and --settle go together: what proves delivery has no default", 2)
    return written.Asked(
        **said,
        kind=options.kind,
        grade=options.grade,
        name=options.name,
        mode=options.mode,
        store=options.store,
        uplink=options.uplink,
        settle=options.settle or "",
    )


def _question(key: str, prompt: str) -> str:
    if not sys.stdin.isatty():
        raise CommandError(f"--{key} is missing", 2)
    try:
        return input(f"{prompt}: ").strip()
    except EOFError:
        raise CommandError(f"--{key} is missing", 2) from None


async def _searched(options: argparse.Namespace) -> list[found.FoundLine]:
    try:
        units = units_of(options.units)
        names = USUAL_MODES if options.modes == "usual" else options.modes.split(",")
        modes = [serial_mode(name) for name in names]
        look = Look(timeout_s=duration_s(options.timeout))
    except ValueError as error:
        raise CommandError(str(error), 2) from None
    lines = []
    for name, where in _lines(options).items():
        _say(options, f"line {name}, {where}:")
        table = found.line(name, where)
        lines.append(await found.look_at(table, units, modes, look, lambda what: _say(options, what)))
    return lines


def _lines(options: argparse.Namespace) -> dict[str, str]:
    if options.line is None:
        return found.ports()
    pairs = [each.partition("=") for each in options.line]
    for name, sign, where in pairs:
        if not sign or not where or not re.fullmatch(NAME, name):
            raise CommandError(f"--line {name}{sign}{where} is not ID=WHERE, as rs485-1=/dev/ttyUSB0", 2)
    return {name: where for name, _, where in pairs}


def _addresses(options: argparse.Namespace) -> int:
    """Write the drop-in; the site file stands even where a name cannot be looked up."""
    site = load_site(options)
    try:
        text = addresses.drop_in(site)
    except SiteFileError as error:
        for problem in error.problems:
            print(f"{problem}; {options.drop_in} is not written", file=sys.stderr)
        return 1
    options.drop_in.parent.mkdir(parents=True, exist_ok=True)
    replace(options.drop_in, text.encode())
    _say(options, f"{options.drop_in} written: systemctl daemon-reload && systemctl restart pondwatch")
    return 0
