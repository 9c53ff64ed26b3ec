"""Run the core until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from daemon import app
from daemon.clock import BenchRateRefused
from daemon.commands.surface import CommandError, load_site
from daemon.control import SocketTaken
from daemon.spool import StoreError

if TYPE_CHECKING:
    import argparse


def options(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    # The journal stamps what it takes.
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(level=logging.INFO, format=f"{stamp}%(levelname)s %(message)s")
    site = load_site(options)
    for warning in site.warnings:
        logging.getLogger(__name__).warning("%s: %s", options.config, warning)
    try:
        return app.run(site, options.run_dir)
    except (BenchRateRefused, SocketTaken, StoreError) as error:
        raise CommandError(str(error), 3) from None
