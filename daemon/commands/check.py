"""Read the site file: everything that is wrong with it, what a person should know, how busy each line is.

And of each uplink, which of a pond's required items it carries.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from daemon.carried import Carried, carried
from daemon.check_devices import LineLoad, line_loads
from daemon.commands.surface import print_json, print_table, unreadable
from daemon.config import Site, SiteFileError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def options(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    site = whole(options.config, json=options.json)
    if site is None:
        return 1
    loads = line_loads(site)
    if options.json:
        told = [each._asdict() for each in carried(site)]
        print_json({"problems": [], "warnings": site.warnings, "lines": loads, "uplinks": told})
        return 0
    print(
        f"{options.config}: site {site.site.id}, gateway {site.site.gateway}: {len(site.ponds)} ponds, "
        f"{len(site.devices)} devices, {len(site.channels)} channels, {len(site.uplinks)} uplinks"
    )
    for warning in site.warnings:
        print(f"warning: {warning}")
    if loads:
        print_table(("line", "kind", "devices", "busy"), [_row(load) for load in loads])
    for each in carried(site):
        print(_said(each))
    print("no problem found")
    return 0


def whole(path: Path, *, json: bool) -> Site | None:
    """The site file at `path`; None where it has mistakes, all of which were said.

    Raises:
        CommandError: it cannot be read.
    """
    try:
        return Site.load(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except SiteFileError as error:
        if json:
            print_json({"problems": error.problems, "warnings": [], "lines": [], "uplinks": []})
        for problem in error.problems:
            print(f"{path}: {problem}", file=sys.stderr)
        return None


def _said(its: Carried) -> str:
    """`uplink province (tailings-files), pond n: carries pond-level; cannot express turbidity`."""
    lists = {
        "carries": its.carries,
        "leaves out": its.leaves_out,
        "cannot express": its.cannot_express,
        "not monitored:": its.not_monitored,
    }
    parts = [f"{what} {', '.join(items)}" for what, items in lists.items() if items]
    return f"uplink {its.uplink} ({its.kind}), pond {its.pond}: {'; '.join(parts)}"


def _row(load: LineLoad) -> tuple[str, ...]:
    busy = "-" if load.share is None else f"{load.share:.1%}"
    return load.line, load.kind, str(load.devices), busy
