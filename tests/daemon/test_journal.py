"""What the journal is told, and what a file is."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.journal import MOST_A_MINUTE, handler, message_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


def written(path: Path, *levels: int, redirected: bool = False) -> list[str]:
    """What a log of one message for each level leaves in a file, for which systemd named a stream."""
    with path.open("w") as stream:
        seen = os.fstat(stream.fileno())
        journal = f"{seen.st_dev}:{seen.st_ino + redirected}"
        to = handler(stream, journal, path / "no such socket")
        for level in levels:
            to.emit(
                logging.LogRecord("n", level, "f", 1, "line %s is down: %s", ("l", "gone\nfor now"), None)
            )
    return path.read_text().splitlines()


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_every_line_for_the_journal_has_its_priority(tmp_path: Path, level: int, priority: int) -> None:
    name = logging.getLevelName(level)
    assert written(tmp_path / "log", level) == [
        f"<{priority}>{name} line l is down: gone",
        f"<{priority}>for now",
    ]


def test_a_file_gets_stamps_instead_also_when_systemd_started_us(tmp_path: Path) -> None:
    first, second = written(tmp_path / "log", logging.ERROR, redirected=True)
    assert first[:2] == "20"
    assert first.endswith("ERROR line l is down: gone")
    assert second == "for now"


class Journal:
    """A journald as the protocol has it: a socket that takes datagrams of fields."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(5)

    def close(self) -> None:
        self._socket.close()

    def took(self) -> dict[str, str]:
        """The fields of the next message, read as journald reads them."""
        data, fields = self._socket.recv(1 << 20), {}
        while data:
            head, _, rest = data.partition(b"\n")
            name, equals, value = head.partition(b"=")
            if not equals:
                (length,) = struct.unpack_from("<Q", rest)
                value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
            fields[name.decode()] = value.decode()
            data = rest
        return fields


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "socket")
    yield made
    made.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TextIO]:
    """The stream that systemd connected."""
    with (tmp_path / "log").open("w+") as stream:
        yield stream


@pytest.fixture
def to(log: TextIO, journald: Journal) -> Iterator[logging.Handler]:
    seen = os.fstat(log.fileno())
    made = handler(log, f"{seen.st_dev}:{seen.st_ino}", journald.path)
    yield made
    made.close()


def say(to: logging.Handler, text: str, *args: object) -> None:
    to.handle(logging.LogRecord("daemon.poller", logging.WARNING, "poller.py", 42, text, args, None, "poll"))


def test_the_journal_gets_fields_and_the_id_of_a_message_whatever_it_names(
    to: logging.Handler, log: TextIO, journald: Journal
) -> None:
    say(to, "line %s is down: %s", "rs485-1", "gone\nfor now")
    first = journald.took()
    assert first == {
        "MESSAGE": "line rs485-1 is down: gone\nfor now",
        "PRIORITY": "4",
        "MESSAGE_ID": message_id("line %s is down: %s"),
        "SYSLOG_IDENTIFIER": "pondwatch",
        "LOGGER": "daemon.poller",
        "CODE_FILE": "poller.py",
        "CODE_LINE": "42",
        "CODE_FUNC": "poll",
    }
    say(to, "line %s is down: %s", "weather", "no route")
    assert journald.took()["MESSAGE_ID"] == first["MESSAGE_ID"]
    assert Path(log.name).read_text() == ""


def test_what_the_journal_does_not_take_is_said_on_the_stream(
    to: logging.Handler, log: TextIO, journald: Journal
) -> None:
    journald.close()
    say(to, "line %s is down", "rs485-1")
    assert Path(log.name).read_text() == "<4>WARNING line rs485-1 is down\n"


def test_of_one_message_so_many_a_minute_are_said_and_the_rest_counted_with_the_next(
    to: logging.Handler, journald: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    taken = 0
    for _ in range(MOST_A_MINUTE + 7):
        say(to, "%s is silent", "vw1")
        with contextlib.suppress(BlockingIOError):
            journald._socket.settimeout(0.0)
            taken += journald.took()["MESSAGE"] == "vw1 is silent"
    assert taken == MOST_A_MINUTE
    say(to, "%s is back", "vw1")  # another one is not held back with it
    assert journald.took()["MESSAGE"] == "vw1 is back"
    now_s[0] += 61.0
    say(to, "%s is silent", "vw1")
    last = journald.took()
    assert last["MESSAGE"] == "vw1 is silent (and 7 more like it)"
    assert last["MESSAGE_ID"] == message_id("%s is silent")
    say(to, "%s is silent", "vw1")
    assert journald.took()["MESSAGE"] == "vw1 is silent"
