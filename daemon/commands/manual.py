"""Readings by hand, compared with the instrument or filled in where it has none; patrols; storm warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import requests
from daemon.alarms import Alarm
from daemon.commands.surface import control_socket, print_json
from daemon.manual import Compared

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def options(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="do", metavar="reading|patrol|warning", required=True)
    reading = verbs.add_parser("reading", help="补测 / 比测: a channel read by hand, in the channel's unit")
    reading.add_argument("channel")
    reading.add_argument("value", type=float)
    reading.add_argument("--note", help="with what, and what was seen")
    patrol = verbs.add_parser("patrol", help="巡查: what was found, were it nothing")
    patrol.add_argument("pond")
    patrol.add_argument("found", help="in words")
    patrol.add_argument("--section", default="")
    patrol.add_argument("--abnormal", action="store_true", help="something is wrong: it calls people")
    warning = verbs.add_parser(
        "warning", help="气象预警: what the weather service warns of, for a pond's rain level"
    )
    warning.add_argument("pond")
    warning.add_argument(
        "level", choices=("none", "blue", "yellow", "orange", "red"), help="none: it is over"
    )
    warning.add_argument("--until", required=True, metavar="TIME", help="'6 h', or an instant, RFC 3339")
    warning.add_argument("--earthquake", action="store_true", help="地震: read more often, no rain level")
    warning.add_argument("--source", required=True, help="who warns, and the number of the warning")
    for verb in (reading, patrol, warning):
        verb.add_argument("--by", required=True, metavar="NAME", help="who")
    for verb in (reading, patrol):
        verb.add_argument("--at", metavar="TIME", help="when, RFC 3339; default: now")


def run(options: argparse.Namespace) -> int:
    socket = control_socket(options)
    if options.do == "reading":
        request = requests.ManualReading(options.channel, options.value, options.by, options.at, options.note)
        compared: Compared = requests.ask(socket, request, Compared)
        if options.json:
            print_json(compared)
        else:
            print(f"{compared.channel}  {compared.value:.8g} {compared.unit}  {_said(compared)}")
        return int(compared.agrees is False)
    if options.do == "warning":
        return _warned(socket, options)
    patrol = requests.ManualPatrol(
        options.pond, options.by, options.found, options.section, options.abnormal, options.at
    )
    alarms = requests.ask(socket, patrol, list[str])
    if options.json:
        print_json(alarms)
    else:
        print("\n".join(alarms) or "written down")
    return 0


def _warned(socket: Path, options: argparse.Namespace) -> int:
    request = requests.StormWarning(
        options.pond,
        options.level,
        options.until,
        options.source,
        options.by,
        of="earthquake" if options.earthquake else "storm",
    )
    changed: list[Alarm] = requests.ask(socket, request, list[Alarm])
    if options.json:
        print_json(changed)
    else:
        print("\n".join(alarm.reason.zh for alarm in changed) or "written down")
    return 0


def _said(its: Compared) -> str:
    if its.filled_in:
        return "filled in: the instrument has no value"
    if its.difference is None:
        return "written down; the instrument's value is of another time"
    how = {True: "agrees", False: "DIFFERS", None: "no tolerance is given"}[its.agrees]
    allowed = f" of {its.tolerance:g} allowed" if its.tolerance is not None else ""
    return f"{how}: {its.difference:+.6g} {its.unit}{allowed} from the instrument's {its.automatic:.8g}"
