"""TCP ports for listeners that go away and come back.

A port that the kernel hands out lies in the range from which it also takes the near ends of connections.
While nobody listens on it, a client that tries again and again is in the end given that very port as its own
near end, and is connected to itself (RFC 9293, 3.5: simultaneous open); the listener then finds its port
taken. So ports are chosen below that range.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 20_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 200


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on, and which no outgoing connection will take.

    Raises:
        OSError: none of many tried is free.
    """
    try:
        below = int(_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        below = 32_768
    chosen = random.SystemRandom()
    for _ in range(_TRIES):
        port = chosen.randrange(min(_LOWEST, below - 1_000), below)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free TCP port below {below} on {host}")
