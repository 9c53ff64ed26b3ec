"""A gateway out of a backup, onto a box without a store: looked through first, then put in its place.

A site file that is there stays. The core then begins a new stream and announces what may lack of the old one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daemon import backup
from daemon.backup import BackupError, Place
from daemon.commands.surface import CommandError, load_site, print_json
from daemon.founding.enrol import to_owner
from daemon.founding.written import STORE
from daemon.seal import HeadBusy

if TYPE_CHECKING:
    import argparse


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="made by pondwatch backup")
    parser.add_argument(
        "--store", type=Path, metavar="FOLDER", help=f"default: that of the site file there, else {STORE}"
    )


def run(options: argparse.Namespace) -> int:
    store = options.store
    if store is None:
        store = load_site(options).store_folder if options.config.exists() else Path(STORE)
    try:
        made, placed = backup.restore(options.file, Place(options.config, store))
    except BackupError as error:
        raise CommandError(str(error), 1) from None
    except HeadBusy:
        raise CommandError(f"a core writes {store}: stop it first", 3) from None
    to_owner(store)
    if options.json:
        print_json({"stream": made.stream, "last_seq": made.last_seq, "site_file": placed})
        return 0
    print(f"{store}: stream {made.stream} up to batch {made.last_seq}, backed up at {made.time}")
    print(f"{options.config}: {'put there' if placed else 'was there, and stays'}")
    if not made.has_keys:
        print("without its private key: a new chain of keys begins; tell the platform its first id")
    print("the core begins a new stream and announces what may lack; pondwatch check, then start it")
    return 0
