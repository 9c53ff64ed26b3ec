"""Take a new site file into the running core, in the name of who brings it.

FILE is checked, put in the place of the site file, and the core is asked to begin again with it; the core's
record of the change names the person. If the core refuses or cannot begin with it, the old one is put back.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from daemon import requests
from daemon.commands.check import whole
from daemon.commands.surface import CommandError, control_socket, print_json
from daemon.commands.until import required
from daemon.replace import replace
from daemon.requests import Applied, NotAnswered

if TYPE_CHECKING:
    import argparse

START_S = 60.0  # a start after another, with a store of years to open
LOOK_S = 0.1


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the new site file")
    parser.add_argument("--by", metavar="NAME", help="who brings it")
    parser.add_argument("--reason", help="why")


def run(options: argparse.Namespace) -> int:
    by = required(options, "by")
    if options.file.resolve() == options.config.resolve():
        raise CommandError(f"{options.file} is the site file itself: change a copy of it, and apply that", 2)
    site = whole(options.file, json=options.json)
    if site is None:
        return 1
    if not options.json:
        for warning in site.warnings:
            print(f"warning: {warning}")
    socket = control_socket(options)
    requests.ask(socket, requests.Status())  # nobody to ask: nothing is touched
    text = options.file.read_bytes()
    old = options.config.read_bytes() if options.config.exists() else None
    replace(options.config, text)
    order = requests.Apply(site.sha256, by, options.reason)
    try:
        applied: Applied = requests.ask(socket, order, Applied)
        if applied.restarts:
            _seen_in_use(socket, site.sha256)
    except NotAnswered as refused:
        _put_back(options.config, old)
        raise CommandError(f"{refused}; {options.config} is as it was", refused.exit) from None
    except CommandError as failed:
        _put_back(options.config, old)
        _take(socket, applied.was, by)
        raise CommandError(f"{failed}; {options.config} is as it was", failed.exit) from None
    if options.json:
        print_json({"sha256": site.sha256, "was": applied.was, "restarted": applied.restarts})
    elif applied.restarts:
        print(f"{options.config}: in use, by {by}; before it {applied.was[:12]}, now {site.sha256[:12]}")
    else:
        print(f"{options.config}: the core has the same one in use already")
    return 0


def _seen_in_use(socket: Path, sha256: str) -> None:
    """Wait until the core has begun again with the file.

    Raises:
        CommandError: it began with the last good one, or is not seen.
    """
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        time.sleep(LOOK_S)
        try:
            status = requests.ask(socket, requests.Status())
            alarms = requests.ask(socket, requests.AlarmsList())
        except NotAnswered:
            continue
        if status["config_sha256"] == sha256:
            return
        for alarm in alarms:
            if alarm["id"].startswith("system:site-file") and alarm["condition"] == "present":
                raise CommandError(f"the core could not begin with it: {alarm['reason']['en']}", 1)
    raise CommandError(f"the core was not seen to begin with it within {START_S:g} s", 3)


def _put_back(path: Path, old: bytes | None) -> None:
    if old is None:
        path.unlink()
    else:
        replace(path, old)


def _take(socket: Path, sha256: str, by: str) -> None:
    """Have the core see that the file it uses is in its place again, and end its alarm."""
    try:
        requests.ask(socket, requests.Apply(sha256, by, "put back"), Applied)
    except NotAnswered as error:
        print(f"the core says of the old site file: {error}", file=sys.stderr)
