"""What is said to the journal: each message with its priority, its id and where in the program it stands.

The id is made of the message's text before anything is put into it, so `journalctl MESSAGE_ID=...` finds all
of a kind, and docs/messages.md has each with its cause and remedy. One that comes too often is held back, and
counted.
Source: systemd's "Native Journal Protocol"; sd-daemon(3) for the prefixes used where its socket is not there.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

if TYPE_CHECKING:
    from typing import TextIO

SOCKET: Final = Path("/run/systemd/journal/socket")
MOST_A_MINUTE: Final = 60  # of one message; the journal's own limit would hold back everything alike
_MINUTE_S: Final = 60.0
_MOST_BYTES: Final = 64 * 1024  # of one field; a datagram has to hold the message
_NAMESPACE: Final = UUID("6f0c2f5e-4c0f-4b8a-9d83-0c1be3d5a8a1")  # of our message ids
# syslog(3): the most important that a level is not below
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG: Final = 7
_MORE: Final = " (and %d more like it)"


def message_id(text: str) -> str:
    """The id of a message by its text in the program, as the journal has it: 32 hex digits."""
    return uuid5(_NAMESPACE, text).hex


def handler(stream: TextIO, journal: str, native: Path = SOCKET) -> logging.Handler:
    """Stamped lines for people and files; fields, or lines with a priority, if the journal reads `stream`.

    `journal` is JOURNAL_STREAM, device and inode of what systemd connected (systemd.exec(5)); somebody may
    have redirected `stream` since, so it is compared.
    """
    seen = os.fstat(stream.fileno())
    if journal != f"{seen.st_dev}:{seen.st_ino}":
        made: logging.Handler = logging.StreamHandler(stream)
        made.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    elif native.is_socket():
        made = Native(native, stream)
    else:
        made = _prefixed(stream)
    made.addFilter(Sparing())
    return made


class Sparing(logging.Filter):
    """Lets `MOST_A_MINUTE` of one message through, and says how many it held back with the next."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}  # text -> since when, how many

    def filter(self, record: logging.LogRecord) -> bool:
        now_s, text = time.monotonic(), str(record.msg)
        since_s, count = self._seen.get(text, (now_s, 0))
        if now_s - since_s >= _MINUTE_S:
            if count > MOST_A_MINUTE:
                record.msg, record.args = text + _MORE, (*_args(record), count - MOST_A_MINUTE)
            since_s, count = now_s, 0
        self._seen[text] = (since_s, count + 1)
        return count < MOST_A_MINUTE


class Native(logging.Handler):
    """Sends each message as fields; one that the journal does not take goes to `stream`."""

    def __init__(self, path: Path, stream: TextIO) -> None:
        super().__init__()
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(0.0)  # a journal that hangs must not hang us
        self._beside = _prefixed(stream)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._socket.sendto(_datagram(record, self.format(record)), self._path)
        except OSError:
            self._beside.emit(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def _args(record: logging.LogRecord) -> tuple[object, ...]:
    return record.args if isinstance(record.args, tuple) else ()


class _Prefixed(logging.Formatter):
    """Also the lines of a traceback have the priority of what they explain."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(f"<{_priority(record)}>{line}" for line in super().format(record).split("\n"))


def _prefixed(stream: TextIO) -> logging.Handler:
    made = logging.StreamHandler(stream)
    made.setFormatter(_Prefixed("%(levelname)s %(message)s"))
    return made


def _priority(record: logging.LogRecord) -> int:
    return next((each for level, each in _PRIORITIES if record.levelno >= level), _DEBUG)


def _datagram(record: logging.LogRecord, text: str) -> bytes:
    fields = {
        "MESSAGE": text,
        "PRIORITY": str(_priority(record)),
        "MESSAGE_ID": message_id(str(record.msg).removesuffix(_MORE)),
        "SYSLOG_IDENTIFIER": "pondwatch",
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
    }
    return b"".join(_field(name, value.encode()[:_MOST_BYTES]) for name, value in fields.items())


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
