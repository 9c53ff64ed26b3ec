"""The alarm book: who, when, what was done. `list` ends with 1 while an alarm is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from daemon import requests
from daemon.alarms import Alarm
from daemon.commands.surface import CommandError, control_socket, print_json, print_table

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

_DEEDS: dict[str, tuple[type[requests.AlarmsAck], str]] = {
    "ack": (requests.AlarmsAck, "签收: somebody has seen it"),
    "assign": (requests.AlarmsAssign, "somebody is to see to it"),
    "handle": (requests.AlarmsHandle, "处置: what was done about it"),
    "close": (requests.AlarmsClose, "解除: handled, and the condition is gone"),
}


def options(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(
        dest="do", metavar="list|show|ack|ack-all|assign|handle|close|label|handover"
    )
    verbs.add_parser("list", help="those that are not closed (the default)")
    verbs.add_parser("show", help="one alarm, all of it").add_argument("id")
    everything = verbs.add_parser("ack-all", help="签收: all that is new, of a pond or of the site")
    everything.add_argument("pond", nargs="?")
    everything.add_argument("--by", required=True, metavar="NAME", help="who")
    everything.add_argument("--role", help="in which role")
    everything.add_argument("--note", help="what was found")
    handover = verbs.add_parser("handover", help="交接班: what is open; with --by and --to it is signed")
    handover.add_argument("--by", metavar="NAME", help="who hands over")
    handover.add_argument("--to", metavar="NAME", help="who takes over")
    handover.add_argument("--note", help="what the next shift should know")
    label = verbs.add_parser(
        "label", help="what an engineer makes of it, open or closed; pondwatch report --shadow sums up"
    )
    label.add_argument("id")
    which = label.add_mutually_exclusive_group(required=True)
    for name, what in (
        ("real", "the dam, the water or the instrument was as it says"),
        ("false", "nothing was"),
        ("unsure", "nobody can tell"),
    ):
        which.add_argument(f"--{name}", dest="label", action="store_const", const=name, help=what)
    label.add_argument("--by", required=True, metavar="NAME", help="who")
    label.add_argument("--note", help="what it was")
    for name, (_, what) in _DEEDS.items():
        deed = verbs.add_parser(name, help=what)
        deed.add_argument("id")
        deed.add_argument("--by", required=True, metavar="NAME", help="who")
        deed.add_argument("--role", help="in which role")
        if name == "assign":
            deed.add_argument("--to", required=True, dest="note", metavar="NAME", help="to whom")
        else:
            deed.add_argument("--note", required=name == "handle", help="what was found or done")


def run(options: argparse.Namespace) -> int:
    socket = control_socket(options)
    if options.do in (None, "list"):
        return _list(requests.ask(socket, requests.AlarmsList(), list[Alarm]), json=options.json)
    if options.do == "handover":
        return _handover(socket, options)
    if options.do == "ack-all":
        request = requests.AlarmsAckAll(options.by, options.pond, options.role, options.note)
        return _list(requests.ask(socket, request, list[Alarm]), json=options.json) and 0
    if options.do == "show":
        alarm = requests.ask(socket, requests.AlarmsShow(options.id), Alarm)
    elif options.do == "label":
        asked: requests.Request = requests.AlarmsLabel(options.id, options.label, options.by, options.note)
        alarm = requests.ask(socket, asked, Alarm)
    else:
        deed, _ = _DEEDS[options.do]
        asked = deed(id=options.id, by=options.by, role=options.role, note=options.note)
        alarm = requests.ask(socket, asked, Alarm)
    if options.json:
        print_json(alarm)
    else:
        _show(alarm)
    return 0


def _list(alarms: list[Alarm], *, json: bool) -> int:
    if json:
        print_json(alarms)
    elif alarms:
        rows = [(a.level, a.condition, a.response, a.due, a.id, a.reason.zh) for a in alarms]
        print_table(("level", "condition", "response", "due", "id", "reason"), rows)
    else:
        print("no alarm is open")
    return int(bool(alarms))


def _handover(socket: Path, options: argparse.Namespace) -> int:
    """The list, and, with two names, that it was handed over."""
    if bool(options.by) != bool(options.to):
        raise CommandError("a hand-over is signed by both: give --by and --to, or neither", 2)
    request: requests.Request = requests.Handover()
    if options.by:
        request = requests.HandoverSign(options.by, options.to, options.note)
    left = requests.ask(socket, request)
    if options.json:
        print_json(left)
        return 0
    _list(msgspec.convert(left["open"], list[Alarm]), json=False)
    for title, names in (
        ("overdue", left["overdue"]),
        ("under maintenance", [order["target"] for order in left["maintenance"]]),
        ("drill", [left["drill"]["pond"]] if left["drill"] else []),
        ("muted", [order["pond"] for order in left["muted"]]),
        ("missing", left["missing"]),
    ):
        print(f"{title + ':':19}{', '.join(names) or 'none'}")
    if options.by:
        print(f"handed over by {options.by}, taken over by {options.to}")
    return 0


def _show(alarm: Alarm) -> None:
    for name in alarm.__struct_fields__:
        value = getattr(alarm, name)
        if name == "reason":
            print(f"{name:16}  {value.zh}\n{'':16}  {value.en}")
        elif value not in (None, {}):
            print(f"{name:16}  {value}")
