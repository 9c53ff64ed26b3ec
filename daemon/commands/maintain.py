"""Maintenance of a device or line: what it says is stored as uncertain and is no evidence for any level.

Without a target: what is under way. It ends by itself; --end ends it before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import requests
from daemon.commands.surface import control_socket, print_json
from daemon.commands.until import add_order, print_orders, required

if TYPE_CHECKING:
    import argparse


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", help="device or line")
    add_order(parser)


def run(options: argparse.Namespace) -> int:
    socket = control_socket(options)
    if options.target is None:
        return print_orders(socket, "maintenance", json=options.json)
    if options.end:
        by = required(options, "by")
        order = requests.ask(socket, requests.MaintainEnd(options.target, by))
    else:
        by, reason, until = (required(options, name) for name in ("by", "reason", "until"))
        order = requests.ask(socket, requests.Maintain(options.target, by, reason, until))
    if options.json:
        print_json(order)
    else:
        what = "ended" if options.end else "under maintenance"
        print(f"{options.target}: {what}, devices {', '.join(order['devices'])}")
    return 0
