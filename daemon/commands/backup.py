"""This gateway in one file: store, site file, certificates and seals; the core may run meanwhile.

The private signing key is in it with --with-keys only, TLS keys and passwords never: see docs/backup.md.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from daemon import backup
from daemon.backup import BackupError
from daemon.clock import Clock
from daemon.commands.surface import CommandError, load_site, print_json
from daemon.reading import rfc3339

if TYPE_CHECKING:
    import argparse


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="as gw1-2026-11.tar.gz")
    parser.add_argument(
        "--with-keys", action="store_true", help="the private signing key too: guard the file"
    )


def run(options: argparse.Namespace) -> int:
    site, to = load_site(options), options.to
    if to.exists():
        raise CommandError(f"{to} is there already: choose another name", 2)
    try:
        made = backup.make(
            site, to, version("pondwatch"), rfc3339(Clock().wall_ns()), with_keys=options.with_keys
        )
    except BackupError as error:
        raise CommandError(str(error), 1) from None
    if options.json:
        print_json(made)
    else:
        print(f"{to}: stream {made.stream} up to batch {made.last_seq}, {to.stat().st_size} bytes")
        keys = "with the private signing key: guard it" if made.has_keys else "without private keys"
        print(f"{keys}; TLS keys and passwords are not in it")
    return 0
