"""The baseline of a GNSS point: show it; after a change of the base station, tie the new one by a survey.

Without --surveyed nothing changes. A tie says how far the point has moved from its origin, as surveyed apart
from the receiver; two people sign it. Displacement goes on from there: nothing is set to zero, and no alarm
is cleared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import requests
from daemon.baselines import AXES, Standing
from daemon.commands.surface import CommandError, control_socket, print_json, print_table
from daemon.commands.until import required

if TYPE_CHECKING:
    import argparse

    from drivers.gnss.baseline import Axis


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channel", help="a channel that rests on a GNSS receiver, or the receiver itself")
    parser.add_argument(
        "--last", type=int, default=5, metavar="N", help="of the last N solutions (%(default)s)"
    )
    parser.add_argument(
        "--surveyed", type=float, nargs=3, metavar=("EAST", "NORTH", "UP"),
        help="displacement from the origin as surveyed, mm",
    )  # fmt: skip
    parser.add_argument("--uncertainty", type=float, metavar="MM", help="of the survey")
    parser.add_argument("--moved", action="store_true", help="the point did move while its base was changed")
    parser.add_argument("--by", metavar="NAME", help="who surveyed")
    parser.add_argument("--witness", metavar="NAME", help="who stands beside it; another person")
    parser.add_argument("--reason", help="why")


def run(options: argparse.Namespace) -> int:
    if options.last < 1:
        raise CommandError(f"--last is {options.last}; it must be 1 or more", 2)
    request: requests.Request = requests.Baseline(options.channel, options.last)
    if options.surveyed is not None:
        by, witness, reason, uncertainty = (
            required(options, name) for name in ("by", "witness", "reason", "uncertainty")
        )
        east, north, up = options.surveyed
        request = requests.BaselineTie(
            options.channel,
            (east, north, up),
            float(uncertainty),
            by,
            witness,
            reason,
            options.last,
            options.moved,
        )
    its: Standing = requests.ask(control_socket(options), request, Standing)
    if options.json:
        print_json(its)
    else:
        _show(its)
    return 0 if its.is_known else 1


def _show(its: Standing) -> None:
    print(f"{its.device}: origin {', '.join(f'{key} {value:.10g}' for key, value in its.origin.items())}")
    print(
        f"measured from base station {its.origin_base or '(unnamed)'}; heard now: {its.base or '(unnamed)'}"
    )
    if not its.is_known:
        print("this station is not tied to the origin: its readings are uncertain until a survey ties it")
    rows = [
        (f"told, median of {its.n}", *_cells(its.told_mm)),
        ("spread", *_cells(its.spread_mm)),
        ("displacement", *_cells(its.displacement_mm)),
        (f"last certain {its.certain_time or ''}".rstrip(), *_cells(its.certain_mm)),
    ]
    rows += [
        (f"tie of {tie.base or '(unnamed)'}, {tie.time}, {tie.by} and {tie.witness}", *_cells(tie.offset_mm))
        for tie in its.ties
    ]
    print_table(("mm", *AXES), rows)


def _cells(mm: Axis | None) -> tuple[str, str, str]:
    if mm is None:
        return ("-", "-", "-")
    return (f"{mm[0]:+.2f}", f"{mm[1]:+.2f}", f"{mm[2]:+.2f}")
