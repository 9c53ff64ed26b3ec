"""Words to systemd: ready, reloading, stopping, a status line, and the watchdog's food.

Source: sd_notify(3), sd_watchdog_enabled(3), systemd.service(5) on Type=notify-reload.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SEND_DEADLINE_S = 0.5  # systemd reads at once; if it does not, the core has better things to do


class Notifier:
    """Speaks to the service manager, or to nobody when none started us.

    Args:
        address: the socket's path, with `@` in front for an abstract one; empty: silent.
        watchdog_s: how long the manager waits for `watchdog`; None: it does not.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """As systemd set NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID for this process."""
        pid = environment.get("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        usec = environment.get("WATCHDOG_USEC", "")
        wanted = ours and usec.isdecimal() and int(usec) > 0
        return cls(environment.get("NOTIFY_SOCKET", ""), int(usec) / 1e6 if wanted else None)

    @property
    def interval_s(self) -> float | None:
        """How often to call `watchdog`: half of what the manager waits. None: never."""
        return None if self.watchdog_s is None else self.watchdog_s / 2

    def ready(self, status: str = "") -> bool:
        return self._send("READY=1", status)

    def reloading(self, status: str = "") -> bool:
        """A reload begins; `ready` ends it. The stamp lets systemd tell it from an earlier one."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", status)

    def stopping(self, status: str = "") -> bool:
        return self._send("STOPPING=1", status)

    def status(self, text: str) -> bool:
        return self._send("", text)

    def watchdog(self) -> bool:
        return self._send("WATCHDOG=1")

    def patience(self, seconds: float) -> bool:
        """From now on the manager waits so long for `watchdog`, until this process ends."""
        return self._send(f"WATCHDOG_USEC={int(seconds * 1e6)}")

    def _send(self, state: str, status: str = "") -> bool:
        """One datagram; whether it was taken. A manager that cannot hear us stops nothing."""
        if not self._address:
            return False
        line = " ".join(status.split())
        message = "\n".join(part for part in (state, f"STATUS={line}" if line else "") if part)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.settimeout(_SEND_DEADLINE_S)
                out.sendto(message.encode(), self._address)
        except OSError:
            return False
        return True
