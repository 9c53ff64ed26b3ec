from __future__ import annotations

import socket
from pathlib import Path

from hardware_sim.ports import free_port


def test_a_chosen_port_is_free_and_never_the_near_end_of_a_connection() -> None:
    lowest_near_end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(50):
        port = free_port()
        assert 1024 < port < lowest_near_end
        with socket.create_server(("127.0.0.1", port)):
            pass
