"""A rehearsal: outputs sound and people are called as if a pond stood at a level; payloads say `test`.

Without a pond: what is under way. A real alarm ends it at once; it ends by itself, --end ends it before.
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
    parser.add_argument("--level", choices=("blue", "yellow", "orange", "red"), default="orange")
    add_order(parser)


def run(options: argparse.Namespace) -> int:
    socket = control_socket(options)
    if options.end:
        order = requests.ask(socket, requests.RehearseEnd(required(options, "by")))
    elif options.pond is None:
        return print_orders(socket, "drill", json=options.json)
    else:
        by, reason, until = (required(options, name) for name in ("by", "reason", "until"))
        order = requests.ask(socket, requests.Rehearse(options.pond, options.level, by, reason, until))
    if options.json:
        print_json(order)
    else:
        print(f"drill of pond {order['pond']}, {order['level']}: {'ended' if options.end else 'under way'}")
    return 0
