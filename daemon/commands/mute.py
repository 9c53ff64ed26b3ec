"""Sound off for a while: alarms, lamps, calls and records go on; a higher level is heard.

Without a pond: what is muted. It ends by itself, for each level after the site file's longest; --end ends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import requests
from daemon.commands.surface import control_socket, print_json
from daemon.commands.until import add_order, print_orders, required

if TYPE_CHECKING:
    import argparse


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pond", nargs="?")
    add_order(parser)


def run(options: argparse.Namespace) -> int:
    socket = control_socket(options)
    if options.pond is None:
        return print_orders(socket, "muted", json=options.json)
    if options.end:
        order = requests.ask(socket, requests.MuteEnd(options.pond, required(options, "by")))
    else:
        by, reason, until = (required(options, name) for name in ("by", "reason", "until"))
        order = requests.ask(socket, requests.MuteSound(options.pond, by, reason, until))
    if options.json:
        print_json(order)
    else:
        print(f"pond {order['pond']}: {'heard again' if options.end else 'muted up to ' + order['level']}")
    return 0
