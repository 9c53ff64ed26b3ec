"""What systemd hears, with a datagram socket in its place."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.commands.rules import COMPILE_S, Watchdog
from daemon.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket as systemd has it, and its address as NOTIFY_SOCKET would name it."""
    name = f"pondwatch-test-{os.getpid()}"
    address = f"@{name}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}" if request.param == "abstract" else address)
        listening.settimeout(2)
        yield address, listening


def test_every_word_is_one_datagram_in_the_words_of_sd_notify(manager: tuple[str, socket.socket]) -> None:
    address, listening = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    before_us = time.monotonic_ns() // 1000
    assert notifier.ready("3 lines, 12 devices")
    assert notifier.watchdog()
    assert notifier.status("uplink company\nis away")
    assert notifier.reloading()
    assert notifier.stopping()
    heard = [listening.recv(1000).decode() for _ in range(5)]
    assert heard[:3] == [
        "READY=1\nSTATUS=3 lines, 12 devices",
        "WATCHDOG=1",
        "STATUS=uplink company is away",  # a second line would be a second assignment
    ]
    word, _, stamp = heard[3].partition("\nMONOTONIC_USEC=")
    assert word == "RELOADING=1"
    assert before_us <= int(stamp) <= time.monotonic_ns() // 1000
    assert heard[4] == "STOPPING=1"


def test_without_a_manager_nothing_is_said() -> None:
    notifier = Notifier.from_environment({})
    assert not notifier.ready()
    assert notifier.interval_s is None


def test_a_manager_that_went_away_stops_nothing(tmp_path: Path) -> None:
    assert not Notifier(str(tmp_path / "gone")).watchdog()


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time_and_only_by_whom_it_waits_for(
    environment: dict[str, str], interval_s: float | None
) -> None:
    assert Notifier.from_environment(environment).interval_s == interval_s


def test_the_rules_process_asks_for_patience_while_it_compiles_and_is_then_fed_by_progress_alone(
    manager: tuple[str, socket.socket],
) -> None:
    address, listening = manager
    progress = Watchdog(Notifier(address, watchdog_s=60.0))
    assert listening.recv(1000).decode() == f"WATCHDOG_USEC={int(COMPILE_S * 1e6)}"
    for _ in range(100):  # many batches in a moment
        progress()
    assert [listening.recv(1000).decode() for _ in range(2)] == ["WATCHDOG_USEC=60000000", "WATCHDOG=1"]
    listening.setblocking(False)
    with pytest.raises(BlockingIOError):
        listening.recv(1000)


def test_where_nobody_waits_for_it_the_rules_process_says_nothing(manager: tuple[str, socket.socket]) -> None:
    """As a child of a core that systemd watches: it has the core's address, and is not its main process."""
    address, listening = manager
    Watchdog(Notifier(address))()
    listening.setblocking(False)
    with pytest.raises(BlockingIOError):
        listening.recv(1000)
