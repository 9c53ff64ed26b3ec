"""The simulator alone: instruments on pseudo-terminals and TCP, and a receiving platform."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import argparse


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "rest", nargs="...", metavar="[SCENARIO] ...", help="as python -m hardware_sim takes them"
    )


def run(options: argparse.Namespace) -> NoReturn:
    """Becomes the simulator: bench and daemon share no process."""
    os.execv(sys.executable, [sys.executable, "-m", "hardware_sim", *(options.rest or ["calm"])])  # noqa: S606 -- our own program
