"""Readings as they come, until Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from daemon import requests
from daemon.commands.surface import control_socket

if TYPE_CHECKING:
    import argparse


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="default: all")


class _Shown(msgspec.Struct):
    """What a person is shown of a reading."""

    channel: str
    time: str
    value: float | None
    unit: str
    quality: str


def run(options: argparse.Namespace) -> int:
    request = requests.Tail(tuple(options.channels))
    for row in requests.stream(control_socket(options), request, msgspec.Raw):
        print(
            bytes(row).decode() if options.json else _line(msgspec.json.decode(row, type=_Shown)), flush=True
        )
    return 0


def _line(row: _Shown) -> str:
    value = "-" if row.value is None else f"{row.value:.8g}"
    return f"{row.time}  {row.channel:28}  {value:>14} {row.unit:8}  {row.quality}"
