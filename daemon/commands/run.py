"""Run the core until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from daemon import app, journal, site_watch
from daemon.clock import BenchRateRefused
from daemon.commands.surface import CommandError, load_site
from daemon.config import SiteFileError
from daemon.control import SocketTaken
from daemon.spool import StoreError

if TYPE_CHECKING:
    import argparse

    from daemon.config import Site


log = logging.getLogger(__name__)


def options(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    to = journal.handler(sys.stderr, os.environ.get("JOURNAL_STREAM", ""))
    logging.basicConfig(level=logging.INFO, handlers=[to])
    site, trouble = _loaded(options)
    for warning in site.warnings:
        log.warning("%s: %s", options.config, warning)
    again = _run(options, site, trouble)
    if again:  # the same process, so that systemd sees a reload and no end
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # is kept by what we become, until it listens
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 -- ourselves
    return 0


def _run(options: argparse.Namespace, site: Site, trouble: str) -> bool:
    """As `app.run`; where the site file's store cannot be had, by the last good site file."""
    try:
        return app.run(site, options.run_dir, options.config, trouble)
    except (BenchRateRefused, SocketTaken, StoreError, OSError) as error:
        good = site_watch.last_good(site_watch.folder(options.run_dir))
        if isinstance(error, SocketTaken) or good is None or good.sha256 == site.sha256:
            if isinstance(error, OSError):  # every verb says it in the same way
                raise
            raise CommandError(str(error), 3) from None
        log.error("the last good site file is used: %s", error)  # noqa: TRY400 -- a sentence is enough
        return app.run(good, options.run_dir, options.config, str(error))


def _loaded(options: argparse.Namespace) -> tuple[Site, str]:
    """The site file, or the last good one and why; the first mistake where there is neither."""
    try:
        site, trouble = site_watch.load(options.config, site_watch.folder(options.run_dir))
    except SiteFileError:
        return load_site(options), ""  # says it as every verb does
    if trouble:
        log.error("%s cannot be used, the last good one is: %s", options.config, trouble)
    return site, trouble
