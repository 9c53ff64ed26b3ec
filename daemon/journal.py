"""What the core says to the journal: each line with its priority before it, as sd-daemon(3) has it.

Without them the journal takes every line for equally important, and `journalctl -p warning` shows nothing.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import TextIO

# syslog(3): the most important that a level is not below
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG: Final = 7


class Prefixed(logging.Formatter):
    """Also the lines of a traceback have the priority of what they explain."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((each for level, each in _PRIORITIES if record.levelno >= level), _DEBUG)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


def handler(stream: TextIO, journal: str) -> logging.Handler:
    """Lines for `stream`: stamped for people and files, with a priority if the journal reads it.

    `journal` is JOURNAL_STREAM, device and inode of what systemd connected (systemd.exec(5)); somebody may
    have redirected `stream` since, so it is compared.
    """
    made = logging.StreamHandler(stream)
    seen = os.fstat(stream.fileno())
    if journal == f"{seen.st_dev}:{seen.st_ino}":
        made.setFormatter(Prefixed("%(levelname)s %(message)s"))
    else:
        made.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return made
