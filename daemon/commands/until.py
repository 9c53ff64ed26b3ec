"""What maintain, drill and mute share: who, why, until when, and the list of what is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import requests
from daemon.commands.surface import CommandError, print_json, print_table
from daemon.reading import rfc3339

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def add_order(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", metavar="NAME", help="who orders it")
    parser.add_argument("--reason", help="why")
    parser.add_argument("--until", metavar="TIME", help="a duration, '2 h', or an instant, RFC 3339")
    parser.add_argument("--end", action="store_true", help="end it now")


def required(options: argparse.Namespace, name: str) -> str:
    """Raises CommandError: the option was not given."""
    value: str | None = getattr(options, name)
    if value is None:
        raise CommandError(f"--{name} is missing", 2)
    return value


def print_orders(socket: Path, kind: str, *, json: bool) -> int:
    """The modes of one kind (maintenance, drill, muted) that are under way."""
    left = requests.ask(socket, requests.Handover())
    left["drill"] = [left["drill"]] if left["drill"] else []
    orders = left[kind]
    if json:
        print_json(orders)
    elif orders:
        rows = [
            (
                order["target" if kind == "maintenance" else "pond"],
                order["by"],
                order["reason"],
                rfc3339(order["until_ns"]),
            )
            for order in orders
        ]
        print_table(("of", "by", "reason", "until"), rows)
    else:
        print("nothing is under way")
    return 0
