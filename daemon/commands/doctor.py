"""A support bundle: versions, site file masked, state, metrics, store, clock, ports, journal; no secrets.

Look into it before it leaves: names of people who acknowledged alarms are in the core's own answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daemon.bundle import Bundle
from daemon.commands.surface import CommandError, print_json
from daemon.founding.enrol import SECRETS

if TYPE_CHECKING:
    import argparse


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to", type=Path, default=Path("pondwatch-doctor.tar.gz"), metavar="FILE", help="(%(default)s)"
    )
    parser.add_argument("--secrets", type=Path, default=SECRETS, help="folder of keys (%(default)s)")


def run(options: argparse.Namespace) -> int:
    if options.to.exists():
        raise CommandError(f"{options.to} is there already: choose another name", 2)
    bundle = Bundle(options.config, options.run_dir, options.secrets)
    bundle.collect()
    names = bundle.write(options.to)
    if options.json:
        print_json({"to": str(options.to), "parts": names})
    else:
        print(f"{options.to}: {', '.join(names)}")
        print("secrets are masked; look into it before it leaves")
    return 0
