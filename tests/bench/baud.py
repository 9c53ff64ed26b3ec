"""An RTU device on a pseudo-terminal that keeps the time of a wire to some microseconds; it spins, so give it a core.

A pseudo-terminal hands over bytes at once, at any baud. Here the request counts as received only when its characters
would have passed, the reply begins 3.5 characters later and comes in pieces of a FIFO's size, each when its last
character would have passed. A request that begins less than 3.5 characters after the end of the reply before it is
a violated gap, and counted.

    python -m tests.bench.baud BAUD SECONDS

prints "ready PORT" and at the end one line of JSON with what it saw.
"""

from __future__ import annotations

import json
import os
import pty
import statistics
import sys
import time
import tty
from itertools import pairwise

from tests.drivers.rtu_server import answer

FIFO = 16  # characters that a UART of the 16550 kind collects before it tells
REQUEST = 8
BITS = 10
FAST_SILENCE_S = 0.00175  # Modbus over Serial Line 1.02, 2.5.1.1


def silence_s(baud: int) -> float:
    return FAST_SILENCE_S if baud > 19200 else 3.5 * BITS / baud


def until(when: float) -> None:
    while time.monotonic() < when:
        pass


def serve(master: int, baud: int, seconds: float) -> dict[str, float]:
    """Answer for so long after the first request; what it saw of transactions of one length."""
    character_s, gap_s = BITS / baud, silence_s(baud)
    came_at, gaps_s, buffer, replies = list[float](), list[float](), b"", dict[bytes, bytes]()
    end = replied = wire_s = 0.0
    while not end or time.monotonic() < end:
        try:
            buffer += os.read(master, 256)
        except BlockingIOError:
            continue
        except OSError:  # nobody has it open
            time.sleep(0.001)
            continue
        came = time.monotonic()
        if len(buffer) < REQUEST:
            continue
        request, buffer = buffer[:REQUEST], buffer[REQUEST:]
        end = end or came + seconds
        came_at.append(came)
        gaps_s.append(came - replied)
        reply = replies.get(request) or answer(request)
        replies[request] = reply  # its checksum takes longer than a gap
        begins = came + REQUEST * character_s + gap_s
        for at in range(0, len(reply), FIFO):
            piece = reply[at : at + FIFO]
            until(begins + (at + len(piece)) * character_s)
            replied = time.monotonic()  # before the write: whatever holds us up after it is no gap
            os.write(master, piece)
        wire_s = (REQUEST + len(reply)) * character_s + 2 * gap_s
    cycles_s = [after - before for before, after in pairwise(came_at)]
    return {
        "wire_s": wire_s,
        "median_s": statistics.median(cycles_s),
        "mean_s": statistics.mean(cycles_s),
        "violations": sum(gap < gap_s for gap in gaps_s[1:]),
        "shortest_gap_s": min(gaps_s[1:]),
    }


def main() -> None:
    master, keeper = pty.openpty()
    tty.setraw(keeper)
    os.set_blocking(master, False)
    print("ready", os.ttyname(keeper), flush=True)
    print(json.dumps(serve(master, int(sys.argv[1]), float(sys.argv[2]))), flush=True)


if __name__ == "__main__":
    main()
