"""The alarm book: who, when, what was done. `list` ends with 1 while an alarm is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import requests
from daemon.alarms import Alarm
from daemon.commands.surface import control_socket, print_json, print_table

if TYPE_CHECKING:
    import argparse

_DEEDS: dict[str, tuple[type[requests.AlarmsAck], str]] = {
    "ack": (requests.AlarmsAck, "签收: somebody has seen it"),
    "assign": (requests.AlarmsAssign, "somebody is to see to it"),
    "handle": (requests.AlarmsHandle, "处置: what was done about it"),
    "close": (requests.AlarmsClose, "解除: handled, and the condition is gone"),
}


def options(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="do", metavar="list|show|ack|assign|handle|close")
    verbs.add_parser("list", help="those that are not closed (the default)")
    verbs.add_parser("show", help="one alarm, all of it").add_argument("id")
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
    if options.do == "show":
        alarm = requests.ask(socket, requests.AlarmsShow(options.id), Alarm)
    else:
        deed, _ = _DEEDS[options.do]
        request = deed(id=options.id, by=options.by, role=options.role, note=options.note)
        alarm = requests.ask(socket, request, Alarm)
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


def _show(alarm: Alarm) -> None:
    for name in alarm.__struct_fields__:
        value = getattr(alarm, name)
        if name == "reason":
            print(f"{name:16}  {value.zh}\n{'':16}  {value.en}")
        elif value not in (None, {}):
            print(f"{name:16}  {value}")
